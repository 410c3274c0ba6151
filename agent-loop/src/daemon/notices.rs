//! What the keeper tells unasked: starts, ends and output of the runs that it holds.

use super::shell::Daemon;
use crate::event::{Event, LaunchFailure};
use crate::keeper::process::protocol::{Notice, OutputState, StartState};
use crate::model::{BootNs, RunTag, WaitStatus};
use crate::run::{RunId, RunName};
use crate::supervise::fleet::FleetEvent;

impl Daemon {
    pub(super) fn noticed(&mut self, notice: Notice) {
        match notice {
            // Told once, after the hello, and taken there.
            Notice::Held(_) => {}
            Notice::Start { run, start } => {
                if let Some(id) = self.id_of(&run) {
                    self.started(id, start);
                }
            }
            Notice::Exited { run, status } => {
                if let Some(id) = self.id_of(&run) {
                    // Its records first, then the authority on its status.
                    self.round();
                    self.main_exited(id, status);
                }
            }
            Notice::Output(output) => self.output(&output),
        }
    }

    /// What became of the start of a main process.
    pub(super) fn started(&mut self, id: RunId, start: StartState) {
        let event = match start {
            StartState::Started => Event::Started,
            StartState::Failed { step, errno, .. } => Event::LaunchFailed(LaunchFailure { step, errno: Some(errno) }),
            // Its status says what ended it; of an adopted one nothing is known.
            StartState::Pending | StartState::Died | StartState::Unknown => return,
        };
        self.queue.push_back(FleetEvent::Of(id, event));
    }

    /// The main process of a run ended: the keeper's answer, else what the kernel's run table holds.
    pub(super) fn main_exited(&mut self, id: RunId, raw: Option<i32>) {
        if raw.is_none() {
            self.fleet.main_is_told_by(id, crate::model::Source::RunTable);
        }
        let tag = self.runs.get(&id).and_then(|watched| watched.tag);
        let status = tag.and_then(|tag| self.exit_status(tag, raw));
        self.queue.push_back(FleetEvent::Of(id, Event::MainExited(status)));
    }

    /// A status that the keeper told, else what the kernel's run table holds.
    pub(super) fn exit_status(&self, tag: RunTag, raw: Option<i32>) -> Option<WaitStatus> {
        raw.map(WaitStatus::from_raw).or_else(|| self.recorded_exit(tag))
    }

    pub(super) fn output(&mut self, output: &OutputState) {
        let Some(id) = self.id_of(&output.run) else {
            // The last word of a run that is over and removed.
            if let (Some(why), Ok(name)) = (&output.failed, output.run.parse::<RunName>()) {
                self.trouble_of(name.id, &format!("its output: {why}"));
            }
            return;
        };
        if let Some(watched) = self.runs.get_mut(&id) {
            watched.output = watched.output_before + output.kept;
        }
        let failed = self
            .runs
            .get_mut(&id)
            .map(|watched| std::mem::replace(&mut watched.output_failed, output.failed.is_some()));
        if let (Some(why), Some(false)) = (&output.failed, failed) {
            self.trouble_of(id, &format!("its output can no longer be written: {why}"));
        }
        let moment = |ns| (ns > 0).then_some(BootNs(ns));
        let (at, looked) = (moment(output.last_ns), moment(output.looked_ns));
        self.queue.push_back(FleetEvent::Output { id, at, looked, over_budget: output.over_budget });
    }
}
