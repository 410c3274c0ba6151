//! `audit export`: records in other formats.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::select::Select;
use crate::audit::export::{Chrome, Csv, Ocsf};

/// Writes records in another format.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop audit export --format csv --since 24h -o night.csv
  agent-loop audit export --format ocsf --since 24h | your-collector
  agent-loop audit export --format chrome --run 01M8 -o run.json    # opens in https://ui.perfetto.dev")]
pub(super) struct Args {
    #[command(flatten)]
    select: Select,
    /// Which format.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Where to; `-` is stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The lines of the log as they are.
    Jsonl,
    /// A table.
    Csv,
    /// A trace for a timeline viewer.
    Chrome,
    /// Events of the Open Cybersecurity Schema Framework 1.8.0, class process activity, one a line.
    Ocsf,
}

pub(super) fn run(args: &Args) -> Result<(), String> {
    let failed = |error: io::Error| format!("writing {}: {error}", args.output.display());
    let to: Box<dyn Write> = if args.output.as_os_str() == "-" {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(&args.output).map_err(failed)?)
    };
    let mut to = BufWriter::with_capacity(1 << 20, to);
    let shown = args.output.as_os_str() == "-" && io::stdout().is_terminal();
    match args.format {
        Format::Jsonl => {
            args.select
                .each_to(shown, &mut |line, _| to.write_all(line).and_then(|()| to.write_all(b"\n")).map_err(failed))?;
            to.flush().map_err(failed)
        }
        Format::Csv => {
            let mut table = Csv::new(to).map_err(failed)?;
            args.select.each_to(shown, &mut |_, record| table.record(&record).map_err(failed))?;
            table.end().map_err(failed)
        }
        Format::Ocsf => {
            let mut events = Ocsf::new(to);
            args.select.each_to(shown, &mut |_, record| events.record(&record).map_err(failed))?;
            events.end().map_err(failed)
        }
        Format::Chrome => {
            let mut trace = Chrome::new(to).map_err(failed)?;
            args.select.each_to(shown, &mut |_, record| trace.record(&record).map_err(failed))?;
            trace.end().map_err(failed)
        }
    }
}
