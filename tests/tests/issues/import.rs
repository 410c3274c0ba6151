//! The state file that `agent_loop.py` left: told, never believed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output};

use agent_loop_tests::harness::agent_loop;
use agent_loop_tests::needs;
use serde_json::{Value, json};

struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stranger {
    /// A process of another user, as a number that was given out again.
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").uid(65_534).spawn().expect("sleep"))
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_none()
    }
}

fn import(dir: &tempfile::TempDir, text: &str) -> Output {
    let file = dir.path().join("state.json");
    fs::write(&file, text).expect("room");
    let mut import = Command::new(agent_loop());
    import
        .args(["import", "--json", "--socket"])
        .arg(dir.path().join("nobody"))
        .arg(&file)
        .output()
        .expect("agent-loop")
}

#[test]
fn a_stranger_on_an_old_number_is_told_and_left_alone_whoever_it_belongs_to() {
    needs!(root);
    let dir = tempfile::tempdir().expect("a scratch directory");
    let mut stranger = Stranger::new();
    let pid = stranger.0.id();
    // An hour old: agent_loop.py would have killed it by its number, and taken the user's as alive for ever.
    let old = json!({ "pid": pid, "issue": 91, "started_at": "2020-05-15T12:00:00+00:00", "type": "issue" });
    let told = import(&dir, &old.to_string());
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let report: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!((&report["process"]["fate"], &report["signalled"]), (&json!("stranger"), &json!(false)), "{report:#}");
    assert!(report["process"]["says"].as_str().is_some_and(|says| says.contains("user 65534")), "{report:#}");
    assert!(report["issue"]["next"].as_str().is_some_and(|next| next.contains("State/Ready")), "{report:#}");
    // One that may be the agent is not signalled either.
    let may_be = json!({ "pid": pid, "issue": 91, "started_at": "2100-01-01T00:00:00+00:00", "type": "issue" });
    let report: Value = serde_json::from_slice(&import(&dir, &may_be.to_string()).stdout).expect("JSON");
    assert_eq!(report["process"]["fate"], "unknown", "{report:#}");
    let planted = import(&dir, "{\"pid\": 1}");
    assert!(String::from_utf8_lossy(&planted.stdout).contains("never was an agent"), "{planted:?}");
    assert!(stranger.lives(), "nobody was signalled");
    drop(stranger);
    let report: Value = serde_json::from_slice(&import(&dir, &old.to_string()).stdout).expect("JSON");
    assert_eq!(report["process"]["fate"], "gone", "{report:#}");
}

#[test]
fn a_file_that_is_none_is_an_error_with_the_next_step_and_never_no_agent() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    for text in ["", "{\"pid\": 12", "[]", "{}", "{\"pid\": \"all\"}"] {
        let told = import(&dir, text);
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!((told.status.code(), told.stdout.is_empty()), (Some(1), true), "{text:?}: {said}");
        assert!(said.contains("nothing is known of an agent by it") && said.contains("ps -ef"), "{text:?}: {said}");
    }
    let of = |path: &str| Command::new(agent_loop()).arg("import").arg(path).output().expect("agent-loop");
    assert_eq!(of("/nonexistent/state.json").status.code(), Some(7));
    assert_eq!(of("/dev/zero").status.code(), Some(1));
    // One that anybody could have written is told to be so.
    let told = import(&dir, "{\"issue\": 91, \"pid\": null}");
    fs::set_permissions(dir.path().join("state.json"), fs::Permissions::from_mode(0o666)).expect("our file");
    let open = of(dir.path().join("state.json").to_str().expect("a path"));
    assert!(told.status.success() && !String::from_utf8_lossy(&told.stdout).contains("anybody"), "{told:?}");
    assert!(String::from_utf8_lossy(&open.stdout).contains("anybody may have put there"), "{open:?}");
}
