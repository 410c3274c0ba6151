//! What a report says, before it is drawn.
//!
//! Times are nanoseconds since 1970 of the log's own wall clock, laid along CLOCK_BOOTTIME within each boot.

use crate::audit::verify;

pub use crate::audit::Counts;
pub use crate::audit::read::{Exit, Host, Stats};

/// A moment: nanoseconds since 1970.
pub type Moment = i64;

/// A report.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was read.
    pub evidence: Evidence,
    /// The first and the last moment that is shown.
    pub span: Option<(Moment, Moment)>,
    /// The lanes, in the order in which their first run was seen.
    pub lanes: Vec<Lane>,
    /// All runs, in the order of the log.
    pub runs: Vec<Run>,
    /// All gaps that the log declares.
    pub gaps: Vec<Gap>,
    /// Where another boot begins.
    pub boots: Vec<Boot>,
    /// What a reader must know that is nowhere else.
    pub notes: Vec<String>,
}

/// The runs of one issue, or those without one.
#[derive(Debug, PartialEq, Eq)]
pub struct Lane {
    /// The issue.
    pub issue: Option<String>,
    /// Places in [`Report::runs`].
    pub runs: Vec<usize>,
}

/// A boot of the host.
#[derive(Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its id.
    pub id: String,
    /// Its first line.
    pub from: Moment,
}

/// A run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Its issue.
    pub issue: Option<String>,
    /// The command.
    pub argv: Vec<String>,
    /// As whom it ran.
    pub user: Option<String>,
    /// When it was announced.
    pub intended: Option<Moment>,
    /// When its main process was born.
    pub born: Option<Moment>,
    /// When its end was recorded.
    pub ended: Option<Moment>,
    /// Its first and last line.
    pub lines: (Moment, Moment),
    /// How it ended.
    pub outcome: Outcome,
    /// The status of its main process.
    pub exit: Option<Exit>,
    /// Births, execs and deaths that stand in the log.
    pub counted: Counts,
    /// When processes were born, and when they died, in the order of time.
    pub births: Vec<Moment>,
    /// See `births`.
    pub deaths: Vec<Moment>,
    /// Processes that outlived the main process: how many by the run's own end, and who, as far as the lines tell.
    pub leftovers: Option<u64>,
    /// Who they were.
    pub left: Vec<Leftover>,
    /// The stop that was carried out to its end.
    pub killed: Option<Killed>,
    /// Signals, the first [`Run::ACTS`] of them.
    pub acts: Vec<Act>,
    /// Numbers of signals by result.
    pub signals: Signals,
    /// The sum of its records.
    pub stats: Option<Stats>,
    /// Whether the tree was proven empty, in the log's word.
    pub tree: Option<String>,
    /// What the log says in sentences: who asked, who went on.
    pub said: Vec<String>,
}

impl Run {
    /// How many signals of a run are listed.
    pub const ACTS: usize = 200;
    /// How many leftovers of a run are listed.
    pub const LEFT: usize = 50;

    /// From where its bar is drawn.
    #[must_use]
    pub fn from(&self) -> Moment {
        self.born.or(self.intended).unwrap_or(self.lines.0)
    }

    /// Up to where its bar is drawn.
    #[must_use]
    pub fn to(&self) -> Moment {
        self.ended.unwrap_or(self.lines.1)
    }
}

/// How a run ended, as far as the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with code 0.
    Succeeded,
    /// By itself: another code, or a signal that was not ours.
    Failed,
    /// We stopped it, for this reason, and its tree was seen empty or gone.
    Stopped(String),
    /// It could not be launched.
    LaunchFailed,
    /// We gave up: processes of it were alive.
    NotEmpty,
    /// It ended, and its status was not observed.
    Unknown,
    /// The log says that it lost sight of it.
    Lost,
    /// No end stands in the log.
    #[default]
    Open,
}

/// A process that outlived its run's main process.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its id.
    pub id: String,
    /// Its number.
    pub pid: u32,
    /// What it had executed last; empty where no exec of it stands in the log.
    pub argv: Vec<String>,
    /// When it died and how; `None` where no death of it stands in the log.
    pub death: Option<(Moment, Option<Exit>)>,
}

/// The end of a stop.
#[derive(Debug, PartialEq, Eq)]
pub struct Killed {
    /// When it was recorded.
    pub at: Moment,
    /// Why it was stopped.
    pub reason: Option<String>,
    /// How many were alive.
    pub survivors: Option<u64>,
    /// Whether the tree was proven empty, in the log's word.
    pub tree: Option<String>,
    /// From the first signal to the end, in milliseconds.
    pub elapsed_ms: Option<u64>,
}

/// A signal: what was intended and what came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Moment,
    /// The line that says so.
    pub seq: u64,
    /// The process's id.
    pub to: Option<String>,
    /// The process's number.
    pub pid: Option<u32>,
    /// The cgroup, where all in it are meant.
    pub cgroup: Option<u64>,
    /// Which signal.
    pub signal: Option<u8>,
    /// By which proof.
    pub proof: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// What came of it; `None` where the log does not say.
    pub result: Option<Sending>,
}

/// What came of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It was sent.
    Sent,
    /// Its target was gone.
    Gone,
    /// It was refused, for this reason.
    Refused(Option<String>),
    /// Another word of the log.
    Other(String),
}

/// Numbers of signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Announced.
    pub intended: u64,
    /// Sent.
    pub sent: u64,
    /// Their target was gone.
    pub gone: u64,
    /// Refused.
    pub refused: u64,
}

/// A stretch in which records were lost.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// The line that declares it.
    pub seq: u64,
    /// The run, where it concerns one.
    pub run: Option<usize>,
    /// Why.
    pub cause: String,
    /// From when; where it is not known, the moment of its line.
    pub from: Moment,
    /// To when.
    pub to: Moment,
    /// Records lost by kind; `None` where the log does not say.
    pub lost: Option<Counts>,
    /// Processes never tracked.
    pub untracked: u64,
    /// Runs of a hook that the kernel skipped.
    pub missed: u64,
    /// Lines of the log that are lost.
    pub lines: Option<u64>,
    /// Bytes that were moved aside.
    pub bytes: Option<u64>,
    /// What a repair inferred.
    pub inferred: Counts,
    /// Whether it was repaired; `None` where that is not said.
    pub repaired: Option<bool>,
}

/// What was read, and what it says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The files, with the sizes on disk and the lines that were read.
    pub files: Vec<File>,
    /// The id of the log, where it has one.
    pub log: Option<String>,
    /// The format of the log.
    pub format: Option<String>,
    /// The schemas of its records.
    pub schemas: Vec<String>,
    /// The policy by which secrets were taken out.
    pub redaction: Vec<String>,
    /// Lines read.
    pub lines: u64,
    /// Numbers of the first and the last line.
    pub seqs: Option<(u64, u64)>,
    /// Lines that were no record, the first few: file, line in it, what is wrong.
    pub unreadable: Vec<(usize, u64, String)>,
    /// How many there were.
    pub unreadable_total: u64,
    /// Lines whose kind this report does not show.
    pub not_shown: Vec<(String, u64)>,
    /// What writers said of their host.
    pub hosts: Vec<Host>,
    /// The newest checkpoint as it stands, not verified here.
    pub checkpoint: Option<Checkpoint>,
    /// The names of the public keys in the log.
    pub keys: Vec<String>,
    /// What verifying said; `None` where it was not done.
    pub verification: Option<Verification>,
    /// What was left out, in words.
    pub selection: Vec<String>,
}

/// A file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Its name within the log.
    pub name: String,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// Lines in it.
    pub lines: u64,
}

/// What a checkpoint claims.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The origin.
    pub origin: String,
    /// How many lines it covers.
    pub size: Option<u64>,
    /// The root, base 64.
    pub root: String,
    /// When it was signed, by the wall clock.
    pub time: Option<String>,
}

/// What verifying said of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Whether nothing was found to be changed and the sums add up.
    pub passed: bool,
    /// The exit code that `audit verify` ends with.
    pub code: u8,
    /// The verdict in words.
    pub word: &'static str,
    /// What was found to be changed, the first of it.
    pub damage: Vec<String>,
    /// How much was found to be changed.
    pub damage_total: usize,
    /// Sums that do not add up.
    pub sums: Vec<String>,
    /// What was not checked.
    pub unchecked: Vec<String>,
}

impl Verification {
    /// How much damage is listed.
    const LISTED: usize = 20;

    /// Of the report of `audit verify`.
    #[must_use]
    pub fn of(report: &verify::Report) -> Self {
        let verdict = report.verdict();
        let damage = |damage: &verify::Damage| {
            let line = damage.seq.map_or_else(String::new, |seq| format!("line {seq}, "));
            let offset = damage.offset.map_or_else(String::new, |offset| format!("byte {offset} of "));
            format!("{line}{offset}{}: {}", damage.file, damage.what)
        };
        Self {
            passed: match verdict {
                verify::Verdict::Anchored | verify::Verdict::Intact | verify::Verdict::Gaps => true,
                verify::Verdict::Tampered | verify::Verdict::Unaccounted => false,
            },
            code: verdict.code(),
            word: verdict.word(),
            damage: report.damage.iter().take(Self::LISTED).map(damage).collect(),
            damage_total: report.damage.len(),
            sums: report.sums.iter().flatten().take(Self::LISTED).cloned().collect(),
            unchecked: report.unchecked.clone(),
        }
    }
}
