//! What the daemon tells a person: a line on stderr, or an entry of the journal with fields where that is what stderr is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::stat::fstat;

use crate::audit::redact;
use crate::journal;
use crate::run::RunId;

/// A journal that takes nothing costs this much, once for each line: the loop goes on.
const PATIENCE: Duration = Duration::from_millis(50);

/// What something is told of.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// agent-loop itself.
    Itself,
    /// A run, in the field `AGENT_LOOP_RUN`.
    Run(RunId),
    /// An issue, `OWNER/NAME#N`, in the field `AGENT_LOOP_ISSUE`.
    Issue(&'a str),
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What goes on.
    Info,
    /// What went wrong and is gone on without.
    Warning,
}

/// Tells a person what goes on.
pub fn info(about: About<'_>, text: &str) {
    say(Level::Info, about, text);
}

/// Tells a person what went wrong and is gone on without.
pub fn warning(about: About<'_>, text: &str) {
    say(Level::Warning, about, text);
}

fn say(level: Level, about: About<'_>, text: &str) {
    static JOURNAL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let journal = JOURNAL.get_or_init(|| stderr_is_the_journal().then(|| journal::SOCKET.into()));
    let text = redact::said(text);
    let taken = journal.as_deref().is_some_and(|socket| tell(socket, level, about, &text).is_ok());
    if !taken {
        // Who does not read it loses it; `eprintln` would end us.
        let _ = io::stderr().write_all(line(level, &text).as_bytes());
    }
}

fn line(level: Level, text: &str) -> String {
    match level {
        Level::Info => format!("agent-loop: {text}\n"),
        Level::Warning => format!("agent-loop: warning: {text}\n"),
    }
}

/// Hands it to the journal that listens there.
fn tell(socket: &Path, level: Level, about: About<'_>, text: &str) -> io::Result<()> {
    let priority: &[u8] = match level {
        Level::Info => b"6",
        Level::Warning => b"4",
    };
    let of = match about {
        About::Itself => None,
        About::Run(run) => Some(("AGENT_LOOP_RUN", run.to_string())),
        About::Issue(issue) => Some(("AGENT_LOOP_ISSUE", issue.to_owned())),
    };
    let mut fields: Vec<(&str, &[u8])> =
        vec![("MESSAGE", text.as_bytes()), ("PRIORITY", priority), ("SYSLOG_IDENTIFIER", b"agent-loop")];
    fields.extend(of.as_ref().map(|(name, value)| (*name, value.as_bytes())));
    journal::send(socket, &journal::entry(&fields), PATIENCE)
}

fn stderr_is_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    fstat(io::stderr()).is_ok_and(|found| journal::is_stream(named.as_deref(), found.st_dev, found.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn the_journal_is_told_the_run_and_how_much_it_matters() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let heard = || {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).expect("a datagram");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let run: RunId = "01M8QW0000000000000000000A".parse().expect("an id");
        tell(&path, Level::Warning, About::Run(run), "one\ntwo").expect("taken");
        let text = heard();
        assert!(text.starts_with("MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\nPRIORITY=4\n"), "{text}");
        assert!(text.ends_with(&format!("\nSYSLOG_IDENTIFIER=agent-loop\nAGENT_LOOP_RUN={run}\n")), "{text}");
        tell(&path, Level::Info, About::Issue("a/b#7"), "x").expect("taken");
        assert_eq!(heard(), "MESSAGE=x\nPRIORITY=6\nSYSLOG_IDENTIFIER=agent-loop\nAGENT_LOOP_ISSUE=a/b#7\n");
        tell(&path, Level::Info, About::Itself, "x").expect("taken");
        assert_eq!(heard(), "MESSAGE=x\nPRIORITY=6\nSYSLOG_IDENTIFIER=agent-loop\n");
    }

    #[test]
    fn a_journal_that_is_full_or_gone_is_an_error_and_holds_nobody_up_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        assert!(tell(&path, Level::Info, About::Itself, "x").is_err());
        let _unread = UnixDatagram::bind(&path).expect("a socket");
        // More than any queue of datagrams holds.
        let told = (0..100_000).find(|_| tell(&path, Level::Info, About::Itself, "x").is_err());
        assert!(told.is_some());
    }

    #[test]
    fn a_line_says_that_it_is_a_warning() {
        assert_eq!(line(Level::Info, "x"), "agent-loop: x\n");
        assert_eq!(line(Level::Warning, "x"), "agent-loop: warning: x\n");
    }
}
