//! Draws the sum of the kernel's records again, from the lines alone (I20).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::audit::Counts;

/// A number out of three.
type Of = fn(&Counts) -> u64;

/// What is counted, in words.
const KINDS: [(&str, Of); 3] = [("births", |it| it.fork), ("execs", |it| it.exec), ("deaths", |it| it.exit)];

/// What is counted of each run.
#[derive(Debug, Default)]
pub(super) struct Accounts(BTreeMap<String, Account>);

#[derive(Debug, Default)]
struct Account {
    written: Counts,
    declared: Counts,
    /// Whether its birth stands in the log: without it a part of its lines was removed.
    born: bool,
    ended: bool,
    sum: Option<Sum>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Sum {
    seen: Counts,
    written: Counts,
    filtered: Counts,
    late: Counts,
    lost: Counts,
}

#[derive(Deserialize)]
struct Line {
    kind: String,
    run: Option<String>,
    inferred: Option<u64>,
    stats: Option<Sum>,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Gap {
    cause: String,
    lost: Option<Counts>,
}

/// Whether lines of this kind are counted.
pub(super) fn counts(kind: &[u8]) -> bool {
    kind.starts_with(b"proc.") || kind.starts_with(b"run.") || matches!(kind, b"stats" | b"gap")
}

impl Accounts {
    /// Takes a line; the reason where it cannot be read.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let Some(run) = line.run else { return Ok(()) };
        let account = self.0.entry(run).or_default();
        let written = &mut account.written;
        match line.kind.as_str() {
            "run.born" => {
                account.born = true;
                written.fork += 1;
            }
            "run.exit" => account.ended = true,
            // What a repair inferred was never recorded by the kernel.
            "proc.fork" => written.fork += u64::from(line.inferred.is_none()),
            "proc.exec" => written.exec += u64::from(line.inferred.is_none()),
            "proc.exit" => written.exit += u64::from(line.inferred.is_none()),
            // What the rings lost is counted by the kernel and in the sum; what a restart lost stands here alone.
            "gap" => {
                if let Some(Gap { cause, lost: Some(lost) }) = &line.gap
                    && matches!(cause.as_str(), "restart" | "no_death")
                {
                    account.declared = add(account.declared, *lost);
                }
            }
            "stats" => account.sum = line.stats.or(account.sum),
            _ => {}
        }
        Ok(())
    }

    /// The sums that do not add up, in words; how many were drawn; and the runs that have none.
    pub(super) fn judge(&self) -> (Vec<String>, u64, Vec<String>) {
        let (mut wrong, mut drawn, mut without) = (Vec::new(), 0, Vec::new());
        for (run, account) in &self.0 {
            let Some(sum) = account.sum.filter(|_| account.born) else {
                if account.ended {
                    without.push(run.clone());
                }
                continue;
            };
            drawn += 1;
            for (name, of) in KINDS {
                let of = |counts: &Counts| u128::from(of(counts));
                let (written, declared) = (of(&account.written), of(&account.declared));
                let (filtered, late, lost) = (of(&sum.filtered), of(&sum.late), of(&sum.lost));
                let accounted = written + declared + filtered + late + lost;
                if of(&sum.seen) != accounted {
                    wrong.push(format!(
                        "run {run}: the kernel saw {} {name}, of which {accounted} are accounted for: {written} written, \
                         {filtered} left out, {late} late, {lost} lost, {declared} declared lost by restarts",
                        of(&sum.seen)
                    ));
                }
                if of(&sum.written) != written && declared == 0 {
                    wrong.push(format!("run {run}: its sum says {} {name} written, {written} are", of(&sum.written)));
                }
            }
        }
        (wrong, drawn, without)
    }
}

const fn add(one: Counts, other: Counts) -> Counts {
    Counts {
        fork: one.fork.saturating_add(other.fork),
        exec: one.exec.saturating_add(other.exec),
        exit: one.exit.saturating_add(other.exit),
    }
}
