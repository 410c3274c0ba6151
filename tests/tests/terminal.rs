//! `exec` on a terminal: the command has it, its keys reach it, and the caller gets it back.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use agent_loop_tests::harness::{Exec, Host, Outcome, Running, Terminal, agent_loop, eventually};
use agent_loop_tests::oracle::Status;
use agent_loop_tests::{needs, night, sys};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

#[test]
fn an_interactive_program_works() {
    let mut terminal = Terminal::new();
    let running =
        Exec::new().arg("--quiet").with(|command| terminal.attach(command)).adversary(["interactive"]).start();
    terminal.wait_for("your name? ");
    terminal.press("Ada\n");
    terminal.wait_for("hello, Ada");
    let outcome = running.finish();
    assert_eq!(outcome.code, 0, "{}", terminal.shown());
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn the_command_is_in_the_foreground_of_the_callers_terminal() {
    let terminal = Terminal::new();
    let exec = Exec::new().arg("--quiet").with(|command| terminal.attach(command));
    let file = exec.path("report");
    let outcome = exec.adversary(["report".as_ref(), file.as_os_str()]).run();
    assert_eq!(outcome.code, 0, "{}", terminal.shown());
    let text = fs::read_to_string(outcome.path("report")).expect("a report");
    let seen: serde_json::Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(seen["tty"], serde_json::json!([true, true, true]));
    assert_eq!(seen["tpgid"], seen["pgid"], "in the foreground");
}

#[test]
fn ctrl_c_reaches_the_command() {
    needs!(bpf);
    let mut terminal = Terminal::new();
    let running =
        Exec::new().arg("--quiet").with(|command| terminal.attach(command)).adversary(["interactive"]).start();
    terminal.wait_for("your name? ");
    terminal.press(CTRL_C);
    let outcome = running.finish();
    assert_eq!(outcome.code, 128 + libc::SIGINT, "{}", terminal.shown());
    assert_eq!(outcome.death_of(outcome.main()).status, Some(Status::signaled(libc::SIGINT, false)));
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn ctrl_z_does_not_keep_the_limit_from_coming() {
    let mut terminal = Terminal::new();
    let exec = Exec::new().arg("--quiet").limit("2s").grace("300ms");
    let running = exec.with(|command| terminal.attach(command)).adversary(["interactive"]).start();
    terminal.wait_for("your name? ");
    terminal.press(CTRL_Z);
    let outcome = running.finish();
    assert_eq!(outcome.code, 124, "{}", terminal.shown());
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn the_caller_has_the_terminal_again_afterwards() {
    let mut terminal = Terminal::new();
    let script = r#""$0" exec --quiet -- true; read line; echo "the shell read $line""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(agent_loop());
    terminal.attach(&mut shell);
    let mut shell = shell.spawn().expect("a shell");
    terminal.press("this\n");
    terminal.wait_for("the shell read this");
    assert!(shell.wait().expect("our child").success());
}

#[test]
fn without_a_terminal_it_works_too() {
    let exec = Exec::new().with(|command| {
        command.stdin(Stdio::null());
        sys::before_exec(command, || nix::unistd::setsid().map(drop).map_err(Into::into))
    });
    let outcome = exec.cmd(["true"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
}

/// A shell with job control on a terminal, into which an `exec` is typed.
struct Shell {
    terminal: Terminal,
    running: Running,
    lines: u32,
    /// How much was on the screen when a key was last pressed.
    pressed_at: usize,
}

const PROMPT: &str = "shell$ ";

impl Shell {
    fn running(exec: Exec) -> Self {
        Self::typed(exec, "")
    }

    fn typed(exec: Exec, after: &str) -> Self {
        let mut terminal = Terminal::new();
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile", "-i"]).env("PS1", PROMPT).env("TERM", "dumb").env_remove("HISTFILE");
        terminal.attach(&mut bash);
        let (exec, line) = exec.typed_into(bash);
        let running = exec.start();
        terminal.press(&format!("{line}{after}\n"));
        Self { terminal, running, lines: 0, pressed_at: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.pressed_at = self.shown().len();
        self.terminal.press(keys);
    }

    fn wait_for(&self, text: &str) {
        self.terminal.wait_for(text);
    }

    /// Types a line at the prompt and waits until the shell, which alone can compute the sum, has run it.
    fn runs(&mut self, line: &str) {
        let at = self.pressed_at;
        self.terminal.wait_until("the prompt", |shown| shown.len() > at && shown.ends_with(PROMPT));
        self.lines += 1;
        self.press(&format!("{line}; echo \"did $((1000 + {}))\"\n", self.lines));
        self.wait_for(&format!("did {}", 1000 + self.lines));
    }

    fn shown(&self) -> String {
        self.terminal.shown()
    }

    /// The exit code of the last command.
    fn code(&mut self) -> String {
        self.runs("echo code=$?.");
        let shown = self.shown();
        let at = shown.rfind("code=").map_or(0, |at| at + 5);
        shown[at..].split('.').next().unwrap_or_default().to_owned()
    }

    /// Ends the shell; nothing of the run may be left.
    fn ends(mut self) -> Outcome {
        self.runs("wait");
        self.press("exit\n");
        let ended = || self.running.has_ended();
        self.terminal.wait_until("the end of the shell", |_| ended());
        let outcome = self.running.finish();
        outcome.assert_tree_accounted();
        outcome.assert_nothing_left();
        outcome
    }
}

/// `exec`, quiet and quick to stop.
fn exec() -> Exec {
    Exec::new().arg("--quiet").grace("300ms")
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_back_to_the_command() {
    needs!(bpf, cgroup);
    let mut shell = Shell::running(exec().adversary(["interactive"]));
    shell.wait_for("your name? ");
    shell.press(CTRL_Z);
    shell.wait_for("Stopped");
    shell.runs("jobs");
    shell.press("fg\n");
    shell.press("Ada\n");
    shell.wait_for("hello, Ada");
    assert_eq!(shell.code(), "0", "{}", shell.shown());
    shell.ends();
}

#[test]
fn after_fg_ctrl_z_and_ctrl_c_reach_the_command() {
    needs!(bpf, cgroup);
    let mut shell = Shell::running(exec().adversary(["interactive"]));
    shell.wait_for("your name? ");
    for round in 1..=3 {
        shell.press(CTRL_Z);
        eventually("a stop", || (shell.shown().matches("Stopped").count() == round).then_some(()));
        shell.press("fg\n");
        let main = shell.running.wait_event("run.born", |event| event.kind == "run.born");
        wait_for_foreground(main.who().pid);
    }
    shell.press(CTRL_C);
    assert_eq!(shell.code(), "130", "{}", shell.shown());
    let outcome = shell.ends();
    assert_eq!(outcome.death_of(outcome.main()).status, Some(Status::signaled(libc::SIGINT, false)));
    assert_eq!(outcome.of_kind("signal.refused").count(), 0);
}

/// What /proc says of a process as a job.
struct Job {
    state: String,
    parent: String,
    group: String,
    foreground: String,
}

fn job_of(pid: i32) -> Option<Job> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<String> = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect();
    let field = |at: usize| fields.get(at).cloned();
    Some(Job { state: field(0)?, parent: field(1)?, group: field(2)?, foreground: field(5)? })
}

/// The `exec` whose command this is.
fn exec_of(main: i32) -> i32 {
    job_of(main).and_then(|job| job.parent.parse().ok()).expect("it lives")
}

/// Waits until this leader of a group runs and its group has the terminal.
fn wait_for_foreground(leader: i32) {
    eventually("the foreground", || {
        let job = job_of(leader)?;
        (job.state != "T" && job.group == leader.to_string() && job.group == job.foreground).then_some(())
    });
}

#[test]
fn bg_lets_the_command_go_on_behind_the_shell() {
    needs!(bpf, cgroup);
    let exec = exec();
    let (go, done) = (exec.path("go"), exec.path("done"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).expect("a scratch directory");
    // It waits without a fork: a stop between vfork and exec would stop the child alone, and the terminal hang.
    let script = r#"echo ready; read line < "$0"; echo > "$1""#;
    let exec = exec.cmd(["sh".as_ref(), "-c".as_ref(), script.as_ref(), go.as_os_str(), done.as_os_str()]);
    let mut shell = Shell::running(exec);
    shell.wait_for("ready\r\n");
    shell.press(CTRL_Z);
    shell.wait_for("Stopped");
    // For both, so that it does not wait for the reader.
    let mut word = File::options().read(true).write(true).open(&go).expect("a pipe");
    word.write_all(b"go\n").expect("room for a word");
    shell.runs("true");
    assert!(!done.exists(), "it is stopped");
    shell.runs("bg");
    eventually("its end in the background", || done.exists().then_some(()));
    shell.runs("wait %1");
    assert_eq!(shell.shown().matches("Stopped").count(), 1, "{}", shell.shown());
    shell.ends();
}

#[test]
fn a_stopped_job_can_be_killed() {
    needs!(bpf, cgroup);
    let mut shell = Shell::running(exec().adversary(["interactive"]));
    shell.wait_for("your name? ");
    shell.press(CTRL_Z);
    shell.wait_for("Stopped");
    shell.runs("kill %1");
    shell.runs("wait %1");
    shell.ends();
}

#[test]
fn a_limit_that_passes_while_stopped_strikes_after_fg() {
    needs!(bpf, cgroup);
    let mut shell = Shell::running(exec().limit("1s").adversary(["interactive"]));
    shell.wait_for("your name? ");
    shell.press(CTRL_Z);
    shell.wait_for("Stopped");
    shell.runs("sleep 1.2");
    shell.press("fg\n");
    assert_eq!(shell.code(), "124", "{}", shell.shown());
    shell.ends();
}

#[test]
fn fg_gives_the_terminal_to_a_command_that_began_in_the_background() {
    needs!(bpf, cgroup);
    let mut shell = Shell::typed(exec().adversary(["interactive"]), " &");
    shell.wait_for("your name? ");
    shell.press("\n");
    eventually("its stop, since it reads in the background", || {
        shell.runs("jobs");
        shell.shown().contains("Stopped").then_some(())
    });
    shell.press("fg\n");
    shell.press("Ada\n");
    shell.wait_for("hello, Ada");
    assert_eq!(shell.code(), "0", "{}", shell.shown());
    shell.ends();
}

#[test]
fn ctrl_z_does_nothing_where_no_shell_would_continue_us() {
    let mut terminal = Terminal::new();
    let running = exec().with(|command| terminal.attach(command)).adversary(["interactive"]).start();
    terminal.wait_for("your name? ");
    terminal.press(CTRL_Z);
    terminal.wait_for("^Z");
    terminal.press("Ada\n");
    terminal.wait_for("hello, Ada");
    let outcome = running.finish();
    assert_eq!(outcome.code, 0, "{}", terminal.shown());
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn a_shell_under_exec_has_job_control() {
    needs!(bpf, cgroup);
    let mut shell = Shell::running(exec().cmd(["bash", "--norc", "--noprofile", "-i"]));
    // From then on the prompt is that of the shell inside.
    shell.running.wait_event("the shell inside", |event| event.kind == "proc.exec" && event.argv()[0] == "bash");
    shell.runs("true");
    shell.press("sleep 1000\n");
    let sleeping =
        |event: &agent_loop_tests::harness::Event| event.kind == "proc.exec" && event.argv() == ["sleep", "1000"];
    let sleep = shell.running.wait_event("sleep", sleeping).who().clone();
    let inside = shell.running.wait_event("the birth", |event| event.kind == "run.born").who().pid;
    wait_for_foreground(sleep.pid);
    shell.press(CTRL_Z);
    shell.wait_for("Stopped");
    // The job alone is stopped: not the shell inside, to which the prompt belongs, and not exec.
    shell.runs("echo inside=$$.");
    assert!(shell.shown().contains(&format!("inside={inside}.")), "{}", shell.shown());
    eventually("the stop of the job", || (job_of(sleep.pid)?.state == "T").then_some(()));
    for pid in [inside, exec_of(inside)] {
        assert_ne!(job_of(pid).map(|job| job.state).as_deref(), Some("T"), "{}", shell.shown());
    }
    assert_eq!(job_of(sleep.pid).map(|job| job.group), Some(sleep.pid.to_string()), "a group of its own");
    shell.runs("jobs");
    assert!(shell.shown().contains("[1]+  Stopped"), "{}", shell.shown());
    shell.press("fg\n");
    wait_for_foreground(sleep.pid);
    shell.press(CTRL_C);
    // Of the shell inside, then of the outer one.
    assert_eq!(shell.code(), "130", "{}", shell.shown());
    shell.press("exit 7\n");
    assert_eq!(shell.code(), "7", "{}", shell.shown());
    let outcome = shell.ends();
    assert_eq!(outcome.death_of(&sleep).status, Some(Status::signaled(libc::SIGINT, false)));
}

#[test]
fn a_job_that_ends_in_the_background_leaves_the_terminal_to_the_shell() {
    needs!(bpf, cgroup);
    let mut shell = Shell::typed(exec().cmd(["true"]), " &");
    let ended = |event: &agent_loop_tests::harness::Event| event.kind == "run.exit";
    shell.running.wait_event("its end", ended);
    shell.press("wait\n");
    shell.runs("true");
    assert_eq!(shell.code(), "0", "{}", shell.shown());
    shell.ends();
}

#[test]
fn a_pager_behind_exec_keeps_its_keys() {
    needs!(bpf, cgroup);
    let pager = " | sh -c 'cat; read key </dev/tty; echo got-$key.'";
    let mut shell = Shell::typed(exec().cmd(["echo", "a page"]), pager);
    shell.wait_for("a page");
    let ended = |event: &agent_loop_tests::harness::Event| event.kind == "run.exit";
    shell.running.wait_event("the end of the command", ended);
    shell.press("q\n");
    shell.wait_for("got-q.");
    shell.ends();
}

#[test]
fn ctrl_c_ends_a_pipeline_with_exec_in_it() {
    needs!(bpf, cgroup);
    let mut shell = Shell::typed(exec().cmd(["sh", "-c", "echo begun; sleep 50"]), " | cat");
    shell.wait_for("begun\r\n");
    shell.press(CTRL_C);
    shell.ends();
}

#[test]
fn a_long_reading_shows_how_far_it_is_and_leaves_the_terminal_clean() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let log = dir.path().join("events.jsonl");
    let text = night::lines(20, 10_000);
    fs::write(&log, text.repeat((8 << 20) / text.len() + 1)).expect("a scratch file");
    for verb in ["export", "query"] {
        let to = dir.path().join(verb);
        let terminal = Terminal::new();
        let mut command = Command::new(agent_loop());
        command.args(["audit", verb, "--kind", "run"]).arg(&log);
        terminal.attach(&mut command).stdout(File::create(&to).expect("a scratch file"));
        assert!(command.spawn().expect("it starts").wait().expect("our child").success());
        terminal.wait_until("a bar that went away", |shown| shown.contains(" MiB of ") && !shown.contains('\n'));
        assert!(fs::metadata(&to).expect("the output").len() > 1_000);
    }
}

#[test]
fn the_console_shows_what_runs_outlives_the_daemon_and_gives_the_terminal_back() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "1h", "--grace", "100ms"], ["sh", "-c", "sleep 600.25 & wait"]);
    host.in_state(&id, "running");
    let mut terminal = Terminal::new();
    let mut command = Command::new(agent_loop());
    command.args(["top", "--every", "100ms"]).env("AGENT_LOOP_SOCKET", host.path("run/socket")).env("TERM", "xterm");
    let mut console = terminal.attach(&mut command).spawn().expect("it starts");
    terminal.wait_for(&id[id.len() - 8..]);
    terminal.wait_for("600.25");
    // Without a daemon the last picture stays and is called old; with the next one it goes on.
    daemon.kill();
    terminal.wait_for("OLD");
    let _daemon = host.serving();
    let other = host.start(&["--grace", "100ms"], ["sleep", "601"]);
    terminal.wait_for(&other[other.len() - 8..]);
    terminal.press("q");
    assert!(console.wait().expect("our child").success());
    terminal.wait_for("\u{1b}[?1049l");
    for id in [&id, &other] {
        assert!(host.ask(["kill", id, "--reason", "the test is over"]).status.success());
        host.ended(id);
    }
}
