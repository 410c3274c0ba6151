//! What each hook costs, by the kernel's own clock.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::spawn::{self, How};
use crate::sys;

/// Measures a fork loop and an exec loop while the programs of the process `of` are timed.
///
/// Whether the loops' processes are tracked is the caller's choice: this process is in the tree of `of`, or not.
pub(super) fn measure(of: Option<i32>, span: Duration) -> anyhow::Result<Value> {
    let of = of.map_or_else(supervisor, Ok)?;
    // The kernel takes times for as long as this is open, and stops by itself should we die.
    let _timing = sys::bpf_enable_stats().context("asking the kernel to time eBPF programs")?;
    let before = programs(of)?;
    anyhow::ensure!(!before.is_empty(), "process {of} holds no eBPF program");
    let storms = [spawn::measure(How::Fork, span)?, spawn::measure(How::Exec, span)?];
    let after = programs(of)?;
    let mut hooks = BTreeMap::new();
    for (id, now) in &after {
        let Some(then) = before.get(id) else { continue };
        let (runs, ns) = (now.runs - then.runs, now.ns - then.ns);
        if runs > 0 {
            hooks.insert(now.name.clone(), json!({ "runs": runs, "ns_each": ns as f64 / runs as f64 }));
        }
    }
    Ok(json!({ "hooks": hooks, "storms": storms }))
}

/// The parent of this process's parent: `exec`, above the gate.
fn supervisor() -> anyhow::Result<i32> {
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).context("looking for exec")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().nth(1).and_then(|it| it.parse().ok()).context("exec has no number")
}

/// The programs that a process holds, by the ids in its fdinfo.
fn programs(pid: i32) -> anyhow::Result<BTreeMap<u32, sys::ProgramStats>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("reading the fdinfo of exec")? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:")).and_then(|id| id.trim().parse().ok());
        if let Some(id) = id {
            found.insert(id, sys::bpf_program_stats(id)?);
        }
    }
    Ok(found)
}
