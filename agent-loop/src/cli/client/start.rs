//! `agent-loop start`: asks the daemon for a run, and may wait for its end.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use tokio::time::sleep;

use super::away::Away;
use super::output::{print, print_json};
use super::{Common, Failure, doing, draw};
use crate::control::api::{RunView, StartRequest, TaskVerb};
use crate::control::client::Client;
use crate::error;

/// Starts a command under the daemon, as the configured agent user; or takes an issue.
///
/// Prints the id of the run. The run belongs to the daemon: it goes on when this command ends. A single word of the form
/// OWNER/NAME#NUMBER is an issue of a configured repository: it is taken at once, whatever its labels.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Stop it after this time since its birth, suspend included, e.g. `90s`, `1h 30m`.
    #[arg(long, value_name = "TIME", value_parser = span)]
    limit: Option<String>,
    /// Stop it after this time that the host was awake.
    #[arg(long, value_name = "TIME", value_parser = span)]
    active_limit: Option<String>,
    /// Stop it when it has written nothing for this time.
    #[arg(long, value_name = "TIME", value_parser = span)]
    idle: Option<String>,
    /// How long each polite step of a stop is given.
    #[arg(long, value_name = "TIME", value_parser = span)]
    grace: Option<String>,
    /// Stop it when it has written more than so many bytes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    output_bytes: Option<u64>,
    /// Bytes of memory that its tree may take.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    memory_bytes: Option<u64>,
    /// Processes and threads that it may have at once.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    tasks: Option<u64>,
    /// Processors in hundredths: 150 is one and a half.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..))]
    cpu_percent: Option<u32>,
    /// What becomes of processes that outlive the command.
    #[arg(long, value_enum)]
    leftovers: Option<After>,
    /// Its working directory [default: the agent user's home].
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A variable of its environment; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The file that it reads as standard input [default: /dev/null].
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Wait for its end and return its exit code.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    common: Common,
    /// The command and its arguments.
    #[arg(required = true, value_name = "CMD", trailing_var_arg = true)]
    command: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop start --limit 1h -- claude -p 'fix the failing test'
  agent-loop start --wait --limit 10m --cwd /srv/work -- make check
  agent-loop start --stdin /srv/prompts/7.md --idle 15m -- claude -p
  agent-loop start owner/name#42

Exit codes with --wait: the command's own; 128+n it was ended by signal n; 124 a limit or budget
was reached; 125 its end is not known, or agent-loop failed. Ctrl-C ends the waiting, not the run.";

/// What becomes of leftovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum After {
    /// They are stopped.
    Kill,
    /// They are waited for; the limits still hold.
    Wait,
}

impl After {
    const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Wait => "wait",
        }
    }
}

/// A time as it is handed on, refused here already if it is none.
fn span(text: &str) -> Result<String, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span.is_zero() => Err("it must be longer than 0; leave it out for no limit".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; write it like `90s`, `10m` or `1h 30m`")),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it like KEY=VALUE".to_owned()),
    }
}

impl Args {
    fn wish(self) -> Result<StartRequest, Failure> {
        let absolute = |path: Option<PathBuf>| {
            let path = path.map(std::path::absolute).transpose();
            path.map_err(|error| Failure::Usage(format!("making a path absolute: {error}")))
        };
        let wish = StartRequest {
            argv: self.command,
            env: self.env,
            cwd: absolute(self.cwd)?,
            stdin: absolute(self.stdin)?,
            limit: self.limit,
            active_limit: self.active_limit,
            idle_limit: self.idle,
            grace: self.grace,
            output_bytes: self.output_bytes,
            memory_bytes: self.memory_bytes,
            tasks: self.tasks,
            cpu_percent: self.cpu_percent,
            leftovers: self.leftovers.map(|after| after.word().to_owned()),
        };
        wish.check().map_err(|problem| Failure::Usage(problem.to_string()))?;
        Ok(wish)
    }
}

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let (common, wait) = (args.common.clone(), args.wait);
    if let [word] = &args.command[..]
        && let Ok(issue) = word.parse()
    {
        return super::tasks::act(&issue, TaskVerb::Start, &common).await;
    }
    let client = common.client();
    let started = client.start(&args.wish()?).await.map_err(doing("starting the run"))?;
    if !wait {
        if common.json { print_json(&started) } else { print(&format!("{}\n", started.run)) }?;
        return Ok(error::DONE);
    }
    eprintln!("agent-loop: run {} is under way; Ctrl-C ends the waiting, not the run", started.run);
    let view = match ended(&client, &started.run).await {
        Ok(view) => view,
        Err(failure) => {
            // Not the code of the question: whoever waits reads the exit code as the run's.
            eprintln!("agent-loop: {failure}; how run {} ended is not known here", started.run);
            return Ok(error::INTERNAL);
        }
    };
    if common.json {
        print_json(&view)?
    } else {
        eprintln!("agent-loop: {}", draw::ending(&view))
    }
    Ok(error::of_waited(&view))
}

/// The run, once it has ended.
async fn ended(client: &Client, run: &str) -> Result<RunView, Failure> {
    let mut pause = Duration::from_millis(50);
    let mut away = Away::default();
    loop {
        match client.run(run).await {
            Ok(view) if view.state == "ended" => return Ok(view),
            Ok(_) => away.is_back(),
            Err(why) => away.wait(why).await.map_err(doing("waiting for the end"))?,
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
