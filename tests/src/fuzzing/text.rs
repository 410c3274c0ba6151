//! Records of the rings, the configuration, the log of a run.

use agent_loop::audit::Replayed;
use agent_loop::config::Config;
use agent_loop::event::Launched;
use agent_loop::model::{BootNs, ProcessKey, RunTag, Totals};
use agent_loop::track::{Restored, Tracker};
use agent_loop_common::decode::{self, Record};

/// A record of a ring, and the same bytes as those of a snapshot.
pub(super) fn record(bytes: &[u8]) {
    let within = |part: &[u8]| {
        let (part, whole) = (part.as_ptr_range(), bytes.as_ptr_range());
        part.start >= whole.start && part.end <= whole.end
    };
    match decode::record(bytes) {
        Ok(Record::Exec { header, filename, argv }) => {
            assert!(within(filename) && within(argv));
            assert_eq!(argv.len(), header.argv_len as usize);
            assert!(!filename.contains(&0));
        }
        Ok(Record::Birth(_) | Record::Death(_)) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let read = decode::snapshot(bytes).filter(Result::is_ok).count();
    assert!(read <= bytes.len());
}

/// A configuration.
pub(super) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, "FILE") {
        Ok(config) => {
            assert!(config.difference(&config).is_empty());
            assert_eq!(config.reloaded(&config), config);
            assert!(!config.entries().is_empty());
            assert!((1..=1024).contains(&config.host.max_agents));
            assert!(config.kernel.ring_bytes.is_power_of_two());
        }
        Err(error) => assert!(error.to_string().starts_with("FILE"), "{error}"),
    }
}

/// The log of a run, and a tracker that goes on with what it says.
pub(super) fn replay(bytes: &[u8]) {
    let key = ProcessKey { tgid: 70, start_boottime_ns: 7_000 };
    let launched = Launched { key, ino: None, run: RunTag(9), at: BootNs(7_000), traced: true };
    let mut restored = Restored::new(launched, Totals::default());
    let Ok(replayed) = Replayed::read(bytes, Some(&mut restored)) else { return };
    assert!(!replayed.torn || !bytes.ends_with(b"\n"));
    let tracker = Tracker::restored(BootNs(8_000), &restored);
    assert_eq!(tracker.main_is_buried(), tracker.main_is_buried());
}
