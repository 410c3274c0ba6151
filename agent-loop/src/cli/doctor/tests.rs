//! The judgement, fact by fact, and the two forms of the answer.

use std::path::PathBuf;

use super::advise::{self, Check, State, Tier, advise};
use super::{Report, human};
use crate::kernel::host::{Calls, Cgroups, Facts, KernelLayout, Load, Probe, Rights};
use crate::kernel::{ExitHook, Tracepoints};

const HERE: Probe = Probe::Present(());

/// A host that has everything.
fn whole() -> Facts {
    let calls = Calls { clone3: HERE, open: HERE, send: HERE, wait: HERE, pidfs: HERE, info: HERE, exit_info: HERE };
    let cgroups = Cgroups {
        mounts: vec![PathBuf::from("/sys/fs/cgroup")],
        home: Probe::Present(PathBuf::from("/sys/fs/cgroup/user.slice/a")),
        writable: HERE,
        into: HERE,
        freeze: HERE,
        kill: HERE,
        controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
        version1: Vec::new(),
        initial_namespace: true,
    };
    Facts {
        release: "6.12.1".to_owned(),
        proc: HERE,
        calls,
        boot_timer: HERE,
        cgroups,
        object: Probe::Present(520 * 1024),
        layout: Probe::Present(KernelLayout { exit: ExitHook::Latch, tracepoints: Tracepoints::Whole, pidfs: true }),
        rights: Rights { root: true, capabilities: u64::MAX },
        load: Load::Works,
        lockdown: None,
        bpffs: Probe::Present(PathBuf::from("/sys/fs/bpf")),
        initial_pid_namespace: Probe::Present(true),
    }
}

fn missing<T>(why: &str) -> Probe<T> {
    Probe::Missing(why.to_owned())
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = whole();
    change(&mut facts);
    facts
}

fn named(checks: &[Check], name: &str) -> Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}")).clone()
}

#[test]
fn a_whole_host_is_full_and_mends_nothing() {
    let checks = advise(&whole());
    assert!(checks.iter().all(|check| check.state == State::Ok && check.mend.is_none()), "{checks:#?}");
    assert_eq!(advise::verdict(&checks), "full: exact births and deaths, tree proven empty");
    assert!(advise::is_full(&checks));
}

type Row = (&'static str, fn(&mut Facts), &'static str, State, &'static str, &'static str);

#[test]
fn each_lack_has_its_state_its_verdict_and_its_command() {
    let rows: [Row; 19] = [
        ("another /proc", |facts| facts.proc = missing("x"), "proc", State::Missing, "cannot", "mount -t proc"),
        ("no clone3", |facts| facts.calls.clone3 = missing("x"), "clone3", State::Missing, "cannot", "seccomp"),
        ("no pidfd", |facts| facts.calls.open = missing("x"), "pidfd-open", State::Missing, "cannot", "Linux 5.4"),
        ("no signal", |facts| facts.calls.send = missing("x"), "pidfd-signal", State::Missing, "cannot", "seccomp"),
        ("no wait", |facts| facts.calls.wait = missing("x"), "pidfd-wait", State::Missing, "cannot", "seccomp"),
        ("untried", |facts| facts.calls.wait = Probe::Unknown("x".into()), "pidfd-wait", State::Missing, "cannot", ""),
        ("no timer", |facts| facts.boot_timer = missing("x"), "boot-timer", State::Missing, "cannot", ""),
        ("no cgroup2", |facts| facts.cgroups.home = missing("x"), "cgroup", State::Degraded, "degraded", "cgroup2"),
        (
            "cgroup2 beside v1",
            |facts| {
                facts.cgroups.home = missing("x");
                facts.cgroups.version1 = vec!["memory".to_owned()];
            },
            "cgroup",
            State::Degraded,
            "degraded",
            "mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
        (
            "not ours to write",
            |facts| facts.cgroups.writable = missing("making a: Permission denied (os error 13)"),
            "cgroup-writable",
            State::Degraded,
            "degraded",
            "Delegate=yes",
        ),
        (
            "read-only",
            |facts| facts.cgroups.writable = missing("making a: Read-only file system (os error 30)"),
            "cgroup-writable",
            State::Degraded,
            "degraded",
            "mount -o remount,rw /sys/fs/cgroup",
        ),
        ("no birth", |facts| facts.cgroups.into = missing("x"), "cgroup-birth", State::Missing, "cannot", "clone3"),
        ("no freezer", |facts| facts.cgroups.freeze = missing("x"), "cgroup-freeze", State::Missing, "cannot", ""),
        ("no BTF", |facts| facts.layout = missing("x"), "btf", State::Degraded, "degraded", "DEBUG_INFO_BTF"),
        ("no object", |facts| facts.object = missing("x"), "ebpf-object", State::Degraded, "degraded", "build-ebpf"),
        (
            "no right",
            |facts| {
                facts.load = Load::NotPermitted("x".into());
                facts.rights = Rights { root: false, capabilities: 0 };
            },
            "ebpf-load",
            State::Degraded,
            "degraded",
            "setcap cap_bpf,cap_perfmon+ep",
        ),
        (
            "a right that something takes away",
            |facts| facts.load = Load::NotPermitted("x".into()),
            "ebpf-load",
            State::Degraded,
            "degraded",
            "seccomp",
        ),
        (
            "locked down",
            |facts| {
                facts.load = Load::Refused("x".into());
                facts.lockdown = Some("confidentiality".into());
            },
            "ebpf-load",
            State::Degraded,
            "degraded",
            "lockdown=confidentiality",
        ),
        ("refused", |facts| facts.load = Load::Refused("x".into()), "ebpf-load", State::Degraded, "degraded", "report"),
    ];
    for (lack, change, name, state, verdict, mend) in rows {
        let checks = advise(&with(change));
        let check = named(&checks, name);
        assert_eq!(check.state, state, "{lack}: {check:?}");
        let words = advise::verdict(&checks);
        assert!(words.starts_with(verdict) && words.contains(&check.means), "{lack}: {words}");
        assert!(check.mend.as_deref().unwrap_or_default().contains(mend), "{lack}: {check:?}");
        assert!(!advise::is_full(&checks), "{lack}");
    }
}

#[test]
fn without_a_cgroup_the_right_to_load_is_no_advice() {
    let checks = advise(&with(|facts| {
        facts.load = Load::NotPermitted("x".to_owned());
        facts.rights = Rights { root: false, capabilities: 0 };
        facts.cgroups.writable = missing("x");
    }));
    assert_eq!(named(&checks, "ebpf-load").mend.as_deref(), Some("run as root"));
}

#[test]
fn what_exec_does_not_need_is_shown_and_does_not_count() {
    let checks = advise(&with(|facts| {
        facts.bpffs = missing("nothing is mounted");
        facts.cgroups.controllers = vec!["pids".to_owned()];
        facts.cgroups.version1 = vec!["memory".to_owned()];
        facts.calls.exit_info = missing("x");
    }));
    assert_eq!(named(&checks, "bpffs").mend.as_deref(), Some("mount -t bpf none /sys/fs/bpf"));
    let limits = named(&checks, "controllers");
    assert_eq!(limits.found, "without memory (held by cgroup v1), cpu (not handed down to this cgroup)");
    assert!(limits.means.contains("memory.max, cpu.max"), "{limits:?}");
    assert!(advise::is_full(&checks));
    assert!(advise::verdict(&checks).starts_with("full"));
}

#[test]
fn one_reason_is_told_once() {
    let checks = advise(&with(|facts| {
        facts.layout = missing("x");
        facts.object = missing("x");
        facts.load = Load::NoObject;
    }));
    let verdict = advise::verdict(&checks);
    assert_eq!(verdict.matches("not exact").count(), 1, "{verdict}");
}

#[test]
fn the_tier_is_what_was_found_whatever_the_version_says() {
    let tier = |change: fn(&mut Facts)| advise::tier(&with(change));
    assert_eq!(tier(|facts| facts.release = "4.19.0".to_owned()), Tier::Full);
    assert_eq!(tier(|facts| facts.calls.pidfs = missing("x")), Tier::Good);
    let old = |facts: &mut Facts| {
        facts.calls.pidfs = missing("x");
        facts.cgroups.kill = missing("x");
    };
    assert_eq!(tier(old), Tier::NoCgroupKill);
    assert_eq!(tier(|facts| facts.layout = missing("x")), Tier::Pidfd);
}

#[test]
fn colours_are_for_terminals_alone() {
    let report = Report::of(&with(|facts| facts.bpffs = missing("x")));
    assert!(human(&report, true).contains("\x1b[33m"));
    assert!(!human(&report, false).contains('\x1b'));
}

/// The form of `--json`: whoever reads it relies on these names. A change here is a change for users.
#[test]
fn the_json_has_the_form_that_was_promised() {
    let report = Report::of(&with(|facts| {
        facts.bpffs = missing("nothing is mounted on /sys/fs/bpf");
        facts.layout = missing("it is hidden");
        facts.load = Load::NoLayout;
    }));
    let json = serde_json::to_string_pretty(&report).expect("it can be written") + "\n";
    assert_eq!(json, include_str!("golden.json"), "written was:\n{json}");
}

#[test]
fn what_people_read_is_aligned() {
    let report = Report::of(&with(|facts| facts.cgroups.writable = missing("making a: Permission denied")));
    assert_eq!(human(&report, false), include_str!("golden.txt"), "written was:\n{}", human(&report, false));
}

#[test]
fn a_time_namespace_is_told_where_there_is_one() {
    assert!(super::time_namespace(0).is_none());
    let check = super::time_namespace(-86_400_000_000_000).expect("a check");
    assert!(check.found.contains("-86400 s ahead") && !check.weighs, "{check:?}");
}
