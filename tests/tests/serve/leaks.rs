//! Many runs, and many lives in them: nothing of them stays. `cargo xtask leaks` plays ten thousand and a million.

use std::fs;
use std::path::Path;

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::{bpf, needs};

/// How many runs are looked at.
const RUNS: usize = 200;
/// How many are submitted before the end of the first is looked for.
const BATCH: usize = 100;
/// What a process may have more of memory afterwards, in KiB: caches that have their full size only after a while.
const SLACK: u64 = 8 << 10;

/// What can leak.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    daemon: usize,
    keeper: usize,
    children: usize,
    cgroups: Vec<String>,
    pipes: usize,
    runs: usize,
    mains: usize,
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn counts(host: &Host, daemon: u32, keeper: u32) -> Counts {
    let fds = |pid: u32| entries(Path::new(&format!("/proc/{pid}/fd")));
    let dirs = fs::read_dir(host.runs()).expect("the root").filter_map(Result::ok);
    let dirs = dirs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut cgroups: Vec<String> = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    cgroups.sort();
    let children = [daemon, keeper].map(children_of);
    let keys = |name: &str, size| bpf::keys(&host.pins().join(name), size).expect("the map").len();
    Counts {
        daemon: fds(daemon),
        keeper: fds(keeper),
        children: children.iter().sum(),
        cgroups,
        pipes: entries(&host.path("state/pipes")),
        runs: keys("RUNS", 8),
        mains: keys("MAINS", 4),
    }
}

/// Children of a process, the unreaped too.
fn children_of(pid: u32) -> usize {
    let pids = fs::read_dir("/proc").expect("proc").filter_map(Result::ok);
    let stats = pids.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(pid))
        .count()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn play(host: &Host, runs: usize) {
    for first in (0..runs).step_by(BATCH) {
        let start = |number: usize| {
            host.start(&["--limit", "1h"], ["sh", "-c", "echo $0; (exit 1); exit 2", &number.to_string()])
        };
        let ids: Vec<String> = (first..runs.min(first + BATCH)).map(start).collect();
        for id in ids {
            assert_eq!(host.ended(&id)["code"], 2);
        }
    }
}

/// A number that the long form sets.
fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// What is looked at after each part of a long form.
struct Watched<'a> {
    host: &'a Host,
    daemon: u32,
    keeper: u32,
    before: Counts,
    memory: Vec<[u64; 2]>,
}

impl<'a> Watched<'a> {
    fn new(host: &'a Host, daemon: u32, keeper: u32) -> Self {
        let before = counts(host, daemon, keeper);
        assert_eq!((before.pipes, before.runs, before.mains), (0, 0, 0), "{before:?}");
        println!(
            "| done | fds of daemon, keeper | cgroups | pipes | children | RUNS, MAINS | RSS of daemon, keeper, KiB |"
        );
        println!(
            "| ---- | --------------------- | ------- | ----- | -------- | ----------- | -------------------------- |"
        );
        let mut watched = Self { host, daemon, keeper, before, memory: Vec::new() };
        watched.sample(0);
        watched
    }

    /// Waits until nothing is left of what was played, and notes what both processes take.
    fn sample(&mut self, done: usize) {
        let after = eventually("everything of the runs to be gone", || {
            let after = counts(self.host, self.daemon, self.keeper);
            // The connection of who asked last may still be open.
            if after == self.before {
                Some(after)
            } else {
                eprintln!("{after:?}, before {:?}", self.before);
                None
            }
        });
        let memory = [self.daemon, self.keeper].map(resident);
        println!(
            "| {done} | {}, {} | {} | {} | {} | {}, {} | {}, {} |",
            after.daemon,
            after.keeper,
            after.cgroups.len(),
            after.pipes,
            after.children,
            after.runs,
            after.mains,
            memory[0],
            memory[1],
        );
        self.memory.push(memory);
    }

    /// After a while memory grows no more: caches have their size.
    fn is_flat(&self, slack: u64) {
        let last = self.memory.last().expect("it was looked at");
        let [first, ..] = self.memory.as_slice() else { return };
        for (name, (before, after)) in ["daemon", "keeper"].into_iter().zip(first.iter().zip(last)) {
            assert!(*after <= before + slack, "{name}: {before} KiB before, {after} after: {:?}", self.memory);
        }
    }
}

#[test]
fn two_hundred_runs_leave_no_descriptor_cgroup_pipe_entry_child_or_memory() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 16", "user = \"nobody\"\n", "");
    let mut daemon = host.serving();
    let keeper = host.keeper();
    play(&host, 20);
    let runs = number("AGENT_LOOP_LEAK_RUNS").unwrap_or(RUNS);
    let mut watched = Watched::new(&host, daemon.pid(), keeper);
    let part = runs.div_ceil(10);
    for done in 1..=10 {
        play(&host, part);
        watched.sample(done * part);
    }
    watched.is_flat(SLACK);
    assert_eq!(host.keeper(), keeper);
    assert!(daemon.terminate().success());
}

/// How many short lives a run has.
const LIVES_OF_A_RUN: usize = 5_000;

#[test]
fn short_lives_leave_no_entry_and_no_memory() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let keeper = host.keeper();
    let script = "i=0; while [ $i -lt $0 ]; do (:); i=$((i+1)); done; exit 3";
    let play = |lives: usize| {
        let id = host.start(&["--limit", "1h"], ["sh", "-c", script, &lives.to_string()]);
        let run = eventually_long(&host, &id);
        assert_eq!(run["code"], 3, "{run}");
        host.events(&id).iter().filter(|event| event["kind"] == "proc.exit").count()
    };
    play(1_000);
    let lives = number("AGENT_LOOP_LEAK_LIVES").unwrap_or(2 * LIVES_OF_A_RUN);
    let mut watched = Watched::new(&host, daemon.pid(), keeper);
    let (mut done, mut told) = (0, 0);
    let each = LIVES_OF_A_RUN.max(lives / 20);
    while done < lives {
        told += play(each);
        done += each;
        watched.sample(done);
    }
    println!("{done} lives beside the shells, {told} deaths told one by one");
    watched.is_flat(2 * SLACK);
    assert!(daemon.terminate().success());
}

/// The end of a run that takes longer than anybody is patient: each look must show it running on.
fn eventually_long(host: &Host, id: &str) -> serde_json::Value {
    while host.run(id)["state"] == "running" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    host.ended(id)
}
