//! The audit log from outside: what `exec` writes, what a killed writer leaves, and who finds what was changed.

mod anchored;
mod bundles;
mod corpus;
mod exec;
mod full;
mod golden;
mod killed;
mod ocsf;
mod power;
mod read;
mod schema;
mod tamper;
mod versions;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use agent_loop::audit::verify::{self, Options, Report};

/// A directory of state, closed to others.
pub(crate) fn state() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().expect("a scratch directory")
}

/// Our own verdict.
pub(crate) fn judged(audit: &Path) -> Report {
    let options = Options { account: true, ..Options::default() };
    verify::verify(audit, &options, &mut |_| {}).expect("a log that can be read")
}

/// The second verifier, which judges one log after the other.
pub(crate) struct Second {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Second {
    /// Starts it; `None` where there is no Python.
    pub(crate) fn start() -> Option<Self> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.py");
        let mut command = Command::new("python3");
        command.arg(script).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Self { child, to, from })
    }

    /// The code that it gives to a log.
    pub(crate) fn judge(&mut self, audit: &Path) -> u8 {
        writeln!(self.to, "{}", audit.display()).expect("it reads");
        let mut code = String::new();
        self.from.read_line(&mut code).expect("it answers");
        code.trim().parse().expect("a code")
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
