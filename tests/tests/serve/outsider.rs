//! A user of the host who is nobody to agent-loop: reads nothing, changes nothing and signals nobody through it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use agent_loop_tests::harness::{Host, agent_loop};
use agent_loop_tests::needs;

use crate::{Stranger, count, said, shell, stop};

/// Neither root nor whom agents run as, in no group.
const OUTSIDER: u32 = 65_533;

/// A command of that user, who has no group beside its own.
fn outsider(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    // Before it takes another user, root's groups go (std does so for who is root).
    command.uid(OUTSIDER).gid(OUTSIDER).current_dir("/").stdin(Stdio::null());
    command
}

/// What stands below a directory, itself included; no symbolic link is followed.
fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    found.push(dir.to_owned());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Tries everything with each path that it is given, and tells what came of it where it should not.
const TRY: &str = r#"
for path; do
    if [ -d "$path" ]; then
        ls "$path" >/dev/null 2>&1 && echo "LIST $path"
        mkdir "$path/outsider" 2>/dev/null && echo "MAKE $path"
        ln -s /etc/passwd "$path/outsider.link" 2>/dev/null && echo "LINK $path"
    elif [ ! -S "$path" ]; then
        head -c 1 "$path" >/dev/null 2>&1 && echo "READ $path"
        (: >>"$path") 2>/dev/null && echo "WRITE $path"
    fi
    mv "$path" "$path.moved" 2>/dev/null && echo "MOVE $path"
    rm -rf "$path" 2>/dev/null && echo "REMOVE $path"
    chmod 0777 "$path" 2>/dev/null && echo "CHMOD $path"
done
exit 0
"#;

fn tried(paths: &[PathBuf]) -> Vec<String> {
    let output = outsider("sh").args(["-c", TRY, "outsider"]).args(paths).output().expect("sh");
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn an_outsider_reads_and_changes_no_file_no_pin_and_no_cgroup_of_a_host_that_works() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let id = host.start(&[], shell("echo secret; while :; do sleep 0.05; done"));
    host.in_state(&id, "running");
    let mut paths = Vec::new();
    for dir in [host.path("state"), host.path("log"), host.path("run/keeper"), host.pins().to_owned()] {
        below(&dir, &mut paths);
    }
    paths.push(host.path("config.toml"));
    for wanted in ["agent-loop.db", "stdout", "ABI", "checkpoint"] {
        assert!(paths.iter().any(|path| path.ends_with(wanted)), "{wanted} is among what is tried: {paths:#?}");
    }
    assert_eq!(tried(&paths), [] as [String; 0]);
    // What is open is found to be so.
    let open = host.path("agents/open");
    fs::write(&open, "x").expect("a scratch file");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).expect("our file");
    let kinds: Vec<String> = tried(std::slice::from_ref(&open)).iter().map(|it| it[..4].to_owned()).collect();
    assert_eq!(kinds, ["READ", "WRIT", "MOVE", "REMO"]);

    // The kernel shows cgroups and the directory of the socket to everybody; nobody changes them.
    let mut shown = Vec::new();
    below(&host.runs(), &mut shown);
    below(&host.path("run"), &mut shown);
    let changed: Vec<String> =
        tried(&shown).into_iter().filter(|what| !what.starts_with("LIST ") && !what.starts_with("READ ")).collect();
    assert_eq!(changed, [] as [String; 0]);
    assert!(shown.iter().any(|path| path.ends_with("cgroup.kill")), "{shown:#?}");

    assert_eq!(host.run(&id)["state"], "running");
    stop(&host, &id);
}

#[test]
fn an_outsider_signals_neither_daemon_nor_keeper_nor_agent_and_asks_nothing_of_them() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&[], shell("while :; do sleep 0.05; done"));
    let agent = host.in_state(&id, "running")["main_pid"].as_u64().expect("a number");
    for pid in [u64::from(daemon.pid()), u64::from(host.keeper()), agent] {
        let script = format!(
            "kill -KILL {pid} && echo SIGNALLED; for what in environ mem maps fd/0; do \
             head -c 1 /proc/{pid}/$what >/dev/null 2>&1 && echo READ $what; done; ls /proc/{pid}/fd && echo LISTED; exit 0"
        );
        let output = outsider("sh").args(["-c", &script]).output().expect("sh");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "process {pid}: {}", said(&output));
    }
    let socket = host.path("run/socket");
    let ask = |args: &[&str]| outsider(agent_loop()).args(args).arg("--socket").arg(&socket).output().expect("it runs");
    for args in [
        ["ps"].as_slice(),
        &["status", &id],
        &["logs", &id],
        &["why", &id],
        &["kill", &id, "--reason", "outsider"],
        &["pause", "o/r"],
    ] {
        let refused = ask(args);
        assert_eq!(refused.status.code(), Some(6), "{args:?}: {}", said(&refused));
        assert_eq!(String::from_utf8_lossy(&refused.stdout), "", "{args:?}");
    }
    let keeper = outsider("sh")
        .args(["-c", "ls \"$1\" 2>/dev/null; cat \"$1/socket\" 2>/dev/null; exit 0", "outsider"])
        .arg(host.path("run/keeper"))
        .output()
        .expect("sh");
    assert_eq!(String::from_utf8_lossy(&keeper.stdout), "");
    assert_eq!(host.run(&id)["state"], "running");
    assert_eq!(count(&host.events(&id), "signal.intent"), 0);
    stop(&host, &id);
    assert!(daemon.terminate().success());
}

/// While a daemon starts there is a moment at which its socket is there and is not yet its owner's alone.
#[test]
fn an_outsider_who_asks_all_the_time_while_the_daemon_restarts_is_never_answered() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let first = host.serving();
    let socket = host.path("run/socket");
    let stop_file = host.path("agents/enough");
    // At most a minute, however the test ends.
    let script = "end=$(($(date +%s) + 60)); n=0; until [ -e \"$3\" ] || [ $(date +%s) -gt $end ]; do \
                  \"$1\" ps --socket \"$2\" 2>/dev/null && echo ANSWERED; n=$((n + 1)); done; echo $n tries";
    let asks = outsider("sh")
        .args(["-c", script, "outsider"])
        .arg(agent_loop())
        .arg(&socket)
        .arg(&stop_file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    drop(first);
    for _ in 0..4 {
        let mut daemon = host.serving();
        assert!(daemon.terminate().success());
    }
    fs::write(&stop_file, "").expect("a scratch file");
    let Output { stdout, .. } = asks.wait_with_output().expect("our child");
    let told = String::from_utf8_lossy(&stdout).into_owned();
    assert!(!told.contains("ANSWERED"), "{told}");
    let tries: u32 = told.trim().split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(tries > 0, "{told}");
}

/// Where root names a place in which others may write, what they put there is not followed: they flip a link all the time.
#[test]
fn a_link_that_is_flipped_all_the_time_leads_an_agents_start_nowhere_that_is_not_its_users() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let closed = host.path("state");
    let (open, link) = (host.path("agents/open"), host.path("agents/link"));
    fs::create_dir(&open).expect("a directory");
    std::os::unix::fs::chown(host.path("agents"), Some(OUTSIDER), Some(OUTSIDER)).expect("our directory");
    symlink(&open, &link).expect("a link");
    let enough = host.path("agents/enough");
    let script = "end=$(($(date +%s) + 60)); until [ -e \"$4\" ] || [ $(date +%s) -gt $end ]; do \
                  ln -sfn \"$1\" \"$3\" && ln -sfn \"$2\" \"$3\" || break; done; exit 0";
    let mut flips =
        outsider("sh").args(["-c", script, "outsider"]).args([&open, &closed, &link, &enough]).spawn().expect("sh");
    let mut stranger = Stranger::new();
    for _ in 0..12 {
        let started =
            host.ask(["start", "--cwd", link.to_str().expect("UTF-8"), "--", "sh", "-c", "pwd -P; ls; exit 0"]);
        assert!(started.status.success(), "{}", said(&started));
        let id = String::from_utf8_lossy(&started.stdout).trim().to_owned();
        let run = host.ended(&id);
        let output = host.output(&id);
        // Either it came to the open place, or it was refused with its user's rights.
        if run["outcome"] == "ended" {
            assert_eq!(output, format!("{}\n", fs::canonicalize(&open).expect("it is there").display()), "{run}");
        } else {
            assert_eq!((&run["outcome"], output.as_str()), (&"launch_failed".into(), ""), "{run}");
        }
        assert!(!output.contains("agent-loop.db"), "{output}");
    }
    fs::write(&enough, "").expect("a scratch file");
    assert!(flips.wait().expect("our child").success());
    stranger.assert_alive();
}
