//! What one run's processes did is counted in the run's own entry: exact whatever else runs on the host.

use std::io;

use agent_loop::kernel::Options;
use agent_loop::model::{RunTag, Totals};
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::sys::{self, Stub};
use agent_loop_tests::traced::{Run, Traced, end};

/// What the run's own entry says.
fn totals(traced: &Traced, run: RunTag) -> Option<Totals> {
    traced.tracing.runs.totals(run, &traced.tracing.counters).expect("the table")
}

/// What was seen: births, execs, deaths.
fn seen(totals: &Totals) -> (u64, u64, u64) {
    (totals.seen_fork, totals.seen_exec, totals.seen_exit)
}

/// What the oracle of this run, and one exec of the adversary itself for each start, come to.
fn expected(run: &Run, starts: u64) -> (u64, u64, u64) {
    let lives = run.lives();
    let all = lives.len() as u64 + starts;
    (all, lives.iter().filter(|life| life.role == "exec").count() as u64 + starts, all)
}

/// Two storms at once, in two runs; returns what the oracle says of each.
fn two_storms(traced: &mut Traced, first: &Run, second: &Run, for_ms: &str) -> [(u64, u64, u64); 2] {
    traced.tracing.runs.insert(second.tag()).expect("a run");
    let args = |exec_every| ["storm", "--for-ms", for_ms, "--exec-every", exec_every];
    let running = [(first, "3"), (second, "20")].map(|(run, every)| run.adversary(&args(every)).spawn());
    for child in running {
        let (_, status) = end(child.expect("the adversary starts"));
        assert_eq!(status, Status::exited(0));
    }
    [first, second].map(|run| expected(run, 1))
}

#[test]
fn two_runs_at_once_have_each_its_own_exact_sum() {
    needs!(cgroup, bpf);
    let (first, second) = (Run::new(), Run::new());
    let mut traced =
        Traced::of_run(&first, Options { events_bytes: 64 << 20, execs_bytes: 64 << 20, ..Options::default() });
    let expected = two_storms(&mut traced, &first, &second, "300");
    traced.drain();
    assert_ne!(expected[0], expected[1]);
    for (run, expected) in [&first, &second].into_iter().zip(expected) {
        let of_run = totals(&traced, run.tag()).expect("a run");
        assert_eq!(seen(&of_run), expected, "{of_run:?}");
        assert_eq!((of_run.lost_fork, of_run.lost_exec, of_run.lost_exit), (0, 0, 0));
        assert_eq!(traced.births().filter(|birth| birth.run == run.tag()).count() as u64, expected.0);
    }
    let host = traced.tracing.counters.read().expect("the counters");
    let sum = |of: fn(&(u64, u64, u64)) -> u64| expected.iter().map(of).sum::<u64>();
    assert_eq!(seen(&host), (sum(|it| it.0), sum(|it| it.1), sum(|it| it.2)), "the host's are the sum of both");
    traced.assert_all_ended();
}

#[test]
fn what_a_full_ring_lost_is_counted_for_the_run_that_lost_it() {
    needs!(cgroup, bpf);
    let (first, second) = (Run::new(), Run::new());
    let mut traced = Traced::of_run(&first, Options { events_bytes: 4096, execs_bytes: 4096, ..Options::default() });
    let expected = two_storms(&mut traced, &first, &second, "1500");
    traced.drain();
    let host = traced.tracing.counters.read().expect("the counters");
    let mut lost = (0, 0, 0);
    for (run, expected) in [&first, &second].into_iter().zip(expected) {
        let of_run = totals(&traced, run.tag()).expect("a run");
        assert_eq!(seen(&of_run), expected, "{of_run:?}");
        let told = (
            traced.births().filter(|it| it.run == run.tag()).count() as u64,
            traced.execs().filter(|it| it.run == run.tag()).count() as u64,
            traced.deaths().filter(|it| it.run == run.tag()).count() as u64,
        );
        let missing = (expected.0 - told.0, expected.1 - told.1, expected.2 - told.2);
        assert_eq!((of_run.lost_fork, of_run.lost_exec, of_run.lost_exit), missing);
        assert!(missing.0 > 10 && missing.2 > 10, "{missing:?}");
        lost = (lost.0 + missing.0, lost.1 + missing.1, lost.2 + missing.2);
    }
    assert_eq!((host.lost_fork, host.lost_exec, host.lost_exit), lost);
}

#[test]
fn a_process_whose_run_is_forgotten_is_counted_by_the_host_alone() {
    needs!(cgroup, bpf);
    let (run, other) = (Run::new(), Run::new());
    let mut traced = Traced::of_run(&run, Options::default());
    traced.tracing.runs.insert(other.tag()).expect("a run");
    let child = run.clone(Stub::Pause, None).expect("clone3");
    assert_eq!(seen(&totals(&traced, run.tag()).expect("a run")), (1, 0, 0));
    traced.tracing.runs.remove(run.tag()).expect("the table");
    assert_eq!(totals(&traced, run.tag()), None);
    sys::pidfd_signal(&child.pidfd, libc::SIGKILL).expect("our child");
    sys::wait(child.pid).expect("our child");
    assert_eq!(totals(&traced, run.tag()), None);
    assert_eq!(seen(&totals(&traced, other.tag()).expect("a run")), (0, 0, 0));
    assert_eq!(seen(&traced.tracing.counters.read().expect("the counters")), (1, 0, 1));
    // Told all the same, and gone from the live set.
    traced.drain().assert_all_ended();
    // A run inserted again begins at zero.
    traced.tracing.runs.insert(run.tag()).expect("the table");
    assert_eq!(seen(&totals(&traced, run.tag()).expect("a run")), (0, 0, 0));
}

#[test]
fn a_full_table_of_runs_is_refused_by_name_and_has_room_again() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let again = traced.tracing.runs.insert(run.tag()).expect_err("it is a run already");
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists, "{again}");
    // Tags that no cgroup has.
    let tag = |index: u64| RunTag((1 << 62) + index);
    let full = (0..10_000).find_map(|index| traced.tracing.runs.insert(tag(index)).err().map(|error| (index, error)));
    let (room, error) = full.expect("the table is bounded");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(room > 4_000, "{room}");
    let all = traced.tracing.runs.all().expect("the table");
    assert_eq!(all.len() as u64, room + 1);
    assert!(all.iter().any(|(found, _)| *found == run.tag()));
    // Who is in it is counted as before.
    let child = run.clone(Stub::Exit(3), None).expect("clone3");
    sys::wait(child.pid).expect("our child");
    assert_eq!(seen(&totals(&traced, run.tag()).expect("a run")), (1, 0, 1));
    // One whose main process was never born, and one that is forgotten already.
    traced.tracing.runs.remove(tag(0)).expect("the table");
    traced.tracing.runs.remove(tag(0)).expect("the table");
    traced.tracing.runs.insert(tag(room)).expect("there is room again");
}

#[test]
fn who_is_only_observed_is_counted_for_no_run() {
    needs!(cgroup, bpf);
    let (run, outside) = (Run::new(), Run::new());
    let options = Options { watch: vec![("al-uncounted".to_owned(), 3)], ..Options::default() };
    let mut traced = Traced::of_run(&run, options);
    let program = outside.scratch("al-uncounted");
    agent_loop_tests::traced::copy(&agent_loop_tests::harness::adversary(), &program);
    end(outside.program(&program, &["fork-no-exec", "5"]).spawn().expect("the copy starts"));
    assert_eq!(seen(&totals(&traced, run.tag()).expect("a run")), (0, 0, 0));
    assert_eq!(totals(&traced, outside.tag()), None);
    assert_eq!(seen(&traced.tracing.counters.read().expect("the counters")), (6, 1, 6));
    traced.drain().assert_all_ended();
}
