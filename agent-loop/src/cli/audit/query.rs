//! `audit query`, `audit tail`, `audit show`: records as they stand in the log.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;

use super::follow::Follower;
use super::select::{self, Select};
use crate::audit::read::{Filter, Record};
use crate::cli::client::draw::{Page, event};
use crate::config::Config;

/// Prints the records that are meant, one line each.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop audit query --run 01M8 --kind signal
  agent-loop audit query --since 2h --kind gap --json | jq .gap")]
pub(super) struct Args {
    #[command(flatten)]
    select: Select,
    /// Print the lines of the log as they are, instead of text for people.
    #[arg(long)]
    json: bool,
}

/// Prints the last records, and with `-f` those that are written from now on.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop audit tail -n 20
  agent-loop audit tail -f --kind run")]
pub(super) struct TailArgs {
    #[command(flatten)]
    select: Select,
    /// How many.
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
    lines: usize,
    /// Go on with what is written, until it is interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Print the lines of the log as they are, instead of text for people.
    #[arg(long)]
    json: bool,
}

/// Prints single records in full.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop audit show 4711
  agent-loop audit show 12 13 --log /mnt/copy/audit")]
pub(super) struct ShowArgs {
    /// Their numbers.
    #[arg(required = true, value_name = "SEQ")]
    seqs: Vec<u64>,
    /// The log: its directory, or a file of lines.
    #[arg(long, value_name = "DIR|FILE")]
    log: Option<PathBuf>,
}

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn run(args: &Args) -> Result<(), String> {
    args.select.each(|line, _| put(line, args.json))
}

pub(super) fn tail(args: &TailArgs) -> Result<(), String> {
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let mut next = 0;
    args.select.each(|line, record| {
        if last.len() == args.lines {
            last.pop_front();
        }
        last.push_back(line.to_vec());
        next = record.seq + 1;
        Ok(())
    })?;
    // With no line to be shown none is kept.
    last.iter().take(args.lines).try_for_each(|line| put(line, args.json))?;
    if !args.follow {
        return Ok(());
    }
    let log = args.select.log().map_or_else(|| Config::default().host.log_dir, Path::to_owned);
    let failed = |error: io::Error| format!("following {}: {error}", log.display());
    let mut follower = Follower::new(&log).map_err(failed)?;
    let filter = args.select.filter();
    loop {
        let mut done = Ok(());
        let looked = follower.look(&mut |line| {
            if let Ok(record) = Record::read(line)
                && record.seq >= next
                && filter.takes(&record)
                && done.is_ok()
            {
                done = put(line, args.json);
            }
        });
        looked.map_err(failed)?;
        done?;
        std::thread::sleep(LOOK);
    }
}

pub(super) fn show(args: &ShowArgs) -> Result<(), String> {
    let mut missing = args.seqs.clone();
    let mut take = |line: &[u8], record: Record| {
        if args.seqs.contains(&record.seq) {
            missing.retain(|seq| *seq != record.seq);
            let value: serde_json::Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            return write(&format!("{value:#}\n"));
        }
        Ok(())
    };
    select::each(select::source(args.log.as_deref())?, &Filter::default(), false, &mut take)?;
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(format!("the log has no line {missing:?}")),
    }
}

fn put(line: &[u8], json: bool) -> Result<(), String> {
    let text = String::from_utf8_lossy(line);
    if json { write(&format!("{text}\n")) } else { write(&format!("{}\n", event(&text, page()))) }
}

/// As wide as the terminal, or as text is.
fn page() -> Page {
    crate::cli::client::output::page()
}

pub(super) fn write(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("writing: {error}"))
}

/// What a path is called in an error.
pub(super) fn named(path: Option<&Path>) -> String {
    path.map_or_else(|| "the log of the daemon".to_owned(), |path| path.display().to_string())
}
