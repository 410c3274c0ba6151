//! The journal of systemd, which may forward what it is told to another host.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Anchor, Handed, Receipt};
use crate::journal;

/// The field of an entry that holds the checkpoint.
pub(super) const FIELD: &str = "AGENT_LOOP_CHECKPOINT";

/// How long a journal that is stuck is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hands checkpoints to the journal, by its native protocol.
#[derive(Clone, Debug)]
pub struct Journal {
    socket: PathBuf,
}

impl Journal {
    /// The journal that listens here; of a host at [`journal::SOCKET`].
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }
}

impl Anchor for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn publish(&self, checkpoint: &Handed) -> io::Result<Receipt> {
        let size = checkpoint.size.to_string();
        let message = format!("checkpoint of the audit log {}: {size} lines", checkpoint.origin);
        let entry = journal::entry(&[
            ("MESSAGE", message.as_bytes()),
            ("PRIORITY", b"6"),
            ("SYSLOG_IDENTIFIER", b"agent-loop"),
            ("AGENT_LOOP_LOG", checkpoint.origin.as_bytes()),
            ("AGENT_LOOP_SIZE", size.as_bytes()),
            ("AGENT_LOOP_ROOT", checkpoint.root.as_bytes()),
            (FIELD, &checkpoint.text),
        ]);
        journal::send(&self.socket, &entry, PATIENCE)?;
        Ok(Receipt("the journal took it; it does not say whether it keeps it".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::super::tests::handed;
    use super::*;

    #[test]
    fn the_journal_gets_one_datagram_with_the_whole_note() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let handed = handed(7, 3);
        Journal::new(&path).publish(&handed).expect("taken");
        let mut buffer = vec![0; 1 << 16];
        let length = socket.recv(&mut buffer).expect("a datagram");
        let entry = buffer.get(..length).expect("read");
        let text = String::from_utf8_lossy(entry);
        assert!(text.starts_with("MESSAGE=checkpoint of the audit log ") && text.contains("\nAGENT_LOOP_SIZE=7\n"));
        let mut field = format!("\n{FIELD}\n").into_bytes();
        field.extend((handed.text.len() as u64).to_le_bytes());
        field.extend(&handed.text);
        field.push(b'\n');
        assert!(entry.ends_with(&field), "{text}");
    }

    #[test]
    fn a_journal_that_is_not_there_is_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(Journal::new(&dir.path().join("none")).publish(&handed(1, 1)).is_err());
    }
}
