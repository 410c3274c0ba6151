//! `agent-loop doctor`: what this host can do, what is missing, and the command that mends it.
//!
//! Inside: the judgement over the facts of `kernel::host` (`advise`, pure), a look at what the units depend on (`service`), the
//! question to `claude` whether it is logged in (`login`), and their two forms, for people and as JSON. Not inside: a trial of
//! the host.

mod advise;
mod login;
mod service;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args as ClapArgs;
use serde::Serialize;

use self::advise::{Check, State, Tier, advise};
use self::service::Service;
use crate::config::PLACE;
use crate::kernel::host::Facts;
use crate::{clock, error};

/// Shows what this host can do, what is missing, and the command that mends it.
///
/// Everything is tried, not guessed from a version: a child is born and reaped, a cgroup is made and removed, the
/// eBPF program is loaded, attached and let go again. Nothing of it stays. Where agents are `claude`, root asks it whether it is
/// logged in, as the agents' user and without a network.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop doctor
  agent-loop doctor --json | jq -r '.checks[] | select(.state != \"ok\") | .mend // .means'

Exit codes: 0 `exec` works in full here; 1 it works with less, or cannot supervise safely. What only limits or
the daemon would need is shown and does not count.";

/// The answer of `doctor`; its form is a promise to those who read `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// One sentence: `full: …`, `degraded: …` or `cannot supervise safely: …`.
    verdict: String,
    tier: Tier,
    checks: Vec<Check>,
}

impl Report {
    fn of(facts: &Facts) -> Self {
        let mut checks = advise(facts);
        checks.extend(time_namespace(clock::ahead_of_kernel()));
        Self { verdict: advise::verdict(&checks), tier: advise::tier(facts), checks }
    }
}

/// What a time namespace changes, where we are in one.
fn time_namespace(ahead: i64) -> Option<Check> {
    (ahead != 0).then(|| Check {
        name: "time namespace",
        state: State::Ok,
        found: format!("CLOCK_BOOTTIME is {} s ahead of the kernel's own", ahead / 1_000_000_000),
        means: "limits are kept by the clock of this namespace, records of processes tell the kernel's".to_owned(),
        mend: None,
        weighs: false,
    })
}

/// Runs `doctor` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let facts = Facts::find();
    let mut report = Report::of(&facts);
    report.checks.extend(Service::find(Path::new(PLACE)).iter().flat_map(Service::checks));
    let text = if args.json {
        serde_json::to_string_pretty(&report).map(|json| json + "\n").map_err(io::Error::from)
    } else {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(human(&report, io::stdout().is_terminal() && !no_colour))
    };
    if let Err(error) = text.and_then(|text| io::stdout().lock().write_all(text.as_bytes())) {
        eprintln!("agent-loop: writing the answer: {error}");
        return error::FAILED;
    }
    if advise::is_full(&report.checks) { error::DONE } else { error::FAILED }
}

fn human(report: &Report, colour: bool) -> String {
    let paint = |state: State, text: &str| {
        let code = match state {
            State::Ok => "32",
            State::Degraded => "33",
            State::Missing => "31",
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let state = paint(check.state, &format!("{:<8}", check.state.word()));
        let _ = write!(text, "{state}  {:<width$}  {}", check.name, check.found);
        let _ = match check.state {
            State::Ok => writeln!(text, ": {}", check.means),
            State::Degraded | State::Missing => writeln!(text, "\n{:8}  {:width$}  {}", "", "", check.means),
        };
        if let Some(mend) = &check.mend {
            let _ = writeln!(text, "{:8}  {:width$}  mend: {mend}", "", "");
        }
    }
    let worst = advise::weighing(&report.checks).map(|check| check.state).max().unwrap_or(State::Ok);
    let _ = writeln!(text, "\nkernel: {}", report.tier.sentence());
    let _ = writeln!(text, "{}", paint(worst, &report.verdict));
    text
}
