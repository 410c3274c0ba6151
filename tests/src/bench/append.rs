//! How fast an audit log takes records, and how long one waits that has to be durable first.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_loop::audit::log::{AuditLog, Place, Settings};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::records::{BOOT, Story};

const PATIENCE: Duration = Duration::from_secs(120);
/// How many lines are handed over together: about what one turn of a daemon's loop does in a storm.
const TURN: u64 = 64;
/// How many lines may wait for the disk.
const MOST_WAITING: u64 = 100_000;
/// How many lines that are durable first.
const FIRST: usize = 300;

/// Appends this many records as a daemon does, then some that are durable first beside bare syncs of as many bytes.
pub(super) fn measure(dir: &Path, records: u64) -> anyhow::Result<Value> {
    let settings = Settings { segment_bytes: u64::MAX, ..Settings::default() };
    let (mut log, _) = AuditLog::open(&Place::below(dir), settings, BOOT)?;
    ensure!(log.durable(PATIENCE), "the log does not become durable");
    let mut story = Story::default();
    let began = Instant::now();
    for number in 0..records {
        let line = story.next().context("it has no end")?;
        ensure!(log.append(line).is_some(), "the log takes no more lines");
        if number.is_multiple_of(TURN) {
            log.flush();
            // More would not fit into memory: a daemon would declare it, here the disk is waited for.
            while log.next() - log.progress().durable > MOST_WAITING {
                ensure!(began.elapsed() < PATIENCE, "the log does not become durable");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
    log.flush();
    while log.progress().durable < log.next() {
        ensure!(began.elapsed() < PATIENCE, "the log does not become durable");
        std::thread::sleep(Duration::from_micros(200));
    }
    let seconds = began.elapsed().as_secs_f64();
    let (first, bare) = durable_first(&mut log, dir)?;
    let lines = log.next();
    let _ = log.close();
    let text = fs::read(dir.join("audit/seg/000000000000.jsonl")).context("reading the log")?;
    // As a closed segment is.
    let packed = zstd::encode_all(text.as_slice(), 3).context("compressing the log")?;
    Ok(json!({
        "records": records,
        "seconds": seconds,
        "records_per_s": records as f64 / seconds,
        "bytes_per_record": text.len() as f64 / lines as f64,
        "zstd_bytes_per_record": packed.len() as f64 / lines as f64,
        "durable_first_us": first,
        "bare_fdatasync_us": bare,
    }))
}

/// The microseconds of an append that is durable first, and of a bare write with `fdatasync` of a line of the same length,
/// one after the other.
fn durable_first(log: &mut AuditLog, dir: &Path) -> anyhow::Result<(Value, Value)> {
    let mut bare = File::create(dir.join("bare")).context("making the file of bare syncs")?;
    let (mut ours, mut theirs) = (Vec::with_capacity(FIRST), Vec::with_capacity(FIRST));
    for _ in 0..FIRST {
        let mut line = Vec::new();
        Story::intent().write(&mut line);
        line.push(b'\n');
        let began = Instant::now();
        ensure!(log.append(Story::intent()).is_some(), "the log takes no more lines");
        ensure!(log.durable(PATIENCE), "the log does not become durable");
        ours.push(began.elapsed());
        let began = Instant::now();
        bare.write_all(&line)?;
        bare.sync_data()?;
        theirs.push(began.elapsed());
    }
    fs::remove_file(dir.join("bare")).context("removing the file of bare syncs")?;
    Ok((quantiles(ours), quantiles(theirs)))
}

fn quantiles(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len() - 1)).map(Duration::as_micros);
    json!({ "p50": at(50), "p99": at(99) })
}
