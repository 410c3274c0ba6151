//! The host's clock stepped by a year, forward and back: only on a machine of the tests' own.

use agent_loop::audit::verify::{self, Options};
use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::{shell, stop};

const YEAR: i64 = 365 * 24 * 3_600;

/// Steps the clock; it is stepped back with this value.
struct Stepped(i64);

impl Stepped {
    fn by(seconds: i64) -> Self {
        step(seconds);
        Self(seconds)
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        step(-self.0);
    }
}

fn step(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("a clock");
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).expect("the machine is ours");
}

#[test]
fn i11_a_clock_stepped_by_a_year_moves_no_deadline() {
    needs!(vm, root, bpf, cgroup);
    for seconds in [YEAR, -YEAR] {
        let host = Host::new();
        let mut daemon = host.serving();
        let limited = host.start(&["--limit", "4s", "--grace", "100ms"], shell("while :; do sleep 0.1; done"));
        let long = host.start(&["--limit", "1h", "--idle", "1h"], shell("while :; do sleep 0.1; done"));
        for id in [&limited, &long] {
            host.in_state(id, "running");
        }
        let left = |id: &str| host.run(id)["remaining_ms"].as_i64().expect("it has a limit");
        let before = left(&long);
        let stepped = Stepped::by(seconds);
        // What is left of it goes down, and by no year.
        let after = left(&long);
        assert!(after <= before && after > 0, "{before} ms, then {after} ms");
        let run = host.ended(&limited);
        assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
        assert!(run["elapsed_ms"].as_u64() >= Some(4_000), "not before its time: {run}");
        // Nor does a daemon that starts under another year.
        daemon.kill();
        let mut daemon = host.serving();
        host.in_state(&long, "running");
        assert!((1..=after).contains(&left(&long)), "{after} ms, then {} ms", left(&long));
        assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
        drop(stepped);
        assert_eq!(stop(&host, &long)["outcome"], "operator");
        eventually("nothing to be wrong", || host.degraded().is_empty().then_some(()));
        assert!(daemon.terminate().success());
        // Its order is that of its numbers, whatever the clock said.
        let options = Options { account: true, ..Options::default() };
        let report = verify::verify(&host.path("log/audit"), &options, &mut |_| {}).expect("a log");
        assert!(report.damage.is_empty(), "{report:?}");
    }
}
