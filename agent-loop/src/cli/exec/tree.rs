//! A look at the tree: who is left, by the cgroup, the live set, or descent.

use std::collections::BTreeSet;
use std::io;

use super::ground::Ground;
use crate::event::{Member, Tree};
use crate::keeper::scan;
use crate::keeper::signal::{self, Delivery, Expected, Refusal, Witnesses};
use crate::model::Live;

/// How many members of a tree are described: more would make a look at a large tree slow.
const DESCRIBE: usize = 32;

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

    /// What is left of the tree now.
    pub(super) fn inspect(&self) -> io::Result<Tree> {
        let Some(cgroup) = &self.cgroup else {
            let left = self.descendants()?;
            return Ok(if left.is_empty() {
                Tree::Empty { proven: false }
            } else {
                Tree::Populated(describe(&left, &[]))
            });
        };
        let populated = cgroup.own().populated()?;
        let live = self.live()?;
        if !populated && live.is_empty() {
            return Ok(Tree::Empty { proven: true });
        }
        let pids = if populated { cgroup.own().procs()?.pids } else { BTreeSet::new() };
        if pids.is_empty() && live.is_empty() {
            // Populated by what has no number here, or by what is just leaving.
            return Ok(if cgroup.own().populated()? {
                Tree::Unknown("the cgroup is populated by processes that cannot be listed".to_owned())
            } else {
                Tree::Empty { proven: true }
            });
        }
        Ok(Tree::Populated(describe(&pids, &live)))
    }

    /// The living processes that descend from us, the guard excepted: the tree where there is no cgroup.
    pub(super) fn descendants(&self) -> io::Result<BTreeSet<u32>> {
        let (mut pids, _complete) = scan::descendants(std::process::id())?;
        if let Some(guard) = &self.guard {
            pids.remove(&guard.pidfd.pid());
        }
        pids.retain(|&pid| !matches!(scan::Stat::read(pid), Ok(None)) && !is_zombie(pid));
        Ok(pids)
    }

    /// The numbers of the tree now.
    pub(super) fn members(&self) -> io::Result<BTreeSet<u32>> {
        match &self.cgroup {
            Some(cgroup) => cgroup.own().procs().map(|procs| procs.pids),
            None => self.descendants(),
        }
    }

    /// Signals whoever has this number, if it is proven to be in the tree.
    pub(super) fn signal_member(&self, pid: u32, signal: u8) -> Result<Delivery, Refusal> {
        let expected = match &self.cgroup {
            Some(_) => Expected::Member { pid },
            None => Expected::Descendant { pid },
        };
        signal::open_and_send(expected, &self.witnesses(), signal)
    }
}

fn describe(pids: &BTreeSet<u32>, live: &[Live]) -> Vec<Member> {
    let outside = live.iter().map(|live| live.key.tgid).filter(|pid| !pids.contains(pid));
    pids.iter()
        .copied()
        .chain(outside)
        .enumerate()
        .map(|(index, pid)| {
            let key = live.iter().find(|live| live.key.tgid == pid).map(|live| live.key);
            if index < DESCRIBE {
                scan::member(pid, key)
            } else {
                Member { pid, key, state: None, wchan: None, comm: None }
            }
        })
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    scan::Stat::read(pid).ok().flatten().is_some_and(|stat| stat.state == 'Z')
}
