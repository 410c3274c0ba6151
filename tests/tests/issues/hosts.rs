//! Several daemons that share a repository.

use std::sync::Arc;

use agent_loop_tests::fake_github::{Ci, FakeGitHub};
use agent_loop_tests::harness::{Daemon, Scene, WORKS};
use agent_loop_tests::needs;

#[test]
fn i13_two_hosts_of_one_repository_never_work_on_one_issue() {
    needs!(root, bpf, cgroup);
    let one = Scene::with("echo one >> \"$3/log\"\nsleep 3\n", "");
    one.script(&format!("echo \"$1\" >> \"$3/log\"\nsleep 2\n{WORKS}"));
    let issues = [one.issue("mend the door"), one.issue("paint the door")];
    // Its scratch files and its state are its own; the forge is the same.
    let two = Scene::on(Arc::clone(&one.forge), &format!("echo \"$1\" >> \"$3/log\"\nsleep 2\n{WORKS}"), "");
    let _daemons = (one.serving(), two.serving());
    for number in issues {
        // Whoever of the two has it; what it says is told where it does not come to its end.
        let hosts = [&one, &two];
        let holder = one.until("the issue to be taken", || {
            let closed = !one.forge.world().issues[&number].open;
            hosts.into_iter().find(|host| host.task(number).is_some_and(|task| task["attempt"] == 1) || closed)
        });
        holder.until("both issues to be closed", || (!one.forge.world().issues[&number].open).then_some(()));
    }
    let begun = format!("{}{}", one.left("log"), two.left("log"));
    let mut begun: Vec<&str> = begun.lines().collect();
    begun.sort_unstable();
    assert_eq!(begun, ["1", "2"], "each issue had one agent, on one host");
    assert_eq!(one.forge.world().pulls.len(), 2);
    for number in issues {
        assert_eq!(one.comments(number).len(), 1, "one status comment");
    }
}

#[test]
fn a_second_daemon_of_a_host_is_refused_and_its_issues_have_one_agent_each() {
    needs!(root, bpf, cgroup);
    let scene =
        Scene::new(&format!("echo \"$1\" >> \"$3/log\"\nwhile [ ! -e \"$3/go\" ]; do sleep 0.1; done\n{WORKS}"));
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.until("the agent", || scene.left("log").contains('1').then_some(()));
    // Of the same configuration; and one whose state and socket are its own, where only the place for runs is the same.
    let config = std::fs::read_to_string(scene.host.path("config.toml")).expect("ours");
    let own = ["state", "log", "run"].into_iter().fold(config.clone(), |text, name| {
        let path = |name: &str| format!("{:?}", scene.host.path(name));
        text.replace(&path(name), &path(&format!("other-{name}")))
    });
    for text in [&config, &own] {
        std::fs::write(scene.host.path("config.toml"), text).expect("ours");
        let mut second = scene.host.serve();
        assert!(!second.ready_or_ended(), "{}", second.log());
        assert_eq!(second.wait().code(), Some(8), "{}", second.log());
    }
    std::fs::write(scene.host.path("agents/go"), "").expect("room");
    scene.over(number);
    assert_eq!(scene.left("log"), "1\n", "one agent");
    assert_eq!(scene.comments(number).len(), 1);
    assert_eq!(scene.forge.world().pulls.len(), 1);
}

#[test]
fn an_issue_whose_host_died_is_taken_over_and_not_lost() {
    needs!(root, bpf, cgroup);
    let more = "[claim]\nrenew = \"2s\"\nstale = \"8s\"\n";
    let gone = Scene::with("cat > /dev/null\nsleep 600\n", more);
    let number = gone.issue("mend the door");
    let daemon = gone.serving();
    gone.in_state(number, "running");
    // The host goes with its daemon, its keeper and its agent.
    drop(daemon);
    let forge = Arc::clone(&gone.forge);
    drop(gone);

    let heir = Scene::on(forge, WORKS, more);
    // Its label says that somebody works on it; nobody touches it.
    assert_eq!(heir.forge.world().issues[&number].labels, ["State/InProgress"]);
    let _daemon = heir.serving();
    heir.over(number);
    let world = heir.forge.world();
    assert_eq!((world.pulls.len(), world.issues[&number].closed), (1, 1));
}

/// The host goes with its daemon, its keeper and its agent; the forge stays.
fn goes(scene: Scene, daemon: Daemon) -> Arc<FakeGitHub> {
    drop(daemon);
    let forge = Arc::clone(&scene.forge);
    drop(scene);
    forge
}

#[test]
fn an_heir_goes_on_with_the_pull_request_of_a_host_that_died() {
    needs!(root, bpf, cgroup);
    let more = "[claim]\nrenew = \"2s\"\nstale = \"8s\"\n";
    let gone = Scene::with(WORKS, more);
    gone.forge.world().ci = Ci::Running;
    let number = gone.issue("mend the door");
    let daemon = gone.serving();
    gone.in_state(number, "ci_wait");
    let forge = goes(gone, daemon);
    let head = forge.world().pulls.values().next().expect("it was made").head.clone();
    // What somebody else pushed under a name of ours, and what no host of ours claims, is nobody's to go on with.
    let foreign = {
        let mut world = forge.world();
        let foreign = world.open_issue("paint the door", "alice", &["State/Ready"]);
        world.push(&format!("issue-{foreign}-fix"), "theirs.txt", "by a person");
        foreign
    };
    let heir = Scene::on(forge, &format!("echo \"$1\" >> \"$3/log\"\n{WORKS}"), &format!("max_tasks = 2\n{more}"));
    let _daemon = heir.serving();
    heir.until("the same pull request", || {
        heir.task(number).filter(|task| task["state"] == "ci_wait" && task["head"] == head.as_str())
    });
    heir.forge.world().ci = Ci::Passing;
    heir.over(number);
    let refused = heir.in_state(foreign, "needs_human");
    assert!(refused["says"].as_str().is_some_and(|says| says.contains("not of this task")), "{refused}");
    assert_eq!(heir.left("log"), "", "its work was done: no agent was needed, nor begun on what is not ours");
    let world = heir.forge.world();
    assert_eq!((world.pulls.len(), world.issues[&number].closed), (1, 1));
    let merged = world.pulls.values().next().expect("it is there").merged.is_some();
    drop(world);
    assert!(merged);
    assert_eq!(heir.comments(number).len(), 1, "the comment of the host that died was gone on with");
    heir.forge.assert_valid();
}
