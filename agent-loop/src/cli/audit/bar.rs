//! How far a long reading has come, on a terminal.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

/// What takes less than a moment needs no bar, bytes on the disk: a compressed segment holds some twenty times as much.
const SHORT: u64 = 2 << 20;

/// A bar over so many bytes on stderr, where that is a terminal; `wanted` says that nothing else is written to it.
pub(super) fn over(bytes: u64, wanted: bool) -> ProgressBar {
    if !wanted || !io::stderr().is_terminal() || bytes < SHORT {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
