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
    /// Queue it.
    Queue(Box<RunRecord>),
    /// Queue it as a new attempt: the last one was cut off before anything of it could run.
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
    /// It is over, and nobody saw its end.
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

/// Decides what becomes of each run and of each cgroup; every cgroup found is in exactly one step.
#[must_use]
pub fn plan(findings: &Findings) -> Vec<Step> {
    let mut steps = Vec::new();
    // What exists under each name, whoever says so; the keeper holds it by descriptor, so its id counts.
    let mut there: BTreeMap<RunName, (RunTag, Option<HeldRun>)> =
        findings.cgroups.iter().map(|(name, tag)| (*name, (*tag, None))).collect();
    for (name, held) in &findings.held {
        there.insert(*name, (held.cgroup, Some(*held)));
    }
    let mut records: Vec<&RunRecord> = findings.records.iter().collect();
    records.sort_by_key(|record| record.id);
    for record in records {
        let found = there.remove(&record.name());
        step_of(record, found, &findings.boot_id, &mut steps);
    }
    for (name, (cgroup, held)) in there {
        let why = if findings.ended.contains(&name) { Why::Over } else { Why::Unknown };
        steps.push(Step::Discard { name, cgroup, held: held.is_some(), why });
    }
    steps
}

fn step_of(record: &RunRecord, found: Option<(RunTag, Option<HeldRun>)>, boot_id: &str, steps: &mut Vec<Step>) {
    let name = record.name();
    let mut discard = |why| {
        if let Some((cgroup, held)) = found {
            steps.push(Step::Discard { name, cgroup, held: held.is_some(), why });
        }
        found.is_some()
    };
    let boxed = || Box::new(record.clone());
    match &record.stage {
        Stage::Queued => {
            // Nothing was begun under this name: what bears it is not ours to run in.
            let taken = discard(Why::Unknown);
            steps.push(if taken { Step::Again(boxed()) } else { Step::Queue(boxed()) });
        }
        Stage::Intended => {
            let ran = found.and_then(|(_, held)| held).is_some_and(|held| held.thawed);
            discard(Why::NeverBorn);
            // A thaw follows the record of the birth: the store is older than what it describes.
            steps.push(if ran { Step::End(boxed(), RunOutcome::Lost) } else { Step::Again(boxed()) });
        }
        // No number, no time and no id of another boot means anything: nothing is signalled on it.
        Stage::Born(_) if record.boot_id != boot_id => {
            discard(Why::Unknown);
            steps.push(Step::End(boxed(), RunOutcome::LostToReboot));
        }
        Stage::Born(Born { cgroup, .. }) => match found {
            Some((tag, held)) if tag == *cgroup => {
                steps.push(Step::GoOn { record: boxed(), held: held.is_some(), cgroup: true });
            }
            Some(_) => {
                discard(Why::OtherCgroup);
                steps.push(Step::GoOn { record: boxed(), held: false, cgroup: false });
            }
            None => steps.push(Step::GoOn { record: boxed(), held: false, cgroup: false }),
        },
        Stage::Ended(_) => {
            discard(Why::Over);
        }
    }
}
