//! `audit why` and `audit tree`: one run, told from its records alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::query::{named, write};
use super::select;
use crate::audit::read::{Filter, Gap, Record};

/// Says what ended a run, by whom and on what evidence, from the records alone.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop audit why 01M89B3Q
  agent-loop audit why 01M89B3Q /mnt/copy/audit")]
pub(super) struct WhyArgs {
    #[command(flatten)]
    which: Which,
}

/// Draws the processes of a run: who forked whom, what they executed, how each ended.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop audit tree 01M89B3Q")]
pub(super) struct TreeArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, ClapArgs)]
struct Which {
    /// The run: its id, or the beginning of it.
    run: String,
    /// The log: its directory, or a file of lines.
    #[arg(value_name = "DIR|FILE")]
    log: Option<PathBuf>,
}

impl Which {
    /// The records of the one run that is meant.
    fn records(&self) -> Result<Vec<Record>, String> {
        let filter = Filter { run: Some(self.run.clone()), ..Filter::default() };
        let records = self.all(&filter)?;
        let Some(first) = records.first().and_then(|record| record.run.clone()) else {
            return Err(format!(
                "{} has no run {}; `audit query --kind run` lists them",
                named(self.log.as_deref()),
                self.run
            ));
        };
        match records.iter().find(|record| record.run.as_ref() != Some(&first)) {
            Some(other) => Err(format!(
                "{} is the beginning of more than one run: {first}, {}; write more of it",
                self.run,
                other.run.as_deref().unwrap_or_default()
            )),
            None => Ok(records),
        }
    }

    /// The gaps of the log itself: any run may have lost something in one of them.
    fn gaps(&self) -> Result<Vec<Record>, String> {
        let mut gaps = self.all(&Filter { kinds: vec!["gap".to_owned()], ..Filter::default() })?;
        gaps.retain(|gap| gap.run.is_none());
        Ok(gaps)
    }

    fn all(&self, filter: &Filter) -> Result<Vec<Record>, String> {
        let mut records: Vec<Record> = Vec::new();
        let mut take = |_: &[u8], record: Record| {
            records.push(record);
            Ok(())
        };
        select::each(select::source(self.log.as_deref())?, filter, false, &mut take)?;
        Ok(records)
    }
}

pub(super) fn why(args: &WhyArgs) -> Result<(), String> {
    let records = args.which.records()?;
    write(&told(&records, &args.which.gaps()?))
}

pub(super) fn tree(args: &TreeArgs) -> Result<(), String> {
    write(&drawn(&args.which.records()?))
}

/// The story of a run in sentences, each with the lines it rests on.
fn told(records: &[Record], gaps: &[Record]) -> String {
    let of = |kind: &'static str| records.iter().filter(move |record| record.kind == kind);
    let mut text = String::new();
    let run = records.first().and_then(|record| record.run.as_deref()).unwrap_or_default();
    let at = |record: &Record| format!("line {}, {}", record.seq, visible(&record.time));
    match of("run.born").next() {
        Some(born) => {
            let command = born.argv.as_ref().map_or_else(|| "a command".to_owned(), |argv| visible(&argv.join(" ")));
            let user = born.user.as_deref().map_or_else(String::new, |user| format!(" as {}", visible(user)));
            let _ = writeln!(text, "Run {run} began: {command}{user} ({}).", at(born));
        }
        None => {
            let _ = writeln!(text, "Run {run}: its birth does not stand in this log.");
        }
    }
    for asked in of("run.stop_asked") {
        let _ = writeln!(text, "Its end was {} ({}).", visible(asked.why.as_deref().unwrap_or("asked for")), at(asked));
    }
    for adopted in of("run.adopted") {
        let _ = writeln!(
            text,
            "{} ({}).",
            sentence(adopted.why.as_deref().unwrap_or("another daemon goes on with it")),
            at(adopted)
        );
    }
    for stuck in of("run.unkillable") {
        let _ =
            writeln!(text, "{} ({}).", sentence(stuck.why.as_deref().unwrap_or("not dead after SIGKILL")), at(stuck));
    }
    let intents: Vec<&Record> = of("signal.intent").collect();
    let mut reasons: BTreeMap<(Option<i64>, &str, &str), Vec<&Record>> = BTreeMap::new();
    for intent in &intents {
        let key = (
            intent.signal,
            intent.reason.as_deref().unwrap_or("unknown"),
            intent.proof.as_deref().unwrap_or("unknown"),
        );
        reasons.entry(key).or_default().push(intent);
    }
    for ((signal, reason, proof), intents) in &reasons {
        let signal = signal.map_or_else(|| "a signal".to_owned(), |signal| format!("signal {signal}"));
        let Some(first) = intents.first() else { continue };
        let _ = writeln!(
            text,
            "agent-loop sent {signal} {} since {}, by the proof {} ({}).",
            times(intents.len()),
            visible(&reason.replace('_', " ")),
            visible(proof),
            at(first)
        );
    }
    for refused in of("signal.refused") {
        let _ = writeln!(
            text,
            "A signal was refused: {} ({}).",
            visible(refused.why.as_deref().unwrap_or("unknown")),
            at(refused)
        );
    }
    for gap in of("gap") {
        let what = gap.gap.as_ref().map_or_else(|| "it does not say what".to_owned(), lost);
        let _ = writeln!(text, "Something was lost: {} ({}).", visible(&what), at(gap));
    }
    let end = of("run.exit").next_back();
    let begun = records.first().map_or(0, |record| record.seq);
    // What is lost after its last line may be its end.
    let within = |gap: &&Record| gap.seq > begun && end.is_none_or(|end| gap.seq < end.seq);
    for gap in gaps.iter().filter(within) {
        let what = gap.gap.as_ref().map_or_else(|| "it does not say what".to_owned(), lost);
        let _ = writeln!(
            text,
            "The log itself lost something meanwhile, which may be of this run: {} ({}).",
            visible(&what),
            at(gap)
        );
    }
    match end {
        Some(exit) => {
            let outcome = exit.outcome.as_deref().unwrap_or("unknown").replace('_', " ");
            let status = exit.status().unwrap_or_else(|| "its status is not known".to_owned());
            let source = exit.exit.as_ref().and_then(|exit| exit.source.as_deref()).unwrap_or("unknown");
            let _ = writeln!(
                text,
                "It is over: {}; {status}, as told by {} ({}).",
                visible(&outcome),
                visible(source),
                at(exit)
            );
            if let Some(why) = &exit.why {
                let _ = writeln!(text, "{}.", sentence(why));
            }
            let count =
                |count: Option<u64>| count.map_or_else(|| "an unknown number".to_owned(), |count| count.to_string());
            let _ = writeln!(
                text,
                "{} processes were born in its tree and {} died; {} outlived its command; its tree: {}.",
                count(exit.births),
                count(exit.deaths),
                count(exit.leftovers),
                visible(exit.tree.as_deref().unwrap_or("unknown"))
            );
        }
        None => text.push_str("Its end does not stand in this log.\n"),
    }
    text
}

/// What a gap says, in words.
fn lost(gap: &Gap) -> String {
    let counted = gap.lost.map(|lost| [(lost.fork, "births"), (lost.exec, "execs"), (lost.exit, "deaths")]);
    let own = [
        (gap.untracked, "processes never tracked"),
        (gap.missed, "runs of a hook skipped"),
        (gap.lines, "lines of the log"),
        (gap.bytes, "bytes of a torn line"),
    ];
    let own = own.into_iter().filter_map(|(count, what)| Some((count?, what)));
    let all = counted.into_iter().flatten().chain(own).filter(|(count, _)| *count > 0);
    let all: Vec<String> = all.map(|(count, what)| format!("{count} {what}")).collect();
    let what = if all.is_empty() { "how much is not known".to_owned() } else { all.join(", ") };
    let repaired = match gap.repaired {
        Some(true) => "; what lives is known again",
        Some(false) => "; what lives was not known again",
        None => "",
    };
    format!("{}: {what}{repaired}", gap.cause.replace('_', " "))
}

/// A process as it is drawn.
struct Life<'a> {
    pid: u32,
    command: String,
    born: &'a Record,
    died: Option<&'a Record>,
    children: Vec<&'a str>,
}

/// The tree of a run: each process below the one that forked it.
fn drawn(records: &[Record]) -> String {
    let mut lives: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    let mut roots: Vec<&str> = Vec::new();
    for record in records {
        let Some(proc) = &record.proc else { continue };
        match record.kind.as_str() {
            "run.born" | "proc.fork" => {
                let command = record.argv.as_ref().map(|argv| argv.join(" ")).unwrap_or_default();
                lives.insert(&proc.id, Life { pid: proc.pid, command, born: record, died: None, children: Vec::new() });
                match record.parent.as_ref().and_then(|parent| lives.get_mut(parent.id.as_str())) {
                    Some(parent) => parent.children.push(&proc.id),
                    None => roots.push(&proc.id),
                }
            }
            "proc.exec" => {
                if let (Some(life), Some(exec)) = (lives.get_mut(proc.id.as_str()), &record.exec) {
                    life.command = exec.argv.join(" ");
                }
            }
            "proc.exit" => {
                if let Some(life) = lives.get_mut(proc.id.as_str()) {
                    life.died = Some(record);
                }
            }
            _ => {}
        }
    }
    let mut text = String::new();
    // What is still to be drawn: who, and what stands before it.
    let mut waiting: Vec<(&str, String, &str)> = roots.iter().rev().map(|root| (*root, String::new(), "")).collect();
    while let Some((id, before, mark)) = waiting.pop() {
        let Some(life) = lives.get(id) else { continue };
        let command = if life.command.is_empty() { "copy of its parent".to_owned() } else { visible(&life.command) };
        let _ = writeln!(text, "{before}{mark}{} {command}  [{}]", life.pid, end(life));
        let below = match mark {
            "" => before,
            "└─ " => format!("{before}   "),
            _ => format!("{before}│  "),
        };
        for (at, child) in life.children.iter().enumerate().rev() {
            let mark = if at + 1 == life.children.len() { "└─ " } else { "├─ " };
            waiting.push((child, below.clone(), mark));
        }
    }
    if text.is_empty() {
        text.push_str("no process of it stands in this log\n");
    }
    text
}

/// How a process ended, how long it lived, and whether that was inferred.
fn end(life: &Life<'_>) -> String {
    let Some(died) = life.died else { return "its end is not recorded".to_owned() };
    let status = died.status().unwrap_or_else(|| "status unknown".to_owned());
    let ms = died.boot_ns.saturating_sub(life.born.boot_ns) / 1_000_000;
    let cause = died.exit.as_ref().and_then(|exit| exit.cause.as_deref()).filter(|cause| *cause == "stopped_by_us");
    let cause = if cause.is_some() { ", stopped by agent-loop" } else { "" };
    let inferred = if died.inferred.is_some() { ", inferred" } else { "" };
    format!("{status}, {ms} ms{cause}{inferred}")
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// A reason as a sentence of its own.
fn sentence(why: &str) -> String {
    let mut chars = visible(why).chars().collect::<Vec<_>>();
    if let Some(first) = chars.first_mut() {
        *first = first.to_ascii_uppercase();
    }
    chars.into_iter().collect()
}

/// Somebody's words, so that no code of them reaches the terminal.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        [
            r#"{"seq":3,"kind":"run.born","time":"T0","boot_ns":1000000,"run":"R","argv":["sh","-c","x"],"user":"agent","proc":{"id":"A","pid":7}}"#,
            r#"{"seq":4,"kind":"proc.fork","time":"T1","boot_ns":2000000,"run":"R","proc":{"id":"B","pid":8},"parent":{"id":"A","pid":7}}"#,
            r#"{"seq":5,"kind":"proc.fork","time":"T1","boot_ns":2000000,"run":"R","proc":{"id":"C","pid":9},"parent":{"id":"A","pid":7}}"#,
            r#"{"seq":6,"kind":"proc.exec","time":"T2","boot_ns":2500000,"run":"R","proc":{"id":"B","pid":8},"exec":{"argv":["make","\u001b[31mred"]}}"#,
            r#"{"seq":7,"kind":"run.stop_asked","time":"T3","run":"R","why":"asked by user 0: enough"}"#,
            r#"{"seq":8,"kind":"signal.intent","time":"T4","run":"R","signal":15,"reason":"operator","proof":"pidfs_ino","to":{"pid":8}}"#,
            r#"{"seq":9,"kind":"proc.exit","time":"T5","boot_ns":9000000,"run":"R","proc":{"id":"B","pid":8},"exit":{"code":null,"signal":15,"cause":"stopped_by_us","source":"kernel"}}"#,
            r#"{"seq":10,"kind":"run.exit","time":"T6","run":"R","outcome":"operator","tree":"empty","births":3,"deaths":3,"leftovers":0,"exit":{"code":null,"signal":15,"source":"waitid"}}"#,
        ]
        .iter()
        .map(|line| Record::read(line.as_bytes()).expect("a record"))
        .collect()
    }

    #[test]
    fn a_run_is_told_in_sentences_with_the_lines_they_rest_on() {
        let expected = "\
Run R began: sh -c x as agent (line 3, T0).
Its end was asked by user 0: enough (line 7, T3).
agent-loop sent signal 15 once since operator, by the proof pidfs_ino (line 8, T4).
It is over: operator; signal 15, as told by waitid (line 10, T6).
3 processes were born in its tree and 3 died; 0 outlived its command; its tree: empty.
";
        assert_eq!(told(&records(), &[]), expected);
        let unknown = told(&records()[1..5], &[]);
        assert!(
            unknown.contains("its birth does not stand") && unknown.contains("Its end does not stand"),
            "{unknown}"
        );
    }

    #[test]
    fn a_gap_of_the_log_itself_is_told_where_it_may_concern_the_run() {
        let gap = |seq: u64, gap: &str| {
            let line = format!(r#"{{"seq":{seq},"kind":"gap","time":"T","run":null,"gap":{gap}}}"#);
            Record::read(line.as_bytes()).expect("a record")
        };
        let gaps = [
            gap(2, r#"{"cause":"torn_tail","bytes":9}"#),
            gap(9, r#"{"cause":"disk_full","lines":4}"#),
            gap(11, r#"{"cause":"torn_tail","bytes":17}"#),
        ];
        let whole = told(&records(), &gaps);
        assert!(whole.contains("may be of this run: disk full: 4 lines of the log (line 9, T)."), "{whole}");
        assert_eq!(
            whole.matches("may be of this run").count(),
            1,
            "what was before its birth and after its end is not"
        );
        let cut = told(&records()[..5], &gaps);
        assert!(cut.contains("torn tail: 17 bytes of a torn line (line 11, T)."), "its end may have been lost: {cut}");
    }

    #[test]
    fn a_tree_shows_who_forked_whom_and_how_each_ended() {
        let expected = "\
7 sh -c x  [its end is not recorded]
├─ 8 make \u{fffd}[31mred  [signal 15, 7 ms, stopped by agent-loop]
└─ 9 copy of its parent  [its end is not recorded]
";
        assert_eq!(drawn(&records()), expected);
        assert_eq!(drawn(&[]), "no process of it stands in this log\n");
    }
}
