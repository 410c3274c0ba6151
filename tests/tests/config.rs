//! `agent-loop config`: what it says of a file, and with which code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use agent_loop_tests::harness::agent_loop;
use agent_loop_tests::needs;
use serde_json::{Value, json};

fn config(verb: &str, file: &Path, rest: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(agent_loop());
    command.args(["config", verb, "--config"]).arg(file).args(rest).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("it can be started");
    (status.code(), String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
}

/// A configuration that others may read and not write, whatever our umask is.
fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("ours");
}

#[test]
fn a_good_configuration_is_shown_as_it_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml");
    write(&file, "[host]\nmax_agents = 2\n");
    let (code, out, err) = config("check", &file, &[]);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.starts_with(&format!("{}: good\n", file.display())), "{out}");
    assert!(out.contains("no run can be started"), "{out}");

    let (code, shown, _) = config("show", &file, &[]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("max_agents = 2\n") && shown.contains("state_dir = \"/var/lib/agent-loop\"\n"), "{shown}");
    write(&file, &shown);
    assert_eq!(config("show", &file, &[]).1, shown, "what is shown says the same");

    let (code, out, _) = config("show", &file, &["--json"]);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["host"]["max_agents"], &said["limits"]["wall"]), (Some(0), &json!(2), &Value::Null));
    assert_eq!(config("check", &file, &["--json"]).1, "{\n  \"ok\": true\n}\n");
}

#[test]
fn a_wrong_configuration_exits_3_and_names_line_and_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml");
    write(&file, "# two agents\n[host]\nmax_agents = \"two\"\n");
    for verb in ["check", "show"] {
        let (code, out, err) = config(verb, &file, &[]);
        assert_eq!((code, &*out), (Some(3), ""), "{err}");
        assert!(err.contains(&format!("{}:3: `host.max_agents`: ", file.display())), "{err}");
        let (code, out, _) = config(verb, &file, &["--json"]);
        let said: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, &said["ok"], &said["error"]["line"]), (Some(3), &json!(false), &json!(3)));
        assert_eq!(said["error"]["key"], "host.max_agents");
    }
    write(&file, "[agent]\nuser = \"no-such-one\"\n");
    let (code, _, err) = config("check", &file, &[]);
    assert!(code == Some(3) && err.contains("`agent.user`: there is no user"), "{err}");
    let (code, _, err) = config("check", &dir.path().join("none"), &[]);
    assert!(code == Some(3) && err.contains("--config"), "{err}");
    assert_eq!(config("mend", &file, &[]).0, Some(2));
}

#[test]
fn a_configuration_of_another_user_is_not_read() {
    needs!(root);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml");
    write(&file, "");
    std::os::unix::fs::chown(&file, Some(65534), None).expect("we are root");
    let (code, _, err) = config("check", &file, &[]);
    assert!(code == Some(3) && err.contains("belongs to user 65534"), "{err}");
}
