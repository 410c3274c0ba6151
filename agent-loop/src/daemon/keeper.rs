//! The keeper as the daemon sees it: connected, or lost and looked for again beside the loop.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::fcntl::OFlag;
use tokio::task::JoinHandle;

use super::Setup;
use super::shell::Daemon;
use crate::config::Keeper as KeeperMode;
use crate::event::SignalResult;
use crate::keeper::pidfd::PidFd;
use crate::keeper::process::client::{Answered, Client, ClientError, PATIENCE, Welcome};
use crate::keeper::process::protocol::{ADDED, Held, Notice, Process, Reply, Request, Terms};
use crate::model::{PidfsIno, ProcessKey, ProofKind};

/// How long a keeper that was just started is waited for.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked for meanwhile.
const START_PAUSE: Duration = Duration::from_millis(10);

/// How often the rings are read while an answer is awaited.
const READ_PAUSE: Duration = Duration::from_millis(20);

type Connected = (Client, Vec<Held>, Welcome);

/// The keeper.
pub(super) struct Keeper {
    way: Way,
    expected: Terms,
    boot_id: String,
    /// What it said of itself, while it is connected.
    up: Option<Welcome>,
    /// The connection; lent out while an answer is awaited.
    client: Option<Client>,
    /// Why there is none.
    why: String,
    /// One that lived and did not answer: nobody takes its place before it is dead.
    last: Option<Arc<PidFd>>,
    looking: Option<JoinHandle<Looked>>,
    /// The ones we started: reaped once they end, which is never our doing.
    started: Vec<Child>,
}

/// How to come to a keeper.
#[derive(Clone)]
struct Way {
    socket: PathBuf,
    mode: KeeperMode,
    program: PathBuf,
    args: Vec<std::ffi::OsString>,
    log: Option<PathBuf>,
}

/// What came of looking for one.
struct Looked {
    started: Vec<Child>,
    found: anyhow::Result<Connected>,
}

/// What is heard of the keeper.
pub(super) enum Heard {
    /// It says something.
    Notice(Notice),
    /// It was lost.
    Lost,
    /// It was found, and holds this.
    Found(Vec<Held>),
    /// It was looked for in vain.
    NotFound,
}

impl Keeper {
    /// No connection yet.
    pub(super) fn new(setup: &Setup, boot_id: String) -> Self {
        let (way, expected) = Self::by(setup);
        Self {
            way,
            expected,
            boot_id,
            up: None,
            client: None,
            why: "not connected yet".to_owned(),
            last: None,
            looking: None,
            started: Vec::new(),
        }
    }

    /// Takes up another configuration: for the next keeper that is started, and to compare the present one with.
    pub(super) fn set(&mut self, setup: &Setup) {
        (self.way, self.expected) = Self::by(setup);
    }

    fn by(setup: &Setup) -> (Way, Terms) {
        let (host, agent) = (&setup.config.host, &setup.config.agent);
        let socket = host.runtime_dir.join("keeper").join("socket");
        let mut args: Vec<std::ffi::OsString> = vec!["keeper".into(), "--socket".into(), socket.clone().into()];
        args.extend(["--runs".into(), setup.cgroup_root.clone().into(), "--pins".into(), host.pins.clone().into()]);
        args.extend(["--open-files".into(), setup.open_files.to_string().into()]);
        if let Some(user) = &agent.user {
            args.extend(["--user".into(), user.into()]);
        }
        if agent.allow_root {
            args.push("--allow-root".into());
        }
        let expected = Terms {
            runs: setup.cgroup_root.display().to_string(),
            pins: Some(host.pins.display().to_string()),
            users: agent.user.iter().cloned().collect(),
            allow_root: agent.allow_root,
        };
        (
            Way { socket, mode: host.keeper, program: setup.program.clone(), args, log: setup.keeper_log.clone() },
            expected,
        )
    }

    /// Its number, or why there is none.
    pub(super) fn state(&self) -> Result<u32, String> {
        self.up.as_ref().map(|welcome| welcome.pid).ok_or_else(|| self.why.clone())
    }

    /// Whether it is connected.
    pub(super) const fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// In what the connected keeper was started otherwise than it would be now, and what to do about it.
    pub(super) fn differs(&self) -> Option<String> {
        let Welcome { pid, terms, revision, .. } = self.up.as_ref()?;
        let what = lacking(*revision).or_else(|| difference(terms, &self.expected))?;
        Some(format!(
            "the keeper {what}: nothing is launched; end it (`kill {pid}`, or `systemctl restart agent-loop-agents`), \
             which ends no agent, and one that is started now is of the present version and told the present configuration"
        ))
    }

    /// Connects, starting one where that is ours to do; what it holds.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&mut self) -> anyhow::Result<Vec<Held>> {
        let started = std::mem::take(&mut self.started);
        let looked = look(self.way.clone(), self.last.clone(), started, Some(PATIENCE)).await;
        self.take(looked)
    }

    /// Looks for it beside the loop, until it is found or cannot be: one that lives and does not answer is waited for.
    pub(super) fn look(&mut self) {
        if self.looking.is_none() && !self.is_up() {
            let started = std::mem::take(&mut self.started);
            self.looking = Some(tokio::spawn(look(self.way.clone(), self.last.clone(), started, None)));
        }
    }

    fn take(&mut self, looked: Looked) -> anyhow::Result<Vec<Held>> {
        self.started.extend(looked.started);
        let checked = looked.found.and_then(|(client, held, welcome)| {
            if welcome.boot_id != self.boot_id {
                anyhow::bail!("the keeper says it runs in the boot {}; this is {}", welcome.boot_id, self.boot_id);
            }
            if !is_same(&welcome.terms.runs, &self.expected.runs) {
                anyhow::bail!(
                    "the keeper {} has its runs below {}, not below {}: end it, and start it with the root of the \
                     configuration",
                    welcome.pid,
                    welcome.terms.runs,
                    self.expected.runs
                );
            }
            Ok((client, held, welcome))
        });
        match checked {
            Ok((client, held, welcome)) => {
                self.last = None;
                (self.client, self.up) = (Some(client), Some(welcome));
                Ok(held)
            }
            Err(error) => {
                if let Some(ClientError::Hangs(pidfd)) = error.downcast_ref::<ClientError>() {
                    self.last = Some(Arc::clone(pidfd));
                }
                self.why = format!("{error:#}");
                Err(error)
            }
        }
    }

    /// Waits for what it says by itself, or what comes of looking for it; for ever where neither is. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Heard {
        if let Some(client) = &mut self.client {
            return match client.notice().await {
                Ok(notice) => Heard::Notice(notice),
                Err(error) => {
                    self.lose(&error);
                    Heard::Lost
                }
            };
        }
        let Some(looking) = &mut self.looking else { return std::future::pending().await };
        let looked = looking.await;
        self.looking = None;
        match looked.map_err(anyhow::Error::from).and_then(|looked| self.take(looked)) {
            Ok(held) => Heard::Found(held),
            Err(_) => Heard::NotFound,
        }
    }

    /// Hangs up: it is to be connected to again, and what it holds told anew.
    pub(super) fn hang_up(&mut self, why: &str) {
        (self.client, self.up) = (None, None);
        self.why = why.to_owned();
    }

    fn lose(&mut self, error: &ClientError) {
        if let ClientError::Hangs(pidfd) = error {
            self.last = Some(Arc::clone(pidfd));
        }
        self.hang_up(&error.to_string());
    }
}

impl Daemon {
    /// Asks the keeper. A failure ends the connection. While its answer is awaited the rings are read on, and who asks
    /// what only has to be looked up is answered.
    ///
    /// # Errors
    /// Why there is no answer: whether the request was carried out is then not known.
    pub(super) async fn ask(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Answered, String> {
        let Some(mut client) = self.keeper.client.take() else {
            return Err(format!("no keeper: {}", self.keeper.why));
        };
        let answer = {
            let mut asking = pin!(client.ask(request, fds));
            loop {
                tokio::select! {
                    biased;
                    answer = &mut asking => break answer,
                    // Not whenever there are records: an answer comes at once, and what is read has to be dealt with after it.
                    () = tokio::time::sleep(READ_PAUSE), if self.serves => {
                        self.drain_all();
                        self.owes_round = true;
                    }
                    Some(question) = super::answers::next(&mut self.questions), if self.serves => {
                        self.answer_soon(question);
                    }
                }
            }
        };
        match answer {
            Ok(answered) => {
                self.keeper.client = Some(client);
                Ok(answered)
            }
            Err(error) => {
                self.keeper.lose(&error);
                Err(self.keeper.why.clone())
            }
        }
    }
}

/// Connects to the keeper that is there; where none is, and it is ours to do, to one that is started.
async fn look(way: Way, last: Option<Arc<PidFd>>, mut started: Vec<Child>, patience: Option<Duration>) -> Looked {
    started.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    let found = match Client::connect_within(&way.socket, patience).await {
        Ok(connected) => Ok(connected),
        Err(ClientError::Lost(_)) if way.mode == KeeperMode::Start => {
            // Its place is its own as long as it lives, whatever became of its socket.
            match last.filter(|last| last.has_exited().is_ok_and(|dead| !dead)) {
                Some(last) => Err(ClientError::Hangs(last).into()),
                None => start(&way, &mut started).await,
            }
        }
        Err(error) => Err(error.into()),
    };
    Looked { started, found }
}

async fn start(way: &Way, started: &mut Vec<Child>) -> anyhow::Result<Connected> {
    let dir = way.socket.parent().unwrap_or(Path::new("/"));
    make_private(dir).with_context(|| format!("making {} for the keeper's socket", dir.display()))?;
    let said = match &way.log {
        None => Stdio::inherit(),
        Some(log) => {
            let mut options = std::fs::OpenOptions::new();
            let file = options.create(true).append(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(log);
            Stdio::from(file.with_context(|| format!("opening {} for the keeper's words", log.display()))?)
        }
    };
    let mut child = Command::new(&way.program)
        .args(&way.args)
        .current_dir("/")
        // Ctrl-C is for the daemon; and it is the daemon that says when it is ready.
        .process_group(0)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .with_context(|| format!("starting {} keeper", way.program.display()))?;
    let connected = until_connected(way, &mut child).await;
    started.push(child);
    connected
}

async fn until_connected(way: &Way, child: &mut Child) -> anyhow::Result<Connected> {
    let began = crate::clock::boot();
    loop {
        match Client::connect(&way.socket).await {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                if let Some(status) = child.try_wait().ok().flatten() {
                    // Another one may have won the place.
                    if let Ok(connected) = Client::connect(&way.socket).await {
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

/// What a keeper of this revision does not do of what this daemon relies on.
fn lacking(revision: usize) -> Option<String> {
    let lacks = ADDED.get(revision..).filter(|lacks| !lacks.is_empty())?;
    Some(format!("is of an older agent-loop than this daemon, and {}", lacks.join(", ")))
}

/// In what a keeper's terms are not those that are expected.
fn difference(terms: &Terms, expected: &Terms) -> Option<String> {
    let word = |allowed| if allowed { "may launch agents as root" } else { "may launch no agent as root" };
    if terms.allow_root != expected.allow_root {
        let configured = if expected.allow_root { "allows that" } else { "does not allow that" };
        return Some(format!("{}, and the configuration {configured} (`agent.allow_root`)", word(terms.allow_root)));
    }
    // It may have more of them: one for each slot.
    if let Some(missing) = expected.users.iter().find(|user| !terms.users.contains(user)) {
        return Some(format!("was not started to launch agents as {missing:?} (`agent.user`)"));
    }
    match (&terms.pins, &expected.pins) {
        (Some(theirs), Some(ours)) if Path::new(theirs) == Path::new(ours) => None,
        (theirs, ours) => Some(format!(
            "looks for the live set in {}, and it is pinned in {} (`host.pins`)",
            theirs.as_deref().unwrap_or("no place"),
            ours.as_deref().unwrap_or("no place")
        )),
    }
}

/// Whether two paths lead to the same directory.
fn is_same(one: &str, other: &str) -> bool {
    let id = |path: &str| std::fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    Path::new(one) == Path::new(other) || id(one).is_some_and(|it| id(other) == Some(it))
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
            | Reply::Revision { .. }
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
        | Reply::Revision { .. }
        | Reply::Prepared { .. }
        | Reply::Born { .. }
        | Reply::Adopted { .. }
        | Reply::Signalled { .. }) => Err(format!("the keeper answers with {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            runs: "/sys/fs/cgroup/agent-loop".to_owned(),
            pins: Some("/sys/fs/bpf/agent-loop".to_owned()),
            users: vec!["agent".to_owned()],
            allow_root: false,
        }
    }

    #[test]
    fn a_keeper_of_before_is_told_with_what_it_lacks_and_a_newer_one_is_not() {
        assert!(lacking(0).is_some_and(|what| what.contains("older") && what.contains("`idle`")));
        assert_eq!((lacking(ADDED.len()), lacking(ADDED.len() + 1)), (None, None));
    }

    #[test]
    fn a_keeper_with_other_rights_than_configured_is_told_apart() {
        assert_eq!(difference(&terms(), &terms()), None);
        let more = Terms { users: vec!["other".to_owned(), "agent".to_owned()], ..terms() };
        assert_eq!(difference(&more, &terms()), None, "one for each slot");
        for (theirs, ours, key) in [
            (Terms { allow_root: true, ..terms() }, terms(), "agent.allow_root"),
            (terms(), Terms { allow_root: true, ..terms() }, "agent.allow_root"),
            (Terms { users: vec!["other".to_owned()], ..terms() }, terms(), "agent.user"),
            (Terms { pins: None, ..terms() }, terms(), "host.pins"),
            (Terms { pins: Some("/elsewhere".to_owned()), ..terms() }, terms(), "host.pins"),
        ] {
            assert!(difference(&theirs, &ours).is_some_and(|what| what.contains(key)), "{theirs:?}");
        }
    }
}
