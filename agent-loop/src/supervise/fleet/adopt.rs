//! What a daemon that starts does with what its predecessors left: pure decisions on what was found. [pure]
//!
//! Nothing here authorises a signal (I4): each step goes to the keeper, which proves what it touches or refuses.

use std::collections::BTreeMap;

use crate::model::RunTag;
use crate::run::{Born, RunName, RunOutcome, RunRecord, Stage};

/// What a keeper holds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRun {
    /// The id of its cgroup.
    pub cgroup: RunTag,
    /// Whether its process may run, or could have.
    pub thawed: bool,
}

/// What was found on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The runs that were remembered as not over.
    pub records: Vec<RunRecord>,
    /// The names of runs that were remembered as over: what is left of them is only to be removed.
    pub ended: Vec<RunName>,
    /// The id of this boot.
    pub boot_id: String,
    /// What the keeper holds.
    pub held: BTreeMap<RunName, HeldRun>,
    /// The cgroups below the root that bear the name of a run.
    pub cgroups: BTreeMap<RunName, RunTag>,
}

/// One step of taking stock, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Kill and remove what this cgroup holds: nobody remembers it as alive.
    Discard {
        /// Its name.
        name: RunName,
        /// Its id.
        cgroup: RunTag,
        /// Whether the keeper holds it already.
        held: bool,
        /// Why, for the log.
        why: Why,
    },
    /// Queue it, as the record says: in this boot.
    Queue(Box<RunRecord>),
    /// Queue it, as the record says: a new attempt, in this boot. The last one was cut off before anything of it
    /// could run.
    Again(Box<RunRecord>),
    /// Go on with it.
    GoOn {
        /// What was remembered.
        record: Box<RunRecord>,
        /// Whether the keeper holds it; it must adopt it otherwise, by proof.
        held: bool,
        /// Whether its cgroup is there: its tree is empty otherwise.
        cgroup: bool,
    },
    /// It is over, and nobody saw its end; or it was withdrawn before anything of it could run.
    End(Box<RunRecord>, RunOutcome),
}

/// Why something is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its launch was cut off before its birth was recorded.
    NeverBorn,
    /// Nothing remembers it.
    Unknown,
    /// It was remembered as over.
    Over,
    /// Its name is a remembered run's, its id is not.
    OtherCgroup,
}

impl Why {
    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NeverBorn => "its launch was cut off before its birth was recorded; nothing of it ever ran",
            Self::Unknown => "no run of this name is remembered",
            Self::Over => "its run is over",
            Self::OtherCgroup => "it is not the cgroup that was recorded for this run",
        }
    }
}

/// What bears the name of a run: the id of the cgroup, and what the keeper holds of it.
type Found = (RunTag, Option<HeldRun>);

/// Decides what becomes of each run and of each cgroup; every cgroup found is in exactly one step.
#[must_use]
pub fn plan(findings: &Findings) -> Vec<Step> {
    let mut steps = Vec::new();
    // What exists under each name, whoever says so. Two ids of one name are two cgroups: the keeper holds by
    // descriptor what was removed from the tree, and the name was used again.
    let mut there: BTreeMap<RunName, Vec<Found>> = BTreeMap::new();
    for (name, held) in &findings.held {
        there.entry(*name).or_default().push((held.cgroup, Some(*held)));
    }
    for (name, tag) in &findings.cgroups {
        let found = there.entry(*name).or_default();
        if found.iter().all(|(held, _)| held != tag) {
            found.push((*tag, None));
        }
    }
    let mut records: Vec<&RunRecord> = findings.records.iter().collect();
    records.sort_by_key(|record| record.id);
    for record in records {
        let found = there.remove(&record.name()).unwrap_or_default();
        step_of(record, &found, findings, &mut steps);
    }
    for (name, found) in there {
        let why = if findings.ended.contains(&name) { Why::Over } else { Why::Unknown };
        discard(name, &found, why, &mut steps);
    }
    steps
}

fn step_of(record: &RunRecord, found: &[Found], findings: &Findings, steps: &mut Vec<Step>) {
    let name = record.name();
    let boxed = || Box::new(record.clone());
    match &record.stage {
        Stage::Queued | Stage::Intended(_) => {
            let queued = matches!(record.stage, Stage::Queued);
            // Nothing is begun while the store says queued: what bears the name is not ours to run in.
            discard(name, found, if queued { Why::Unknown } else { Why::NeverBorn }, steps);
            // A thaw follows the record of the birth: the store is older than what it describes.
            let ran = findings.held.iter().any(|(name, held)| name.id == record.id && held.thawed);
            steps.push(if ran {
                Step::End(boxed(), RunOutcome::Lost)
            } else if matches!(record.stage, Stage::Intended(Some(_))) {
                // What is left to be removed is of this boot.
                let boot_id = findings.boot_id.clone();
                Step::End(Box::new(RunRecord { boot_id, ..record.clone() }), RunOutcome::Withdrawn)
            } else if queued && found.is_empty() {
                Step::Queue(Box::new(queued_here(record, record.attempt, findings)))
            } else {
                Step::Again(Box::new(queued_here(record, record.attempt.saturating_add(1), findings)))
            });
        }
        // No number, no time and no id of another boot means anything: nothing is signalled on it.
        Stage::Born(_) if record.boot_id != findings.boot_id => {
            discard(name, found, Why::Unknown, steps);
            steps.push(Step::End(boxed(), RunOutcome::LostToReboot));
        }
        Stage::Born(Born { cgroup, .. }) => {
            let (own, others): (Vec<Found>, Vec<Found>) = found.iter().partition(|(tag, _)| tag == cgroup);
            discard(name, &others, Why::OtherCgroup, steps);
            let held = own.iter().any(|(_, held)| held.is_some());
            steps.push(Step::GoOn { record: boxed(), held, cgroup: !own.is_empty() });
        }
        Stage::Ended(_) => discard(name, found, Why::Over, steps),
    }
}

fn discard(name: RunName, found: &[Found], why: Why, steps: &mut Vec<Step>) {
    steps.extend(found.iter().map(|(cgroup, held)| Step::Discard { name, cgroup: *cgroup, held: held.is_some(), why }));
}

/// What is written from now on is of this boot.
fn queued_here(record: &RunRecord, attempt: u32, findings: &Findings) -> RunRecord {
    RunRecord { attempt, boot_id: findings.boot_id.clone(), stage: Stage::Queued, ..record.clone() }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test picks the step it is about")]
mod tests;
