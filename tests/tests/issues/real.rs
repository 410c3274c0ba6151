//! The real `claude` on a real issue, with a stand-in for the model alone.

use agent_loop_tests::harness::Scene;
use agent_loop_tests::needs;
use agent_loop_tests::stand_in::{StandIn, Turn};

#[test]
fn the_real_claude_makes_a_commit_that_is_merged() {
    needs!(root, bpf, cgroup, claude);
    let work = "echo 'the door is mended' > door.txt && git add door.txt && git commit --quiet -m 'mend the door'";
    let stand_in = StandIn::start([Turn::Bash(work.to_owned()), Turn::Text("The door is mended.".to_owned())]);
    let mut scene = Scene::new("exit 1");
    scene.use_claude(&stand_in);
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.over(number);
    stand_in.assert_played();
    let world = scene.forge.world();
    assert_eq!((world.pulls.len(), world.issues[&number].closed), (1, 1));
    let main = world.at("refs/heads/main").expect("it is there");
    let git = std::process::Command::new("git")
        .arg("-C")
        .arg(world.git_dir())
        .args(["show", &format!("{main}:door.txt")])
        .output();
    assert_eq!(String::from_utf8_lossy(&git.expect("git").stdout), "the door is mended\n");
    drop(world);
    // What its tools did is in the log, under the issue.
    let key = scene.key(number);
    let commits = scene.lines("proc.exec").into_iter().filter(|line| {
        line["issue"] == key.as_str() && line["exec"]["argv"].to_string().starts_with("[\"git\",\"commit\"")
    });
    assert!(commits.count() >= 1);
}
