//! `agent-loop tick`: one pass of the issue loop, for who runs it by a timer.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::client::{Common, draw, output};
use super::serve;
use crate::audit::redact;
use crate::config::PLACE;
use crate::control::api::{TickRequest, TickView};
use crate::control::client::ClientError;
use crate::error;
use crate::issues;

/// Makes one pass over all repositories and ends: for who stays with cron.
///
/// Where a daemon runs it is asked to look at once, and this ends when it has looked. Where none does, this is the daemon for
/// one pass: it goes on with what was begun, takes issues, stays until the agents that work on them have ended and what they
/// committed is on its way, and leaves the rest (checks that run, a person who is asked) to the next pass. Ended before,
/// it leaves its agents to the keeper, and the next pass takes them up. The keeper stays; what it says is in `keeper.log` of
/// the log directory.
///
/// A dry run says what would be taken and writes nothing, neither at the forge nor here. Without a daemon it does not know
/// what is worked on here already.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only say what would be taken.
    #[arg(long)]
    dry_run: bool,
    /// The configuration, where no daemon runs.
    #[arg(long, value_name = "FILE", default_value = PLACE)]
    config: PathBuf,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop tick --dry-run
  */10 * * * * root agent-loop tick

Exit codes: 0 done; 1 it failed; 3 the configuration is wrong; 4 a repository could not be looked at;
5 refused for safety; 6 not permitted; 8 another pass is under way.";

/// Makes the pass and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let wish = TickRequest { dry_run: args.dry_run };
    let asked = runtime().map(|runtime| runtime.block_on(args.common.client().tick(wish)));
    match asked {
        Ok(Ok(view)) => tell(&view, args),
        Ok(Err(ClientError::NotRunning(_))) => alone(args),
        Ok(Err(why)) => {
            eprintln!("agent-loop: asking the daemon for a pass: {why}");
            error::of_question(&why)
        }
        Err(why) => failed(&why),
    }
}

/// Without a daemon.
fn alone(args: &Args) -> u8 {
    let config = match serve::read(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("agent-loop: reading the configuration: {}", redact::said(&error.to_string()));
            return error::CONFIG;
        }
    };
    if config.repos.is_empty() {
        eprintln!(
            "agent-loop: {} names no repository: write `[[repo]]` into it, see `agent-loop config check`",
            args.config.display()
        );
        return error::CONFIG;
    }
    if args.dry_run {
        return match runtime() {
            Ok(runtime) => tell(&runtime.block_on(issues::would_take(&config)), args),
            Err(why) => failed(&why),
        };
    }
    if let Err(code) = serve::may_run("tick") {
        return code;
    }
    match serve::try_run(config, &args.config, true) {
        Ok(Some(view)) => tell(&view, args),
        Ok(None) => {
            eprintln!("agent-loop: stopped in the middle of the pass; its agents go on, the next pass takes them up");
            error::FAILED
        }
        Err(failure) => {
            eprintln!("agent-loop: {}", redact::said(&format!("{failure:#}")));
            serve::code(&failure)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn failed(why: &std::io::Error) -> u8 {
    eprintln!("agent-loop: starting the event loop: {why}");
    error::FAILED
}

fn tell(view: &TickView, args: &Args) -> u8 {
    if view.under_way {
        eprintln!("agent-loop: another pass is under way; `agent-loop queue` shows it");
        return error::ALREADY_RUNNING;
    }
    let text = || draw::tick(view, output::page());
    let said = if args.common.json { output::print_json(view) } else { output::print(&text()) };
    match said {
        Ok(()) if view.repos.iter().any(|repo| repo.trouble.is_some()) => error::FORGE,
        Ok(()) => error::DONE,
        Err(error) => {
            eprintln!("agent-loop: writing the answer: {error}");
            error::FAILED
        }
    }
}
