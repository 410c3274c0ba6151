//! The kernel side taken away, forged or opened to others, under a real daemon with a run that lives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use agent_loop_tests::bpf;
use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;

use crate::{Stranger, count, shell, stop};

/// A host with a run that bears children all the time and ends with 31 once it may.
struct Alive {
    host: Host,
    id: String,
    go: PathBuf,
    stranger: Stranger,
}

impl Alive {
    fn new(host: Host) -> Self {
        let go = host.path("agents/go");
        let script = format!("until [ -e {} ]; do sleep 0.02; done; exit 31", go.display());
        let id = host.start(&["--grace", "200ms"], shell(&script));
        host.in_state(&id, "running");
        Self { host, id, go, stranger: Stranger::new() }
    }

    /// It goes on to its own end, whose status is true; what was not seen is declared.
    fn assert_ends_well(mut self, gaps: bool) {
        fs::write(&self.go, "").expect("a scratch file");
        let run = self.host.ended(&self.id);
        assert_eq!(
            (&run["outcome"], &run["code"], &run["proven"]),
            (&"ended".into(), &31.into(), &true.into()),
            "{run}"
        );
        let events = self.host.events(&self.id);
        assert_eq!(count(&events, "gap") > 0, gaps, "{events:#?}");
        assert_eq!(count(&events, "signal.intent"), 0, "{events:#?}");
        self.stranger.assert_alive();
    }

    /// It is stopped as asked, and its tree is proven empty.
    fn assert_is_stopped(mut self) {
        let run = stop(&self.host, &self.id);
        assert_eq!((&run["outcome"], &run["proven"]), (&"operator".into(), &true.into()), "{run}");
        self.stranger.assert_alive();
    }
}

fn unpin_all(host: &Host) {
    for entry in fs::read_dir(host.pins()).expect("the pins") {
        fs::remove_file(entry.expect("a pin").path()).expect("a pin");
    }
}

#[test]
fn pins_that_are_gone_at_a_restart_cost_a_gap_and_nothing_else() {
    needs!(root, bpf, cgroup);
    for with_directory in [true, false] {
        let host = Host::new();
        let mut daemon = host.serving();
        let alive = Alive::new(host);
        assert!(daemon.terminate().success());
        unpin_all(&alive.host);
        if with_directory {
            fs::remove_dir(alive.host.pins()).expect("our directory");
        }
        let daemon = alive.host.serving();
        assert!(daemon.log().contains("the kernel side is loaded anew: nothing was pinned"), "{}", daemon.log());
        alive.assert_ends_well(true);
    }
}

#[test]
fn pins_that_were_replaced_are_not_used() {
    needs!(root, bpf, cgroup);
    const ARRAY: u32 = 2;
    for name in ["LIVE", "RUNS", "EVENTS"] {
        let host = Host::new();
        let mut daemon = host.serving();
        let alive = Alive::new(host);
        assert!(daemon.terminate().success());
        let pin = alive.host.pins().join(name);
        fs::remove_file(&pin).expect("a pin");
        bpf::pin_map(&pin, ARRAY, 4, 64, 4).expect("a map");
        let daemon = alive.host.serving();
        assert!(daemon.log().contains("the kernel side is loaded anew"), "{}", daemon.log());
        alive.assert_ends_well(true);
    }
}

#[test]
fn a_directory_of_pins_that_others_may_use_is_refused_and_the_run_lives_on() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let alive = Alive::new(host);
    assert!(daemon.terminate().success());
    let mode = |mode| fs::set_permissions(alive.host.pins(), fs::Permissions::from_mode(mode)).expect("our directory");
    mode(0o755);
    let mut refused = alive.host.serve();
    assert_eq!(refused.wait().code(), Some(5), "{}", refused.log());
    assert!(refused.log().contains("mode 0755") && refused.log().contains("chmod 0700"), "{}", refused.log());
    mode(0o700);
    let _daemon = alive.host.serving();
    alive.assert_ends_well(false);
}

#[test]
fn pins_taken_from_a_daemon_that_runs_are_noticed_and_its_runs_go_on() {
    needs!(root, bpf, cgroup);
    for stopped in [true, false] {
        let host = Host::new();
        let mut daemon = host.serving();
        let alive = Alive::new(host);
        assert_eq!(alive.host.degraded(), [] as [String; 0]);
        unpin_all(&alive.host);
        let told = eventually("it to be noticed", || alive.host.degraded().into_iter().next());
        assert!(told.contains("start the daemon again"), "{told}");
        assert!(daemon.log().contains(&format!("warning: {told}")), "{}", daemon.log());
        // What is held open goes on: another run is born, told and stopped.
        let id = alive.host.start(&["--grace", "200ms"], shell("sleep 600 & sleep 600"));
        alive.host.in_state(&id, "running");
        let run = stop(&alive.host, &id);
        assert_eq!((&run["outcome"], &run["proven"]), (&"operator".into(), &true.into()), "{run}");
        assert_eq!(count(&alive.host.events(&id), "gap"), 0);
        if stopped {
            alive.assert_is_stopped();
        } else {
            // The next daemon has to begin anew.
            assert!(daemon.terminate().success());
            let _daemon = alive.host.serving();
            assert_eq!(alive.host.degraded(), [] as [String; 0]);
            alive.assert_ends_well(true);
        }
    }
}
