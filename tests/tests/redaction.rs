//! I22 on real runs: what the rules call secret is in no file of ours, nor in what we print.

use std::fs;
use std::path::Path;

use agent_loop_tests::harness::Exec;
use agent_loop_tests::needs;

/// A made-up secret, put together here so that no file holds one.
fn secret(number: u8) -> String {
    format!("gh{}Zq7{number}Kf2Lm9Rt4Vx8Bn3Wc6Yd1Hs5", "p_")
}

/// A word that is secret by the flag before it alone.
fn word(number: u8) -> String {
    format!("correct{number}horse{number}battery")
}

/// The files below a directory that hold one of these texts.
fn holding(dir: &Path, texts: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if entry.file_type().expect("a type").is_dir() {
            found.extend(holding(&path, texts));
        } else {
            let bytes = fs::read(&path).expect("a file");
            let holds = |text: &String| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            found.extend(texts.iter().filter(|text| holds(text)).map(|text| format!("{}: {text}", path.display())));
        }
    }
    found
}

#[test]
fn i22_no_secret_of_a_run_is_in_its_events_its_log_or_on_the_terminal() {
    needs!(bpf, cgroup);
    let exec = Exec::new();
    let dir = exec.path("where");
    let place = dir.join(secret(3));
    fs::create_dir_all(&place).expect("a directory whose name is secret");
    let state = exec.path("state");
    let script = format!(
        "cd '{}'; /bin/true --token {}; /bin/true --password={} {}; /bin/true; sleep 60 & exit 0",
        place.display(),
        word(1),
        word(2),
        secret(1)
    );
    let outcome = exec
        .arg("--state-dir")
        .arg(&state)
        .env("MY_TOKEN", secret(4))
        .cmd(["sh", "-c", &script, "name", &secret(2)])
        .run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let texts = [secret(1), secret(2), secret(3), secret(4), word(1), word(2)];
    assert_eq!(holding(&state, &texts), [] as [String; 0]);
    let events = fs::read_to_string(outcome.path("events.jsonl")).expect("the events");
    for text in &texts {
        assert!(!events.contains(text), "{text} is in the events");
        assert!(!outcome.stderr.contains(text), "{text} was printed: {}", outcome.stderr);
    }
    // They were there: what stands in their places can be told apart, and equal ones are equal.
    for rule in ["github", "argument", "name"] {
        assert!(events.contains(&format!("‹redacted:{rule}:")), "{rule}: {events}");
    }
    let head = events.lines().next().map(|_| fs::read_to_string(state.join("audit/seg/000000000000.jsonl")));
    let head = head.expect("lines").expect("a log");
    assert!(head.contains("\"redaction_sha256\":\""), "{head}");
}

#[test]
fn i22_a_command_that_cannot_be_started_is_told_without_its_secrets() {
    needs!(cgroup);
    let exec = Exec::new();
    let state = exec.path("state");
    let program = format!("/no/such/{}", secret(1));
    let outcome = exec.arg("--state-dir").arg(&state).cmd([program.as_str(), "--token", &word(1)]).run();
    assert_eq!(outcome.code, 127, "{}", outcome.stderr);
    let texts = [secret(1), word(1)];
    assert_eq!(holding(&state, &texts), [] as [String; 0]);
    let events = fs::read_to_string(outcome.path("events.jsonl")).expect("the events");
    for text in &texts {
        assert!(!events.contains(text) && !outcome.stderr.contains(text), "{}\n{events}", outcome.stderr);
    }
    assert!(outcome.stderr.contains("‹redacted:github:"), "{}", outcome.stderr);
}
