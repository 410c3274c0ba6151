//! The cgroup of a unit of systemd, made ready for runs: its controllers are enabled before the first run is made.
//!
//! A cgroup that has controllers for those below it may hold no process itself (cgroup version 2, "no internal
//! processes"): whoever holds it for systemd moves into one of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mounts;

/// The controllers that limits of a run need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The cgroup of the holder, and the one that runs are made in.
const HOLDER: &str = "holder";
const RUNS: &str = "runs";

/// Why the cgroup cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It is not a cgroup of our own.
    #[error("{0}")]
    NotOurs(String),
    /// The kernel refuses.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A cgroup that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where runs are made.
    pub runs: PathBuf,
    /// The controllers that are enabled.
    pub enabled: Vec<String>,
    /// Those that are not there, and why.
    pub missing: Vec<String>,
}

/// Makes the cgroup that this process is in ready: moves the process into one below it, enables the controllers, makes
/// the one for runs. What is there already is taken as it is.
///
/// # Errors
/// [`HoldError::NotOurs`] in the root of the hierarchy, or where other processes are; [`HoldError::Io`].
pub fn hold() -> Result<Held, HoldError> {
    let read = |path: &str| fs::read(path).map_err(failed(&format!("reading {path}")));
    let own = mounts::version2_path(&read("/proc/self/cgroup")?);
    let own = own.ok_or_else(|| HoldError::NotOurs("this process is in no cgroup of version 2".to_owned()))?;
    if own == Path::new("/") {
        return Err(HoldError::NotOurs("this process is in the root of the cgroups: start it as a unit".to_owned()));
    }
    let at = mounts::cgroup2(&read("/proc/self/mountinfo")?)
        .into_iter()
        .find_map(|mount| own.strip_prefix(&mount.root).ok().map(|inside| mount.point.join(inside)));
    let at = at.ok_or_else(|| HoldError::NotOurs(format!("no mount of cgroup version 2 shows {}", own.display())))?;
    let procs = at.join("cgroup.procs");
    let text = fs::read_to_string(&procs).map_err(failed(&format!("reading {}", procs.display())))?;
    let others = text.split_whitespace().filter(|pid| *pid != std::process::id().to_string()).count();
    if others > 0 {
        let what = format!("{others} other processes are in {}: start it as a unit of its own", at.display());
        return Err(HoldError::NotOurs(what));
    }
    make(&at)
}

fn make(at: &Path) -> Result<Held, HoldError> {
    let runs = at.join(RUNS);
    for dir in [&at.join(HOLDER), &runs] {
        match fs::create_dir(dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(HoldError::Io { doing: format!("making {}", dir.display()), source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    let own = at.join(HOLDER).join("cgroup.procs");
    fs::write(&own, std::process::id().to_string()).map_err(failed(&format!("writing {}", own.display())))?;
    let there = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
    let (mut enabled, mut missing) = (Vec::new(), Vec::new());
    for controller in CONTROLLERS {
        if !there.split_whitespace().any(|name| name == controller) {
            missing.push(format!("{controller}: not delegated to {}", at.display()));
            continue;
        }
        match fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")) {
            Ok(()) => enabled.push(controller.to_owned()),
            Err(why) => missing.push(format!("{controller}: {why}")),
        }
    }
    Ok(Held { runs, enabled, missing })
}

fn failed(doing: &str) -> impl FnOnce(io::Error) -> HoldError + use<> {
    let doing = doing.to_owned();
    move |source| HoldError::Io { doing, source }
}
