//! What is done with each run and each cgroup that is found.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::event::Outcome;
use crate::model::{BootNs, ProcessKey, Source, Totals};
use crate::run::{End, Limits, RunId, Submission};
use crate::supervise::Leftovers;

const HERE: &str = "this boot";
const OWN: RunTag = RunTag(7);
const OTHER: RunTag = RunTag(8);

fn record(number: u64, attempt: u32, boot_id: &str, stage: Stage) -> RunRecord {
    RunRecord {
        told: Vec::new(),
        id: RunId(Ulid::from_parts(number, 1)),
        attempt,
        submission: Submission {
            argv: vec!["agent".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: "agent".into(),
            stdin: None,
            limits: Limits::default(),
            grace: Duration::from_secs(1),
            leftovers: Leftovers::Kill,
            asked_by: 0,
            withheld: false,
            part: None,
        },
        submitted_unix_ns: 0,
        boot_id: boot_id.into(),
        stage,
    }
}

fn born() -> Stage {
    Stage::Born(Born {
        cgroup: OWN,
        main: ProcessKey::new(10, 10),
        ino: None,
        at: BootNs(10),
        deadline: None,
        traced: true,
        stopping: None,
        suspended_ns: 0,
        baseline: Totals::default(),
    })
}

fn over() -> Stage {
    Stage::Ended(End {
        outcome: RunOutcome::Finished(Outcome::Ended),
        status: None,
        source: Source::Unknown,
        births: 0,
        deaths: 0,
        leftovers: 0,
        proven: true,
        oom_kills: None,
        elapsed: Duration::ZERO,
        at_unix_ns: 0,
    })
}

/// A step in short; ids of cgroups are told, a requeued record's attempt and boot are checked.
fn said(step: &Step) -> String {
    match step {
        Step::Discard { cgroup, held, why, .. } => {
            format!("discard {}{} {why:?}", cgroup.0, if *held { " held" } else { "" })
        }
        Step::Queue(record) | Step::Again(record) => {
            assert_eq!((record.boot_id.as_str(), &record.stage), (HERE, &Stage::Queued));
            let word = if matches!(step, Step::Queue(_)) { "queue" } else { "again" };
            format!("{word} {}", record.attempt)
        }
        Step::GoOn { held, cgroup, .. } => {
            format!("go on{}{}", if *held { " held" } else { "" }, if *cgroup { "" } else { " without cgroup" })
        }
        Step::End(_, RunOutcome::LostToReboot) => "lost to reboot".into(),
        Step::End(_, RunOutcome::Lost) => "lost".into(),
        Step::End(_, outcome) => panic!("{outcome:?}"),
    }
}

#[test]
fn each_stage_with_each_finding_has_its_steps() {
    let held = |cgroup, thawed| Some(HeldRun { cgroup, thawed });
    let (queued, intended, born, over) = (Stage::Queued, Stage::Intended(None), born(), over());
    for (stage, boot_id, keeper, tree, expected) in [
        (&queued, HERE, None, None, &["queue 1"][..]),
        (&queued, "another", None, None, &["queue 1"]),
        (&queued, HERE, None, Some(OWN), &["discard 7 Unknown", "again 2"]),
        (&queued, HERE, held(OWN, false), Some(OWN), &["discard 7 held Unknown", "again 2"]),
        (&queued, HERE, held(OWN, true), Some(OWN), &["discard 7 held Unknown", "lost"]),
        (&intended, HERE, None, None, &["again 2"]),
        (&intended, "another", None, None, &["again 2"]),
        (&intended, HERE, None, Some(OWN), &["discard 7 NeverBorn", "again 2"]),
        (&intended, HERE, held(OWN, false), Some(OWN), &["discard 7 held NeverBorn", "again 2"]),
        (&intended, HERE, held(OWN, true), Some(OWN), &["discard 7 held NeverBorn", "lost"]),
        (&intended, HERE, held(OWN, true), None, &["discard 7 held NeverBorn", "lost"]),
        (&born, HERE, None, None, &["go on without cgroup"]),
        (&born, HERE, None, Some(OWN), &["go on"]),
        (&born, HERE, held(OWN, true), Some(OWN), &["go on held"]),
        (&born, HERE, held(OWN, false), Some(OWN), &["go on held"]),
        (&born, HERE, held(OWN, true), None, &["go on held"]),
        (&born, HERE, None, Some(OTHER), &["discard 8 OtherCgroup", "go on without cgroup"]),
        (&born, HERE, held(OTHER, true), Some(OTHER), &["discard 8 held OtherCgroup", "go on without cgroup"]),
        // Two ids of one name: what the keeper holds was removed, and the name was used again.
        (&born, HERE, held(OWN, true), Some(OTHER), &["discard 8 OtherCgroup", "go on held"]),
        (&born, HERE, held(OTHER, true), Some(OWN), &["discard 8 held OtherCgroup", "go on"]),
        (&born, "another", None, None, &["lost to reboot"]),
        (&born, "another", None, Some(OWN), &["discard 7 Unknown", "lost to reboot"]),
        (&born, "another", held(OWN, true), Some(OWN), &["discard 7 held Unknown", "lost to reboot"]),
        (&over, HERE, None, None, &[]),
        (&over, HERE, None, Some(OWN), &["discard 7 Over"]),
        (&over, "another", held(OWN, true), Some(OWN), &["discard 7 held Over"]),
    ] {
        let record = record(1, 1, boot_id, stage.clone());
        let name = record.name();
        let findings = Findings {
            records: vec![record],
            ended: Vec::new(),
            boot_id: HERE.into(),
            held: keeper.map(|held| (name, held)).into_iter().collect(),
            cgroups: tree.map(|tag| (name, tag)).into_iter().collect(),
        };
        let steps: Vec<String> = plan(&findings).iter().map(said).collect();
        assert_eq!(steps, expected, "{stage:?} {boot_id} {keeper:?} {tree:?}");
    }
}

#[test]
fn a_cgroup_of_no_remembered_attempt_is_discarded_and_told_why() {
    let remembered = record(1, 2, HERE, Stage::Queued);
    let earlier = RunName { id: remembered.id, attempt: 1 };
    let over = record(2, 1, HERE, over()).name();
    let stranger = record(3, 1, HERE, Stage::Queued).name();
    let findings = Findings {
        records: vec![remembered],
        ended: vec![over],
        boot_id: HERE.into(),
        held: BTreeMap::from([(stranger, HeldRun { cgroup: OTHER, thawed: true })]),
        cgroups: BTreeMap::from([(earlier, RunTag(1)), (over, RunTag(2)), (stranger, OTHER)]),
    };
    let steps: Vec<String> = plan(&findings).iter().map(said).collect();
    assert_eq!(steps, ["queue 2", "discard 1 Unknown", "discard 2 Over", "discard 8 held Unknown"]);
}

#[test]
fn a_run_of_which_any_attempt_was_thawed_is_never_launched_again() {
    for stage in [Stage::Queued, Stage::Intended(None)] {
        let record = record(1, 2, HERE, stage);
        for attempt in [1, 3] {
            let name = RunName { id: record.id, attempt };
            let findings = Findings {
                records: vec![record.clone()],
                boot_id: HERE.into(),
                held: BTreeMap::from([(name, HeldRun { cgroup: OWN, thawed: true })]),
                ..Findings::default()
            };
            let steps: Vec<String> = plan(&findings).iter().map(said).collect();
            assert_eq!(steps, ["lost", "discard 7 held Unknown"], "{attempt}");
        }
    }
}

#[test]
fn runs_are_taken_up_in_the_order_of_their_submission() {
    let records = [3, 1, 2].map(|number| record(number, 1, HERE, Stage::Queued));
    let findings = Findings { records: records.to_vec(), boot_id: HERE.into(), ..Findings::default() };
    let order: Vec<RunId> = plan(&findings)
        .into_iter()
        .map(|step| match step {
            Step::Queue(record) => record.id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [1, 2, 3].map(|number| RunId(Ulid::from_parts(number, 1))));
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::Queued),
        Just(Stage::Intended(None)),
        Just(Stage::Intended(Some(crate::model::StopReason::Idle))),
        Just(born()),
        Just(over())
    ]
}

fn findings() -> impl Strategy<Value = Findings> {
    let run = (0..4u64, 1..3u32, any::<bool>(), stage());
    let tag = (6..10u64).prop_map(RunTag);
    let name =
        (0..6u64, 1..4u32).prop_map(|(number, attempt)| RunName { id: RunId(Ulid::from_parts(number, 1)), attempt });
    let held = (tag.clone(), any::<bool>()).prop_map(|(cgroup, thawed)| HeldRun { cgroup, thawed });
    (
        prop::collection::vec(run, 0..5),
        prop::collection::vec(name.clone(), 0..3),
        prop::collection::btree_map(name.clone(), held, 0..6),
        prop::collection::btree_map(name, tag, 0..6),
    )
        .prop_map(|(records, ended, held, cgroups)| {
            let mut records: Vec<_> = records
                .into_iter()
                .map(|(number, attempt, here, stage)| {
                    record(number, attempt, if here { HERE } else { "another" }, stage)
                })
                .collect();
            records.sort_by_key(|record| record.id);
            records.dedup_by_key(|record| record.id);
            Findings { records, ended, boot_id: HERE.into(), held, cgroups }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every cgroup found is in one step, every run that is not over in one that is no discard; what lives and is
    /// remembered is never discarded, and nothing that may have run is launched again.
    #[test]
    fn every_cgroup_and_every_run_is_in_exactly_one_step(findings in findings()) {
        let steps = plan(&findings);
        let mut found: Vec<(RunName, RunTag)> =
            findings.cgroups.iter().map(|(name, tag)| (*name, *tag)).collect();
        found.extend(findings.held.iter().map(|(name, held)| (*name, held.cgroup)));
        found.sort_unstable();
        found.dedup();
        let mut taken = Vec::new();
        let mut runs = Vec::new();
        for step in &steps {
            match step {
                Step::Discard { name, cgroup, held, .. } => {
                    taken.push((*name, *cgroup));
                    prop_assert_eq!(*held, findings.held.get(name).is_some_and(|held| held.cgroup == *cgroup));
                    let live = findings.records.iter().any(|record| {
                        record.name() == *name
                            && record.boot_id == HERE
                            && matches!(&record.stage, Stage::Born(born) if born.cgroup == *cgroup)
                    });
                    prop_assert!(!live, "a live run is discarded: {:?}", step);
                }
                Step::GoOn { record, cgroup, .. } => {
                    runs.push(record.id);
                    prop_assert_eq!(record.boot_id.as_str(), HERE);
                    if *cgroup {
                        taken.push((record.name(), OWN));
                    }
                }
                Step::Queue(record) | Step::Again(record) => {
                    runs.push(record.id);
                    let before = findings.records.iter().find(|before| before.id == record.id);
                    let again = matches!(step, Step::Again(_));
                    prop_assert_eq!(before.map(|before| before.attempt + u32::from(again)), Some(record.attempt));
                    prop_assert!(!findings.held.iter().any(|(name, held)| name.id == record.id && held.thawed));
                    // A name that is in use is not used for another attempt.
                    prop_assert!(again || !found.iter().any(|(name, _)| *name == record.name()));
                }
                Step::End(record, _) => runs.push(record.id),
            }
        }
        taken.sort_unstable();
        prop_assert_eq!(taken, found);
        let open = |record: &&RunRecord| !matches!(record.stage, Stage::Ended(_));
        let open: Vec<RunId> = findings.records.iter().filter(open).map(|record| record.id).collect();
        runs.sort_unstable();
        prop_assert_eq!(runs, open);
    }
}
