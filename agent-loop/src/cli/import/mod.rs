//! `agent-loop import`: what the state file of `agent_loop.py` says, and what became of it.
//!
//! Inside: the file read (`old`, pure), what this host says of its process, the judgement (`judge`, pure). Not inside: a
//! signal: nothing in a file authorises one (I4).

mod judge;
mod old;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use nix::fcntl::OFlag;

use self::judge::{Known, Process, Report, judge};
use super::client::{Common, output};
use crate::control::client::ClientError;
use crate::error;
use crate::keeper::scan::{self, Stat};

/// Reads the state file of agent_loop.py and tells what became of what it names.
///
/// Nothing is taken over and nothing is signalled: a number in a file is no proof of who has it now. What is told comes from
/// the file, from this host's /proc, and from the daemon where one answers; with the next step for each.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file: `.sharedinbox-agent-state.json` of the user that the script ran as.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop import ~/.sharedinbox-agent-state.json
  agent-loop import --json state.json | jq -r .process.fate

Exit codes: 0 it was read and told; 1 it is no such file; 7 it is not there.";

/// The longest such file, in bytes: the script writes some hundred.
const LONGEST: u64 = 64 << 10;

/// Runs `import` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let (text, warnings) = match read(&args.file) {
        Ok(read) => read,
        Err((code, why)) => {
            eprintln!("agent-loop: reading {}: {why}", args.file.display());
            return code;
        }
    };
    let old = match old::parse(&text) {
        Ok(old) => old,
        Err(why) => {
            eprintln!(
                "agent-loop: reading {}: {why}; nothing is known of an agent by it: look for one by `ps -ef`, and remove the \
                 file once none runs",
                args.file.display()
            );
            return error::FAILED;
        }
    };
    let process = old.pid.and_then(|pid| process(pid).transpose()).transpose();
    let process = match process {
        Ok(process) => process,
        Err(why) => {
            eprintln!("agent-loop: reading /proc: {why}");
            return error::FAILED;
        }
    };
    let report = judge(&old, process, &known(args, old.issue), warnings);
    let said = if args.common.json { output::print_json(&report) } else { output::print(&report.text()) };
    match said {
        Ok(()) => error::DONE,
        Err(why) => {
            eprintln!("agent-loop: {why}");
            error::FAILED
        }
    }
}

/// The text of the file, and what is wrong with how it lies there; or the exit code, and why.
fn read(path: &Path) -> Result<(String, Vec<String>), (u8, String)> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file: File = file.map_err(|error| {
        let is_there = error.kind() != std::io::ErrorKind::NotFound;
        if is_there { (error::FAILED, error.to_string()) } else { (error::NOT_RUNNING, "it is not there".to_owned()) }
    })?;
    let failed = |why: String| (error::FAILED, why);
    let about = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !about.is_file() {
        return Err(failed("it is not a regular file".to_owned()));
    }
    if about.len() > LONGEST {
        return Err(failed(format!("it is longer than {LONGEST} bytes, which the script never writes")));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    let mut warnings = Vec::new();
    if about.mode() & 0o022 != 0 {
        warnings.push("others than its owner can write to it: anybody may have put there what it says".to_owned());
    }
    Ok((text, warnings))
}

/// Who has this number now.
fn process(pid: u32) -> std::io::Result<Option<Process>> {
    let Some(stat) = Stat::read(pid)? else { return Ok(None) };
    let user = std::fs::metadata(format!("/proc/{pid}")).map(|about| about.uid()).ok();
    let booted = std::fs::read_to_string("/proc/stat")?
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok())
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "/proc/stat does not tell the boot"))?;
    let since = i64::try_from(scan::ticks_to_ns(stat.start_ticks) / 1_000_000_000).unwrap_or(i64::MAX);
    Ok(Some(Process { name: stat.comm, user, born: booted.saturating_add(since) }))
}

/// What the daemon knows of an issue of this number.
fn known(args: &Args, issue: Option<u64>) -> Known {
    let Some(issue) = issue else { return Known::Nothing };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return Known::NotAsked(why.to_string()),
    };
    match runtime.block_on(args.common.client().queue()) {
        Ok(queue) => {
            let ending = format!("#{issue}");
            let tasks = queue.repos.iter().flat_map(|repo| &repo.tasks).filter(|task| task.issue.ends_with(&ending));
            let repos = queue.repos.iter().map(|repo| repo.repo.clone()).collect();
            Known::Asked { tasks: tasks.map(|task| (task.issue.clone(), task.says.clone())).collect(), repos }
        }
        Err(ClientError::NotRunning(_)) => Known::NotAsked("no daemon runs".to_owned()),
        Err(why) => Known::NotAsked(why.to_string()),
    }
}

impl Report {
    fn text(&self) -> String {
        use super::client::draw::visible;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<10}{}\n", visible(value)));
        self.warnings.iter().for_each(|warning| line("warning", warning));
        line("written", self.started_at.as_deref().unwrap_or("the file does not say when"));
        line("kind", self.kind.as_deref().unwrap_or("the file does not say"));
        match &self.process {
            None => line("process", "the file names none"),
            Some(process) => {
                line("process", &format!("{}: {}", process.pid, process.says));
                line("", &process.next);
            }
        }
        match &self.issue {
            None => line("issue", "the file names none"),
            Some(issue) => {
                line("issue", &format!("#{}: {}", issue.number, issue.says));
                line("", &issue.next);
            }
        }
        if let Some(session) = &self.session {
            line("session", &format!("{session}: it stays with claude; agent-loop begins a session of its own"));
        }
        line("", "Nothing was signalled, and nothing was changed.");
        text
    }
}
