//! Who forked, and whose child it became.

use agent_loop::kernel::Options;
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::sys::{self, Stub};
use agent_loop_tests::traced::{Run, Traced, end};

use super::to_the_end;

#[test]
fn with_clone_parent_the_forker_is_not_the_parent() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let (pid, status) = end(run.adversary(&["sibling"]).spawn().expect("the adversary starts"));
    assert_eq!(status, Status::exited(0));
    traced.drain();
    let birth = traced.births().find(|birth| birth.key.tgid != pid).expect("the sibling").clone();
    // It is a child of this test.
    assert_eq!(sys::wait(birth.key.tgid.cast_signed()).expect("our child"), Status::exited(5));
    assert_eq!(birth.forker.map(|forker| forker.tgid), Some(pid));
    assert_eq!(birth.parent_tgid, Some(std::process::id()));
    traced.drain().assert_all_ended();
}

#[test]
fn orphans_keep_their_true_forker() {
    needs!(cgroup, bpf);
    for (args, generations) in
        [(&["double-fork-daemon"][..], 2), (&["setsid-chain", "20"], 20), (&["subreaper-daemon"], 2)]
    {
        let run = Run::new();
        let mut traced = Traced::of_run(&run, Options::default());
        let main = run.adversary(&[&["--hold-ms", "100"], args].concat()).spawn().expect("the adversary starts");
        run.wait_ready();
        let main = end(main).0;
        run.kill();
        traced.drain();
        for life in run.lives().iter().filter(|life| life.role != "orphan") {
            let forker = traced.birth_of(life).forker.expect("a forker");
            assert_eq!(forker.tgid, life.parent.cast_unsigned(), "{args:?} {life:?}");
        }
        let born: Vec<_> = traced.births().filter(|birth| birth.key.tgid != main).collect();
        assert!(born.len() >= generations, "{args:?}");
        // Each forker is itself a process of the run.
        let known = |key| traced.births().any(|birth| birth.key == key);
        assert!(born.iter().all(|birth| birth.forker.is_some_and(known)), "{args:?}");
    }
}

#[test]
fn the_first_process_born_in_a_run_is_its_main_process() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    assert_eq!(traced.tracing.runs.get(run.tag()).expect("a run").expect("it").main, None);
    let (code, other) = (run.clone(Stub::Exit(42), None).expect("clone3"), run.clone(Stub::Exit(1), None));
    let status = sys::wait(code.pid).expect("our child");
    sys::wait(other.expect("clone3").pid).expect("our child");
    traced.drain();
    let known = traced.tracing.runs.get(run.tag()).expect("a run").expect("it");
    let main = traced.births().next().expect("the first birth");
    assert_eq!(known.main, Some(main.key));
    assert_eq!((main.key.tgid, main.forker.map(|it| it.tgid)), (code.pid.cast_unsigned(), Some(std::process::id())));
    let (told, at) = known.exit.expect("its end");
    assert_eq!(told.map(agent_loop_tests::traced::status), Some(status));
    assert_eq!(traced.death_of(main.key).at, at);
    traced.assert_all_ended();

    // A run that is forgotten is forgotten whole.
    traced.tracing.runs.remove(run.tag()).expect("the table can be written");
    traced.tracing.runs.insert(run.tag()).expect("the table can be written");
    let again = run.clone(Stub::Exit(3), None).expect("clone3");
    sys::wait(again.pid).expect("our child");
    let known = traced.tracing.runs.get(run.tag()).expect("a run").expect("it");
    assert_eq!(known.main.map(|main| main.tgid), Some(again.pid.cast_unsigned()));
}

#[test]
fn of_two_processes_born_at_once_in_a_fresh_run_one_is_its_main_process() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    for _ in 0..200 {
        let barrier = std::sync::Barrier::new(2);
        let bear = || {
            barrier.wait();
            let child = run.clone(Stub::Exit(1), None).expect("clone3");
            sys::wait(child.pid).expect("our child");
        };
        std::thread::scope(|scope| {
            scope.spawn(bear);
            scope.spawn(bear);
        });
        traced.events.clear();
        traced.drain();
        let known = traced.tracing.runs.get(run.tag()).expect("a run").expect("it");
        let main = known.main.expect("a main process");
        assert!(traced.births().any(|birth| birth.key == main), "{main:?} was never born");
        assert_eq!(known.exit.map(|exit| exit.1), Some(traced.death_of(main).at));
        traced.tracing.runs.remove(run.tag()).expect("the table can be written");
        traced.tracing.runs.insert(run.tag()).expect("the table can be written");
    }
}

#[test]
fn threads_are_not_births() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let (_, status) = end(run.adversary(&["threads", "50"]).spawn().expect("the adversary starts"));
    assert_eq!(status, Status::exited(0));
    traced.drain().assert_all_ended();
    assert_eq!(traced.births().count(), 1);
    let lives = to_the_end(&mut traced, &run, &["fork-no-exec", "3"]);
    traced.assert_lives(&lives);
}
