//! Runs long steps so that a person sees that they go on.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::place;

/// How often a step that says nothing says that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long output may pause before we say that the step goes on.
const SILENCE: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(100);
const TAIL: usize = 30;

/// Tells what is done now.
pub(crate) fn say(line: &str) {
    println!("==> {line}");
}

/// Tells a detail of it.
pub(crate) fn note(line: &str) {
    println!("    {line}");
}

/// Runs `command` with its output in a log file, a line every few seconds, and the log's end if it fails.
pub(crate) fn run(step: &str, command: &mut Command) -> Result<()> {
    let began = Instant::now();
    fs::create_dir_all(place::scratch()).context("creating target/xtask")?;
    let log = place::scratch().join(format!("{}.log", file_name(step)));
    let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let err = out.try_clone().context("sharing the log file")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;

    let live = io::stdout().is_terminal();
    let mut heartbeat = Heartbeat::new(HEARTBEAT);
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for the step")? {
            break status;
        }
        thread::sleep(TICK);
        if live {
            spin(step, began.elapsed());
        } else if heartbeat.is_due() {
            note(&format!("{step}: {} s", began.elapsed().as_secs()));
        }
    };
    if live {
        print!("\r\x1b[K");
    }
    if !status.success() {
        eprintln!("{}", tail(&fs::read_to_string(&log).unwrap_or_default(), TAIL));
        bail!("{step}: ended with {status}; the whole output is in {}", log.display());
    }
    note(&format!("{step}: done in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Runs `command` with its output shown and handed to `see` line by line; says so when it is silent for long.
pub(crate) fn show(step: &str, command: &mut Command, see: impl FnMut(&str) + Send) -> Result<ExitStatus> {
    let began = Instant::now();
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let spoke = Arc::new(Mutex::new(Heartbeat::new(SILENCE)));
    let see = Mutex::new(see);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        if let Some(out) = out {
            scope.spawn(|| forward(out, io::stdout(), &spoke, &see));
        }
        if let Some(err) = err {
            scope.spawn(|| forward(err, io::stderr(), &spoke, &see));
        }
        loop {
            if let Some(status) = child.try_wait().context("waiting for the step")? {
                break Ok(status);
            }
            thread::sleep(TICK);
            if lock(&spoke).is_due() {
                note(&format!("{step} goes on: {} s", began.elapsed().as_secs()));
            }
        }
    })
}

fn forward(from: impl Read, mut to: impl Write, spoke: &Mutex<Heartbeat>, see: &Mutex<impl FnMut(&str)>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        lock(spoke).reset();
        // A closed stdout must not end the step: its verdict is the exit status.
        drop(to.write_all(&line).and_then(|()| to.flush()));
        (lock(see))(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Heartbeat {
    every: Duration,
    last: Instant,
}

impl Heartbeat {
    fn new(every: Duration) -> Self {
        Self { every, last: Instant::now() }
    }

    fn reset(&mut self) {
        self.last = Instant::now();
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every;
        if due {
            self.reset();
        }
        due
    }
}

fn spin(step: &str, elapsed: Duration) {
    const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
    let frame = FRAMES.iter().cycle().nth((elapsed.as_millis() / TICK.as_millis() % 4) as usize).unwrap_or(&'|');
    print!("\r\x1b[K    {frame} {step}: {} s", elapsed.as_secs());
    drop(io::stdout().flush());
}

fn file_name(step: &str) -> String {
    step.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn a_failing_step_is_an_error_that_names_it() {
        let error =
            run("xtask self test", Command::new("sh").args(["-c", "echo why >&2; exit 3"])).expect_err("exit 3");
        assert!(format!("{error:#}").contains("xtask self test"), "{error:#}");
    }

    #[test]
    fn shown_lines_of_both_streams_are_seen() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 4"]);
        let status = show("xtask self test", &mut command, |line| seen.push(line.trim().to_owned())).expect("sh runs");
        seen.sort();
        assert_eq!((status.code(), seen), (Some(4), vec!["err".to_owned(), "out".to_owned()]));
    }
}
