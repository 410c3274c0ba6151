//! From what was asked for to what is launched: the user, the environment, the limits of the cgroup.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context as _;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::look_up::Account;
use crate::config::Agent;
use crate::keeper::launch::{Become, LaunchSpec, Session, Stdio};
use crate::keeper::process::protocol::CgroupLimits;
use crate::run::{Limits, Submission};

/// The specification of a run's launch. Standard input and output are put in by the keeper, and so are the numbers and
/// groups of the user.
pub(super) fn launch(submission: &Submission, rules: &Agent, account: &Account) -> LaunchSpec {
    LaunchSpec {
        argv: submission.argv.iter().map(OsString::from).collect(),
        env: environment(submission, rules, account),
        cwd: Some(submission.cwd.clone()),
        session: Session::New,
        stdio: [Stdio::Null; 3],
        umask: Some(0o022),
        rlimits: Vec::new(),
        user: Some(Become::Account { name: submission.user.clone(), may_be_root: rules.allow_root }),
        no_new_privs: true,
        ignored: std::collections::BTreeSet::new(),
    }
}

/// What the allow-list lets through, who the user is, and what was asked for; the later wins.
fn environment(submission: &Submission, rules: &Agent, account: &Account) -> Vec<(OsString, OsString)> {
    let (home, shell) = (&account.home, account.shell.as_deref());
    let mut env = agent_environment(rules, &submission.user, home, shell, |name| std::env::var_os(name));
    for (name, value) in &submission.env {
        set(&mut env, name.into(), value.into());
    }
    env
}

/// What the allow-list lets through of these variables, and who the user is; the later wins.
pub(crate) fn agent_environment(
    rules: &Agent,
    user: &str,
    home: &Path,
    shell: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<(OsString, OsString)> {
    let mut env = Vec::new();
    for name in &rules.env {
        if let Some(value) = variable(name) {
            set(&mut env, name.into(), value);
        }
    }
    for name in ["USER", "LOGNAME"] {
        set(&mut env, name.into(), user.into());
    }
    set(&mut env, "HOME".into(), home.into());
    if let Some(shell) = shell {
        set(&mut env, "SHELL".into(), shell.into());
    }
    env
}

fn set(env: &mut Vec<(OsString, OsString)>, name: OsString, value: OsString) {
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
}

/// The specification in a memory file that nobody can change any more: that is what the keeper takes.
///
/// # Errors
/// When there is no descriptor or no memory left.
pub(super) fn sealed(spec: &LaunchSpec) -> anyhow::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"agent-loop launch", flags).context("making a memory file")?);
    // In one write: a serialiser writes each token by itself.
    file.write_all(&serde_json::to_vec(spec)?).context("writing the specification")?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("sealing the specification")?;
    Ok(file.into())
}

/// What the cgroup holds of a run's limits.
pub(super) const fn cgroup_limits(limits: &Limits) -> CgroupLimits {
    CgroupLimits { memory_bytes: limits.memory_bytes, tasks: limits.tasks, cpu_percent: limits.cpu_percent }
}
