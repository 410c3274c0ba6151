//! `audit report`: a log as one page for a person.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::bar;
use crate::audit::log::layout;
use crate::audit::report::{self, Builder, Selection, Verification};
use crate::audit::verify;

/// The exit code of a log that cannot be read, or a page that cannot be written.
const UNREADABLE: u8 = 4;
/// A line longer than this is none of ours, in bytes.
const LONGEST: usize = 1 << 20;

/// Writes a log as one HTML page: a picture of its runs, their ends, gaps and evidence.
///
/// The page needs no network and no script. It shows what the log says, and the verdict of `audit verify` on it.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only this run: its id, or the beginning of it.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Only the runs of this issue.
    #[arg(long, value_name = "N")]
    issue: Option<String>,
    /// Only runs that were not over at this time, e.g. `2026-11-22T20:00:00Z`.
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Where to write the page; `-` is stdout.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Do not verify the log first; the page then says so.
    #[arg(long)]
    no_verify: bool,
    /// The log: its directory, or a file of lines as `exec --events` writes them.
    #[arg(value_name = "DIR|FILE")]
    log: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop audit report -o night.html
  agent-loop audit report --issue 42 -o 42.html /mnt/copy/audit
  agent-loop exec --events run.jsonl -- make test; agent-loop audit report -o run.html run.jsonl

The page is written whatever the verdict: exit code 0. `audit verify` tells the verdict by its own.";

/// Runs `audit report` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    match page(args).and_then(|page| put(&args.output, page.as_bytes())) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("agent-loop: making the report: {error}");
            UNREADABLE
        }
    }
}

fn page(args: &Args) -> Result<String, String> {
    let since = args.since.map(|since| i64::try_from(since.as_nanosecond())).transpose();
    let since = since.map_err(|_| "--since is out of the range of the log's clock".to_owned())?;
    let selection = Selection { run: args.run.clone(), issue: args.issue.clone(), since };
    let mut builder = Builder::default();
    match args.log.as_deref().filter(|log| log.is_file()) {
        Some(file) => {
            let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
            let opened = File::open(file).map_err(|error| format!("reading {}: {error}", file.display()))?;
            read(&mut builder, name, file, opened, false)?;
        }
        None => {
            let dir = super::dir(args.log.as_deref())?;
            read_log(&mut builder, &dir)?;
            if !args.no_verify {
                builder.verified(verification(&dir)?);
            }
        }
    }
    Ok(report::html(&builder.finish(&selection)))
}

fn verification(dir: &Path) -> Result<Verification, String> {
    let options = verify::Options { account: true, ..verify::Options::default() };
    let bar = bar::over(layout::bytes(&layout::segments(dir).unwrap_or_default()), true);
    let report = verify::verify(dir, &options, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let report = report.map_err(|error| format!("verifying it: {error}"))?;
    Ok(Verification::of(&report))
}

/// Reads a log: its segments in their order, and what lies beside them.
fn read_log(builder: &mut Builder, dir: &Path) -> Result<(), String> {
    let segments = layout::segments(dir).map_err(|error| format!("listing {}: {error}", dir.display()))?;
    let bar = bar::over(layout::bytes(&segments), true);
    for segment in segments {
        let name = segment.path.strip_prefix(dir).unwrap_or(&segment.path).to_string_lossy().into_owned();
        let failed = |error| format!("reading {}: {error}", segment.path.display());
        let (file, packed) = layout::open(&segment, 0).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        read(builder, name, &segment.path, file, packed)?;
        bar.inc(bytes);
    }
    bar.finish_and_clear();
    if let Ok(text) = fs::read_to_string(dir.join(layout::CHECKPOINT)) {
        builder.checkpoint(&text);
    }
    let mut keys: Vec<String> = fs::read_dir(dir.join(layout::KEYS))
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    keys.sort_unstable();
    keys.into_iter().for_each(|key| builder.key(key));
    Ok(())
}

fn read(builder: &mut Builder, name: String, path: &Path, file: File, packed: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("reading {}: {error}", path.display());
    builder.file(name, file.metadata().map_err(failed)?.len());
    let file = BufReader::with_capacity(1 << 18, file);
    if packed {
        let unpacked = zstd::Decoder::with_buffer(file).map_err(failed)?;
        return lines(BufReader::with_capacity(1 << 18, unpacked), |line| take(builder, line)).map_err(failed);
    }
    lines(file, |line| take(builder, line)).map_err(failed)
}

/// Hands a line on; one of a newer major ends the reading.
fn take(builder: &mut Builder, line: &[u8]) -> io::Result<()> {
    builder.line(line).map_err(|newer| io::Error::new(io::ErrorKind::InvalidData, newer))
}

/// Hands out the whole lines of a file; of one that is too long only its beginning, which is no record then.
fn lines(mut from: impl BufRead, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
        if from.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() >= LONGEST {
            from.skip_until(b'\n')?;
        } else if line.iter().all(|byte| *byte == 0) {
            // Room that the writer made beforehand.
            return Ok(());
        }
        take(&line)?;
    }
}

/// Writes the page; a file appears whole or not at all, and only its owner can read it. What is no file (a device, a
/// pipe) is written to and not replaced, and a link is followed.
fn put(to: &Path, page: &[u8]) -> Result<(), String> {
    if to == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err("the page is HTML and stdout is a terminal: name a file by -o FILE".to_owned());
        }
        return io::stdout().write_all(page).map_err(|error| format!("writing the page: {error}"));
    }
    let failed = |error: io::Error| format!("writing {}: {error}", to.display());
    let to = &fs::canonicalize(to).unwrap_or_else(|_| to.to_owned());
    if fs::metadata(to).is_ok_and(|found| !found.is_file()) {
        return fs::OpenOptions::new().write(true).open(to).and_then(|mut to| to.write_all(page)).map_err(failed);
    }
    let mut name = to.file_name().ok_or_else(|| format!("{} is no name of a file", to.display()))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = to.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
    let written = file.write_all(page).and_then(|()| fs::rename(&part, to));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;

    #[test]
    fn what_is_no_file_is_written_to_and_a_link_stays_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let pipe = path("pipe");
        let reader = std::thread::spawn(move || fs::read(pipe).expect("what is written"));
        put(&path("pipe"), b"page").expect("written");
        assert!(fs::symlink_metadata(path("pipe")).expect("it is there").file_type().is_fifo());
        assert_eq!(reader.join().expect("a reader"), b"page");
        std::os::unix::fs::symlink("file", path("link")).expect("a link");
        fs::write(path("file"), "an older one").expect("written");
        put(&path("link"), b"page").expect("written");
        assert_eq!(fs::read(path("file")).expect("the file"), b"page");
        let kind = |name: &str| fs::symlink_metadata(path(name)).expect("it is there").file_type();
        assert!(kind("link").is_symlink() && kind("file").is_file());
        assert!(put(dir.path(), b"page").is_err_and(|error| error.contains("directory")));
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 3, "nothing else");
    }

    fn all(text: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        lines(text, |line| {
            all.push(line.to_vec());
            Ok(())
        })
        .expect("memory reads");
        all
    }

    #[test]
    fn room_after_the_last_line_is_no_line_and_a_torn_end_is_one() {
        assert_eq!(all(b"a\nb\n\0\0\0"), [b"a", b"b"]);
        assert_eq!(all(b"a\n{\"x"), [b"a".to_vec(), b"{\"x".to_vec()]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let mut text = vec![b'x'; 3 * LONGEST];
        text.extend(b"\nb\n");
        let all = all(&text);
        assert_eq!((all[0].len(), all[1].as_slice(), all.len()), (LONGEST, b"b".as_slice(), 2));
    }
}
