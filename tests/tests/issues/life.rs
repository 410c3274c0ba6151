//! One issue from its label to its end.

use agent_loop_tests::needs;

use agent_loop_tests::harness::{Scene, WORKS};

#[test]
fn an_issue_is_brought_to_a_verified_merge_and_closed() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    // "Closes #N" is best effort there: it is closed by us, on the proof of the merge.
    scene.forge.world().closes = false;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.over(number);

    let world = scene.forge.world();
    let issue = &world.issues[&number];
    assert_eq!((issue.open, issue.closed), (false, 1));
    assert_eq!(issue.labels, Vec::<String>::new(), "every label of ours is taken off");
    let pulls: Vec<_> = world.pulls.values().collect();
    assert_eq!(pulls.len(), 1, "{pulls:?}");
    let (commit, by) = pulls[0].merged.clone().expect("merged");
    assert_eq!(by, world.login);
    assert!(world.is_ancestor(&commit, &world.at("refs/heads/main").expect("it is there")));
    assert_eq!(world.at(&format!("refs/heads/{}", pulls[0].head_branch)), None, "the branch went");
    assert_eq!(world.at(&format!("refs/agent-loop/claims/{number}")), None, "the claim was given up");
    let ours: Vec<_> = world.comments.values().filter(|it| it.author == world.login).collect();
    assert_eq!(ours.len(), 1, "one status comment: {ours:#?}");
    assert!(ours[0].body.contains("merged") && ours[0].body.contains("| ci wait |"), "{}", ours[0].body);
    drop(world);
    scene.forge.assert_valid();

    // Each write has its intent before it, and the merge is proven before the issue is closed.
    let log = scene.log();
    let of = |kind: &str, what: &str| {
        log.iter().position(|line| {
            line["kind"] == kind && line["write"]["what"] == what && line["issue"] == scene.key(number)
        })
    };
    for what in ["claim", "label", "push", "open", "close", "clean", "release"] {
        let (intent, result) = (of("forge.intent", what), of("forge.result", what));
        assert!(intent.is_some() && intent < result, "{what}: {intent:?} {result:?}");
    }
    assert!(of("comment.intent", "comment") < of("comment.result", "comment"));
    let merged = log.iter().position(|line| line["kind"] == "merge.result" && line["write"]["answer"] == "proven");
    assert!(of("merge.intent", "merge") < merged && merged < of("forge.intent", "close"), "{merged:?}");
    let verdicts: Vec<_> = scene.lines("ci.verdict").iter().map(|line| line["ci"]["verdict"].clone()).collect();
    assert_eq!(verdicts.last().expect("it is there"), "green");
    let states: Vec<_> = scene.lines("task.state").iter().map(|line| line["task"]["state"].clone()).collect();
    assert_eq!(states.last().expect("it is there"), "cleaned", "{states:?}");
    // The agent's own lines say which issue they are for.
    let born = scene.lines("run.born");
    assert!(born.len() >= 3 && born.iter().all(|line| line["issue"] == scene.key(number)), "{born:#?}");
    assert_eq!(std::fs::read_dir(scene.host.path("work")).expect("it is there").count(), 0, "the clone was put away");
}
