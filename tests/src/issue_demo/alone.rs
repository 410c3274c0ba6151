//! The forge by itself: one issue that waits for whoever takes it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Instant;

use clap::Parser;

use super::{POLL, TITLE, WITHIN, judge};
use crate::fake_github::{FakeGitHub, TOKEN};

/// Serves the fake forge with one issue, until that is merged and closed or 180 seconds are over.
#[derive(Debug, Parser)]
struct Args {
    /// Where the token that is accepted is written, mode 0600; the file must not exist.
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
}

/// Prints the port on loopback as its first line, and in the end what held; the exit code says whether all of it did.
#[must_use]
pub fn main() -> ExitCode {
    match serve(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("forge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> io::Result<bool> {
    let forge = FakeGitHub::start();
    forge.world().closes = false;
    let number = forge.world().open_issue(TITLE, "alice", &["State/Ready"]);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.token)?.write_all(TOKEN.as_bytes())?;
    println!("{}", forge.port());
    io::stdout().flush()?;
    let begun = Instant::now();
    // The claim is given up after everything else.
    let over = || {
        let world = forge.world();
        !world.issues[&number].open && world.at(&format!("refs/agent-loop/claims/{number}")).is_none()
    };
    while !over() && begun.elapsed() < WITHIN {
        sleep(POLL);
    }
    Ok(judge::print(&judge::at_the_forge(&forge, number)))
}
