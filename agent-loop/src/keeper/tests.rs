//! Facts about real processes, cgroups and recycled numbers on this kernel.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio as StdStdio};
use std::time::Duration;

use super::cgroup::{CgroupError, Home, Limits, OwnCgroup, RunCgroup};
use super::guard::Guard;
use super::launch::{
    self, Become, LaunchError, LaunchSpec, Place, Resource, Rlimit, Session, Start, Stdio, Step, User, launch,
};
use super::pidfd::PidFd;
use super::reap;
use super::scan::Stat;
use super::signal::{self, Delivery, Expected, LiveSet, Refusal, Verified, Witnesses, verify};
use super::testing::{Held, at, cgroup, launch_in, recycle, root, scratch, shell, skip, until};
use crate::model::{Live, PidfsIno, ProcessKey, ProofKind, RunTag, WaitStatus};

const TERM: u8 = 15;
const KILL: u8 = 9;

/// A live set that holds what the test says.
struct Set(Option<Live>);

impl LiveSet for Set {
    fn lookup(&self, tgid: u32) -> io::Result<Option<Live>> {
        Ok(self.0.filter(|live| live.key.tgid == tgid))
    }
}

fn alone(run: RunTag) -> Witnesses<'static> {
    Witnesses { run, live: None, cgroup: None }
}

fn with(cgroup: &RunCgroup) -> Witnesses<'_> {
    Witnesses { run: cgroup.tag(), live: None, cgroup: Some(cgroup.own()) }
}

/// A waiting process in the cgroup.
fn member(cgroup: &RunCgroup) -> Held {
    Held::born(None, Some(cgroup)).expect("clone3 into the cgroup")
}

fn open(pid: u32) -> PidFd {
    PidFd::open(pid).expect("pidfd_open").expect("alive")
}

// ---- pidfd

#[test]
fn a_free_number_opens_nothing() {
    assert!(PidFd::open(4_000_000).expect("no error").is_none());
    assert!(PidFd::open(u32::MAX).expect("no error").is_none());
}

#[test]
fn two_descriptors_of_one_process_have_one_inode_and_of_two_have_two() {
    let (one, two) = (Held::pause(), Held::pause());
    let Some(ino) = one.pidfd.ino() else { return skip("inode", "no pidfs on this kernel") };
    assert_eq!(open(one.pid()).ino(), Some(ino));
    assert_ne!(two.pidfd.ino(), Some(ino));
}

#[test]
fn the_kernel_tells_pid_parent_and_cgroup_of_a_pidfd() {
    let Some(cgroup) = cgroup("pidfd info") else { return };
    let child = member(&cgroup);
    let Some(info) = child.pidfd.info().expect("info") else { return skip("pidfd info", "before 6.13") };
    assert_eq!((info.pid, info.ppid), (child.pid(), std::process::id()));
    assert_eq!(info.cgroup, Some(cgroup.tag().0));
}

#[test]
fn exit_codes_and_every_signal_are_told_apart() {
    for (signal, core) in [(10, false), (9, false), (15, false), (34, false), (64, false)] {
        let mut child = Held::pause();
        let fd = open(child.pid());
        let run = RunTag(0);
        let child_fd = PidFd::of_own_child(fd.as_fd().try_clone_to_owned().expect("dup"), child.pid(), run);
        let Ok(Verified::Proof(proof)) = verify(&child_fd, Expected::OwnChild, &alone(run)) else { panic!("no proof") };
        assert_eq!(proof.send(signal).expect("sent"), Delivery::Sent(ProofKind::OwnChild));
        assert_eq!(child.wait(), WaitStatus::Signaled { signal, core });
    }
}

#[test]
fn a_leader_that_exited_first_is_not_a_death() {
    let Some((_cgroup, child)) = leaderless("leader first") else { return };
    assert_eq!(Stat::read(child.pid()).expect("stat").expect("there").state, 'Z');
    assert!(!child.pidfd.has_exited().expect("poll"));
    assert_eq!(child.pidfd.try_wait().expect("waitid"), None);
}

// ---- signal

#[test]
fn i03_nobody_signals_pid_0_1_itself_or_a_kernel_thread() {
    let run = RunTag(7);
    for pid in [0, 1] {
        for expected in [Expected::Member { pid }, Expected::Descendant { pid }, known(pid, 5, None)] {
            assert!(
                matches!(signal::open_and_send(expected, &alone(run), TERM), Err(Refusal::Forbidden(p)) if p == pid)
            );
        }
    }
    let one = open(1);
    assert!(matches!(verify(&one, Expected::OwnChild, &alone(run)), Err(Refusal::Forbidden(1))));
    let own = std::process::id();
    let fd = open(own);
    assert!(matches!(verify(&fd, Expected::Descendant { pid: own }, &alone(run)), Err(Refusal::Ourselves(_))));
    // kthreadd is 2 wherever we see it at all.
    let Some(thread) = PidFd::open(2).expect("open") else { return skip("kernel thread", "pid 2 is not visible") };
    if Stat::read(2).expect("stat").is_some_and(|stat| stat.is_kernel_thread()) {
        let refused = verify(&thread, Expected::Descendant { pid: 2 }, &alone(run));
        assert!(matches!(refused, Err(Refusal::KernelThread(2))));
    }
}

fn known(tgid: u32, start: u64, ino: Option<PidfsIno>) -> Expected {
    Expected::Known { key: ProcessKey::new(tgid, start), ino }
}

#[test]
fn a_known_process_in_the_cgroup_is_proven_by_its_inode() {
    let Some(cgroup) = cgroup("inode proof") else { return };
    let mut child = member(&cgroup);
    let Some(ino) = child.pidfd.ino() else { return skip("inode proof", "no pidfs") };
    let fd = open(child.pid());
    let Ok(Verified::Proof(proof)) = verify(&fd, known(child.pid(), 1, Some(ino)), &with(&cgroup)) else {
        panic!("no proof")
    };
    assert_eq!(proof.send(KILL).expect("sent"), Delivery::Sent(ProofKind::PidfsIno));
    assert_eq!(child.wait(), WaitStatus::Signaled { signal: KILL, core: false });
}

#[test]
fn i02_a_wrong_inode_is_refused_and_a_right_one_outside_the_run_too() {
    let Some(cgroup) = cgroup("wrong inode") else { return };
    let (inside, outside) = (member(&cgroup), Held::pause());
    let (Some(inside_ino), Some(outside_ino)) = (inside.pidfd.ino(), outside.pidfd.ino()) else {
        return skip("wrong inode", "no pidfs");
    };
    let fd = open(inside.pid());
    let wrong = verify(&fd, known(inside.pid(), 1, Some(PidfsIno(inside_ino.0 + 1))), &with(&cgroup));
    assert!(matches!(wrong, Err(Refusal::OtherInode { .. })));
    let fd = open(outside.pid());
    let stranger = verify(&fd, known(outside.pid(), 1, Some(outside_ino)), &with(&cgroup));
    assert!(matches!(stranger, Err(Refusal::NotOurs(_))));
    // A correct inode with a live-set entry of another run is no belonging either.
    let set = Set(Some(live(outside.pid(), 1, RunTag(1))));
    let witnesses = Witnesses { live: Some(&set), ..with(&cgroup) };
    assert!(matches!(verify(&fd, known(outside.pid(), 1, Some(outside_ino)), &witnesses), Err(Refusal::NotOurs(_))));
    assert!(inside.is_alive() && outside.is_alive());
}

fn live(tgid: u32, start: u64, run: RunTag) -> Live {
    Live { key: ProcessKey::new(tgid, start), ino: None, run, forker: None }
}

#[test]
fn the_live_set_proves_an_exact_start_of_our_run_and_nothing_else() {
    let child = Held::pause();
    let (pid, run) = (child.pid(), RunTag(77));
    let fd = open(pid);
    let ask = |set: Option<Live>| {
        let set = Set(set);
        verify(&fd, known(pid, 1000, None), &Witnesses { run, live: Some(&set), cgroup: None }).map(|verified| {
            match verified {
                Verified::Proof(proof) => Some(proof.kind()),
                Verified::Gone => None,
            }
        })
    };
    assert_eq!(ask(Some(live(pid, 1000, run))).expect("proof"), Some(ProofKind::LiveSet));
    assert!(matches!(ask(Some(live(pid, 1001, run))), Err(Refusal::OtherStart { .. })));
    assert!(matches!(ask(Some(live(pid, 1000, RunTag(78)))), Err(Refusal::NotOurs(_))));
    assert!(matches!(ask(None), Err(Refusal::NotLive(_))));
    // I4: what a file says about number and time is no proof without a witness in the kernel.
    assert!(matches!(verify(&fd, known(pid, 1000, None), &alone(run)), Err(Refusal::NoMeans(_))));
}

#[test]
fn a_live_set_that_cannot_be_asked_is_a_refusal() {
    struct Broken;
    impl LiveSet for Broken {
        fn lookup(&self, _: u32) -> io::Result<Option<Live>> {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }
    }
    let child = Held::pause();
    let fd = open(child.pid());
    let witnesses = Witnesses { run: RunTag(1), live: Some(&Broken), cgroup: None };
    let refused = verify(&fd, known(child.pid(), 1, child.pidfd.ino()), &witnesses);
    assert!(matches!(refused, Err(ref refusal) if refusal.errno() == Some(libc::EPERM)));
}

#[test]
fn a_member_is_proven_wherever_it_is_in_the_subtree_and_a_stranger_is_not() {
    let Some(cgroup) = cgroup("member") else { return };
    let (inside, outside) = (member(&cgroup), Held::pause());
    let check =
        |pid| verify(&open(pid), Expected::Member { pid }, &with(&cgroup)).map(|v| matches!(v, Verified::Proof(_)));
    assert!(check(inside.pid()).expect("proof"));
    let nested = cgroup.path().join("a/b");
    fs::create_dir_all(&nested).expect("nested cgroups");
    fs::write(nested.join("cgroup.procs"), inside.pid().to_string()).expect("moved");
    assert!(check(inside.pid()).expect("proof"));
    assert!(cgroup.own().holds_before_6_13(&open(inside.pid())).expect("by name"));
    assert!(matches!(check(outside.pid()), Err(Refusal::NotOurs(_))));
    assert!(!cgroup.own().holds_before_6_13(&open(outside.pid())).expect("by name"));
    assert_eq!(cgroup.own().procs().expect("procs").pids, BTreeSet::from([inside.pid()]));
}

#[test]
fn a_removed_cgroup_proves_nothing_and_makes_nobody_gone() {
    let Some(cgroup) = cgroup("removed cgroup") else { return };
    let child = Held::pause();
    cgroup.remove().expect("removed");
    let refused = verify(&child.pidfd, Expected::Member { pid: child.pid() }, &with(&cgroup)).map(|_| ());
    assert!(matches!(refused, Err(Refusal::Io { .. } | Refusal::NotOurs(_))), "{refused:?}");
}

#[test]
fn the_name_of_a_removed_cgroup_makes_nobody_a_member_of_it() {
    let Some(cgroup) = cgroup("name of a removed cgroup") else { return };
    let child = Held::pause();
    cgroup.remove().expect("removed");
    fs::create_dir(cgroup.path()).expect("another of the same name");
    fs::write(cgroup.path().join("cgroup.procs"), child.pid().to_string()).expect("moved");
    let by_name = cgroup.own().holds_before_6_13(&open(child.pid()));
    let refused = verify(&child.pidfd, Expected::Member { pid: child.pid() }, &with(&cgroup)).map(|_| ());
    child.kill();
    until("its end", || !child.is_alive());
    until("its removal", || fs::remove_dir(cgroup.path()).is_ok());
    assert!(by_name.is_err(), "{by_name:?}");
    assert!(matches!(refused, Err(Refusal::Io { .. } | Refusal::NotOurs(_))), "{refused:?}");
}

#[test]
fn a_zombie_is_gone_whoever_it_was_expected_to_be() {
    let Some(cgroup) = cgroup("zombie") else { return };
    let child = member(&cgroup);
    child.kill();
    until("its end", || !child.is_alive());
    for expected in [Expected::Member { pid: child.pid() }, known(child.pid(), 1, child.pidfd.ino())] {
        assert!(matches!(verify(&child.pidfd, expected, &with(&cgroup)), Ok(Verified::Gone)));
    }
}

#[test]
fn a_descriptor_of_another_number_is_refused() {
    let (one, two) = (Held::pause(), Held::pause());
    let refused = verify(&one.pidfd, Expected::Descendant { pid: two.pid() }, &alone(RunTag(1)));
    assert!(matches!(refused, Err(Refusal::OtherNumber { .. })));
}

#[test]
fn only_the_descriptor_of_clone3_proves_an_own_child_and_only_for_its_run() {
    let child = Held::pause();
    let proven = verify(&child.pidfd, Expected::OwnChild, &alone(RunTag(0)));
    assert!(matches!(proven, Ok(Verified::Proof(ref proof)) if proof.kind() == ProofKind::OwnChild));
    assert!(matches!(verify(&child.pidfd, Expected::OwnChild, &alone(RunTag(1))), Err(Refusal::NotOurChild(_))));
    let opened = open(child.pid());
    assert!(matches!(verify(&opened, Expected::OwnChild, &alone(RunTag(0))), Err(Refusal::NotOurChild(_))));
}

#[test]
fn a_grandchild_descends_from_us_and_our_parent_does_not() {
    let mut shell =
        Command::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]).stdout(StdStdio::piped()).spawn().expect("sh");
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(shell.stdout.take().expect("piped")), &mut line).expect("a pid");
    let grandchild: u32 = line.trim().parse().expect("a pid");
    let sent = signal::open_and_send(Expected::Descendant { pid: grandchild }, &alone(RunTag(1)), KILL);
    let status = shell.wait();
    assert_eq!(sent.expect("sent"), Delivery::Sent(ProofKind::Descendant));
    status.expect("sh ended");
    let parent = nix::unistd::getppid().as_raw().unsigned_abs();
    if parent > 1 {
        let refused = verify(&open(parent), Expected::Descendant { pid: parent }, &alone(RunTag(1))).map(drop);
        assert!(matches!(refused, Err(Refusal::NotADescendant(_))), "{refused:?}");
    }
}

#[test]
fn a_number_that_is_no_signal_is_refused() {
    let child = Held::pause();
    for number in [0, 65, 255] {
        let Ok(Verified::Proof(proof)) = verify(&child.pidfd, Expected::OwnChild, &alone(RunTag(0))) else { panic!() };
        assert!(matches!(proof.send(number), Err(Refusal::NotASignal(n)) if n == number));
    }
    assert!(child.is_alive());
}

/// Each way to expect a process, over a recycled number at one of three moments; the stranger always lives.
#[test]
fn i01_a_recycled_number_never_leads_to_the_stranger() {
    if !root("recycled number") {
        return;
    }
    let Some(cgroup) = cgroup("recycled number") else { return };
    let mut recycled = 0;
    for moment in 0..3 {
        for way in 0..3 {
            for _ in 0..20 {
                let mut victim = member(&cgroup);
                let pid = victim.pid();
                let set = Set(Some(live(pid, 1000, cgroup.tag())));
                let witnesses = match way {
                    0 => with(&cgroup),
                    1 => Witnesses { run: cgroup.tag(), live: Some(&set), cgroup: None },
                    _ => with(&cgroup),
                };
                let expected = match way {
                    0 => known(pid, 1000, victim.pidfd.ino()),
                    1 => known(pid, 1000, None),
                    _ => Expected::Member { pid },
                };
                let mut stranger = None;
                if moment == 0 {
                    stranger = recycle(&mut victim);
                    // I5: the entry is gone when the number is free; a set that still had it would lie.
                }
                let emptied = Set(None);
                let witnesses =
                    if moment == 0 && way == 1 { Witnesses { live: Some(&emptied), ..witnesses } } else { witnesses };
                let Some(fd) = PidFd::open(pid).expect("open") else { continue };
                if moment == 1 {
                    stranger = recycle(&mut victim);
                }
                match verify(&fd, expected, &witnesses) {
                    Ok(Verified::Proof(proof)) => {
                        if moment == 2 {
                            stranger = recycle(&mut victim);
                        }
                        let delivery = proof.send(KILL).expect("no refusal here");
                        if stranger.is_some() {
                            assert_eq!(delivery, Delivery::Gone, "moment {moment}, way {way}");
                        }
                    }
                    Ok(Verified::Gone) => assert_eq!(moment, 1, "way {way}"),
                    Err(refusal) => assert_eq!(moment, 0, "way {way}: {refusal}"),
                }
                // Another process of the machine may have taken the number first; then nothing was recycled.
                if let Some(stranger) = stranger {
                    assert_eq!(stranger.pid(), pid);
                    assert!(stranger.is_alive(), "moment {moment}, way {way}: the stranger was hit");
                    recycled += 1;
                }
            }
        }
    }
    assert!(recycled > 100, "only {recycled} numbers could be recycled");
}

// ---- cgroup

#[test]
fn our_own_cgroup_is_found_and_a_run_is_one_level_below() {
    let Some(cgroup) = cgroup("own cgroup") else { return };
    let home = Home::find().expect("found before");
    assert_eq!(cgroup.path().parent(), Some(home.path()));
    assert_eq!(
        fs::metadata(cgroup.path()).map(|dir| std::os::unix::fs::MetadataExt::ino(&dir)).expect("stat"),
        cgroup.tag().0
    );
    if let Some(level) = cgroup.level() {
        assert!(level >= 1);
    }
    assert!(!cgroup.own().populated().expect("events"));
}

#[test]
fn a_name_that_could_lead_elsewhere_makes_no_cgroup() {
    let Ok(home) = Home::find() else { return skip("names", "no cgroup2") };
    for name in ["", ".", "..", "a/b", "/x", "-x", ".x", "cgroup.procs", "a\nb", "a..b", &"x".repeat(300)] {
        assert!(matches!(RunCgroup::create(&home, name), Err(CgroupError::Name(_))), "{name:?}");
    }
}

#[test]
fn an_existing_cgroup_is_never_used_for_another_attempt() {
    let Some(cgroup) = cgroup("existing cgroup") else { return };
    let home = Home::find().expect("found before");
    assert!(matches!(RunCgroup::create(&home, cgroup.leaf()), Err(CgroupError::Io { .. })));
    assert!(cgroup.path().exists());
}

#[test]
fn a_directory_proves_only_the_recorded_cgroup() {
    let Some(cgroup) = cgroup("cgroup proof") else { return };
    let dir = || cgroup.own().dir().try_clone_to_owned().expect("dup");
    assert!(OwnCgroup::prove(dir(), cgroup.tag(), None).is_ok());
    let other = OwnCgroup::prove(dir(), RunTag(cgroup.tag().0 + 1), None);
    assert!(matches!(other, Err(CgroupError::OtherCgroup { .. })));
    let tmp = File::open("/").expect("/");
    assert!(matches!(OwnCgroup::prove(tmp.into(), cgroup.tag(), None), Err(CgroupError::NotACgroup)));
}

#[test]
fn i03_a_cgroup_that_holds_us_is_not_killed() {
    let Ok(home) = Home::find() else { return skip("own kill", "no cgroup2") };
    let id = RunTag(fs::metadata(home.path()).map(|dir| std::os::unix::fs::MetadataExt::ino(&dir)).expect("stat"));
    match OwnCgroup::prove(home.dir().try_clone_to_owned().expect("dup"), id, None) {
        Ok(own) => {
            assert!(matches!(signal::kill_cgroup(&own, id), Err(Refusal::HoldsOurselves(_))));
            assert!(matches!(signal::freeze_cgroup(&own, id), Err(Refusal::HoldsOurselves(_))));
        }
        // Ours is the root: that is nobody's run.
        Err(error) => assert!(matches!(error, CgroupError::NotACgroup), "{error}"),
    }
}

#[test]
fn membership_of_whoever_was_listed_takes_no_walk() {
    let Some(cgroup) = cgroup("membership") else { return };
    let deep = cgroup.path().join("a/b");
    fs::create_dir_all(&deep).expect("nested");
    let child = Held::pause();
    fs::write(deep.join("cgroup.procs"), child.pid().to_string()).expect("moved");
    let id = fs::metadata(&deep).expect("a cgroup").ino();
    assert!(!cgroup.own().knows(id));
    assert!(cgroup.own().procs().expect("procs").pids.contains(&child.pid()));
    assert!(cgroup.own().knows(id));
    assert!(cgroup.own().holds(&child.pidfd).expect("asked"));
    // In one that was made since, and outside.
    let younger = cgroup.path().join("a/b/c");
    fs::create_dir(&younger).expect("nested");
    fs::write(younger.join("cgroup.procs"), child.pid().to_string()).expect("moved");
    assert!(cgroup.own().holds(&child.pidfd).expect("asked"));
    let own = PidFd::open(std::process::id()).expect("opens").expect("we live");
    assert!(!cgroup.own().holds(&own).expect("asked"));
}

#[test]
fn a_cgroup_is_removed_with_those_below_it_and_not_while_populated() {
    let Some(cgroup) = cgroup("removal") else { return };
    fs::create_dir_all(cgroup.path().join("a/b/c")).expect("nested");
    let mut child = member(&cgroup);
    assert_eq!(cgroup.remove().map_err(|error| error.raw_os_error()), Err(Some(libc::EBUSY)));
    child.end();
    cgroup.remove().expect("removed");
    assert!(!cgroup.path().exists());
    cgroup.remove().expect("what is gone is removed");
}

#[test]
fn processes_in_a_threaded_cgroup_are_found() {
    let Some(cgroup) = cgroup("threaded") else { return };
    let child = member(&cgroup);
    let threaded = cgroup.path().join("t");
    fs::create_dir(&threaded).expect("sub-cgroup");
    if let Err(error) = fs::write(threaded.join("cgroup.type"), "threaded") {
        return skip("threaded", &error.to_string());
    }
    fs::write(threaded.join("cgroup.threads"), child.pid().to_string()).expect("moved");
    assert_eq!(cgroup.own().procs().expect("procs").pids, BTreeSet::from([child.pid()]));
    assert!(cgroup.own().holds(&child.pidfd).expect("holds"));
    let swept = signal::sweep(cgroup.own()).expect("sweep");
    assert_eq!((swept.sent, swept.complete), (vec![child.pid()], true));
}

#[test]
fn a_limit_without_its_controller_is_reported() {
    let Some(cgroup) = cgroup("limits") else { return };
    assert_eq!(cgroup.limit(&Limits::default()), []);
    let home = Home::find().expect("found before");
    for missing in cgroup.limit(&Limits { memory_max: Some(1 << 30), pids_max: Some(64), cpu_percent: Some(150) }) {
        let controller = missing.file.split('.').next().expect("a name").to_owned();
        if !home.controllers().contains(&controller) {
            assert!(missing.why.contains("available"), "{missing:?}");
        }
    }
}

// ---- launch

#[test]
fn i06_a_frozen_child_executes_nothing_before_the_thaw() {
    let Some(cgroup) = cgroup("frozen birth") else { return };
    let dir = scratch();
    let marker = at(&dir, "marker");
    let (mut child, mut start) = launch_in(&cgroup, &shell(&format!("echo ran > {}", marker.display())));
    until("the freeze", || cgroup.is_frozen().expect("events"));
    // Not even the launcher has begun: the kernel stops it before its first instruction.
    let schedstat = || fs::read_to_string(format!("/proc/{}/stat", child.pid())).expect("stat");
    let user_time = schedstat().rsplit(')').next().and_then(|rest| rest.split(' ').nth(12).map(str::to_owned));
    assert_eq!(user_time.as_deref(), Some("0"));
    assert_eq!(start.poll().expect("poll"), None);
    assert!(!marker.exists());
    assert_eq!(child.pidfd.info().expect("info").and_then(|info| info.cgroup), Some(cgroup.tag().0));
    cgroup.thaw().expect("thaw");
    assert_eq!(start.wait().expect("start"), Start::Started);
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    assert!(marker.exists());
}

#[test]
fn a_child_killed_while_frozen_has_died_and_not_started() {
    let Some(cgroup) = cgroup("killed frozen") else { return };
    let (mut child, mut start) = launch_in(&cgroup, &shell("true"));
    child.kill();
    assert_eq!(child.wait(), WaitStatus::Signaled { signal: KILL, core: false });
    assert_eq!(start.wait().expect("start"), Start::Died);
}

#[test]
fn i07_a_killed_cgroup_never_gets_another_process() {
    let Some(cgroup) = cgroup("spent") else { return };
    cgroup.freeze().expect("freeze");
    signal::kill_cgroup(cgroup.own(), cgroup.tag()).expect("kill");
    let refused = launch(&shell("true"), cgroup.tag(), Place::Cgroup(&cgroup));
    assert!(matches!(refused, Err(LaunchError::Spent(_))));
}

#[test]
fn a_cgroup_that_is_not_frozen_gets_no_process() {
    let Some(cgroup) = cgroup("not frozen") else { return };
    let refused = launch(&shell("true"), cgroup.tag(), Place::Cgroup(&cgroup));
    assert!(matches!(refused, Err(LaunchError::NotFrozen(_))));
}

#[test]
fn without_a_cgroup_the_child_is_held_back_by_a_pipe() {
    let dir = scratch();
    let marker = at(&dir, "marker");
    let spec = shell(&format!("echo ran > {}", marker.display()));
    let mut child = launch(&spec, RunTag(5), Place::Held).expect("launch");
    let wchan = || fs::read_to_string(format!("/proc/{}/wchan", child.pid)).unwrap_or_default();
    until("the read", || {
        wchan().contains("pipe") || Stat::read(child.pid).ok().flatten().is_some_and(|s| s.state == 'S')
    });
    assert_eq!(child.start.poll().expect("poll"), None);
    assert!(!marker.exists());
    child.release().expect("release");
    assert_eq!(child.start.wait().expect("start"), Start::Started);
    assert_eq!(child.pidfd.wait().expect("ours"), WaitStatus::Exited(0));
    assert!(marker.exists());
}

#[test]
fn a_held_child_that_is_dropped_never_runs() {
    let child = launch(&shell("true"), RunTag(5), Place::Held).expect("launch");
    let (pidfd, mut start) = child.abandon();
    assert_eq!(start.wait().expect("start"), Start::Died);
    assert_eq!(pidfd.wait().expect("ours"), WaitStatus::Exited(125));
}

/// Launches, runs to the end and says what became of it.
fn run(test: &str, spec: &LaunchSpec) -> Option<(Start, WaitStatus)> {
    let cgroup = cgroup(test)?;
    let (mut child, mut start) = launch_in(&cgroup, spec);
    cgroup.thaw().expect("thaw");
    Some((start.wait().expect("start"), child.wait()))
}

#[test]
fn what_cannot_be_executed_is_126_and_what_is_not_there_127() {
    let dir = scratch();
    let plain = at(&dir, "plain");
    fs::write(&plain, "no program\n").expect("write");
    let garbage = at(&dir, "garbage");
    fs::write(&garbage, "no program\n").expect("write");
    fs::set_permissions(&garbage, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let cases = [
        (OsString::from("agent-loop-no-such-command"), libc::ENOENT, 127),
        (at(&dir, "none").into(), libc::ENOENT, 127),
        (plain.into(), libc::EACCES, 126),
        (garbage.into(), libc::ENOEXEC, 126),
        (dir.path().into(), libc::EACCES, 126),
    ];
    for (command, errno, code) in cases {
        let spec = LaunchSpec { argv: vec![command.clone()], ..shell("") };
        let Some((Start::Failed(failed), status)) = run("exec errors", &spec) else { return };
        assert_eq!((failed.step, failed.errno, failed.shell_code()), (Step::Exec, errno, Some(code)), "{command:?}");
        assert_eq!(status, WaitStatus::Exited(code));
    }
}

#[test]
fn a_failing_step_is_named() {
    let spec = LaunchSpec { cwd: Some("/no/such/directory".into()), ..shell("true") };
    let Some((Start::Failed(failed), status)) = run("step", &spec) else { return };
    assert_eq!((failed.step, failed.errno, failed.shell_code()), (Step::Cwd, libc::ENOENT, None));
    assert_eq!(status, WaitStatus::Exited(125));
    assert_eq!(failed.to_string(), "entering its working directory: No such file or directory (os error 2)");
}

#[test]
fn what_execve_cannot_take_is_refused_before_the_birth() {
    let bad = |spec: LaunchSpec| launch(&spec, RunTag(1), Place::Held).map(drop);
    assert!(matches!(bad(LaunchSpec { argv: vec![], ..shell("") }), Err(LaunchError::NoCommand)));
    assert!(matches!(bad(LaunchSpec { argv: vec!["a\0b".into()], ..shell("") }), Err(LaunchError::Text(_))));
    for name in ["", "A=B", "A\0"] {
        let spec = LaunchSpec { env: vec![(name.into(), "x".into())], ..shell("") };
        assert!(matches!(bad(spec), Err(LaunchError::Text(_))));
    }
}

#[test]
fn the_command_gets_exactly_what_was_asked_for() {
    let Some(cgroup) = cgroup("setup") else { return };
    let dir = scratch();
    let (ours, theirs) = nix::unistd::pipe().expect("pipe without close-on-exec");
    let input = at(&dir, "input");
    fs::write(&input, "hello\n").expect("write");
    let input = File::open(&input).expect("input");
    let output = File::create(at(&dir, "output")).expect("output");
    let mut spec = shell(
        "cat; ls /proc/$$/fd | tr '\\n' ' '; echo; umask; ulimit -n; ulimit -Hn; pwd; cat /proc/self/stat; \
         grep -E '^(SigIgn|SigBlk|NoNewPrivs)' /proc/self/status; echo; env | sort",
    );
    spec.stdio = [Stdio::Fd(input.as_raw_fd()), Stdio::Fd(output.as_raw_fd()), Stdio::Fd(output.as_raw_fd())];
    spec.env.push(("LARGE".into(), "x".repeat(100_000).into()));
    spec.umask = Some(0o027);
    spec.cwd = Some(dir.path().into());
    spec.rlimits = vec![Rlimit { resource: Resource::OpenFiles, soft: 100, hard: 200 }];
    spec.ignored = BTreeSet::from([1, 40]);
    spec.no_new_privs = true;
    let (mut child, mut start) = launch_in(&cgroup, &spec);
    cgroup.thaw().expect("thaw");
    assert_eq!(start.wait().expect("start"), Start::Started);
    let pid = child.pid();
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    drop((ours, theirs));
    let text = fs::read_to_string(at(&dir, "output")).expect("output");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        &lines[..6],
        ["hello", "0 1 2 ", "0027", "100", "200", dir.path().to_str().expect("utf-8")],
        "{text:.600}"
    );
    let stat = Stat::parse(lines[6].as_bytes()).expect("stat");
    assert_eq!((stat.pgrp, stat.session), (pid.cast_signed(), pid.cast_signed()), "an own session");
    assert!(text.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000008000000001"), "{text:.600}");
    assert!(text.contains("NoNewPrivs:\t1"));
    let env: Vec<&str> = lines.iter().skip_while(|line| !line.is_empty()).skip(1).copied().collect();
    let names: Vec<&str> = env.iter().filter_map(|line| line.split('=').next()).collect();
    // PWD and its like are the shell's own.
    assert!(names.iter().all(|name| ["LARGE", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)), "{names:?}");
    assert!(names.contains(&"LARGE"));
}

#[test]
fn by_default_no_signal_is_ignored_not_even_sigpipe() {
    let Some(cgroup) = cgroup("dispositions") else { return };
    let dir = scratch();
    let out = File::create(at(&dir, "out")).expect("out");
    let mut spec = shell("grep SigIgn /proc/self/status; cat /proc/self/stat");
    spec.stdio[1] = Stdio::Fd(out.as_raw_fd());
    spec.session = Session::OwnGroup { foreground: true };
    let (mut child, _start) = launch_in(&cgroup, &spec);
    cgroup.thaw().expect("thaw");
    let pid = child.pid();
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    let text = fs::read_to_string(at(&dir, "out")).expect("out");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("SigIgn:\t0000000000000000"));
    let stat = Stat::parse(lines.next().expect("stat").as_bytes()).expect("stat");
    assert_eq!(stat.pgrp, pid.cast_signed(), "an own group");
    let session = nix::unistd::getsid(None).expect("getsid").as_raw();
    assert_eq!(stat.session, session, "in the caller's session");
    // The test binary's runtime ignores SIGPIPE, as agent-loop's does.
    assert!(!launch::signals_at_start().ignored.contains(&13));
}

#[test]
fn standard_descriptors_may_be_swapped() {
    let Some(cgroup) = cgroup("swap") else { return };
    let dir = scratch();
    let (out, err) = (File::create(at(&dir, "out")).expect("out"), File::create(at(&dir, "err")).expect("err"));
    let mut spec = shell("echo out; echo err >&2");
    spec.stdio = [Stdio::Null, Stdio::Fd(out.as_raw_fd()), Stdio::Fd(err.as_raw_fd())];
    let (mut child, _start) = launch_in(&cgroup, &spec);
    cgroup.thaw().expect("thaw");
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    let read = |name| fs::read_to_string(at(&dir, name)).expect(name);
    assert_eq!((read("out").as_str(), read("err").as_str()), ("out\n", "err\n"));
}

#[test]
fn a_dropped_user_has_no_way_back() {
    if !root("user drop") {
        return;
    }
    let Some(cgroup) = cgroup("user drop") else { return };
    let Ok(user) = User::find("nobody") else { return skip("user drop", "there is no nobody") };
    let dir = scratch();
    let out = File::create(at(&dir, "out")).expect("out");
    let mut spec = shell("cat /proc/$$/status");
    spec.stdio[1] = Stdio::Fd(out.as_raw_fd());
    spec.no_new_privs = true;
    let ids = (user.uid, user.gid);
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    spec.user = Some(Become::User(user));
    let (mut child, mut start) = launch_in(&cgroup, &spec);
    cgroup.thaw().expect("thaw");
    assert_eq!(start.wait().expect("start"), Start::Started);
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    let text = fs::read_to_string(at(&dir, "out")).expect("out");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), vec![ids.0.to_string(); 4]);
    assert_eq!(field("Gid"), vec![ids.1.to_string(); 4]);
    assert_eq!(field("Groups"), groups);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
}

#[test]
fn an_unknown_user_is_an_error() {
    assert_eq!(User::find("agent-loop-no-such-user").map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
}

/// On a terminal of its own: launches with the foreground, takes it back, and tells what it saw.
pub(super) fn terminal_main() -> ! {
    let mut spec = shell("cat /proc/self/stat");
    spec.session = Session::OwnGroup { foreground: true };
    spec.stdio[1] = Stdio::Inherit;
    let mut terminal = super::terminal::Terminal::of_caller();
    let mut child = launch(&spec, RunTag(1), Place::Held).expect("launch");
    child.release().expect("release");
    let status = child.pidfd.wait().expect("ours");
    terminal.take_back().expect("taken back");
    let tty = File::open("/dev/tty").expect("a terminal");
    let back = nix::unistd::tcgetpgrp(&tty) == Ok(nix::unistd::getpgrp());
    println!("pid {} {status} back {back}", child.pid);
    std::process::exit(0)
}

#[test]
fn on_a_terminal_the_command_has_the_foreground_and_gives_it_back() {
    use std::os::unix::process::CommandExt;
    let pty = nix::pty::openpty(None, None).expect("openpty");
    let dir = scratch();
    let output = File::create(at(&dir, "output")).expect("output");
    let terminal = pty.slave.as_raw_fd();
    let mut player = Command::new("/proc/self/exe");
    player.arg("test-terminal").stdin(pty.slave.try_clone().expect("dup")).stdout(output);
    let own_terminal = move || {
        nix::unistd::setsid()?;
        // SAFETY: TIOCSCTTY takes an integer.
        nix::errno::Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCSCTTY, 0) })?;
        Ok(())
    };
    // SAFETY: setsid and ioctl are safe between fork and execve.
    unsafe { player.pre_exec(own_terminal) };
    assert!(player.status().expect("player").success());
    let text = fs::read_to_string(at(&dir, "output")).expect("output");
    let mut lines = text.lines();
    let stat: Vec<&str> = lines.next().expect("stat").split(' ').collect();
    // The fifth field is the group, the eighth the terminal's foreground group.
    assert_eq!(stat[4], stat[7], "{text}");
    assert_eq!(lines.next(), Some(format!("pid {} exit 0 back true", stat[4]).as_str()));
}

// ---- the kill

/// A process whose leader thread has exited while another lives, in a cgroup; needs perl or python.
fn leaderless(test: &str) -> Option<(super::testing::TestCgroup, Held)> {
    let cgroup = cgroup(test)?;
    let script = "import ctypes,threading,time\n\
                  threading.Thread(target=time.sleep,args=(1000,)).start()\n\
                  ctypes.CDLL(None).syscall(60,0)";
    if std::env::consts::ARCH != "x86_64" || !std::path::Path::new("/usr/bin/python3").exists() {
        skip(test, "no python3, or the number of exit is not known here");
        return None;
    }
    let spec = LaunchSpec { argv: vec!["/usr/bin/python3".into(), "-c".into(), script.into()], ..shell("") };
    let (child, mut start) = launch_in(&cgroup, &spec);
    cgroup.thaw().expect("thaw");
    assert_eq!(start.wait().expect("start"), Start::Started);
    until("the leader's exit", || Stat::read(child.pid()).ok().flatten().is_some_and(|stat| stat.state == 'Z'));
    Some((cgroup, child))
}

#[test]
fn a_process_whose_leader_exited_survives_cgroup_kill_but_not_the_sweep() {
    let Some((cgroup, mut child)) = leaderless("zombie leader") else { return };
    signal::kill_cgroup(cgroup.own(), cgroup.tag()).expect("kill");
    std::thread::sleep(Duration::from_millis(100));
    if !child.is_alive() {
        skip("zombie leader", "this kernel's cgroup.kill gets it");
    }
    until("an empty cgroup", || {
        signal::sweep(cgroup.own()).expect("sweep");
        !cgroup.own().populated().expect("events")
    });
    assert_eq!(child.wait(), WaitStatus::Signaled { signal: KILL, core: false });
    cgroup.remove().expect("removed");
}

#[test]
fn a_tree_that_forks_on_and_ignores_signals_is_emptied() {
    let Some(cgroup) = cgroup("tree") else { return };
    let script = "trap '' INT TERM HUP; for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' & done; wait";
    let (mut child, _start) = launch_in(&cgroup, &shell(script));
    cgroup.thaw().expect("thaw");
    until("the tree", || cgroup.own().procs().expect("procs").pids.len() >= 17);
    signal::kill_cgroup(cgroup.own(), cgroup.tag()).expect("kill");
    until("an empty cgroup", || !cgroup.own().populated().expect("events"));
    assert_eq!(child.wait(), WaitStatus::Signaled { signal: KILL, core: false });
    cgroup.remove().expect("removed");
}

// ---- reap

/// In a process of its own: in the test binary the children of other tests would be reaped as well.
pub(super) fn reaper_main() -> ! {
    reap::become_subreaper().expect("subreaper");
    let (mut main, running) = (Held::pause(), Held::pause());
    // A shell that leaves an orphan behind, which waits for a word from us before it ends with 42.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "setsid sh -c 'read word; exit 42' <&3 3<&- & echo $!"])
        .stdin(StdStdio::piped())
        .stdout(StdStdio::piped());
    let (word, say) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    let fd = word.as_raw_fd();
    // SAFETY: dup2 is safe between fork and execve.
    let inherit = move || nix::errno::Errno::result(unsafe { libc::dup2(fd, 3) }).map(drop).map_err(io::Error::from);
    // SAFETY: as above.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut shell, inherit) };
    let mut shell = shell.spawn().expect("sh");
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(shell.stdout.take().expect("piped")), &mut line).expect("a pid");
    let orphan: u32 = line.trim().parse().expect("a pid");
    assert!(shell.wait().expect("sh").success());
    until("the orphan to be ours", || super::scan::children(std::process::id()).expect("children").contains(&orphan));

    let leave_alone = BTreeSet::from([main.pid()]);
    main.kill();
    until("a zombie main", || !main.is_alive());
    assert_eq!(reap::zombies(&leave_alone).expect("zombies"), Vec::<u32>::new());
    io::Write::write_all(&mut File::from(say), b"go\n").expect("said");
    until("a zombie orphan", || reap::zombies(&leave_alone).expect("zombies") == [orphan]);
    let reaped = reap::reap_orphans(&leave_alone).expect("reap");
    assert_eq!(reaped, [reap::Reaped { pid: orphan, status: WaitStatus::Exited(42) }]);
    assert_eq!(reap::reap(orphan).expect("free"), None);
    assert_eq!(reap::reap(running.pid()).expect("alive"), None);
    assert_eq!(reap::reap(1).expect("not ours"), None);
    assert_eq!(main.wait(), WaitStatus::Signaled { signal: KILL, core: false });
    drop(running);
    println!("all as it should be");
    std::process::exit(0)
}

#[test]
fn orphans_are_reaped_one_by_one_and_the_main_process_is_left_alone() {
    let output = Command::new("/proc/self/exe").arg("test-reaper").output().expect("player");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"all as it should be\n", "{text}");
}

#[test]
fn who_forks_without_end_is_frozen_and_killed_by_one_sweep() {
    let Some(cgroup) = cgroup("freeze and sweep") else { return };
    cgroup.own().sweep_only();
    let (mut main, _start) = launch_in(&cgroup, &shell("trap '' TERM INT; while :; do (:) & (:) & wait; done"));
    cgroup.thaw().expect("thawed");
    until("more than one", || cgroup.own().procs().expect("procs").pids.len() > 1);
    let refused = signal::kill_cgroup(cgroup.own(), cgroup.tag()).expect_err("no cgroup.kill here");
    assert_eq!(refused.errno(), Some(libc::ENOENT));
    signal::freeze_cgroup(cgroup.own(), cgroup.tag()).expect("frozen");
    until("all of it frozen", || cgroup.is_frozen().expect("events"));
    let sweep = signal::sweep(cgroup.own()).expect("swept");
    assert!(sweep.complete && sweep.refused.is_empty() && !sweep.sent.is_empty(), "{sweep:?}");
    until("the end of all", || !cgroup.own().populated().expect("events"));
    assert_eq!(main.wait(), WaitStatus::Signaled { signal: KILL, core: false });
    // As after a kill (I7).
    assert!(cgroup.own().is_spent());
}

#[test]
fn the_cgroup_of_another_run_is_not_frozen() {
    let Some(cgroup) = cgroup("our own freeze") else { return };
    let other = RunTag(cgroup.tag().0 + 1);
    assert!(matches!(signal::freeze_cgroup(cgroup.own(), other), Err(Refusal::OtherCgroup { .. })));
    assert!(!cgroup.is_freezing().expect("cgroup.freeze"));
}

// ---- guard

/// Plays `exec`: a cgroup, its guard, a tree, then waits to be killed. Prints where it is in between.
pub(super) fn guarded_main(args: impl Iterator<Item = OsString>) -> ! {
    let moment = args.map(|arg| arg.to_string_lossy().into_owned()).next().unwrap_or_default();
    let home = Home::find().expect("cgroup2");
    let cgroup = RunCgroup::create(&home, &format!("agent-loop-test-guard-{}", std::process::id())).expect("cgroup");
    println!("cgroup {}", cgroup.path().display());
    let guard = Guard::start(&cgroup).expect("guard");
    println!("guard {}", guard.pidfd.pid());
    if moment != "guard" {
        cgroup.freeze().expect("freeze");
        let child = launch(
            &shell("trap '' TERM; setsid sh -c 'trap \"\" TERM HUP; exec sleep 1000' & exec sleep 1000"),
            cgroup.tag(),
            Place::Cgroup(&cgroup),
        )
        .expect("launch");
        if moment != "frozen" {
            cgroup.thaw().expect("thaw");
            until("the tree", || cgroup.own().procs().expect("procs").pids.len() >= 2);
        }
        if moment == "dismissed" {
            signal::kill_cgroup(cgroup.own(), cgroup.tag()).expect("kill");
            until("an empty cgroup", || !cgroup.own().populated().expect("events"));
            child.pidfd.wait().expect("ours");
            cgroup.remove().expect("removed");
            let status = guard.dismiss().expect("dismissed");
            println!("dismissed {status}");
            std::process::exit(0);
        }
        std::mem::forget(child);
        if moment == "given up" {
            guard.hand_over().expect("handed over");
            println!("ready {moment}");
            std::process::exit(0);
        }
    }
    println!("ready {moment}");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Runs the scene to its moment, kills the player, and returns what stderr said and whether the cgroup is gone.
fn guarded(moment: &str) -> (String, String) {
    let mut player = Command::new("/proc/self/exe")
        .args(["test-guarded", moment])
        .stdout(StdStdio::piped())
        .stderr(StdStdio::piped())
        .spawn()
        .expect("player");
    let mut lines = io::BufRead::lines(io::BufReader::new(player.stdout.take().expect("piped")));
    let mut path = String::new();
    let mut said = String::new();
    for line in lines.by_ref() {
        let line = line.expect("a line");
        if let Some(cgroup) = line.strip_prefix("cgroup ") {
            path = cgroup.to_owned();
        }
        let end = line.starts_with("ready") || line.starts_with("dismissed");
        said.push_str(&line);
        said.push('\n');
        if end {
            break;
        }
    }
    player.kill().expect("kill the player");
    let mut stderr = player.stderr.take().expect("piped");
    player.wait().expect("player");
    // It ends when the last holder, the guard, has ended.
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("stderr");
    assert!(!path.is_empty() && !std::path::Path::new(&path).exists(), "{path} is left: {said}{text}");
    (said, text)
}

#[test]
fn the_guard_empties_the_tree_when_its_parent_is_killed() {
    if cgroup("guard").is_none() {
        return;
    }
    for (moment, count) in
        [("running", "2 processes were ended"), ("frozen", "1 process was ended"), ("guard", "0 processes were ended")]
    {
        let (_, stderr) = guarded(moment);
        assert_eq!(stderr, format!("agent-loop: exec was killed; its {count}\n"), "{moment}");
    }
}

#[test]
fn the_guard_of_an_exec_that_gives_up_goes_on_and_says_so() {
    if cgroup("guard given up").is_none() {
        return;
    }
    let (_, stderr) = guarded("given up");
    assert_eq!(stderr, "agent-loop: exec gave up; its 2 processes were ended\n");
}

#[test]
fn a_dismissed_guard_ends_silently() {
    if cgroup("dismissed guard").is_none() {
        return;
    }
    let (stdout, stderr) = guarded("dismissed");
    // It ends by the word or by the kill after it, whichever it sees first.
    let ended = ["dismissed exit 0\n", "dismissed SIGKILL\n"].iter().any(|end| stdout.ends_with(end));
    assert!(ended, "{stdout}{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn the_death_of_the_guard_is_seen_and_its_signals_are_ignored() {
    let Some(cgroup) = cgroup("guard's death") else { return };
    let guard = Guard::start(&cgroup).expect("guard");
    assert!(!guard.has_died().expect("poll"));
    let send = |signal| {
        let Ok(Verified::Proof(proof)) = verify(&guard.pidfd, Expected::OwnChild, &alone(RunTag(0))) else {
            panic!("no proof")
        };
        proof.send(signal).expect("sent")
    };
    for signal in [1, 2, 13, 15] {
        send(signal);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", guard.pidfd.pid())).expect("status");
    assert!(status.contains("SigPnd:\t0000000000000000"));
    assert!(!guard.has_died().expect("poll"));
    // 0, 1, 2, both pipes, the parent's pidfd, the cgroup, its events, the directory above it.
    let fds = || fs::read_dir(format!("/proc/{}/fd", guard.pidfd.pid())).expect("fds").count();
    until("nine descriptors", || fds() == 9);
    let stat = Stat::read(guard.pidfd.pid()).expect("stat").expect("alive");
    assert_eq!(stat.session, guard.pidfd.pid().cast_signed());
    send(KILL);
    until("its death", || guard.has_died().expect("poll"));
    assert_eq!(guard.dismiss().expect("reaped"), WaitStatus::Signaled { signal: KILL, core: false });
}
