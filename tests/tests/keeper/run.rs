//! A run from its cgroup to its removal, and what stands in for a daemon that is gone.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use agent_loop::keeper::launch::{Become, LaunchSpec, User};
use agent_loop::keeper::process::protocol::{
    ADDED, CgroupLimits, Descriptors, Process, Reply, Request, StartState, Terms,
};
use agent_loop_tests::harness::eventually;
use agent_loop_tests::{needs, sys};

use super::bench::{
    Daemon, Output, Place, Stranger, With, memory, process, refusal, run, sealed, shell, shell_of_nobody,
};

#[test]
fn a_run_goes_from_its_cgroup_to_its_removal_and_its_output_is_in_the_files() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    let name = run(1);
    let stdin = place.path("stdin");
    fs::write(&stdin, "asked\n").expect("a file");
    let stdin = OwnedFd::from(fs::File::open(&stdin).expect("a file"));
    let with = With { stdin: Some(stdin), ..With::output(Output::new(&place.path(""), "1")) };
    let born = daemon.bear(&name, &shell("cat; echo told; echo moaned >&2; exit 7"), &with);
    assert_eq!(keeper.children(), [born.main.pid]);
    assert_eq!(process(born.main.pid).ino, born.main.ino);
    drop(with);
    daemon.thaw(&name);
    assert_eq!(daemon.until_started(&name), StartState::Started);
    assert_eq!(daemon.until_exited(&name), Some(7 << 8));
    daemon.remove(&name);
    assert_eq!(fs::read_to_string(place.path("out.1")).expect("its output"), "asked\ntold\n");
    assert_eq!(fs::read_to_string(place.path("err.1")).expect("its output"), "moaned\n");
    let last = daemon.until_output(&name, |state| state.kept == 18);
    assert_eq!((last.lost, last.over_budget, last.failed), (0, false, None));
    assert!(!place.cgroup(&name).exists() && keeper.children().is_empty());
    drop(daemon);
    assert_eq!(place.daemon().held, []);
}

#[test]
fn every_exit_is_told_as_it_was() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let ends = [
        ("exit 0", 0),
        ("exit 1", 1 << 8),
        ("exit 255", 255 << 8),
        ("kill -TERM $$", libc::SIGTERM),
        ("kill -KILL $$", libc::SIGKILL),
        ("kill -40 $$", 40),
        // A leader whose child outlives it.
        ("sleep 1000 & exit 3", 3 << 8),
    ];
    for (number, (script, status)) in (1..).zip(ends) {
        let name = run(number);
        daemon.bear(&name, &shell(script), &With::default());
        daemon.thaw(&name);
        assert_eq!(daemon.until_exited(&name), Some(status), "{script}");
        daemon.finish(&name);
    }
}

#[test]
fn a_keeper_whose_starter_ignored_sigchld_tells_true_statuses() {
    needs!(cgroup);
    let place = Place::new();
    // An ignored SIGCHLD outlives execve, and the children of who ignores it leave no status.
    let _keeper = place.keeper_by(|command| {
        let mut ignoring = Command::new("env");
        ignoring.arg("--ignore-signal=CHLD").arg(command.get_program()).args(command.get_args());
        let envs: Vec<_> = command.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        ignoring.envs(envs);
        *command = ignoring;
    });
    let mut daemon = place.daemon();
    daemon.start(&run(1), "exit 7");
    assert_eq!(daemon.until_exited(&run(1)), Some(7 << 8));
    daemon.finish(&run(1));
}

#[test]
fn a_start_that_fails_is_told_with_its_step() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let mut spec = shell("");
    spec.argv = vec!["/nonexistent/agent".into()];
    daemon.bear(&run(1), &spec, &With::default());
    daemon.thaw(&run(1));
    let StartState::Failed { step, errno, code } = daemon.until_started(&run(1)) else { panic!("it failed") };
    assert_eq!((step.as_str(), errno, code), ("executing the command", libc::ENOENT, Some(127)));
    assert_eq!(daemon.until_exited(&run(1)), Some(127 << 8));
    daemon.bear(&run(2), &shell(""), &With::default());
    daemon.kill(&run(2));
    assert_eq!(daemon.until_exited(&run(2)), Some(libc::SIGKILL));
    drop(daemon);
    let mut daemon = place.daemon();
    assert_eq!(
        daemon.held.iter().map(|held| held.exited.and_then(|exit| exit.status)).collect::<Vec<_>>(),
        [Some(127 << 8), Some(libc::SIGKILL)]
    );
    assert_eq!(daemon.held[1].start, StartState::Died);
    for number in [1, 2] {
        daemon.finish(&run(number));
    }
}

#[test]
fn i06_nothing_is_executed_before_the_thaw_whoever_asks_meanwhile() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let marker = place.path("marker");
    let born = daemon.bear(&run(1), &shell(&format!("echo ran > {}", marker.display())), &With::default());
    // Signals do not thaw it, nor a daemon that comes and goes.
    assert_eq!(daemon.signal(&run(1), born.main, libc::SIGCONT), Reply::Signalled { proof: Some("own_child".into()) });
    for _ in 0..20 {
        drop(daemon);
        daemon = place.daemon();
        assert!(!daemon.held[0].thawed && daemon.held[0].start == StartState::Pending);
    }
    eventually("a frozen cgroup", || {
        let events = fs::read_to_string(place.cgroup(&run(1)).join("cgroup.events")).expect("its events");
        events.contains("frozen 1").then_some(())
    });
    // It is still a copy of the keeper: not even the launcher was executed.
    let argv = fs::read(format!("/proc/{}/cmdline", born.main.pid)).expect("it is there");
    assert!(argv.windows(6).any(|part| part == b"keeper"), "{}", String::from_utf8_lossy(&argv));
    assert!(!marker.exists());
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_exited(&run(1)), Some(0));
    assert_eq!(fs::read_to_string(&marker).expect("it ran"), "ran\n");
    daemon.finish(&run(1));
}

/// What a daemon does for one run, step by step.
const STEPS: [fn(&mut Daemon, &Place, &mut Option<Process>); 5] = [
    |daemon, _, _| assert_ne!(daemon.prepare(&run(1)), 0),
    |daemon, place, main| {
        let with = With::output(Output::new(&place.path(""), "1"));
        *main = Some(daemon.launch(&run(1), &shell("echo told; exec sleep 1000"), &with).expect("launched").0.main);
    },
    |daemon, _, _| daemon.thaw(&run(1)),
    |daemon, _, _| daemon.kill(&run(1)),
    |daemon, _, _| daemon.remove(&run(1)),
];

#[test]
fn a_daemon_lost_between_any_two_steps_is_replaced_by_one_that_is_told_the_truth() {
    needs!(cgroup);
    for lost_after in 0..=STEPS.len() {
        let place = Place::new();
        let keeper = place.keeper();
        let mut daemon = place.daemon();
        let mut main = None;
        for (done, step) in STEPS.iter().enumerate() {
            if done == lost_after {
                drop(daemon);
                daemon = place.daemon();
                match (&daemon.held[..], done) {
                    ([], 0) => {}
                    ([held], 1..) => {
                        assert_eq!((held.run.as_str(), held.main, held.thawed), (&*run(1), main, done >= 3), "{done}");
                        assert!(done < 4 || held.exited.is_none_or(|exit| exit.status == Some(libc::SIGKILL)));
                        assert_eq!(std::path::Path::new(&held.path), place.cgroup(&run(1)));
                    }
                    (held, _) => panic!("after {done} steps {held:?}"),
                }
            }
            step(&mut daemon, &place, &mut main);
        }
        drop(daemon);
        assert_eq!(place.daemon().held, []);
        assert!(keeper.children().is_empty() && !place.cgroup(&run(1)).exists());
    }
}

#[test]
fn a_daemon_that_dies_without_hearing_an_answer_leaves_a_run_that_is_told_to_the_next() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    // The requests are sent by hand, and nobody waits for the replies.
    let raw = super::hostile::Raw::connect(&place);
    let prepare = Request::Prepare { run: run(1), limits: CgroupLimits::default() };
    let launch = Request::Launch { run: run(1), fds: Descriptors::default(), output_bytes: None };
    let spec = sealed(&serde_json::to_vec(&shell("exit 4")).expect("JSON"));
    raw.ask(1, &Request::Hello, &[]);
    raw.ask(2, &prepare, &[]);
    raw.ask(3, &launch, &[spec.as_fd()]);
    // The last answer was sent when its pidfd can be received.
    eventually("a birth", || raw.hear().filter(|(_, fds)| !fds.is_empty()));
    drop(raw);
    let mut daemon = place.daemon();
    let main = daemon.held[0].main.expect("it was born");
    assert_eq!(process(main.pid).ino, main.ino);
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_exited(&run(1)), Some(4 << 8));
    daemon.finish(&run(1));
}

#[test]
fn i07_an_attempt_is_launched_once_and_a_killed_one_never() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    daemon.bear(&run(1), &shell("sleep 1000"), &With::default());
    let again =
        |daemon: &mut Daemon, name: &str| daemon.launch(name, &shell(""), &With::default()).expect_err("refused");
    assert!(again(&mut daemon, &run(1)).contains("once"));
    let prepare = |name: &str| Request::Prepare { run: name.to_owned(), limits: CgroupLimits::default() };
    assert!(daemon.refused(prepare(&run(1))).contains("held already"));
    daemon.kill(&run(1));
    assert!(daemon.refused(Request::Thaw { run: run(1) }).contains("killed"));
    assert!(again(&mut daemon, &run(1)).contains("once"));
    // Killed before anything was born in it, and never held by this keeper before.
    daemon.prepare(&run(2));
    daemon.kill(&run(2));
    assert!(again(&mut daemon, &run(2)).contains("once"));
    fs::create_dir(place.cgroup(&run(3))).expect("a cgroup");
    assert!(daemon.refused(prepare(&run(3))).contains("exists"));
    let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(place.cgroup(&run(3))).expect("its id"));
    assert_eq!(daemon.adopt(&run(3), id, None), Reply::Adopted { main_alive: false });
    assert!(again(&mut daemon, &run(3)).contains("never gets another process"));
    for number in 1..=3 {
        daemon.finish(&run(number));
    }
}

#[test]
fn a_run_is_removed_only_when_it_is_empty_and_reaped() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    daemon.start(&run(1), "sleep 1000 & exit 0");
    assert_eq!(daemon.until_exited(&run(1)), Some(0));
    assert!(daemon.refused(Request::Remove { run: run(1) }).contains("not empty"));
    daemon.bear(&run(2), &shell(""), &With::default());
    assert!(daemon.refused(Request::Remove { run: run(2) }).contains("not been reaped"));
    for number in [1, 2] {
        daemon.finish(&run(number));
        assert!(daemon.refused(Request::Remove { run: run(number) }).contains("not held"));
    }
}

#[test]
fn a_member_is_signalled_by_its_number_and_a_stranger_is_not() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    let born = daemon.start(&run(1), "sleep 1000 & sleep 1000");
    daemon.start(&run(2), "sleep 1000");
    let stranger = Stranger::new();
    let procs = || fs::read_to_string(place.cgroup(&run(1)).join("cgroup.procs")).expect("its processes");
    let children = || -> Vec<u32> {
        procs().lines().map(|pid| pid.parse().expect("a pid")).filter(|&pid| pid != born.main.pid).collect()
    };
    let child = eventually("two children", || children().get(..2).map(|both| both[0]));
    let member = |run_number, pid| Request::SignalMember { run: run(run_number), pid, signal: 9 };
    for pid in [0, 1, 2, keeper.pid(), std::process::id(), stranger.process().pid, child] {
        // The member too, when it is claimed to be of another run.
        let why = daemon.refused(member(2, pid));
        assert!(!why.is_empty(), "{pid}");
    }
    assert!(stranger.is_alive() && children().contains(&child));
    assert_eq!(daemon.reply(member(1, child)), Reply::Signalled { proof: Some("own_cgroup".to_owned()) });
    eventually("its end", || (!children().contains(&child)).then_some(()));
    for number in [1, 2] {
        daemon.finish(&run(number));
    }
}

#[test]
fn a_signal_goes_to_our_child_by_its_own_descriptor_and_to_nobody_of_another_name() {
    needs!(cgroup, pidfs);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let born = daemon.start(&run(1), "sleep 1000");
    let other = Process { ino: born.main.ino.map(|ino| ino + 1), ..born.main };
    assert!(refusal(daemon.signal(&run(1), other, libc::SIGKILL)).contains("another process"));
    let why = daemon.refused(Request::Signal { run: run(1), to: born.main, signal: 65 });
    assert!(why.contains("not the number of a signal"), "{why}");
    let delivered = daemon.signal(&run(1), born.main, libc::SIGKILL);
    assert_eq!(delivered, Reply::Signalled { proof: Some("own_child".to_owned()) });
    assert_eq!(daemon.until_exited(&run(1)), Some(libc::SIGKILL));
    assert_eq!(daemon.signal(&run(1), born.main, libc::SIGKILL), Reply::Signalled { proof: None });
    daemon.finish(&run(1));
}

#[test]
fn an_agent_has_its_users_rights_a_session_of_its_own_and_three_descriptors() {
    needs!(cgroup);
    let place = Place::with(&["--user", "nobody"]);
    // Its own limit is raised; what it starts gets the one that it was started with.
    let _keeper = place.keeper_by(|command| {
        sys::before_exec(command, || {
            use nix::sys::resource::{Resource, setrlimit};
            Ok(setrlimit(Resource::RLIMIT_NOFILE, 999, 1_234)?)
        });
    });
    let mut daemon = place.daemon();
    daemon.prepare(&run(1));
    let why = daemon.launch(&run(1), &shell("exit 0"), &With::default()).expect_err("it would be root");
    assert!(why.contains("root"), "{why}");
    let script = "grep -E '^(Uid|Groups|NoNewPrivs|CapEff|SigBlk)' /proc/self/status; ulimit -n; \
                  [ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leads; ls /proc/$$/fd | tr '\\n' ' '; cat";
    let with = With::output(Output::new(&place.path(""), "1"));
    daemon.launch(&run(1), &shell_of_nobody(script), &with).expect("launched");
    drop(with);
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_exited(&run(1)), Some(0));
    daemon.remove(&run(1));
    let said = fs::read_to_string(place.path("out.1")).expect("its output");
    let said: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(
        said,
        [
            "Uid:\t65534\t65534\t65534\t65534",
            "Groups:\t65534",
            "SigBlk:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "999",
            "leads",
            "0 1 2",
        ]
    );
}

#[test]
fn a_launch_takes_exactly_the_descriptors_that_were_announced_and_a_sealed_specification() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    daemon.prepare(&run(1));
    // The first run of a keeper tries a birth, which may leave it with descriptors that it keeps.
    let nothing = Request::Launch { run: run(1), fds: Descriptors::default(), output_bytes: None };
    refusal(daemon.ask(nothing, &[]).reply);
    let open = keeper.open();
    let text = serde_json::to_vec(&shell("exit 0")).expect("JSON");
    let (good, open_to_change) = (sealed(&text), memory(&text));
    let file = fs::File::open("/dev/null").expect("/dev/null");
    let long = memory(b"");
    nix::unistd::ftruncate(&long, (4 << 20) + 1).expect("a long file");
    let seals =
        nix::fcntl::SealFlag::F_SEAL_WRITE | nix::fcntl::SealFlag::F_SEAL_SHRINK | nix::fcntl::SealFlag::F_SEAL_GROW;
    nix::fcntl::fcntl(&long, nix::fcntl::FcntlArg::F_ADD_SEALS(seals)).expect("seals");
    let nonsense = sealed(b"{\"argv\": [1]}");
    let plain = Descriptors::default();
    let stdin = Descriptors { stdin: true, ..plain };
    let drains = Descriptors { drains: true, ..plain };
    let cases = [
        (plain, vec![], "0 descriptors"),
        (plain, vec![good.as_fd(), file.as_fd()], "2 descriptors"),
        (stdin, vec![good.as_fd()], "1 descriptors"),
        (plain, vec![open_to_change.as_fd()], "sealed"),
        (plain, vec![file.as_fd()], "sealed"),
        (plain, vec![long.as_fd()], "longer"),
        (plain, vec![nonsense.as_fd()], "cannot be read"),
        (drains, vec![good.as_fd(), file.as_fd(), file.as_fd(), file.as_fd(), file.as_fd()], "pipe"),
    ];
    for (fds, given, says) in cases {
        let request = Request::Launch { run: run(1), fds, output_bytes: None };
        let why = refusal(daemon.ask(request, &given).reply);
        assert!(why.contains(says), "{why}");
    }
    let why = refusal(daemon.ask(Request::Thaw { run: run(1) }, &[file.as_fd()]).reply);
    assert!(why.contains("unasked"), "{why}");
    assert_eq!((keeper.open(), keeper.children()), (open, vec![]));
    daemon.remove(&run(1));
}

#[test]
fn without_descriptors_left_a_launch_is_refused_and_what_runs_goes_on() {
    needs!(cgroup);
    let place = Place::new();
    let mut keeper = place.keeper_by(|command| {
        sys::before_exec(command, || {
            use nix::sys::resource::{Resource, setrlimit};
            Ok(setrlimit(Resource::RLIMIT_NOFILE, 24, 24)?)
        });
    });
    let mut daemon = place.daemon();
    let mut alive = Vec::new();
    let mut refused = 0;
    for number in 1..=12 {
        let prepared = daemon.reply(Request::Prepare { run: run(number), limits: CgroupLimits::default() });
        if !matches!(prepared, Reply::Prepared { .. }) {
            let why = refusal(prepared);
            assert!(why.contains("Too many open files"), "{why}");
            refused += 1;
            continue;
        }
        match daemon.launch(&run(number), &shell("exit 6"), &With::default()) {
            Ok((born, _)) => alive.push(born),
            Err(_) => refused += 1,
        }
    }
    assert!(!alive.is_empty() && refused > 0, "{} lived, {refused} were refused", alive.len());
    assert!(keeper.is_alive());
    for born in alive {
        daemon.thaw(&born.run);
        assert_eq!(daemon.until_exited(&born.run), Some(6 << 8));
        daemon.remove(&born.run);
    }
    drop(daemon);
    // What was born in vain was killed before it could run.
    for held in place.daemon().held {
        assert!(!held.thawed && held.exited.is_none_or(|exit| exit.status == Some(libc::SIGKILL)), "{held:?}");
    }
}

#[test]
fn orphans_that_fall_to_the_keeper_are_reaped_and_the_status_of_a_main_process_is_not_taken() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    let script = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.0$i & sleep 1000 & exit 0) & done; wait; read x; exit 9";
    let (stdin, write) = nix::unistd::pipe().expect("a pipe");
    daemon.bear(&run(1), &shell(script), &With { stdin: Some(stdin), ..With::default() });
    daemon.thaw(&run(1));
    // Eight orphans sleep on; those that ended are gone without a trace.
    eventually("eight orphans and the main process", || (keeper.children().len() == 9).then_some(()));
    drop(write);
    assert_eq!(daemon.until_exited(&run(1)), Some(9 << 8));
    daemon.kill(&run(1));
    eventually("no child, dead or alive", || keeper.children().is_empty().then_some(()));
    daemon.remove(&run(1));
}

#[test]
fn a_status_that_a_tracer_holds_back_is_told_when_it_lets_go() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let born = daemon.bear(&run(1), &shell("read x; exit 11"), &With { stdin: Some(read), ..With::default() });
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_started(&run(1)), StartState::Started);
    let pid = i32::try_from(born.main.pid).expect("a pid");
    sys::seize(pid).expect("root may trace it");
    let pidfd = sys::pidfd_open(pid).expect("it is there");
    drop(write);
    assert!(sys::pidfd_ended(pidfd.as_fd(), Duration::from_secs(60)), "it ends");
    // It has seen the end at the latest when it answers twice, and got no status: it sleeps, it does not spin.
    for _ in 0..2 {
        daemon.thaw(&run(1));
    }
    let sleeps = |_: i32| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", keeper.pid())).expect("it lives");
        stat.contains(") S ")
    };
    eventually("a keeper that sleeps whenever it is looked at", || (0..200).all(sleeps).then_some(()));
    drop(daemon);
    let mut daemon = place.daemon();
    assert_eq!(daemon.held[0].exited, None, "nobody has told how it ended");
    let status = sys::wait(pid).expect("we trace it");
    assert_eq!(daemon.until_exited(&run(1)), Some(11 << 8), "as the tracer was told: {status:?}");
    daemon.remove(&run(1));
}

#[test]
fn a_run_whose_main_process_a_tracer_holds_can_be_removed_and_is_reaped_later() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let born = daemon.bear(&run(1), &shell("read x; exit 11"), &With { stdin: Some(read), ..With::default() });
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_started(&run(1)), StartState::Started);
    let pid = i32::try_from(born.main.pid).expect("a pid");
    sys::seize(pid).expect("root may trace it");
    assert!(daemon.refused(Request::Remove { run: run(1) }).contains("not been reaped"), "it lives");
    drop(write);
    daemon.remove(&run(1));
    assert!(!place.cgroup(&run(1)).exists());
    assert_eq!(keeper.children(), [born.main.pid], "still the tracer's");
    sys::wait(pid).expect("we trace it");
    eventually("the orphan to be reaped", || keeper.children().is_empty().then_some(()));
}

#[test]
fn a_run_becomes_an_account_of_the_terms_and_nothing_that_was_sent() {
    needs!(cgroup);
    let user = |uid| Become::User(User { uid, gid: uid, groups: vec![uid], home: None });
    let account = |name: &str| Become::Account { name: name.to_owned(), may_be_root: true };
    let spec = |user| LaunchSpec { user, ..shell("exit 0") };
    let place = Place::with(&["--user", "nobody", "--user", "root"]);
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    daemon.prepare(&run(1));
    for (forged, says) in [
        (None, "--allow-root"),
        (Some(user(0)), "numbers of user 0"),
        // Nobody's number with another group's is no account's.
        (Some(user(65_534)), "numbers of user 65534"),
        (Some(account("daemon")), "--user daemon"),
        (Some(account("65534")), "not started for"),
        (Some(account("")), "not started for"),
    ] {
        let why = daemon.launch(&run(1), &spec(forged.clone()), &With::default()).expect_err("refused");
        assert!(why.contains(says), "{forged:?}: {why}");
    }
    // An account of the terms that is root is refused by whoever looks it up.
    daemon.launch(&run(1), &spec(Some(account("root"))), &With::default()).expect("born");
    daemon.thaw(&run(1));
    let start = daemon.until_started(&run(1));
    let StartState::Failed { step, errno, .. } = start else { panic!("{start:?}") };
    assert_eq!((step.as_str(), errno), ("looking up its user", libc::EPERM));
    daemon.until_exited(&run(1));
    daemon.remove(&run(1));
}

#[test]
fn a_welcome_names_what_the_keeper_was_started_with() {
    needs!(cgroup);
    let place = Place::with(&["--user", "nobody", "--user", "daemon", "--pins", "/sys/fs/bpf/x"]);
    let _keeper = place.keeper();
    let expected = Terms {
        runs: place.runs().display().to_string(),
        pins: Some("/sys/fs/bpf/x".to_owned()),
        users: vec!["nobody".to_owned(), "daemon".to_owned()],
        allow_root: false,
    };
    let welcome = place.daemon().welcome;
    assert_eq!((welcome.terms, welcome.revision), (expected, ADDED.len()));
}

#[test]
fn limits_are_set_or_said_to_be_missing() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let limits = CgroupLimits { memory_bytes: Some(1 << 30), tasks: Some(64), cpu_percent: Some(150) };
    let Reply::Prepared { path, level, missing, .. } = daemon.reply(Request::Prepare { run: run(1), limits }) else {
        panic!("prepared");
    };
    assert_eq!(std::path::Path::new(&path), place.cgroup(&run(1)));
    let depth = place.runs().components().count()
        - agent_loop_tests::harness::cgroup::mount().expect("cgroup v2").components().count();
    assert!(level.is_none_or(|level| level as usize == depth + 1), "{level:?}");
    for (file, value) in [("memory.max", "1073741824"), ("pids.max", "64"), ("cpu.max", "150000 100000")] {
        match fs::read_to_string(place.cgroup(&run(1)).join(file)) {
            Ok(set) => assert_eq!(set.trim(), value),
            Err(_) => assert!(missing.iter().any(|it| it.file == file && !it.why.is_empty()), "{missing:?}"),
        }
    }
    daemon.remove(&run(1));
}
