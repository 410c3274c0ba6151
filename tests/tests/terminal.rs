//! `exec` on a terminal: the command has it, its keys reach it, and the caller gets it back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use agent_loop_tests::harness::{Exec, agent_loop, eventually};
use agent_loop_tests::oracle::Status;
use agent_loop_tests::{needs, sys};
use nix::pty::openpty;

/// The keyboard and screen of a terminal.
struct Terminal {
    keys: File,
    screen: Arc<Mutex<String>>,
    other: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let mut output = File::from(pty.master.try_clone().expect("a descriptor"));
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut block = [0; 4096];
            // EIO once the last holder of the other side is gone.
            while let Ok(len @ 1..) = output.read(&mut block) {
                let text = String::from_utf8_lossy(&block[..len]);
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { keys: pty.master.into(), screen, other: pty.slave }
    }

    /// Makes this the controlling terminal and the standard streams of `command`.
    fn attach<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let side = || self.other.try_clone().expect("a descriptor");
        command.stdin(side()).stdout(side()).stderr(side());
        sys::before_exec(command, || sys::take_terminal(std::io::stdin().as_fd()))
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} on the screen"), || self.shown().contains(text).then_some(()));
    }
}

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
    let text = std::fs::read_to_string(outcome.path("report")).expect("a report");
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
