//! What a person reads: one aligned line for each event, and a summary.
//!
//! Pure: facts in, text out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::audit::redact::Redactor;
use crate::event::{Fact, Gap, Outcome, Phase, SignalResult, Signalled, Step, Summary};
use crate::model::{BootNs, ProcessKey, StopReason, WaitStatus};

/// How much of a command line is shown.
const COMMAND_WIDTH: usize = 100;

/// How much of it where it was shown before.
const REMINDER_WIDTH: usize = 60;

/// How many names a list shows.
const LIST_LENGTH: usize = 5;

/// Turns facts into lines.
pub(super) struct Human {
    colour: bool,
    began: BootNs,
    /// How far our clock is ahead of the one of the kernel's records, in nanoseconds.
    ahead: i64,
    command: String,
    argv: Vec<String>,
    /// The command's own process, whose lines are marked.
    main: Option<ProcessKey>,
    /// Who outlived the command, for the summary.
    leftovers: String,
    living: HashMap<ProcessKey, Process>,
    redact: Redactor,
}

struct Process {
    /// What it runs; its forker's command, where it is a copy of that.
    command: Option<String>,
    /// Whether it executed something itself.
    executed: bool,
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
    /// For a run of `command`, by a clock that is so far `ahead` of the kernel's records; colours only where somebody sees them.
    pub(super) fn new(command: &[String], colour: bool, began: BootNs, ahead: i64, redact: Redactor) -> Self {
        Self {
            colour,
            began,
            ahead,
            command: shown(&redact.words(command, false)),
            argv: command.to_vec(),
            main: None,
            leftovers: String::new(),
            living: HashMap::new(),
            redact,
        }
    }

    /// The line of a fact, if it has one.
    pub(super) fn fact(&mut self, fact: &Fact, now: BootNs) -> Option<String> {
        Some(match fact {
            Fact::RunBorn(born) => {
                let process = Process { command: Some(self.command.clone()), executed: false, born: born.at };
                self.main = Some(born.key);
                self.living.insert(born.key, process);
                let text = self.paint(Colour::Bold, &self.command);
                self.line(born.at, Some(born.key), "born", &text)
            }
            Fact::Fork { birth, inferred } => {
                let command = birth.forker.and_then(|key| self.living.get(&key)?.command.clone());
                self.living.insert(birth.key, Process { command, executed: false, born: birth.at.shifted(self.ahead) });
                let of = birth.forker.map_or_else(|| "parent unknown".to_owned(), |key| format!("of {}", key.tgid));
                let text = self.paint(Colour::Dim, &format!("{of}{}", inferred_mark(inferred.is_some())));
                self.line(birth.at.shifted(self.ahead), Some(birth.key), "fork", &text)
            }
            Fact::Exec(exec) => {
                let words = self.redact.words(&exec.argv, exec.truncated);
                let command = if words.is_empty() { exec.filename.clone() } else { shown(&words) };
                let process = self.living.get_mut(&exec.key);
                let first = process.as_ref().is_some_and(|process| !process.executed);
                if let Some(process) = process {
                    process.command = Some(command.clone());
                    process.executed = true;
                }
                // Its birth has shown it.
                if first && self.main == Some(exec.key) && exec.argv == self.argv {
                    return None;
                }
                self.line(exec.at.shifted(self.ahead), Some(exec.key), "exec", &command)
            }
            Fact::Exit { death, inferred, .. } => {
                let process = self.living.remove(&death.key);
                let status = status(death.status);
                let mut text = match death.status {
                    Some(WaitStatus::Exited(0)) => format!("{status:<10}"),
                    Some(WaitStatus::Exited(_)) => self.paint(Colour::Bold, &format!("{status:<10}")),
                    Some(WaitStatus::Signaled { .. }) | None => self.paint(Colour::Red, &format!("{status:<10}")),
                };
                if let Some(process) = process {
                    let _ = write!(text, " {:>8}", span(process.born.until(death.at.shifted(self.ahead))));
                    let what = match (process.command, process.executed) {
                        (Some(command), true) => cut(&command, REMINDER_WIDTH),
                        (Some(command), false) => format!("copy of {}", cut(&command, REMINDER_WIDTH - 8)),
                        (None, _) => String::new(),
                    };
                    let _ = write!(text, "  {}", self.paint(Colour::Dim, &what));
                }
                text.push_str(inferred_mark(inferred.is_some()));
                self.line(death.at.shifted(self.ahead), Some(death.key), "end", &text)
            }
            Fact::Gap(gap) => self.line(gap.to, None, "gap", &self.paint(Colour::Red, &gap_text(gap))),
            Fact::SignalIntent { .. } => return None,
            Fact::SignalResult(signalled) => return self.signal(signalled, now),
            Fact::Phase(phase) => {
                if let Phase::Draining { leftovers } = phase {
                    self.leftovers = self.names(leftovers);
                }
                self.line(now, None, "stop", &self.phase(phase))
            }
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
        if summary.unseen > 0 && !matches!(summary.outcome, Outcome::NotEmpty { .. }) {
            let _ = writeln!(
                text,
                "agent-loop: its cgroup is empty; the kernel could not track up to {} births, and that none of these \
                 processes left the cgroup is not proven",
                summary.unseen
            );
        }
        if summary.leftovers > 0 && !self.leftovers.is_empty() {
            let _ = writeln!(text, "agent-loop: left behind: {}", self.leftovers);
        }
        text
    }

    fn signal(&self, signalled: &Signalled, now: BootNs) -> Option<String> {
        let name = signal_name(signalled.signal);
        let text = match &signalled.result {
            // The step's own line has said so.
            SignalResult::Sent(_) | SignalResult::Gone => return None,
            SignalResult::Refused(why) => self.paint(Colour::Red, &format!("{name} refused: {why}")),
        };
        Some(self.line_of(now, signalled.pid.to_string(), "signal", &text))
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
                format!("the command ended; {} left behind: {}", count(number(leftovers.len())), self.names(leftovers))
            }
            Phase::Unkillable { members, since } => {
                let names: Vec<String> =
                    members.iter().take(LIST_LENGTH).map(|member| visible(&member.to_string())).collect();
                let text = format!("cannot be killed for {} now: {}", span(*since), names.join(", "));
                self.paint(Colour::Red, &text)
            }
        }
    }

    /// The first of them by number and command, and how many more.
    fn names(&self, processes: &[(ProcessKey, String)]) -> String {
        let first = processes.iter().take(LIST_LENGTH);
        let names: Vec<String> = first
            .map(|(key, command)| {
                format!("{} {}", key.tgid, cut(&visible(&self.redact.text(command)), COMMAND_WIDTH / 2))
            })
            .collect();
        match processes.len().saturating_sub(LIST_LENGTH) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    fn line(&self, at: BootNs, of: Option<ProcessKey>, verb: &str, text: &str) -> String {
        let mark = if of.is_some() && of == self.main { "*" } else { "" };
        let of = of.map_or_else(String::new, |key| format!("{mark}{}", key.tgid));
        self.line_of(at, of, verb, text)
    }

    fn line_of(&self, at: BootNs, of: String, verb: &str, text: &str) -> String {
        let time = self.began.until(at).as_secs_f64();
        let line = format!("{}  {of:>8} {verb:<6} {text}", self.paint(Colour::Dim, &format!("{time:>9.3}s")));
        format!("{}\n", line.trim_end())
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

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn count(processes: u32) -> String {
    if processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") }
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
        StopReason::ActiveLimit => "its limit of waking time was reached".to_owned(),
        StopReason::Idle => "it wrote nothing for too long".to_owned(),
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
            let _ = write!(text, "'{}'", visible(argument));
        } else {
            text.push_str(&visible(argument));
        }
    }
    cut(&text, COMMAND_WIDTH)
}

/// Nothing that a terminal would obey, and quotes as they were typed: this is to be read, not to be run.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '"' | '\'' | '\\') { visible.push(char) } else { visible.extend(char.escape_debug()) }
    }
    visible
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
    use crate::event::{Cause, Launched};
    use crate::model::{Birth, Death, Discovery, Exec, ProofKind, RunTag, Source};

    const MS: u64 = 1_000_000;
    const RUN: RunTag = RunTag(1);

    /// The process `pid`, which is born `pid` milliseconds after the begin.
    fn key(pid: u32) -> ProcessKey {
        ProcessKey::new(pid, u64::from(pid) * MS)
    }

    fn at(ms: u64) -> BootNs {
        BootNs(ms * MS)
    }

    fn argv(line: &[&str]) -> Vec<String> {
        line.iter().map(|&word| word.to_owned()).collect()
    }

    fn born(pid: u32) -> Fact {
        Fact::RunBorn(Launched { key: key(pid), ino: None, run: RUN, at: at(pid.into()), traced: true })
    }

    fn fork(of: u32, pid: u32) -> Fact {
        let birth = Birth {
            key: key(pid),
            ino: None,
            run: RUN,
            forker: Some(key(of)),
            parent_tgid: Some(of),
            uid: None,
            at: at(pid.into()),
            discovery: Discovery::Fork,
        };
        Fact::Fork { birth, inferred: None }
    }

    fn exec(pid: u32, line: &[&str], ms: u64) -> Fact {
        Fact::Exec(Exec {
            key: key(pid),
            run: RUN,
            at: at(ms),
            filename: line.first().copied().unwrap_or_default().to_owned(),
            argv: argv(line),
            argc: u32::try_from(line.len()).expect("short"),
            argv_total: 0,
            truncated: false,
            cwd: None,
            file: None,
            uid: None,
            source: Source::Kernel,
        })
    }

    fn exit(pid: u32, status: WaitStatus, ms: u64) -> Fact {
        let death = Death {
            key: key(pid),
            ino: None,
            run: RUN,
            forker: None,
            status: Some(status),
            at: at(ms),
            source: Source::Kernel,
        };
        Fact::Exit { death, cause: Cause::Exited, inferred: None }
    }

    fn step(step: Step, processes: u32) -> Fact {
        Fact::Phase(Phase::Step { step, processes, grace: Duration::from_secs(10) })
    }

    fn summary(outcome: Outcome, status: WaitStatus, leftovers: u64) -> Summary {
        Summary {
            outcome,
            status: Some(status),
            status_source: Source::Waitid,
            births: 5,
            deaths: 5,
            leftovers,
            gaps: 0,
            proven: true,
            unseen: 0,
            elapsed: Duration::from_millis(61_500),
        }
    }

    #[test]
    fn what_a_person_reads_of_a_run() {
        let command = ["claude", "-p", "fix it"];
        let mut human = Human::new(&argv(&command), false, at(0), 0, Redactor::passing());
        let shell = [
            "/bin/bash",
            "-c",
            "source snapshot && eval 'git init && \"$SHELL\" -c \"exit 3\"; sleep 100' < /dev/null && pwd -P",
        ];
        let facts = [
            born(100),
            exec(100, &command, 103),
            fork(100, 200),
            exec(200, &shell, 201),
            fork(200, 201),
            exit(201, WaitStatus::Exited(1), 202),
            fork(200, 210),
            exec(210, &["git", "init"], 211),
            exit(210, WaitStatus::Exited(0), 220),
            fork(200, 230),
            exec(230, &["setsid", "sleep", "1000"], 231),
            Fact::Phase(Phase::Stopping { reason: StopReason::Deadline }),
            step(Step::Interrupt, 1),
            Fact::SignalResult(Signalled {
                pid: 100,
                key: Some(key(100)),
                signal: 2,
                result: SignalResult::Sent(ProofKind::OwnChild),
            }),
            exit(200, WaitStatus::Signaled { signal: 2, core: false }, 60_100),
            exit(100, WaitStatus::Exited(130), 60_200),
            step(Step::Kill, 1),
            exit(230, WaitStatus::Signaled { signal: 9, core: false }, 61_500),
            Fact::RunKilled {
                reason: StopReason::Deadline,
                survivors: 0,
                proven: true,
                elapsed: Duration::from_millis(1_500),
            },
        ];
        let mut text: String = facts.iter().filter_map(|fact| human.fact(fact, at(60_000))).collect();
        let outcome = Outcome::Stopped(StopReason::Deadline);
        text.push_str(&human.summary(&summary(outcome, WaitStatus::Exited(130), 0), false));
        assert_eq!(text, include_str!("human.golden"));
    }

    #[test]
    fn what_is_not_proven_is_said() {
        let human = Human::new(&argv(&["make"]), false, at(0), 0, Redactor::passing());
        let summary = Summary { proven: false, unseen: 3, ..summary(Outcome::Ended, WaitStatus::Exited(0), 0) };
        let text = human.summary(&summary, false);
        assert!(text.contains("tree: not proven\n"), "{text}");
        let said = "agent-loop: its cgroup is empty; the kernel could not track up to 3 births, and that none of these \
                    processes left the cgroup is not proven\n";
        assert!(text.ends_with(said), "{text}");
    }

    #[test]
    fn leftovers_are_named_where_they_are_found_and_in_the_summary() {
        let mut human = Human::new(&argv(&["make"]), false, at(0), 0, Redactor::passing());
        let leftovers = vec![(key(7), "sleep 1000".to_owned()), (key(8), "evil\x1b[2J".to_owned())];
        let line = human.fact(&Fact::Phase(Phase::Draining { leftovers }), at(1_000)).expect("a line");
        assert_eq!(
            line,
            "    1.000s           stop   the command ended; 2 processes left behind: 7 sleep 1000, 8 evil\\u{1b}[2J\n"
        );
        let text = human.summary(&summary(Outcome::Ended, WaitStatus::Exited(0), 2), true);
        assert_eq!(
            text,
            "agent-loop: the command succeeded (1m 1s)\n\
             agent-loop: 5 births, 5 deaths, tree: proven empty, 2 left behind by the command, degraded mode\n\
             agent-loop: left behind: 7 sleep 1000, 8 evil\\u{1b}[2J\n"
        );
    }

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
