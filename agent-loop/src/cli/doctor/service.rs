//! What the units of the package depend on, on a host that has a configuration: accounts, directories, the cgroup that is
//! held for runs, the keeper and the daemon, and the login of agents. Looked at and not changed; told beside what `exec` needs,
//! and not weighed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::advise::{Check, State};
use super::login;
use crate::config::{Config, ConfigError};

/// What was found of one dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As it has to be: in words.
    Good(String),
    /// Not: why.
    Bad(String),
    /// Only root could tell.
    Hidden,
    /// It cannot be told: why.
    Unknown(String),
}

/// What the service of this host depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) configuration: Found,
    /// The dependencies by name; none where the configuration cannot be read.
    pub(super) parts: Vec<(Part, Found)>,
}

/// One dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Whom agents run as.
    User,
    /// Who may look.
    Group,
    /// What is remembered.
    State,
    /// The audit log and output.
    Log,
    /// Where the cgroups of runs are made, and their controllers.
    Cgroup,
    /// The keeper's socket.
    Keeper,
    /// The daemon's socket.
    Daemon,
    /// Whether `claude` is logged in, where agents are that.
    Login,
}

impl Service {
    /// Looks; `None` where there is no configuration, and so no service.
    pub(super) fn find(config: &Path) -> Option<Self> {
        match fs::symlink_metadata(config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(_) | Err(_) => {}
        }
        Some(match Config::load(config) {
            Ok(read) => Self { configuration: Found::Good(config.display().to_string()), parts: parts(&read) },
            Err(ConfigError { why, .. }) if !nix::unistd::geteuid().is_root() && why.contains("ermission") => {
                Self { configuration: Found::Hidden, parts: Vec::new() }
            }
            Err(error) => Self { configuration: Found::Bad(error.to_string()), parts: Vec::new() },
        })
    }

    /// The checks.
    pub(super) fn checks(&self) -> Vec<Check> {
        let configuration = one(
            "configuration",
            &self.configuration,
            "the daemon knows what it is to do",
            "the daemon does not start",
            "agent-loop config check",
        );
        [configuration].into_iter().chain(self.parts.iter().map(|(part, found)| part.check(found))).collect()
    }
}

fn one(name: &'static str, found: &Found, ok: &str, bad: &str, mend: &str) -> Check {
    let (state, found, means, mend) = match found {
        Found::Good(what) => (State::Ok, what.clone(), ok, None),
        Found::Bad(why) => (State::Missing, why.clone(), bad, Some(mend.to_owned())),
        Found::Hidden => (State::Ok, "only root can tell".to_owned(), "it is not known here", None),
        Found::Unknown(why) => (State::Ok, format!("not known: {why}"), "nothing is said of it", None),
    };
    Check { name, state, found, means: means.to_owned(), mend, weighs: false }
}

impl Part {
    fn check(self, found: &Found) -> Check {
        const SYSUSERS: &str = "systemd-sysusers agent-loop.conf && systemd-tmpfiles --create agent-loop.conf";
        match self {
            Self::User => one("service-user", found, "agents run as it", "no run is started", SYSUSERS),
            Self::Group => one("service-group", found, "its members may look", "the daemon does not start", SYSUSERS),
            Self::State => one(
                "service-state",
                found,
                "what is remembered is root's alone",
                "the daemon refuses to start",
                "ls -ld the directory named above; it has to be root's, mode 0700",
            ),
            Self::Log => one(
                "service-log",
                found,
                "the audit log is root's alone",
                "the daemon refuses to start",
                "ls -ld the directory named above; it has to be root's, mode 0700",
            ),
            Self::Cgroup => one(
                "service-cgroup",
                found,
                "runs are made there",
                "no run can be launched, or not with limits of memory, tasks and processors",
                "systemctl start agent-loop-runs; a controller that is missing is one that the host does not give",
            ),
            Self::Keeper => one(
                "service-keeper",
                found,
                "it launches and signals",
                "nothing is launched or stopped",
                "systemctl start agent-loop-agents",
            ),
            Self::Daemon => one(
                "service-daemon",
                found,
                "it answers on its socket",
                "nobody decides: agents that live have no limit",
                "systemctl start agent-loop; journalctl -u agent-loop says why it does not",
            ),
            Self::Login => one(
                "service-login",
                found,
                "whether it is accepted shows when it is used",
                "each attempt of an agent fails at once",
                "give agents a key as docs/install.md says (Configure), or log in as their user: claude auth login",
            ),
        }
    }
}

fn parts(config: &Config) -> Vec<(Part, Found)> {
    let host = &config.host;
    let mut parts = vec![(Part::User, user(config.agent.user.as_deref()))];
    if let Some(name) = &host.socket_group {
        let known = nix::unistd::Group::from_name(name).ok().flatten();
        let found = known.map_or_else(|| Found::Bad(format!("no group {name}")), |_| Found::Good(name.clone()));
        parts.push((Part::Group, found));
    }
    parts.push((Part::State, closed(&host.state_dir)));
    parts.push((Part::Log, closed(&host.log_dir)));
    if let Some(root) = &host.cgroup_root {
        parts.push((Part::Cgroup, cgroup(root)));
    }
    parts.push((Part::Keeper, socket(&host.runtime_dir.join("keeper/socket"))));
    parts.push((Part::Daemon, answering(&host.runtime_dir.join("socket"))));
    parts.extend(login::look(config).map(|found| (Part::Login, found)));
    parts
}

fn user(name: Option<&str>) -> Found {
    let Some(name) = name else { return Found::Bad("no `user` is set in `[agent]`".to_owned()) };
    match nix::unistd::User::from_name(name) {
        Ok(Some(_)) => Found::Good(name.to_owned()),
        Ok(None) => Found::Bad(format!("no user {name}")),
        Err(errno) => Found::Bad(format!("looking {name} up: {errno}")),
    }
}

/// A directory of root's alone.
fn closed(dir: &Path) -> Found {
    match fs::symlink_metadata(dir) {
        Ok(it) if !it.is_dir() => Found::Bad(format!("{} is no directory", dir.display())),
        Ok(it) if it.uid() != 0 || it.mode() & 0o077 != 0 => {
            let mode = it.mode() & 0o7777;
            Found::Bad(format!("{} belongs to user {}, mode {mode:04o}", dir.display(), it.uid()))
        }
        Ok(_) => Found::Good(dir.display().to_string()),
        Err(error) => missing(dir, &error),
    }
}

fn cgroup(root: &Path) -> Found {
    match fs::read_to_string(root.join("cgroup.controllers")) {
        Ok(text) => {
            let given: Vec<&str> = text.split_whitespace().collect();
            let wanting: Vec<&str> = ["memory", "pids", "cpu"].into_iter().filter(|it| !given.contains(it)).collect();
            match wanting.as_slice() {
                [] => Found::Good(root.display().to_string()),
                some => Found::Bad(format!("{} has no controller of {}", root.display(), some.join(", "))),
            }
        }
        Err(error) => missing(root, &error),
    }
}

fn socket(path: &Path) -> Found {
    match fs::symlink_metadata(path) {
        Ok(it) if it.file_type().is_socket() => Found::Good(path.display().to_string()),
        Ok(_) => Found::Bad(format!("{} is no socket", path.display())),
        Err(error) => missing(path, &error),
    }
}

fn answering(path: &Path) -> Found {
    match UnixStream::connect(path) {
        Ok(_) => Found::Good(path.display().to_string()),
        Err(error) => missing(path, &error),
    }
}

fn missing(path: &Path, error: &io::Error) -> Found {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Found::Hidden;
    }
    Found::Bad(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn states(service: &Service) -> Vec<(&'static str, State)> {
        service.checks().iter().map(|check| (check.name, check.state)).collect()
    }

    #[test]
    fn a_host_without_a_configuration_has_no_service() {
        assert_eq!(Service::find(Path::new("/nonexistent/config.toml")), None);
    }

    #[test]
    fn each_dependency_of_the_units_is_told_with_what_mends_it() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: each_dependency_of_the_units_is_told_with_what_mends_it needs root");
            return;
        }
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let at = |name: &str| scratch.path().join(name);
        let write = |user: &str| {
            let text = format!(
                "[host]\nstate_dir = {:?}\nlog_dir = {:?}\nruntime_dir = {:?}\ncgroup_root = {:?}\nsocket_group = \"root\"\n\
                 keeper = \"expect\"\n[agent]\nuser = {user:?}\nkind = \"command\"\ncommand = [\"true\"]\n",
                at("state"),
                at("log"),
                at("run"),
                at("cgroup")
            );
            fs::write(at("config.toml"), text).expect("a scratch file");
            fs::set_permissions(at("config.toml"), fs::Permissions::from_mode(0o600)).expect("our file");
        };
        write("no-such-user-here");
        let service = Service::find(&at("config.toml")).expect("there is one");
        use State::{Missing, Ok};
        assert_eq!(
            states(&service),
            [
                ("configuration", Ok),
                ("service-user", Missing),
                ("service-group", Ok),
                ("service-state", Missing),
                ("service-log", Missing),
                ("service-cgroup", Missing),
                ("service-keeper", Missing),
                ("service-daemon", Missing),
            ]
        );
        assert!(service.checks().iter().all(|check| (check.state == Ok) == check.mend.is_none() && !check.weighs));

        write("nobody");
        for dir in ["state", "log", "run", "run/keeper", "cgroup"] {
            fs::create_dir(at(dir)).expect("a directory");
            fs::set_permissions(at(dir), fs::Permissions::from_mode(0o700)).expect("our directory");
        }
        fs::write(at("cgroup/cgroup.controllers"), "cpuset cpu io memory pids\n").expect("a scratch file");
        let _sockets = ["run/keeper/socket", "run/socket"].map(|path| UnixListener::bind(at(path)).expect("a socket"));
        let service = Service::find(&at("config.toml")).expect("there is one");
        assert!(states(&service).iter().all(|(_, state)| *state == Ok), "{service:?}");

        // One thing that is wrong is told, and only that.
        fs::set_permissions(at("log"), fs::Permissions::from_mode(0o755)).expect("our directory");
        fs::write(at("cgroup/cgroup.controllers"), "cpu memory\n").expect("a scratch file");
        let service = Service::find(&at("config.toml")).expect("there is one");
        let wrong: Vec<_> = service.checks().into_iter().filter(|check| check.state != Ok).collect();
        assert_eq!(wrong.iter().map(|check| check.name).collect::<Vec<_>>(), ["service-log", "service-cgroup"]);
        assert!(wrong[0].found.contains("mode 0755") && wrong[1].found.contains("controller of pids"), "{wrong:?}");

        fs::write(at("config.toml"), "[hosts]\n").expect("a scratch file");
        let service = Service::find(&at("config.toml")).expect("there is one");
        assert_eq!(states(&service), [("configuration", Missing)]);
    }
}
