//! I22 under the daemon: what the rules call secret reaches the agent, and no file or answer of ours.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;

use crate::{said, shell, stop};

/// A made-up secret, put together here so that no file holds one.
fn token(number: u8) -> String {
    format!("gh{}Zq7{number}Kf2Lm9Rt4Vx8Bn3Wc6Yd1Hs5", "p_")
}

/// The files of a host that hold one of these texts; what agents left in their own place is theirs.
fn holding(dir: &Path, texts: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() && !path.ends_with("agents") {
            found.extend(holding(&path, texts));
        } else if kind.is_file() {
            let bytes = fs::read(&path).expect("a file");
            let holds = |text: &String| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            found.extend(texts.iter().filter(|text| holds(text)).map(|text| format!("{}: {text}", path.display())));
        }
    }
    found
}

#[test]
fn i22_no_secret_of_a_run_is_in_a_file_or_an_answer_of_the_daemon() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let mut daemon = host.serving();
    let texts: Vec<String> =
        (0..8).map(token).chain(["correct0horse".to_owned(), "correct1horse".to_owned()]).collect();
    let [word, other] = [&texts[8], &texts[9]];
    let secret = host.path("agents").join(&texts[0]);
    fs::create_dir(&secret).expect("a directory whose name is secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o777)).expect("our directory");

    // The agent has each of them.
    let seen = host.path("agents/seen");
    let script = format!("printf '%s ' \"$PWD\" \"$@\" \"$MY_TOKEN\" \"$ANY\" > {}; sleep 600", seen.display());
    let env = [format!("MY_TOKEN={word}"), format!("ANY={}", texts[1])];
    let cwd = secret.to_str().expect("text");
    let options = ["start", "--cwd", cwd, "--env", &env[0], "--env", &env[1], "--grace", "200ms", "--"];
    let command = ["sh", "-c", &script, "sh", &texts[2], "--password", other];
    let started = host.ask(options.into_iter().chain(command));
    assert!(started.status.success(), "{}", said(&started));
    let first = String::from_utf8_lossy(&started.stdout).trim().to_owned();
    let has = eventually("the agent to have written", || fs::read_to_string(&seen).ok().filter(|it| it.ends_with(' ')));
    assert_eq!(has, format!("{cwd} {} --password {other} {word} {} ", texts[2], texts[1]));

    // Others wait, one of them with a secret; what is refused has one too.
    let waiting = host.start(&[], ["/bin/true", &texts[3]]);
    let plain = host.start(&[], shell("exit 7"));
    let nowhere = host.ask(["start", "--cwd", &format!("/no/{}", texts[4]), "--", "true"]);
    let refused = host.ask(["kill", &texts[4]]);
    assert!(!refused.status.success(), "{refused:?}");
    let killed = host.ask(["kill", &first, "--reason", &texts[5]]);
    assert!(killed.status.success(), "{}", said(&killed));
    host.ended(&first);
    host.ended(&plain);
    assert_eq!(host.ended(&waiting)["outcome"], "ended");
    if nowhere.status.success() {
        let id = String::from_utf8_lossy(&nowhere.stdout).trim().to_owned();
        assert_eq!(host.ended(&id)["outcome"], "launch_failed");
    }

    // One that cannot be executed.
    let missing = host.start(&[], [format!("/no/such/{}", texts[6])]);
    assert_eq!(host.ended(&missing)["outcome"], "launch_failed");

    // The daemon crashes while one waits: who knew its secret is gone. One without is launched by the next.
    let blocker = host.start(&["--grace", "200ms"], shell("sleep 600"));
    host.in_state(&blocker, "running");
    let lost = host.start(&[], ["/bin/true", &texts[7]]);
    let kept = host.start(&[], shell("exit 9"));
    daemon.kill();
    let _daemon = host.serving();
    stop(&host, &blocker);
    assert_eq!(host.ended(&kept)["code"], 9);
    assert_eq!(host.ended(&lost)["outcome"], "launch_failed");
    let why = host.ask(["why", &lost]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("submit it again"), "{why:?}");

    let mut answers = Vec::new();
    for id in [&first, &waiting, &missing, &lost] {
        for verb in ["status", "why", "tree", "events", "logs"] {
            answers.push(host.ask([verb, id]));
        }
    }
    answers.extend([
        host.ask(["ps", "--all", "--json"]),
        host.ask(["status", "--json"]),
        nowhere,
        refused,
        killed,
        why,
    ]);
    for answer in &answers {
        for bytes in [&answer.stdout, &answer.stderr] {
            let text = String::from_utf8_lossy(bytes);
            assert!(!texts.iter().any(|secret| text.contains(secret)), "{text}");
        }
    }
    assert_eq!(holding(&host.path(""), &texts), [] as [String; 0]);
}
