//! Whatever is saved, in whatever order and however often the store is opened anew: it is there, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::{collection, option};
use ulid::Ulid;

use super::{Scratch, all};
use crate::event::{LaunchFailure, Outcome};
use crate::model::{BootNs, PidfsIno, ProcessKey, RunTag, Source, StopReason, Totals, WaitStatus};
use crate::run::{Born, End, Limits, Part, RunId, RunOutcome, RunRecord, Stage, Submission};
use crate::store::Store as _;
use crate::supervise::Leftovers;

fn reason() -> impl Strategy<Value = StopReason> {
    prop_oneof![
        Just(StopReason::Deadline),
        Just(StopReason::OutputBudget),
        Just(StopReason::Leftovers),
        any::<u8>().prop_map(|signal| StopReason::Operator { signal }),
        Just(StopReason::OutputFailed),
        Just(StopReason::Internal),
    ]
}

fn span() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, ns)| Duration::new(s, ns))
}

fn limits() -> impl Strategy<Value = Limits> {
    let number = || option::of(any::<u64>());
    let times = (option::of(span()), option::of(span()), option::of(span()));
    (times, number(), number(), number(), option::of(any::<u32>())).prop_map(
        |((wall, active, idle), output_bytes, memory_bytes, tasks, cpu_percent)| Limits {
            wall,
            active,
            idle,
            output_bytes,
            memory_bytes,
            tasks,
            cpu_percent,
        },
    )
}

fn submission() -> impl Strategy<Value = Submission> {
    let texts = collection::vec(any::<String>(), 0..4);
    let env = collection::vec(any::<(String, String)>(), 0..3);
    let paths = (any::<String>(), option::of(any::<String>()));
    (texts, env, paths, any::<String>(), limits(), span(), any::<bool>(), any::<u32>()).prop_map(
        |(argv, env, (cwd, stdin), user, limits, grace, wait, asked_by)| Submission {
            argv,
            env,
            cwd: cwd.into(),
            user,
            stdin: stdin.map(Into::into),
            limits,
            grace,
            leftovers: if wait { Leftovers::Wait } else { Leftovers::Kill },
            asked_by,
            withheld: wait,
            part: wait.then(|| Part { issue: format!("o/r#{asked_by}"), attempt: asked_by, what: "agent".to_owned() }),
        },
    )
}

fn born() -> impl Strategy<Value = Born> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
    let maybes = (option::of(any::<u64>()), option::of(any::<u64>()));
    (numbers, maybes, any::<bool>(), option::of(reason())).prop_map(
        |((cgroup, tgid, start, at), (ino, deadline), traced, stopping)| Born {
            suspended_ns: at / 2,
            baseline: Totals { seen_exec: start, missed: u64::from(tgid), ..Totals::default() },
            cgroup: RunTag(cgroup),
            main: ProcessKey::new(tgid, start),
            ino: ino.map(PidfsIno),
            at: BootNs(at),
            deadline: deadline.map(BootNs),
            traced,
            stopping,
        },
    )
}

fn outcome() -> impl Strategy<Value = RunOutcome> {
    let failure = (any::<String>(), option::of(any::<i32>()));
    prop_oneof![
        Just(RunOutcome::LostToReboot),
        Just(RunOutcome::Withdrawn),
        Just(RunOutcome::Finished(Outcome::Ended)),
        reason().prop_map(|reason| RunOutcome::Finished(Outcome::Stopped(reason))),
        failure
            .prop_map(|(step, errno)| { RunOutcome::Finished(Outcome::LaunchFailed(LaunchFailure { step, errno })) }),
        (reason(), any::<u32>())
            .prop_map(|(reason, survivors)| RunOutcome::Finished(Outcome::NotEmpty { reason, survivors })),
    ]
}

fn end() -> impl Strategy<Value = End> {
    let status = prop_oneof![
        any::<u8>().prop_map(WaitStatus::Exited),
        any::<(u8, bool)>().prop_map(|(signal, core)| WaitStatus::Signaled { signal, core }),
    ];
    let source = proptest::sample::select(vec![
        Source::Kernel,
        Source::Waitid,
        Source::RunTable,
        Source::LiveSet,
        Source::Scan,
        Source::Unknown,
    ]);
    let counts = any::<(u64, u64, u64)>();
    let rest = (any::<bool>(), option::of(any::<u64>()), span(), any::<i64>());
    (outcome(), option::of(status), source, counts, rest).prop_map(
        |(outcome, status, source, (births, deaths, leftovers), (proven, oom_kills, elapsed, at_unix_ns))| End {
            outcome,
            status,
            source,
            births,
            deaths,
            leftovers,
            proven,
            oom_kills,
            elapsed,
            at_unix_ns,
        },
    )
}

fn record() -> impl Strategy<Value = RunRecord> {
    let stage = prop_oneof![
        Just(Stage::Queued),
        Just(Stage::Intended(None)),
        Just(Stage::Intended(Some(StopReason::Operator { signal: 15 }))),
        born().prop_map(Stage::Born),
        end().prop_map(Stage::Ended),
    ];
    // Few ids, so that runs are saved again.
    (0..5_u128, any::<u32>(), submission(), any::<i64>(), any::<String>(), stage).prop_map(
        |(id, attempt, submission, submitted_unix_ns, boot_id, stage)| RunRecord {
            told: submission.argv.clone(),
            id: RunId(Ulid(id << 90)),
            attempt,
            submission,
            submitted_unix_ns,
            boot_id,
            stage,
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Save(Box<RunRecord>),
    Reopen,
    Prune(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => record().prop_map(|run| Step::Save(Box::new(run))),
        1 => Just(Step::Reopen),
        1 => (0..3_u32).prop_map(Step::Prune),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_saved_last_is_there_and_nothing_else(steps in collection::vec(step(), 1..24)) {
        let scratch = Scratch::new();
        let mut store = scratch.store();
        let mut model: BTreeMap<RunId, RunRecord> = BTreeMap::new();
        let ended = |run: &RunRecord| matches!(run.stage, Stage::Ended(_));
        for step in steps {
            match step {
                Step::Save(run) => {
                    let stands = model.get(&run.id).is_some_and(|old| ended(old) && *old != *run);
                    let saved = store.save(&run);
                    prop_assert_eq!(saved.is_err(), stands, "{:?}", saved);
                    if !stands {
                        model.insert(run.id, *run);
                    }
                }
                Step::Reopen => {
                    drop(store);
                    store = scratch.store();
                }
                Step::Prune(keep) => {
                    let old: Vec<RunId> = model.values().filter(|run| ended(run)).map(|run| run.id).rev().collect();
                    let removed = store.prune(keep).expect("there is room");
                    for id in old.iter().skip(keep as usize) {
                        model.remove(id);
                    }
                    prop_assert_eq!(removed as usize, old.len().saturating_sub(keep as usize));
                }
            }
            prop_assert_eq!(&all(&store), &model.values().cloned().collect::<Vec<_>>());
        }
        let open: Vec<_> = model.values().filter(|run| !ended(run)).cloned().collect();
        prop_assert_eq!(store.open_runs().expect("good"), open);
        drop(store);
        prop_assert_eq!(all(&scratch.store()), model.into_values().collect::<Vec<_>>());
    }
}
