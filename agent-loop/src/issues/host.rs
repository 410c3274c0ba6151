//! What all tasks of this host share: the daemon, who agents are, what is run.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::claim::Holder;
use super::link::Link;
use super::place::Owner;
use crate::agent::{AgentCommand, Templates};
use crate::config::Config;
use crate::store::StateDir;

/// What all tasks share.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) link: Link,
    pub(super) config: Config,
    pub(super) owner: Owner,
    pub(super) holder: Holder,
    pub(super) command: AgentCommand,
    pub(super) templates: Templates,
    pub(super) tools: Tools,
    /// Whether this is one pass: nobody but an agent is waited for.
    pub(super) once: bool,
}

/// Programs that are run as the agent to put its clone away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tools {
    pub(super) find: PathBuf,
    pub(super) chmod: PathBuf,
}

/// How long a step of git in a clone may take.
pub(super) const STEP: Duration = Duration::from_secs(600);

impl Host {
    /// Finds everything that tasks need on this host.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub(super) fn new(config: Config, link: Link, once: bool) -> anyhow::Result<Self> {
        let name = config.agent.user.as_deref().context("no `user` is set in [agent]: nobody to run agents as")?;
        let user = nix::unistd::User::from_name(name).context("looking the agent's user up")?;
        let user = user.with_context(|| format!("there is no user {name}, which [agent] names"))?;
        let command = config.agent.command.agent().context("`command` of [agent]")?;
        let templates = match &config.agent.command.prompts {
            Some(dir) => Templates::load(dir)?,
            None => Templates::built_in()?,
        };
        let state = StateDir::open(&config.host.state_dir)?;
        let issues = StateDir::open(&state.path().join("issues"))?;
        let host = nix::unistd::gethostname().context("reading this host's name")?.to_string_lossy().into_owned();
        let holder = Holder { host, instance: instance(&issues.path().join("instance"))? };
        let tools = Tools { find: tool("find")?, chmod: tool("chmod")? };
        let owner = Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
        Ok(Self { link, config, owner, holder, command, templates, tools, once })
    }
}

fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let places = ["/usr/bin", "/bin"].map(|dir| PathBuf::from(dir).join(name));
    places.into_iter().find(|path| path.is_file()).with_context(|| format!("{name} is not there: install it"))
}

/// What the state of this daemon is known by to other hosts: made once.
fn instance(path: &std::path::Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() == 32 => return Ok(text.trim().to_owned()),
        Ok(_) => anyhow::bail!("{} is not as it was written: remove it once no task is open", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    }
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut bytes)).context("making an identity")?;
    let text = data_encoding::HEXLOWER.encode(&bytes);
    std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    Ok(text)
}
