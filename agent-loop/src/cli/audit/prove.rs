//! `audit prove` and `audit verify-bundle`: lines of a log with their proof, for somebody who has nothing else of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;

use crate::audit::verify::{self, Made, NotProven, ProveError, Proven, Wanted};

/// The exit code of a proof, by a key that was pinned.
const PROVEN: u8 = 0;
/// The exit code of a proof by the key that the bundle itself names.
const NOT_PINNED: u8 = 1;
/// The exit code of what was changed.
const CHANGED: u8 = 3;
/// The exit code of what cannot be read.
const UNREADABLE: u8 = 4;

/// Makes a bundle: lines of the log, or those of one run, with the proof that the log holds them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The numbers of the lines.
    #[arg(required_unless_present = "run", conflicts_with = "run")]
    seq: Vec<u64>,
    /// All signed lines of this run; its whole id.
    #[arg(long)]
    run: Option<String>,
    /// The file to write, which must not be there yet; `-` for standard output.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The log.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop audit prove 4711 4712 -o lines.bundle
  agent-loop audit prove --run 01JD6E4X8Q0Z3VJ5N7K9M2P4R6 --dir /mnt/copy/audit -o run.bundle

A bundle shows its lines and nothing else of the log. Exit codes: 0 made; 3 the log was changed there; 4 not readable,
not there, or not signed yet.";

/// Checks a bundle by itself: its lines, their proofs, and the signature over the log that they are of.
#[derive(Debug, ClapArgs)]
#[command(after_help = BUNDLE_EXAMPLES)]
pub(super) struct BundleArgs {
    /// The bundle.
    file: PathBuf,
    /// The public key that must have signed the log: a file as in `keys/`, or the verifier key itself.
    #[arg(long, value_name = "FILE|KEY")]
    pubkey: Option<String>,
    /// Print the lines that are proven, and nothing else.
    #[arg(long, conflicts_with = "json")]
    lines: bool,
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
}

const BUNDLE_EXAMPLES: &str = "\
Examples:
  agent-loop audit verify-bundle --pubkey epoch-1.pub run.bundle
  agent-loop audit verify-bundle --pubkey epoch-1.pub --lines run.bundle | jq .kind

Exit codes: 0 proven; 1 proven by the key that the bundle itself names; 3 not proven; 4 not readable.";

/// Runs `audit prove` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let made = match make(args) {
        Ok(made) => made,
        Err((error, code)) => {
            eprintln!("agent-loop: proving lines of the audit log: {error}");
            return code;
        }
    };
    if let Err(error) = put(&args.output, &made.bytes) {
        eprintln!("agent-loop: writing {}: {error}", args.output.display());
        return UNREADABLE;
    }
    eprintln!("{} lines proven, {} bytes", made.records, made.bytes.len());
    if made.unsigned > 0 {
        eprintln!("left out: {} lines of the run that no checkpoint covers yet", made.unsigned);
    }
    PROVEN
}

fn make(args: &Args) -> Result<Made, (String, u8)> {
    let dir = super::dir(args.dir.as_deref()).map_err(|error| (error, UNREADABLE))?;
    let lines = || Wanted::Lines(args.seq.iter().copied().collect::<BTreeSet<u64>>());
    let wanted = args.run.as_ref().map_or_else(lines, |run| Wanted::Run(run.clone()));
    verify::prove(&dir, &wanted).map_err(|error| {
        let code = match error {
            ProveError::Changed { .. } => CHANGED,
            ProveError::Read { .. }
            | ProveError::NotSigned
            | ProveError::NotThere(_)
            | ProveError::NotYet { .. }
            | ProveError::NoRun(_) => UNREADABLE,
        };
        (error.to_string(), code)
    })
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path == Path::new("-") {
        return io::stdout().write_all(bytes);
    }
    File::create_new(path)?.write_all(bytes)
}

/// Runs `audit verify-bundle` and returns its exit code.
pub(super) fn run_bundle(args: &BundleArgs) -> u8 {
    let bytes = match fs::read(&args.file) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("agent-loop: reading {}: {error}", args.file.display());
            return UNREADABLE;
        }
    };
    let pubkey = match args.pubkey.as_deref().map(super::verify::pubkey).transpose() {
        Ok(pubkey) => pubkey,
        Err(error) => {
            eprintln!("agent-loop: {error}");
            return UNREADABLE;
        }
    };
    match verify::check_bundle(&bytes, pubkey.as_deref()) {
        Ok(proven) => {
            let code = if proven.pinned { PROVEN } else { NOT_PINNED };
            let text = if args.lines {
                proven.lines.iter().map(|line| format!("{line}\n")).collect()
            } else if args.json {
                format!("{:#}\n", json!({ "code": code, "proven": proven, "not_checked": unchecked(&proven) }))
            } else {
                human(&proven)
            };
            if io::stdout().write_all(text.as_bytes()).is_err() { UNREADABLE } else { code }
        }
        Err(error) => {
            let code = match error {
                NotProven::NotABundle(_) => UNREADABLE,
                NotProven::NotSigned(_) | NotProven::NotALine { .. } => CHANGED,
            };
            if args.json {
                println!("{:#}", json!({ "code": code, "error": error.to_string() }));
            } else {
                eprintln!("FAIL: {}: {error}", args.file.display());
            }
            code
        }
    }
}

fn human(proven: &Proven) -> String {
    let of = proven.run.as_ref().map_or_else(String::new, |run| format!(" of the run {run}"));
    let mut text = format!(
        "{}: {} lines{of}, of {} that were signed at {}\n",
        proven.log,
        proven.lines.len(),
        proven.size,
        proven.signed_at
    );
    for item in unchecked(proven) {
        text.push_str(&format!("not checked: {item}\n"));
    }
    text + "PASS: the log holds these lines\n"
}

/// What a bundle cannot show.
fn unchecked(proven: &Proven) -> Vec<&'static str> {
    let mut all = Vec::new();
    if !proven.pinned {
        all.push("the key is the bundle's own: `--pubkey` pins one that you got elsewhere");
    }
    if proven.run.is_some() {
        all.push("whether the log holds more lines of this run: only the whole log shows that");
    }
    all.push(
        "whether the key was in force at this size, gaps, sums and anchors: `agent-loop audit verify` on the log does",
    );
    all
}
