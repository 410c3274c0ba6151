//! What follows from the facts of a host for `exec`, and what mends it. [pure]

use serde::Serialize;

use crate::kernel::host::{Facts, Load, Probe};
use crate::kernel::{ExitHook, Tracepoints};

/// How a requirement is met; the order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Met.
    Ok,
    /// Not, or not wholly; what needs it works with less.
    Degraded,
    /// Not, and what needs it does not work.
    Missing,
}

impl State {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// What the kernel makes possible, whatever our rights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Tier {
    /// Linux 6.9 and later.
    Full,
    /// Linux 5.14 to 6.8.
    Good,
    /// Linux 5.8 to 5.13.
    NoCgroupKill,
    /// Anything older, or without type information.
    Pidfd,
}

impl Tier {
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Full => "full, as from Linux 6.9: every process has an inode that is never used again",
            Self::Good => "good, as from Linux 5.14: identity is proven by the kernel's live set",
            Self::NoCgroupKill => "without cgroup.kill, as before Linux 5.14: a tree is frozen and swept to stop it",
            Self::Pidfd => "pidfds alone: births and deaths cannot come from this kernel",
        }
    }
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// Its name, which stays.
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What was found here.
    pub(super) found: String,
    /// What follows from it.
    pub(super) means: String,
    /// The command that mends it, where one does.
    pub(super) mend: Option<String>,
    /// Whether `exec` needs it.
    #[serde(skip)]
    pub(super) weighs: bool,
}

/// The tier, from what was found and not from the version.
pub(super) fn tier(facts: &Facts) -> Tier {
    let inodes = facts.calls.pidfs.present().is_some();
    if facts.layout.present().is_none() {
        Tier::Pidfd
    } else if inodes {
        Tier::Full
    } else if facts.cgroups.kill.present().is_some() {
        Tier::Good
    } else {
        Tier::NoCgroupKill
    }
}

/// The checks that `exec` needs.
pub(super) fn weighing(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks.iter().filter(|check| check.weighs)
}

pub(super) fn is_full(checks: &[Check]) -> bool {
    weighing(checks).all(|check| check.state == State::Ok)
}

/// The sentence over all.
pub(super) fn verdict(checks: &[Check]) -> String {
    let named = |state: State| {
        let mut reasons: Vec<&str> = Vec::new();
        for check in weighing(checks).filter(|check| check.state == state) {
            if !reasons.contains(&check.means.as_str()) {
                reasons.push(&check.means);
            }
        }
        reasons.join("; ")
    };
    let (missing, degraded) = (named(State::Missing), named(State::Degraded));
    if !missing.is_empty() {
        format!("cannot supervise safely: {missing}")
    } else if !degraded.is_empty() {
        format!("degraded: {degraded}")
    } else {
        "full: exact births and deaths, tree proven empty".to_owned()
    }
}

/// Every requirement in the order of its weight.
pub(super) fn advise(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts), own_proc(facts)];
    checks.extend(calls(facts));
    checks.extend(cgroups(facts));
    checks.extend(tracing(facts));
    checks.extend(surroundings(facts));
    checks
}

fn check(name: &'static str, state: State, found: impl Into<String>, means: impl Into<String>) -> Check {
    Check { name, state, found: found.into(), means: means.into(), mend: None, weighs: true }
}

impl Check {
    fn mend(mut self, command: impl Into<String>) -> Self {
        if self.state != State::Ok {
            self.mend = Some(command.into());
        }
        self
    }

    const fn for_others(mut self) -> Self {
        self.weighs = false;
        self
    }
}

/// A requirement that is met or not: what follows when it is, in which state it is when not, and what follows then.
fn plain<T>(name: &'static str, probe: &Probe<T>, ok: &str, otherwise: State, means: &str) -> Check {
    match probe {
        Probe::Present(_) => check(name, State::Ok, "works", ok),
        Probe::Missing(why) => check(name, otherwise, why, means),
        Probe::Unknown(why) => check(name, otherwise, format!("not known: {why}"), means),
    }
}

fn kernel(facts: &Facts) -> Check {
    let tier = tier(facts);
    let state = match tier {
        Tier::Full | Tier::Good | Tier::NoCgroupKill => State::Ok,
        Tier::Pidfd => State::Degraded,
    };
    let means = match tier {
        Tier::Full | Tier::Good | Tier::NoCgroupKill => "births and deaths can come from this kernel",
        Tier::Pidfd => "births and deaths cannot come from this kernel: short-lived processes can be missed",
    };
    // The verdict names the reason, which is a check of its own.
    check("kernel", state, format!("Linux {}", facts.release), means).for_others()
}

fn own_proc(facts: &Facts) -> Check {
    let means = "processes could be taken for others by their numbers, so `exec` refuses to start";
    plain("proc", &facts.proc, "numbers in /proc are ours", State::Missing, means).mend("mount -t proc proc /proc")
}

fn calls(facts: &Facts) -> Vec<Check> {
    const FILTER: &str = "run outside the container or allow the call in its seccomp profile; else Linux 5.4 or later";
    let calls = &facts.calls;
    let needed = |name, probe, ok: &str, without: &str| plain(name, probe, ok, State::Missing, without).mend(FILTER);
    vec![
        needed("clone3", &calls.clone3, "a process is born together with its pidfd", "no command can be started"),
        needed("pidfd-open", &calls.open, "a process can be held", "no process can be held while it is verified"),
        needed("pidfd-signal", &calls.send, "a signal cannot hit a stranger", "no process can be signalled safely"),
        needed("pidfd-wait", &calls.wait, "the command's status is exact", "the command's status cannot be known"),
        needed("boot-timer", &facts.boot_timer, "a limit counts the time in suspend", "no limit can be kept"),
        match &calls.pidfs {
            Probe::Present(()) => check("pidfd-inode", State::Ok, "works", "a process is proven by its inode"),
            Probe::Missing(why) | Probe::Unknown(why) => {
                check("pidfd-inode", State::Ok, why, "a process is proven by the kernel's live set instead")
            }
        },
        match &calls.info {
            Probe::Present(()) => check("pidfd-info", State::Ok, "works", "membership is asked through the pidfd"),
            Probe::Missing(why) | Probe::Unknown(why) => {
                check("pidfd-info", State::Ok, why, "membership is read from /proc under the pidfd instead")
            }
        },
        match &calls.exit_info {
            Probe::Present(()) => {
                check("pidfd-exit", State::Ok, "works", "the status of what somebody else reaped can be asked for")
            }
            Probe::Missing(why) | Probe::Unknown(why) => {
                check("pidfd-exit", State::Ok, why, "the status of what somebody else reaped comes from eBPF alone")
            }
        },
    ]
}

/// What follows when the tree has no cgroup.
const NO_CGROUP: &str =
    "the tree has no cgroup and eBPF cannot follow it: processes can be missed, and it is not proven empty";

fn cgroups(facts: &Facts) -> Vec<Check> {
    let cgroups = &facts.cgroups;
    let home = match &cgroups.home {
        Probe::Present(home) => check("cgroup", State::Ok, home.display().to_string(), "runs are made below it"),
        Probe::Missing(why) | Probe::Unknown(why) => {
            let place = if cgroups.version1.is_empty() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
            check("cgroup", State::Degraded, why, NO_CGROUP)
                .mend(format!("mkdir -p {place} && mount -t cgroup2 none {place}"))
        }
    };
    let mut checks = vec![home];
    if cgroups.home.present().is_none() {
        return checks;
    }
    let writable = match &cgroups.writable {
        Probe::Present(()) => check("cgroup-writable", State::Ok, "works", "a run gets a cgroup of its own"),
        Probe::Missing(why) | Probe::Unknown(why) => {
            let read_only =
                why.contains(&std::io::Error::from_raw_os_error(nix::errno::Errno::EROFS as i32).to_string());
            let mount = cgroups.mounts.first().map_or_else(|| "/sys/fs/cgroup".into(), |at| at.display().to_string());
            check("cgroup-writable", State::Degraded, why, NO_CGROUP).mend(if read_only {
                format!("mount -o remount,rw {mount}")
            } else {
                "run as root, or in a cgroup of your own: systemd-run --user --scope -p Delegate=yes agent-loop exec …"
                    .to_owned()
            })
        }
    };
    checks.push(writable);
    if cgroups.writable.present().is_some() {
        let filter = "a kernel from 5.7 on; in a container, a seccomp profile that allows clone3";
        let into = "a process cannot be born into its cgroup: `exec` cannot start a command";
        checks.push(plain("cgroup-birth", &cgroups.into, "nothing runs outside", State::Missing, into).mend(filter));
        let freeze = "a process cannot be held back until it is recorded: `exec` cannot start a command";
        checks.push(plain("cgroup-freeze", &cgroups.freeze, "births are held back", State::Missing, freeze));
        checks.push(match &cgroups.kill {
            Probe::Present(()) => check("cgroup-kill", State::Ok, "works", "a tree is stopped at once"),
            Probe::Missing(why) | Probe::Unknown(why) => {
                check("cgroup-kill", State::Ok, why, "a tree is stopped by sweeps over its processes instead")
            }
        });
    }
    checks.push(controllers(facts));
    checks
}

/// The limits that controllers would set. `exec` sets none yet.
fn controllers(facts: &Facts) -> Check {
    const LIMITS: [(&str, &str); 3] = [("memory", "memory.max"), ("pids", "pids.max"), ("cpu", "cpu.max")];
    let has = |list: &[String], name: &str| list.iter().any(|other| other == name);
    let (mut missing, mut files, mut old) = (Vec::new(), Vec::new(), false);
    for (name, file) in LIMITS {
        if has(&facts.cgroups.controllers, name) {
            continue;
        }
        let on_1 = has(&facts.cgroups.version1, name);
        old |= on_1;
        missing.push(format!("{name} ({})", if on_1 { "held by cgroup v1" } else { "not handed down to this cgroup" }));
        files.push(file);
    }
    let found = match &missing[..] {
        [] => check("controllers", State::Ok, "memory, pids, cpu", "limits of a run can be set"),
        missing => check(
            "controllers",
            State::Degraded,
            format!("without {}", missing.join(", ")),
            format!("no limits by {}; `exec` needs none of them", files.join(", ")),
        )
        .mend(if old {
            "boot with systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=all on the kernel's command line".to_owned()
        } else {
            let names: Vec<String> = LIMITS
                .iter()
                .filter(|(name, _)| !has(&facts.cgroups.controllers, name))
                .map(|(name, _)| format!("+{name}"))
                .collect();
            format!("echo '{}' > cgroup.subtree_control, in the cgroup above", names.join(" "))
        }),
    };
    found.for_others()
}

/// What follows without eBPF.
const NO_EBPF: &str = "births and deaths are not exact: short-lived processes can be missed";

fn tracing(facts: &Facts) -> Vec<Check> {
    let layout = match &facts.layout {
        Probe::Present(layout) => {
            let exit = match layout.exit {
                ExitHook::GroupDead => "the exit hook says itself when a process is dead",
                ExitHook::Latch => "the live set tells when a process is dead",
            };
            let preempted = match layout.tracepoints {
                Tracepoints::Whole => "",
                Tracepoints::Preemptible => "; hooks can be preempted, and have copies",
            };
            let found = format!("every field is there; {exit}{preempted}");
            check("btf", State::Ok, found, "the kernel side knows its structures")
        }
        Probe::Missing(why) | Probe::Unknown(why) => check("btf", State::Degraded, why, NO_EBPF)
            .mend("boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build it"),
    };
    let object = match &facts.object {
        Probe::Present(bytes) => {
            check("ebpf-object", State::Ok, format!("{} KiB inside", bytes / 1024), "the kernel side is in this binary")
        }
        Probe::Missing(why) | Probe::Unknown(why) => check("ebpf-object", State::Degraded, why, NO_EBPF)
            .mend("cargo xtask build-ebpf && cargo build --release --package agent-loop"),
    };
    // What has its own line above is not weighed twice.
    let load = match &facts.load {
        Load::Works => check("ebpf-load", State::Ok, "loaded, attached, let go", "births and deaths are exact"),
        Load::NoObject => check("ebpf-load", State::Degraded, "there is nothing to load", NO_EBPF).for_others(),
        Load::NoLayout => {
            check("ebpf-load", State::Degraded, "the kernel's structures are not known", NO_EBPF).for_others()
        }
        Load::NotPermitted(why) => check("ebpf-load", State::Degraded, why, NO_EBPF).mend(rights(facts)),
        Load::Refused(why) => check("ebpf-load", State::Degraded, why, NO_EBPF).mend(refused(facts)),
    };
    vec![layout, object, load]
}

/// Who may not load it: what gives the right.
fn rights(facts: &Facts) -> String {
    if let Some(mode) = &facts.lockdown {
        return format!("boot without lockdown={mode}, which forbids it even to root");
    }
    if facts.rights.may_trace() {
        return "raise the limit of locked memory (ulimit -l unlimited), or allow bpf in the container's seccomp profile"
            .to_owned();
    }
    // Without a cgroup of one's own the right alone does not help: the tree is told by its cgroup.
    if facts.cgroups.writable.present().is_some() {
        "run as root, or: setcap cap_bpf,cap_perfmon+ep \"$(command -v agent-loop)\"".to_owned()
    } else {
        "run as root".to_owned()
    }
}

fn refused(facts: &Facts) -> String {
    facts.lockdown.as_ref().map_or_else(
        || "use Linux 5.8 or later; if this is one, report it with this line".to_owned(),
        |mode| format!("boot without lockdown={mode}, which forbids it even to root"),
    )
}

fn surroundings(facts: &Facts) -> Vec<Check> {
    let pids = match &facts.initial_pid_namespace {
        Probe::Present(true) => check("pid-namespace", State::Ok, "the host's", "numbers are the host's"),
        Probe::Present(false) => {
            check("pid-namespace", State::Ok, "one of its own", "numbers are those of this namespace")
        }
        Probe::Missing(why) | Probe::Unknown(why) => {
            check("pid-namespace", State::Degraded, why, "it is not known whose numbers are shown").for_others()
        }
    };
    let names = if facts.cgroups.initial_namespace {
        check("cgroup-namespace", State::Ok, "the host's", "cgroups are told by their depth")
    } else {
        check(
            "cgroup-namespace",
            State::Ok,
            "one of its own",
            "a run is told by its own cgroup, and by who was born in it",
        )
    };
    let bpffs = match &facts.bpffs {
        Probe::Present(at) => check("bpffs", State::Ok, at.display().to_string(), "the daemon keeps its maps there"),
        Probe::Missing(why) | Probe::Unknown(why) => {
            let means = "the daemon would miss what happens while it is restarted; `exec` does not need it";
            check("bpffs", State::Degraded, why, means).mend("mount -t bpf none /sys/fs/bpf")
        }
    };
    vec![pids, names, bpffs.for_others()]
}
