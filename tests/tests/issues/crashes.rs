//! The daemon killed at the boundaries of what it does, over the whole life of an issue.

use agent_loop_tests::needs;

use agent_loop_tests::harness::Scene;

/// Works, and says so where two are at it at once.
const ALONE: &str = "cat > /dev/null\nmkdir \"$3/busy\" 2> /dev/null || echo TWICE >> \"$3/log\"\n\
                     echo \"begin $2\" >> \"$3/log\"\necho \"work on $1\" >> work.txt\ngit add work.txt\n\
                     git commit --quiet -m \"work on $1\"\nsleep 1\nrmdir \"$3/busy\"\n";

/// How many boundaries each daemon passes before it is killed, in turn; every number of them comes at every place of the
/// life sooner or later.
const LIVES: [u64; 8] = [5, 9, 4, 12, 7, 15, 6, 18];

#[test]
fn a_daemon_that_is_killed_at_every_few_boundaries_comes_to_the_same_end() {
    needs!(root, bpf, cgroup);
    // A merge that was decided and never sent counts as asked for: here that happens again and again.
    let mut scene = Scene::with(ALONE, "[budgets]\nmerges = 100\n");
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    let mut crashes = 0;
    for boundaries in LIVES.iter().cycle().take(120) {
        scene.host.set_env("AGENT_LOOP_FAULT", format!("issues:{boundaries}"));
        let mut daemon = scene.host.serve();
        if scene.lives(&mut daemon, number) {
            break;
        }
        crashes += 1;
    }
    scene.host.unset_env("AGENT_LOOP_FAULT");
    let _daemon = scene.serving();
    scene.over(number);
    assert!(crashes >= 5, "only {crashes} crashes: the boundaries are not passed");

    let world = scene.forge.world();
    let issue = &world.issues[&number];
    assert_eq!((issue.open, issue.closed), (false, 1));
    assert_eq!(world.pulls.len(), 1, "one pull request after {crashes} crashes");
    assert!(world.pulls.values().all(|pull| pull.merged.is_some()));
    drop(world);
    let comments = scene.comments(number);
    assert_eq!(comments.len(), 1, "one status comment: {comments:#?}");
    let merges = scene.forge.heard().iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).count();
    assert_eq!(merges, 1, "merged once");
    let log = scene.left("log");
    assert_eq!(log.matches("begin").count(), 1, "one agent: {log}");
    assert!(!log.contains("TWICE"), "{log}");
    scene.forge.assert_valid();
}
