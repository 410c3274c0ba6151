//! I5: the entry of a dead process is gone before its number can be used again.

use agent_loop::kernel::Options;
use agent_loop_tests::needs;
use agent_loop_tests::sys::{self, Stub};
use agent_loop_tests::traced::{Run, Traced};

#[test]
fn i05_at_a_recycle_the_old_entry_is_gone_from_the_live_set() {
    needs!(cgroup, bpf);
    const RECYCLES: usize = 20_000;
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let free = sys::clone(Stub::Exit(0), None).expect("clone3");
    sys::wait(free.pid).expect("our child");
    let (mut number, mut done, mut taken) = (free.pid, 0, 0);
    let (mut births, mut deaths) = (0, 0);
    let mut last = None;
    while done < RECYCLES {
        let pid = number.cast_unsigned();
        let child = match run.clone(Stub::Pause, Some(number)) {
            Ok(child) => child,
            Err(err) if err.raw_os_error() == Some(libc::EEXIST) => {
                taken += 1;
                assert!(taken < 1_000, "the number is never free");
                number = sys::clone(Stub::Exit(0), None).expect("clone3").pid;
                sys::wait(number).expect("our child");
                continue;
            }
            Err(err) => panic!("clone3 with set_tid: {err}"),
        };
        let born = traced.tracing.live.lookup(pid).expect("the live set").expect("alive is live").key;
        assert_ne!(Some(born), last, "the entry of the process before");
        sys::pidfd_signal(&child.pidfd, libc::SIGKILL).expect("our child");
        if done % 2 == 0 {
            // A zombie, its number still taken: gone from the set already.
            assert!(sys::pidfd_ended(std::os::fd::AsFd::as_fd(&child.pidfd), std::time::Duration::from_secs(10)));
            assert_eq!(traced.tracing.live.lookup(pid).expect("the live set"), None);
        }
        sys::wait(child.pid).expect("our child");
        assert_eq!(traced.tracing.live.lookup(pid).expect("the live set"), None);
        last = Some(born);
        done += 1;
        if done % 1_000 == 0 {
            traced.drain();
            births += traced.births().count();
            deaths += traced.deaths().count();
            traced.events.clear();
        }
    }
    assert_eq!((births, deaths), (RECYCLES, RECYCLES));
    let totals = traced.tracing.counters.read().expect("the counters");
    assert_eq!((totals.stale, totals.missed, totals.live_full), (0, 0, 0));
    println!("{RECYCLES} recycles, {taken} numbers taken by others");
}
