//! A token that is taken away in the middle of a life, at each kind of read: nothing is taken for absent, and all goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use agent_loop_tests::fake_github::{Answer, Ci, Fault, Heard, TOKEN, When};
use agent_loop_tests::harness::Scene;
use agent_loop_tests::needs;

/// The first commit is not good enough for the checks.
const SCRIPT: &str = "cat > \"$3/prompt-$2\"\necho \"begin $2\" >> \"$3/log\"\necho \"work $2\" >> work.txt\n\
                      git add work.txt\ngit commit --quiet -m \"work $2\"\n";

/// Reads of the loop itself, by their path in GitHub's description: other reads and a write may be under way meanwhile.
const OF_THE_LOOP: [&str; 6] = [
    "/user",
    "/repos/{owner}/{repo}",
    "/repos/{owner}/{repo}/issues",
    "/repos/{owner}/{repo}/issues/{issue_number}/events",
    "/repos/{owner}/{repo}/git/matching-refs/{ref}",
    "/repos/{owner}/{repo}/contents/{path}",
];

/// Reads of a task, with what else their path holds: nothing else of it is under way then. `N` is its issue.
const OF_THE_TASK: [(&str, &str); 18] = [
    ("/repos/{owner}/{repo}/issues/{issue_number}", "issues/N"),
    ("/repos/{owner}/{repo}/issues/{issue_number}/comments", "issues/N"),
    ("/repos/{owner}/{repo}/git/ref/{ref}", "heads/main"),
    ("/repos/{owner}/{repo}/git/ref/{ref}", "claims/N"),
    ("/repos/{owner}/{repo}/git/ref/{ref}", "heads/issue-N-fix"),
    ("/repos/{owner}/{repo}/git/commits/{commit_sha}", ""),
    ("/repos/{owner}/{repo}/pulls", ""),
    ("/repos/{owner}/{repo}/pulls/{pull_number}", ""),
    ("/repos/{owner}/{repo}/commits/{ref}/check-runs", ""),
    ("/repos/{owner}/{repo}/commits/{ref}/status", ""),
    ("/repos/{owner}/{repo}/actions/runs", ""),
    ("/repos/{owner}/{repo}/actions/runs/{run_id}/jobs", ""),
    ("/repos/{owner}/{repo}/actions/jobs/{job_id}/logs", ""),
    ("/repos/{owner}/{repo}/rules/branches/{branch}", ""),
    ("/repos/{owner}/{repo}/branches/{branch}", ""),
    ("/repos/{owner}/{repo}/compare/{basehead}", ""),
    // git fetches the base for the clone, and to take what the agent committed.
    (When::GIT, "git-upload-pack"),
    (When::GIT, "git-receive-pack"),
];

fn is_write(heard: &Heard) -> bool {
    heard.method != "GET" && !heard.path.contains("git-upload-pack")
}

/// Has everybody look now, instead of after a wait that is there to spare a real forge.
fn hurry(scene: &Scene, number: u64) {
    let asked = scene.host.ask(["resume", &scene.key(number)]);
    assert!(matches!(asked.status.code(), Some(0 | 7)), "{asked:?}");
    if scene.repo()["looked"].is_null() {
        scene.host.ask(["tick"]);
    }
}

/// The task of the issue; nothing that is not known lets an issue go that is open.
fn task(scene: &Scene, number: u64, begun: &mut bool) -> Option<serde_json::Value> {
    let task = scene.task(number);
    *begun |= task.is_some();
    assert!(task.is_some() || !*begun || !scene.forge.world().issues[&number].open, "it was let go: {}", scene.said());
    task
}

/// Waits out a time without a token: it is told, nothing is written, and reads go on being tried; what was refused first.
fn refused(scene: &Scene, number: u64, from: usize, begun: &mut bool) -> Heard {
    let is_told = |it: &serde_json::Value| it["trouble"].as_str().is_some_and(|why| why.contains("token"));
    scene.until("the trouble to be told, of the repository and of the task", || {
        hurry(scene, number);
        (task(scene, number, begun).is_none_or(|task| is_told(&task)) && is_told(&scene.repo())).then_some(())
    });
    let is_refused = |it: &&Heard| it.status == Some(401);
    let count = || scene.forge.heard().iter().skip(from).filter(is_refused).count();
    let before = count();
    scene.until("another read to be refused", || {
        hurry(scene, number);
        (count() > before).then_some(())
    });
    let heard = scene.forge.heard();
    let at = heard.iter().skip(from).position(|it| it.status == Some(401)).expect("one was refused") + from;
    let first = heard[at].clone();
    let writes: Vec<&Heard> = heard[at..].iter().filter(|it| is_write(it)).collect();
    // One that was decided upon before may be on its way, where it is another's read that was refused.
    let under_way = usize::from(OF_THE_LOOP.contains(&first.template.as_str()));
    assert!(writes.len() <= under_way, "nothing is known at {} {}, and {writes:#?}", first.method, first.path);
    first
}

#[test]
fn a_token_that_is_taken_away_at_any_read_costs_a_wait_that_is_told_and_nothing_else() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(SCRIPT);
    let number = {
        let mut world = scene.forge.world();
        world.ci = Ci::Failing;
        world.closes = false;
        world.logs.insert(88, "the door is still broken".to_owned());
        // Who set the label is asked for where its author is not on the list.
        let number = world.open_issue("mend the door", "mallory", &[]);
        world.label(number, "State/Ready", "alice");
        number
    };
    let kinds = OF_THE_LOOP.into_iter().map(|path| (path, "")).chain(OF_THE_TASK);
    for (path, about) in kinds {
        let about = about.replace('N', &number.to_string());
        let when = When::next("get", path).about(&about);
        scene.forge.play(when, Fault::Before(Box::new(|world| world.tokens.clear())));
    }
    // The first fetch that is let in is of the base, the second of the branch, which is not there yet.
    let later = When::next("get", When::GIT).about("git-upload-pack").after(3);
    scene.forge.play(later, Fault::Before(Box::new(|world| world.tokens.clear())));
    // What became of a merge that did nothing is read as well.
    scene.forge.play(When::next("put", "/merge"), Fault::Instead(Answer::merged(&"0".repeat(40))));
    let _daemon = scene.serving();

    let (mut from, mut stepped, mut first, mut begun) = (0, Instant::now(), Vec::new(), false);
    scene.until("the end of it all", || {
        if scene.forge.world().tokens.is_empty() {
            first.push(refused(&scene, number, from, &mut begun));
            let mut world = scene.forge.world();
            world.tokens.insert(TOKEN.to_owned());
            drop(world);
            from = scene.forge.heard().len();
        }
        if stepped.elapsed() > Duration::from_secs(1) {
            hurry(&scene, number);
            // What waits after a failure of this host, or for a merge to be seen, waits by the forge's clock.
            let waits = |task: serde_json::Value| task["state"] == "backoff" || task["state"] == "merge_unknown";
            if task(&scene, number, &mut begun).is_some_and(waits) {
                scene.forge.world().clock_ahead += 31;
            }
            stepped = Instant::now();
        }
        if scene.left("log").contains("begin 2") {
            scene.forge.world().ci = Ci::Passing;
        }
        let is_open = scene.forge.world().issues[&number].open;
        (!is_open && scene.task(number).is_none() && !scene.forge.world().tokens.is_empty()).then_some(())
    });
    let places: Vec<String> = first.iter().map(|it| format!("{} {}", it.method, it.path)).collect();
    eprintln!("taken away {} times: {places:#?}", places.len());

    // Every kind of read of a life is in the lists, and each was refused.
    scene.forge.assert_valid();
    let known: BTreeSet<&str> = OF_THE_LOOP.into_iter().chain(OF_THE_TASK.map(|(path, _)| path)).collect();
    let heard = scene.forge.heard();
    let reads = heard.iter().filter(|it| it.method == "GET" && !it.template.is_empty());
    let others: BTreeSet<&str> = reads.map(|it| it.template.as_str()).filter(|it| !known.contains(it)).collect();
    assert_eq!(others, BTreeSet::new(), "a kind of read at which the token was not taken away");

    // The same end as that of a life in which all goes well.
    assert_eq!(scene.left("log"), "begin 1\nbegin 2\n", "one agent, and one that was told of the checks");
    assert!(scene.left("prompt-2").contains("the door is still broken"), "{}", scene.left("prompt-2"));
    let world = scene.forge.world();
    assert_eq!((world.issues[&number].closed, world.pulls.len()), (1, 1));
    let pull = world.pulls.values().next().expect("a pull request");
    assert_eq!(pull.merged.as_ref().map(|(_, by)| by), Some(&world.login));
    let labels = world.issues[&number].labels.clone();
    assert_eq!(labels, [] as [String; 0]);
    drop(world);
    let merges = heard.iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).count();
    let comments = scene.comments(number);
    assert_eq!((merges, comments.len()), (2, 1), "the one that did nothing, and the one that did: {comments:#?}");
}
