//! `agent-loop logs`: what a run, or the latest agent of an issue, wrote, each stream to the one of the same name.

use std::io::{self, Write as _};

use clap::Args as ClapArgs;

use super::away::Away;
use super::output::print_line;
use super::{Common, Failure, doing, which};
use crate::control::api::OutputView;
use crate::control::client::{Client, OutputStream};
use crate::error;

/// Prints what a run wrote, each stream to the one of the same name.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The run; or an issue, OWNER/NAME#NUMBER, whose latest agent is meant.
    #[arg(value_name = "RUN|ISSUE")]
    run: String,
    /// Go on until the run is over.
    #[arg(long, short)]
    follow: bool,
    /// Its standard output alone.
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Its standard error alone.
    #[arg(long)]
    stderr: bool,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop logs 8QK3M2ZP
  agent-loop logs 8QK3M2ZP -f --stderr
  agent-loop logs owner/name#42 -f

With --json each line is an object with `stream`, `from` (its byte), `text` and `ended` (whether a
line end follows). Without it the bytes are printed as they are: what an agent wrote may contain
codes that terminals obey.";

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let client = args.common.client();
    let run = which::run_or_issue(&client, &args.run).await?;
    let copy = |stream| copy(&client, &run, stream, args.follow, args.common.json);
    match (args.stdout, args.stderr) {
        (true, _) => copy(OutputStream::Stdout).await?,
        (false, true) => copy(OutputStream::Stderr).await?,
        (false, false) if args.follow => {
            tokio::try_join!(copy(OutputStream::Stdout), copy(OutputStream::Stderr))?;
        }
        (false, false) => {
            copy(OutputStream::Stdout).await?;
            copy(OutputStream::Stderr).await?;
        }
    }
    Ok(error::DONE)
}

/// So many connections in a row may break off and bring nothing.
const BARREN: u32 = 3;

/// Copies one stream to its end. A connection that broke off, as it does for a reader that pauses and when the daemon
/// is started again, is taken up where it ended.
async fn copy(client: &Client, run: &str, stream: OutputStream, follow: bool, json: bool) -> Result<(), Failure> {
    let mut out = Out { run, stream, json, at: 0, line: Vec::new(), begins: 0 };
    let (mut away, mut barren, mut first) = (Away::default(), 0, true);
    loop {
        let mut pieces = match client.logs(run, stream, follow, out.at).await {
            Ok(pieces) => pieces,
            Err(why) if first => return Err(doing("asking for the output")(why)),
            Err(why) => {
                away.wait(why).await.map_err(doing("reading on where the output broke off"))?;
                continue;
            }
        };
        (away, first) = (Away::default(), false);
        barren += 1;
        let broke_off = loop {
            match pieces.next().await {
                Ok(Some(piece)) => {
                    out.take(&piece)?;
                    barren = 0;
                }
                Ok(None) => return out.end(),
                Err(why) => break why,
            }
        };
        if barren >= BARREN {
            return Err(doing("reading the output")(broke_off));
        }
        away.wait(broke_off).await.map_err(doing("reading the output"))?;
    }
}

/// The longest line that is one object.
const LONGEST: usize = 64 << 10;

struct Out<'a> {
    run: &'a str,
    stream: OutputStream,
    json: bool,
    /// Bytes taken.
    at: u64,
    /// The line under way, for JSON.
    line: Vec<u8>,
    /// Where that begins.
    begins: u64,
}

impl Out<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.at += piece.len() as u64;
        if !self.json {
            return match self.stream {
                OutputStream::Stdout => {
                    let mut out = io::stdout().lock();
                    Ok(out.write_all(piece).and_then(|()| out.flush())?)
                }
                OutputStream::Stderr => Ok(io::stderr().lock().write_all(piece)?),
            };
        }
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST {
                self.object()?;
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), Failure> {
        if self.line.is_empty() { Ok(()) } else { self.object() }
    }

    fn object(&mut self) -> Result<(), Failure> {
        let ended = self.line.ends_with(b"\n");
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let view = OutputView {
            run: self.run.to_owned(),
            stream: self.stream.word().to_owned(),
            from: self.begins,
            text: String::from_utf8_lossy(text).into_owned(),
            ended,
        };
        self.begins += self.line.len() as u64;
        self.line.clear();
        print_line(&view)
    }
}
