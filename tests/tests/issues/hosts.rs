//! Several daemons that share a repository.

use std::sync::Arc;

use agent_loop_tests::needs;

use agent_loop_tests::harness::{Scene, WORKS};

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
