//! One machine: boots a kernel, keeps what it says in a log, and reads its verdict.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::debian::{Kernel, Tools};
use super::home;
use crate::progress;

const TICK: Duration = Duration::from_millis(200);
const HEARTBEAT: Duration = Duration::from_secs(15);
const MEMORY: &str = "2048";
/// The kernel's command line; by `agent_loop.vm` a test knows that the clock of this machine is its own to set.
const WORDS: &str = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off no_timer_check agent_loop.vm";

/// What the machine said at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything that had to pass did.
    Passed,
    /// Something did not.
    Failed,
    /// It did not come to say: a panic, QEMU's own error, or the time was over.
    None(String),
}

impl Verdict {
    /// By QEMU's exit status: its debug port makes (value << 1) | 1 of a value.
    fn of(code: Option<i32>) -> Self {
        match code {
            Some(33) => Self::Passed,
            Some(35) => Self::Failed,
            Some(code) => Self::None(format!("QEMU ended with {code}")),
            None => Self::None("QEMU was killed".to_owned()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed => f.write_str("failed"),
            Self::None(why) => write!(f, "no verdict ({why})"),
        }
    }
}

/// What was seen of one kernel.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    pub(super) log: PathBuf,
    /// By its own `uname -r`.
    pub(super) release: Option<String>,
    pub(super) passed: u64,
    pub(super) failed: Vec<String>,
    pub(super) skipped: Vec<String>,
    /// What was run, with its exit code and time.
    pub(super) steps: Vec<String>,
    /// Complaints of the kernel.
    pub(super) kernel: Vec<String>,
}

impl Seen {
    /// Everything but the figures, a line each.
    pub(super) fn details(&self) -> impl Iterator<Item = &str> {
        [&self.steps, &self.failed, &self.skipped, &self.kernel].into_iter().flatten().map(String::as_str)
    }
}

/// How the processor of a machine is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The host's own.
    Kvm,
    /// An emulated one.
    Emulated,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Emulated => "emulated",
        })
    }
}

/// What a machine is started with, beside its kernel.
pub(super) struct Boot<'a> {
    pub(super) accelerator: Accelerator,
    /// What the log's name says after the kernel's.
    pub(super) name: &'a str,
    pub(super) root: Root<'a>,
    /// More words of the kernel's command line.
    pub(super) words: &'a str,
    pub(super) limit: Duration,
}

/// What the machine's files lie on.
pub(super) enum Root<'a> {
    /// Memory, filled from this.
    Initramfs(&'a Path),
    /// A disk with a file system, which keeps what is written. Debian's cloud kernels have NVMe and ext4 built in.
    Disk(&'a Path),
}

/// Whether KVM boots this kernel: where `/dev/kvm` opens it may still run none, as inside some virtual machines.
pub(super) fn accelerator(tools: &Tools, kernel: &Kernel, trial: &Path) -> Result<Accelerator> {
    const PATIENCE: Duration = Duration::from_secs(15);
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        progress::note(&format!("no KVM ({error}): the processor is emulated"));
        return Ok(Accelerator::Emulated);
    }
    let (accelerator, root) = (Accelerator::Kvm, Root::Initramfs(trial));
    let boot = Boot { accelerator, name: "-kvm", root, words: "", limit: PATIENCE };
    let seen = run(tools, kernel, &boot)?;
    if seen.verdict == Verdict::Passed {
        progress::note(&format!("KVM boots {}: it is used", kernel.release));
        return Ok(Accelerator::Kvm);
    }
    progress::note(&format!("KVM does not boot {} ({}): the processor is emulated", kernel.release, seen.verdict));
    Ok(Accelerator::Emulated)
}

/// Boots `kernel`; ends it when the time is over.
pub(super) fn run(tools: &Tools, kernel: &Kernel, boot: &Boot<'_>) -> Result<Seen> {
    progress::say(&format!("virtual machine: {}{}, {}", kernel.release, boot.name, boot.accelerator));
    let log = home().join(format!("{}{}.log", kernel.release, boot.name));
    drop(fs::remove_file(&log));
    let mut qemu = tools.qemu();
    // Emulated by QEMU 7.2, 6.12 breaks at cmpxchg16b.
    qemu.args(match boot.accelerator {
        Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
        Accelerator::Emulated => ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"],
    });
    qemu.args(["-machine", "q35", "-m", MEMORY, "-smp", "2"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial"]);
    qemu.arg(format!("file:{}", log.display())).arg("-kernel").arg(&kernel.image).stdin(Stdio::null());
    let root = match boot.root {
        Root::Initramfs(initramfs) => {
            qemu.arg("-initrd").arg(initramfs);
            ""
        }
        Root::Disk(disk) => {
            qemu.args(["-device", "nvme,drive=disk,serial=disk", "-drive"]);
            qemu.arg(format!("id=disk,if=none,format=raw,file={}", disk.display()));
            "root=/dev/nvme0n1 rw"
        }
    };
    qemu.arg("-append").arg(format!("{WORDS} {root} {}", boot.words));
    let limit = boot.limit;
    let began = Instant::now();
    let mut child = qemu.spawn().context("starting qemu-system-x86_64")?;
    let mut told = Instant::now();
    let verdict = loop {
        if let Some(status) = child.try_wait().context("waiting for QEMU")? {
            break Verdict::of(status.code());
        }
        if began.elapsed() > limit {
            child.kill().context("ending QEMU")?;
            child.wait().context("waiting for QEMU")?;
            break Verdict::None(format!("not after {} s; --seconds gives it more", limit.as_secs()));
        }
        if told.elapsed() > HEARTBEAT {
            told = Instant::now();
            let text = read(&log);
            let step = text.lines().rev().find_map(|line| line.strip_prefix("VM STEP ")).unwrap_or("boot");
            progress::note(&format!("{step}: {} s", began.elapsed().as_secs()));
        }
        thread::sleep(TICK);
    };
    Ok(seen(&read(&log), verdict, began.elapsed(), log))
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).replace('\r', "")
}

fn seen(text: &str, verdict: Verdict, took: Duration, log: PathBuf) -> Seen {
    let after = |prefix: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let ended = |how: &'static str| text.lines().filter(move |line| line.starts_with("test ") && line.ends_with(how));
    let skipped = after("VM SKIPPED ");
    let itself = |test: &str| skipped.iter().any(|line| line.contains(test));
    let tests = ended(" ... ok").filter_map(|line| line.split(' ').nth(1));
    let played = after("== ok: ");
    let failed = ended(" ... FAILED").map(|line| line.trim_start_matches("test "));
    let failed = failed.chain(text.lines().filter(|line| line.starts_with("FAILED: ")));
    Seen {
        verdict,
        took,
        log,
        release: after("VM RELEASE ").into_iter().next(),
        passed: (tests.filter(|test| !itself(test)).count() + played.len()) as u64,
        failed: failed.map(str::to_owned).collect(),
        skipped: skipped.iter().map(|line| format!("skipped {line}")).collect(),
        steps: [after("VM END "), played].concat(),
        kernel: after("VM KERNEL "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_values_are_a_verdict() {
        assert_eq!((Verdict::of(Some(33)), Verdict::of(Some(35))), (Verdict::Passed, Verdict::Failed));
        for code in [None, Some(0), Some(1), Some(16), Some(17)] {
            assert!(matches!(Verdict::of(code), Verdict::None(_)), "{code:?}");
        }
    }

    #[test]
    fn what_skipped_itself_did_not_pass() {
        let text = "VM RELEASE 6.1.0\ntest a::b ... ok\ntest a::c ... ok\ntest a::d ... FAILED\n\
                    VM SKIPPED x::a::c: needs y\nVM END a code 101 after 3 s\nVM VERDICT 17\n";
        let seen = seen(text, Verdict::Failed, Duration::ZERO, PathBuf::new());
        assert_eq!((seen.passed, seen.failed.len(), seen.skipped.len()), (1, 1, 1));
        assert_eq!(seen.release.as_deref(), Some("6.1.0"));
    }
}
