//! The live trial: a process of ours executes, bears another and ends, and the kernel side has to tell every step.
//!
//! A loaded and attached program is no proof that what it tells arrives. Inside: the processes of the trial, and the
//! judgement on what was read. Not inside: the reading, which is whoever's who reads the rings (the daemon, at its
//! start). It goes by a watch rule on a name that nobody else has, so it needs no cgroup and no right of a keeper.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use agent_loop_common::map::OBSERVED;
use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Tracing;
use crate::event::Event;
use crate::keeper::pidfd::PidFd;
use crate::keeper::signal::{Expected, Verified, Witnesses, verify};
use crate::model::{ProcessKey, RunTag, WaitStatus};

/// The hidden subcommand that `main` hands to [`trial_main`].
pub const TRIAL: &str = "trial";

/// The rule of the trial; those of the configuration count up from 0.
const RULE: u32 = u32::MAX;

/// The tag of the processes of a trial, as a number. Whoever reads the rings hands their events to [`Trial::take`].
const TAG: RunTag = RunTag(OBSERVED | RULE as u64);

/// What the processes of a trial end with, so that a status is seen and not made up.
const CODE: u8 = 31;
const CHILD_CODE: u8 = 32;

/// The program is executed by the number of a descriptor, which becomes its name: one that no program has.
const LEAST_DESCRIPTOR: i32 = 800;

/// So long the processes of a trial may take before anybody is supervised; they are over in some milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// So long its end is waited for once it was killed.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// A trial whose processes have ended: their records are in the rings.
#[derive(Debug)]
pub struct Trial {
    pid: u32,
    lost_before: u64,
    told: Vec<Event>,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every step was told.
    Told,
    /// Not every step, and the kernel side counted a loss meanwhile: it sees, and says so.
    Lost,
    /// A step was neither told nor counted as lost: which.
    Blind(String),
}

impl Tracing {
    /// Has the processes of a trial live and die; blocks for some milliseconds, at most for `patience` and a second.
    ///
    /// # Errors
    /// When they could not be made or did not end as they should, or a map cannot be read or written.
    pub fn try_out(&mut self, program: &Path, patience: Duration) -> anyhow::Result<Trial> {
        let lost_before = self.lost().context("reading the counters")?;
        let program = named(program).context("opening this program")?;
        let name = program.as_raw_fd().to_string();
        let pid = self.watch.during(&name, RULE, || live_and_die(&format!("/proc/self/fd/{name}"), patience))??;
        Ok(Trial { pid, lost_before, told: Vec::new() })
    }

    /// Judges a trial after all records were read that were written until it ended.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn verdict(&self, trial: &Trial) -> io::Result<Verdict> {
        Ok(trial.judge(self.lost()?))
    }

    /// Everything that costs a record, or a process its place in the live set, or may have.
    fn lost(&self) -> io::Result<u64> {
        let totals = self.counters.read()?;
        let skipped: u64 = self.counters.skipped()?.into_iter().map(|(_, runs)| runs).sum();
        Ok(totals.lost_fork + totals.lost_exec + totals.lost_exit + totals.live_full + totals.missed + skipped)
    }
}

/// The program, open under a high number.
fn named(program: &Path) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let file = File::open(program)?;
    let fd = fcntl(file.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(LEAST_DESCRIPTOR))?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts the trial's first process and waits for its end; its number.
fn live_and_die(program: &str, patience: Duration) -> anyhow::Result<u32> {
    let mut command = Command::new(program);
    command.arg(TRIAL).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().context("starting the process of the trial")?;
    end_of(child, patience)
}

/// Waits for the end of the first process of a trial, and ends it itself where that does not come; its number.
fn end_of(mut child: Child, patience: Duration) -> anyhow::Result<u32> {
    // Our child, not waited for: the number is its.
    let pidfd = PidFd::open(child.id()).context("opening the process of the trial")?;
    let pidfd = pidfd.context("the process of the trial is gone: somebody else waited for it")?;
    if !has_ended(&pidfd, patience)? {
        let witnesses = Witnesses { run: TAG, live: None, cgroup: None };
        let sent =
            verify(&pidfd, Expected::Descendant { pid: child.id() }, &witnesses).and_then(|verified| match verified {
                Verified::Proof(proof) => proof.send(libc::SIGKILL as u8).map(drop),
                Verified::Gone => Ok(()),
            });
        // What the kernel does not let end stays our child, and is said to be there.
        let reaped = has_ended(&pidfd, LAST_WITHIN)? && child.wait().is_ok();
        let left = match sent {
            Ok(()) if reaped => "; it was killed".to_owned(),
            Ok(()) => "; it was killed and is still there".to_owned(),
            Err(refusal) => format!("; it is left: {refusal}"),
        };
        anyhow::bail!("process {} of the trial did not end in {} s{left}", child.id(), patience.as_secs());
    }
    let status = child.wait().context("awaiting the process of the trial")?;
    let raw = status.into_raw();
    anyhow::ensure!(
        WaitStatus::from_raw(raw) == WaitStatus::Exited(CODE),
        "the process of the trial ended with {} instead of exit {CODE}",
        WaitStatus::from_raw(raw)
    );
    Ok(child.id())
}

/// Whether a process has ended, or does so in this time.
fn has_ended(pidfd: &PidFd, within: Duration) -> anyhow::Result<bool> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.context("awaiting the trial")? > 0),
        }
    }
}

/// What the processes of a trial do: the first one bears another, and both end, each with a code of its own.
#[must_use]
pub fn trial_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    if args.next().is_some() {
        return ExitCode::from(CHILD_CODE);
    }
    let child = Command::new("/proc/self/exe").args([TRIAL, "child"]).status();
    match child.map(|status| status.code()) {
        Ok(Some(code)) if code == i32::from(CHILD_CODE) => ExitCode::from(CODE),
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

impl Trial {
    /// Whether an event of this run is one of a trial's.
    #[must_use]
    pub fn is_of(run: RunTag) -> bool {
        run == TAG
    }

    /// Takes an event of a trial.
    pub fn take(&mut self, event: Event) {
        self.told.push(event);
    }

    /// Judges what was told; `lost` is the count of losses now.
    fn judge(&self, lost: u64) -> Verdict {
        match self.missing() {
            None => Verdict::Told,
            Some(_) if lost > self.lost_before => Verdict::Lost,
            Some(what) => Verdict::Blind(what),
        }
    }

    /// The first step that was not told.
    fn missing(&self) -> Option<String> {
        let births = || self.told.iter().filter_map(|event| if let Event::Born(it) = event { Some(it) } else { None });
        let executed =
            |key: ProcessKey| self.told.iter().any(|event| matches!(event, Event::Execed(it) if it.key == key));
        let died = |key: ProcessKey, code: u8| {
            let status = Some(WaitStatus::Exited(code));
            self.told.iter().any(|event| matches!(event, Event::Died(it) if it.key == key && it.status == status))
        };
        let Some(first) = births().find(|birth| birth.key.tgid == self.pid) else {
            return Some(format!("the exec hook did not tell of process {}", self.pid));
        };
        let Some(child) = births().find(|birth| birth.forker == Some(first.key)) else {
            return Some(format!("the fork hook did not tell of the child of process {}", self.pid));
        };
        for (key, code) in [(first.key, CODE), (child.key, CHILD_CODE)] {
            if !executed(key) {
                return Some(format!("the exec hook did not tell what process {} executed", key.tgid));
            }
            if !died(key, code) {
                return Some(format!(
                    "the exit hook did not tell of the death of process {} with exit {code}",
                    key.tgid
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Birth, BootNs, Death, Discovery, Exec, Source};

    fn birth(tgid: u32, forker: Option<ProcessKey>, discovery: Discovery) -> Event {
        let key = ProcessKey::new(tgid, u64::from(tgid));
        Event::Born(Birth { key, ino: None, run: TAG, forker, parent_tgid: None, uid: None, at: BootNs(1), discovery })
    }

    fn exec(tgid: u32) -> Event {
        Event::Execed(Exec::empty(ProcessKey::new(tgid, u64::from(tgid)), TAG, BootNs(1)))
    }

    fn death(tgid: u32, code: u8) -> Event {
        let key = ProcessKey::new(tgid, u64::from(tgid));
        let status = Some(WaitStatus::Exited(code));
        Event::Died(Death { key, ino: None, run: TAG, forker: None, status, at: BootNs(1), source: Source::Kernel })
    }

    /// Everything that a trial of process 7, whose child is 8, has to be told.
    fn whole() -> Vec<Event> {
        vec![
            birth(7, None, Discovery::Exec),
            exec(7),
            birth(8, Some(ProcessKey::new(7, 7)), Discovery::Fork),
            exec(8),
            death(8, CHILD_CODE),
            death(7, CODE),
        ]
    }

    #[test]
    fn a_process_of_a_trial_that_does_not_end_is_ended_and_reaped() {
        let mut command = Command::new("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a process");
        // It lives for as long as this end is open, whatever becomes of the test, and no longer.
        let held_open = child.stdin.take();
        let pid = child.id();
        let pidfd = PidFd::open(pid).expect("a descriptor").expect("our child");
        let told = end_of(child, Duration::from_millis(10)).expect_err("it reads on").to_string();
        assert!(has_ended(&pidfd, Duration::ZERO).expect("a look"), "it lives: {told}");
        assert!(told.contains("did not end") && told.ends_with("it was killed"), "{told}");
        let (pid, at_once) = (nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::wait::WaitPidFlag::WNOHANG);
        let left = nix::sys::wait::waitpid(pid, Some(at_once));
        assert_eq!(left, Err(Errno::ECHILD), "nobody is left to be waited for");
        drop(held_open);
    }

    #[test]
    fn a_trial_of_which_any_step_is_not_told_is_blind_unless_a_loss_was_counted() {
        let trial = |told| Trial { pid: 7, lost_before: 5, told };
        assert_eq!(trial(whole()).judge(5), Verdict::Told);
        assert_eq!(trial(whole()).judge(9), Verdict::Told);
        for without in 0..whole().len() {
            let mut told = whole();
            told.remove(without);
            assert!(matches!(trial(told.clone()).judge(5), Verdict::Blind(_)), "without {without}");
            assert_eq!(trial(told).judge(6), Verdict::Lost, "without {without}");
        }
        // A death that is told with another status was not seen.
        let mut told = whole();
        told[5] = death(7, 0);
        assert!(matches!(trial(told).judge(5), Verdict::Blind(why) if why.contains("exit 31")));
        // Nor is it the birth of this child.
        let mut told = whole();
        told[2] = birth(8, None, Discovery::Fork);
        assert!(matches!(trial(told).judge(5), Verdict::Blind(why) if why.contains("fork hook")));
    }
}
