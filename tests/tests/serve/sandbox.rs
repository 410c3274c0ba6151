//! The rights that the unit leaves the daemon are enough: at a first start, at a restart, with agents alive.

use std::fs;
use std::path::Path;

use agent_loop_tests::harness::{Host, skip};
use agent_loop_tests::{needs, test_name};

use crate::shell;

/// The capabilities of the daemon's unit, as setpriv(1) names them.
fn shipped() -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd/agent-loop.service");
    let text = fs::read_to_string(unit).expect("the unit");
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("capabilities");
    line.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect()
}

#[test]
fn the_capabilities_of_the_unit_are_enough_and_cap_sys_admin_is_none_of_them() {
    needs!(root, bpf, cgroup);
    if std::process::Command::new("setpriv").arg("--version").output().is_err() {
        return skip(test_name!(), "needs setpriv");
    }
    let shipped = shipped();
    for too_much in ["sys_admin", "kill", "setuid", "setgid", "dac_override", "sys_resource", "net_admin", "sys_rawio"]
    {
        assert!(!shipped.iter().any(|name| name == too_much), "{too_much}");
    }
    let bounding = shipped.iter().fold("-all".to_owned(), |all, name| format!("{all},+{name}"));
    let mut host = Host::new();
    // The keeper has a unit of its own: it is started by a daemon with all rights.
    let mut first = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 23", go.display());
    let id = host.start(&["--limit", "1h"], shell(&script));
    host.in_state(&id, "running");
    assert!(first.terminate().success());

    host.run_by(["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set", &bounding]);
    for fresh in [false, true, false] {
        if fresh {
            for pin in fs::read_dir(host.pins()).expect("the pins") {
                fs::remove_file(pin.expect("a pin").path()).expect("a pin");
            }
        }
        let mut daemon = host.serving();
        let log = daemon.log();
        assert_eq!(log.contains("the kernel side is loaded anew"), fresh, "{log}");
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon lives");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("its rights").trim();
        let effective = u64::from_str_radix(effective, 16).expect("a number");
        assert_eq!(effective.count_ones() as usize, shipped.len(), "{status}");
        assert_eq!(host.degraded(), [] as [String; 0], "{log}");
        assert_eq!(host.run(&id)["state"], "running");
        // Another is born, told and stopped meanwhile.
        let other = host.start(&[], shell("exit 7"));
        assert_eq!(host.ended(&other)["code"], 7);
        daemon.kill();
    }
    let _daemon = host.serving();
    fs::write(&go, "").expect("a scratch file");
    assert_eq!(host.ended(&id)["code"], 23);
}
