//! Each operation once, and what its answers mean.

use agent_loop::forge::{
    CheckStatus, CommentId, Conclusion, Create, Deleted, Forge, ForgeError, IssueNumber, IssueState, JobId,
    MergeAnswer, MergeMethod, MergeSeen, MergeState, Moved, RefName, RequiredCheck, RunId, Scopes, StatusState,
    WriteError,
};
use agent_loop_tests::fake_github::Ci;

use super::{branch, main_of, play, pull, sha};

#[test]
fn who_we_are_and_what_we_may_do_is_told() {
    play(async |fake, github| {
        let identity = github.identity().await.expect("it answers");
        assert_eq!((identity.login.0.as_str(), identity.app), ("agent-loop-bot", None));
        assert_eq!(identity.scopes, Scopes::Classic(vec!["repo".to_owned(), "workflow".to_owned()]));
        fake.world().scopes = None;
        assert_eq!(github.identity().await.expect("it answers").scopes, Scopes::Untold);
        let repository = github.repository().await.expect("it answers");
        assert_eq!((repository.name.as_str(), repository.default_branch.as_str()), ("octo-org/playground", "main"));
        assert_eq!(repository.push, Some(true));
        assert!(fake.heard().iter().all(|heard| !heard.agent.is_empty()), "GitHub answers nobody without a name");
        assert!(github.now().is_some(), "the clock of the forge came with the answer");
        let hourly = github.limits().hourly.expect("so did its limit");
        assert_eq!((hourly.limit, hourly.remaining), (5_000, 4_997));
    });
}

#[test]
fn issues_are_listed_whole_and_pull_requests_are_none() {
    play(async |fake, github| {
        let ready = "State/Ready";
        let expected: Vec<u64> = {
            let mut world = fake.world();
            pull(&mut world);
            (0..250).map(|n| world.open_issue(&format!("Issue {n}"), "guettli", &[ready, "Prio/High"])).collect()
        };
        fake.world().open_issue("not ready", "guettli", &["Prio/High"]);
        let closed = fake.world().open_issue("closed", "guettli", &[ready, "Prio/High"]);
        fake.world().close(closed);
        let labels = [ready.to_owned(), "Prio/High".to_owned()];
        let issues = github.open_issues(&labels).await.expect("it answers");
        assert_eq!(issues.iter().map(|issue| issue.number.0).collect::<Vec<_>>(), expected);
        assert_eq!(fake.count("GET", "/issues"), 3, "a hundred on each page");
        let all = github.open_issues(&[]).await.expect("it answers");
        assert_eq!(all.len(), 251, "the pull request is no issue");
    });
}

#[test]
fn an_issue_is_read_labelled_and_closed() {
    play(async |fake, github| {
        let number = fake.world().open_issue("Odd label", "guettli", &["State/Ready"]);
        let issue = IssueNumber(number);
        let odd = "was ist/los? 100% \u{e4}".to_owned();
        let read = github.issue(issue).await.expect("it is there");
        assert_eq!((read.title.as_str(), &read.state, read.is_pull), ("Odd label", &IssueState::Open, false));
        assert!(read.author.is_some_and(|author| author.0 == "guettli"));
        let labels = github.add_labels(issue, &["State/InProgress".to_owned(), odd.clone()]).await.expect("it is done");
        assert_eq!(labels, ["State/Ready", "State/InProgress", odd.as_str()]);
        assert_eq!(github.remove_label(issue, &odd).await, Ok(Deleted::Gone));
        assert_eq!(github.remove_label(issue, &odd).await, Ok(Deleted::WasNot));
        let events = github.label_events(issue).await.expect("it answers");
        let told: Vec<_> = events.iter().map(|event| (event.label.as_str(), event.added)).collect();
        assert_eq!(
            told,
            [("State/Ready", true), ("State/InProgress", true), (odd.as_str(), true), (odd.as_str(), false)]
        );
        assert!(events[0].by.as_ref().is_some_and(|by| by.0 == "guettli"));
        assert!(matches!(github.issue(IssueNumber(999)).await, Err(ForgeError::Gone { .. })));
    });
}

#[test]
fn i14_a_comment_on_the_second_page_is_found() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        for n in 0..149 {
            fake.world().comment(issue.0, "somebody", &format!("words {n}"));
        }
        let ours = github.create_comment(issue, "<!-- agent-loop:v1 -->\nours").await.expect("it is written");
        let comments = github.comments(issue).await.expect("it answers");
        assert_eq!(comments.len(), 150);
        let found: Vec<_> = comments.iter().filter(|it| it.text.contains("agent-loop:v1")).map(|it| it.id).collect();
        assert_eq!(found, [ours.id]);
        assert_eq!(fake.count("GET", "/comments"), 2);
        let edited = github.edit_comment(ours.id, "other words").await.expect("it is changed");
        assert_eq!((edited.id, edited.text.as_str()), (ours.id, "other words"));
        assert_eq!(github.delete_comment(ours.id).await, Ok(Deleted::Gone));
        assert_eq!(github.delete_comment(ours.id).await, Ok(Deleted::WasNot));
        let gone = github.edit_comment(CommentId(1), "x").await;
        assert!(matches!(gone, Err(WriteError::NotDone(ForgeError::Gone { .. }))), "{gone:?}");
    });
}

#[test]
fn i13_a_claim_is_made_by_one_and_taken_over_by_one() {
    play(async |fake, github| {
        let base = main_of(&fake.world());
        let claim = RefName::claim(IssueNumber(7));
        assert_eq!(github.reference(&claim).await, Ok(None));
        let first = github.create_commit("host a\nrun 1", &base, std::slice::from_ref(&base)).await.expect("an object");
        let second =
            github.create_commit("host b\nrun 2", &base, std::slice::from_ref(&base)).await.expect("an object");
        assert_eq!(github.create_ref(&claim, &first).await, Ok(Create::Created));
        assert_eq!(github.create_ref(&claim, &second).await, Ok(Create::Taken));
        let refs = github.references(&RefName::claims()).await.expect("it answers");
        assert_eq!(refs.iter().map(|it| (it.claimed(), &it.at)).collect::<Vec<_>>(), [(Some(IssueNumber(7)), &first)]);
        let read = github.commit(&first).await.expect("it is there");
        assert_eq!((read.message.as_str(), read.parents.as_slice()), ("host a\nrun 1", std::slice::from_ref(&base)));

        // Two hosts see the same claim as given up; each puts a commit of its own on top.
        let by_b = github.create_commit("host b", &base, std::slice::from_ref(&first)).await.expect("an object");
        let by_c = github.create_commit("host c", &base, std::slice::from_ref(&first)).await.expect("an object");
        assert_eq!(github.advance_ref(&claim, &by_b).await, Ok(Moved::Moved));
        assert!(matches!(github.advance_ref(&claim, &by_c).await, Ok(Moved::Refused(_))));
        assert_eq!(github.reference(&claim).await, Ok(Some(by_b.clone())));

        assert_eq!(github.delete_ref(&claim, &first).await, Ok(Deleted::Kept), "it is no longer ours");
        assert_eq!(github.delete_ref(&claim, &by_b).await, Ok(Deleted::Gone));
        assert_eq!(github.delete_ref(&claim, &by_b).await, Ok(Deleted::WasNot));
        assert!(matches!(github.advance_ref(&claim, &by_c).await, Ok(Moved::Refused(_))), "it is gone");
        let none = sha(&"1".repeat(40));
        let nothing = github.create_ref(&claim, &none).await;
        assert!(matches!(nothing, Err(WriteError::NotDone(ForgeError::Refused { .. }))), "not taken: {nothing:?}");
    });
}

#[test]
fn i16_a_pull_request_is_opened_merged_at_its_head_and_proven() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Fix it", "guettli", &[]));
        fake.world().closes = false;
        let head = sha(&fake.world().push("issue-1-fix", "fix.txt", "fixed\n"));
        let (from, base) = (branch("issue-1-fix"), branch("main"));
        let opened = github.create_pull(&from, &base, "Fix it", "Closes #1").await.expect("it is opened");
        let pull = opened.summary.number;
        let again = github.create_pull(&from, &base, "Fix it", "Closes #1").await;
        let Err(WriteError::NotDone(ForgeError::Refused { said, .. })) = again else { panic!("{again:?}") };
        assert!(said.contains("already exists"), "{said}");
        let listed = github.pulls_from(&from).await.expect("it answers");
        assert_eq!(listed.iter().map(|it| (it.number, &it.head)).collect::<Vec<_>>(), [(pull, &head)]);
        assert_eq!(github.pulls_from(&branch("other")).await.expect("it answers").len(), 0);
        let read = github.pull(pull).await.expect("it is there");
        assert_eq!((read.mergeable, &read.merge_state, read.merged), (Some(true), &MergeState::Clean, false));
        assert_eq!(github.contains(&base, &head).await, Ok(false));
        assert!(matches!(github.merged(pull, &head).await, Ok(MergeSeen::NotProven(_))));

        let answer = github.merge(pull, &head, MergeMethod::Merge).await.expect("an answer");
        assert!(matches!(answer, MergeAnswer::Accepted { merged: true, commit: Some(_) }), "{answer:?}");
        let Ok(MergeSeen::Merged(proof)) = github.merged(pull, &head).await else { panic!("it is merged") };
        assert_eq!((proof.pull(), proof.head(), proof.commit()), (pull, &head, &main_of(&fake.world())));
        assert_eq!(github.contains(&base, &head).await, Ok(true));
        let other = sha(&"2".repeat(40));
        assert!(matches!(github.merged(pull, &other).await, Ok(MergeSeen::NotProven(_))), "with another head");
        github.close_issue(issue, &proof).await.expect("it is done");
        assert_eq!(github.issue(issue).await.expect("it is there").state, IssueState::Closed);
        assert_eq!(fake.world().issues[&issue.0].closed, 1);
        let late = github.merge(pull, &head, MergeMethod::Merge).await.expect("an answer");
        assert!(matches!(late, MergeAnswer::NotMergeable(_)), "{late:?}");
    });
}

#[test]
fn i15_each_end_of_ci_is_told_as_it_is() {
    play(async |fake, github| {
        let head = sha(&fake.world().push("b", "f", "x"));
        let ends = [
            (Ci::Passing, Some(Conclusion::Success)),
            (Ci::Failing, Some(Conclusion::Failure)),
            (Ci::Cancelled, Some(Conclusion::Cancelled)),
            (Ci::Skipped, Some(Conclusion::Skipped)),
            (Ci::Neutral, Some(Conclusion::Neutral)),
            (Ci::Approval, Some(Conclusion::ActionRequired)),
            (Ci::Running, None),
        ];
        for (ci, end) in ends {
            fake.world().ci = ci;
            let checks = github.check_runs(&head).await.expect("it answers");
            assert_eq!(checks.len(), 1, "{ci:?}");
            assert_eq!(checks[0].conclusion, end, "{ci:?}");
            assert_eq!(checks[0].status == CheckStatus::Completed, end.is_some(), "{ci:?}");
            let runs = github.workflow_runs(&head).await.expect("it answers");
            assert_eq!(runs[0].waits_for_a_person(), ci == Ci::Approval, "{ci:?}");
        }
        fake.world().ci = Ci::Never;
        assert_eq!(github.check_runs(&head).await, Ok(vec![]));
        assert_eq!(github.workflow_runs(&head).await, Ok(vec![]));
        fake.world().ci = Ci::Flapping;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(github.check_runs(&head).await.expect("it answers")[0].conclusion.clone());
        }
        assert_ne!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
        let states = [("a", "success"), ("b", "pending"), ("c", "failure"), ("d", "error")];
        let statuses = states.map(|(context, state)| (context.to_owned(), state.to_owned())).to_vec();
        fake.world().statuses.insert(head.to_string(), statuses);
        let statuses = github.statuses(&head).await.expect("it answers");
        let states: Vec<_> = statuses.into_iter().map(|status| status.state).collect();
        assert_eq!(states, [StatusState::Success, StatusState::Pending, StatusState::Failure, StatusState::Error]);
    });
}

#[test]
fn the_end_of_a_failed_jobs_log_is_read_without_the_token() {
    play(async |fake, github| {
        fake.world().ci = Ci::Failing;
        let jobs = github.jobs(RunId(77)).await.expect("it answers");
        assert_eq!((jobs[0].name.as_str(), &jobs[0].conclusion), ("test", &Some(Conclusion::Failure)));
        let log: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
        fake.world().logs.insert(jobs[0].id.0, log);
        let tail = github.job_log(jobs[0].id, 4_096).await.expect("it is there");
        assert_eq!(tail.len(), 4_096);
        assert!(tail.ends_with(b"line 99999\n"));
        let of_the_store: Vec<_> = fake.heard().into_iter().filter(|it| it.path.starts_with("/store/")).collect();
        assert!(of_the_store.len() == 1 && !of_the_store[0].credential, "{of_the_store:?}");
        assert!(matches!(github.job_log(JobId(1), 10).await, Err(ForgeError::Gone { .. })));
    });
}

#[test]
fn what_a_branch_requires_is_read_from_rules_and_from_protection() {
    play(async |fake, github| {
        let main = branch("main");
        let none = github.requirements(&main).await.expect("it answers");
        assert!(none.checks.is_empty() && !none.merge_queue && !none.hidden && none.unknown.is_empty(), "{none:?}");
        {
            let mut world = fake.world();
            world.required = vec!["test".to_owned()];
            world.protected = vec!["lint".to_owned()];
            (world.merge_queue, world.up_to_date) = (true, true);
        }
        let some = github.requirements(&main).await.expect("it answers");
        let of = |name: &str| RequiredCheck { name: name.to_owned(), app: None };
        assert_eq!(some.checks, [of("lint"), of("test")]);
        assert!(some.merge_queue && some.up_to_date);
    });
}

#[test]
fn a_file_is_read_or_is_not_there() {
    play(async |fake, github| {
        let main = branch("main");
        fake.world().push("main", "AGENTS.md", "no agents here");
        assert_eq!(github.file("AGENTS.md", &main).await, Ok(Some(b"no agents here".to_vec())));
        assert_eq!(github.file(".github/agent-loop.toml", &main).await, Ok(None));
    });
}

#[test]
fn git_pushes_to_the_fake_and_its_pull_request_follows() {
    play(async |fake, github| {
        let (number, before) = pull(&mut fake.world());
        let credential = github.credential().await.expect("a token");
        let work = tempfile::tempdir().expect("a scratch directory");
        let askpass = work.path().join("askpass");
        let words = format!(
            "#!/bin/sh\ncase \"$1\" in U*) echo {} ;; *) cat {} ;; esac\n",
            credential.user,
            fake.token_file().display()
        );
        std::fs::write(&askpass, words).expect("a script");
        std::fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
        let git = |args: &[&str]| {
            let done = std::process::Command::new("git")
                .current_dir(work.path())
                .args(["-c", "user.name=x", "-c", "user.email=x@example.com"])
                .args(args)
                .env("GIT_ASKPASS", &askpass)
                .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_TERMINAL_PROMPT", "0")])
                .output()
                .expect("git is here");
            assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        git(&["clone", "--quiet", "--branch", "issue-1-fix", &github.git_url(), "clone"]);
        let large: String = (0..200_000).map(|n| format!("{n}\n")).collect();
        std::fs::write(work.path().join("clone/large.txt"), large).expect("a file");
        git(&["-C", "clone", "add", "large.txt"]);
        git(&["-C", "clone", "commit", "--quiet", "-m", "more"]);
        git(&["-C", "clone", "push", "--quiet", "origin", "issue-1-fix"]);
        let read = github.pull(number).await.expect("it is there");
        assert_ne!(read.summary.head, before);
        assert!(fake.world().is_ancestor(before.as_str(), read.summary.head.as_str()));
    });
}
