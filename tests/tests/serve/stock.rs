//! What a daemon finds below its root and in its memory: what is nobody's is discarded, what is not its own is left.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use agent_loop::model::ProcessKey;
use agent_loop::run::{RunId, RunRecord, Stage};
use agent_loop::store::{SqliteStore, StateDir, Store as _};
use agent_loop_tests::harness::{Host, PATIENCE, eventually};
use agent_loop_tests::{needs, sys};
use serde_json::Value;

use crate::{Stranger, count, shell, stop};

const UNKNOWN: &str = "run-01KAP0V4G05E8Q3C9W7D8QK3MP";

/// A process in a new cgroup below the root.
fn inhabited(host: &Host, name: &str) -> Stranger {
    let dir = host.runs().join(name);
    fs::create_dir(&dir).expect("a cgroup");
    let stranger = Stranger::new();
    fs::write(dir.join("cgroup.procs"), stranger.pid().to_string()).expect("our cgroup");
    stranger
}

fn ended(stranger: &Stranger) -> bool {
    let pidfd = sys::pidfd_open(stranger.pid().cast_signed()).expect("our child");
    sys::pidfd_ended(pidfd.as_fd(), PATIENCE)
}

#[test]
fn an_unknown_run_below_the_root_is_discarded_and_any_other_name_is_left_alone() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    for with_keeper in [true, false] {
        let mut daemon = host.serving();
        if !with_keeper {
            host.kill_keeper();
            eventually("another keeper", || host.has_keeper());
        }
        // A state that remembers nothing is refused where agents live.
        assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
        assert!(daemon.terminate().success());
        let unknown = inhabited(&host, UNKNOWN);
        let names =
            ["other", "run-", "run-x", &UNKNOWN.to_lowercase(), &format!("{UNKNOWN}.1"), &format!("x{UNKNOWN}")];
        let mut others: Vec<Stranger> = names.iter().map(|name| inhabited(&host, name)).collect();
        let daemon = host.serving();
        let words = format!("discarding {UNKNOWN}: no run of this name is remembered");
        assert!(daemon.log().contains(&words), "{}", daemon.log());
        assert!(ended(&unknown), "what is in it is ended");
        eventually("its cgroup to be removed", || (!host.runs().join(UNKNOWN).exists()).then_some(()));
        assert_eq!(host.ended(&host.start(&[], shell("exit 3")))["code"], 3);
        for (other, name) in others.iter_mut().zip(names) {
            other.assert_alive();
            assert!(host.runs().join(name).exists(), "{name}");
            assert!(!daemon.log().contains(&format!("{name}:")), "{name}: {}", daemon.log());
        }
        drop(others);
        for name in names {
            eventually("our cgroup to be empty", || fs::remove_dir(host.runs().join(name)).is_ok().then_some(()));
        }
    }
}

#[test]
fn a_state_that_remembers_nothing_is_refused_where_agents_live() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&[], shell("sleep 600"));
    host.in_state(&id, "running");
    assert!(daemon.terminate().success());
    fs::rename(host.path("state"), host.path("elsewhere")).expect("our directory");
    let mut daemon = host.serve();
    assert_eq!(daemon.wait().code(), Some(5), "{}", daemon.log());
    assert!(daemon.log().contains("remembers no run") && daemon.log().contains(&id), "{}", daemon.log());
    fs::remove_dir_all(host.path("state")).expect("a new state");
    fs::rename(host.path("elsewhere"), host.path("state")).expect("our directory");
    let _daemon = host.serving();
    assert_eq!(host.run(&id)["state"], "running", "its agent lives, and its own state goes on with it");
}

const OTHER_BOOT: &str = "11111111-2222-3333-4444-555555555555";

/// Changes what is remembered of a run, while no daemon runs.
fn remember(host: &Host, id: &str, change: impl FnOnce(&mut RunRecord)) {
    let state = StateDir::open(&host.path("state")).expect("our directory");
    let mut store = SqliteStore::open(&state).expect("our state");
    let mut record = store.run(id.parse::<RunId>().expect("an id")).expect("our state").expect("the run");
    change(&mut record);
    store.save(&record).expect("our state");
}

fn pipes(host: &Host) -> usize {
    fs::read_dir(host.path("state/pipes")).map_or(0, Iterator::count)
}

#[test]
fn i03_after_a_reboot_a_run_is_lost_and_who_has_its_number_now_is_not_signalled() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "1h"], shell("exec sleep 600"));
    host.in_state(&id, "running");
    assert!(pipes(&host) > 0);
    let keeper = sys::pidfd_open(host.keeper().cast_signed()).expect("the keeper");
    host.kill_keeper();
    daemon.kill();
    assert!(sys::pidfd_ended(keeper.as_fd(), PATIENCE));
    // As a reboot leaves it: nothing of it is there but its record, its pipes and its files.
    let cgroup = host.runs().join(format!("run-{id}"));
    fs::write(cgroup.join("cgroup.kill"), "1").expect("the run's cgroup");
    eventually("the end of the agent", || fs::remove_dir(&cgroup).is_ok().then_some(()));
    let mut stranger = Stranger::new();
    remember(&host, &id, |record| {
        record.boot_id = OTHER_BOOT.to_owned();
        let Stage::Born(born) = &mut record.stage else { panic!("it was born") };
        born.main = ProcessKey { tgid: stranger.pid(), ..born.main };
        born.ino = None;
    });
    let signals = count(&host.events(&id), "signal.intent");
    let _daemon = host.serving();
    let run = eventually("it to be over", || Some(host.run(&id)).filter(|run| run["state"] == "ended"));
    let told = (&run["outcome"], &run["status"], &run["code"], &run["proven"]);
    assert_eq!(told, (&"lost_to_reboot".into(), &"unknown".into(), &Value::Null, &false.into()), "{run}");
    assert_eq!(count(&host.events(&id), "signal.intent"), signals);
    stranger.assert_alive();
    assert_eq!(pipes(&host), 0, "its pipes are removed");
    assert_eq!(host.ended(&host.start(&[], shell("exit 3")))["code"], 3);
}

#[test]
fn a_run_that_waited_when_the_host_was_restarted_is_launched() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let mut daemon = host.serving();
    let first = host.start(&[], shell("exec sleep 600"));
    let file = |name: &str| host.path("agents").join(name);
    let script = |name: &str| format!("echo ran >> {}; exit 4", file(name).display());
    let queued = host.start(&[], shell(&script("queued")));
    let intended = host.start(&[], shell(&script("intended")));
    host.in_state(&first, "running");
    assert!(daemon.terminate().success());
    remember(&host, &queued, |record| record.boot_id = OTHER_BOOT.to_owned());
    remember(&host, &intended, |record| {
        record.boot_id = OTHER_BOOT.to_owned();
        record.stage = Stage::Intended(None);
    });
    let _daemon = host.serving();
    stop(&host, &first);
    for (id, name) in [(&queued, "queued"), (&intended, "intended")] {
        assert_eq!(host.ended(id)["code"], 4);
        assert_eq!(fs::read_to_string(file(name)).expect("its account"), "ran\n", "{name}: once");
    }
    assert!(!Path::new(&host.runs().join(format!("run-{queued}"))).exists());
}

#[test]
fn a_place_for_runs_that_was_taken_away_or_made_anew_is_taken_up_again() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    for made_anew in [false, true, true] {
        let id = host.start(&[], shell("exit 7"));
        assert_eq!(host.ended(&id)["code"], 7);
        // As systemd does with the cgroup of a unit that begins again.
        eventually("a place that is empty", || fs::remove_dir(host.runs()).ok());
        if made_anew {
            fs::create_dir(host.runs()).expect("a cgroup");
        }
    }
    let id = host.start(&["--grace", "100ms"], shell("sleep 600 & sleep 600"));
    host.in_state(&id, "running");
    let run = stop(&host, &id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"operator".into(), &true.into()), "{run}");
    assert_eq!(host.degraded(), [] as [String; 0]);
}
