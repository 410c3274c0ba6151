//! The main process in the shell: its birth, its start, its end.

use std::io;

use super::Args;
use super::birth::{self, Main};
use super::scan::identity;
use super::shell::Shell;
use crate::event::{Event, LaunchFailure, Launched};
use crate::keeper::launch::{self, Child, Place, SignalsAtStart, Start, User};
use crate::model::BootNs;

impl Shell {
    /// Bears the main process, frozen, and queues what became of it.
    pub(super) fn launch(&mut self, args: &Args, signals: &SignalsAtStart, user: Option<User>) {
        let event = match self.try_launch(args, signals, user) {
            Ok(launched) => Event::Launched(launched),
            Err(failure) => Event::LaunchFailed(failure),
        };
        self.queue.push_back(event);
        if let Some(pump) = self.report.pump() {
            pump.launched();
        }
    }

    fn try_launch(
        &mut self,
        args: &Args,
        signals: &SignalsAtStart,
        user: Option<User>,
    ) -> Result<Launched, LaunchFailure> {
        let spec = birth::spec(args, signals, user, self.report.pump().and_then(|pump| pump.write()));
        let place = self.ground.cgroup.as_ref().map_or(Place::Held, Place::Cgroup);
        let child = launch::launch(&spec, self.ground.tag, place)?;
        self.ground.is_used = true;
        match Main::watch(child) {
            Ok(main) => {
                let known = self.know_main(&main);
                // One that is not known is killed here and now: nothing else would end a frozen process soon.
                if known.is_err() {
                    self.discard(&main.child);
                }
                self.main = known.is_ok().then_some(main);
                known.map_err(|error| failure("watching the new process", &error))
            }
            Err((child, error)) => {
                self.discard(&child);
                Err(failure("watching the new process", &error))
            }
        }
    }

    fn discard(&mut self, child: &Child) {
        if let Err(why) = birth::discard(child, &self.ground) {
            self.report.trouble("ending the new process", &why);
        }
    }

    /// Who the new process is.
    fn know_main(&mut self, main: &Main) -> io::Result<Launched> {
        let (pid, ino) = (main.child.pid, main.child.pidfd.ino());
        let key = match &self.ground.tracing {
            // The fork hook ran before clone3 returned: the birth is in the live set, or eBPF does not work.
            Some(tracing) => {
                tracing
                    .live
                    .lookup(pid)?
                    .filter(|live| live.run == self.ground.tag)
                    .ok_or_else(|| io::Error::other("the kernel's live set does not hold the new process"))?
                    .key
            }
            None => identity(pid)?.ok_or_else(|| io::Error::other("the new process is gone"))?.0,
        };
        self.scan.main(key, ino);
        // By our own clock, which a deadline is kept by: in a time namespace it is not the kernel's.
        let at = BootNs(key.start_boottime_ns).shifted(self.ground.clock_ahead);
        Ok(Launched { key, ino, run: self.ground.tag, at, traced: self.ground.tracing.is_some() })
    }

    /// The main process is dead: its records first, then the authority on its status.
    pub(super) fn main_exited(&mut self) {
        if self.ground.tracing.is_some() {
            self.round();
        } else {
            // Whom it left behind is known before its end is told.
            self.look();
        }
        self.wait_main();
        let Some(main) = self.main.as_mut().filter(|main| !main.exited) else { return };
        // Readable, and no answer: a tracer has it, which has to be told of its end first.
        if main.child.pidfd.has_exited().is_ok_and(|exited| exited) {
            main.dead = true;
            // Its group is gone: Ctrl-C is for us again.
            let _ = self.terminal.take_back();
            let recorded = self.ground.main_status();
            self.queue.push_back(Event::MainHeld(recorded));
        }
    }

    /// Asks for the status of the main process.
    pub(super) fn wait_main(&mut self) {
        let Some(main) = self.main.as_mut().filter(|main| !main.exited) else { return };
        match main.child.pidfd.try_wait() {
            Ok(None) => {}
            Ok(status) => {
                (main.exited, main.dead) = (true, true);
                let _ = self.terminal.take_back();
                self.queue.push_back(Event::MainExited(status));
            }
            Err(error) => {
                self.report.trouble("waiting for the command", &error);
                (main.exited, main.dead) = (true, true);
                self.queue.push_back(Event::MainExited(None));
            }
        }
    }

    pub(super) fn main_started(&mut self) {
        let Some(main) = &mut self.main else { return };
        let event = match main.child.start.poll() {
            Ok(None) => return,
            Ok(Some(Start::Started)) => Event::Started,
            Ok(Some(Start::Failed(failed))) => {
                self.launch_code = failed.shell_code();
                Event::LaunchFailed(failed.into())
            }
            // Its status will say what ended it.
            Ok(Some(Start::Died)) => {
                main.start = None;
                return;
            }
            Err(error) => Event::LaunchFailed(failure("asking the launcher", &error)),
        };
        main.start = None;
        self.queue.push_back(event);
    }
}

fn failure(step: &str, error: &io::Error) -> LaunchFailure {
    LaunchFailure { step: format!("{step}: {error}"), errno: None }
}
