//! Reading the file safely, what is wrong with it, and the host's names in it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Group, User};

use super::Config;

/// Where the configuration is, where nothing else is said.
pub const PLACE: &str = "/etc/agent-loop/config.toml";
/// The most bytes of a configuration.
const LONGEST: u64 = 1 << 20;

/// What is wrong with a configuration: `FILE:LINE: KEY: what to write instead`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// The key with its section, where it is known.
    pub key: Option<String>,
    /// What is wrong, and what to write.
    pub why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": `{key}`")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// The text of a configuration file that only root and we can have written (I23).
pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    let wrong = |why: String| ConfigError { file: path.display().to_string(), line: None, key: None, why };
    // A FIFO must not hold us up. Links are followed, hosts keep their /etc elsewhere: what counts is what was opened.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let next =
            if missing { "; take packaging/config.toml as a start, or name another file by `--config`" } else { "" };
        wrong(format!("opening it: {error}{next}"))
    })?;
    let stat = fstat(&file).map_err(|errno| wrong(format!("looking at it: {errno}")))?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(wrong("it is not a regular file".to_owned()));
    }
    let ours = nix::unistd::geteuid().as_raw();
    if stat.st_uid != 0 && stat.st_uid != ours {
        let why = format!("it belongs to user {}, who could change it: `chown root {}`", stat.st_uid, path.display());
        return Err(wrong(why));
    }
    if stat.st_mode & 0o022 != 0 {
        let mode = stat.st_mode & 0o7777;
        let why = format!("it has mode {mode:04o}, others could change it: `chmod go-w {}`", path.display());
        return Err(wrong(why));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| wrong(format!("reading it: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(wrong(format!("it has more than {LONGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| wrong(format!("it is not UTF-8: {error}")))
}

/// Whether the host knows the users and groups that are named.
pub(super) fn check_names(config: &Config, name: &str) -> Result<(), ConfigError> {
    let wrong =
        |key: &str, why: String| ConfigError { file: name.to_owned(), line: None, key: Some(key.to_owned()), why };
    let user = |key: &str, name: &str| match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(wrong(key, format!("there is no user {name:?} on this host; name one that is"))),
        Err(errno) => Err(wrong(key, format!("looking up the user {name:?}: {errno}"))),
    };
    if let Some(agent) = &config.agent.user {
        let found = user("agent.user", agent)?;
        if found.uid.is_root() && !config.agent.allow_root {
            let why = format!("the user {agent:?} is root; name another, or set `allow_root = true` in [agent]");
            return Err(wrong("agent.user", why));
        }
    }
    if let Some(owner) = &config.host.owner {
        user("host.owner", owner)?;
    }
    if let Some(group) = &config.host.socket_group {
        match Group::from_name(group) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let why = format!("there is no group {group:?} on this host; name one that is");
                return Err(wrong("host.socket_group", why));
            }
            Err(errno) => return Err(wrong("host.socket_group", format!("looking up the group {group:?}: {errno}"))),
        }
    }
    Ok(())
}
