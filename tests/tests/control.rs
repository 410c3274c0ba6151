//! The commands that ask the daemon, as they are built, and `curl`: against the real socket with a script behind it.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_loop::control::api::{
    Ask, KillView, LogFiles, OutputView, ProcessView, RunView, RunsView, StartRequest, StartedView, StatusView,
    TreeView,
};
use agent_loop::control::server::Access;
use agent_loop_tests::fake_daemon::{FakeDaemon, Script};
use agent_loop_tests::harness::{PATIENCE, agent_loop, eventually, host, without_root};
use agent_loop_tests::{needs, sys};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

const ONE: &str = "01KAP0V4G05E8Q3C9W7D8QK3MP";
const TWO: &str = "01KAP0V4G05E8Q3C9W7D8QK9MP";
const OLD: &str = "01KAP0V4G05E8Q3C9W7D8QKXYZ";
/// `nobody`, who owns nothing of ours.
const NOBODY: u32 = 65534;

struct World {
    dir: TempDir,
    daemon: FakeDaemon,
}

fn view(run: &str, state: &str) -> RunView {
    RunView {
        run: run.to_owned(),
        state: state.to_owned(),
        argv: vec!["claude".to_owned(), "-p".to_owned()],
        submitted: "2026-11-22T20:00:00Z".to_owned(),
        why: vec!["a sentence".to_owned()],
        ..RunView::default()
    }
}

fn ended(run: &str, outcome: &str, code: Option<u8>, signal: Option<u8>) -> RunView {
    RunView { outcome: Some(outcome.to_owned()), code, signal, ..view(run, "ended") }
}

/// Root may write by itself; anybody else who runs these tests is the owner.
fn ours() -> Access {
    Access { group: None, owner: without_root().map(|_| nix::unistd::geteuid().as_raw()) }
}

impl World {
    fn new() -> Self {
        Self::with(ours())
    }

    fn with(access: Access) -> Self {
        let dir = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
        let prepare = |script: &mut Script| {
            script.runs = vec![view(ONE, "running"), view(TWO, "queued"), ended(OLD, "deadline", None, Some(9))];
            let processes = [(10, None), (11, Some(10))]
                .map(|(pid, parent)| ProcessView { pid, start_ns: 1, parent, command: "claude".to_owned() })
                .to_vec();
            script.trees.insert(ONE.to_owned(), TreeView { run: ONE.to_owned(), processes });
            script.started = view(TWO, "queued");
        };
        let daemon = FakeDaemon::start(&dir.path().join("run").join("socket"), access, prepare);
        Self { dir, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of ours under way.
    fn start(&self, verb: &str, args: &[&str]) -> Asking {
        Asking::of(question(agent_loop(), self.daemon.socket(), verb, args), self.dir.path())
    }

    /// A command of ours.
    fn ask(&self, verb: &str, args: &[&str]) -> Said {
        self.start(verb, args).finish()
    }
}

/// A verb with the socket before its own arguments, which may end in a command.
fn question(program: &Path, socket: &Path, verb: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg(verb).arg("--socket").arg(socket).args(args);
    command
}

/// A command under way; dropped, it is killed.
struct Asking {
    child: Child,
    pidfd: OwnedFd,
    files: TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

impl Asking {
    fn of(mut command: Command, dir: &Path) -> Self {
        let files = TempDir::new_in(dir).expect("a directory");
        let file = |name: &str| File::create(files.path().join(name)).expect("a file");
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        command.env("COLUMNS", "80").env_remove("AGENT_LOOP_SOCKET");
        let child = command.spawn().expect("it can be started");
        let pidfd = sys::pidfd_open(child.id().cast_signed()).expect("an unreaped child has a pidfd");
        Self { child, pidfd, files }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.files.path().join(name)).expect("UTF-8")
    }

    fn finish(mut self) -> Said {
        assert!(sys::pidfd_ended(self.pidfd.as_fd(), PATIENCE), "it does not end: {}", self.read("err"));
        let status = self.child.wait().expect("our child");
        Said { code: status.code().unwrap_or(-1), out: self.read("out"), err: self.read("err") }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !sys::pidfd_ended(self.pidfd.as_fd(), Duration::ZERO) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[test]
fn what_can_be_read_is_read_by_people_and_programs() {
    let world = World::new();
    let ps = world.ask("ps", &[]);
    assert_eq!((ps.code, ps.out.lines().count()), (0, 3), "{}{}", ps.out, ps.err);
    assert!(ps.out.starts_with("RUN ") && !ps.out.contains('\x1b'), "{}", ps.out);
    let all: RunsView = world.ask("ps", &["--all", "--json"]).json();
    assert_eq!(all.runs, world.daemon.script().runs);
    let status = world.ask("status", &[]);
    assert!(status.code == 0 && status.out.contains("by eBPF"), "{}", status.out);
    let status: StatusView = world.ask("status", &["--json"]).json();
    assert_eq!(status.keeper, Ok(1));
    let run: RunView = world.ask("status", &["--json", "K3MP"]).json();
    assert_eq!(run.run, ONE);
    assert!(world.ask("status", &["QKXYZ"]).out.contains("outcome     deadline"));
    let tree: TreeView = world.ask("tree", &[ONE, "--json"]).json();
    assert_eq!(Some(&tree), world.daemon.script().trees.get(ONE));
    let trees = world.ask("tree", &[]);
    assert!(trees.code == 0 && trees.out.contains("└─ 11 claude"), "what ended meanwhile is left out: {}", trees.err);
    let why = world.ask("why", &["qkxyz"]);
    assert!(why.out.contains("its limit was reached") && why.out.contains("  - a sentence"), "{}", why.out);
    // No question above could have changed anything.
    assert!(!world.daemon.asked().iter().any(|ask| matches!(ask, Ask::Start(_) | Ask::Kill { .. })));
}

#[test]
fn the_socket_is_named_by_an_argument_or_the_environment() {
    let world = World::new();
    let mut command = Command::new(agent_loop());
    command.args(["ps", "--json"]);
    let dir = world.dir.path();
    let files = TempDir::new_in(dir).expect("a directory");
    let file = |name: &str| File::create(files.path().join(name)).expect("a file");
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    let status = command.env("AGENT_LOOP_SOCKET", world.daemon.socket()).status().expect("it can be started");
    assert!(status.success());
    assert_eq!(world.daemon.asked().len(), 1);
    // The argument wins.
    let nowhere = world.path("nowhere");
    let status = command.arg("--socket").arg(nowhere).status().expect("it can be started");
    assert_eq!(status.code(), Some(7));
    assert_eq!(world.daemon.asked().len(), 1);
}

#[test]
fn without_a_daemon_it_says_how_to_start_one() {
    let dir = TempDir::new().expect("a directory");
    let verbs: [&[&str]; 8] = [
        &["ps"],
        &["status"],
        &["tree"],
        &["why", ONE],
        &["logs", ONE],
        &["events"],
        &["start", "--wait", "--", "true"],
        &["kill", ONE, "--reason", "r"],
    ];
    for verb in verbs {
        let (name, rest) = verb.split_first().expect("a name");
        let command = question(agent_loop(), &dir.path().join("socket"), name, rest);
        let said = Asking::of(command, dir.path()).finish();
        assert_eq!(said.code, 7, "{verb:?}: {}", said.err);
        assert!(said.err.contains("start it with `agent-loop serve`"), "{verb:?}: {}", said.err);
        assert!(said.out.is_empty(), "errors are for stderr: {}", said.out);
    }
}

#[test]
fn no_verb_takes_a_process_number() {
    let world = World::new();
    for verb in ["status", "tree", "why", "logs", "kill"] {
        let own = std::process::id().to_string();
        let mut args = vec![own.as_str()];
        args.extend(if verb == "kill" { ["--reason", "it runs too long"].as_slice() } else { &[] });
        let said = world.ask(verb, &args);
        assert_eq!(said.code, 2, "{verb}: {}", said.err);
        assert!(said.err.contains("never process numbers"), "{verb}: {}", said.err);
    }
    assert_eq!(world.daemon.asked(), [], "nobody is asked about it");
}

#[test]
fn a_piece_that_fits_two_runs_stops_neither() {
    let world = World::new();
    let said = world.ask("kill", &["01KAP0V4", "--reason", "r"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains(ONE) && said.err.contains(TWO), "{}", said.err);
    let said = world.ask("kill", &["ZZZZ", "--reason", "r"]);
    assert_eq!(said.code, 7, "{}", said.err);
    assert!(!world.daemon.asked().iter().any(|ask| matches!(ask, Ask::Kill { .. })));
}

#[test]
fn a_kill_needs_a_run_and_a_reason() {
    let world = World::new();
    for args in [vec!["K3MP"], vec!["K3MP", "--reason", " "], vec!["--reason", "r"]] {
        assert_eq!(world.ask("kill", &args).code, 2, "{args:?}");
    }
    assert_eq!(world.daemon.asked(), []);
    let said: KillView = world.ask("kill", &["K3MP", "--reason", "the wrong branch", "--dry-run", "--json"]).json();
    assert!(said.dry_run && said.processes.len() == 2);
    let said = world.ask("kill", &["k3mp", "--reason", "the wrong branch"]);
    assert!(said.out.starts_with("stopping run"), "{}{}", said.out, said.err);
    let kill = |dry_run| Ask::Kill { run: ONE.to_owned(), reason: "the wrong branch".to_owned(), dry_run };
    let kills: Vec<Ask> = world.daemon.asked().into_iter().filter(|ask| matches!(ask, Ask::Kill { .. })).collect();
    assert_eq!(kills, [kill(true), kill(false)]);
}

#[test]
fn a_refusal_has_its_exit_code_and_its_sentence() {
    use agent_loop::control::api::Problem;
    type Row = (fn(String) -> Problem, i32);
    let rows: [Row; 6] = [
        (Problem::Bad, 2),
        (Problem::Forbidden, 6),
        (Problem::NotFound, 7),
        (Problem::Conflict, 5),
        (Problem::TooMany, 5),
        (Problem::Unavailable, 1),
    ];
    let world = World::new();
    for (problem, code) in rows {
        world.daemon.script().problem = Some(problem("what the daemon says".to_owned()));
        let said = world.ask("kill", &[ONE, "--reason", "r"]);
        assert_eq!((said.code, said.err.as_str()), (code, "agent-loop: stopping the run: what the daemon says\n"));
    }
}

#[test]
fn a_start_hands_everything_on_as_it_was_typed() {
    let world = World::new();
    let said = world.ask(
        "start",
        &[
            "--limit",
            "1h 30m",
            "--active-limit",
            "1h",
            "--idle",
            "15m",
            "--grace",
            "5s",
            "--output-bytes",
            "10",
            "--memory-bytes",
            "20",
            "--tasks",
            "30",
            "--cpu-percent",
            "150",
            "--leftovers",
            "wait",
            "--cwd",
            "/srv",
            "--env",
            "A=b=c",
            "--env",
            "EMPTY=",
            "--stdin",
            "/dev/null",
            "--",
            "sh",
            "-c",
            "echo \"$A\"; --json",
            "--wait",
        ],
    );
    assert_eq!((said.code, said.out.trim_end()), (0, TWO), "{}", said.err);
    let text = |text: &str| Some(text.to_owned());
    let wish = StartRequest {
        argv: ["sh", "-c", "echo \"$A\"; --json", "--wait"].map(str::to_owned).to_vec(),
        env: vec![("A".to_owned(), "b=c".to_owned()), ("EMPTY".to_owned(), String::new())],
        cwd: Some("/srv".into()),
        stdin: Some("/dev/null".into()),
        limit: text("1h 30m"),
        active_limit: text("1h"),
        idle_limit: text("15m"),
        grace: text("5s"),
        output_bytes: Some(10),
        memory_bytes: Some(20),
        tasks: Some(30),
        cpu_percent: Some(150),
        leftovers: text("wait"),
    };
    assert_eq!(world.daemon.asked(), [Ask::Start(Box::new(wish))]);
    let started: StartedView = world.ask("start", &["--json", "--", "true"]).json();
    assert_eq!(started.run, TWO);
    for wrong in [["--limit", "0s"], ["--limit", "soon"], ["--env", "A"], ["--tasks", "0"], ["--leftovers", "adopt"]] {
        let mut args = wrong.to_vec();
        args.extend(["--", "true"]);
        assert_eq!(world.ask("start", &args).code, 2, "{wrong:?}");
    }
    assert_eq!(world.ask("start", &[]).code, 2);
    assert_eq!(world.daemon.asked().len(), 2);
}

#[test]
fn who_waits_for_a_run_gets_its_code() {
    let rows = [
        (ended(TWO, "ended", Some(0), None), 0),
        (ended(TWO, "ended", Some(7), None), 7),
        (ended(TWO, "ended", None, Some(9)), 137),
        (ended(TWO, "ended", None, None), 125),
        (ended(TWO, "deadline", Some(0), None), 124),
        (ended(TWO, "operator", Some(0), None), 143),
        (ended(TWO, "launch_failed", Some(127), None), 127),
        (ended(TWO, "lost_to_reboot", None, None), 125),
    ];
    let world = World::new();
    for (view, code) in rows {
        world.daemon.script().started = view.clone();
        let said = world.ask("start", &["--wait", "--json", "--", "true"]);
        assert_eq!(said.code, code, "{view:?}: {}", said.err);
        assert_eq!(said.json::<RunView>(), view);
    }
}

#[test]
fn who_waits_for_a_run_outlasts_the_daemon() {
    let world = World::new();
    let socket = world.daemon.socket().to_owned();
    let asking = world.start("start", &["--wait", "true"]);
    eventually("a question for the end", || {
        world.daemon.asked().iter().any(|ask| *ask == Ask::Run(TWO.to_owned())).then_some(())
    });
    let World { dir, daemon } = world;
    drop(daemon);
    let again = FakeDaemon::start(&socket, ours(), |script| {
        script.runs = vec![ended(TWO, "ended", Some(3), None)];
    });
    let said = asking.finish();
    assert_eq!(said.code, 3, "{}", said.err);
    // One that knows nothing of the run is the end of the waiting, not of the run.
    again.script().runs = Vec::new();
    again.script().started = view(TWO, "running");
    let command = question(agent_loop(), &socket, "start", &["--wait", "--", "true"]);
    let asking = Asking::of(command, dir.path());
    eventually("the start", || (again.script().runs.len() == 1).then_some(()));
    again.script().runs.clear();
    let said = asking.finish();
    assert_eq!(said.code, 125, "{}", said.err);
}

#[test]
fn output_goes_where_it_came_from() {
    let world = World::new();
    let (stdout, stderr) = (world.path("stdout"), world.path("stderr"));
    let long = "o".repeat(200_000);
    fs::write(&stdout, format!("{long}\nno end")).expect("written");
    fs::write(&stderr, "an error\n").expect("written");
    world.daemon.script().output = Some(LogFiles { stdout: stdout.clone(), stderr: stderr.clone(), open: true });
    let said = world.ask("logs", &["K3MP"]);
    assert_eq!(said.code, 0);
    assert!(said.out == format!("{long}\nno end") && said.err == "an error\n", "{}", said.err);
    let said = world.ask("logs", &["K3MP", "--stderr"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", "an error\n"));
    let said = world.ask("logs", &["K3MP", "--stdout"]);
    assert_eq!((said.out.len(), said.err.as_str()), (200_007, ""));
    assert_eq!(world.ask("logs", &["K3MP", "--stdout", "--stderr"]).code, 2);
    let said = world.ask("logs", &["K3MP", "--json"]);
    let parts: Vec<OutputView> = said.out.lines().map(|line| serde_json::from_str(line).expect("a part")).collect();
    for stream in ["stdout", "stderr"] {
        let mut at = 0;
        for part in parts.iter().filter(|part| part.stream == stream) {
            assert_eq!((part.from, part.run.as_str()), (at, ONE));
            at += part.text.len() as u64 + u64::from(part.ended);
        }
        assert_eq!(at, fs::metadata(world.path(stream)).expect("there").len());
    }
}

#[test]
fn who_follows_output_sees_it_come_and_ends_with_the_run() {
    let world = World::new();
    let (stdout, stderr) = (world.path("stdout"), world.path("stderr"));
    fs::write(&stdout, "first\n").expect("written");
    let files = LogFiles { stdout: stdout.clone(), stderr: stderr.clone(), open: true };
    world.daemon.script().output = Some(files.clone());
    let asking = world.start("logs", &["-f", ONE]);
    eventually("the first line", || (asking.read("out") == "first\n").then_some(()));
    fs::write(&stderr, "an error\n").expect("written");
    eventually("the error", || (asking.read("err") == "an error\n").then_some(()));
    fs::write(&stdout, "first\nlast\n").expect("written");
    world.daemon.script().output = Some(LogFiles { open: false, ..files });
    let said = asking.finish();
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "first\nlast\n", "an error\n"));
}

#[test]
fn who_follows_output_outlasts_the_daemon_and_gets_every_byte_once() {
    let world = World::new();
    let (stdout, stderr) = (world.path("stdout"), world.path("stderr"));
    fs::write(&stdout, "first\n").expect("written");
    let files = LogFiles { stdout: stdout.clone(), stderr, open: true };
    world.daemon.script().output = Some(files.clone());
    let asking = world.start("logs", &["-f", ONE]);
    eventually("the first line", || (asking.read("out") == "first\n").then_some(()));
    let socket = world.daemon.socket().to_owned();
    let World { dir, daemon } = world;
    drop(daemon);
    fs::write(&stdout, "first\nlast\n").expect("written");
    let again = FakeDaemon::start(&socket, ours(), |script| script.output = Some(files.clone()));
    eventually("the last line", || (asking.read("out") == "first\nlast\n").then_some(()));
    again.script().output = Some(LogFiles { open: false, ..files });
    let said = asking.finish();
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "first\nlast\n", ""));
    drop(dir);
}

#[test]
fn output_that_cannot_be_read_is_no_success() {
    let world = World::new();
    let (stdout, stderr) = (world.path("stdout"), world.path("stderr"));
    std::os::unix::fs::symlink("/proc/self/status", &stdout).expect("made");
    world.daemon.script().output = Some(LogFiles { stdout, stderr, open: false });
    let said = world.ask("logs", &[ONE]);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
}

#[test]
fn events_are_lines_and_a_slow_reader_is_told() {
    const LINE: &str =
        r#"{"seq":1,"kind":"run.born","time":"2026-11-22T20:00:00Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP"}"#;
    let world = World::new();
    world.daemon.script().recent = vec![LINE.to_owned()];
    let said = world.ask("events", &["--json"]);
    assert_eq!((said.code, said.out.trim_end()), (0, LINE), "{}", said.err);
    assert_eq!(world.ask("events", &[]).out, "20:00:00.000  7D8QK3MP           run.born\n");
    let asking = world.start("events", &["-f", "--json"]);
    eventually("the past", || (asking.read("out").lines().count() == 1).then_some(()));
    world.daemon.script().events.send("{\"seq\":2}".into());
    eventually("the new line", || asking.read("out").ends_with("{\"seq\":2}\n").then_some(()));
    drop(asking);
    world.daemon.script().recent = vec![LINE.to_owned(), r#"{"kind":"control.missed","lines":12}"#.to_owned()];
    let said = world.ask("events", &["-f", "--json"]);
    assert_eq!((said.code, said.out.trim_end()), (1, LINE));
    assert!(said.err.contains("missed 12 lines"), "{}", said.err);
}

#[test]
fn every_verb_has_an_example() {
    for verb in ["ps", "status", "tree", "why", "logs", "events", "start", "kill"] {
        let output = Command::new(agent_loop()).args([verb, "--help"]).output().expect("it can be started");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(help.contains(&format!("  agent-loop {verb}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        for flag in ["--json", "--socket"] {
            assert!(help.contains(flag), "{verb} {flag}: {help}");
        }
    }
}

/// A copy of the built program that another user can execute, and a way to ask as that user.
fn as_nobody(world: &World, verb: &str, args: &[&str]) -> Said {
    let program = world.path("agent-loop");
    if !program.exists() {
        host::copy_program(agent_loop(), &program);
    }
    let mut command = question(&program, world.daemon.socket(), verb, args);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    Asking::of(command, world.dir.path()).finish()
}

#[test]
fn a_stranger_reads_only_as_a_member_of_the_group_and_never_writes() {
    needs!(root);
    let closed = World::new();
    let said = as_nobody(&closed, "ps", &[]);
    assert_eq!(said.code, 6, "{}", said.err);
    assert!(said.err.contains("not permitted to connect"), "{}", said.err);
    let member = World::with(Access { group: Some(NOBODY), owner: None });
    assert_eq!(as_nobody(&member, "ps", &[]).code, 0);
    for (verb, args) in [("start", ["--wait", "true"].as_slice()), ("kill", &[ONE, "--reason", "r"])] {
        let said = as_nobody(&member, verb, args);
        assert_eq!(said.code, 6, "{verb:?}: {}", said.err);
        assert!(said.err.contains("user 65534 may look"), "{}", said.err);
    }
    assert!(member.daemon.asked().iter().all(|ask| matches!(ask, Ask::Runs { .. })), "{:?}", member.daemon.asked());
}

#[test]
fn the_owner_writes() {
    needs!(root);
    let world = World::with(Access { group: None, owner: Some(NOBODY) });
    let said = as_nobody(&world, "start", &["true"]);
    assert_eq!((said.code, said.out.trim_end()), (0, TWO), "{}", said.err);
    let from = world.daemon.script().asked[0].1.clone();
    assert_eq!((from.uid, from.may_write), (NOBODY, true));
}

#[test]
fn curl_is_a_client() {
    let world = World::new();
    let curl = |args: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--unix-socket"]).arg(world.daemon.socket());
        command.args(args);
        Asking::of(command, world.dir.path()).finish()
    };
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        return agent_loop_tests::harness::skip(agent_loop_tests::test_name!(), "needs curl");
    }
    let status: StatusView = curl(&["http://d/v1/status"]).json();
    assert_eq!(status.version, "0.1.0");
    let started: StartedView = curl(&["http://d/v1/runs", "--data", r#"{"argv":["true"],"limit":"1h"}"#]).json();
    assert_eq!(started.run, TWO);
    let said = curl(&["http://d/metrics", "--write-out", "%{content_type}"]);
    assert!(said.out.contains("agent_loop_runs{state=\"running\"} 1\n"), "{}", said.out);
    assert!(said.out.ends_with("# EOF\napplication/openmetrics-text; version=1.0.0; charset=utf-8"), "{}", said.out);
    let said =
        curl(&["http://d/v1/runs/4711/kill", "--data", r#"{"reason":"a number"}"#, "--write-out", "%{http_code}"]);
    assert!(said.out.starts_with("{\"error\":{\"code\":\"bad_request\"") && said.out.ends_with("400"), "{}", said.out);
    let big = world.path("big");
    fs::write(&big, vec![b'a'; 2 << 20]).expect("written");
    let data = format!("@{}", big.display());
    let said = curl(&["http://d/v1/runs", "--data-binary", &data, "--write-out", "%{http_code}"]);
    assert!(said.out.ends_with("413"), "{} {}", said.out, said.err);
    assert!(said.out.contains("too_large"), "{} {}", said.out, said.err);
}
