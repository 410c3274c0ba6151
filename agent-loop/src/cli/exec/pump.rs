//! The command's output on its way into a file: drained by a thread, so that the command never waits for us.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use nix::fcntl::OFlag;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::sink::{SinkFailed, append};

/// How long the end waits for the last output after the tree is empty.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The pipe between the command and its output file.
pub(super) struct Pump {
    write: Option<OwnedFd>,
    done: oneshot::Receiver<()>,
}

impl Pump {
    /// Opens the file and starts to drain.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn start(path: &Path, failed: UnboundedSender<SinkFailed>) -> anyhow::Result<Self> {
        let mut file = append(path).with_context(|| format!("opening {} for --output", path.display()))?;
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("making a pipe for the output")?;
        let (done_sender, done) = oneshot::channel();
        let what = format!("output in {}", path.display());
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                drain(File::from(read), &mut file, |error| {
                    let _ = failed.send(SinkFailed { what: what.clone(), error, is_human: false });
                });
                let _ = done_sender.send(());
            })
            .context("starting the output thread")?;
        Ok(Self { write: Some(write), done })
    }

    /// The end that the command writes to.
    pub(super) const fn write(&self) -> Option<&OwnedFd> {
        self.write.as_ref()
    }

    /// Closes our own copy of it, once the command has its own.
    pub(super) fn launched(&mut self) {
        self.write = None;
    }

    /// Waits until all output is in the file; whether it is.
    pub(super) async fn close(mut self) -> bool {
        self.write = None;
        tokio::time::timeout(DRAIN_LIMIT, &mut self.done).await.is_ok()
    }
}

/// Copies until nobody can write any more. After a failure it goes on reading: the command must not block.
fn drain(mut from: File, to: &mut File, failed: impl Fn(io::Error)) {
    let mut buffer = vec![0; 64 << 10];
    let mut broken = false;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if !broken && let Err(error) = to.write_all(bytes) {
                    broken = true;
                    failed(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return failed(error),
        }
    }
}
