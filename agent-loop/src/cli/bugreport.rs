//! `agent-loop bugreport`: what somebody needs who is to find out what is wrong, in one file, without secrets.
//!
//! It asks what a person would ask: each part is the output of a command, with a bound on its time and length. No output of
//! an agent is in it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::audit::redact::{Redactor, TagKey};
use crate::config::{Config, PLACE};
use crate::error;

/// Packs what is known of this host and its daemon into a file, without secrets, to be sent to somebody who helps.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file to be made, a tar archive under zstd [default: agent-loop-bugreport-TIME.tar.zst].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = PLACE)]
    config: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop bugreport
  agent-loop bugreport -o report.tar.zst && tar --zstd -xOf report.tar.zst doctor.json

In it: what the host can do, the configuration, the state of the daemon, its runs and issues, the last 2,000
records of the audit log and whether it verifies, names and modes of files, the units' journal where there is
one. Not in it: what agents wrote, prompts, tokens. What the redaction rules know is replaced; the file is for its
owner alone. Look through it before you send it.";

/// The longest a part may take, and the most that is kept of it.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST: u64 = 8 << 20;
/// Deeper than this, and beyond so many, files are not listed.
const DEEPEST: usize = 3;
const LISTED: usize = 2_000;

/// Makes the report and returns the exit code.
pub(super) fn run(args: &Args) -> u8 {
    match report(args) {
        Ok((path, parts)) => {
            let said = writeln!(io::stdout(), "{}: {parts} parts; look through it before you send it", path.display());
            if said.is_ok() { error::DONE } else { error::FAILED }
        }
        Err(why) => {
            eprintln!("agent-loop: making the report: {why}");
            error::FAILED
        }
    }
}

fn report(args: &Args) -> Result<(PathBuf, usize), String> {
    let config = Config::load(&args.config);
    let place = config.as_ref().map_or_else(|_| Config::default(), Clone::clone);
    let redactor = Redactor::new(place.audit.policy(), TagKey::passing());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| format!("starting the event loop: {why}"))?;
    let mut parts = vec![("host.txt", host()), ("files.txt", files(&place))];
    let program = std::env::current_exe().map_err(|why| format!("finding its own program: {why}"))?;
    for (name, command) in commands(&program, &args.config, &place) {
        eprintln!("agent-loop: {name}");
        parts.push((name, runtime.block_on(output(&command))));
    }
    let path = args.output.clone().unwrap_or_else(|| {
        format!("agent-loop-bugreport-{}.tar.zst", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")).into()
    });
    write(&path, &parts, &redactor).map_err(|why| format!("writing {}: {why}", path.display()))?;
    Ok((path, parts.len()))
}

/// What is asked, by the name of the part.
fn commands(program: &Path, config: &Path, place: &Config) -> Vec<(&'static str, Vec<String>)> {
    let program = program.display().to_string();
    let socket = place.host.runtime_dir.join("socket").display().to_string();
    let (config, log) = (config.display().to_string(), place.host.log_dir.display().to_string());
    let ours =
        |words: &[&str]| std::iter::once(program.as_str()).chain(words.iter().copied()).map(str::to_owned).collect();
    let units = ["agent-loop.service", "agent-loop-agents.service", "agent-loop-runs.service"];
    let unit = |words: &[&str], before: &str| {
        let units = units.iter().flat_map(|unit| (!before.is_empty()).then_some(before).into_iter().chain([*unit]));
        words.iter().copied().chain(units).map(str::to_owned).collect()
    };
    vec![
        ("version.txt", ours(&["--version"])),
        ("doctor.json", ours(&["doctor", "--json"])),
        ("config.json", ours(&["config", "show", "--json", "--config", &config])),
        ("status.json", ours(&["status", "--json", "--socket", &socket])),
        ("runs.json", ours(&["ps", "--all", "--json", "--socket", &socket])),
        ("queue.json", ours(&["queue", "--json", "--socket", &socket])),
        ("verify.json", ours(&["audit", "verify", "--account", "--json", &log])),
        ("records.jsonl", ours(&["audit", "tail", "-n", "2000", "--json", &log])),
        ("units.txt", unit(&["systemctl", "--no-pager", "show"], "")),
        ("journal.txt", unit(&["journalctl", "--no-pager", "-n", "2000"], "-u")),
    ]
}

/// What a command says; that it could not be asked is an answer too.
async fn output(words: &[String]) -> String {
    let Some((program, args)) = words.split_first() else { return String::new() };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => return format!("{program} was not asked: {why}\n"),
    };
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else { return String::new() };
    let (mut told, mut complained) = (Vec::new(), Vec::new());
    let done = timeout(PATIENCE, async {
        let (mut stdout, mut stderr) = (stdout.take(MOST), stderr.take(MOST / 8));
        let _ = tokio::join!(stdout.read_to_end(&mut told), stderr.read_to_end(&mut complained));
        // What is too long is cut: nobody reads on, and it ends.
        drop((stdout, stderr));
        child.wait().await
    });
    let end = match done.await {
        Ok(Ok(status)) if status.success() => String::new(),
        Ok(Ok(status)) => format!("\n{program} ended with {status}\n"),
        Ok(Err(why)) => format!("\nwaiting for {program}: {why}\n"),
        Err(_) => format!("\n{program} did not end within {} s\n", PATIENCE.as_secs()),
    };
    format!("{}{}{end}", String::from_utf8_lossy(&told), String::from_utf8_lossy(&complained))
}

/// The kernel and the mounts that matter.
fn host() -> String {
    let mut text = String::new();
    for path in ["/proc/version", "/etc/os-release", "/proc/sys/kernel/unprivileged_bpf_disabled", "/proc/meminfo"] {
        let read = fs::read_to_string(path).unwrap_or_else(|why| format!("{why}\n"));
        let _ = writeln!(text, "== {path}\n{read}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let _ = writeln!(text, "== mounts");
    for line in mounts.lines().filter(|line| [" - cgroup", " - bpf ", " - tracefs "].iter().any(|it| line.contains(it)))
    {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Names, modes, owners and sizes of what is ours, not what is in it.
fn files(place: &Config) -> String {
    let mut text = String::new();
    let host = &place.host;
    for dir in [&host.state_dir, &host.log_dir, &host.runtime_dir, &host.pins] {
        list(dir, DEEPEST, &mut text);
    }
    text
}

fn list(path: &Path, deeper: usize, text: &mut String) {
    if text.lines().count() > LISTED {
        return;
    }
    match fs::symlink_metadata(path) {
        Ok(it) => {
            let (mode, uid, gid, size) = (it.mode(), it.uid(), it.gid(), it.len());
            let _ = writeln!(text, "{mode:06o} {uid}:{gid} {size:>12} {}", path.display());
            if it.is_dir() && deeper > 0 {
                let mut paths: Vec<PathBuf> = fs::read_dir(path)
                    .map(|entries| entries.flatten().map(|it| it.path()).collect())
                    .unwrap_or_default();
                paths.sort_unstable();
                paths.iter().for_each(|path| list(path, deeper - 1, text));
            }
        }
        Err(why) => {
            let _ = writeln!(text, "{}: {why}", path.display());
        }
    }
}

/// Writes the archive, for its owner alone; one that is there is not touched.
fn write(path: &Path, parts: &[(&str, String)], redactor: &Redactor) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(file, 0)?);
    let at = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    for (name, text) in parts {
        let mut clean = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            clean.push_str(&redactor.text(line));
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(clean.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(at);
        archive.append_data(&mut header, name, clean.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}
