//! The audit log of a daemon, kept as its configuration says.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use agent_loop::audit::log::{AuditLog, Place, Settings, layout};
use agent_loop::audit::verify::{self, Options};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;
use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;

use super::shell;

#[test]
fn a_daemon_drops_its_checkpoints_where_the_configuration_says() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let outside = host.path("outside");
    fs::create_dir(&outside).expect("a directory");
    let audit = format!("[audit]\nanchor_dir = {outside:?}\n");
    host.configure("", "user = \"nobody\"\n", &audit);
    let mut daemon = host.serving();
    let id = host.start(&[], shell("exit 3"));
    host.ended(&id);
    assert!(daemon.terminate().success());
    let options = Options { hoards: vec![outside], account: true, ..Options::default() };
    let report = verify::verify(&host.path("log/audit"), &options, &mut |_| {}).expect("a log");
    assert_eq!((report.verdict().code(), report.runs), (0, 1), "{report:?}");
}

#[test]
fn a_daemon_lets_old_segments_go_as_the_configuration_says() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("", "user = \"nobody\"\n", "[audit]\nsegment_bytes = 1048576\nkeep_bytes = 1048576\n");
    // A log of an earlier boot: more than may be kept, of numbers that hardly compress.
    let place = Place { audit: host.path("log/audit"), keys: host.path("state/audit-key") };
    for dir in ["log", "state"] {
        fs::DirBuilder::new().mode(0o700).create(host.path(dir)).expect("a directory");
    }
    let settings = Settings { segment_bytes: 1 << 20, reserve: 0, low_water: 0, ..Settings::default() };
    let (mut log, _) = AuditLog::open(&place, settings, "an-earlier-boot").expect("a log");
    let mut recorder = Recorder::new("an-earlier-boot".to_owned(), "01RUN".to_owned(), Vec::new(), String::new());
    let mut dice: u64 = 0x9E37_79B9_7F4A_7C15;
    for number in 0..2_000 {
        let words = (0..300).map(|_| {
            // xorshift64*, Vigna 2016.
            dice ^= dice >> 12;
            dice ^= dice << 25;
            dice ^= dice >> 27;
            (dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40).to_string()
        });
        let text = words.collect::<Vec<_>>().join(" ");
        let clock = Clock { boot: BootNs(number), real_ns: 1_795_356_000_000_000_000 };
        log.append(recorder.adopted(text, clock)).expect("there is room");
    }
    let lines = log.close().durable;
    drop(log);
    assert!(layout::segments(&place.audit).expect("segments").len() > 4);
    let mut daemon = host.serving();
    let id = host.start(&[], shell("exit 0"));
    host.ended(&id);
    eventually("old segments to go", || {
        let segments = layout::segments(&place.audit).ok()?;
        (segments.first()?.first > 0).then_some(())
    });
    assert!(daemon.terminate().success());
    let options = Options { account: true, ..Options::default() };
    let report = verify::verify(&place.audit, &options, &mut |_| {}).expect("a log");
    assert!(report.damage.is_empty() && report.gaps.is_empty(), "{report:?}");
    assert!(report.removed > 0 && report.removed < lines && report.runs == 1, "{report:?}");
}
