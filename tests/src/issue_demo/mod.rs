//! One issue from its label to its verified merge, told to a person while it happens.
//!
//! - [`main`] plays it: `agent-loop serve`, the fake forge, and an agent of a script or the real `claude`
//! - [`alone`] is the forge by itself, for a daemon elsewhere on the host: a machine with systemd
//! - `judge` says what has to hold at the forge in the end
//! - `tell` says what a line of the audit log, or a request that the forge heard, means [pure]
//!
//! What is told comes from the log and from the forge; what is checked in the end comes from the forge alone, and from
//! `agent-loop audit verify`. Called by the programs `issue_demo` and `forge` alone.

pub mod alone;
mod judge;
mod tell;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;

use self::tell::Teller;
use crate::harness::{Scene, agent_loop, without_bpf, without_claude, without_root};
use crate::stand_in::{StandIn, Turn};

/// Plays one issue from its label to its verified merge.
#[derive(Debug, Parser)]
struct Args {
    /// Have the real `claude` do the work, with a stand-in for the model alone.
    #[arg(long)]
    real_agent: bool,
    /// Where the report of the timeline goes.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
}

const TITLE: &str = "The door squeaks";
/// What the agent does: a while of thinking, with a process beside it, then one commit.
const SCRIPT: &str = "cat > /dev/null\necho 'I read the issue.'\nsleep 2 &\nsleep 1\n\
                      echo 'oil the hinges' > door.txt\ngit add door.txt\n\
                      git commit --quiet -m 'oil the hinges of the door'\nwait\necho 'It does not squeak any more.'\n";
const WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);

/// Plays the issue; the exit code says whether everything that was checked held.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let missing = [without_root(), without_bpf(), args.real_agent.then(without_claude).flatten()];
    if let Some(why) = missing.into_iter().flatten().next() {
        eprintln!("this cannot be shown here: it {why}");
        return ExitCode::FAILURE;
    }
    if play(&args) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(args: &Args) -> bool {
    let work =
        "echo 'oil the hinges' > door.txt && git add door.txt && git commit --quiet -m 'oil the hinges of the door'";
    let stand_in = StandIn::start([Turn::Bash(work.to_owned()), Turn::Text("The door does not squeak.".to_owned())]);
    let mut scene = Scene::new(SCRIPT);
    if args.real_agent {
        scene.use_claude(&stand_in);
    }
    // "Closes #N" is best effort at a real forge: here it does not happen, and agent-loop closes the issue itself.
    scene.forge.world().closes = false;
    heading("the stage");
    say(
        "a forge on this machine, which remembers as GitHub does and checks every request against GitHub's description",
    );
    let agent = if args.real_agent { "the real `claude`; only its model is played" } else { "a script of a shell" };
    say(&format!("agent-loop serve, with eBPF, as on any host; its agent is {agent}"));
    let number = scene.issue(TITLE);
    say(&format!("alice opens {}: \"{TITLE}\", and puts the label State/Ready on it", scene.key(number)));
    println!();
    heading("what happens");
    println!("    log   │ a line of the audit log, in words");
    println!("    forge │ a request that changes something there, as the forge heard it\n");
    let begun = Instant::now();
    let mut daemon = scene.serving();
    let mut told = Told::default();
    let came_to_its_end = loop {
        let over = scene.forge.world().at(&format!("refs/agent-loop/claims/{number}")).is_none()
            && !scene.forge.world().issues[&number].open
            && scene.task(number).is_none();
        tell(&scene, &mut told, begun);
        if over || begun.elapsed() > WITHIN {
            break over;
        }
        sleep(POLL);
    };
    println!();
    heading("what people see at the forge in the end");
    for comment in scene.comments(number) {
        comment.lines().filter(|line| !line.starts_with("<!--")).for_each(|line| println!("    {line}"));
    }
    println!();
    // It closes its log.
    daemon.terminate();
    let log = scene.host.path("log/audit");
    let held = judge(&scene, number, came_to_its_end, &log);
    let report = Command::new(agent_loop()).args(["audit", "report", "--output"]).arg(&args.report).arg(&log).status();
    let has_report = report.is_ok_and(|status| status.success());
    println!();
    match (has_report, std::path::absolute(&args.report)) {
        (true, Ok(path)) => println!("The timeline of every process: file://{}", path.display()),
        (true, Err(_)) | (false, _) => println!("The report could not be written to {}", args.report.display()),
    }
    held && has_report
}

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    log: usize,
    heard: usize,
    teller: Teller,
}

/// Tells what is new in the log and at the forge.
fn tell(scene: &Scene, told: &mut Told, begun: Instant) {
    let at = || format!("{:5.1} s", begun.elapsed().as_secs_f64());
    // What was announced comes before the request, what is told of its answer after it.
    let lines = scene.log();
    let new = lines.get(told.log..).unwrap_or_default();
    let answered = new.iter().position(|line| line["kind"].as_str().is_some_and(|kind| kind.ends_with(".result")));
    let (before, after) = new.split_at(answered.unwrap_or(new.len()));
    let heard = scene.forge.heard();
    // One that is not answered yet is told the next time.
    let ready: Vec<_> =
        heard.get(told.heard..).unwrap_or_default().iter().take_while(|it| it.status.is_some()).collect();
    let say = |who: &str, text: Option<String>| text.into_iter().for_each(|text| println!("{} {who} │ {text}", at()));
    before.iter().for_each(|line| say("log  ", told.teller.line(line)));
    ready.iter().for_each(|request| say("forge", tell::request(request)));
    after.iter().for_each(|line| say("log  ", told.teller.line(line)));
    told.heard += ready.len();
    told.log = lines.len();
}

/// Prints what has to hold, each with its outcome; whether all of it does.
fn judge(scene: &Scene, number: u64, over: bool, log: &Path) -> bool {
    heading("what has to hold, asked of the forge itself");
    let verified = Command::new(agent_loop()).args(["audit", "verify"]).arg(log).output();
    let verdict = verified.as_ref().map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    let verdict = verdict.lines().find(|line| line.contains("intact")).unwrap_or_default().trim().to_owned();
    let mut checks = judge::at_the_forge(&scene.forge, number);
    checks.insert(0, (over, "the task came to its end".to_owned()));
    checks.push((
        verified.is_ok_and(|it| matches!(it.status.code(), Some(0 | 1))),
        format!("agent-loop audit verify: {verdict}"),
    ));
    judge::print(&checks)
}

fn heading(text: &str) {
    println!("==> {text}");
}

fn say(text: &str) {
    println!("    {text}");
}
