//! What an events file says, and whether /proc agrees. Knows only the published shape of the records.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A process as the records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u64,
    /// Its start, in nanoseconds since boot.
    pub(crate) start_ns: u64,
}

/// The births and deaths of one run, each with the number of its records.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// `run.born` and `proc.fork`.
    pub(crate) births: BTreeMap<Process, usize>,
    /// `proc.exit`.
    pub(crate) deaths: BTreeMap<Process, usize>,
    /// The run's cgroup, where it had one.
    pub(crate) cgroup: Option<String>,
}

/// /proc counts start times in hundredths of a second.
const NS_PER_TICK: u64 = 10_000_000;

impl Evidence {
    /// Reads JSON lines.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut evidence = Self::default();
        for (number, line) in text.lines().enumerate() {
            let record: Value =
                serde_json::from_str(line).with_context(|| format!("reading line {} of the events", number + 1))?;
            evidence.add(&record);
        }
        Ok(evidence)
    }

    fn add(&mut self, record: &Value) {
        let (pid, start) = (&record["proc"]["pid"], &record["proc"]["start_ns"]);
        let (Some(pid), Some(start_ns)) = (pid.as_u64(), start.as_u64()) else { return };
        let process = Process { pid, start_ns };
        match record["kind"].as_str().unwrap_or_default() {
            "run.born" => {
                self.cgroup = record["cgroup"]["path"].as_str().map(str::to_owned);
                *self.births.entry(process).or_default() += 1;
            }
            "proc.fork" => *self.births.entry(process).or_default() += 1,
            "proc.exit" => *self.deaths.entry(process).or_default() += 1,
            _ => {}
        }
    }

    /// The processes that do not have exactly one birth and one death.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let all = self.births.keys().chain(self.deaths.keys());
        let mut odd: Vec<&Process> =
            all.filter(|it| (self.births.get(it), self.deaths.get(it)) != (Some(&1), Some(&1))).collect();
        odd.sort();
        odd.dedup();
        odd.iter().map(|it| it.pid.to_string()).collect()
    }

    /// The processes that /proc still shows, with the same start time and not as a zombie.
    pub(crate) fn still_alive(&self) -> Vec<String> {
        let alive = self.births.keys().filter(|it| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", it.pid)).unwrap_or_default();
            is_alive(&stat, it.start_ns)
        });
        alive.map(|it| it.pid.to_string()).collect()
    }

    /// Whether the run's cgroup is gone; `None` where it had none.
    pub(crate) fn cgroup_is_gone(&self) -> Option<bool> {
        let path = self.cgroup.as_deref()?;
        let below_mount = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        Some(!Path::new(path).exists() && !below_mount.exists())
    }
}

/// Whether a line of /proc/PID/stat is of a process that started at `start_ns` and still runs.
fn is_alive(stat: &str, start_ns: u64) -> bool {
    // The name stands in parentheses and may contain anything.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = rest.split(' ').collect();
    // Fields 3 and 22, counted from 1 with the name as 2.
    let (state, ticks) = (fields.first(), fields.get(19).and_then(|it| it.parse::<u64>().ok()));
    !matches!(state, Some(&("Z" | "X"))) && ticks == Some(start_ns / NS_PER_TICK)
}

/// The processes that have `entry` in their environment.
pub(crate) fn processes_with(entry: &str) -> Vec<String> {
    let mut found = Vec::new();
    for dir in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = dir.file_name().to_string_lossy().into_owned();
        let environ = fs::read(dir.path().join("environ")).unwrap_or_default();
        if environ.split(|byte| *byte == 0).any(|it| it == entry.as_bytes()) {
            found.push(name);
        }
    }
    found
}

/// The id of this boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = r#"{"seq":1,"kind":"run.born","proc":{"id":"A","pid":10,"start_ns":100},"cgroup":{"id":8,"path":"/x/none"}}
{"seq":2,"kind":"proc.fork","proc":{"id":"B","pid":11,"start_ns":200},"parent":{"id":"A","pid":10}}
{"seq":3,"kind":"proc.exec","proc":{"id":"B","pid":11,"start_ns":200}}
{"seq":4,"kind":"proc.exit","proc":{"id":"B","pid":11,"start_ns":200}}
"#;

    #[test]
    fn a_birth_without_death_and_a_second_death_are_found() {
        let evidence = Evidence::read(EVENTS).expect("is JSON");
        assert_eq!((evidence.births.len(), evidence.deaths.len()), (2, 1));
        assert_eq!(evidence.unmatched(), ["10"]);
        let twice = format!("{EVENTS}{}\n", EVENTS.lines().last().expect("a line"));
        assert_eq!(Evidence::read(&twice).expect("is JSON").unmatched(), ["10", "11"]);
        assert_eq!(evidence.cgroup_is_gone(), Some(true));
    }

    #[test]
    fn a_number_used_again_is_not_the_same_process() {
        let stat =
            |state: &str, ticks: u64| format!("7 (a) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0");
        assert!(is_alive(&stat("S", 42), 42 * NS_PER_TICK + 9));
        assert!(!is_alive(&stat("S", 43), 42 * NS_PER_TICK + 9));
        assert!(!is_alive(&stat("Z", 42), 42 * NS_PER_TICK + 9));
        assert!(!is_alive("", 0));
    }

    #[test]
    fn this_process_is_alive_and_found_by_its_environment() {
        let stat = fs::read_to_string("/proc/self/stat").expect("/proc");
        let ticks: u64 =
            stat.rsplit_once(") ").and_then(|(_, it)| it.split(' ').nth(19)?.parse().ok()).expect("field 22");
        let pid = u64::from(std::process::id());
        let births = BTreeMap::from([(Process { pid, start_ns: ticks * NS_PER_TICK }, 1)]);
        assert_eq!(Evidence { births, ..Evidence::default() }.still_alive(), [pid.to_string()]);
        let home = std::env::vars().find(|(name, _)| name == "PATH").expect("PATH is set");
        assert!(processes_with(&format!("{}={}", home.0, home.1)).contains(&pid.to_string()));
    }
}
