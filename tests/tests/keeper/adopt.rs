//! A keeper that takes up what another one launched: by proof, whatever it is told.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use agent_loop::keeper::process::client::ClientError;
use agent_loop::keeper::process::protocol::{Descriptors, Process, Reply, Request, StartState};
use agent_loop::kernel;
use agent_loop_common::map::LiveEntry;
use agent_loop_tests::bpf::LiveMap;
use agent_loop_tests::harness::eventually;
use agent_loop_tests::{needs, sys};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::bench::{Born, Keeper, Output, Place, Stranger, With, process, refusal, run, shell};
use super::hostile::Raw;

#[test]
fn a_second_keeper_adopts_what_the_first_left_and_goes_on_with_its_output() {
    needs!(cgroup, pidfs);
    let place = Place::new();
    let first = place.keeper();
    let mut daemon = place.daemon();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let with = With { stdin: Some(read), ..With::output(Output::new(&place.path(""), "1")) };
    let script = "echo before; read x; echo between; echo ready > $0; read x; echo after; exit 8";
    let mut spec = shell(script);
    spec.argv.push(place.path("ready").into());
    let born = daemon.bear(&run(1), &spec, &with);
    daemon.thaw(&run(1));
    daemon.until_output(&run(1), |state| state.kept == 7);
    first.crash();
    drop(daemon);
    // While nobody reads it, the agent writes and gets no SIGPIPE.
    nix::unistd::write(&write, b"\n").expect("it reads");
    eventually("a word of the agent", || place.path("ready").exists().then_some(()));

    let second = place.keeper();
    let mut daemon = place.daemon();
    assert_eq!(daemon.held, []);
    let output = Output::new(&place.path(""), "1");
    let fds = Descriptors { drains: true, ..Descriptors::default() };
    let drains: Vec<_> = output.drains.iter().map(AsFd::as_fd).collect();
    let adopt = Request::Adopt { run: run(1), cgroup: born.cgroup, main: Some(born.main), fds, output_bytes: None };
    assert_eq!(daemon.ask(adopt.clone(), &drains).reply, Reply::Adopted { main_alive: true });
    assert!(refusal(daemon.ask(adopt, &drains).reply).contains("held already"));
    drop((with, output));
    assert!(second.children().is_empty(), "it is not its child");
    let delivered = daemon.signal(&run(1), born.main, libc::SIGCONT);
    assert_eq!(delivered, Reply::Signalled { proof: Some("pidfs_ino".to_owned()) });
    nix::unistd::write(&write, b"\n").expect("it reads");
    assert_eq!(daemon.until_exited(&run(1)), None, "whose child it was is gone: unknown, not 8");
    daemon.remove(&run(1));
    assert_eq!(fs::read_to_string(place.path("out.1")).expect("its output"), "before\nbetween\nafter\n");
}

#[test]
fn what_a_run_wrote_at_last_is_kept_when_it_is_removed() {
    needs!(cgroup, pidfs);
    let place = Place::new();
    let first = place.keeper();
    let mut daemon = place.daemon();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let with = With { stdin: Some(read), ..With::output(Output::new(&place.path(""), "1")) };
    let born = daemon.bear(&run(1), &shell("read x; echo last"), &with);
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_started(&run(1)), StartState::Started);
    first.crash();
    drop(daemon);
    let second = place.keeper();
    let raw = Raw::greeted(&place);
    let output = Output::new(&place.path(""), "1");
    let fds = Descriptors { drains: true, ..Descriptors::default() };
    let drains: Vec<_> = output.drains.iter().map(AsFd::as_fd).collect();
    let main = Some(born.main);
    raw.ask(2, &Request::Adopt { run: run(1), cgroup: born.cgroup, main, fds, output_bytes: None }, &drains);
    assert_eq!(raw.reply(2).expect("a reply")["adopted"]["main_alive"], true);
    drop((with, output));
    // The keeper comes to the removal before it comes to the pipe.
    let keeper = i32::try_from(second.pid()).expect("a pid");
    sys::kill(keeper, libc::SIGSTOP).expect("our child");
    nix::unistd::write(&write, b"\n").expect("it reads");
    eventually("an empty cgroup", || {
        let events = fs::read_to_string(place.cgroup(&run(1)).join("cgroup.events")).expect("its events");
        events.contains("populated 0").then_some(())
    });
    raw.ask(3, &Request::Remove { run: run(1) }, &[]);
    sys::kill(keeper, libc::SIGCONT).expect("our child");
    assert_eq!(raw.reply(3).expect("a reply"), "done");
    assert_eq!(fs::read_to_string(place.path("out.1")).expect("its output"), "last\n");
}

#[test]
fn a_run_that_was_frozen_when_its_keeper_died_is_thawed_by_the_next() {
    needs!(cgroup, pidfs);
    let place = Place::new();
    let first = place.keeper();
    let marker = place.path("marker");
    let mut daemon = place.daemon();
    let born = daemon.bear(&run(1), &shell(&format!("echo ran > {}", marker.display())), &With::default());
    first.crash();
    // The frozen process is a copy of its keeper, and holds the connection and the socket open.
    daemon.until_lost();
    assert!(matches!(place.try_daemon().map(drop), Err(ClientError::Lost(_))));
    let _second = place.keeper();
    let mut daemon = place.daemon();
    assert_eq!(daemon.adopt(&run(1), born.cgroup, Some(born.main)), Reply::Adopted { main_alive: true });
    drop(daemon);
    let mut daemon = place.daemon();
    let held = &daemon.held[0];
    assert!(!held.thawed && held.start == StartState::Unknown && !marker.exists());
    assert_eq!(held.main.map(|main| (main.pid, main.ino)), Some((born.main.pid, born.main.ino)));
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_exited(&run(1)), None);
    // Nobody listened to its launcher any more, and it went on all the same.
    assert_eq!(fs::read_to_string(&marker).expect("it ran"), "ran\n");
    daemon.remove(&run(1));
}

/// A run that a dead keeper left, and a keeper that has to adopt it.
fn orphaned(place: &Place) -> (Born, Keeper) {
    let first = place.keeper();
    let mut daemon = place.daemon();
    let born = daemon.start(&run(1), "sleep 1000");
    first.crash();
    (born, place.keeper())
}

#[test]
fn a_forged_adoption_signals_nobody() {
    needs!(cgroup, pidfs);
    let place = Place::new();
    let (born, mut keeper) = orphaned(&place);
    let mut daemon = place.daemon();
    let stranger = Stranger::new();
    let other = fs::metadata(place.runs()).expect("its id").ino();
    for cgroup in [0, 1, other, born.cgroup + 1, u64::MAX] {
        assert!(refusal(daemon.adopt(&run(1), cgroup, Some(born.main))).contains("not the recorded"), "{cgroup}");
    }
    assert!(refusal(daemon.adopt(&run(2), born.cgroup, Some(born.main))).contains("No such file"));
    // True in all but that they are of the run, or are what was born there.
    let bare = |pid| Process { pid, start_ns: 1, ino: None };
    let forged: [&dyn Fn(&Keeper) -> Process; 11] = [
        &|_| stranger.process(),
        &|_| process(std::process::id()),
        &|keeper| process(keeper.pid()),
        &|_| process(1),
        &|_| bare(2),
        &|_| bare(0),
        &|_| bare(4_000_000),
        &|_| bare(u32::MAX),
        &|_| Process { ino: None, ..process(born.main.pid) },
        &|_| Process { ino: born.main.ino.map(|ino| ino + 1), ..born.main },
        &|_| Process { pid: stranger.process().pid, ..born.main },
    ];
    for forge in forged {
        let claimed = forge(&keeper);
        assert_eq!(daemon.adopt(&run(1), born.cgroup, Some(claimed)), Reply::Adopted { main_alive: false });
        assert!(daemon.refused(Request::Thaw { run: run(1) }).contains("no main process"), "{claimed:?}");
        let reply = daemon.signal(&run(1), claimed, libc::SIGKILL);
        // To a number that nobody has nothing is refused.
        if claimed.pid < 4_000_000 || reply != (Reply::Signalled { proof: None }) {
            assert!(!refusal(reply).is_empty(), "{claimed:?}");
        }
        drop(daemon);
        assert_eq!(place.daemon().held[0].main, None, "{claimed:?}");
        assert!(keeper.is_alive() && stranger.is_alive());
        assert_eq!(process(born.main.pid).ino, born.main.ino, "it lives: {claimed:?}");
        // An adoption is forgotten only with its keeper.
        keeper.crash();
        keeper = place.keeper();
        daemon = place.daemon();
    }
    assert_eq!(daemon.adopt(&run(1), born.cgroup, Some(born.main)), Reply::Adopted { main_alive: true });
    daemon.finish(&run(1));
    assert!(stranger.is_alive());
}

#[test]
fn what_is_gone_is_adopted_without_a_main_process_and_can_be_finished() {
    needs!(cgroup);
    let place = Place::new();
    let first = place.keeper();
    let mut daemon = place.daemon();
    let born = daemon.start(&run(1), "sleep 1000 & exit 0");
    assert_eq!(daemon.until_exited(&run(1)), Some(0));
    first.crash();
    let _second = place.keeper();
    let mut daemon = place.daemon();
    assert_eq!(daemon.adopt(&run(1), born.cgroup, Some(born.main)), Reply::Adopted { main_alive: false });
    assert!(daemon.refused(Request::Remove { run: run(1) }).contains("not empty"));
    daemon.done(Request::Freeze { run: run(1) });
    daemon.finish(&run(1));
}

/// A bpffs for one test.
struct Bpffs<'a>(&'a Path);

impl<'a> Bpffs<'a> {
    fn at(path: &'a Path) -> Self {
        fs::create_dir(path).expect("a directory");
        mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpffs");
        Self(path)
    }
}

impl Drop for Bpffs<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_pinned_live_set_proves_an_exact_start_and_not_a_stale_one() {
    needs!(bpf, cgroup);
    let dir = tempfile::TempDir::new().expect("a scratch directory");
    let bpf = dir.path().join("bpf");
    let _bpffs = Bpffs::at(&bpf);
    let pins = bpf.join("agent-loop");
    let place = Place::pinned(&pins);
    let (born, keeper) = orphaned(&place);
    let mut daemon = place.daemon();
    let exact = Process { start_ns: process(born.main.pid).start_ns + 1, ino: None, ..born.main };
    let stranger = Stranger::new();
    let by_start = |process: Process| Process { ino: None, ..process };
    assert_eq!(daemon.adopt(&run(1), born.cgroup, None), Reply::Adopted { main_alive: false });
    assert!(refusal(daemon.signal(&run(1), exact, libc::SIGCONT)).contains("nothing on this host can prove"));

    // A whole set, its hooks attached: of less nothing is believed. Its live set has a size of its own to be found by.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let entries = 7_919;
    let options = kernel::Options { live_entries: entries, ..kernel::Options::default() };
    let (_tracing, _) = kernel::pins::open_or_load(&pins, &options).expect("a pinned set");
    let live = LiveMap::of_size(entries).expect("its live set");
    assert!(refusal(daemon.signal(&run(1), exact, libc::SIGCONT)).contains("not in the live set"));
    let entry =
        |process: &Process| LiveEntry { start_boottime_ns: process.start_ns, run: born.cgroup, ..LiveEntry::default() };
    live.put(exact.pid, &entry(&exact)).expect("an entry");
    let delivered = daemon.signal(&run(1), exact, libc::SIGCONT);
    assert_eq!(delivered, Reply::Signalled { proof: Some("live_set".to_owned()) });
    let other = Process { start_ns: exact.start_ns + 1, ..exact };
    assert!(refusal(daemon.signal(&run(1), other, libc::SIGKILL)).contains("another process"));

    // What a detached program left: the entry of a dead process of the run, whose number a stranger has by now.
    let stale = Process { start_ns: stranger.process().start_ns - 3_600_000_000, ..by_start(stranger.process()) };
    live.put(stale.pid, &entry(&stale)).expect("an entry");
    assert!(refusal(daemon.signal(&run(1), stale, libc::SIGKILL)).contains("not in the live set"));
    // In the same tick, told apart by the inode.
    let twin = by_start(stranger.process());
    if let Some(ino) = stranger.process().ino {
        live.put(twin.pid, &LiveEntry { pidfs_ino: ino - 1, ..entry(&twin) }).expect("an entry");
        assert!(refusal(daemon.signal(&run(1), twin, libc::SIGKILL)).contains("not in the live set"));
    }
    assert!(stranger.is_alive());
    daemon.finish(&run(1));

    // Adopted by its start alone.
    drop(daemon);
    drop(keeper);
    let (born, _keeper) = orphaned(&place);
    let mut daemon = place.daemon();
    let exact = by_start(process(born.main.pid));
    let entry = LiveEntry { start_boottime_ns: exact.start_ns, run: born.cgroup, ..LiveEntry::default() };
    live.put(exact.pid, &entry).expect("an entry");
    assert_eq!(daemon.adopt(&run(1), born.cgroup, Some(exact)), Reply::Adopted { main_alive: true });
    drop(daemon);
    let mut daemon = place.daemon();
    assert_eq!(daemon.held[0].main, Some(Process { ino: born.main.ino, ..exact }), "what was proven");
    daemon.finish(&run(1));
}
