//! The daemon killed at the boundaries of what it does, over the whole life of an issue; and its whole host.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_loop_tests::harness::Scene;
use agent_loop_tests::needs;

/// Works, and says so where two are at it at once: the lock goes with its processes, however they end.
const ALONE: &str = "cat > /dev/null\nexec 9> \"$3/lock\"\nflock --nonblock 9 || echo TWICE >> \"$3/log\"\n\
                     echo \"begin $2\" >> \"$3/log\"\necho \"work on $1\" >> work.txt\ngit add work.txt\n\
                     git commit --quiet -m \"work on $1\"\nsleep 1\n";

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

    judge(&scene, number, 1, &format!("{crashes} crashes"));
}

/// One pull request, one merge, one status comment, one close, and so many agents at most, one after the other.
fn judge(scene: &Scene, number: u64, agents: usize, after: &str) {
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
    let begun = log.matches("begin").count();
    let runs = || format!("{:#}", scene.host.asked(["ps", "--all"]));
    assert!((1..=agents).contains(&begun), "{begun} agents after {after}: {log}{comments:#?}\n{}", runs());
    assert!(!log.contains("TWICE"), "two at once after {after}: {log}");
    scene.forge.assert_valid();
}

/// What goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    /// The daemon alone: its keeper and its agent live on.
    Daemon,
    /// The daemon, its keeper and its agent; what comes up is another boot.
    Host,
}

/// A life in which this goes down at a boundary of the first daemon, if it comes to it; whether it did.
fn ends_at(boundary: u64, down: Down) -> bool {
    let mut scene = Scene::new(ALONE);
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    scene.host.set_env("AGENT_LOOP_FAULT", format!("issues:{boundary}"));
    let mut daemon = scene.host.serve();
    let lived = scene.lives(&mut daemon, number);
    scene.host.unset_env("AGENT_LOOP_FAULT");
    // An agent that went down with its host is followed by another one.
    let agents = if down == Down::Host { 2 } else { 1 };
    if !lived {
        if down == Down::Host {
            scene.host.reboot(daemon);
        }
        daemon = scene.serving();
        scene.over(number);
    }
    judge(&scene, number, agents, &format!("{down:?} went down at boundary {boundary}"));
    drop(daemon);
    !lived
}

#[test]
fn a_crash_at_a_boundary_of_a_life_changes_nothing_of_its_end() {
    needs!(root, bpf, cgroup);
    goes_down(Down::Daemon, &[2, 23, 58]);
}

#[test]
fn a_crash_of_the_whole_host_at_a_boundary_of_a_life_changes_nothing_of_its_end() {
    needs!(root, bpf, cgroup);
    goes_down(Down::Host, &[5, 31, 61]);
}

/// Plays some boundaries that lie far apart, each a life with one crash. `AGENT_LOOP_CRASHES` is how many are played, from
/// the first on, instead; `cargo xtask crashes` plays all of them.
fn goes_down(down: Down, some: &[u64]) {
    let most: Option<u64> = std::env::var("AGENT_LOOP_CRASHES").ok().and_then(|text| text.parse().ok());
    let boundaries: Vec<u64> = most.map_or_else(|| some.to_vec(), |most| (1..=most).collect());
    let next = AtomicUsize::new(0);
    let crashed = Mutex::new(BTreeSet::new());
    // A life waits more than it works.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&boundary) = boundaries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if ends_at(boundary, down) {
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
        "{} lives in which the {down:?} went down, at boundaries {:?} to {:?}: each with one pull request, one merge, one status \
         comment, one close and never two agents at once",
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

#[test]
fn an_agent_that_went_down_with_its_host_is_followed_by_another_one() {
    needs!(root, bpf, cgroup);
    let mut scene = Scene::new(&format!("{ALONE}if [ \"$2\" = 1 ]; then sleep 600; fi\n"));
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    let daemon = scene.serving();
    scene.until("the agent", || scene.left("log").contains("begin 1").then_some(()));
    let run = scene.until("its run", || scene.task(number)?["run"].as_str().map(str::to_owned));
    scene.host.reboot(daemon);
    let _daemon = scene.serving();
    let lost = scene.host.ended(&run);
    assert_eq!((&lost["outcome"], &lost["status"]), (&"lost_to_reboot".into(), &"unknown".into()), "{lost}");
    scene.over(number);
    judge(&scene, number, 2, "its host went down");
    assert_eq!(scene.left("log"), "begin 1\nbegin 2\n");
}
