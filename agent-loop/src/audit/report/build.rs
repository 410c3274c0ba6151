//! From lines to a report: one pass, in the order of the log.

use std::collections::{BTreeMap, HashMap};

use super::model::{
    Act, Boot, Checkpoint, Evidence, File, Gap, Killed, Lane, Leftover, Moment, Outcome, Report, Run, Sending,
    Verification,
};
use crate::audit::read::{self, NotARecord, Record};

/// What of a log is shown; nothing in it shows all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this run: its id, or the beginning of it.
    pub run: Option<String>,
    /// Only the runs of this issue.
    pub issue: Option<String>,
    /// Only runs that were not over at this moment.
    pub since: Option<Moment>,
}

/// How many lines that are no record are listed.
const LISTED: usize = 20;
/// How far the two clocks may drift apart within a boot before a reader is told: one second.
const STEP: u64 = 1_000_000_000;

/// A report in the making.
#[derive(Debug, Default)]
pub struct Builder {
    report: Report,
    /// The runs by their id.
    by_id: HashMap<String, usize>,
    /// Beside each run: its main process and those of it that live.
    live: Vec<Live>,
    /// For each boot: its place in `boots`, and how far the wall clock is ahead of the boot's.
    clocks: HashMap<String, BootClock>,
    not_shown: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct BootClock {
    wall_minus_boot: i64,
    /// How far our own clock is ahead of the kernel's records (time namespaces).
    ahead: i64,
    stepped: bool,
}

#[derive(Debug, Default)]
struct Live {
    main: Option<String>,
    main_dead: bool,
    processes: HashMap<String, (u32, Vec<String>)>,
}

impl Builder {
    /// Begins another file.
    pub fn file(&mut self, name: String, bytes: u64) {
        self.report.evidence.files.push(File { name, bytes, lines: 0 });
    }

    /// Takes the checkpoint file as it stands.
    pub fn checkpoint(&mut self, text: &str) {
        let mut lines = text.lines();
        let origin = lines.next().unwrap_or_default().to_owned();
        let size = lines.next().and_then(|size| size.parse().ok());
        let root = lines.next().unwrap_or_default().to_owned();
        let time = lines.find_map(|line| line.strip_prefix("time ")).map(str::to_owned);
        self.report.evidence.checkpoint = Some(Checkpoint { origin, size, root, time });
    }

    /// Takes the name of a public key.
    pub fn key(&mut self, name: String) {
        self.report.evidence.keys.push(name);
    }

    /// Takes what verifying the log said.
    pub fn verified(&mut self, verification: Verification) {
        self.report.evidence.verification = Some(verification);
    }

    /// Takes a line, without its end.
    ///
    /// # Errors
    /// Where it is of a newer major of the shape: then nothing of the log is to be shown. What is no record is counted.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), NotARecord> {
        let evidence = &mut self.report.evidence;
        evidence.lines += 1;
        let number = evidence.files.last_mut().map_or(0, |file| {
            file.lines += 1;
            file.lines
        });
        match Record::read(bytes) {
            Ok(line) => self.take(line),
            Err(newer @ NotARecord::Newer(_)) => return Err(newer),
            Err(NotARecord::Not(why)) => {
                evidence.unreadable_total += 1;
                if evidence.unreadable.len() < LISTED {
                    let file = evidence.files.len().saturating_sub(1);
                    evidence.unreadable.push((file, number, why));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, line: Record) {
        let evidence = &mut self.report.evidence;
        let first = evidence.seqs.map_or(line.seq, |(first, _)| first);
        evidence.seqs = Some((first, line.seq));
        let Some(at) = self.moment(&line) else {
            self.report.note_once("a line whose time cannot be read was left out of the picture");
            return;
        };
        if !is_of_host(&line.kind) {
            self.report.widen(at);
        }
        let run = match line.run.as_deref() {
            None | Some("") => None,
            Some(id) => Some(self.run(id, &line, at)),
        };
        self.record(line, at, run);
    }

    /// The moment of a line: its boot clock, laid beside the wall clock where the boot begins.
    fn moment(&mut self, line: &Record) -> Option<Moment> {
        let boot_ns = i64::try_from(line.boot_ns).ok()?;
        if !self.clocks.contains_key(line.boot_id.as_str()) {
            let wall = line.moment()?;
            let ahead = line.clock_ahead_ns.unwrap_or(0);
            let clock = BootClock { wall_minus_boot: wall.saturating_sub(boot_ns), ahead, stepped: false };
            self.clocks.insert(line.boot_id.clone(), clock);
            self.report.boots.push(Boot { id: line.boot_id.clone(), from: possible(wall) });
        }
        let clock = self.clocks.get_mut(line.boot_id.as_str())?;
        if let Some(ahead) = line.clock_ahead_ns {
            clock.ahead = ahead;
        }
        let of_kernel = line.kind.starts_with("proc.");
        let at = boot_ns.saturating_add(clock.wall_minus_boot);
        let at = possible(at.saturating_add(if of_kernel { clock.ahead } else { 0 }));
        // Reading the wall time of each of a million births would be most of the work.
        if !clock.stepped && !of_kernel && line.moment().is_some_and(|wall| wall.abs_diff(at) > STEP) {
            clock.stepped = true;
            self.report.note_once(
                "the wall clock was set while the host ran: times here follow the clock of the boot from its first line on, \
                 so that order and durations are true, and may differ from the `time` of later lines",
            );
        }
        Some(at)
    }

    fn run(&mut self, id: &str, line: &Record, at: Moment) -> usize {
        let place = self.by_id.get(id).copied().unwrap_or_else(|| {
            let place = self.report.runs.len();
            self.report.runs.push(Run { id: id.to_owned(), lines: (at, at), ..Run::default() });
            self.live.push(Live::default());
            self.by_id.insert(id.to_owned(), place);
            place
        });
        let run = &mut self.report.runs[place];
        run.lines = (run.lines.0.min(at), run.lines.1.max(at));
        if run.issue.is_none() {
            run.issue = issue(line);
        }
        place
    }

    fn record(&mut self, line: Record, at: Moment, run: Option<usize>) {
        let Some(place) = run else { return self.of_no_run(line, at) };
        let (Some(run), Some(live)) = (self.report.runs.get_mut(place), self.live.get_mut(place)) else { return };
        match line.kind.as_str() {
            "run.intent" => {
                run.intended = Some(at);
                run.argv = line.argv.unwrap_or_default();
                run.user = line.user;
            }
            "run.born" => {
                run.born = Some(at);
                run.argv = line.argv.unwrap_or_default();
                run.user = line.user;
                if let Some(main) = line.proc {
                    run.birth(at);
                    live.processes.insert(main.id.clone(), (main.pid, run.argv.clone()));
                    live.main = Some(main.id);
                }
            }
            "proc.fork" => {
                run.birth(at);
                if let Some(proc) = line.proc {
                    live.processes.insert(proc.id, (proc.pid, Vec::new()));
                }
            }
            "proc.exec" => {
                run.counted.exec += 1;
                if let (Some(proc), Some(exec)) = (line.proc, line.exec)
                    && let Some(known) = live.processes.get_mut(&proc.id)
                {
                    known.1 = exec.argv;
                }
            }
            "proc.exit" => run.death(live, line.proc, line.exit, at),
            "signal.intent" => run.intent(&line, at),
            "signal.result" | "signal.refused" => run.result(&line, at),
            "run.killed" => {
                let Record { reason, survivors, tree, elapsed_ms, .. } = line;
                run.killed = Some(Killed { at, reason, survivors, tree, elapsed_ms });
            }
            "run.exit" => run.end(line, at),
            "run.lost" => {
                run.outcome = Outcome::Lost;
                run.ended = Some(at);
                run.said.extend(line.why.or(line.reason));
            }
            "run.stop_asked" | "run.adopted" | "run.unkillable" | "run.adopt" | "log.torn" | "log.lost" => {
                run.said.extend(line.why.or(line.reason));
            }
            "stats" => run.stats = line.stats.or(run.stats.take()),
            "host.start" => self.report.evidence.host(line.host),
            "gap" => self.gap(line, at, Some(place)),
            kind => *self.not_shown.entry(kind.to_owned()).or_default() += 1,
        }
    }

    fn of_no_run(&mut self, line: Record, at: Moment) {
        let evidence = &mut self.report.evidence;
        match line.kind.as_str() {
            "host.start" => evidence.host(line.host),
            "gap" => self.gap(line, at, None),
            "log.segment" => {
                let Some(segment) = line.segment else { return };
                let is_other = evidence.log.is_some() && evidence.log != segment.log;
                evidence.log = evidence.log.take().or(segment.log);
                evidence.format = segment.format.or(evidence.format.take());
                add(&mut evidence.schemas, segment.schema);
                add(&mut evidence.redaction, segment.redaction_sha256);
                if is_other {
                    self.report.note_once("the segments name different logs: they do not belong together");
                }
            }
            "retention" => {
                let Some(removed) = line.retention else { return };
                let of =
                    |number: Option<u64>| number.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string());
                self.report.notes.push(format!(
                    "{} lines from line {} on were removed by retention: {}",
                    of(removed.lines),
                    removed.first_seq.map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
                    removed.reason.as_deref().unwrap_or("no reason is given")
                ));
            }
            kind => *self.not_shown.entry(kind.to_owned()).or_default() += 1,
        }
    }

    fn gap(&mut self, line: Record, at: Moment, run: Option<usize>) {
        let Some(gap) = line.gap else { return };
        let ahead = self.clocks.get(line.boot_id.as_str());
        let moment = |ns: Option<u64>| {
            let ns = i64::try_from(ns?).ok()?;
            Some(possible(ns.saturating_add(ahead?.wall_minus_boot)))
        };
        let to = moment(gap.to_ns).unwrap_or(at);
        let from = moment(gap.from_ns).unwrap_or(to).min(to);
        self.report.gaps.push(Gap {
            seq: line.seq,
            run,
            cause: gap.cause,
            from,
            to,
            lost: gap.lost,
            untracked: gap.untracked.unwrap_or(0),
            missed: gap.missed.unwrap_or(0),
            lines: gap.lines,
            bytes: gap.bytes,
            inferred: gap.inferred.unwrap_or_default(),
            repaired: gap.repaired,
        });
    }

    /// The report of what was selected.
    #[must_use]
    pub fn finish(self, selection: &Selection) -> Report {
        let mut report = self.report;
        report.evidence.not_shown = self.not_shown.into_iter().collect();
        for run in &mut report.runs {
            // A record may be written after a later one: of two rings, or inferred by a repair.
            run.births.sort_unstable();
            run.deaths.sort_unstable();
        }
        select(&mut report, selection);
        let mut lanes: Vec<Lane> = Vec::new();
        let mut places: HashMap<Option<&str>, usize> = HashMap::new();
        for (place, run) in report.runs.iter().enumerate() {
            let lane = *places.entry(run.issue.as_deref()).or_insert_with(|| {
                lanes.push(Lane { issue: run.issue.clone(), runs: Vec::new() });
                lanes.len() - 1
            });
            if let Some(lane) = lanes.get_mut(lane) {
                lane.runs.push(place);
            }
        }
        // Runs of issues first; the others below them.
        lanes.sort_by_key(|lane| lane.issue.is_none());
        report.lanes = lanes;
        report
    }
}

/// Keeps what was asked for, and says what was left out.
fn select(report: &mut Report, selection: &Selection) {
    let wanted = |run: &Run| {
        let issue = |asked: &String| {
            let asked = asked.trim_start_matches('#');
            run.issue.as_deref().is_some_and(|issue| issue == asked || issue.rsplit('#').next() == Some(asked))
        };
        selection.run.as_ref().is_none_or(|asked| run.id.starts_with(asked.as_str()))
            && selection.issue.as_ref().is_none_or(issue)
            && selection.since.is_none_or(|since| run.ended.is_none_or(|ended| ended >= since))
    };
    let all = report.runs.len();
    let mut places = Vec::with_capacity(all);
    let mut kept = 0;
    for run in &report.runs {
        let keep = wanted(run);
        places.push(keep.then_some(kept));
        kept += usize::from(keep);
    }
    if kept == all && selection.since.is_none() {
        return;
    }
    report.runs.retain(wanted);
    report.gaps.retain_mut(|gap| {
        let since = selection.since.is_none_or(|since| gap.to >= since);
        match gap.run {
            None => since,
            Some(run) => {
                gap.run = places.get(run).copied().flatten();
                since && gap.run.is_some()
            }
        }
    });
    let from = report.runs.iter().map(|run| run.lines.0).min();
    let to = report.runs.iter().map(|run| run.lines.1).max();
    report.span = from.zip(to).map(|(from, to)| (selection.since.map_or(from, |since| from.max(since).min(to)), to));
    let left_out = &mut report.evidence.selection;
    left_out.push(format!("{kept} of the {all} runs of the log are shown"));
    left_out.extend(selection.run.as_ref().map(|run| format!("only runs whose id begins with {run}")));
    left_out.extend(selection.issue.as_ref().map(|issue| format!("only runs of issue {issue}")));
    left_out
        .extend(selection.since.map(|since| format!("only runs that were not over at {}", super::words::utc(since))));
}

impl Report {
    fn widen(&mut self, at: Moment) {
        self.span = Some(self.span.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
    }

    fn note_once(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }
}

impl Evidence {
    fn host(&mut self, host: Option<read::Host>) {
        let Some(host) = host else { return };
        add(&mut self.schemas, Some(host.schema.clone()).filter(|it| !it.is_empty()));
        add(&mut self.hosts, Some(host));
    }
}

impl Run {
    fn birth(&mut self, at: Moment) {
        self.counted.fork += 1;
        self.births.push(at);
    }

    fn death(&mut self, live: &mut Live, proc: Option<read::Proc>, exit: Option<read::Exit>, at: Moment) {
        self.counted.exit += 1;
        self.deaths.push(at);
        let Some(proc) = proc else { return };
        live.processes.remove(&proc.id);
        if live.main.as_deref() == Some(&proc.id) {
            live.main_dead = true;
            let mut left: Vec<_> = live.processes.iter().collect();
            left.sort_by(|(one, (pid, _)), (other, (number, _))| (pid, one).cmp(&(number, other)));
            let left = left.into_iter().take(Self::LEFT);
            self.left.extend(left.map(|(id, (pid, argv))| Leftover {
                id: id.clone(),
                pid: *pid,
                argv: argv.clone(),
                death: None,
            }));
        } else if live.main_dead
            && let Some(left) = self.left.iter_mut().find(|left| left.id == proc.id)
        {
            left.death = Some((at, exit));
        }
    }

    fn intent(&mut self, line: &Record, at: Moment) {
        self.signals.intended += 1;
        self.act(line, at, None);
    }

    fn result(&mut self, line: &Record, at: Moment) {
        let sent = match (line.kind.as_str(), line.result.as_deref()) {
            ("signal.refused", _) | (_, Some("refused")) => {
                self.signals.refused += 1;
                Sending::Refused(line.why.clone())
            }
            (_, Some("sent")) => {
                self.signals.sent += 1;
                Sending::Sent
            }
            (_, Some("gone")) => {
                self.signals.gone += 1;
                Sending::Gone
            }
            (_, other) => Sending::Other(other.unwrap_or("unknown").to_owned()),
        };
        let id = line.to.as_ref().and_then(|to| to.id.as_deref());
        let pid = line.to.as_ref().and_then(|to| to.pid);
        let same = |act: &&mut Act| {
            let target = act.to.is_some() && act.to.as_deref() == id || act.to.is_none() && act.pid == pid;
            act.result.is_none() && act.signal == signal(line) && target
        };
        match self.acts.iter_mut().rev().find(same) {
            Some(act) => {
                act.pid = act.pid.or(pid);
                act.result = Some(sent);
            }
            // Nobody announced it, or the list is full: a refusal is always told.
            None => self.act(line, at, Some(sent)),
        }
    }

    fn act(&mut self, line: &Record, at: Moment, result: Option<Sending>) {
        let refused = matches!(result, Some(Sending::Refused(_)));
        if self.acts.len() >= if refused { 2 * Self::ACTS } else { Self::ACTS } {
            return;
        }
        self.acts.push(Act {
            at,
            seq: line.seq,
            to: line.to.as_ref().and_then(|to| to.id.clone()),
            pid: line.to.as_ref().and_then(|to| to.pid),
            cgroup: line.to.as_ref().and_then(|to| to.cgroup),
            signal: signal(line),
            proof: line.proof.clone(),
            reason: line.reason.clone(),
            result,
        });
    }

    fn end(&mut self, line: Record, at: Moment) {
        self.ended = Some(at);
        let status = line.exit.as_ref().map(|exit| (exit.code, exit.signal));
        self.outcome = match (line.outcome.as_deref(), status) {
            (Some("ended"), Some((Some(0), _))) => Outcome::Succeeded,
            (Some("ended"), Some((Some(_), _) | (None, Some(_)))) => Outcome::Failed,
            (Some("ended"), Some((None, None)) | None) | (None, _) => Outcome::Unknown,
            (Some("launch_failed"), _) => Outcome::LaunchFailed,
            (Some("not_empty"), _) => Outcome::NotEmpty,
            (Some(reason), _) => Outcome::Stopped(reason.to_owned()),
        };
        self.said.extend(line.why);
        self.exit = line.exit;
        self.leftovers = line.leftovers;
        if self.leftovers == Some(0) {
            // A stop kills the tree at once: who died a moment after the main process outlived nothing.
            self.left.clear();
        }
        self.tree = line.tree;
        let said = (line.births, line.deaths);
        let counted = (Some(self.counted.fork), Some(self.counted.exit));
        if said != counted && said != (None, None) {
            let of = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
            self.said.push(format!(
                "its end names {} births and {} deaths; {} and {} stand in the lines that were read",
                of(said.0),
                of(said.1),
                self.counted.fork,
                self.counted.exit
            ));
        }
    }
}

/// Whether a line says something of the log or the host, and nothing of a run's time.
fn is_of_host(kind: &str) -> bool {
    kind.starts_with("log.") || matches!(kind, "key" | "anchor" | "retention" | "config")
}

fn add<T: PartialEq>(list: &mut Vec<T>, new: Option<T>) {
    if let Some(new) = new
        && !list.contains(&new)
    {
        list.push(new);
    }
}

/// The nearest moment that can be: none is before 1970, and the span between two can always be told.
fn possible(at: Moment) -> Moment {
    at.clamp(0, Moment::MAX / 2)
}

/// An issue as it is shown: a number gets its sign.
fn issue(line: &Record) -> Option<String> {
    let issue = line.issue()?;
    let is_number = !issue.is_empty() && issue.bytes().all(|byte| byte.is_ascii_digit());
    Some(if is_number { format!("#{issue}") } else { issue })
}

/// The signal that a line is about.
fn signal(line: &Record) -> Option<u8> {
    line.signal.and_then(|signal| u8::try_from(signal).ok())
}
