//! `audit verify`: whether a log is as it was written.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::bar;
use crate::audit::log::{layout, note};
use crate::audit::verify::{self, Options, Report, Verdict};

/// The exit code of a log that cannot be read.
pub(super) const UNREADABLE: u8 = 4;

/// Checks every line, hash and signature of an audit log.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Draw the sum of the kernel's records of each run too: seen = written + left out + late + lost.
    #[arg(long)]
    account: bool,
    /// The public key that must have signed it: a file as in `keys/`, or the verifier key itself.
    #[arg(long, value_name = "FILE|KEY")]
    pubkey: Option<String>,
    /// A file with a checkpoint that was handed out of the log; it must be one of it.
    #[arg(long, value_name = "FILE")]
    anchor: Vec<PathBuf>,
    /// A directory of what anchors kept: files that were dropped, and entries of a journal (`journalctl -o json`) in files
    /// that end in `.json`. A log that was rolled back below one of them is tampered with.
    #[arg(long, value_name = "DIR")]
    anchors: Vec<PathBuf>,
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
    /// Print nothing for a log that is intact.
    #[arg(long, short)]
    quiet: bool,
    /// The log.
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop audit verify /var/log/agent-loop
  agent-loop audit verify --account --pubkey epoch-1.pub --anchors /mnt/anchors /mnt/copy/audit
  journalctl -o json -t agent-loop > kept.json; agent-loop audit verify --anchors kept.json

Exit codes: 0 intact, and an anchor covers its newest checkpoint; 1 intact, its tail unsigned or not anchored; 2 intact,
with gaps that it declares itself; 3 tampered with; 4 not readable; 5 the sum of the kernel's records does not add up.";

/// Runs `audit verify` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    match judge(args) {
        Ok(report) => {
            let verdict = report.verdict();
            let text = if args.json { json_text(&report) } else { human(&report) };
            let is_good = matches!(verdict, Verdict::Anchored | Verdict::Intact);
            if !(args.quiet && is_good) && io::stdout().write_all(text.as_bytes()).is_err() {
                return UNREADABLE;
            }
            verdict.code()
        }
        Err(error) => {
            eprintln!("agent-loop: verifying the audit log: {error}");
            UNREADABLE
        }
    }
}

fn judge(args: &Args) -> Result<Report, String> {
    let dir = super::dir(args.dir.as_deref())?;
    let pubkey = args.pubkey.as_deref().map(pubkey).transpose()?;
    let options = Options { pubkey, anchors: args.anchor.clone(), hoards: args.anchors.clone(), account: args.account };
    let bytes = layout::bytes(&layout::segments(&dir).unwrap_or_default());
    let bar = bar::over(bytes, !args.quiet && !args.json);
    let report = verify::verify(&dir, &options, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    report.map_err(|error| error.to_string())
}

/// A key as it was given: a file with it in its first line, or itself.
pub(super) fn pubkey(given: &str) -> Result<String, String> {
    let key = match fs::read_to_string(given) {
        Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
        Err(_) if given.contains('+') => given.to_owned(),
        Err(error) => return Err(format!("{given}: {error}; --pubkey takes a file of `keys/` or a verifier key")),
    };
    if !note::is_key(&key) {
        return Err(format!("{given} is no verifier key: `name+hash+key`, as in the first line of a file of `keys/`"));
    }
    Ok(key)
}

fn json_text(report: &Report) -> String {
    let verdict = report.verdict();
    let mut value = json!({ "verdict": verdict, "code": verdict.code() });
    if let (Some(value), Ok(serde_json::Value::Object(all))) = (value.as_object_mut(), serde_json::to_value(report)) {
        value.extend(all);
    }
    format!("{value:#}\n")
}

/// The report for people.
fn human(report: &Report) -> String {
    let mut text = String::new();
    let log = report.log.as_deref().unwrap_or("a log without a name");
    let _ = writeln!(text, "{log}: {} lines, {} bytes, {} checkpoints", report.lines, report.bytes, report.checkpoints);
    if let Some(at) = &report.signed_at {
        let tail = report.lines.saturating_sub(report.signed);
        let _ = writeln!(
            text,
            "signed: {} lines, the last time at {at}{}; {tail} lines after them",
            report.signed,
            age(at)
        );
    }
    if let Some(anchored) = report.anchored {
        let _ = writeln!(text, "anchored: {anchored} lines, by {} anchors", report.anchors);
    }
    if let Some(sums) = &report.sums {
        let _ = writeln!(text, "sums: {} runs, {} wrong", report.runs, sums.len());
        list(&mut text, "does not add up", sums);
    }
    if report.torn > 0 {
        let _ = writeln!(text, "torn: {} bytes after the last whole line, not declared yet", report.torn);
    }
    list(&mut text, "gap", &report.gaps);
    for damage in report.damage.iter().take(20) {
        let line = damage.seq.map_or_else(String::new, |seq| format!("line {seq}, "));
        let offset = damage.offset.map_or_else(String::new, |offset| format!("byte {offset} of "));
        let _ = writeln!(text, "damage: {line}{offset}{}: {}", damage.file, damage.what);
    }
    if report.damage.len() > 20 {
        let _ = writeln!(text, "damage: {} more", report.damage.len() - 20);
    }
    list(&mut text, "not checked", &report.unchecked);
    let verdict = report.verdict();
    let word = if matches!(verdict, Verdict::Tampered | Verdict::Unaccounted) { "FAIL" } else { "PASS" };
    let _ = writeln!(text, "{word}: {}", verdict.word());
    text
}

/// How long ago that was by the clock of this host; nothing where that makes no sense.
fn age(at: &str) -> String {
    let then = at.parse::<jiff::Timestamp>().ok();
    let seconds = then.map(|then| jiff::Timestamp::now().as_second() - then.as_second()).unwrap_or(-1);
    let age = u64::try_from(seconds).map(std::time::Duration::from_secs);
    age.map_or_else(
        |_| String::new(),
        |age| format!(" ({} ago by the clock of this host)", humantime::format_duration(age)),
    )
}

fn list(text: &mut String, name: &str, items: &[String]) {
    for item in items.iter().take(20) {
        let _ = writeln!(text, "{name}: {item}");
    }
    if items.len() > 20 {
        let _ = writeln!(text, "{name}: {} more", items.len() - 20);
    }
}
