//! What the host's user database says, asked beside the loop: behind it may be a server that does not answer.

use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::shell::Daemon;
use super::within::Reply;
use crate::control::api::{Caller, Problem, StartRequest};
use crate::run::RunName;
use crate::supervise::fleet::{FleetEvent, StepFailed};

/// What an agent's environment takes from the user database. Its rights are not: the keeper looks those up itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Where it is at home.
    pub(super) home: PathBuf,
    /// Its shell, where one is named.
    pub(super) shell: Option<PathBuf>,
}

impl Account {
    fn find(name: &str) -> Result<Self, String> {
        let found = match nix::unistd::User::from_name(name) {
            Ok(found) => found.ok_or_else(|| format!("there is no user {name}"))?,
            Err(errno) => return Err(format!("looking up the user {name}: {errno}")),
        };
        let shell = Some(found.shell).filter(|shell| !shell.as_os_str().is_empty());
        Ok(Self { home: found.dir, shell })
    }
}

/// What waits for an account.
pub(super) enum Waits {
    /// The launch of a run.
    Launch(RunName),
    /// A submission that names no working directory.
    Start {
        /// What is asked for.
        request: Box<StartRequest>,
        /// By whom.
        from: Caller,
        /// Where the answer goes.
        reply: Reply,
    },
}

/// What was looked up, and for what.
pub(super) type LookedUp = (Waits, Result<Account, String>);

/// The thread that looks accounts up, one after the other, and what comes of it. Nobody waits for it: not at our end
/// either.
pub(super) struct LookUp {
    wanted: std::sync::mpsc::Sender<(String, Waits)>,
    pub(super) found: mpsc::UnboundedReceiver<LookedUp>,
}

impl LookUp {
    /// Starts it.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start() -> io::Result<Self> {
        let (wanted, names) = std::sync::mpsc::channel::<(String, Waits)>();
        let (sender, found) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("accounts".to_owned()).spawn(move || {
            for (name, waits) in names {
                let _ = sender.send((waits, Account::find(&name)));
            }
        })?;
        Ok(Self { wanted, found })
    }

    /// Looks an account up for what waits for it.
    pub(super) fn account(&self, name: String, waits: Waits) {
        // It ends only with us.
        let _ = self.wanted.send((name, waits));
    }
}

impl Daemon {
    /// Goes on with what waited for an account.
    pub(super) async fn looked_up(&mut self, (waits, found): LookedUp) {
        match waits {
            Waits::Launch(name) => {
                let result = match found {
                    Ok(account) => self.launch(name, &account).await,
                    Err(why) => Err(StepFailed::Refused(crate::event::LaunchFailure { step: why, errno: None })),
                };
                self.queue.push_back(FleetEvent::Launched { id: name.id, result });
            }
            Waits::Start { mut request, from, reply } => match found {
                Ok(account) => {
                    request.cwd = Some(account.home);
                    self.start_run(&request, from, reply);
                }
                // Who asked may have gone.
                Err(why) => drop(reply.send(Err(Problem::Bad(why)))),
            },
        }
    }
}
