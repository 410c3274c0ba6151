//! The daemon killed at the boundaries of what it does, over the whole life of an issue.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_loop_tests::harness::Scene;
use agent_loop_tests::needs;

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
    // A merge that was decided and never sent costs nothing of its budget: here that happens again and again.
    let mut scene = Scene::new(ALONE);
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

    judge(&scene, number, &format!("{crashes} crashes"));
}

/// One pull request, one merge, one status comment, one close, one agent.
fn judge(scene: &Scene, number: u64, after: &str) {
    let world = scene.forge.world();
    let issue = &world.issues[&number];
    assert_eq!((issue.open, issue.closed), (false, 1));
    assert_eq!(world.pulls.len(), 1, "one pull request after {after}");
    assert!(world.pulls.values().all(|pull| pull.merged.is_some()));
    drop(world);
    let comments = scene.comments(number);
    assert_eq!(comments.len(), 1, "one status comment after {after}: {comments:#?}");
    let merges = scene.forge.heard().iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).count();
    assert_eq!(merges, 1, "merged once after {after}");
    let log = scene.left("log");
    assert_eq!(log.matches("begin").count(), 1, "one agent after {after}: {log}");
    assert!(!log.contains("TWICE"), "{log}");
    scene.forge.assert_valid();
}

/// A life whose first daemon ends at this boundary, if it comes to it; whether it did.
fn ends_at(boundary: u64) -> bool {
    let mut scene = Scene::new(ALONE);
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    scene.host.set_env("AGENT_LOOP_FAULT", format!("issues:{boundary}"));
    let mut daemon = scene.host.serve();
    let lived = scene.lives(&mut daemon, number);
    scene.host.unset_env("AGENT_LOOP_FAULT");
    if !lived {
        daemon = scene.serving();
        scene.over(number);
    }
    judge(&scene, number, &format!("a crash at boundary {boundary}"));
    drop(daemon);
    !lived
}

/// `AGENT_LOOP_CRASHES` is how many boundaries are played, from the first on; `cargo xtask crashes` plays all of them.
#[test]
fn a_crash_at_a_boundary_of_a_life_changes_nothing_of_its_end() {
    needs!(root, bpf, cgroup);
    let most: Option<u64> = std::env::var("AGENT_LOOP_CRASHES").ok().and_then(|text| text.parse().ok());
    // The short form: some boundaries that lie far apart, each life with one crash.
    let boundaries: Vec<u64> = most.map_or_else(|| vec![2, 23, 58], |most| (1..=most).collect());
    let next = AtomicUsize::new(0);
    let crashed = Mutex::new(BTreeSet::new());
    // A life waits more than it works.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&boundary) = boundaries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if ends_at(boundary) {
                        crashed.lock().expect("ours").insert(boundary);
                    } else if most.is_some() {
                        // It lived to its end: so do all with a later boundary.
                        next.store(boundaries.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let crashed = crashed.into_inner().expect("ours");
    eprintln!(
        "{} lives with a crash of the daemon, at boundaries {:?} to {:?}: each with one pull request, one merge, one status \
         comment, one close and one agent",
        crashed.len(),
        crashed.first(),
        crashed.last()
    );
    assert!(crashed.len() >= 3, "the boundaries are not passed: {crashed:?}");
    if most.is_some() {
        let last = crashed.last().copied().unwrap_or_default();
        assert_eq!(crashed, (1..=last).collect(), "every boundary up to the last one");
    }
}
