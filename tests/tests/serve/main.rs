//! The daemon, its keeper and its runs, as a host of their own has them.

mod clock;
mod crashes;
mod disks;
mod events;
mod evidence;
mod fatal;
mod idle;
mod ill;
mod keeper;
mod leaks;
mod limits;
mod namespaces;
mod older;
mod outsider;
mod pins;
mod reload;
mod rights;
mod sandbox;
mod scarce;
mod secrets;
mod state;
mod stock;
mod stuck;
mod trial;
mod trouble;
mod watch;

use std::process::{Child, Command, Output, Stdio};

use agent_loop_tests::harness::Host;
use serde_json::Value;

/// A command that runs this script.
fn shell(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["kind"].as_str()).collect()
}

fn count(events: &[Value], kind: &str) -> usize {
    kinds(events).into_iter().filter(|found| *found == kind).count()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Stops a run, and waits for its end.
fn stop(host: &Host, id: &str) -> Value {
    let killed = host.ask(["kill", id, "--reason", "the test is over"]);
    assert!(killed.status.success(), "{}", said(&killed));
    host.ended(id)
}

/// A process of nobody's run: every signal that an agent is stopped with would end it.
#[derive(Debug)]
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self::of(Command::new("sleep").arg("600"))
    }

    fn of(command: &mut Command) -> Self {
        // A pipe that nobody writes to: what reads from it ends with this value, whatever becomes of the test.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a stranger"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn assert_alive(&mut self) {
        assert_eq!(self.0.try_wait().expect("our child"), None, "a stranger was signalled");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
