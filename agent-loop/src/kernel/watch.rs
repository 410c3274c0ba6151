//! The watch rules: names of programs that are observed wherever they run.

use std::borrow::{Borrow, BorrowMut};

use agent_loop_common::COMM_LEN;
use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData, MapError};

use super::Options;

/// A program's name as the kernel keeps it.
type Comm = [u8; COMM_LEN];

/// The rules that the kernel side goes by.
pub(super) struct Watch(HashMap<MapData, Comm, u32>);

impl Watch {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self(HashMap::try_from(map)?))
    }

    /// Makes the rules those of the options: what is there beside them goes.
    ///
    /// # Errors
    /// When a rule has no name, or the map cannot be read or written.
    pub(super) fn set<T: Borrow<MapData> + BorrowMut<MapData>>(
        rules: &mut HashMap<T, Comm, u32>,
        options: &Options,
    ) -> anyhow::Result<()> {
        let wanted =
            options.watch.iter().map(|(name, rule)| Ok((comm(name)?, *rule))).collect::<anyhow::Result<Vec<_>>>()?;
        let there = rules.keys().collect::<Result<Vec<_>, _>>().context("reading the watch rules")?;
        for old in there.iter().filter(|old| !wanted.iter().any(|(name, _)| name == *old)) {
            rules.remove(old).context("removing a watch rule")?;
        }
        for (name, rule) in &wanted {
            rules.insert(name, rule, 0).context("writing a watch rule")?;
        }
        Ok(())
    }

    /// As [`Watch::set`], of a set that is attached.
    ///
    /// # Errors
    /// As there.
    pub(super) fn reset(&mut self, options: &Options) -> anyhow::Result<()> {
        Self::set(&mut self.0, options)
    }

    /// Has this name observed under this rule while something is done.
    ///
    /// # Errors
    /// When there is a rule for the name, there is no room for one more, or it cannot be removed again.
    pub(super) fn during<T>(&mut self, name: &str, rule: u32, done: impl FnOnce() -> T) -> anyhow::Result<T> {
        const NOEXIST: u64 = 1;
        let name = comm(name)?;
        self.0.insert(name, rule, NOEXIST).context("writing a watch rule")?;
        let result = done();
        self.0.remove(&name).context("removing a watch rule")?;
        Ok(result)
    }
}

/// A program's name as the kernel keeps it: cut to fifteen bytes.
fn comm(name: &str) -> anyhow::Result<Comm> {
    anyhow::ensure!(!name.is_empty(), "a watch rule needs the name of a program");
    let mut comm = [0; COMM_LEN];
    for (to, from) in comm.iter_mut().take(COMM_LEN - 1).zip(name.bytes()) {
        *to = from;
    }
    Ok(comm)
}
