//! A log to be verified.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_loop::audit::log::{AuditLog, Place, Settings};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;
use anyhow::{bail, ensure};
use serde_json::{Value, json};

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";
const PATIENCE: Duration = Duration::from_secs(120);
/// How many lines are handed over before the disk is waited for.
const BATCH: u64 = 5_000;

/// What a line is long without its text, bytes.
const BARE: u64 = 180;

/// Writes records of about so many bytes until they are about this long, all of them in one segment.
pub(super) fn write(dir: &Path, bytes: u64, line: u64) -> anyhow::Result<Value> {
    let text = "x".repeat(usize::try_from(line.saturating_sub(BARE))?);
    let settings = Settings { segment_bytes: u64::MAX, reserve: 0, low_water: 0, ..Settings::default() };
    let (mut log, _) = AuditLog::open(&Place::below(dir), settings, BOOT)?;
    let began = Instant::now();
    for lines in 0..bytes / line.max(BARE) {
        let words = vec!["/usr/bin/git".to_owned(), "status".to_owned(), format!("--porcelain=v{lines}")];
        let mut recorder = Recorder::new(BOOT.to_owned(), format!("RUN{}", lines / 1_000), words, "agent".to_owned());
        let clock = Clock { boot: BootNs(lines), real_ns: 1_000 };
        ensure!(log.append(recorder.adopted(text.clone(), clock)).is_some(), "the log takes no more lines");
        if lines % BATCH == 0 {
            ensure!(log.durable(PATIENCE), "the log does not become durable");
        }
    }
    let progress = log.close();
    if progress.signed != progress.durable {
        bail!("the log is not signed to its end");
    }
    let bytes = fs::metadata(dir.join("audit/seg/000000000000.jsonl"))?.len();
    Ok(json!({ "lines": progress.durable, "bytes": bytes, "seconds": began.elapsed().as_secs_f64() }))
}
