//! How fast the journal of this host takes the same records.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::records::Story;

/// Sends this many records to the journal, and waits until they are on its disk.
pub(super) fn measure(records: u64) -> anyhow::Result<Value> {
    let socket = UnixDatagram::unbound().context("making a socket")?;
    socket.connect(agent_loop::journal::SOCKET).context("finding the journal")?;
    let mut entry = Vec::new();
    let began = Instant::now();
    for (number, line) in (0..records).zip(Story::default()) {
        entry.clear();
        entry.extend_from_slice(b"PRIORITY=6\nSYSLOG_IDENTIFIER=agent-loop-bench\nMESSAGE=");
        line.numbered(number).write(&mut entry);
        entry.push(b'\n');
        socket.send(&entry).context("sending a record to the journal")?;
    }
    let synced = Command::new("journalctl").arg("--sync").status().context("starting journalctl")?;
    ensure!(synced.success(), "the journal does not become durable");
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({ "records": records, "seconds": seconds, "records_per_s": records as f64 / seconds }))
}
