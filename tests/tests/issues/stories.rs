//! What goes wrong in the life of an issue, and what people do meanwhile.

use agent_loop_tests::fake_github::{Answer, Ci, Fault, TOKEN, When};
use agent_loop_tests::needs;

use agent_loop_tests::harness::{Scene, WORKS};

#[test]
fn checks_that_fail_are_mended_by_the_agent_that_is_told_of_them() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(&format!("cat > \"$3/prompt-$2\"\n{}", WORKS.replace("cat > /dev/null\n", "")));
    scene.forge.world().ci = Ci::Failing;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.until("a second attempt", || scene.task(number).filter(|task| task["attempt"] == 2));
    scene.forge.world().ci = Ci::Passing;
    scene.over(number);
    let prompt = scene.left("prompt-2");
    assert!(prompt.contains("these checks of it failed"), "{prompt}");
    assert!(scene.left("prompt-1").contains("mend the door"));
    let world = scene.forge.world();
    assert_eq!((world.pulls.len(), world.issues[&number].closed), (1, 1));
    // Only the second head was green, and that one was merged.
    let pull = world.pulls.values().next().expect("a pull request").clone();
    let (commit, _) = pull.merged.expect("merged");
    drop(world);
    let merges: Vec<_> =
        scene.forge.heard().into_iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).collect();
    assert_eq!(merges.len(), 1);
    assert_eq!(merges[0].body["sha"], pull.head.as_str(), "pinned to the head that was green; merged as {commit}");
}

#[test]
fn an_agent_that_commits_nothing_asks_a_person_once_and_is_tried_again_when_told() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with("cat > /dev/null\n", "[budgets]\nfailures = 1\n");
    let number = scene.issue("mend the door");
    let daemon = scene.serving();
    scene.in_state(number, "needs_human");
    let told = || scene.comments(number).iter().filter(|it| it.contains("needs a person")).count();
    scene.until("the notice", || (told() == 1).then_some(()));
    assert!(scene.forge.world().issues[&number].labels.contains(&"State/Question".to_owned()));
    // The state is entered again by another daemon: nothing is said twice.
    drop(daemon);
    let _daemon = scene.serving();
    scene.in_state(number, "needs_human");
    let looks = scene.forge.count("GET", "/repos/{owner}/{repo}/issues/{issue_number}");
    scene.until("it to be looked at again", || {
        (scene.forge.count("GET", "/repos/{owner}/{repo}/issues/{issue_number}") > looks + 3).then_some(())
    });
    assert_eq!((told(), scene.comments(number).len()), (1, 2), "one status comment and one notice");

    scene.script(WORKS);
    let asked = scene.host.ask(["retry", &scene.key(number)]);
    assert!(asked.status.success(), "{asked:?}");
    scene.over(number);
    assert_eq!(told(), 1);
}

#[test]
fn an_issue_that_a_person_closes_has_its_agent_stopped_and_everything_put_away() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new("cat > /dev/null\nsleep 600 & sleep 600\n");
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.in_state(number, "running");
    let run = scene.until("the agent's run", || scene.task(number)?["run"].as_str().map(str::to_owned));
    scene.host.in_state(&run, "running");
    scene.forge.world().close(number);
    let claim = format!("/claims/{number}");
    let claims = || scene.forge.heard().iter().filter(|it| it.method == "GET" && it.path.ends_with(&claim)).count();
    let mut known = None;
    scene.until("its agent to be stopped", || {
        let reads = claims();
        let task = scene.task(number);
        // Each decision after the one that finds the issue closed reads the claim anew: the next one asks for the stop.
        if task.as_ref().is_some_and(|task| task["state"] == "stopping") {
            // It may have come to its end meanwhile.
            let _ = scene.host.ask(["resume", &scene.key(number)]);
            known.get_or_insert(reads);
        }
        let state = scene.host.run(&run)["state"].as_str().map(str::to_owned);
        let alive = state.as_deref() == Some("running");
        assert!(!(alive && task.is_none()), "it was put away, and its agent runs");
        assert!(!(alive && known.is_some_and(|known| reads > known + 5)), "nobody asks for its stop");
        (!alive).then_some(())
    });
    scene.over(number);
    // It is let go when its tree is empty, not before.
    assert_eq!(scene.host.run(&run)["state"], "ended");
    let run = scene.host.ended(&run);
    assert_eq!((run["outcome"].as_str(), run["proven"].as_bool()), (Some("operator"), Some(true)), "{run}");
    let world = scene.forge.world();
    assert!(world.pulls.is_empty());
    assert_eq!(world.at(&format!("refs/agent-loop/claims/{number}")), None);
    assert_eq!(world.issues[&number].closed, 1, "by the person alone");
}

#[test]
fn a_merge_that_landed_behind_a_502_is_found_by_reading_and_asked_for_once() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    scene.forge.world().closes = false;
    scene.forge.play(When::next("put", "/merge"), Fault::Done(Answer::bad_gateway()));
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.over(number);
    let merges = scene.forge.heard().iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).count();
    assert_eq!(merges, 1);
    let answers: Vec<_> = scene.lines("merge.result").iter().map(|line| line["write"]["answer"].clone()).collect();
    assert_eq!(answers, ["doubt", "proven"]);
}

#[test]
fn i15_a_repository_without_checks_is_not_merged_unless_that_is_wanted() {
    needs!(root, bpf, cgroup);
    let scene = Scene::with(WORKS, "[ci]\nstart_grace = \"3s\"\n");
    scene.forge.world().ci = Ci::Never;
    let number = scene.issue("mend the door");
    let _daemon = scene.serving();
    scene.until_unmerged("the notice", || {
        scene.comments(number).iter().any(|it| it.contains("No check has started")).then_some(())
    });
    assert_eq!(scene.task(number).expect("it waits")["state"], "ci_missing");
    // They start after all.
    scene.forge.world().ci = Ci::Passing;
    scene.over(number);
    assert_eq!(scene.comments(number).len(), 2, "one status comment and one notice");
}

#[test]
fn i17_text_of_an_issue_is_inert_and_the_token_is_nowhere() {
    needs!(root, bpf, cgroup);
    // What it commits has names that are no UTF-8, look like options, and hold what terminals obey.
    let odd = "for name in \"$(printf 'caf\\351')\" --exec=id \"$(printf 'red \\033[31m')\" '$(id)'; do\n\
               echo odd > \"./$name\"\ngit add -- \"$name\"\ndone\n";
    let scene = Scene::new(&format!("cat > \"$3/prompt\"\n{odd}{}", WORKS.replace("cat > /dev/null\n", "")));
    let marker = scene.host.path("agents/executed");
    let evil = format!(
        "$(touch {0}) `touch {0}` ; touch {0} #--upload-pack=touch {{{{ 7*7 }}}} <!-- agent-loop:1 -->",
        marker.display()
    );
    let number = scene.issue(&evil);
    let body = format!("{evil}\n--exec\n\u{1b}[31m\u{202e}{}\n", "x".repeat(1 << 20));
    scene.forge.world().issues.get_mut(&number).expect("it is there").body = Some(body);
    let _daemon = scene.serving();
    scene.over(number);
    assert!(!marker.exists());
    let world = scene.forge.world();
    let main = world.at("refs/heads/main").expect("it is there");
    let mut list = std::process::Command::new("git");
    list.arg("--git-dir").arg(world.git_dir()).args(["ls-tree", "-z", "--name-only", &main]);
    let listed = list.output().expect("git").stdout;
    drop(world);
    for name in [b"caf\xe9".as_slice(), b"--exec=id", b"red \x1b[31m", b"$(id)"] {
        assert!(listed.split(|byte| *byte == 0).any(|it| it == name), "{name:?} was merged as it was");
    }
    let prompt = scene.left("prompt");
    assert!(prompt.contains("touch") && prompt.contains("7*7") && !prompt.contains('\u{1b}'), "{}", &prompt[..2000]);
    assert!(prompt.len() < 200 << 10, "cut: {}", prompt.len());
    for line in scene.lines("run.intent") {
        assert!(!line["argv"].to_string().contains("touch"), "{line}");
    }
    let (files, found) = scene.files_with(TOKEN.as_bytes());
    assert_eq!(found, Vec::<std::path::PathBuf>::new());
    assert!(files > 20, "{files} files were looked at");
}

#[test]
fn an_issue_of_a_stranger_is_not_taken_until_somebody_who_may_labels_it() {
    needs!(root, bpf, cgroup);
    let scene = Scene::new(WORKS);
    let number = scene.forge.world().open_issue("give me the keys", "mallory", &["State/Ready"]);
    let _daemon = scene.serving();
    let key = scene.key(number);
    scene.until("it to be passed over", || {
        scene.repo()["skipped"].as_array()?.iter().any(|it| it["issue"] == key.as_str()).then_some(())
    });
    assert!(scene.task(number).is_none());
    scene.forge.world().unlabel(number, "State/Ready", "alice");
    scene.forge.world().label(number, "State/Ready", "alice");
    scene.over(number);
}
