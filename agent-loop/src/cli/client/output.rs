//! Where answers go: the terminal or a pipe, and what each bears.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::Failure;
use super::draw::Page;

/// The page of standard output: as wide as the terminal or `COLUMNS` says, without a bound in a pipe.
pub(in crate::cli) fn page() -> Page {
    let terminal = io::stdout().is_terminal();
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let width = columns.or_else(|| {
        let measured = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        if terminal { Some(measured.unwrap_or(80)) } else { None }
    });
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Page { width: width.unwrap_or(usize::MAX).max(40), colour: terminal && !no_colour }
}

/// Prints a text.
pub(in crate::cli) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints a view as one JSON object over several lines.
pub(in crate::cli) fn print_json(view: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string_pretty(view)? + "\n"))
}

/// Prints a view as one line of JSON.
pub(super) fn print_line(view: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string(view)? + "\n"))
}
