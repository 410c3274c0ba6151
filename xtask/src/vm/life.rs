//! The life of the service with systemd as PID 1: a minimal Debian on a disk, booted again and again.
//!
//! What is played is `service/life.sh`, as in a container, and `vm/life.sh`, which takes a machine of its own. The disk
//! keeps what was written from one boot to the next: after a shutdown, and after the power was cut.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::debian::{Kernel, Tools};
use super::machine::{self, Accelerator, Boot, Root, Seen, Verdict};
use super::{home, verdict};
use crate::{progress, service};

/// What a machine of its own can show.
const LIFE: &str = include_str!("life.sh");
/// Each boot of the disk, and what is played in it: the first ends with a shutdown, the second with a power cut.
const BOOTS: [(&str, &str); 3] = [
    ("-life-1", "install,outlive,stop,strangers,limits,leave,shutdown"),
    ("-life-2", "returned,leave,cut"),
    ("-life-3", "returned,remove,purge"),
];
/// What systemd executes last, when nothing is mounted to be written any more: the verdict of a whole shutdown.
const LAST: &str = "#!/bin/sh\n[ \"$(cat /out/verdict)\" = passed ] && exec /verdict-16\nexec /verdict-17\n";
/// No login on the console, which says what is played, and nothing of systemd on it.
const WORDS: &str = "systemd.mask=serial-getty@ttyS0.service systemd.show_status=no loglevel=1";
const DISK: &str = "1G";

/// The root file system with the package in it.
pub(super) fn root() -> Result<PathBuf> {
    let root = service::debian(true)?;
    service::script(&root, "life-vm.sh", LIFE)?;
    let last = root.join("usr/lib/systemd/system-shutdown");
    fs::create_dir_all(&last).with_context(|| format!("making {}", last.display()))?;
    service::script(&last, "verdict", LAST)?;
    for value in [16, 17] {
        let path = root.join(format!("verdict-{value}"));
        fs::write(&path, verdict::program(value)).context("writing the verdict's program")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("setting a mode")?;
    }
    Ok(root)
}

/// Plays the life on a new disk; the boots that were seen, up to the first that did not pass.
pub(super) fn play(
    tools: &Tools,
    kernel: &Kernel,
    accelerator: Accelerator,
    root: &Path,
    limit: Duration,
) -> Result<Vec<Seen>> {
    let disk = home().join("disk");
    drop(fs::remove_file(&disk));
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-d"]).arg(root).arg(&disk).arg(DISK);
    progress::run("making a disk of it", &mut make)?;
    let mut boots = Vec::new();
    for (name, parts) in BOOTS {
        let words = format!("{WORDS} agent_loop.life={parts}");
        let boot = Boot { accelerator, name, root: Root::Disk(&disk), words: &words, limit };
        let seen = machine::run(tools, kernel, &boot)?;
        let passed = seen.verdict == Verdict::Passed;
        boots.push(seen);
        if !passed {
            break;
        }
    }
    fs::remove_file(&disk).context("removing the disk")?;
    Ok(boots)
}
