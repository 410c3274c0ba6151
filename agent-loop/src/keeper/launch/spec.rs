//! What is launched: the specification that crosses to the launcher, and who the process becomes.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything about the process that is launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The command and its arguments; searched in the PATH of `env` if it has no slash.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory, entered with its own rights; `None` keeps the caller's.
    pub cwd: Option<PathBuf>,
    /// Its session and terminal.
    pub session: Session,
    /// Its standard input, output and error.
    pub stdio: [Stdio; 3],
    /// Its file mode mask; `None` keeps the caller's.
    pub umask: Option<u32>,
    /// Its resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Who it becomes; `None` leaves all rights as they are.
    pub user: Option<Become>,
    /// Whether it can never gain rights by executing a file.
    pub no_new_privs: bool,
    /// The signals it ignores; all others are at their default.
    pub ignored: BTreeSet<u8>,
}

impl LaunchSpec {
    /// As `exec` starts a command: the caller's surroundings, an own process group, the terminal if it has one.
    #[must_use]
    pub fn as_caller(argv: Vec<OsString>, signals: &SignalsAtStart) -> Self {
        Self {
            argv,
            env: std::env::vars_os().collect(),
            cwd: None,
            session: Session::OwnGroup { foreground: true },
            stdio: [Stdio::Inherit; 3],
            umask: None,
            rlimits: Vec::new(),
            user: None,
            no_new_privs: false,
            ignored: signals.ignored.clone(),
        }
    }
}

/// The session of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Session {
    /// An own session without a terminal: under the daemon.
    New,
    /// The caller's process group: for a command in a pipeline, whose other members need the terminal too.
    Callers,
    /// An own process group in the caller's session.
    OwnGroup {
        /// Whether it becomes the terminal's foreground, if the caller is that now.
        foreground: bool,
    },
}

/// Where a standard descriptor leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Where ours does.
    Inherit,
    /// /dev/null.
    Null,
    /// A descriptor of ours, open until [`launch`] has returned.
    Fd(RawFd),
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// What applies.
    pub soft: u64,
    /// Up to what the process may raise it.
    pub hard: u64,
}

/// What a resource limit can be set on (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Address space in bytes.
    AddressSpace,
    /// Core file size in bytes.
    Core,
    /// CPU seconds.
    Cpu,
    /// File size in bytes.
    FileSize,
    /// Open files.
    OpenFiles,
    /// Processes of the user.
    Processes,
}

/// Who a process becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Become {
    /// Somebody whose numbers are known.
    User(User),
    /// An account of the host's user database: the launcher looks its numbers and groups up just before it becomes it,
    /// so that they are those of today, and a database that hangs holds up nobody but this process. Unless it is
    /// root's, it can never gain rights by executing a file.
    Account {
        /// The account's name.
        name: String,
        /// Whether it may be root by whatever name.
        may_be_root: bool,
    },
}

/// A user with everything that has to be dropped to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups, as initgroups would set them.
    pub groups: Vec<u32>,
    /// The home directory, for the environment.
    pub home: Option<PathBuf>,
}

impl User {
    /// Looks a user up by name or number, with the groups it has now.
    ///
    /// # Errors
    /// ENOENT if there is none: a number needs an entry too, since its groups come from there.
    pub fn find(name: &str) -> io::Result<Self> {
        let user = match name.parse() {
            Ok(uid) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))?,
            Err(_) => nix::unistd::User::from_name(name)?,
        };
        let user = user.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no user {name}")))?;
        let groups = nix::unistd::getgrouplist(&CString::new(user.name)?, user.gid)?;
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            home: Some(user.dir),
        })
    }
}

/// How the caller of agent-loop had set its signals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalsAtStart {
    /// The signals it ignored, SIGHUP under nohup for one.
    pub ignored: BTreeSet<u8>,
}

/// Reads which signals the caller ignored; to be called before agent-loop sets any.
///
/// SIGPIPE counts as default: the Rust runtime ignores it before `main`, so the caller's choice cannot be known.
#[must_use]
pub fn signals_at_start() -> SignalsAtStart {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let pipe = libc::SIGPIPE.unsigned_abs();
    let ignored = (1..=64u8).filter(|&signal| u32::from(signal) != pipe && mask >> (signal - 1) & 1 == 1).collect();
    SignalsAtStart { ignored }
}
