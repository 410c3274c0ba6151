//! `agent-loop doctor`: what it says is so, and nothing of its trials stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use agent_loop_tests::harness::cgroup::Cell;
use agent_loop_tests::harness::{agent_loop, host};
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
