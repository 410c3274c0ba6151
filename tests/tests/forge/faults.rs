//! What goes wrong at the real one, and what the client makes of it.

use std::time::{Duration, Instant};

use agent_loop::forge::github::GitHub;
use agent_loop::forge::{
    CheckStatus, Conclusion, Create, DoubtWhy, Forge, ForgeError, IssueNumber, LimitKind, MergeAnswer, MergeMethod,
    MergeSeen, MergeState, RefName, WriteError,
};
use agent_loop_tests::fake_github::{Answer, Ci, FakeGitHub, Fault, When};
use serde_json::{Value, json};

use super::{branch, main_of, options, play, pull, sha};

const MERGE: &str = "/merge";

#[test]
fn i18_a_merge_that_landed_behind_a_502_is_a_doubt_that_one_read_settles() {
    play(async |fake, github| {
        let (number, head) = pull(&mut fake.world());
        fake.play(When::next("put", MERGE), Fault::Done(Answer::bad_gateway()));
        let answer = github.merge(number, &head, MergeMethod::Squash).await;
        let Err(WriteError::Doubt(doubt)) = answer else { panic!("{answer:?}") };
        assert_eq!(doubt.why, DoubtWhy::Status(502));
        assert!(matches!(github.merged(number, &head).await, Ok(MergeSeen::Merged(_))));
        assert_eq!(fake.count("PUT", MERGE), 1, "it was sent once");
    });
}

#[test]
fn i16_a_merge_that_says_200_and_did_nothing_is_no_proof() {
    play(async |fake, github| {
        let (number, head) = pull(&mut fake.world());
        fake.play(When::next("put", MERGE), Fault::Instead(Answer::merged(head.as_str())));
        let answer = github.merge(number, &head, MergeMethod::Squash).await;
        assert!(matches!(answer, Ok(MergeAnswer::Accepted { merged: true, .. })), "{answer:?}");
        assert!(matches!(github.merged(number, &head).await, Ok(MergeSeen::NotProven(_))));
    });
}

#[test]
fn the_three_refusals_of_a_merge_are_told_apart() {
    play(async |fake, github| {
        let (number, head) = pull(&mut fake.world());
        fake.play(When::next("put", MERGE), Fault::Instead(Answer::not_authorized_to_push()));
        fake.play(When::next("put", MERGE).after(1), Fault::Instead(Answer::not_mergeable()));
        fake.play(When::next("put", MERGE).after(2), Fault::Instead(Answer::head_moved()));
        let first = github.merge(number, &head, MergeMethod::Merge).await;
        assert!(matches!(first, Ok(MergeAnswer::NotNow(_))), "{first:?}");
        let second = github.merge(number, &head, MergeMethod::Merge).await;
        assert!(matches!(second, Ok(MergeAnswer::NotMergeable(_))), "{second:?}");
        let other = github.merge(number, &head, MergeMethod::Merge).await;
        assert!(matches!(other, Ok(MergeAnswer::HeadMoved(_))), "{other:?}");
        // Somebody pushes between the decision and the merge.
        let push = |world: &mut agent_loop_tests::fake_github::World| {
            world.push("issue-1-fix", "more.txt", "more");
        };
        fake.play(When::next("put", MERGE), Fault::Before(Box::new(push)));
        let third = github.merge(number, &head, MergeMethod::Merge).await;
        assert!(matches!(third, Ok(MergeAnswer::HeadMoved(_))), "{third:?}");
        let Ok(MergeSeen::NotProven(read)) = github.merged(number, &head).await else { panic!("it is not merged") };
        assert_ne!(read.summary.head, head);
    });
}

#[test]
fn i18_a_comment_whose_answer_is_lost_is_written_once() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        for (fault, there) in [
            (Fault::Dropped { done: true }, 1),
            (Fault::Dropped { done: false }, 1),
            (Fault::CutShort, 2),
            (Fault::Done(Answer::bad_gateway()), 3),
            (Fault::Changed(Box::new(|body| *body = json!({ "surprise": true }))), 4),
        ] {
            let name = format!("{fault:?}");
            fake.play(When::next("post", "/comments"), fault);
            let answer = github.create_comment(issue, "words").await;
            assert!(matches!(answer, Err(WriteError::Doubt(_))), "{name}: {answer:?}");
            assert_eq!(fake.world().comments.len(), there, "{name}");
        }
        assert_eq!(fake.count("POST", "/comments"), 5, "each was sent once");
    });
}

#[test]
fn a_write_that_was_never_sent_is_no_doubt() {
    play(async |fake, _| {
        let mut nowhere = options(&fake);
        // A port that nobody listens on: it was ours a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        nowhere.api = format!("http://{free}/api/v3");
        let github = GitHub::new(&nowhere).expect("the options are right");
        let answer = github.create_comment(IssueNumber(1), "words").await;
        assert!(matches!(answer, Err(WriteError::NotDone(ForgeError::Unreachable { .. }))), "{answer:?}");
    });
}

#[test]
fn a_forge_that_is_silent_is_given_up() {
    play(async |fake, _| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        let mut hasty = options(&fake);
        (hasty.patience.read, hasty.patience.write) = (Duration::from_millis(300), Duration::from_millis(300));
        hasty.patience.repeat.clear();
        let github = GitHub::new(&hasty).expect("the options are right");
        fake.play(When::next("get", "/issues/{issue_number}"), Fault::Silent);
        assert!(matches!(github.issue(issue).await, Err(ForgeError::Unreachable { .. })));
        fake.play(When::next("post", "/comments"), Fault::Silent);
        assert!(matches!(github.create_comment(issue, "words").await, Err(WriteError::Doubt(_))));
    });
}

#[test]
fn a_read_is_repeated_and_a_list_is_whole_or_an_error() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        fake.play(When::next("get", "/issues/{issue_number}"), Fault::Instead(Answer::bad_gateway()));
        fake.play(When::next("get", "/issues/{issue_number}").after(1), Fault::Dropped { done: false });
        github.issue(issue).await.expect("the third time it answers");
        assert_eq!(fake.count("GET", "/issues/{issue_number}"), 3);
        for n in 0..150 {
            fake.world().comment(issue.0, "somebody", &format!("words {n}"));
        }
        // The second page fails, as often as it is asked for.
        for n in 1..4 {
            fake.play(When::next("get", "/comments").after(n), Fault::Instead(Answer::of(503, "Service unavailable")));
        }
        let answer = github.comments(issue).await;
        assert!(matches!(answer, Err(ForgeError::Unreachable { .. })), "half a list is none: {answer:?}");
    });
}

#[test]
fn the_next_page_is_never_on_another_host() {
    play(async |fake, github| {
        let evil = Answer::of(200, "").with("link", "<https://evil.example/issues?page=2>; rel=\"next\"");
        fake.play(When::next("get", "/issues"), Fault::Instead(evil));
        let answer = github.open_issues(&[]).await;
        assert!(matches!(answer, Err(ForgeError::Nonsense { .. })), "{answer:?}");
    });
}

#[test]
fn a_short_limit_is_waited_for_and_a_long_one_is_told_and_kept() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        fake.play(When::next("get", "/issues/{issue_number}"), Fault::Instead(Answer::secondary_limit(1)));
        let begin = Instant::now();
        github.issue(issue).await.expect("after a second it answers");
        assert!(begin.elapsed() >= Duration::from_secs(1), "retry-after is obeyed");
        fake.play(When::next("post", "/comments"), Fault::Instead(Answer::secondary_limit(90)));
        let answer = github.create_comment(issue, "words").await;
        let Err(WriteError::NotDone(ForgeError::Limited { kind, wait, until, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((kind, wait), (LimitKind::Secondary, Duration::from_secs(90)));
        assert!(until.is_some(), "by the clock of the forge");
        let sent = fake.heard().len();
        let read = github.issue(issue).await;
        assert!(matches!(read, Err(ForgeError::Limited { .. })), "{read:?}");
        assert_eq!(fake.heard().len(), sent, "nothing is sent before it is over");
        assert!(github.limits().paused.is_some());
    });
}

#[test]
fn the_hourly_limit_is_told_by_the_clock_of_the_forge() {
    play(async |fake, github| {
        // A day ahead of the host: by the host's clock the limit would be over in a day.
        fake.world().clock_ahead = 86_400;
        fake.world().remaining = 0;
        let answer = github.repository().await;
        let Err(ForgeError::Limited { kind, wait, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(kind, LimitKind::Primary);
        assert!((1_790..=1_805).contains(&wait.as_secs()), "{wait:?}");
    });
}

#[test]
fn a_token_that_is_replaced_goes_on_and_one_that_is_not_is_told() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        github.issue(issue).await.expect("it answers");
        fake.world().tokens.clear();
        fake.world().tokens.insert("ghp_another".to_owned());
        let refused = github.issue(issue).await;
        assert!(matches!(refused, Err(ForgeError::Token { .. })), "{refused:?}");
        fake.write_token("ghp_another");
        github.issue(issue).await.expect("the new one is read");
        fake.play(When::next("post", "/comments"), Fault::Instead(Answer::bad_credentials()));
        let write = github.create_comment(issue, "words").await;
        assert!(matches!(write, Err(WriteError::NotDone(ForgeError::Token { .. }))), "{write:?}");
        fake.world().tokens.clear();
        fake.world().tokens.insert("ghp_third".to_owned());
        fake.write_token("ghp_third");
        github.create_comment(issue, "words").await.expect("a write whose token was refused was not done");
        assert_eq!(fake.world().comments.len(), 1);
    });
}

#[test]
fn not_permitted_gone_moved_and_limited_are_told_apart() {
    play(async |fake, github| {
        let answers = [
            (Answer::of(403, "Resource not accessible by personal access token"), "not permitted"),
            (Answer::of(404, "Not Found"), "not there"),
            (Answer::of(410, "This issue was deleted"), "not there"),
            (Answer::of(301, "Moved Permanently"), "has moved"),
            (Answer::of(422, "Validation Failed"), "refused (422)"),
            (Answer::of(429, "").with("retry-after", 60), "limit of the forge"),
        ];
        for (answer, words) in answers {
            fake.play(When::next("get", "/issues/{issue_number}"), Fault::Instead(answer));
            let error = github.issue(IssueNumber(1)).await.expect_err("it is refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    });
}

#[test]
fn i15_words_that_nobody_knows_and_nulls_are_values() {
    play(async |fake, github| {
        let (number, head) = pull(&mut fake.world());
        let strange = |body: &mut Value| {
            body["mergeable_state"] = json!("enchanted");
            for gone in ["user", "merged_by", "mergeable", "merge_commit_sha", "body"] {
                body[gone] = Value::Null;
            }
            body["head"]["repo"] = Value::Null;
            body["state"] = json!("ajar");
        };
        fake.play(When::next("get", "/pulls/{pull_number}"), Fault::Changed(Box::new(strange)));
        let read = github.pull(number).await.expect("it is read all the same");
        assert_eq!(read.merge_state, MergeState::Other("enchanted".to_owned()));
        assert!(read.mergeable.is_none() && read.summary.author.is_none() && read.summary.head_repository.is_none());
        let words = |body: &mut Value| {
            body["check_runs"][0]["status"] = json!("percolating");
            body["check_runs"][0]["conclusion"] = json!("sunny");
            body["check_runs"][0]["app"] = Value::Null;
        };
        fake.play(When::next("get", "/check-runs"), Fault::Changed(Box::new(words)));
        let checks = github.check_runs(&head).await.expect("it is read all the same");
        assert_eq!(checks[0].status, CheckStatus::Other("percolating".to_owned()));
        assert_eq!(checks[0].conclusion, Some(Conclusion::Other("sunny".to_owned())));
        let nulls = |body: &mut Value| {
            for gone in ["status", "conclusion", "head_branch", "name"] {
                body["workflow_runs"][0][gone] = Value::Null;
            }
        };
        fake.play(When::next("get", "/actions/runs"), Fault::Changed(Box::new(nulls)));
        let runs = github.workflow_runs(&head).await.expect("it is read all the same");
        assert_eq!((&runs[0].status, &runs[0].branch), (&CheckStatus::Untold, &None));
        fake.world().ci = Ci::Stale;
        // GitHub's description does not know its own word.
        fake.play(When::next("get", "/check-runs"), Fault::Changed(Box::new(|_| {})));
        assert_eq!(github.check_runs(&head).await.expect("read")[0].conclusion, Some(Conclusion::Stale));
    });
}

#[test]
fn mergeable_is_unknown_at_first_and_then_told() {
    play(async |fake, github| {
        let (number, _) = pull(&mut fake.world());
        fake.world().mergeable_after = 2;
        fake.world().push("main", "fix.txt", "another\n");
        let mut seen = Vec::new();
        for _ in 0..3 {
            let read = github.pull(number).await.expect("it answers");
            seen.push((read.mergeable, read.merge_state));
        }
        let unknown = (None, MergeState::Unknown);
        assert_eq!(seen, [unknown.clone(), unknown, (Some(false), MergeState::Dirty)]);
    });
}

#[test]
fn what_a_person_does_meanwhile_is_seen_by_the_next_read() {
    play(async |fake, github| {
        let issue = fake.world().open_issue("Fix it", "guettli", &["State/Ready"]);
        let (number, head) = pull(&mut fake.world());
        let number_of = number.0;
        let deeds: [agent_loop_tests::fake_github::Deed; 3] = [
            Box::new(move |world| assert!(world.unlabel(issue, "State/Ready", "guettli"))),
            Box::new(move |world| world.close(issue)),
            Box::new(move |world| drop(world.merge(number_of, true, "guettli"))),
        ];
        for deed in deeds {
            fake.play(When::next("get", "/issues/{issue_number}"), Fault::Before(deed));
            github.issue(IssueNumber(issue)).await.expect("it answers");
        }
        let read = github.issue(IssueNumber(issue)).await.expect("it answers");
        assert!(read.labels.is_empty() && read.state == agent_loop::forge::IssueState::Closed);
        let Ok(MergeSeen::Merged(proof)) = github.merged(number, &head).await else { panic!("a person merged it") };
        assert_eq!(proof.commit(), &main_of(&fake.world()));
    });
}

#[test]
fn i13_of_two_who_claim_at_once_one_has_it() {
    play(async |fake, github| {
        let base = main_of(&fake.world());
        let claim = RefName::claim(IssueNumber(7));
        let (name, at) = (claim.to_string(), base.to_string());
        // The other host is first by a moment.
        let other = move |world: &mut agent_loop_tests::fake_github::World| assert!(world.create_ref(&name, &at));
        fake.play(When::next("post", "/git/refs"), Fault::Before(Box::new(other)));
        assert_eq!(github.create_ref(&claim, &base).await, Ok(Create::Taken));
        // Ours landed, and its answer was lost: a read tells whose it is.
        let second = RefName::claim(IssueNumber(8));
        fake.play(When::next("post", "/git/refs"), Fault::Dropped { done: true });
        assert!(matches!(github.create_ref(&second, &base).await, Err(WriteError::Doubt(_))));
        assert_eq!(github.reference(&second).await, Ok(Some(base)));
    });
}

#[test]
fn writes_go_one_at_a_time_and_apart() {
    play(async |fake, _| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        let mut slow = options(&fake);
        slow.patience.between_writes = Duration::from_millis(200);
        let github = GitHub::new(&slow).expect("the options are right");
        let begin = Instant::now();
        let write = |n: u32| {
            let github = &github;
            async move { github.create_comment(issue, &format!("words {n}")).await }
        };
        let (first, second, third) = tokio::join!(write(1), write(2), write(3));
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        assert!(begin.elapsed() >= Duration::from_millis(400), "two pauses between three writes");
        assert_eq!(github.limits().writes, 3);
    });
}

#[test]
fn an_idle_pass_over_a_thousand_issues_costs_ten_requests_and_then_nothing() {
    play(async |fake, github| {
        for n in 0..1_000 {
            fake.world().open_issue(&format!("Issue {n}"), "guettli", &["State/Ready"]);
        }
        let labels = ["State/Ready".to_owned()];
        let first = github.open_issues(&labels).await.expect("it answers");
        let of_first = fake.take_heard();
        let left = fake.world().remaining;
        let second = github.open_issues(&labels).await.expect("it answers");
        let of_second = fake.take_heard();
        println!(
            "1,000 open issues: {} requests, then {}, of which {} not modified",
            of_first.len(),
            of_second.len(),
            of_second.iter().filter(|heard| heard.status == Some(304)).count()
        );
        assert_eq!((first.len(), &first), (1_000, &second));
        assert!(of_first.len() == 10 && of_first.iter().all(|heard| heard.status == Some(200)));
        assert!(of_second.len() == 10 && of_second.iter().all(|heard| heard.conditional && heard.status == Some(304)));
        assert_eq!(fake.world().remaining, left, "not modified costs nothing");
        // One that changes is seen.
        fake.world().close(500);
        let third = github.open_issues(&labels).await.expect("it answers");
        assert_eq!(third.len(), 999);
    });
}

#[test]
#[should_panic(expected = "there is no such operation")]
fn the_fake_finds_what_github_does_not_have() {
    let fake = FakeGitHub::start();
    let mut stream =
        std::net::TcpStream::connect(fake.api().trim_start_matches("http://").split('/').next().unwrap_or(""))
            .expect("it listens");
    std::io::Write::write_all(&mut stream, b"GET /api/v3/repos/octo-org/playground/isues HTTP/1.1\r\n\r\n")
        .expect("it reads");
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).expect("it answers");
    fake.assert_valid();
}

#[test]
fn a_branch_that_is_not_there_is_gone() {
    play(async |fake, github| {
        let none = sha(&"3".repeat(40));
        assert!(matches!(github.contains(&branch("main"), &none).await, Err(ForgeError::Gone { .. })));
        assert!(matches!(github.commit(&none).await, Err(ForgeError::Gone { .. })));
        drop(fake);
    });
}
