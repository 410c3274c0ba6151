//! The real `claude` command, as a test runs it under `agent-loop exec`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Exec;
use crate::stand_in::StandIn;

/// The built-in place of what `cargo xtask claude` fetches.
const FETCHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/claude/claude");

/// The real `claude`: `AGENT_LOOP_CLAUDE`, else what `cargo xtask claude` fetched.
#[must_use]
pub fn claude() -> Option<PathBuf> {
    let path = std::env::var_os("AGENT_LOOP_CLAUDE").map_or_else(|| FETCHED.into(), PathBuf::from);
    path.is_file().then_some(path)
}

/// A `claude -p` that talks to a stand-in.
#[derive(Debug)]
pub struct Claude<'a> {
    stand_in: &'a StandIn,
    args: Vec<OsString>,
}

impl<'a> Claude<'a> {
    /// One that may use its Bash tool.
    #[must_use]
    pub fn new(stand_in: &'a StandIn) -> Self {
        Self { stand_in, args: vec!["--allowedTools".into(), "Bash".into()] }
    }

    /// One that may do all it wants, which it refuses to root.
    #[must_use]
    pub fn unasked(stand_in: &'a StandIn) -> Self {
        Self { stand_in, args: vec!["--dangerously-skip-permissions".into()] }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The command of `exec`: with a home and a working directory of its own in the scratch directory, which
    /// everybody may enter and write to.
    ///
    /// # Panics
    /// When there is no `claude`, which `needs!(claude)` tells before.
    #[must_use]
    pub fn under(self, exec: Exec) -> Exec {
        let (home, work, bin) = (exec.path("home"), exec.path("work"), exec.path("bin"));
        open_to_all(&exec.path(""));
        for dir in [&home, &work, &bin] {
            fs::create_dir(dir).expect("a fresh directory");
            open_to_all(dir);
        }
        // In the scratch directory all may reach it, and nothing of the tree can hide from its path.
        let file = bin.join("claude");
        let from = claude().expect("claude was fetched");
        fs::hard_link(&from, &file).or_else(|_| fs::copy(&from, &file).map(drop)).expect("room for claude");
        let url = self.stand_in.url();
        let exec = exec.with(|command| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            command.env_clear().env("PATH", path).env("ANTHROPIC_BASE_URL", url).env("ANTHROPIC_API_KEY", "any");
            command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1").env("SHELL", "/bin/bash");
            command.env("CLAUDE_CODE_TMPDIR", &work).env("TMPDIR", &work).current_dir(&work)
        });
        // By `env`, since `--user` sets a HOME of its own.
        let mut home_is = OsString::from("HOME=");
        home_is.push(&home);
        let mut command = vec!["env".into(), home_is, file.into(), "-p".into(), "do it".into()];
        command.extend(self.args);
        exec.cmd(command)
    }
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("our own directory");
}
