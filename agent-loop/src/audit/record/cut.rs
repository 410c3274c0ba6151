//! Makes a line fit that is too long.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Line;

/// What an argument list was before words were left out of it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct Cut {
    /// How many words it had.
    argc: u64,
    /// How many bytes they had, a zero byte after each.
    bytes: u64,
    /// The SHA-256 over them, each with a zero byte after it, in hexadecimal digits.
    sha256: String,
}

/// How many bytes of an argument list are kept at each end where it is too long for a line.
const CUT_KEEPS: usize = 12 << 10;

/// How many bytes of any other text are kept where a line is too long.
const TEXT_KEEPS: usize = 4 << 10;

impl Line {
    /// Makes it fit: an argument list keeps its head and tail, other texts their head.
    pub(super) fn shorten(&mut self) {
        if let Some(exec) = &mut self.exec {
            self.argv_cut = cut(&mut exec.argv);
            exec.truncated |= self.argv_cut.is_some();
            shorten(&mut exec.exe);
            exec.cwd.iter_mut().for_each(shorten);
        }
        if let Some(argv) = &mut self.argv {
            self.argv_cut = cut(argv);
        }
        self.why.iter_mut().chain(&mut self.user).for_each(shorten);
        if let Some(Some(cgroup)) = &mut self.cgroup {
            shorten(&mut cgroup.path);
        }
        if let Some(host) = &mut self.host {
            host.degraded.truncate(16);
            host.degraded.iter_mut().for_each(shorten);
        }
    }
}

/// Leaves words out of the middle, and says what the whole was.
fn cut(argv: &mut Vec<String>) -> Option<Cut> {
    let bytes: usize = argv.iter().map(|word| word.len() + 1).sum();
    if bytes <= 2 * CUT_KEEPS {
        return None;
    }
    let mut hash = Sha256::new();
    for word in &*argv {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    let sha256 = data_encoding::HEXLOWER.encode(&hash.finalize());
    let what = Cut { argc: argv.len() as u64, bytes: bytes as u64, sha256 };
    let fitting = |words: &mut dyn Iterator<Item = &String>| {
        let mut room = CUT_KEEPS;
        words.take_while(|word| room.checked_sub(word.len() + 1).map(|left| room = left).is_some()).count()
    };
    let head = fitting(&mut argv.iter());
    let tail = fitting(&mut argv.iter().rev()).min(argv.len() - head);
    // A word that is too long by itself keeps its own head.
    let between: Vec<String> = argv.get(head).filter(|_| head + tail < argv.len()).cloned().into_iter().collect();
    argv.splice(head..argv.len() - tail, between);
    if let Some(word) = argv.get_mut(head) {
        shorten(word);
    }
    Some(what)
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_KEEPS {
        let end = (0..=TEXT_KEEPS).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}
