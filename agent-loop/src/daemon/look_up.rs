//! What the host's user database says, asked beside the loop: behind it may be a server that does not answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::shell::Daemon;
use super::within::Reply;
use crate::clock;
use crate::control::api::{Caller, Problem, StartRequest};
use crate::event::LaunchFailure;
use crate::run::RunName;
use crate::store::{RunFiles, StoreError};
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

/// What a launch or a submission waited for beside the loop.
pub(super) enum LookedUp {
    /// An account, and for what.
    Account(Waits, Result<Account, String>),
    /// The files of a run that is launched for this account.
    Files(RunName, Account, Result<RunFiles, StoreError>),
}

/// How long a launch waits for what is beside the loop.
const LAUNCH_WITHIN: Duration = Duration::from_secs(10);

/// What it waits for.
const FOR_ITS_USER: &str = "looking up its user: the user database";
const FOR_ITS_FILES: &str = "making the files of its output: their disk";

/// The thread that looks accounts up, one after the other, and what comes of it. Nobody waits for it: not at our end
/// either.
pub(super) struct LookUp {
    wanted: std::sync::mpsc::Sender<(String, Waits)>,
    sender: mpsc::UnboundedSender<LookedUp>,
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
        let tell = sender.clone();
        std::thread::Builder::new().name("accounts".to_owned()).spawn(move || {
            for (name, waits) in names {
                let _ = tell.send(LookedUp::Account(waits, Account::find(&name)));
            }
        })?;
        Ok(Self { wanted, sender, found })
    }

    /// Looks an account up for what waits for it.
    pub(super) fn account(&self, name: String, waits: Waits) {
        // It ends only with us.
        let _ = self.wanted.send((name, waits));
    }
}

impl Daemon {
    /// Begins to gather what a launch needs, beside the loop: its user first.
    pub(super) fn gather(&mut self, name: RunName, user: String) {
        self.launching.insert(name, (clock::boot(), FOR_ITS_USER));
        self.accounts.account(user, Waits::Launch(name));
    }

    /// Goes on with what waited for something beside the loop.
    pub(super) async fn looked_up(&mut self, found: LookedUp) {
        match found {
            LookedUp::Account(Waits::Launch(name), found) => match found {
                Ok(account) => self.make_files(name, account),
                Err(why) => self.give_up(name, why),
            },
            LookedUp::Files(name, account, made) => match made {
                // It may have been given up meanwhile.
                Ok(files) => {
                    if self.launching.remove(&name).is_some() {
                        let result = self.launch(name, &account, files).await;
                        self.queue.push_back(FleetEvent::Launched { id: name.id, result });
                    }
                }
                Err(error) => self.give_up(name, format!("making the files of its output: {error}")),
            },
            LookedUp::Account(Waits::Start { mut request, from, reply }, found) => match found {
                Ok(account) => {
                    request.cwd = Some(account.home);
                    self.start_run(&request, from, reply);
                }
                // Who asked may have gone.
                Err(why) => drop(reply.send(Err(Problem::Bad(why)))),
            },
        }
    }

    /// Has the files of a launch made.
    fn make_files(&mut self, name: RunName, account: Account) {
        let Some(waits) = self.launching.get_mut(&name) else { return };
        *waits = (clock::boot(), FOR_ITS_FILES);
        let sender = self.accounts.sender.clone();
        self.files.order(move |files| {
            let made = RunFiles::create(&files.state, &files.log, name.id);
            let _ = sender.send(LookedUp::Files(name, account, made));
        });
    }

    /// A launch fails, if it has not been given up before.
    fn give_up(&mut self, name: RunName, why: String) {
        if self.launching.remove(&name).is_some() {
            let result = Err(StepFailed::Refused(LaunchFailure { step: why, errno: None }));
            self.queue.push_back(FleetEvent::Launched { id: name.id, result });
        }
    }

    /// Gives up the launches that have waited too long: nothing of them runs.
    pub(super) fn give_up_waiting(&mut self) {
        let now = clock::boot();
        let late: Vec<(RunName, &str)> = self
            .launching
            .iter()
            .filter(|(_, (since, _))| since.until(now) >= LAUNCH_WITHIN)
            .map(|(name, (_, waits))| (*name, *waits))
            .collect();
        for (name, waits) in late {
            self.give_up(name, format!("{waits} has not answered for {} s", LAUNCH_WITHIN.as_secs()));
        }
    }
}
