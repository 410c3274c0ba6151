//! The commands that ask the daemon: a question over the control socket, its answer as text or JSON.
//!
//! Inside: their arguments, which run is meant, what a person reads (`draw`, pure). Not inside: the daemon, a
//! decision about a run, a signal. Called by the command line alone.

mod away;
pub(super) mod draw;
mod events;
mod kill;
mod logs;
pub(super) mod output;
mod ps;
mod start;
mod status;
mod tasks;
mod top;
mod tree;
mod which;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::which::Unresolved;
use crate::control::client::{Client, ClientError};
use crate::error;

/// Where the daemon's socket is, unless an argument or `AGENT_LOOP_SOCKET` says otherwise.
const SOCKET: &str = "/run/agent-loop/socket";

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Ps(ps::Args),
    Status(status::Args),
    Tree(tree::Args),
    Why(status::WhyArgs),
    Logs(logs::Args),
    Events(events::Args),
    Start(start::Args),
    Kill(kill::Args),
    Top(top::Args),
    Queue(tasks::QueueArgs),
    Retry(tasks::RetryArgs),
    Pause(tasks::PauseArgs),
    Resume(tasks::ResumeArgs),
}

/// What all of them take.
#[derive(Clone, Debug, Args)]
pub(super) struct Common {
    /// Print JSON, whose form is stable, instead of text for people.
    #[arg(long)]
    pub(super) json: bool,
    /// The daemon's socket [default: $AGENT_LOOP_SOCKET, else /run/agent-loop/socket].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Common {
    pub(super) fn client(&self) -> Client {
        let of_environment = || std::env::var_os("AGENT_LOOP_SOCKET").filter(|path| !path.is_empty());
        Client::new(
            self.socket.clone().or_else(|| of_environment().map(PathBuf::from)).unwrap_or_else(|| SOCKET.into()),
        )
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The question has no answer.
    #[error("{doing}: {why}")]
    Asked {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        why: ClientError,
    },
    /// It is not clear which run is meant.
    #[error(transparent)]
    Which(#[from] Unresolved),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The answer cannot be written.
    #[error("writing the answer: {0}")]
    Writing(#[from] std::io::Error),
    /// The answer cannot be read.
    #[error("reading the answer: {0}")]
    Reading(#[from] serde_json::Error),
    /// A reader of events was too slow.
    #[error("this reader was too slow and missed {0} lines: the log itself has them, follow anew")]
    Missed(u64),
}

/// Names what was being done when a question had no answer.
fn doing(doing: &'static str) -> impl Fn(ClientError) -> Failure {
    move |why| Failure::Asked { doing, why }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Asked { why, .. } => error::of_question(why),
            Self::Which(Unresolved::Unknown(_) | Unresolved::NoAgent(_)) => error::NOT_RUNNING,
            Self::Which(
                Unresolved::Number(_) | Unresolved::NoPart(_) | Unresolved::NoIssue(_) | Unresolved::Ambiguous(..),
            )
            | Self::Usage(_) => error::USAGE,
            Self::Writing(_) | Self::Reading(_) | Self::Missed(_) => error::FAILED,
        }
    }

    /// Whether nobody is there any more to whom something could be said: `agent-loop ps | head -1`.
    fn nobody_reads(&self) -> bool {
        matches!(self, Self::Writing(why) if why.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Runs a command and returns its exit code.
pub(super) fn run(command: Command) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            eprintln!("agent-loop: starting the event loop: {why}");
            return error::FAILED;
        }
    };
    let done = runtime.block_on(async {
        match command {
            Command::Ps(args) => ps::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Tree(args) => tree::run(args).await,
            Command::Why(args) => status::why(args).await,
            Command::Logs(args) => logs::run(args).await,
            Command::Events(args) => events::run(args).await,
            Command::Start(args) => start::run(args).await,
            Command::Kill(args) => kill::run(args).await,
            Command::Top(args) => top::run(args).await,
            Command::Queue(args) => tasks::queue(args).await,
            Command::Retry(args) => tasks::retry(args).await,
            Command::Pause(args) => tasks::pause(args).await,
            Command::Resume(args) => tasks::resume(args).await,
        }
    });
    match done {
        Ok(code) => code,
        Err(failure) if failure.nobody_reads() => error::DONE,
        Err(failure) => {
            eprintln!("agent-loop: {failure}");
            failure.code()
        }
    }
}
