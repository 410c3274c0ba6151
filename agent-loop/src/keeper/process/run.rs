//! One run as the keeper holds it.

use super::protocol::{Exit, Held, Notice, OutputState, Process, Reply, StartState};
use super::refused::Refused;
use super::witness::Witness;
use crate::keeper::cgroup::RunCgroup;
use crate::keeper::launch::{Start, StartPipe};
use crate::keeper::pidfd::PidFd;
use crate::keeper::signal::{Delivery, Expected, LiveSet, Verified, Witnesses, kill_cgroup, verify};
use crate::model::WaitStatus;
use crate::run::RunName;

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: RunName,
    pub(super) cgroup: RunCgroup,
    pub(super) main: Option<Main>,
    pub(super) thawed: bool,
    /// It never runs again (I7).
    pub(super) killed: bool,
    pub(super) start: StartState,
    pub(super) start_pipe: Option<StartPipe>,
    pub(super) exited: Option<Option<i32>>,
    /// Whether its output was given to be drained.
    pub(super) drained: bool,
}

/// A main process.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) pidfd: PidFd,
    pub(super) told: Process,
    /// Whether it is our child; adopted otherwise.
    pub(super) child: bool,
    /// It has ended, and whoever traces it holds its status back: waited for without its descriptor, which stays
    /// readable.
    pub(super) held_back: bool,
}

impl Run {
    pub(super) fn new(name: RunName, cgroup: RunCgroup) -> Self {
        Self {
            name,
            cgroup,
            main: None,
            thawed: false,
            killed: false,
            start: StartState::Pending,
            start_pipe: None,
            exited: None,
            drained: false,
        }
    }

    pub(super) fn witnesses<'a>(&'a self, live: Option<&'a Witness>) -> Witnesses<'a> {
        let live = live.map(|set| -> &dyn LiveSet { set });
        Witnesses { run: self.cgroup.tag(), live, cgroup: Some(self.cgroup.own()) }
    }

    /// What is told of it, its output as it stands.
    pub(super) fn held(&self, output: OutputState) -> Held {
        Held {
            run: self.name.to_string(),
            cgroup: self.cgroup.tag().0,
            path: self.cgroup.path().display().to_string(),
            main: self.main.as_ref().map(|main| main.told),
            thawed: self.thawed,
            start: self.start.clone(),
            exited: self.exited.map(|status| Exit { status }),
            drained: self.drained,
            output,
        }
    }

    pub(super) fn thaw(&mut self) -> Result<Reply, Refused> {
        if self.main.is_none() {
            return Err(Refused::new("it has no main process that was born here or adopted"));
        }
        if self.killed {
            return Err(Refused::new("it was killed"));
        }
        self.cgroup.thaw().map_err(|error| Refused::because("thawing", error))?;
        self.thawed = true;
        Ok(Reply::Done)
    }

    pub(super) fn kill(&mut self) -> Result<Reply, Refused> {
        // Whatever comes of it: who asked for its death does not want it to run.
        self.killed = true;
        kill_cgroup(self.cgroup.own(), self.cgroup.tag())?;
        Ok(Reply::Done)
    }

    /// Ends a main process that has not run and that nobody can be told of.
    pub(super) fn give_up(&mut self) {
        self.killed = true;
        let witnesses = Witnesses { run: self.cgroup.tag(), live: None, cgroup: None };
        let Some(main) = &self.main else { return };
        let sent = verify(&main.pidfd, Expected::OwnChild, &witnesses).and_then(|verified| match verified {
            Verified::Proof(proof) => proof.send(libc::SIGKILL as u8),
            Verified::Gone => Ok(Delivery::Gone),
        });
        if let Err(refusal) = sent {
            // It stays frozen: it is never thawed, and its cgroup can still be killed.
            super::say(&format!("{}: killing what was born in vain: {refusal}", self.name));
        }
    }

    /// Takes note of the end of the main process; of its start before, which it must have told by then.
    pub(super) fn ended(&mut self) -> Vec<Notice> {
        let Some(exited) = self.exit() else { return Vec::new() };
        self.started().into_iter().chain([exited]).collect()
    }

    fn exit(&mut self) -> Option<Notice> {
        let main = self.main.as_mut().filter(|_| self.exited.is_none())?;
        let status = match main.pidfd.has_exited() {
            Ok(true) if !main.child => None,
            Ok(true) => match main.pidfd.try_wait() {
                Ok(Some(status)) => Some(raw(status)),
                Ok(None) => {
                    main.held_back = true;
                    return None;
                }
                // Somebody else has reaped it: unknown, never a success (I9).
                Err(error) => {
                    super::say(&format!("{}: waiting for its main process: {error}", self.name));
                    None
                }
            },
            Ok(false) => return None,
            Err(error) => {
                super::say(&format!("{}: polling its main process: {error}", self.name));
                return None;
            }
        };
        main.held_back = false;
        self.exited = Some(status);
        Some(Notice::Exited { run: self.name.to_string(), status })
    }

    /// Takes note of what became of the start of the main process.
    pub(super) fn started(&mut self) -> Option<Notice> {
        let start = match self.start_pipe.as_mut()?.poll() {
            Ok(start) => start?,
            Err(error) => {
                super::say(&format!("{}: asking for its start: {error}", self.name));
                Start::Died
            }
        };
        self.start_pipe = None;
        self.start = match start {
            Start::Started => StartState::Started,
            Start::Failed(failed) => StartState::Failed {
                step: failed.step.word().to_owned(),
                errno: failed.errno,
                code: failed.shell_code(),
            },
            Start::Died => StartState::Died,
        };
        Some(Notice::Start { run: self.name.to_string(), start: self.start.clone() })
    }
}

/// As `wait(2)` encodes it.
fn raw(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(code) => i32::from(code) << 8,
        WaitStatus::Signaled { signal, core } => i32::from(signal) | if core { 0x80 } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_encoded_as_it_is_decoded() {
        let codes = (0..=255).map(WaitStatus::Exited);
        let signals = (1..=64).flat_map(|signal| [false, true].map(|core| WaitStatus::Signaled { signal, core }));
        for status in codes.chain(signals) {
            assert_eq!(WaitStatus::from_raw(raw(status)), status);
        }
    }
}
