//! What a forge does wrong, and what others do there meanwhile, over a whole life by `serve`.

use agent_loop_tests::fake_github::{Answer, Ci, Fault, Heard, Origin, When};
use agent_loop_tests::harness::{Scene, WORKS};
use agent_loop_tests::needs;
use serde_json::Value;

/// The merges that were asked for.
fn merges(scene: &Scene) -> Vec<Heard> {
    scene.forge.heard().into_iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).collect()
}

/// Has a task look now, instead of after a wait that is there to spare a real forge.
fn hurry(scene: &Scene, number: u64) {
    let asked = scene.host.ask(["resume", &scene.key(number)]);
    // It may have come to its end meanwhile.
    assert!(matches!(asked.status.code(), Some(0 | 7)), "{asked:?}");
}

/// Waits for the end of a task that is made to hurry.
fn over_soon(scene: &Scene, number: u64) {
    scene.until("the end", || {
        hurry(scene, number);
        (!scene.forge.world().issues[&number].open && scene.task(number).is_none()).then_some(())
    });
}

/// The verdict that stood in the log when each merge was announced, with the heads of both.
fn green_before_each_merge(scene: &Scene) -> Vec<(Value, Value)> {
    let mut last = Value::Null;
    let mut pairs = Vec::new();
    for line in scene.log() {
        if line["kind"] == "ci.verdict" {
            last = line["ci"].clone();
        } else if line["kind"] == "merge.intent" {
            assert_eq!(last["verdict"], "green", "{line}");
            pairs.push((last["head"].clone(), line["write"]["head"].clone()));
        }
    }
    pairs
}

#[test]
fn an_answer_of_success_that_merged_nothing_closes_nothing_whatever_else_is_odd() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    let stranger = {
        let mut world = scene.forge.world();
        world.closes = false;
        // Its clock is two hours ahead of ours.
        world.clock_ahead = 7_200;
        // A hundred that are not to be taken fill the first page.
        for _ in 0..100 {
            world.open_issue("later", "alice", &["State/Ready", "State/Question"]);
        }
        // Green, and named as agent-loop names branches: any such was merged once, whoever made it.
        world.push("issue-77-fix", "evil.txt", "mine");
        world.open_pull("issue-77-fix", "main", "fix", "Closes #77", "mallory")
    };
    let number = scene.issue("mend the door");
    assert!(number > 100, "on the second page alone");
    scene.forge.play(When::next("get", "/issues/{issue_number}/comments"), Fault::Instead(Answer::bad_credentials()));
    let nothing = Answer::merged(&"0".repeat(40));
    scene.forge.play(When::next("put", "/merge"), Fault::Instead(nothing));
    let _daemon = scene.serving();
    scene.until("the first merge", || (!merges(&scene).is_empty()).then_some(()));
    assert!(scene.forge.world().issues[&number].open);
    scene.over(number);
    assert_eq!(merges(&scene).len(), 2, "the first one did nothing, whatever it answered");
    let answers: Vec<_> = scene.lines("merge.result").iter().map(|line| line["write"]["answer"].clone()).collect();
    assert_eq!(answers, ["done", "done", "proven"]);
    let log = scene.log();
    let proven = log.iter().position(|line| line["write"]["answer"] == "proven");
    let close = log.iter().position(|line| line["kind"] == "forge.intent" && line["write"]["what"] == "close");
    assert!(proven.is_some() && proven < close, "{proven:?} {close:?}");
    let world = scene.forge.world();
    assert_eq!((world.issues[&number].closed, world.pulls.len()), (1, 2));
    assert!(
        world.pulls[&stranger].merged.is_none() && world.issues[&stranger].open,
        "a stranger's is nobody's to merge"
    );
    assert_eq!(world.comments.values().filter(|it| it.issue == number).count(), 1);
    drop(world);
    scene.forge.assert_valid();
}

#[test]
fn a_pull_request_of_a_fork_is_never_taken_for_ours_whatever_its_branch_is_called() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    let (branch, body) = (format!("issue-{number}-fix"), format!("Closes #{number}"));
    let foreign: Vec<u64> = {
        let mut world = scene.forge.world();
        let us = world.login.clone();
        // By a stranger; and, which GitHub lists with ours, from a fork of the same owner, and from one that is gone: by
        // our own account, as nobody could have made them.
        [
            (Origin::Fork("mallory/playground".to_owned()), "mallory"),
            (Origin::Gone("mallory".to_owned()), "mallory"),
            (Origin::Fork("octo-org/playground-2".to_owned()), us.as_str()),
            (Origin::Gone("octo-org".to_owned()), us.as_str()),
        ]
        .map(|(from, by)| world.open_pull_of_fork(from, &branch, "evil.txt", &body, by))
        .to_vec()
    };
    let _daemon = scene.serving();
    over_soon(&scene, number);
    let world = scene.forge.world();
    let ours: Vec<u64> = world.pulls.keys().copied().filter(|number| !foreign.contains(number)).collect();
    assert_eq!(ours.len(), 1, "one of our own was made beside them");
    for number in &foreign {
        assert!(world.pulls[number].merged.is_none() && world.issues[number].open, "{number}");
    }
    assert!(world.pulls[&ours[0]].merged.is_some());
    drop(world);
    let asked = merges(&scene);
    assert!(asked.len() == 1 && asked[0].path.ends_with(&format!("/pulls/{}/merge", ours[0])), "{asked:?}");
    // GitHub says null of a fork that is gone, which its own description of the list does not have.
    let wrong: Vec<String> = scene.forge.wrong().into_iter().filter(|it| !it.contains("/head/repo: null")).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_conflict_at_the_merge_is_looked_into_and_what_somebody_pushed_is_judged_by_its_own_checks() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    let number = scene.issue("mend the door");
    let branch = format!("issue-{number}-fix");
    scene.forge.play(When::next("put", "/merge"), Fault::Instead(Answer::not_authorized_to_push()));
    // The second time somebody pushes just before: the forge refuses by the head that was named.
    let push = {
        let branch = branch.clone();
        Box::new(move |world: &mut agent_loop_tests::fake_github::World| {
            world.ci = Ci::Running;
            world.push(&branch, "theirs.txt", "by somebody else");
        })
    };
    scene.forge.play(When::next("put", "/merge").after(1), Fault::Before(push));
    let _daemon = scene.serving();
    scene.until("two refusals", || {
        hurry(&scene, number);
        (merges(&scene).len() == 2).then_some(())
    });
    let pull = || scene.forge.world().pulls.values().next().expect("it was made").clone();
    let theirs = scene.until("the other head", || {
        hurry(&scene, number);
        scene.task(number).filter(|task| task["state"] == "ci_wait" && task["head"] == pull().head.as_str())
    });
    assert_eq!(merges(&scene).len(), 2, "their head has no verdict yet: {theirs}");
    scene.forge.world().ci = Ci::Passing;
    over_soon(&scene, number);
    let asked = merges(&scene);
    let heads: Vec<&str> = asked.iter().filter_map(|it| it.body["sha"].as_str()).collect();
    assert_eq!(asked.iter().map(|it| it.status).collect::<Vec<_>>(), [Some(409), Some(409), Some(200)]);
    assert!(heads[0] == heads[1] && heads[2] == pull().head && heads[2] != heads[0], "{heads:?}");
    assert!(green_before_each_merge(&scene).iter().all(|(green, merged)| green == merged));
    assert_eq!(scene.comments(number).len(), 1);
    scene.forge.assert_valid();
}

#[test]
fn a_pull_request_that_turns_out_to_conflict_goes_back_to_its_agent() {
    needs!(root, bpf, cgroup);
    let script = "cat > \"$3/prompt-$2\"\nif [ \"$2\" -gt 1 ]; then git merge --quiet -X ours -m merged origin/main; exit; fi\n\
                  echo ours > shared.txt\ngit add shared.txt\ngit commit --quiet -m ours\n";
    let scene = Scene::new(script);
    // Not known at first, then: no.
    scene.forge.world().mergeable_after = 3;
    let number = scene.issue("mend the door");
    scene.forge.play(
        When::next("post", "/pulls"),
        Fault::After(Box::new(|world| drop(world.push("main", "shared.txt", "theirs")))),
    );
    let _daemon = scene.serving();
    scene.until("a second attempt", || {
        hurry(&scene, number);
        scene.task(number).filter(|task| task["attempt"] == 2)
    });
    assert!(merges(&scene).is_empty(), "what is not known is not yes");
    over_soon(&scene, number);
    assert!(scene.left("prompt-2").contains("origin/main"), "{}", scene.left("prompt-2"));
    assert_eq!(merges(&scene).len(), 1);
    let world = scene.forge.world();
    assert_eq!((world.pulls.len(), world.issues[&number].closed), (1, 1));
}

#[test]
fn checks_that_flap_are_never_merged_on_anything_but_a_green_of_that_head() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with(WORKS, "[budgets]\ncheck_fixes = 100\n");
    scene.forge.world().ci = Ci::Flapping;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.until("its end, or three attempts", || {
        hurry(&scene, number);
        let merged = scene.forge.world().pulls.values().any(|pull| pull.merged.is_some());
        (merged || scene.task(number).is_some_and(|task| task["attempt"].as_u64() >= Some(3))).then_some(())
    });
    scene.forge.world().ci = Ci::Passing;
    over_soon(&scene, number);
    let pairs = green_before_each_merge(&scene);
    assert!(!pairs.is_empty() && pairs.iter().all(|(green, merged)| green == merged), "{pairs:?}");
    let merged = scene.forge.world().pulls.values().filter(|pull| pull.merged.is_some()).count();
    assert_eq!((merged, scene.comments(number).len()), (1, 1));
}

#[test]
fn checks_that_did_not_pass_are_no_pass_whatever_else_they_say() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    scene.forge.world().ci = Ci::Cancelled;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    let mut verdicts = 0;
    // Each of them once fell through to "passed".
    for ci in [Ci::Cancelled, Ci::Skipped, Ci::Neutral, Ci::Stale, Ci::Approval, Ci::Strange] {
        scene.forge.world().ci = ci;
        let reads = scene.forge.count("GET", "/check-runs");
        scene.until_unmerged(&format!("checks to be read that are {ci:?}"), || {
            hurry(&scene, number);
            (scene.forge.count("GET", "/check-runs") > reads + 2).then_some(())
        });
        assert!(merges(&scene).is_empty(), "{ci:?}");
        verdicts = scene.lines("ci.verdict").len();
    }
    assert!(verdicts >= 2, "they were told");
    assert!(scene.lines("ci.verdict").iter().all(|line| line["ci"]["verdict"] != "green"));
    scene.forge.world().ci = Ci::Passing;
    over_soon(&scene, number);
    assert_eq!(merges(&scene).len(), 1);
}

#[test]
fn what_is_not_shown_yet_is_not_written_again_whether_its_answer_came_or_was_lost() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with(WORKS, "max_tasks = 3\n");
    {
        let mut world = scene.forge.world();
        // What was made is shown by the third read of it.
        world.shown_after = 2;
        world.closes = false;
    }
    let all = [scene.issue("mend the door"), scene.issue("paint the door"), scene.issue("hang the door")];
    // One of them is answered; of the others each write is done, and its answer is lost, or replaced by a gateway's.
    for (number, lost) in [(all[1], true), (all[2], false)] {
        let fault = || if lost { Fault::Dropped { done: true } } else { Fault::Done(Answer::bad_gateway()) };
        let of_issue = format!("/issues/{number}");
        scene.forge.play(When::next("post", "/comments").about(&of_issue), fault());
        scene.forge.play(When::next("post", "/pulls").about(&format!("issue-{number}-fix")), fault());
        scene.forge.play(When::next("put", "/merge").after(usize::from(lost)), fault());
    }
    let _daemon = scene.serving();
    scene.until("the end of all", || {
        let heard = scene.forge.heard();
        let asked = |method: &str, path: &str, about: &str| {
            let is = |it: &&Heard| {
                it.method == method
                    && it.template.ends_with(path)
                    && (it.path.ends_with(about) || it.body["head"].as_str().is_some_and(|head| head.ends_with(about)))
            };
            heard.iter().filter(is).count()
        };
        for number in all {
            let comments = asked("POST", "/issues/{issue_number}/comments", &format!("/{number}/comments"));
            assert!(comments <= 1, "the comment on issue {number} again");
            let pulls = asked("POST", "/pulls", &format!("issue-{number}-fix"));
            assert!(pulls <= 1, "the pull request of issue {number} again");
        }
        for pull in scene.forge.world().pulls.keys() {
            let merges = asked("PUT", "/pulls/{pull_number}/merge", &format!("/pulls/{pull}/merge"));
            assert!(merges <= 1, "the merge of pull request {pull} again");
        }
        all.iter().for_each(|number| hurry(&scene, *number));
        let is_over = |number: &u64| !scene.forge.world().issues[number].open && scene.task(*number).is_none();
        all.iter().all(is_over).then_some(())
    });
    assert_eq!(merges(&scene).len(), all.len());
    for number in all {
        let comments = scene.comments(number);
        assert_eq!(comments.len(), 1, "{comments:#?}");
        assert!(comments[0].contains("merged, and closed by that"), "{comments:#?}");
    }
    let world = scene.forge.world();
    assert!(world.pulls.len() == all.len() && world.pulls.values().all(|pull| pull.merged.is_some()));
    assert_eq!(world.shown_late(), 3 * all.len(), "a comment, a pull request and a merge of each");
    drop(world);
    scene.forge.assert_valid();
}

#[test]
fn checks_that_may_not_be_read_are_no_pass_and_a_person_is_told_of_it() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with(WORKS, "[ci]\ntimeout = \"2s\"\n");
    scene.forge.world().hides_checks = true;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.in_state(number, "needs_human");
    let told = |it: &String| it.contains("needs a person") && it.contains("not permitted");
    scene.until("the notice", || scene.comments(number).iter().any(told).then_some(()));
    assert!(merges(&scene).is_empty() && scene.forge.world().issues[&number].open);
    scene.forge.world().hides_checks = false;
    assert!(scene.host.ask(["retry", &scene.key(number)]).status.success());
    over_soon(&scene, number);
    assert_eq!(merges(&scene).len(), 1);
}

#[test]
fn a_merge_that_keeps_failing_is_told_once() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    for time in 0..3 {
        scene.forge.play(When::next("put", "/merge").after(time), Fault::Instead(Answer::not_mergeable()));
    }
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    let told = || scene.comments(number).iter().filter(|it| it.contains("needs a person")).count();
    scene.until("the notice", || {
        hurry(&scene, number);
        (told() == 1).then_some(())
    });
    assert_eq!(merges(&scene).len(), 3, "as often as it may be asked for");
    // It was said again every five minutes once, fifteen times and more.
    for _ in 0..15 {
        let looks = scene.forge.count("GET", "/issues/{issue_number}");
        scene.until("another look", || {
            hurry(&scene, number);
            (scene.forge.count("GET", "/issues/{issue_number}") > looks).then_some(())
        });
    }
    assert_eq!((told(), scene.comments(number).len(), merges(&scene).len()), (1, 2, 3));
    assert!(scene.forge.world().issues[&number].open);
}

#[test]
fn what_people_do_at_the_forge_has_the_last_word() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with(WORKS, "max_tasks = 2\n");
    {
        let mut world = scene.forge.world();
        world.ci = Ci::Running;
        world.closes = false;
    }
    let (merged, taken) = (scene.issue("mend the door"), scene.issue("paint the door"));
    let _daemon = scene.serving();
    scene.in_state(merged, "ci_wait");
    scene.in_state(taken, "ci_wait");
    let pull = |number: u64| scene.task(number).and_then(|task| task["pull"].as_u64()).expect("it has one");
    let (of_merged, of_taken) = (pull(merged), pull(taken));
    {
        let mut world = scene.forge.world();
        world.ci = Ci::Passing;
        world.merge(of_merged, true, "alice").expect("a person may");
        world.ci = Ci::Running;
        world.unlabel(taken, "State/InProgress", "alice");
    }
    over_soon(&scene, merged);
    scene.until("the other to be let go", || {
        hurry(&scene, taken);
        scene.task(taken).is_none().then_some(())
    });
    assert!(merges(&scene).is_empty(), "nothing is merged twice, nor what was taken away");
    let world = scene.forge.world();
    assert_eq!((world.issues[&merged].closed, world.issues[&taken].open), (1, true));
    assert!(world.issues[&of_taken].open && world.pulls[&of_taken].merged.is_none());
    for number in [merged, taken] {
        assert_eq!(world.at(&format!("refs/agent-loop/claims/{number}")), None);
    }
}

#[test]
fn an_idle_pass_over_a_thousand_open_issues_costs_eleven_requests_that_are_free() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    for _ in 0..1_000 {
        scene.forge.world().open_issue("later", "alice", &["State/Ready", "State/Question"]);
    }
    let _daemon = scene.serving();
    let looked = || scene.repo()["looked"].as_str().map(str::to_owned);
    scene.until("the first look", looked);
    let lists = || scene.forge.count("GET", "/git/matching-refs/{ref}");
    // Whole passes alone: from one list of claims, which comes last, to another.
    let first = lists();
    scene.until("another pass", || (lists() > first).then_some(()));
    let from =
        scene.forge.heard().iter().rposition(|it| it.template.ends_with("/git/matching-refs/{ref}")).expect("one");
    let before = lists();
    // A request is heard before it is answered: the last of the three surely was once a fourth pass is there.
    scene.until("three passes and the end of another", || (lists() >= before + 4).then_some(()));
    let heard = scene.forge.heard();
    let passes: Vec<&Heard> = heard.iter().skip(from + 1).collect();
    let ends: Vec<usize> =
        (0..passes.len()).filter(|at| passes[*at].template.ends_with("/git/matching-refs/{ref}")).collect();
    let mut begin = 0;
    for end in ends.into_iter().take(3) {
        let pass = &passes[begin..=end];
        assert_eq!(pass.len(), 11, "ten pages of issues, one list of claims: {pass:#?}");
        assert!(pass.iter().all(|it| it.conditional && it.status == Some(304)), "{pass:#?}");
        begin = end + 1;
    }
    eprintln!("an idle pass over 1,000 open issues: 11 requests, all conditional, all 304");
}

#[test]
fn what_others_merge_while_an_agent_works_takes_nothing_of_its_work() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(&format!("{WORKS}touch \"$3/begun\"\nwhile [ ! -e \"$3/go\" ]; do sleep 0.1; done\n"));
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.until("the agent", || scene.host.path("agents/begun").exists().then_some(()));
    scene.forge.world().push("main", "elsewhere.txt", "by somebody else");
    std::fs::write(scene.host.path("agents/go"), "").expect("room");
    scene.over(number);
    let world = scene.forge.world();
    assert_eq!((world.pulls.len(), world.issues[&number].closed), (1, 1));
    drop(world);
    assert!(
        scene.lines("task.state").iter().all(|line| line["task"]["attempt"].as_u64() <= Some(1)),
        "one attempt did it"
    );
}
