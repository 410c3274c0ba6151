//! The daemon: from a submission to the command, from a crash to the next daemon and its agents, from an adopted agent's
//! death to the end that is recorded of it, and what both processes take at rest.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Bench;
use super::host::Host;
use super::spread::Spread;
use super::table::Table;
use super::tool::{self, Running};
use crate::progress;

/// Runs in one round.
const RUNS: usize = 10;
/// Agents that a new daemon takes up.
const AGENTS: usize = 100;
/// Processes of each.
const PROCESSES: usize = 10;
/// For how long it is looked whether anybody wakes up at rest.
const REST: Duration = Duration::from_secs(10);

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let host = Host::make(bench, "daemon", AGENTS)?;
    let (mut launch, mut none, mut held, mut adopted) =
        (Spread::empty(), Spread::empty(), Spread::empty(), Spread::empty());
    let mut daemon = host.serve()?;
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for _ in 0..RUNS {
            let id = host.start(&["true"])?;
            launch.push(host.launched_in(&id)?);
        }
        daemon = again(&host, daemon, false, &mut none)?;
    }
    let rest = at_rest(&host, &daemon)?;

    progress::note(&format!("{AGENTS} agents of {PROCESSES} processes each"));
    let tree = format!("i=1; while [ $i -lt {PROCESSES} ]; do sleep 900 & i=$((i+1)); done; wait");
    for _ in 0..AGENTS {
        host.start(&["sh", "-c", &tree])?;
    }
    host.await_running(AGENTS)?;
    for _ in 0..bench.rounds {
        daemon = again(&host, daemon, false, &mut held)?;
        host.await_running(AGENTS)?;
        daemon = again(&host, daemon, true, &mut adopted)?;
        host.await_running(AGENTS)?;
    }
    let busy = at_rest(&host, &daemon)?;
    for id in host.running()? {
        host.ask(&["kill", &id, "--reason", "the next measurement"])?;
    }
    host.await_running(0)?;
    let (daemon, decided) = deaths(&host, daemon, bench.rounds)?;

    let mut table = Table::new("the daemon", &["what", "ms"]);
    table.row(["from the durable submission to the command's own execve".to_owned(), launch.show(1)]);
    table.row(["from the start of the next daemon to its readiness, no agents".to_owned(), none.show(1)]);
    table.row([format!("the same with {AGENTS} agents of {PROCESSES} processes, held by the keeper"), held.show(1)]);
    table.row(["the same with the keeper killed too: each is adopted by proof".to_owned(), adopted.show(1)]);
    table.row([
        "from an adopted agent's death, by its hook, to the recorded end of its run".to_owned(),
        decided.show(2),
    ]);
    table.note(format!("at rest, no agents: {rest}"));
    table.note(format!("at rest, {AGENTS} agents of {PROCESSES} processes: {busy}"));
    table.note("the daemon was ended by SIGKILL each time; where nothing else is said its keeper lived");
    let figures = json!({
        "launch_ms": launch.json(), "restart_ms": none.json(), "restart_with_agents_ms": held.json(),
        "restart_adopting_ms": adopted.json(), "death_to_end_ms": decided.json(),
        "rest": rest, "rest_with_agents": busy,
    });
    drop(daemon);
    Ok((table, figures))
}

/// Ends the daemon by SIGKILL, the keeper before it where that is asked for, and takes the time of the next one's start.
fn again(host: &Host, daemon: Running, keeper: bool, into: &mut Spread) -> Result<Running> {
    let pid = if keeper { Some(host.keeper()?) } else { None };
    drop(daemon);
    if let Some(pid) = pid {
        // It ends at a signal as at a crash: what it holds goes on.
        host.interrupt(pid)?;
        while fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let began = Instant::now();
    let daemon = host.serve()?;
    into.push(began.elapsed().as_secs_f64() * 1e3);
    Ok(daemon)
}

/// Agents that were adopted end one after the other; milliseconds from each death to the end that is recorded.
fn deaths(host: &Host, daemon: Running, rounds: u32) -> Result<(Running, Spread)> {
    let mut ids = Vec::new();
    for _ in 0..rounds.max(5) {
        ids.push(host.start(&["sleep", "900"])?);
    }
    host.await_running(ids.len())?;
    let daemon = again(host, daemon, true, &mut Spread::empty())?;
    host.await_running(ids.len())?;
    let mut spread = Spread::empty();
    for id in ids {
        let main = host.event(&id, "run.born")?["proc"]["pid"].as_u64().context("a birth without a number")?;
        // Not before its own execve: until then it would not hear the signal.
        host.event(&id, "proc.exec")?;
        host.interrupt(u32::try_from(main)?)?;
        let at =
            |kind| host.event(&id, kind).and_then(|line| line["boot_ns"].as_f64().context("a line without a time"));
        let end = at("run.exit")?;
        spread.push((end - at("proc.exit")?) / 1e6);
    }
    Ok((daemon, spread))
}

/// What daemon and keeper take while nothing happens.
fn at_rest(host: &Host, daemon: &Running) -> Result<String> {
    let both = [("daemon", daemon.pid()), ("keeper", host.keeper()?)];
    let before = both.map(|(_, pid)| (switches(pid), on_cpu(pid)));
    thread::sleep(REST);
    let mut told = Vec::new();
    for ((name, pid), (woken, ran)) in both.into_iter().zip(before) {
        let kib = |field| tool::memory(pid, field).unwrap_or(0);
        let (woken, ran) = (switches(pid) - woken, (on_cpu(pid) - ran) / 1e6);
        let (anon, all) = (kib("RssAnon"), kib("VmRSS"));
        told.push(format!(
            "{name} {anon} KiB anonymous, {all} KiB in all, {woken} wake-ups and {ran:.2} ms of CPU in {REST:?}"
        ));
    }
    Ok(told.join("; "))
}

fn switches(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Nanoseconds on a processor, of its main thread: neither has another that works at rest.
fn on_cpu(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}
