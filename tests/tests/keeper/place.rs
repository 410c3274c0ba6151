//! One keeper, one client, and what becomes of either without the other.

use std::fs;
use std::os::unix::net::UnixDatagram;

use agent_loop::keeper::process::client::ClientError;
use agent_loop::keeper::process::protocol::{CgroupLimits, MOST_RUNS, Reply, Request};
use agent_loop_tests::harness::eventually;
use agent_loop_tests::{needs, sys};

use super::bench::{Place, With, process, run, shell};
use super::hostile::Raw;

#[test]
fn a_second_keeper_is_told_that_one_runs_and_disturbs_nothing() {
    needs!(cgroup);
    let place = Place::new();
    let mut keeper = place.keeper();
    let mut daemon = place.daemon();
    let born = daemon.start(&run(1), "sleep 1000");
    let (code, said) = place.refused_keeper();
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("already running"), "{said}");
    assert!(keeper.is_alive() && keeper.children() == [born.main.pid]);
    daemon.finish(&run(1));
    drop(daemon);
    place.daemon();
}

#[test]
fn the_socket_of_a_dead_keeper_is_replaced() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    keeper.crash();
    assert!(place.socket().exists());
    assert!(matches!(place.try_daemon().map(drop), Err(ClientError::Lost(_))));
    let _keeper = place.keeper();
    place.daemon();
}

#[test]
fn a_place_that_others_may_enter_or_that_is_no_cgroup_is_refused() {
    needs!(cgroup);
    let place = Place::new();
    let open = place.path("open");
    fs::create_dir(&open).expect("a directory");
    let run = |socket: &std::path::Path, runs: &std::path::Path| {
        let mut command = std::process::Command::new(agent_loop_tests::harness::agent_loop());
        command.arg("keeper").arg("--socket").arg(socket).arg("--runs").arg(runs).output().expect("it starts")
    };
    let refused = run(&open.join("socket"), &place.runs());
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let refused = run(&place.socket(), &place.path("runs"));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not a cgroup"), "{refused:?}");
    assert!(!place.socket().exists() && !place.path("runs").exists());
}

#[test]
fn a_keeper_that_is_ended_says_what_it_holds_and_leaves_it_alone() {
    needs!(cgroup, pidfs);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let place = Place::new();
        let keeper = place.keeper();
        let mut daemon = place.daemon();
        let born = daemon.start(&run(1), "sleep 1000");
        assert_eq!(keeper.end(signal), Some(0));
        let said = place.stderr();
        assert!(said.contains(&run(1)) && said.contains(&born.main.pid.to_string()), "{said}");
        assert!(!place.socket().exists());
        assert_eq!(process(born.main.pid).ino, born.main.ino, "it lives on");
        let _next = place.keeper();
        let mut daemon = place.daemon();
        assert_eq!(daemon.adopt(&run(1), born.cgroup, Some(born.main)), Reply::Adopted { main_alive: true });
        daemon.finish(&run(1));
    }
}

#[test]
fn a_second_client_is_refused_while_the_first_is_there() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut first = place.daemon();
    for _ in 0..20 {
        assert!(matches!(place.try_daemon().map(drop), Err(ClientError::Lost(_))));
    }
    first.prepare(&run(1));
    first.remove(&run(1));
    drop(first);
    place.daemon();
}

#[test]
fn a_daemon_is_told_of_as_many_runs_as_a_keeper_holds_and_no_more_are_taken() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let most = u32::try_from(MOST_RUNS).expect("small");
    for number in 1..=most {
        daemon.prepare(&run(number));
    }
    let prepare = Request::Prepare { run: run(most + 1), limits: CgroupLimits::default() };
    assert!(daemon.refused(prepare).contains("the most"));
    drop(daemon);
    // More than the socket holds at once.
    let mut daemon = place.daemon();
    let told: Vec<_> = daemon.held.iter().map(|held| held.run.clone()).collect();
    assert!(told == (1..=most).map(run).collect::<Vec<_>>(), "{} were told", told.len());
    for name in told {
        daemon.remove(&name);
    }
}

#[test]
fn only_root_and_the_keepers_own_user_may_ask() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    // The place is opened, which nobody else could do: what is left is the check of the peer.
    let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(place.path(""), open(0o755)).expect("our directory");
    fs::set_permissions(place.socket(), open(0o666)).expect("our socket");
    let socket = place.socket();
    let asker = std::thread::spawn(move || {
        sys::thread_becomes(65534).expect("root may");
        Raw::at(&socket)
    });
    let asker = asker.join().expect("it connects");
    assert!(asker.is_hung_up(), "nobody hears it");
    place.daemon();
}

#[test]
fn nothing_is_written_to_stdout_and_readiness_is_told_once() {
    needs!(cgroup);
    let place = Place::new();
    let notify = place.path("told");
    let ready = UnixDatagram::bind(&notify).expect("a socket");
    let mut command = place.command();
    let child = command.env("NOTIFY_SOCKET", &notify).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut said = [0; 64];
    let count = ready.recv(&mut said).expect("a word");
    assert_eq!(&said[..count], b"READY=1\n");
    place.daemon();
    sys::kill(i32::try_from(child.id()).expect("a pid"), libc::SIGTERM).expect("our child");
    let output = child.wait_with_output().expect("our child");
    assert!(output.stdout.is_empty() && output.status.success());
    ready.set_nonblocking(true).expect("our socket");
    assert!(ready.recv(&mut said).is_err(), "one word");
    eventually("the socket's end", || (!place.socket().exists()).then_some(()));
}

#[test]
fn a_frozen_place_is_told_and_no_birth_in_it_holds_the_keeper_up() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let freeze = |how: &str| fs::write(place.runs().join("cgroup.freeze"), how).expect("the place");
    let frozen = || fs::read_to_string(place.runs().join("cgroup.events")).expect("its events").contains("frozen 1");
    let prepare = |number| Request::Prepare { run: run(number), limits: CgroupLimits::default() };
    freeze("1");
    eventually("a frozen place", || frozen().then_some(()));
    // The first one is tried with a child.
    let why = daemon.refused(prepare(1));
    assert!(why.contains("something above it is frozen; thaw it"), "{why}");
    assert!(!place.cgroup(&run(1)).exists(), "nothing of it is left");
    freeze("0");
    eventually("a place that is not frozen", || (!frozen()).then_some(()));
    daemon.start(&run(2), "sleep 1000");
    // From then on it is known how births are had there: they wait, and the keeper does not.
    freeze("1");
    let born = daemon.bear(&run(3), &shell("exit 6"), &With::default());
    daemon.thaw(&run(3));
    assert!(
        fs::read_to_string(place.cgroup(&run(3)).join("cgroup.procs"))
            .is_ok_and(|it| it.contains(&born.main.pid.to_string()))
    );
    // Who waits can be ended all the same.
    daemon.finish(&run(2));
    freeze("0");
    assert_eq!(daemon.until_exited(&run(3)), Some(6 << 8));
    daemon.finish(&run(3));
}
