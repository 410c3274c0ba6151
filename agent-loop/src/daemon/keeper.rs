//! The keeper as the daemon sees it: connected, or lost and looked for again.

use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::Setup;
use crate::config::Keeper as KeeperMode;
use crate::event::SignalResult;
use crate::keeper::process::client::{Answered, Client, ClientError, Welcome};
use crate::keeper::process::protocol::{Held, Notice, Process, Reply, Request};
use crate::model::{PidfsIno, ProcessKey, ProofKind};

/// How long a keeper that was just started is waited for.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked for meanwhile.
const START_PAUSE: Duration = Duration::from_millis(10);

/// The way to the keeper.
pub(super) struct Keeper {
    socket: PathBuf,
    mode: KeeperMode,
    command: (PathBuf, Vec<std::ffi::OsString>),
    client: Option<(Client, Welcome)>,
    /// Why there is none.
    why: String,
    /// The ones we started: reaped once they end, which is never our doing.
    started: Vec<Child>,
}

impl Keeper {
    /// No connection yet.
    pub(super) fn new(setup: &Setup) -> Self {
        let socket = setup.config.host.runtime_dir.join("keeper").join("socket");
        let mut args: Vec<std::ffi::OsString> = vec!["keeper".into(), "--socket".into(), socket.clone().into()];
        args.extend([
            "--runs".into(),
            setup.cgroup_root.clone().into(),
            "--pins".into(),
            setup.config.host.pins.clone().into(),
        ]);
        if setup.config.agent.allow_root {
            args.push("--allow-root".into());
        }
        Self {
            socket,
            mode: setup.config.host.keeper,
            command: (setup.program.clone(), args),
            client: None,
            why: "not connected yet".to_owned(),
            started: Vec::new(),
        }
    }

    /// Its number, or why there is none.
    pub(super) fn state(&self) -> Result<u32, String> {
        self.client.as_ref().map(|(_, welcome)| welcome.pid).ok_or_else(|| self.why.clone())
    }

    /// Whether it is connected.
    pub(super) const fn is_up(&self) -> bool {
        self.client.is_some()
    }

    /// Connects, starting one where that is ours to do; what it holds.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&mut self, boot_id: &str) -> anyhow::Result<Vec<Held>> {
        self.started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let connected = match Client::connect(&self.socket).await {
            Ok(connected) => Ok(connected),
            Err(ClientError::Lost(_)) if self.mode == KeeperMode::Start => self.start().await,
            Err(error) => Err(error.into()),
        };
        match connected {
            Ok((client, held, welcome)) => {
                if welcome.boot_id != boot_id {
                    self.why = format!("the keeper says it runs in the boot {}", welcome.boot_id);
                    anyhow::bail!("{}; this is {boot_id}", self.why);
                }
                self.client = Some((client, welcome));
                Ok(held)
            }
            Err(error) => {
                self.why = format!("{error:#}");
                Err(error)
            }
        }
    }

    async fn start(&mut self) -> anyhow::Result<(Client, Vec<Held>, Welcome)> {
        let dir = self.socket.parent().unwrap_or(Path::new("/"));
        make_private(dir).with_context(|| format!("making {} for the keeper's socket", dir.display()))?;
        let (program, args) = &self.command;
        let child = Command::new(program)
            .args(args)
            .current_dir("/")
            // Ctrl-C is for the daemon; and it is the daemon that says when it is ready.
            .process_group(0)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {} keeper", program.display()))?;
        let pid = child.id();
        self.started.push(child);
        let began = crate::clock::boot();
        loop {
            match Client::connect(&self.socket).await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    let ended = self
                        .started
                        .iter_mut()
                        .find(|child| child.id() == pid)
                        .and_then(|child| child.try_wait().ok().flatten());
                    if let Some(status) = ended {
                        // Another one may have won the place.
                        if let Ok(connected) = Client::connect(&self.socket).await {
                            return Ok(connected);
                        }
                        anyhow::bail!("the keeper that was started ended at once ({status}); its messages say why");
                    }
                    if began.until(crate::clock::boot()) > START_LIMIT {
                        return Err(anyhow::Error::from(error).context("the keeper that was started does not answer"));
                    }
                }
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// Asks it. A failure ends the connection.
    ///
    /// # Errors
    /// Why there is no answer: whether the request was carried out is then not known.
    pub(super) async fn ask(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Answered, String> {
        let Some((client, _)) = &mut self.client else { return Err(format!("no keeper: {}", self.why)) };
        match client.ask(request, fds).await {
            Ok(answered) => Ok(answered),
            Err(error) => {
                self.lose(&error);
                Err(self.why.clone())
            }
        }
    }

    /// Waits for what it says by itself; for ever where there is none. Cancel-safe.
    pub(super) async fn notice(&mut self) -> Option<Notice> {
        let Some((client, _)) = &mut self.client else { return std::future::pending().await };
        match client.notice().await {
            Ok(notice) => Some(notice),
            Err(error) => {
                self.lose(&error);
                None
            }
        }
    }

    /// Hangs up: it is to be connected to again, and what it holds told anew.
    pub(super) fn hang_up(&mut self, why: &str) {
        self.client = None;
        self.why = why.to_owned();
    }

    fn lose(&mut self, error: &ClientError) {
        self.client = None;
        self.why = error.to_string();
    }
}

/// A directory that only we can enter; the keeper checks it again.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A process in the keeper's words.
pub(super) const fn process(key: ProcessKey, ino: Option<PidfsIno>) -> Process {
    let ino = match ino {
        Some(PidfsIno(ino)) => Some(ino),
        None => None,
    };
    Process { pid: key.tgid, start_ns: key.start_boottime_ns, ino }
}

/// What became of a signal, by the keeper's answer.
pub(super) fn signal_result(answer: Result<Answered, String>) -> SignalResult {
    match answer.map(|answered| answered.reply) {
        Ok(Reply::Signalled { proof: None }) => SignalResult::Gone,
        Ok(Reply::Signalled { proof: Some(word) }) => match ProofKind::of_word(&word) {
            Some(proof) => SignalResult::Sent(proof),
            None => SignalResult::Refused(format!("the keeper names a proof that is none: {word}")),
        },
        Ok(Reply::Refused { why, .. }) | Err(why) => SignalResult::Refused(why),
        Ok(
            other @ (Reply::Welcome { .. }
            | Reply::Prepared { .. }
            | Reply::Born { .. }
            | Reply::Adopted { .. }
            | Reply::Done),
        ) => SignalResult::Refused(format!("the keeper answers with {other:?}")),
    }
}

/// Whether something was done, by the keeper's answer.
pub(super) fn done(answer: Result<Answered, String>) -> Result<(), String> {
    match answer?.reply {
        Reply::Done => Ok(()),
        Reply::Refused { why, .. } => Err(why),
        other @ (Reply::Welcome { .. }
        | Reply::Prepared { .. }
        | Reply::Born { .. }
        | Reply::Adopted { .. }
        | Reply::Signalled { .. }) => Err(format!("the keeper answers with {other:?}")),
    }
}
