//! Output without end, and a program that talks to its terminal.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};

/// Writes `bytes` in lines of 64.
pub(super) fn print_flood(bytes: u64) -> io::Result<u8> {
    let line = [b"agent output ".repeat(5)[..63].to_vec(), vec![b'\n']].concat();
    let block = line.repeat(1024);
    let mut out = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        out.write_all(&block[..len])?;
        left -= len as u64;
    }
    out.flush()?;
    Ok(0)
}

/// Asks for a line on the controlling terminal and repeats it.
pub(super) fn interactive() -> io::Result<u8> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "your name? ")?;
    let mut line = String::new();
    BufReader::new(terminal.try_clone()?).read_line(&mut line)?;
    writeln!(terminal, "hello, {}", line.trim())?;
    Ok(if line.is_empty() { 1 } else { 0 })
}
