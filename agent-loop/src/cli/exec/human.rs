//! What a person reads: one aligned line for each event, and a summary.
//!
//! Pure: facts in, text out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::event::{Fact, Gap, Member, Outcome, Phase, SignalResult, Signalled, Step, Summary};
use crate::model::{BootNs, ProcessKey, StopReason, WaitStatus};

/// How much of a command line is shown.
const COMMAND_WIDTH: usize = 100;

/// How many names a list shows.
const LIST_LENGTH: usize = 5;

/// Turns facts into lines.
pub(super) struct Human {
    colour: bool,
    began: BootNs,
    command: String,
    living: HashMap<ProcessKey, Process>,
}

struct Process {
    command: Option<String>,
    born: BootNs,
}

/// The colours, as terminal codes.
#[derive(Clone, Copy)]
enum Colour {
    Dim,
    Bold,
    Red,
    Green,
}

impl Human {
    /// For a run of `command`; colours only where somebody sees them.
    pub(super) fn new(command: &[String], colour: bool, began: BootNs) -> Self {
        Self { colour, began, command: shown(command), living: HashMap::new() }
    }

    /// The line of a fact, if it has one.
    pub(super) fn fact(&mut self, fact: &Fact, now: BootNs) -> Option<String> {
        Some(match fact {
            Fact::RunBorn(born) => {
                self.living.insert(born.key, Process { command: Some(self.command.clone()), born: born.at });
                let text = self.paint(Colour::Bold, &self.command);
                self.line(born.at, Some(born.key.tgid), "born", &text)
            }
            Fact::Fork { birth, inferred } => {
                let parent = birth.forker.and_then(|key| self.living.get(&key)?.command.clone());
                self.living.insert(birth.key, Process { command: parent, born: birth.at });
                let by = birth.forker.map_or_else(|| "parent unknown".to_owned(), |key| format!("by {}", key.tgid));
                let text = self.paint(Colour::Dim, &format!("{by}{}", inferred_mark(inferred.is_some())));
                self.line(birth.at, Some(birth.key.tgid), "fork", &text)
            }
            Fact::Exec(exec) => {
                let command = if exec.argv.is_empty() { exec.filename.clone() } else { shown(&exec.argv) };
                if let Some(process) = self.living.get_mut(&exec.key) {
                    process.command = Some(command.clone());
                }
                self.line(exec.at, Some(exec.key.tgid), "exec", &command)
            }
            Fact::Exit { death, inferred, .. } => {
                let process = self.living.remove(&death.key);
                let mut text = status(death.status);
                if let Some(process) = process {
                    let _ = write!(text, " after {}", span(process.born.until(death.at)));
                    if let Some(command) = process.command {
                        let _ = write!(text, "  {}", self.paint(Colour::Dim, &command));
                    }
                }
                text.push_str(inferred_mark(inferred.is_some()));
                self.line(death.at, Some(death.key.tgid), "exit", &text)
            }
            Fact::Gap(gap) => self.line(gap.to, None, "gap", &self.paint(Colour::Red, &gap_text(gap))),
            Fact::SignalIntent { .. } => return None,
            Fact::SignalResult(signalled) => return self.signal(signalled, now),
            Fact::Phase(phase) => self.line(now, None, "stop", &self.phase(phase)),
            Fact::RunKilled { survivors: 0, proven, elapsed, .. } => {
                let proof = if *proven { "proven empty" } else { "found empty, which is not proven" };
                self.line(now, None, "stop", &format!("the tree is {proof} after {}", span(*elapsed)))
            }
            Fact::RunKilled { survivors, .. } => {
                let text = self.paint(Colour::Red, &format!("given up with {survivors} processes left"));
                self.line(now, None, "stop", &text)
            }
            Fact::RunExit(_) => return None,
        })
    }

    /// What is missing on this host, before anything else.
    pub(super) fn degraded(&self, reasons: &[String]) -> String {
        let mut text = String::new();
        for reason in reasons {
            let _ = writeln!(text, "agent-loop: {} {reason}", self.paint(Colour::Red, "degraded:"));
        }
        text
    }

    /// The sentence that ends a run.
    pub(super) fn summary(&self, summary: &Summary, degraded: bool) -> String {
        let ended = match (&summary.outcome, summary.status) {
            (Outcome::LaunchFailed(failure), _) => {
                let why = failure
                    .errno
                    .map_or_else(String::new, |errno| format!(": {}", std::io::Error::from_raw_os_error(errno)));
                self.paint(Colour::Red, &format!("could not start {}: {}{why}", self.command, failure.step))
            }
            (Outcome::Ended, Some(WaitStatus::Exited(0))) => self.paint(Colour::Green, "the command succeeded"),
            (Outcome::Ended, status) => {
                self.paint(Colour::Red, &format!("the command ended: {}", self::status(status)))
            }
            (Outcome::Stopped(reason), status) => {
                let text = format!("stopped, {}; the command ended: {}", why(*reason), self::status(status));
                self.paint(Colour::Red, &text)
            }
            (Outcome::NotEmpty { reason, survivors }, _) => {
                let text = format!("NOT stopped ({}): {survivors} processes are left", why(*reason));
                self.paint(Colour::Red, &text)
            }
        };
        let mut text = format!("agent-loop: {ended} ({})\n", span(summary.elapsed));
        let tree = match (&summary.outcome, summary.proven) {
            (Outcome::NotEmpty { .. }, _) => "tree: NOT empty",
            (_, true) => "tree: proven empty",
            (_, false) => "tree: not proven",
        };
        let _ = write!(text, "agent-loop: {} births, {} deaths, {tree}", summary.births, summary.deaths);
        if summary.leftovers > 0 {
            let _ = write!(text, ", {} left behind by the command", summary.leftovers);
        }
        if summary.gaps > 0 {
            let _ = write!(text, ", {} records lost for good", summary.gaps);
        }
        if degraded {
            text.push_str(", degraded mode");
        }
        text.push('\n');
        text
    }

    fn signal(&self, signalled: &Signalled, now: BootNs) -> Option<String> {
        let name = signal_name(signalled.signal);
        let text = match &signalled.result {
            // The step's own line has said so.
            SignalResult::Sent(_) | SignalResult::Gone => return None,
            SignalResult::Refused(why) => self.paint(Colour::Red, &format!("{name} refused: {why}")),
        };
        Some(self.line(now, Some(signalled.pid), "signal", &text))
    }

    fn phase(&self, phase: &Phase) -> String {
        match phase {
            Phase::Stopping { reason } => self.paint(Colour::Red, &format!("stopping the tree: {}", why(*reason))),
            Phase::Step { step, processes, grace } => match step {
                Step::Interrupt => format!("SIGINT to the command, {} to end", span(*grace)),
                Step::Terminate => format!("SIGTERM to {}, {} to end", count(*processes), span(*grace)),
                Step::Kill => format!("killing {}", count(*processes)),
            },
            Phase::Draining { leftovers } => {
                let names: Vec<String> = leftovers
                    .iter()
                    .take(LIST_LENGTH)
                    .map(|(key, command)| format!("{} {}", key.tgid, cut(command, COMMAND_WIDTH / 2)))
                    .collect();
                let more = leftovers.len().saturating_sub(LIST_LENGTH);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("the command ended and left behind: {}{more}", names.join(", "))
            }
            Phase::Unkillable { members, since } => {
                let names: Vec<String> = members.iter().take(LIST_LENGTH).map(member).collect();
                let text = format!("cannot be killed for {} now: {}", span(*since), names.join(", "));
                self.paint(Colour::Red, &text)
            }
        }
    }

    fn line(&self, at: BootNs, pid: Option<u32>, verb: &str, text: &str) -> String {
        let pid = pid.map_or_else(String::new, |pid| pid.to_string());
        let time = self.began.until(at).as_secs_f64();
        format!("{}  {pid:>7} {verb:<6} {text}\n", self.paint(Colour::Dim, &format!("{time:>9.3}s")))
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Dim => "2",
            Colour::Bold => "1",
            Colour::Red => "31",
            Colour::Green => "32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn count(processes: u32) -> String {
    if processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") }
}

fn member(member: &Member) -> String {
    let mut text = format!("{} {}", member.pid, member.comm.as_deref().unwrap_or("?"));
    if let Some(state) = member.state {
        let _ = write!(text, " (state {state}");
        if let Some(wchan) = &member.wchan {
            let _ = write!(text, " in {wchan}");
        }
        text.push(')');
    }
    text
}

fn gap_text(gap: &Gap) -> String {
    format!(
        "{}: lost {} births, {} execs, {} deaths; {} and {} inferred; {}",
        gap.cause.word(),
        gap.lost_fork,
        gap.lost_exec,
        gap.lost_exit,
        gap.inferred_births,
        gap.inferred_deaths,
        if gap.repaired { "repaired" } else { "NOT repaired" }
    )
}

const fn inferred_mark(inferred: bool) -> &'static str {
    if inferred { " (inferred: its record was lost)" } else { "" }
}

fn status(status: Option<WaitStatus>) -> String {
    status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string())
}

fn why(reason: StopReason) -> String {
    match reason {
        StopReason::Deadline => "its limit was reached".to_owned(),
        StopReason::OutputBudget => "its output budget was reached".to_owned(),
        StopReason::Leftovers => "the command left others behind".to_owned(),
        StopReason::Operator { signal } => format!("asked by {}", signal_name(signal)),
        StopReason::OutputFailed => "output could not be written".to_owned(),
        StopReason::Internal => "agent-loop failed".to_owned(),
    }
}

fn signal_name(signal: u8) -> String {
    nix::sys::signal::Signal::try_from(i32::from(signal))
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{} ms", span.as_millis())
    } else if span < Duration::from_secs(60) {
        format!("{:.1} s", span.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
    }
}

/// A command line on one line: control characters made visible, cut to a bearable length.
fn shown(argv: &[String]) -> String {
    let mut text = String::new();
    for argument in argv {
        if text.chars().count() > COMMAND_WIDTH {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        if argument.is_empty() || argument.contains(char::is_whitespace) {
            let _ = write!(text, "'{}'", argument.escape_debug());
        } else {
            let _ = write!(text, "{}", argument.escape_debug());
        }
    }
    cut(&text, COMMAND_WIDTH)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_write_control_characters_on_the_terminal() {
        let argv = ["sh".to_owned(), "-c".to_owned(), "printf '\x1b[2J'\n".to_owned()];
        assert!(!shown(&argv).contains('\x1b'));
        assert!(!shown(&argv).contains('\n'));
    }

    #[test]
    fn long_commands_are_cut_on_a_character() {
        let text = shown(&["ü".repeat(500)]);
        assert_eq!(text.chars().count(), COMMAND_WIDTH);
        assert!(text.ends_with('…'));
    }
}
