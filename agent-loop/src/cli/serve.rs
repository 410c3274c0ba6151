//! `agent-loop serve`: the daemon.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use sd_notify::NotifyState;
use tokio::sync::mpsc;

use crate::audit::log::OpenError;
use crate::audit::redact;
use crate::clock;
use crate::config::{Config, PLACE};
use crate::control::api::TickView;
use crate::control::server::{Access, BindError, Server};
use crate::daemon::{self, Setup};
use crate::error;
use crate::fatal;
use crate::issues;
use crate::kernel::LoadError;
use crate::store::StoreError;

/// How many questions may wait for the daemon.
const QUESTIONS: usize = 64;

/// Runs the daemon: takes runs over the control socket, supervises them, and keeps them over its own end.
///
/// It asks a keeper to launch and to signal, and starts one where none answers. Stopped, crashed or upgraded, it
/// leaves its agents alone; the next one goes on with them, with their old deadlines and true statuses.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration; it is read again at SIGHUP.
    #[arg(long, value_name = "FILE", default_value = PLACE)]
    config: PathBuf,
}

const EXAMPLES: &str = "\
Example:
  agent-loop serve --config /etc/agent-loop/config.toml
  agent-loop start --limit 1h -- claude -p 'fix the failing test'

Signals: SIGTERM and SIGINT stop it, its agents go on; SIGHUP reads the configuration again.
Exit codes: 0 stopped as asked; 1 it failed; 3 the configuration is wrong; 5 refused for safety; 6 not permitted;
8 another one is running.";

/// Runs the daemon and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let config = match read(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("agent-loop: reading the configuration: {}", redact::said(&error.to_string()));
            return error::CONFIG;
        }
    };
    if let Err(code) = may_run("serve") {
        return code;
    }
    match try_run(config, &args.config, false) {
        Ok(_) => error::DONE,
        Err(failure) => {
            eprintln!("agent-loop: {}", redact::said(&format!("{failure:#}")));
            code(&failure)
        }
    }
}

/// Whether this process may be a daemon at all; else the exit code, told.
pub(super) fn may_run(command: &str) -> Result<(), u8> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("agent-loop: {command} launches agents as another user and loads eBPF: run it as root");
        return Err(error::PERMISSION);
    }
    if clock::ahead_of_kernel() != 0 {
        eprintln!(
            "agent-loop: {command} is in a time namespace, where no deadline that outlives it could be kept: start it \
             outside of it, or use `agent-loop exec`"
        );
        return Err(error::REFUSED);
    }
    Ok(())
}

pub(super) fn read(path: &Path) -> Result<Config, crate::config::ConfigError> {
    let config = Config::load(path)?;
    config.check_names(&path.display().to_string())?;
    Ok(config)
}

/// Runs a daemon; with `one_pass` until its issue loop has made one, and what that came to.
pub(super) fn try_run(config: Config, path: &Path, one_pass: bool) -> anyhow::Result<Option<TickView>> {
    fatal::ends_all("agent-loop");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Who asks is seen after each round of records, not after sixty of them: an agent can write them without end.
        .event_interval(1)
        .build()
        .context("starting the event loop")?;
    let reload = || read(path).context("reading the configuration");
    let done = runtime.block_on(async {
        let runtime_dir = config.host.runtime_dir.clone();
        make(&runtime_dir).with_context(|| format!("making {}", runtime_dir.display()))?;
        let access = access(&config)?;
        let mut setup = Setup::new(config)?;
        if one_pass {
            setup.keeper_log = Some(setup.config.host.log_dir.join("keeper.log"));
        }
        let (questions, asked) = mpsc::channel(QUESTIONS);
        // The state's lock comes first: a second daemon must not take the socket of the first.
        let repos = setup.config.clone();
        let mut daemon = daemon::start(setup).await?;
        let mut pass = None;
        if one_pass {
            let (desk, told) = issues::start_one_pass(repos, questions.clone()).context("starting the issue loop")?;
            daemon.with_issues(desk);
            pass = Some(told);
        } else if !repos.repos.is_empty() {
            daemon.with_issues(issues::start(repos, questions.clone()).context("starting the issue loop")?);
        }
        let server = Server::bind(&runtime_dir.join("socket"), access).await?;
        let ready = move || {
            sd_notify::notify(&[NotifyState::Ready]).context("telling that it is ready")?;
            eprintln!("agent-loop: ready, listening on {}", runtime_dir.join("socket").display());
            Ok(())
        };
        tokio::select! {
            stopped = daemon.run(asked, reload, ready) => stopped?,
            () = server.serve(questions) => anyhow::bail!("the control socket ended"),
        }
        // None where it was stopped before.
        Ok(pass.and_then(|mut told| told.try_recv().ok()))
    });
    // A file that is read for a client, on a disk that does not answer, is not waited for.
    runtime.shutdown_background();
    done
}

/// Who may ask, by number.
fn access(config: &Config) -> anyhow::Result<Access> {
    let group = match &config.host.socket_group {
        Some(name) => {
            let group = nix::unistd::Group::from_name(name)?.with_context(|| format!("no group {name}"))?;
            Some(group.gid.as_raw())
        }
        None => None,
    };
    let owner = match &config.host.owner {
        Some(name) => {
            let user = nix::unistd::User::from_name(name)?.with_context(|| format!("no user {name}"))?;
            Some(user.uid.as_raw())
        }
        None => None,
    };
    Ok(Access { group, owner })
}

/// The directory of the sockets: everybody may pass through, only root makes anything in it.
fn make(dir: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The exit code of a daemon that failed.
pub(super) fn code(failure: &anyhow::Error) -> u8 {
    if let Some(store) = failure.downcast_ref::<StoreError>() {
        return error::of_store(store);
    }
    if let Some(audit) = failure.downcast_ref::<OpenError>() {
        return error::of_audit(audit);
    }
    if let Some(LoadError::Pins(_)) = failure.downcast_ref::<LoadError>() {
        return error::REFUSED;
    }
    match failure.downcast_ref::<BindError>() {
        Some(BindError::AlreadyRunning(_)) => error::ALREADY_RUNNING,
        Some(BindError::Unsafe(_)) => error::REFUSED,
        Some(BindError::Failed { .. }) | None => error::FAILED,
    }
}
