//! The product's own method: `PidFd::open`, `signal::verify`, `LiveProof::send`, once for each proof.
//!
//! The strangers are put where only the proof under test can tell them from the victim: where identity decides (inode,
//! live set) they are born in the victim's own run, to which they belong; where belonging decides (own cgroup) outside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use agent_loop::keeper::launch::{self, Child, LaunchSpec, Place};
use agent_loop::keeper::pidfd::PidFd;
use agent_loop::keeper::signal::{self, Delivery, Expected, LiveProof, Refusal, Verified, Witnesses};
use agent_loop::kernel::Options;
use agent_loop::model::{PidfsIno, RunTag};

use super::{Method, born};
use crate::sys::Cloned;
use crate::traced::{Run, Traced};

/// Which proof has to tell victim and stranger apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The recorded pidfs inode (Linux 6.9 and later); the run's cgroup says that it belongs.
    Inode,
    /// The kernel's live set, no inode on record; its tag says that it belongs.
    LiveSet,
    /// The run's own cgroup, for a number of which nothing is on record.
    Member,
}

/// The product's method by one proof.
pub struct Product {
    proof: Proof,
    home: Arc<File>,
    traced: Traced,
    decided: Decided,
    // Last: its cgroup is removed when nobody needs it.
    run: Run,
}

/// What decided, how often.
#[derive(Default)]
struct Decided(BTreeMap<String, u64>);

impl Decided {
    fn note(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn verified<'a>(&mut self, verified: Result<Verified<'a>, Refusal>) -> Option<LiveProof<'a>> {
        match verified {
            Ok(Verified::Proof(proof)) => return Some(proof),
            Ok(Verified::Gone) => self.note("verify: gone"),
            Err(refusal) => self.note(format!("verify refused: {}", word(&refusal))),
        }
        None
    }

    fn sent(&mut self, proof: LiveProof<'_>) -> bool {
        let kind = proof.kind().word();
        match proof.send(libc::SIGKILL as u8) {
            Ok(Delivery::Sent(kind)) => {
                self.note(format!("sent on {}", kind.word()));
                true
            }
            Ok(Delivery::Gone) => {
                self.note(format!("proof {kind}, then gone"));
                false
            }
            Err(refusal) => {
                self.note(format!("proof {kind}, then refused: {}", word(&refusal)));
                false
            }
        }
    }
}

/// The name of the refusal.
fn word(refusal: &Refusal) -> String {
    let name = format!("{refusal:?}");
    name.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

impl Product {
    /// Prepares the run, and loads the eBPF program.
    ///
    /// # Errors
    /// When the run's directory cannot be held.
    ///
    /// # Panics
    /// Without cgroups or eBPF.
    pub fn new(proof: Proof) -> io::Result<Self> {
        let run = Run::new();
        let home = Arc::new(File::open(run.path())?);
        let traced = Traced::of_run(&run, Options::default());
        Ok(Self { proof, home, traced, decided: Decided::default(), run })
    }
}

impl Method for Product {
    type Identity = Expected;
    type Opened = PidFd;
    type Proof<'a> = LiveProof<'a>;

    fn victim(&mut self, number: i32) -> io::Result<Option<Cloned>> {
        born(number, Some(&self.home))
    }

    fn strangers_home(&self) -> Option<Arc<File>> {
        (self.proof != Proof::Member).then(|| Arc::clone(&self.home))
    }

    fn decided(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.decided.0)
    }

    fn record(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<Expected> {
        let pid = pid.cast_unsigned();
        let live =
            self.traced.tracing.live.lookup(pid)?.ok_or_else(|| io::Error::other("a victim that is not live"))?;
        let ino = Some(PidfsIno(nix::sys::stat::fstat(pidfd)?.st_ino));
        Ok(match self.proof {
            Proof::Inode => Expected::Known { key: live.key, ino },
            Proof::LiveSet => Expected::Known { key: live.key, ino: None },
            Proof::Member => Expected::Member { pid },
        })
    }

    fn open(&mut self, known: &Expected) -> Option<PidFd> {
        let pid = match known {
            Expected::Known { key, .. } => key.tgid,
            Expected::Member { pid } | Expected::Descendant { pid } => *pid,
            Expected::OwnChild => return None,
        };
        let opened = PidFd::open(pid).ok().flatten();
        if opened.is_none() {
            self.decided.note("open: nobody");
        }
        opened
    }

    fn verify<'a>(&mut self, known: &Expected, opened: &'a PidFd) -> Option<LiveProof<'a>> {
        let cgroup = self.run.cgroup().own();
        let witnesses = match self.proof {
            Proof::Inode | Proof::Member => Witnesses { run: self.run.tag(), live: None, cgroup: Some(cgroup) },
            Proof::LiveSet => Witnesses { run: self.run.tag(), live: Some(&self.traced.tracing.live), cgroup: None },
        };
        self.decided.verified(signal::verify(opened, *known, &witnesses))
    }

    fn signal(&mut self, proof: LiveProof<'_>) -> bool {
        self.decided.sent(proof)
    }
}

/// The product's method for a child that the keeper launched: the descriptor is as old as the child.
#[derive(Default)]
pub struct OwnChild {
    child: Option<Child>,
    decided: Decided,
}

/// The run that the child is launched for.
const RUN: RunTag = RunTag(7);

impl Method for OwnChild {
    type Identity = ();
    type Opened = Child;
    type Proof<'a> = LiveProof<'a>;

    fn victim(&mut self, _number: i32) -> io::Result<Option<Cloned>> {
        let spec = LaunchSpec::as_caller(vec!["/bin/true".into()], &launch::signals_at_start());
        let child = launch::launch(&spec, RUN, Place::Held).map_err(io::Error::other)?;
        let pidfd = child.pidfd.as_fd().try_clone_to_owned()?;
        let pid = child.pid.cast_signed();
        self.child = Some(child);
        Ok(Some(Cloned { pid, pidfd }))
    }

    fn decided(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.decided.0)
    }

    fn record(&mut self, _pid: i32, _pidfd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn open(&mut self, (): &()) -> Option<Child> {
        self.child.take()
    }

    fn verify<'a>(&mut self, (): &(), opened: &'a Child) -> Option<LiveProof<'a>> {
        let witnesses = Witnesses { run: RUN, live: None, cgroup: None };
        self.decided.verified(signal::verify(&opened.pidfd, Expected::OwnChild, &witnesses))
    }

    fn signal(&mut self, proof: LiveProof<'_>) -> bool {
        self.decided.sent(proof)
    }
}
