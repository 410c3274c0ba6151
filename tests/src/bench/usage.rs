//! What a command takes: its time and its memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

/// Runs it, its output thrown away; its time, that of the processor, and the most memory that it had.
pub(super) fn of(command: &[String]) -> anyhow::Result<Value> {
    let (program, args) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().with_context(|| format!("starting {program}"))?;
    let seconds = began.elapsed().as_secs_f64();
    // It is the only child.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("reading what it took")?;
    let cpu = processor(&usage);
    Ok(json!({ "code": status.code(), "seconds": seconds, "cpu_seconds": cpu, "peak_kib": usage.max_rss() }))
}

/// The time of the processor that this process took so far, seconds.
pub(super) fn so_far() -> anyhow::Result<f64> {
    Ok(processor(&getrusage(UsageWho::RUSAGE_SELF).context("reading what it took")?))
}

fn processor(usage: &Usage) -> f64 {
    [usage.user_time(), usage.system_time()].iter().map(|it| it.num_microseconds() as f64 / 1e6).sum()
}
