//! What systemd starts: what the units say, what they are told, and the cgroup that is held for agents.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_loop::config::Config;
use agent_loop::store::{SqliteStore, StateDir};
use agent_loop_tests::harness::cgroup::Cell;
use agent_loop_tests::harness::{Host, agent_loop, eventually, skip};
use agent_loop_tests::{needs, sys, test_name};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// A socket that hears what a service says, as systemd's does.
struct Ear {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Ear {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("our socket");
        Self { dir, socket }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// What is heard until a message has this line.
    fn until(&self, wanted: &str) -> String {
        let mut all = String::new();
        let mut bytes = [0; 4096];
        while !all.lines().any(|line| line == wanted) {
            let count =
                self.socket.recv(&mut bytes).unwrap_or_else(|why| panic!("{wanted:?} is not said: {why}\n{all}"));
            all.push_str(&String::from_utf8_lossy(&bytes[..count]));
            all.push('\n');
        }
        all
    }
}

fn hold(cell: &Cell, ear: &Ear) -> Child {
    let mut command = Command::new(agent_loop());
    command.arg("hold").env("NOTIFY_SOCKET", ear.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    cell.hold(&mut command).spawn().expect("it starts")
}

#[test]
fn the_holder_makes_its_cgroup_ready_before_it_says_so_and_ends_when_told_to() {
    needs!(root, cgroup);
    let (cell, ear) = (Cell::new(), Ear::new());
    let mut holder = hold(&cell, &ear);
    let said = ear.until("READY=1");
    let runs = cell.path().join("runs");
    assert!(said.contains(&format!("STATUS=runs are made in {}", runs.display())), "{said}");
    assert!(runs.is_dir());
    let inside = fs::read_to_string(cell.path().join("holder/cgroup.procs")).expect("its cgroup");
    assert_eq!(inside.trim(), holder.id().to_string());
    assert_eq!(fs::read_to_string(cell.path().join("cgroup.procs")).expect("ours").trim(), "");
    // Each controller that there is to give is given on.
    let words = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(cell.path().join(name)).expect("ours");
        text.split_whitespace().map(str::to_owned).collect()
    };
    for controller in ["cpu", "memory", "pids"] {
        let given = words("cgroup.subtree_control").iter().any(|it| it == controller);
        assert_eq!(given, words("cgroup.controllers").iter().any(|it| it == controller), "{controller}");
    }
    let pidfd = sys::pidfd_open(holder.id().cast_signed()).expect("our child");
    sys::pidfd_signal(&pidfd, libc::SIGTERM).expect("our child");
    assert!(holder.wait().expect("our child").success());
    for dir in ["holder", "runs"] {
        eventually("an empty cgroup", || fs::remove_dir(cell.path().join(dir)).ok());
    }
}

#[test]
fn a_holder_that_is_not_alone_in_its_cgroup_refuses_and_changes_nothing() {
    needs!(root, cgroup);
    let (cell, ear) = (Cell::new(), Ear::new());
    let mut other = cell.hold(Command::new("sleep").arg("600")).spawn().expect("it starts");
    let refused = hold(&cell, &ear).wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("1 other processes are in") && said.contains("a unit of its own"), "{said}");
    assert!(!cell.path().join("holder").exists() && !cell.path().join("runs").exists());
    other.kill().and_then(|()| other.wait()).expect("our child");
}

#[test]
fn the_daemon_says_when_it_is_ready_that_it_lives_and_that_it_stops() {
    needs!(root, bpf, cgroup);
    let ear = Ear::new();
    let mut host = Host::new();
    host.set_env("NOTIFY_SOCKET", ear.path());
    let mut daemon = host.serving();
    ear.until("READY=1");
    let said = ear.until("WATCHDOG=1");
    assert!(said.contains("STATUS=0 runs, 0 wait for their turn; keeper "), "{said}");
    assert!(daemon.terminate().success());
    ear.until("STOPPING=1");
}

/// The values of a key in a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(packaging().join("systemd").join(unit)).expect("a unit");
    text.lines().filter_map(|line| line.strip_prefix(&format!("{key}="))).map(str::to_owned).collect()
}

#[test]
fn the_units_say_what_lets_agents_live_through_every_crash_and_restart() {
    let (daemon, keeper, runs) = ("agent-loop.service", "agent-loop-agents.service", "agent-loop-runs.service");
    for unit in [daemon, keeper, runs] {
        assert_eq!(values(unit, "Type"), ["notify"], "{unit}");
        assert_eq!(values(unit, "Restart"), ["always"], "{unit}");
        // Given up, a unit would take the agents with it.
        assert_eq!(values(unit, "StartLimitIntervalSec"), ["0"], "{unit}");
        for deadly in ["BindsTo", "PartOf", "StopPropagatedFrom", "PropagatesStopTo"] {
            assert_eq!(
                values(unit, deadly),
                [] as [String; 0],
                "{unit}: {deadly}= ends agents when the daemon crashes"
            );
        }
    }
    for unit in [keeper, runs] {
        assert_eq!(values(unit, "StopWhenUnneeded"), ["yes"], "{unit}");
        assert_eq!(values(unit, "WantedBy"), [] as [String; 0], "{unit}");
    }
    assert_eq!(values(daemon, "Requires"), [runs]);
    assert!(values(daemon, "Wants").contains(&keeper.to_owned()), "a keeper that crashes does not restart the daemon");
    assert_eq!(
        (values(runs, "ExitType"), values(runs, "Delegate")),
        (vec!["cgroup".to_owned()], vec!["yes".to_owned()])
    );
    assert_eq!(values(runs, "OOMPolicy"), ["continue"]);
    assert_eq!(values(daemon, "WatchdogSec"), ["60"]);
    // What agents would inherit from the keeper is not set.
    for sandbox in ["NoNewPrivileges", "ProtectSystem", "PrivateTmp", "CapabilityBoundingSet", "SystemCallFilter"] {
        assert_eq!(values(keeper, sandbox), [] as [String; 0], "{sandbox}");
        assert!(!values(daemon, sandbox).is_empty(), "{sandbox}");
    }
}

#[test]
fn the_configuration_of_the_package_is_good_and_names_what_the_units_name() {
    let text = fs::read_to_string(packaging().join("etc/config.toml")).expect("the configuration");
    let config = Config::parse(&text, "config.toml").expect("it is good");
    let keeper = values("agent-loop-agents.service", "ExecStart").concat();
    let root = config.host.cgroup_root.as_ref().expect("a root of the runs");
    let user = config.agent.user.as_ref().expect("a user");
    for wanted in [
        format!("--runs {} ", root.display()),
        format!("--pins {} ", config.host.pins.display()),
        format!("--socket {} ", config.host.runtime_dir.join("keeper/socket").display()),
    ] {
        assert!(keeper.contains(&wanted), "{wanted:?} is not in {keeper}");
    }
    assert_eq!(values("agent-loop-agents.service", "Environment"), [format!("AGENT_USER={user}")]);
    let users = fs::read_to_string(packaging().join("systemd/agent-loop.sysusers")).expect("the accounts");
    assert!(users.contains(&format!("u {user} ")), "{users}");
    let group = config.host.socket_group.as_ref().expect("a group");
    assert!(users.contains(&format!("g {group} ")), "{users}");
}

/// What the package's script of this name says when it is run on this state.
fn script(name: &str, action: &str, state: &Path) -> std::process::Output {
    let text = fs::read_to_string(packaging().join("debian").join(name)).expect("a script");
    let text = text.replace("STATE=/var/lib/agent-loop", &format!("STATE={}", state.display()));
    assert!(text.contains(&format!("STATE={}", state.display())), "{text}");
    Command::new("sh").args(["-c", &text, name, action]).stdin(Stdio::null()).output().expect("sh")
}

#[test]
fn a_package_that_does_not_know_the_state_is_not_unpacked_and_one_that_does_is() {
    needs!(root);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let state = scratch.path().join("state");
    assert!(script("preinst", "install", &state).status.success(), "there is none yet");
    let store = SqliteStore::open(&StateDir::open(&state).expect("a state")).expect("a database");
    drop(store);
    // It knows what this version writes.
    for action in ["install", "upgrade"] {
        let said = script("preinst", action, &state);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    let file = state.join("agent-loop.db");
    let mut bytes = fs::read(&file).expect("the database");
    let version = u32::from_be_bytes(bytes[60..64].try_into().expect("four bytes"));
    bytes[60..64].copy_from_slice(&(version + 1).to_be_bytes());
    fs::write(&file, &bytes).expect("our file");
    for action in ["install", "upgrade"] {
        let said = script("preinst", action, &state);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{text}");
        for wanted in
            [format!("has version {}", version + 1), format!("agent-loop.db.v{version}"), "Nothing was".into()]
        {
            assert!(text.contains(&wanted), "{wanted} is not in {text}");
        }
    }
    // A removal, and what is no database, are not its concern: the daemon refuses that.
    assert!(script("preinst", "abort-upgrade", &state).status.success());
    fs::write(&file, b"cut").expect("our file");
    assert!(script("preinst", "upgrade", &state).status.success());
}

/// How exposed systemd takes the daemon to be, from 0 to 10, in tenths; `docs/packaging.md` says what each point is for.
const EXPOSURE: u32 = 32;

#[test]
fn the_daemon_is_no_more_exposed_than_is_said() {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager"]);
    analyze.arg(packaging().join("systemd/agent-loop.service"));
    let Ok(said) = analyze.output() else { return skip(test_name!(), "systemd-analyze is not installed") };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let overall = text.lines().find_map(|line| line.split_once("Overall exposure level for agent-loop.service: "));
    let Some((_, overall)) = overall else {
        return skip(test_name!(), "systemd-analyze judges no file: systemd 250 or later is needed");
    };
    let tenths: String = overall.chars().take_while(|c| *c != ' ').filter(char::is_ascii_digit).collect();
    assert!(tenths.parse::<u32>().expect("a number") <= EXPOSURE, "{text}");
}

#[test]
fn systemd_has_no_complaint_about_the_units() {
    let here = Command::new("systemd-analyze").arg("--version").output();
    if !here.is_ok_and(|it| it.status.success()) {
        return skip(test_name!(), "systemd-analyze is not installed");
    }
    // The program of the package is not installed: its place is taken by one that is.
    let dir = tempfile::tempdir().expect("a scratch directory");
    let mut units = Vec::new();
    for entry in fs::read_dir(packaging().join("systemd")).expect("the units") {
        let path = entry.expect("a unit").path();
        if path.extension().is_some_and(|end| end == "service") {
            let text = fs::read_to_string(&path).expect("a unit").replace("/usr/bin/agent-loop", "/bin/true");
            let copy = dir.path().join(path.file_name().expect("a name"));
            fs::write(&copy, text).expect("a scratch file");
            units.push(copy);
        }
    }
    let said = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().expect("it runs");
    let complaints = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && !complaints.contains("agent-loop"), "{complaints}");
}
