//! The keeper's checks, one step for each thing that is read: anything may happen between two of them.

use crate::protocol::{Guards, Host};
use crate::world::{Entry, Owner, Who, World};

/// What the daemon asks about, and who was meant in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The number.
    pub number: usize,
    /// Start and inode of who is meant; `None` where a member of the run is, whoever has the number.
    pub mark: Option<u8>,
    /// Who is meant.
    pub meant: Option<Who>,
}

/// What a proof is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To hold it as the main process (`Runs::adopt`).
    Hold,
    /// To signal it (`Runs::signal`, `Request::SignalMember`).
    Signal,
}

/// The next thing that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// `PidFd::open`.
    Open,
    /// `signal::still_there`.
    StillThere,
    /// `PidFd::ino`, compared in `signal::known`.
    Inode,
    /// `Witness::lookup`: the live set is opened, its hooks are attached (`pins::live_set`).
    Attached,
    /// `Witness::lookup`: the entry.
    Lookup,
    /// `Witness::lookup`: who has the number now, compared with the entry.
    Agree,
    /// `signal::in_cgroup` by `PidFd::info`; before 6.13 the path in /proc is read.
    Belong,
    /// The end of `OwnCgroup::holds_by_name`.
    NameHolds,
    /// `LiveProof::send`, or the process is held from now on.
    Act,
}

/// A check under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What was asked.
    pub asked: Asked,
    /// What for.
    pub purpose: Purpose,
    /// What comes next.
    pub step: Step,
    /// Whom the descriptor is of.
    pub fd: Option<Who>,
    /// The inode of the descriptor, which it keeps when its process has gone.
    fd_mark: Option<u8>,
    /// Our own child, by the descriptor that its clone3 gave.
    pub child: bool,
    by_inode: bool,
    entry: Option<Entry>,
    /// Who was looked at last, where no descriptor says so.
    pub looked_at: Option<Who>,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Another step follows.
    Next(Check),
    /// The check is over: this is the process.
    Proven(Who),
    /// The check is over: the process had gone.
    Gone,
    /// The check is over: no proof.
    Refused(&'static str),
}

impl Check {
    /// A check of whoever has a number now (`open_and_send`, `Runs::proven`).
    pub fn of_number(asked: Asked, purpose: Purpose, guards: Guards) -> Self {
        // Without the guard all is read under the number, and the descriptor is opened for the signal alone.
        let step = if guards.open_first { Step::Open } else { Step::StillThere };
        Self { step, ..Self::new(asked, purpose) }
    }

    /// A check of our child through the descriptor that is held (`Expected::OwnChild`).
    pub fn of_child(asked: Asked, held: Who) -> Self {
        Self { fd: Some(held), child: true, ..Self::new(asked, Purpose::Signal) }
    }

    /// A look by number alone, of this process.
    pub fn by_number(asked: Asked, looked_at: Who) -> Self {
        Self { looked_at: Some(looked_at), ..Self::new(asked, Purpose::Signal) }
    }

    fn new(asked: Asked, purpose: Purpose) -> Self {
        Self {
            asked,
            purpose,
            step: Step::StillThere,
            fd: None,
            fd_mark: None,
            child: false,
            by_inode: false,
            entry: None,
            looked_at: None,
        }
    }

    /// Makes the next step.
    pub fn step(mut self, world: &World, host: Host, guards: Guards, cgroup: u8) -> After {
        // Whom a look is of: the descriptor's process, else whoever has the number.
        let subject = match self.fd {
            Some(who) => world.of(who),
            None => world.at(self.asked.number),
        };
        if self.fd.is_none() {
            self.looked_at = subject.map(|process| process.who).or(self.looked_at);
        }
        let gone = subject.is_none_or(|process| process.dead);
        let next = match self.step {
            Step::Open => {
                let Some(process) = world.at(self.asked.number) else { return After::Gone };
                (self.fd, self.fd_mark) = (Some(process.who), Some(process.mark));
                if guards.open_first { Step::StillThere } else { Step::Act }
            }
            Step::StillThere if gone => return After::Gone,
            Step::StillThere if self.child => Step::Act,
            Step::StillThere if self.asked.mark.is_none() => Step::Belong,
            Step::StillThere => Step::Inode,
            Step::Inode => {
                let found = self.fd_mark.or(subject.map(|process| process.mark));
                let compares = host.inodes && host.recorded;
                if compares && guards.inode && found != self.asked.mark {
                    return After::Refused("another inode");
                }
                self.by_inode = compares;
                Step::Attached
            }
            // Without a live set there is no entry to look for.
            Step::Attached if guards.attached && !world.attached => Step::Agree,
            Step::Attached => Step::Lookup,
            Step::Lookup => {
                self.entry = world.live[self.asked.number];
                Step::Agree
            }
            Step::Agree => {
                let now = world.at(self.asked.number);
                let agrees = |entry: &Entry| {
                    now.is_some_and(|now| now.tick == entry.tick && (!host.inodes || now.mark == entry.mark))
                };
                let entry = self.entry.take().filter(|entry| !guards.agrees || agrees(entry));
                let by_inode = std::mem::take(&mut self.by_inode);
                let tag = match entry {
                    Some(entry) if Some(entry.mark) == self.asked.mark || !guards.live_set => Some(entry.tag),
                    Some(_) if !by_inode => return After::Refused("another start in the live set"),
                    None if !by_inode => {
                        return if gone { After::Gone } else { After::Refused("not in the live set") };
                    }
                    Some(_) | None => None,
                };
                // What the inode is told from is not asked again.
                self.fd_mark = None;
                if tag == Some(cgroup) { self.proven(guards) } else { Step::Belong }
            }
            Step::Belong if !guards.belonging && self.asked.mark.is_some() => self.proven(guards),
            Step::Belong if host.tells_cgroup => match subject {
                // ESRCH of the question, and the descriptor says that it has gone.
                None => return After::Gone,
                Some(process) if process.cgroup == Some(cgroup) => self.proven(guards),
                Some(_) => return After::Refused("not of the run"),
            },
            Step::Belong => match world.at(self.asked.number) {
                None => return if gone { After::Gone } else { After::Refused("no path in /proc") },
                Some(process) if process.cgroup.is_some() && process.cgroup == world.named => Step::NameHolds,
                Some(_) if gone => return After::Gone,
                Some(_) => return After::Refused("not of the run"),
            },
            Step::NameHolds if gone => return After::Gone,
            Step::NameHolds if guards.name_is_held && world.named != Some(cgroup) => {
                return After::Refused("the cgroup is gone");
            }
            Step::NameHolds => self.proven(guards),
            Step::Act => return self.fd.map_or(After::Gone, After::Proven),
        };
        After::Next(Self { step: next, ..self })
    }

    fn proven(&self, guards: Guards) -> Step {
        if guards.open_first { Step::Act } else { Step::Open }
    }

    /// Whether this process may be signalled, in truth.
    pub fn may_hit(&self, owner: Owner, who: Who) -> bool {
        owner == Owner::Run && self.asked.meant.is_none_or(|meant| meant == who)
    }
}
