//! Ways to end, and an exec with a long argv.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};

use super::Stage;
use crate::sys;

/// Dies by `signal`, with or without a core dump.
pub(super) fn die_by_signal(signal: i32, core: bool) -> io::Result<u8> {
    let limit = if core { 64 << 20 } else { 0 };
    setrlimit(Resource::RLIMIT_CORE, limit, limit)?;
    Err(sys::die_by(signal))
}

/// A child for each signal that kills.
pub(super) fn every_signal(stage: &Stage) -> io::Result<u8> {
    for signal in sys::fatal_signals() {
        let child = stage.fork("signal", || die_by_signal(signal, false))?;
        stage.wait_for(child)?;
    }
    stage.ready()?;
    Ok(0)
}

/// The longest single argument used; the kernel's limit is 128 KiB.
const ARG_MAX: usize = 100_000;

/// Executes this program with an argv of `bytes`, terminators included.
pub(super) fn many_args(bytes: u32) -> io::Result<u8> {
    let exe = std::env::current_exe()?;
    let fixed = exe.as_os_str().len() + "exit-code".len() + "0".len() + 3;
    let mut left = (bytes as usize).saturating_sub(fixed);
    let mut command = Command::new(&exe);
    command.args(["exit-code", "0"]);
    while left > 1 {
        let len = left.min(ARG_MAX + 1) - 1;
        command.arg("x".repeat(len));
        left -= len + 1;
    }
    Err(command.exec())
}
