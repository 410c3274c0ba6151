//! Which log, and which of its records.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use jiff::Timestamp;

use super::bar;
use crate::audit::read::{Filter, NotARecord, Record, Source};
use crate::config::Config;

/// After how many lines a bar moves.
const BAR_EVERY: u64 = 4_096;

/// Which records of which log.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct Select {
    /// Only of this run: its id, or the beginning of it.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Only of this issue.
    #[arg(long, value_name = "N")]
    issue: Option<String>,
    /// Only what concerns this process: its id, or its number.
    #[arg(long, value_name = "ID|PID")]
    proc: Option<String>,
    /// Only of this kind, e.g. `proc.exit`, or all that begin so, e.g. `signal`; may be given again.
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Not before this time, e.g. `2026-11-22T20:00:00Z`, or this long ago, e.g. `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Not after this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// The log: its directory, or a file of lines as `exec --events` writes them.
    #[arg(value_name = "DIR|FILE")]
    log: Option<PathBuf>,
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "write a time like `2026-11-22T20:00:00Z`, or how long ago it was like `2h`".to_owned())?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// The log that is meant.
pub(super) fn source(log: Option<&Path>) -> Result<Source, String> {
    let log = log.map_or_else(|| Config::default().host.log_dir, Path::to_owned);
    Source::open(&log).map_err(|error| error.to_string())
}

impl Select {
    /// Where the log is, if that was said.
    pub(super) fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// Which records.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            run: self.run.clone(),
            issue: self.issue.clone(),
            proc: self.proc.clone(),
            kinds: self.kind.clone(),
            since: self.since,
            until: self.until,
        }
    }

    /// Hands out each record that is meant, with its line; a line that is no record is told, and passed over.
    pub(super) fn each(&self, mut take: impl FnMut(&[u8], Record) -> Result<(), String>) -> Result<(), String> {
        self.each_to(io::stdout().is_terminal(), &mut take)
    }

    /// As [`Select::each`]; `shown` says that what comes of it is written to the terminal, where no bar fits between.
    pub(super) fn each_to(
        &self,
        shown: bool,
        take: &mut impl FnMut(&[u8], Record) -> Result<(), String>,
    ) -> Result<(), String> {
        each(source(self.log())?, &self.filter(), shown, take)
    }
}

/// As [`Select::each`], of any source.
pub(super) fn each(
    mut from: Source,
    filter: &Filter,
    shown: bool,
    take: &mut impl FnMut(&[u8], Record) -> Result<(), String>,
) -> Result<(), String> {
    let prefilter = filter.prefilter();
    let bar = bar::over(from.progress().1, !shown);
    let (mut bad, mut lines) = (0_u64, 0_u64);
    loop {
        lines += 1;
        if lines.is_multiple_of(BAR_EVERY) {
            bar.set_position(from.progress().0);
        }
        let Some(line) = from.next_line().map_err(|error| error.to_string())? else { break };
        if !prefilter(line) {
            continue;
        }
        match Record::read(line) {
            Ok(record) if filter.takes(&record) => take(line, record)?,
            Ok(_) => {}
            Err(error @ NotARecord::Newer(_)) => return Err(error.to_string()),
            Err(NotARecord::Not(_)) => bad += 1,
        }
    }
    bar.finish_and_clear();
    if bad > 0 {
        eprintln!("agent-loop: warning: {bad} lines are no records and were passed over; `audit verify` says more");
    }
    Ok(())
}
