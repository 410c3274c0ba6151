//! Programs under measurement: started, bounded, and ended whatever happens.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The longest that anything here takes.
const PATIENCE: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(2);

/// A program under way; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

impl Running {
    /// Starts it, without input.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let what = command.get_program().display().to_string();
        Ok(Self(command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {what}"))?))
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it goes on.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end, at most [`PATIENCE`].
    pub(crate) fn finish(mut self) -> Result<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().context("waiting for a program")? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("a program did not end within {PATIENCE:?}");
            }
            thread::sleep(POLL);
        }
    }

    /// Ends it by SIGINT, as from a terminal, so that it writes what it holds back.
    pub(crate) fn interrupt(self, bench: &Path) -> Result<ExitStatus> {
        self.signal(bench, "interrupt")?;
        self.finish()
    }

    /// Signals it: `interrupt`, `stop` or `continue`.
    pub(crate) fn signal(&self, bench: &Path, signal: &str) -> Result<()> {
        let status = Command::new(bench).args(["signal", signal, &self.pid().to_string()]).status();
        if !status.context("starting bench")?.success() {
            bail!("could not {signal} {}", self.pid());
        }
        Ok(())
    }

    /// The processor time that this process itself has used, without its children, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        const HERTZ: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).context("reading /proc/PID/stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime and stime, the 14th and 15th of the line; the first here is the third there.
        let ticks = |at: usize| fields.get(at - 3).and_then(|it| it.parse::<f64>().ok()).context("an unknown stat");
        Ok((ticks(14)? + ticks(15)?) / HERTZ)
    }
}

/// A line of /proc/PID/status, in KiB.
pub(crate) fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs a program that prints one JSON object.
pub(crate) fn json(command: &mut Command, scratch: &Path) -> Result<Value> {
    let out = scratch.join("out.json");
    command.stdout(File::create(&out).context("creating a scratch file")?);
    let status = Running::start(command)?.finish()?;
    if !status.success() {
        bail!("{} ended with {status}", command.get_program().display());
    }
    read_json(&out)
}

/// Reads a file that holds one JSON object.
pub(crate) fn read_json(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("understanding {}", file.display()))
}

/// Waits for a file to exist.
pub(crate) fn await_file(file: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !file.exists() {
        if Instant::now() > end {
            bail!("waited {PATIENCE:?} for {}", file.display());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// A number in a JSON object, by its path.
pub(crate) fn number(value: &Value, path: &str) -> Result<f64> {
    value.pointer(path).and_then(Value::as_f64).with_context(|| format!("no number {path} in {value}"))
}

/// What a program says; its first line.
pub(crate) fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    output.map_or_else(
        |_| "?".to_owned(),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).lines().next().unwrap_or("?").trim().to_owned()
        },
    )
}
