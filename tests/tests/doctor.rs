//! `agent-loop doctor`: what it says is so, and nothing of its trials stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use agent_loop_tests::harness::cgroup::Cell;
use agent_loop_tests::harness::{Host, agent_loop, claude, host};
use agent_loop_tests::needs;
use serde_json::Value;

/// `doctor --json` in `cell`, started by `wrapper`: its exit code and what it says.
fn doctor(cell: &Cell, wrapper: &[&str]) -> (i32, Value) {
    let dir = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
    let program = dir.path().join("agent-loop");
    host::copy_program(agent_loop(), &program);
    let mut command = Command::new("setpriv");
    command.args(wrapper).arg(&program).args(["doctor", "--json"]).stdin(Stdio::null());
    let Output { status, stdout, stderr } = cell.hold(&mut command).output().expect("it can be started");
    cell.assert_empty();
    let said = serde_json::from_slice(&stdout);
    let said = said.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    (status.code().unwrap_or(-1), said)
}

fn state(said: &Value, name: &str) -> String {
    let checks = said["checks"].as_array().into_iter().flatten();
    let check = checks.into_iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {said}"));
    check["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_host_where_these_tests_run_in_full_is_full() {
    needs!(bpf, cgroup);
    let cell = Cell::new();
    let (code, said) = doctor(&cell, &[]);
    assert_eq!((code, state(&said, "ebpf-load").as_str()), (0, "ok"), "{said}");
    assert!(said["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("full: ")), "{said}");
}

#[test]
fn without_rights_it_says_what_is_missing_and_what_mends_it() {
    needs!(root, cgroup);
    let cell = Cell::new();
    let (code, said) = doctor(&cell, &["--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert_eq!(code, 1, "{said}");
    assert!(said["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("degraded: ")), "{said}");
    for name in ["cgroup-writable", "ebpf-load"] {
        assert_eq!(state(&said, name), "degraded", "{said}");
    }
    for name in ["clone3", "pidfd-open", "pidfd-signal", "pidfd-wait", "boot-timer", "proc"] {
        assert_eq!(state(&said, name), "ok", "{said}");
    }
    let lacking = said["checks"].as_array().into_iter().flatten().filter(|check| check["state"] != "ok");
    for check in lacking {
        assert!(check["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{check}");
    }
}

#[test]
fn the_cgroup_of_a_trial_that_was_killed_is_removed_and_a_running_one_kept() {
    needs!(root, cgroup);
    let cell = Cell::new();
    // ULIDs begin with their time: this one is of 1970, the other of the far future.
    let old = cell.path().join("agent-loop-doctor-00000000000000000000000000");
    let young = cell.path().join("agent-loop-doctor-7ZZZZZZZZZ0000000000000000");
    let other = cell.path().join("agent-loop-exec-00000000000000000000000000");
    for dir in [&old, &young, &other] {
        fs::create_dir(dir).expect("a cgroup");
    }
    let mut command = Command::new(agent_loop());
    let status = cell.hold(&mut command).args(["doctor", "--json"]).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.code().is_some()));
    assert!(!old.exists() && young.exists() && other.exists(), "{:?}", cell.below());
    assert_eq!(cell.below().len(), 2, "{:?}", cell.below());
}

/// A program that stands in for `claude`: it knows the question, says whether it has a key, and leaves how it was asked.
const CLAUDE: &str = r#"#!/bin/sh
{ echo "as $(id -u) of $USER at $HOME: $*"; tail -n +3 /proc/net/dev; } > "$LEFT"
if [ "$SAYS" = nothing ]; then echo 'Usage: claude [options]'; exit 1; fi
[ -n "$ANTHROPIC_API_KEY" ] && is=true || is=false
echo "{\"loggedIn\": $is, \"authMethod\": \"api_key\", \"email\": \"somebody@example.com\", \"key\": \"$ANTHROPIC_API_KEY\"}"
[ $is = true ]
"#;

/// What `doctor` says of the login of agents, on a host whose configuration is this one's.
fn login(host: &Host) -> Value {
    let etc = host.path("etc");
    fs::create_dir_all(etc.join("agent-loop")).expect("a directory");
    for name in ["passwd", "group", "nsswitch.conf"] {
        let _ = fs::copy(Path::new("/etc").join(name), etc.join(name));
    }
    let config = etc.join("agent-loop/config.toml");
    fs::copy(host.path("config.toml"), &config).expect("the configuration");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("our file");
    let program = host.path("agent-loop");
    if !program.exists() {
        host::copy_program(agent_loop(), &program);
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$1\" /etc && exec \"$2\" doctor --json", "sh"]);
    // Its own environment says nothing of what agents get.
    command.arg(&etc).arg(&program).env("ANTHROPIC_API_KEY", "sk-of-who-asks").stdin(Stdio::null());
    let Output { stdout, stderr, .. } = command.output().expect("it can be started");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    for secret in ["sk-", "somebody@"] {
        assert!(!text.contains(secret), "{text}");
    }
    let said: Value = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
    let checks = said["checks"].as_array().into_iter().flatten();
    checks.into_iter().find(|check| check["name"] == "service-login").cloned().unwrap_or_default()
}

fn found(check: &Value) -> (&str, &str) {
    (check["state"].as_str().unwrap_or_default(), check["found"].as_str().unwrap_or_default())
}

/// A host whose agents are this program.
fn host_of(program: &Path, more: &str) -> Host {
    let mut host = Host::new();
    let config = host.path("agents/claude");
    fs::create_dir(&config).expect("a directory");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o777)).expect("our directory");
    host.set_env("CLAUDE_CONFIG_DIR", &config);
    host.set_env("LEFT", config.join("left"));
    let names = "env = [\"PATH\", \"ANTHROPIC_API_KEY\", \"CLAUDE_CONFIG_DIR\", \"LEFT\", \"SAYS\"]";
    host.configure("", &format!("user = \"nobody\"\n{names}\ncommand = [{program:?}{more}]\n"), "");
    host
}

#[test]
fn a_claude_that_is_not_logged_in_is_told_before_it_is_needed_and_what_is_not_known_is_not_guessed() {
    needs!(root, bpf, cgroup);
    let scratch = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a directory");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
    let program = scratch.path().join("claude");
    fs::write(&program, CLAUDE).expect("a scratch file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our file");

    let mut host = host_of(&program, "");
    let check = login(&host);
    assert!(found(&check).1.starts_with("not known: agents have their environment from the daemon"), "{check}");

    let daemon = host.serving();
    let check = login(&host);
    assert_eq!(found(&check), ("missing", "claude says that it is not logged in, as the user of agents"), "{check}");
    assert!(check["mend"].as_str().is_some_and(|mend| mend.contains("install.md")), "{check}");
    let left = fs::read_to_string(host.path("agents/claude/left")).expect("it was asked");
    let (asked, devices) = left.split_once('\n').expect("two parts");
    assert!(asked.starts_with("as 65534 of nobody at ") && asked.ends_with(": auth status --json"), "{left}");
    assert!(devices.lines().all(|line| line.trim_start().starts_with("lo:")), "it had a network: {left}");
    drop(daemon);

    host.set_env("ANTHROPIC_API_KEY", "sk-of-the-daemon");
    let daemon = host.serving();
    let check = login(&host);
    assert_eq!(found(&check), ("ok", "claude has a credential (api_key)"), "{check}");
    drop(daemon);

    host.set_env("SAYS", "nothing");
    let daemon = host.serving();
    let check = login(&host);
    assert!(found(&check).1.starts_with("not known: claude answers 1"), "{check}");
    drop(daemon);

    let host = host_of(&program, ", \"--settings\", \"/etc/agents.json\"");
    let _daemon = host.serving();
    let check = login(&host);
    assert!(found(&check).1.starts_with("not known: ") && found(&check).1.contains("--settings"), "{check}");
    assert!(!host.path("agents/claude/left").exists(), "it was not asked");
}

#[test]
fn the_real_claude_says_whether_it_is_logged_in() {
    needs!(root, bpf, cgroup, claude);
    let scratch = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a directory");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
    let program = scratch.path().join("claude");
    host::copy_program(&claude().expect("claude was fetched"), &program);
    let mut host = host_of(&program, "");
    let daemon = host.serving();
    let check = login(&host);
    assert_eq!(found(&check), ("missing", "claude says that it is not logged in, as the user of agents"), "{check}");
    drop(daemon);
    host.set_env("ANTHROPIC_API_KEY", "sk-any");
    let _daemon = host.serving();
    let check = login(&host);
    assert_eq!(found(&check), ("ok", "claude has a credential (api_key)"), "{check}");
}
