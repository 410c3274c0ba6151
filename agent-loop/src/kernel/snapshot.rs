//! The snapshot: finds the processes that lived before the hooks were attached.

use std::io::Read as _;
use std::os::fd::BorrowedFd;

use agent_loop_common::decode;
use anyhow::Context as _;

use super::bpf;
use super::live::ino;
use crate::model::{Live, ProcessKey, RunTag};

/// How often a walk that still found somebody is repeated: as deep as a chain of processes can be that is
/// visited child before parent.
const MAX_PASSES: usize = 64;

/// Walks all tasks until a walk finds nobody new; what it found is in the live set, its births in the ring.
///
/// The kernel inserts each under NOEXIST and looks afterwards whether it still lives, so that neither a
/// younger entry is overwritten nor a dead process left in the set. Call it after the hooks are attached.
pub(super) fn walk(program: BorrowedFd<'_>) -> anyhow::Result<Vec<Live>> {
    for _ in 0..MAX_PASSES {
        let mut bytes = Vec::new();
        let mut walk = bpf::walk(program).context("opening the snapshot")?;
        walk.read_to_end(&mut bytes).context("walking the host's processes")?;
        let mut found = Vec::new();
        let mut inserted = false;
        for record in decode::snapshot(&bytes) {
            let record = record.context("reading the snapshot")?;
            inserted |= record.inserted != 0;
            found.push(Live {
                key: ProcessKey::new(record.tgid, record.start_boottime_ns),
                ino: ino(record.pidfs_ino),
                run: RunTag(record.run),
                forker: None,
            });
        }
        if !inserted {
            return Ok(found);
        }
    }
    anyhow::bail!("the snapshot found new processes in each of {MAX_PASSES} walks")
}
