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
/// What plays the script of this boot, on the console, which the machine's log keeps.
const BEGIN: &str = "#!/bin/bash
rm -rf /out && mkdir /out && ln -s /dev/ttyS0 /out/log
exec bash \"/life$(tr ' ' '\\n' </proc/cmdline | sed -n 's/^agent_loop.life=//p').sh\"
";
/// Each boot of the disk, and what is played in it: the first ends with a shutdown, the second with a power cut.
const BOOTS: [(&str, &[&str]); 3] = [
    ("-1", &["install", "outlive", "stop", "strangers", "limits", "leave", "end"]),
    ("-2", &["returned", "leave", "cut"]),
    ("-3", &["returned", "remove", "purge", "end"]),
];
/// What systemd executes last, when nothing is mounted to be written any more: the verdict of a whole shutdown.
const LAST: &str = "#!/bin/sh
grep -qw agent_loop.vm /proc/cmdline || exit 0
[ \"$(cat /out/verdict)\" = passed ] && exec /verdict-16
exec /verdict-17
";
/// No login on the console, which says what is played, and nothing of systemd on it.
const WORDS: &str = "systemd.mask=serial-getty@ttyS0.service systemd.show_status=no loglevel=1";
const DISK: &str = "1G";
/// What stands before the first part.
const HEAD: &str = "";

/// A part of what is played, by its name: a line `#: NAME` begins it.
fn part(name: &str) -> Result<&'static str> {
    let begins = |text: &'static str| {
        let mark = format!("\n#: {name}\n");
        let at = if name == HEAD { 0 } else { text.find(&mark)? + mark.len() };
        text.get(at..at + text.get(at..)?.find("\n#: ").map_or(text.len() - at, |end| end + 1))
    };
    [service::LIFE, LIFE].into_iter().find_map(begins).with_context(|| format!("the life has no part {name}"))
}

/// The root file system with the package in it.
pub(super) fn root() -> Result<PathBuf> {
    let root = service::debian(true)?;
    service::script(&root, "life.sh", BEGIN)?;
    for (boot, parts) in BOOTS {
        let of_boot = std::iter::once(HEAD).chain(parts.iter().copied()).map(part).collect::<Result<Vec<_>>>()?;
        service::script(&root, &format!("life{boot}.sh"), &of_boot.concat())?;
    }
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
    for (name, _) in BOOTS {
        let words = format!("{WORDS} agent_loop.life={name}");
        let name = format!("-life{name}");
        let boot = Boot { accelerator, name: &name, root: Root::Disk(&disk), words: &words, limit };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_every_boot_is_there_and_none_runs_into_the_next() {
        for (_, parts) in BOOTS {
            for name in [HEAD].iter().chain(parts) {
                let text = part(name).expect(name);
                assert!(text.ends_with('\n') && !text.contains("\n#: "), "{name}: {text}");
            }
        }
        assert!(part("install").expect("a part").starts_with("dpkg -i"));
        assert!(part("end").expect("a part").ends_with("systemctl poweroff\n"));
        assert!(part("nothing").is_err());
    }
}
