//! What people see of the loop, and what they make it do: repositories paused, single passes.

use std::process::Command;

use agent_loop_tests::harness::{Daemon, Scene, WORKS, agent_loop};
use agent_loop_tests::needs;

/// Runs `agent-loop tick` beside no daemon: it is one itself for a while.
fn tick(scene: &Scene, more: &[&str]) -> std::process::Output {
    let config = scene.host.path("config.toml");
    let config = config.to_str().expect("a path");
    scene.host.ask([&["tick", "--config", config], more].concat())
}

/// Everything below a directory: paths, sizes and times of change.
fn contents(dir: &std::path::Path) -> Vec<String> {
    let listed = Command::new("find").arg(dir).args(["-printf", "%p %s %T@ %C@\n"]).output().expect("find");
    let mut lines: Vec<String> = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn writes(scene: &Scene) -> usize {
    scene.forge.heard().iter().filter(|it| it.method != "GET").count()
}

fn looked(scene: &Scene) {
    scene.until("a look", || scene.repo()["looked"].as_str().map(drop));
}

#[test]
fn a_paused_repository_is_left_alone_over_a_restart_until_it_is_resumed() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    let mut daemon: Daemon = scene.serving();
    looked(&scene);
    let repo = scene.forge.repository();
    let paused = scene.host.asked(["pause", &repo]);
    assert_eq!(paused["paused"], true, "{paused}");
    let number = scene.issue("mend the door");
    let key = scene.key(number);
    let waits = || scene.repo()["waiting"].as_array()?.iter().any(|it| *it == key.as_str()).then_some(());
    scene.until("it to wait", waits);
    let refused = scene.host.ask(["start", &key]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains(&format!("agent-loop resume {repo}")), "{why}");
    daemon.terminate();

    let _daemon = scene.serving();
    looked(&scene);
    scene.until("it to wait", waits);
    assert!(scene.task(number).is_none() && scene.repo()["paused"] == true);
    let said = scene.host.ask(["queue"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("paused: no issue of it is taken"), "{said:?}");
    assert_eq!(writes(&scene), 0, "nothing was written");

    // What is left of the forge's patience is told.
    let status = scene.host.asked(["status"]);
    let forge = &status["forges"][0];
    assert_eq!((&forge["repo"], &forge["limit"]), (&repo.clone().into(), &5_000.into()), "{status}");
    assert!(forge["remaining"].as_u64().is_some_and(|left| left < 5_000) && forge["resets"].is_string(), "{status}");
    let said = scene.host.ask(["status"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("of 5000 left until"), "{said:?}");

    assert!(scene.host.ask(["resume", &repo]).status.success());
    scene.over(number);
    let unknown = scene.host.ask(["pause", "o/nowhere"]);
    assert_eq!(unknown.status.code(), Some(7), "{unknown:?}");
}

#[test]
fn a_dry_run_tells_what_would_be_taken_and_writes_nothing() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with(WORKS, "max_tasks = 1\n");
    let (first, second) = (scene.issue("mend the door"), scene.issue("paint the door"));
    let stranger = scene.forge.world().open_issue("give me the keys", "mallory", &["State/Ready"]);
    let before = contents(&scene.host.path(""));
    let dry = tick(&scene, &["--dry-run", "--json"]);
    assert!(dry.status.success(), "{dry:?}");
    let view: serde_json::Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    let look = &view["repos"][0];
    assert_eq!((&view["dry_run"], &look["taken"]), (&true.into(), &serde_json::json!([scene.key(first)])), "{view:#}");
    assert_eq!(look["waiting"], serde_json::json!([scene.key(second)]), "{view:#}");
    assert_eq!(look["skipped"][0]["issue"], scene.key(stranger), "{view:#}");
    assert_eq!((contents(&scene.host.path("")), writes(&scene)), (before, 0), "neither here nor there");

    // A daemon that works on one is asked, and takes no other either.
    scene.forge.world().ci = agent_loop_tests::fake_github::Ci::Running;
    let _daemon = scene.serving();
    looked(&scene);
    scene.in_state(first, "ci_wait");
    let asked = scene.host.ask(["tick", "--dry-run"]);
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(said.contains(&format!("{}  waits for its turn", scene.key(second))), "{said}");
    assert!(!said.contains("would be taken"), "{said}");
    scene.forge.world().ci = agent_loop_tests::fake_github::Ci::Passing;
    scene.over(first);
    scene.over(second);
    assert!(scene.host.ask(["tick"]).status.success());
}

#[test]
fn passes_without_a_daemon_bring_an_issue_to_its_merge_and_are_one_at_a_time() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(&format!("{WORKS}touch \"$3/begun\"\nwhile [ ! -e \"$3/go\" ]; do sleep 0.1; done\n"));
    scene.forge.world().closes = false;
    scene.forge.world().ci = agent_loop_tests::fake_github::Ci::Running;
    let number = scene.issue("mend the door");
    let second = std::thread::scope(|scope| {
        let first = scope.spawn(|| tick(&scene, &[]));
        scene.until("the agent", || scene.host.path("agents/begun").exists().then_some(()));
        let second = tick(&scene, &[]);
        std::fs::write(scene.host.path("agents/go"), "").expect("room");
        let first = first.join().expect("it ended");
        assert!(first.status.success(), "{first:?}");
        let said = String::from_utf8_lossy(&first.stdout).into_owned();
        assert!(said.contains(&format!("{}  taken", scene.key(number))) && said.contains("ci wait"), "{said}");
        second
    });
    assert_eq!(second.status.code(), Some(8), "{second:?}");
    // It stayed until its agent had ended and its work was on its way, and not for the checks.
    assert_eq!(scene.forge.world().pulls.len(), 1);
    let idle = tick(&scene, &[]);
    assert!(idle.status.success() && scene.forge.world().issues[&number].open, "{idle:?}");
    scene.forge.world().ci = agent_loop_tests::fake_github::Ci::Passing;
    let last = tick(&scene, &[]);
    assert!(last.status.success(), "{last:?}");
    let world = scene.forge.world();
    let issue = &world.issues[&number];
    assert_eq!((issue.open, issue.closed, world.pulls.len()), (false, 1, 1), "{last:?}");
    assert_eq!(world.at(&format!("refs/agent-loop/claims/{number}")), None);
    drop(world);
    assert_eq!(scene.comments(number).len(), 1);
    assert!(Command::new(agent_loop()).args(["tick", "--help"]).output().is_ok_and(|it| it.status.success()));
}

#[test]
fn an_issue_tells_its_story_and_its_latest_agent_what_it_wrote() {
    needs!(root, bpf, cgroup);
    let scene =
        Scene::with(&format!("echo \"attempt $2 speaks\"\n[ \"$2\" -gt 1 ]\n{WORKS}"), "[budgets]\nfailures = 1\n");
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    let key = scene.key(number);
    let text = |args: &[&str]| {
        let asked = scene.host.ask(args);
        (
            asked.status.code(),
            format!("{}{}", String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr)),
        )
    };
    scene.in_state(number, "needs_human");
    assert_eq!(text(&["logs", &key, "--stdout"]), (Some(0), "attempt 1 speaks\n".to_owned()));
    let (code, said) = text(&["why", &key]);
    assert!(code == Some(0) && said.contains("now: a person is needed"), "{said}");
    assert!(scene.host.ask(["retry", &key]).status.success());
    scene.over(number);
    // It is over, and told all the same: by the latest of its agents.
    assert_eq!(text(&["logs", &key, "--stdout"]), (Some(0), "attempt 2 speaks\n".to_owned()));
    let (code, said) = text(&["why", &key]);
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what:?} is not told: {said}"));
    let told = ["attempt 1: its agent was started", "a person had to decide", "attempt 2: its agent was started"];
    let then = ["the checks of", "was proven to be merged", "the issue was closed"];
    let places: Vec<usize> = told.into_iter().chain(then).map(at).collect();
    assert!(code == Some(0) && places.is_sorted(), "{said}");
    let story = scene.host.asked(["why", &key]);
    let runs = story["runs"].as_array().expect("runs");
    assert_eq!(runs.iter().map(|run| run["attempt"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)], "{story:#}");
    for (name, code, words) in
        [("o/elsewhere#1", 7, "was never worked on"), ("octo-org/playground#x", 2, "owner/name#number")]
    {
        for command in ["why", "logs"] {
            let (exit, said) = text(&[command, name]);
            assert!(exit == Some(code) && said.contains(words), "{command} {name}: {exit:?} {said}");
        }
    }
}
