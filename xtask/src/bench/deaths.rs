//! Deaths seen in a storm, and the processor time that each costs its observer.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::peers::Peer;
use super::spread::Spread;
use super::table::Table;
use super::tool::{self, Running};
use crate::progress;

/// How long an observer may catch up after the storm.
const TAIL: Duration = Duration::from_millis(1_500);
const PEERS: [Peer; 3] = [Peer::Exitsnoop, Peer::Forkstat, Peer::Bpftrace];

/// What one observer did, over all rounds.
#[derive(Default)]
struct Observer {
    seen_percent: Spread,
    us_per_death: Spread,
    deaths_per_second: Spread,
    deaths: u64,
    missed: u64,
    wrong: u64,
    cannot: Option<String>,
}

/// Measures each observer in turn with a storm of its own.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let mut ours = Observer::default();
    let mut peers = PEERS.map(|peer| (peer, Observer::default()));
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        ours.push(bench, &observe_ours(bench)?)?;
        for (peer, observer) in &mut peers {
            if bench.peers.has(*peer) {
                observer.push(bench, &observe_peer(bench, *peer)?)?;
            } else {
                observer.cannot = Some("does not run here".to_owned());
            }
        }
    }
    let columns =
        ["observer", "deaths", "deaths/s", "seen % (target 100)", "missed", "wrong status", "CPU us per death"];
    let mut table = Table::new("deaths in a storm", &columns);
    let mut figures = json!({});
    ours.tell("agent-loop exec --quiet --events", true, &mut table, &mut figures);
    for (peer, observer) in &peers {
        observer.tell(peer.name(), false, &mut table, &mut figures);
    }
    table.note("the oracle is waitid in the storm itself; CPU is user and system time of the observer's own process");
    table.note("ours writes a birth, an exec and a death as JSON with status; the others a line for each death alone");
    Ok((table, figures))
}

/// One storm, observed.
struct Storm {
    oracle: Vec<Value>,
    seen: HashMap<u64, u64>,
    wrong: u64,
    cpu: f64,
}

impl Observer {
    fn push(&mut self, bench: &Bench, storm: &Storm) -> Result<()> {
        let mut expected: HashMap<u64, u64> = HashMap::new();
        for life in &storm.oracle {
            *expected.entry(life["pid"].as_u64().context("no pid")?).or_default() += 1;
        }
        let all = storm.oracle.len() as u64;
        if all == 0 {
            bail!("a storm without deaths");
        }
        let seen: u64 = expected.iter().map(|(pid, count)| storm.seen.get(pid).copied().unwrap_or(0).min(*count)).sum();
        self.deaths += all;
        self.missed += all - seen;
        self.wrong += storm.wrong;
        self.seen_percent.push(seen as f64 / all as f64 * 100.0);
        self.us_per_death.push(storm.cpu * 1e6 / all as f64);
        self.deaths_per_second.push(all as f64 / f64::from(bench.seconds));
        Ok(())
    }

    fn tell(&self, name: &str, knows_status: bool, table: &mut Table, figures: &mut Value) {
        if let Some(why) = &self.cannot {
            table.row([name.to_owned(), why.clone()]);
            figures[name] = json!({ "cannot": why });
            return;
        }
        table.row([
            name.to_owned(),
            self.deaths.to_string(),
            self.deaths_per_second.show(0),
            self.seen_percent.show(2),
            self.missed.to_string(),
            if knows_status { self.wrong.to_string() } else { "not compared".to_owned() },
            self.us_per_death.show(1),
        ]);
        figures[name] = json!({
            "deaths": self.deaths, "missed": self.missed, "wrong_status": knows_status.then_some(self.wrong),
            "seen_percent": self.seen_percent.json(), "us_per_death": self.us_per_death.json(),
            "deaths_per_second": self.deaths_per_second.json(),
        });
    }
}

fn storm(bench: &Bench, oracle: &Path) -> Vec<String> {
    let span = (bench.seconds * 1_000).to_string();
    let (program, oracle) = (bench.program("adversary"), oracle.display().to_string());
    [program.display().to_string(), "storm".into(), "--for-ms".into(), span, "--oracle".into(), oracle].into()
}

fn lives(oracle: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(oracle).context("reading the oracle")?;
    text.lines().map(|line| serde_json::from_str(line).context("understanding the oracle")).collect()
}

fn observe_peer(bench: &Bench, peer: Peer) -> Result<Storm> {
    let dir = bench.fresh("deaths")?;
    let (out, oracle) = (dir.join("out"), dir.join("oracle"));
    let observer = peer.start(&out)?;
    let before = observer.cpu()?;
    let words = storm(bench, &oracle);
    let mut command = Command::new(words.first().context("no storm")?);
    let status = Running::start(command.args(words.iter().skip(1)))?.finish()?;
    if !status.success() {
        bail!("the storm ended with {status}");
    }
    thread::sleep(TAIL);
    let cpu = observer.cpu()? - before;
    observer.interrupt(&bench.program("bench"))?;
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for pid in String::from_utf8_lossy(&fs::read(&out)?).lines().filter_map(|line| peer.death(line)) {
        *seen.entry(u64::from(pid)).or_default() += 1;
    }
    Ok(Storm { oracle: lives(&oracle)?, seen, wrong: 0, cpu })
}

fn observe_ours(bench: &Bench) -> Result<Storm> {
    let dir = bench.fresh("deaths")?;
    let (events, oracle, gate) = (dir.join("events.jsonl"), dir.join("oracle"), dir.join("gate"));
    fs::create_dir(&gate)?;
    let mut command = Command::new(bench.program("agent-loop"));
    command.args(["exec", "--quiet", "--events"]).arg(&events).arg("--").arg(bench.program("bench"));
    let exec = Running::start(command.arg("gate").arg(&gate).args(storm(bench, &oracle)))?;
    tool::await_file(&gate.join("here"))?;
    let before = exec.cpu()?;
    fs::write(gate.join("go"), "")?;
    tool::await_file(&gate.join("done"))?;
    thread::sleep(TAIL);
    let cpu = exec.cpu()? - before;
    fs::write(gate.join("leave"), "")?;
    let status = exec.finish()?;
    if !status.success() {
        bail!("exec ended with {status}");
    }
    let oracle = lives(&oracle)?;
    // Numbers come round: the deaths of one are compared as a set of statuses.
    let mut statuses: HashMap<u64, Vec<String>> = HashMap::new();
    for life in &oracle {
        let status = status_of(&life["status"]);
        statuses.entry(life["pid"].as_u64().unwrap_or(0)).or_default().push(status);
    }
    let (mut seen, mut wrong): (HashMap<u64, u64>, u64) = (HashMap::new(), 0);
    for line in fs::read_to_string(&events)?.lines() {
        let record: Value = serde_json::from_str(line).context("understanding an event")?;
        if record["kind"] != "proc.exit" || !record["inferred"].is_null() {
            continue;
        }
        let pid = record["proc"]["pid"].as_u64().unwrap_or(0);
        *seen.entry(pid).or_default() += 1;
        if let Some(left) = statuses.get_mut(&pid) {
            let status = status_of(&record["exit"]);
            match left.iter().position(|it| *it == status) {
                Some(at) => drop(left.swap_remove(at)),
                None => wrong += 1,
            }
        }
    }
    Ok(Storm { oracle, seen, wrong, cpu })
}

fn status_of(value: &Value) -> String {
    format!("{} {} {}", value["code"], value["signal"], value["core"])
}
