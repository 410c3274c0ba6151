//! A process that writes an audit log until it is killed. It says on standard output what was durable, before it goes on.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use agent_loop::audit::log::{AuditLog, Place, Settings};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;

/// The boot that it pretends to run in.
pub const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";

/// The most rounds of one life.
const MOST: u64 = 20_000;

/// The program: `log_writer DIR LIFE` writes lines of all kinds in small segments, and prints `durable LIFE ROUND` once
/// the intent of a round is.
#[must_use]
pub fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, life] = args.as_slice() else { return ExitCode::from(2) };
    let settings = Settings { segment_bytes: 30_000, reserve: 0, low_water: 0, ..Settings::default() };
    let (mut log, opened) = match AuditLog::open(&Place::below(Path::new(dir)), settings, BOOT) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    say(&format!("opened {} {}", opened.lines, opened.torn.iter().map(|torn| torn.bytes).sum::<u64>()));
    for round in 0..MOST {
        let word = format!("{life}-{round}");
        let clock = Clock { boot: BootNs(round), real_ns: 1_000 };
        let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec![word.clone()], "agent".to_owned());
        for _ in 0..round % 40 {
            log.append(recorder.adopted("x".repeat(usize::try_from(round % 300).unwrap_or(0)), clock));
        }
        log.append(recorder.intent(clock));
        if !log.durable(Duration::from_secs(20)) {
            return ExitCode::FAILURE;
        }
        say(&format!("durable {word}"));
    }
    ExitCode::SUCCESS
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
