//! Output: kept, counted, bounded, and never a reason for the agent to wait for ever.

use std::fs;
use std::io::Read;
use std::path::Path;

use agent_loop::keeper::process::protocol::{Exit, Request};
use agent_loop_tests::harness::eventually;
use agent_loop_tests::needs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::bench::{Output, Place, With, run, shell};

#[test]
fn what_is_beyond_the_budget_is_thrown_away_and_counted_and_the_agent_goes_on() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let with = With { budget: Some(10_000), ..With::output(Output::new(&place.path(""), "1")) };
    daemon.bear(&run(1), &shell("head -c 600000 /dev/zero; head -c 400000 /dev/zero >&2; exit 3"), &with);
    drop(with);
    daemon.thaw(&run(1));
    let alarm = daemon.until_output(&run(1), |state| state.over_budget);
    assert_eq!(alarm.kept, 10_000);
    assert_eq!(daemon.until_exited(&run(1)), Some(3 << 8));
    daemon.remove(&run(1));
    let last = daemon.until_output(&run(1), |state| state.kept + state.lost == 1_000_000);
    assert_eq!((last.kept, last.lost), (10_000, 990_000));
    let written = ["out.1", "err.1"].map(|file| fs::metadata(place.path(file)).expect("its output").len());
    assert_eq!(written.iter().sum::<u64>(), 10_000);
}

#[test]
fn what_runs_write_reaches_their_own_files_whole() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    for number in 1..=6 {
        let with = With::output(Output::new(&place.path(""), &number.to_string()));
        let script = format!("i=0; while [ $i -lt 10000 ]; do echo {number} $i; i=$((i+1)); done");
        daemon.bear(&run(number), &shell(&script), &with);
    }
    for number in 1..=6 {
        daemon.thaw(&run(number));
    }
    for number in 1..=6 {
        daemon.remove(&run(number));
        let said = fs::read_to_string(place.path(&format!("out.{number}"))).expect("its output");
        let expected: String = (0..10_000).map(|line| format!("{number} {line}\n")).collect();
        assert!(said == expected, "{} bytes of {}", said.len(), expected.len());
    }
}

#[test]
fn output_without_an_end_of_line_and_not_utf8_is_kept_byte_for_byte() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let with = With::output(Output::new(&place.path(""), "1"));
    let script = r"printf '\377\376\000\303no end'; head -c 300000 /dev/zero >&2; printf '\355\240\200' >&2";
    daemon.bear(&run(1), &shell(script), &with);
    drop(with);
    daemon.thaw(&run(1));
    assert_eq!(daemon.until_exited(&run(1)), Some(0));
    daemon.remove(&run(1));
    assert_eq!(fs::read(place.path("out.1")).expect("its output"), b"\xff\xfe\x00\xc3no end");
    let mut expected = vec![0; 300_000];
    expected.extend_from_slice(b"\xed\xa0\x80");
    assert!(fs::read(place.path("err.1")).expect("its output") == expected);
}

#[test]
fn a_flood_starves_nobody() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    for number in 1..=3 {
        let with = With { budget: Some(1 << 20), ..With::output(Output::new(&place.path(""), &number.to_string())) };
        daemon.bear(&run(number), &shell("exec yes"), &with);
        drop(with);
        daemon.thaw(&run(number));
        daemon.until_output(&run(number), |state| state.over_budget);
    }
    let with = With::output(Output::new(&place.path(""), "4"));
    daemon.bear(&run(4), &shell("for i in 1 2 3 4 5 6 7 8; do echo $i; done; exit 2"), &with);
    drop(with);
    daemon.thaw(&run(4));
    assert_eq!(daemon.until_exited(&run(4)), Some(2 << 8));
    daemon.remove(&run(4));
    assert_eq!(fs::read_to_string(place.path("out.4")).expect("its output"), "1\n2\n3\n4\n5\n6\n7\n8\n");
    for number in 1..=3 {
        daemon.until_output(&run(number), |state| state.lost > 1 << 20);
        daemon.finish(&run(number));
    }
}

/// A small file system for one test.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn at(path: &'a Path) -> Self {
        fs::create_dir(path).expect("a directory");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("a tmpfs");
        Self(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_costs_output_and_stops_no_agent_and_is_used_again_when_there_is_room() {
    needs!(cgroup);
    let place = Place::new();
    let small = place.path("small");
    let _small = Small::at(&small);
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let output = Output::new(&small, "1");
    let (stdin, mut room) = nix::unistd::pipe().map(|(read, write)| (read, fs::File::from(write))).expect("a pipe");
    let with = With { stdin: Some(stdin), ..With::output(output) };
    // From the second line on it writes until it is read no more, which it never is for want of space.
    let script = "head -c 1000000 /dev/zero; read x; while read -r x; do echo again; done; exit 4";
    daemon.bear(&run(1), &shell(script), &with);
    drop(with);
    daemon.thaw(&run(1));
    let failed = daemon.until_output(&run(1), |state| state.failed.is_some());
    assert!(failed.failed.is_some_and(|why| why.contains("No space left")));
    let all = daemon.until_output(&run(1), |state| state.kept + state.lost == 1_000_000);
    assert!(all.kept > 0 && all.kept <= 64 << 10 && all.failed.is_some(), "{all:?}");
    assert_eq!(fs::metadata(small.join("out.1")).expect("its output").len(), all.kept);
    fs::File::options().write(true).open(small.join("out.1")).and_then(|file| file.set_len(0)).expect("room");
    // Its lines are lost until the file is tried again.
    use std::io::Write;
    let mut lines = 0;
    room.write_all(b"go\n").expect("it reads");
    let mended = eventually("a file that is written again", || {
        lines += 1;
        room.write_all(b"line\n").expect("it reads");
        let state = daemon.until_output(&run(1), |state| state.kept + state.lost == 1_000_000 + 6 * lines);
        state.failed.is_none().then_some(state)
    });
    let mut said = String::new();
    fs::File::open(small.join("out.1")).and_then(|mut file| file.read_to_string(&mut said)).expect("its output");
    assert_eq!((said.as_str(), mended.kept), ("again\n", all.kept + 6));
    drop(room);
    assert_eq!(daemon.until_exited(&run(1)), Some(4 << 8));
    daemon.remove(&run(1));
}

#[test]
fn a_daemon_that_comes_back_is_told_what_was_written_meanwhile() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let mut daemon = place.daemon();
    let with = With { budget: Some(100), ..With::output(Output::new(&place.path(""), "1")) };
    daemon.bear(&run(1), &shell("head -c 5000 /dev/zero; exit 0"), &with);
    drop(with);
    daemon.thaw(&run(1));
    drop(daemon);
    let told = eventually("the end of the run", || {
        let held = place.daemon().held.remove(0);
        (held.exited.is_some() && held.output.kept + held.output.lost == 5_000).then_some(held)
    });
    assert_eq!((told.exited, told.output.kept, told.output.over_budget), (Some(Exit { status: Some(0) }), 100, true));
    let mut daemon = place.daemon();
    assert_eq!(daemon.reply(Request::Remove { run: run(1) }), agent_loop::keeper::process::protocol::Reply::Done);
}
