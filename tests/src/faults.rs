//! Daemons and keepers that end at every step, with agents that end at random meanwhile; and what must hold after.
//!
//! One seed is one host: a few agents, one crash of the daemon, of the keeper or of both, at a step that the seed
//! names, then a daemon that lives. The agents write their own account of themselves, which is the oracle.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Daemon, Host, PATIENCE, eventually};
use crate::sys;

/// How long a daemon that is to end at a step may go on before the seed does without: it has fewer steps.
const CRASH_LIMIT: Duration = Duration::from_millis(2_500);

/// What crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// The daemon.
    Daemon,
    /// The keeper.
    Keeper,
    /// The daemon, and the keeper as soon as that is seen.
    Both,
}

/// When it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// While agents are launched, stopped and end under a first daemon.
    First,
    /// While a second daemon takes up what a first left that was killed.
    Adoption,
}

/// What a seed stands for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What crashes.
    pub crash: Crash,
    /// When.
    pub when: When,
    /// At which step.
    pub step: u64,
    /// What the agents do follows from it.
    pub seed: u64,
}

impl Plan {
    /// The plan of a seed: all crashes and moments in turn, the step counting up.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let crash = [Crash::Daemon, Crash::Keeper, Crash::Both];
        let when = [When::First, When::Adoption];
        let index = usize::try_from(seed % 6).unwrap_or(0);
        // Steps that no daemon or keeper comes to are no crash; most have some eighty, and far fewer at adoption.
        let most = if index % 2 == 0 { 90 } else { 40 };
        Self { crash: crash[index / 2], when: when[index % 2], step: 1 + seed / 6 % most, seed }
    }
}

/// What was seen over some seeds.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Hosts.
    pub seeds: u64,
    /// Crashes that came about.
    pub crashes: BTreeMap<String, u64>,
    /// Runs that were accepted, or found.
    pub runs: u64,
    /// Statuses equal to the agent's own account.
    pub statuses: u64,
    /// Statuses told as unknown.
    pub unknown: u64,
    /// Runs that were never launched: withdrawn, or their launch failed.
    pub never_ran: u64,
    /// Gaps that were declared.
    pub gaps: u64,
    /// Signals that daemons asked for.
    pub signals: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        for (name, count) in &other.crashes {
            *self.crashes.entry(name.clone()).or_default() += count;
        }
        self.runs += other.runs;
        self.statuses += other.statuses;
        self.unknown += other.unknown;
        self.never_ran += other.never_ran;
        self.gaps += other.gaps;
        self.signals += other.signals;
    }
}

/// A small generator: enough to spread agents over what they can do, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// Strangers of the agents' own user, outside of every run: nobody may signal them.
struct Strangers(Vec<Child>);

impl Strangers {
    fn new() -> Self {
        let stranger = |_| {
            let mut command = Command::new("sleep");
            command.arg("600").uid(65_534).gid(65_534).stdin(Stdio::null());
            command.spawn().expect("a stranger")
        };
        Self((0..3).map(stranger).collect())
    }

    fn assert_alive(&mut self) {
        for child in &mut self.0 {
            assert!(child.try_wait().expect("our child").is_none(), "a stranger was signalled");
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Plays one seed and checks all that must hold.
///
/// # Panics
/// When something does not hold; the message names the plan.
#[must_use]
pub fn play(plan: Plan) -> Tally {
    let mut tally = Tally { seeds: 1, ..Tally::default() };
    let mut host = Host::new();
    let mut strangers = Strangers::new();
    let mut dice = Dice(plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let token = host.path("token");
    let role = if plan.crash == Crash::Keeper { "keeper" } else { "daemon" };
    let fault = format!("{role}:{}:{}", plan.step, token.display());

    let mut agents = 0;
    if plan.when == When::Adoption {
        let mut first = host.serving();
        for _ in 0..3 {
            submit(&host, &mut dice, &mut agents);
        }
        std::thread::sleep(Duration::from_millis(dice.roll(300)));
        first.kill();
        if dice.roll(2) == 0 {
            // Its keeper too: the next one adopts.
            end_keepers(&host);
        }
    }
    fs::write(&token, "").expect("a scratch file");
    host.set_env("AGENT_LOOP_FAULT", fault);
    let mut daemon = host.serve();
    if daemon.ready_or_ended() {
        for _ in 0..3 {
            submit(&host, &mut dice, &mut agents);
        }
    }
    if crashed(&host, plan, &mut daemon) {
        *tally.crashes.entry(format!("{:?} at {:?}", plan.crash, plan.when)).or_default() += 1;
    }
    host.unset_env("AGENT_LOOP_FAULT");
    let _ = fs::remove_file(&token);
    if daemon.ended() {
        daemon = host.serving();
    }
    finish(&host, plan, &mut daemon, &mut tally);
    strangers.assert_alive();
    tally
}

/// Submits an agent, whether that is answered or not.
fn submit(host: &Host, dice: &mut Dice, agents: &mut u64) {
    *agents += 1;
    let file = host.path(format!("agents/{agents}"));
    let file = file.display();
    let code = 1 + dice.roll(30);
    let turns = dice.roll(14);
    let leftover = if dice.roll(4) == 0 { "sleep 300 & " } else { "" };
    // Its own account: it began, how it means to end, and nothing where it is killed.
    let script = format!(
        "echo start >> {file}; trap 'echo end 40 >> {file}; exit 40' INT; trap 'echo end 41 >> {file}; exit 41' TERM; \
         {leftover}i=0; while [ $i -lt {turns} ]; do sleep 0.04; i=$((i+1)); done; echo end {code} >> {file}; exit {code}"
    );
    let mut args = vec!["start", "--cwd", "/", "--grace", "150ms"];
    let tag = format!("AGENT={agents}");
    args.extend(["--env", &tag]);
    if dice.roll(3) == 0 {
        args.extend(["--limit", "250ms"]);
    }
    args.extend(["--", "sh", "-c", &script]);
    let _ = host.ask(args);
}

/// Waits for the crash that the plan names; whether it came.
fn crashed(host: &Host, plan: Plan, daemon: &mut Daemon) -> bool {
    let end = Instant::now() + CRASH_LIMIT;
    let token = host.path("token");
    while token.exists() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    match plan.crash {
        Crash::Daemon => drop(daemon.wait()),
        Crash::Keeper => {}
        Crash::Both => {
            end_keepers(host);
            let _ = daemon.wait();
        }
    }
    true
}

/// Ends the keepers of the host as a crash would, found among the processes of its own cgroup.
fn end_keepers(host: &Host) {
    for pid in host.processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).nth(1) != Some(b"keeper") {
            continue;
        }
        if let Ok(pidfd) = sys::pidfd_open(pid.cast_signed())
            && host.processes().contains(&pid)
        {
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            assert!(sys::pidfd_ended(pidfd.as_fd(), CRASH_LIMIT * 4), "the keeper does not end");
        }
    }
}

/// Waits until all is over, and checks what must hold.
fn finish(host: &Host, plan: Plan, daemon: &mut Daemon, tally: &mut Tally) {
    let runs = all_ended(host, plan, daemon);
    for run in &runs {
        check(host, plan, run, tally);
    }
    eventually(&format!("nothing to be left of any run, {plan:?}\n{}", daemon.log()), || {
        let left = fs::read_dir(host.runs()).ok()?.filter_map(Result::ok);
        let runs = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("run-")).count();
        let pipes = fs::read_dir(host.path("state/pipes")).map_or(0, |pipes| pipes.count());
        (runs == 0 && pipes == 0).then_some(())
    });
    assert!(daemon.terminate().success(), "{plan:?}\n{}", daemon.log());
}

/// Waits until every run is over.
fn all_ended(host: &Host, plan: Plan, daemon: &Daemon) -> Vec<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let listed = host.ask(["ps", "--all", "--json"]);
        let runs: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        if let Some(runs) = runs["runs"].as_array()
            && runs.iter().all(|run| run["state"] == "ended")
        {
            return runs.clone();
        }
        if Instant::now() > end {
            let open = runs["runs"].as_array().into_iter().flatten().filter(|run| run["state"] != "ended");
            let open: String = open
                .map(|run| format!("{run:#}\n{}", events_of(host, run["run"].as_str().unwrap_or_default())))
                .collect();
            panic!("runs that do not end, {plan:?}\n{}\n{open}", daemon.log());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check(host: &Host, plan: Plan, run: &Value, tally: &mut Tally) {
    let id = run["run"].as_str().expect("an id");
    let script = run["argv"][2].as_str().expect("a script");
    let file = script.split(" >> ").nth(1).and_then(|rest| rest.split(';').next()).expect("its file");
    let account = fs::read_to_string(file).unwrap_or_default();
    let starts = account.lines().filter(|line| *line == "start").count();
    let told = |what: &str| format!("{what}: {plan:?}\n{run:#}\naccount: {account:?}\n{}", events_of(host, id));
    tally.runs += 1;
    assert!(starts <= 1, "{}", told("an agent ran twice"));

    let outcome = run["outcome"].as_str().unwrap_or_default();
    if matches!(outcome, "withdrawn" | "launch_failed") {
        tally.never_ran += 1;
        assert_eq!(starts, 0, "{}", told("what never ran has run"));
        return;
    }
    let ended = account.lines().find_map(|line| line.strip_prefix("end ")).and_then(|code| code.parse::<u64>().ok());
    match (run["code"].as_u64(), run["signal"].as_u64(), ended) {
        (Some(code), None, Some(ended)) => assert_eq!(code, ended, "{}", told("another status than the agent's")),
        // Killed before it could say more, or before the end that it had announced.
        (None, Some(9 | 2 | 15), _) => {}
        (None, None, _) => {
            assert_eq!(run["status"], "unknown", "{}", told("no status"));
            assert_ne!(plan.crash, Crash::Daemon, "{}", told("unknown, though the keeper lived"));
            tally.unknown += 1;
        }
        _ => panic!("{}", told("a status that the agent's account does not explain")),
    }
    tally.statuses += u64::from(run["status"] != "unknown");
    assert_eq!(run["proven"], true, "{}", told("its tree was not proven empty"));
    check_sum(host, id, &told, tally);
}

fn events_of(host: &Host, id: &str) -> String {
    host.events(id).iter().map(|event| format!("{event}\n")).collect()
}

/// I20 over one run, from the lines alone: what the kernel saw is written, left out, late, lost or declared.
fn check_sum(host: &Host, id: &str, told: &dyn Fn(&str) -> String, tally: &mut Tally) {
    let events = host.events(id);
    let of = |kind: &'static str| events.iter().filter(move |event| event["kind"] == kind);
    let recorded = |kind: &'static str| of(kind).filter(|event| event["inferred"].is_null()).count() as u64;
    tally.gaps += of("gap").count() as u64;
    tally.signals += of("signal.intent").count() as u64;
    assert_eq!(of("run.born").count(), 1, "{}", told("born more or less than once"));
    assert_eq!(of("run.exit").count(), 1, "{}", told("ended more or less than once"));
    let Some(stats) = of("stats").next_back().map(|event| &event["stats"]) else { panic!("{}", told("no sum")) };
    for (name, kind) in [("fork", "proc.fork"), ("exec", "proc.exec"), ("exit", "proc.exit")] {
        let number = |part: &str| stats[part][name].as_u64().unwrap_or(0);
        let declared: u64 = of("gap")
            .filter(|gap| matches!(gap["gap"]["cause"].as_str(), Some("restart" | "no_death")))
            .map(|gap| gap["gap"]["lost"][name].as_u64().unwrap_or(0))
            .sum();
        let written = recorded(kind) + u64::from(name == "fork");
        let accounted = written + number("filtered") + number("late") + number("lost") + declared;
        assert_eq!(number("seen"), accounted, "{}", told(&format!("the sum of {name}s")));
    }
    let born: Vec<&Value> = of("proc.fork").map(|event| &event["proc"]["id"]).collect();
    let died: Vec<&Value> = of("proc.exit").map(|event| &event["proc"]["id"]).collect();
    for proc in born {
        let deaths = died.iter().filter(|dead| **dead == proc).count();
        assert_eq!(deaths, 1, "{}", told("a process died more or less than once"));
    }
}
