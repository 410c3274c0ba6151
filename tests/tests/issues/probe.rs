//! The configuration, judged by what the forge says.

use std::process::Output;

use agent_loop_tests::harness::{Scene, WORKS};
use agent_loop_tests::needs;
use serde_json::Value;

fn check(scene: &Scene, more: &[&str]) -> Output {
    let config = scene.host.path("config.toml");
    scene.host.ask([&["config", "check", "--config", config.to_str().expect("a path")], more].concat())
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_probe_finds_what_no_file_can_tell_and_the_plain_check_asks_nobody() {
    needs!(root, cgroup);
    let scene = Scene::new(WORKS);
    scene.forge.world().required = vec!["test".to_owned()];
    let plain = check(&scene, &[]);
    assert!(plain.status.success() && scene.forge.heard().is_empty(), "{plain:?}");

    let good = check(&scene, &["--probe"]);
    assert_eq!(good.status.code(), Some(0), "{}", says(&good));
    assert!(says(&good).starts_with(&says(&plain)), "{}", says(&good));
    for words in [
        "logged in as agent-loop-bot",
        "scope `repo`",
        "its three labels are there",
        "into main: test",
        "checks can be read",
    ] {
        assert!(says(&good).contains(words), "{words}: {}", says(&good));
    }
    assert!(scene.forge.heard().iter().all(|it| it.method == "GET"), "nothing was written");
    scene.forge.assert_valid();

    {
        let mut world = scene.forge.world();
        world.scopes = Some("read:org".to_owned());
        world.labels.remove("State/Ready");
        world.merge_queue = true;
        world.hides_checks = true;
    }
    let bad = check(&scene, &["--probe", "--json"]);
    assert_eq!(bad.status.code(), Some(4), "{}", says(&bad));
    let found: Value = serde_json::from_slice(&bad.stdout).expect("JSON");
    let wrong: Vec<&Value> =
        found["findings"].as_array().expect("findings").iter().filter(|it| it["level"] == "wrong").collect();
    assert_eq!((&found["ok"], wrong.len()), (&false.into(), 4), "{found:#}");
    assert!(wrong.iter().all(|it| it["next"].as_str().is_some_and(|next| !next.is_empty())), "{found:#}");

    scene.forge.world().tokens.clear();
    let refused = check(&scene, &["--probe"]);
    assert_eq!(refused.status.code(), Some(4), "{}", says(&refused));
    assert!(
        says(&refused).contains("the token is not accepted") && says(&refused).contains("-> "),
        "{}",
        says(&refused)
    );
    assert!(check(&scene, &[]).status.success(), "the file is as good as before");
}
