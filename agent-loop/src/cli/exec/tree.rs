//! A look at the tree: who is left, by the cgroup, the live set, or descent.

use std::collections::BTreeSet;
use std::io;

use super::ground::Ground;
use crate::event::Tree;
use crate::keeper::scan;
use crate::keeper::signal::{self, Delivery, Expected, Refusal, Witnesses};
use crate::keeper::tree;
use crate::model::{Live, PidfsIno, ProcessKey};

impl Ground {
    /// What a proof may be made from.
    pub(super) fn witnesses(&self) -> Witnesses<'_> {
        Witnesses {
            run: self.tag,
            live: self.tracing.as_ref().map(|tracing| &tracing.live as &dyn signal::LiveSet),
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.own()),
        }
    }

    /// The live, tracked processes of the run.
    pub(super) fn live(&self) -> io::Result<Vec<Live>> {
        let Some(tracing) = &self.tracing else { return Ok(Vec::new()) };
        let mut live = tracing.live.all()?;
        live.retain(|live| live.run == self.tag);
        Ok(live)
    }

    /// What is left of the tree now: in its cgroup, or without eBPF among our descendants too.
    ///
    /// With eBPF the core asks the live set before it believes that nobody left the cgroup.
    pub(super) fn inspect(&self) -> io::Result<Tree> {
        let pids = self.members()?;
        if !pids.is_empty() {
            return Ok(Tree::Populated(tree::describe(&pids, &self.live()?)));
        }
        Ok(match &self.cgroup {
            None => Tree::Empty { proven: false },
            Some(cgroup) if tree::is_populated(cgroup.own())? => {
                // By what has no number here, or by what is just leaving.
                Tree::Unknown("the cgroup is populated by processes that cannot be listed".to_owned())
            }
            // Orphans of others fall to PID 1 as well: there, descent says nothing of who left the cgroup.
            Some(_) => Tree::Empty { proven: self.tracing.is_some() || !is_init() },
        })
    }

    /// The living processes that descend from us, save the guard and what our caller had left us: with the
    /// subreaper that is the tree, wherever it went.
    fn descendants(&self) -> io::Result<BTreeSet<u32>> {
        let mut pids = BTreeSet::new();
        for child in scan::children(std::process::id())? {
            if !self.is_ours(child) {
                pids.extend(scan::descendants(child)?.0);
                pids.insert(child);
            }
        }
        pids.retain(|&pid| !matches!(scan::Stat::read(pid), Ok(None)) && !is_zombie(pid));
        Ok(pids)
    }

    /// Whether a child of ours is no part of the tree.
    pub(super) fn is_ours(&self, child: u32) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.pidfd.pid() == child)
            || scan::Stat::read(child).is_ok_and(|stat| stat.is_some_and(|stat| self.inherited.contains(&stat.key())))
    }

    /// The numbers of the tree now.
    pub(super) fn members(&self) -> io::Result<BTreeSet<u32>> {
        let Some(cgroup) = &self.cgroup else {
            return if self.is_used { self.descendants() } else { Ok(BTreeSet::new()) };
        };
        let mut pids = if tree::is_populated(cgroup.own())? { cgroup.own().procs()?.pids } else { BTreeSet::new() };
        // Unused, the cgroup alone answers: to look for descendants takes a descriptor, and there may be none.
        if self.is_used && self.tracing.is_none() && !is_init() {
            pids.extend(self.descendants()?);
        }
        Ok(pids)
    }

    /// Whether it is certain that this process is gone: its number is free, or another's.
    pub(super) fn is_gone(&self, key: ProcessKey, ino: Option<PidfsIno>) -> bool {
        tree::is_gone(key, ino, self.clock_ahead == 0)
    }

    /// Signals whoever has this number, if it is proven to be in the tree.
    pub(super) fn signal_member(&self, pid: u32, signal: u8) -> Result<Delivery, Refusal> {
        let witnesses = self.witnesses();
        let descendant = Expected::Descendant { pid };
        match &self.cgroup {
            None => signal::open_and_send(descendant, &witnesses, signal),
            Some(_) => match signal::open_and_send(Expected::Member { pid }, &witnesses, signal) {
                // It left the cgroup, and no live set knows it.
                Err(Refusal::NotOurs(_)) if self.tracing.is_none() && !is_init() => {
                    signal::open_and_send(descendant, &witnesses, signal)
                }
                other => other,
            },
        }
    }
}

/// Whether the orphans of everybody fall to us.
pub(super) fn is_init() -> bool {
    std::process::id() == 1
}

fn is_zombie(pid: u32) -> bool {
    scan::Stat::read(pid).ok().flatten().is_some_and(|stat| stat.state == 'Z')
}
