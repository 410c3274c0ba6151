//! Records that hold every word there is. They are also what the committed old databases hold: what is needed for a
//! new word is added to `samples`, `version_1` stays as it is.

use std::time::Duration;

use ulid::Ulid;

use crate::event::{LaunchFailure, Outcome};
use crate::model::{BootNs, PidfsIno, ProcessKey, RunTag, Source, StopReason, Totals, WaitStatus};
use crate::run::{Born, End, Limits, Part, RunId, RunOutcome, RunRecord, Stage, Submission};
use crate::supervise::Leftovers;

/// Records of every stage, outcome, source and reason, by age.
pub(super) fn samples() -> Vec<RunRecord> {
    let mut samples = version_2();
    let told = |many: usize| (0..many).map(|at| format!("Its end was \"asked\" for: {at}\n\u{1F980}")).collect();
    let next = samples.len() as u64;
    let stages = [Stage::Queued, Stage::Ended(end(5, RunOutcome::Withdrawn, Source::Unknown))];
    for (number, (many, stage)) in (next..).zip([1, RunRecord::MOST_TOLD].into_iter().zip(stages)) {
        samples.push(RunRecord { told: told(many), ..record(number, stage) });
    }
    samples
}

/// The records of `state-v2.db`.
pub(super) fn version_2() -> Vec<RunRecord> {
    let mut records = version_1();
    let next = records.len() as u64;
    records.extend((next..).zip(REASONS).map(|(number, reason)| record(number, Stage::Intended(Some(reason)))));
    let part = |what: &str| Some(Part { issue: "owner/name#7".to_owned(), attempt: 3, what: what.to_owned() });
    let parts = [(Part::AGENT, Stage::Queued), ("clone", Stage::Ended(end(3, RunOutcome::Withdrawn, Source::Unknown)))];
    let next = records.len() as u64;
    for (number, (what, stage)) in (next..).zip(parts) {
        let mut run = record(number, stage);
        (run.submission.part, run.submission.withheld) = (part(what), true);
        records.push(run);
    }
    records
}

/// The records of `state-v1.db`.
pub(super) fn version_1() -> Vec<RunRecord> {
    let stages = [
        Stage::Queued,
        Stage::Intended(None),
        Stage::Born(born(None)),
        Stage::Born(Born { ino: None, deadline: None, traced: false, ..born(Some(StopReason::Deadline)) }),
    ];
    let stopping = REASONS.map(|reason| Stage::Born(born(Some(reason))));
    let ended = outcomes().into_iter().zip(SOURCES.into_iter().cycle()).enumerate();
    let ended = ended.map(|(number, (outcome, source))| Stage::Ended(end(number as u64, outcome, source)));
    let stages = stages.into_iter().chain(stopping).chain(ended);
    stages.enumerate().map(|(number, stage)| record(number as u64, stage)).collect()
}

const SOURCES: [Source; 6] =
    [Source::Waitid, Source::Kernel, Source::RunTable, Source::LiveSet, Source::Scan, Source::Unknown];
const REASONS: [StopReason; 8] = [
    StopReason::ActiveLimit,
    StopReason::Idle,
    StopReason::Deadline,
    StopReason::OutputBudget,
    StopReason::Leftovers,
    StopReason::Operator { signal: 2 },
    StopReason::OutputFailed,
    StopReason::Internal,
];

fn outcomes() -> Vec<RunOutcome> {
    let mut all = vec![
        RunOutcome::Finished(Outcome::Ended),
        RunOutcome::Finished(Outcome::LaunchFailed(LaunchFailure { step: "execve".to_owned(), errno: Some(2) })),
        RunOutcome::Finished(Outcome::LaunchFailed(LaunchFailure { step: "thawing \"it\"".to_owned(), errno: None })),
        RunOutcome::Finished(Outcome::NotEmpty { reason: StopReason::Operator { signal: 15 }, survivors: 3 }),
        RunOutcome::LostToReboot,
        RunOutcome::Withdrawn,
        RunOutcome::Lost,
    ];
    all.extend(REASONS.map(|reason| RunOutcome::Finished(Outcome::Stopped(reason))));
    all
}

fn born(stopping: Option<StopReason>) -> Born {
    Born {
        cgroup: RunTag(8_191),
        main: ProcessKey::new(4_194_303, 123_456_789_012),
        ino: Some(PidfsIno(u64::MAX)),
        at: BootNs(123_456_789_013),
        // Saturated, as a limit beyond the end of time is.
        deadline: Some(BootNs(u64::MAX)),
        traced: true,
        stopping,
        suspended_ns: 1_000_000,
        baseline: Totals { live_full: 1, stale: 2, missed: 3, ..Totals::default() },
    }
}

fn end(number: u64, outcome: RunOutcome, source: Source) -> End {
    End {
        outcome,
        status: match number % 4 {
            0 => Some(WaitStatus::Exited(0)),
            1 => Some(WaitStatus::Exited(255)),
            2 => Some(WaitStatus::Signaled { signal: 9, core: false }),
            _ => None,
        },
        source,
        births: 7 + number,
        deaths: 7,
        leftovers: number,
        proven: number.is_multiple_of(2),
        oom_kills: number.is_multiple_of(3).then_some(number),
        elapsed: Duration::new(3_600, 999_999_999),
        at_unix_ns: 1_800_000_000_000_000_000,
    }
}

fn record(number: u64, stage: Stage) -> RunRecord {
    let odd = number % 2 == 1;
    RunRecord {
        id: RunId(Ulid::from_parts(1_700_000_000_000 + number, 42)),
        attempt: 1 + u32::from(odd),
        submission: Submission {
            argv: vec!["claude".to_owned(), "-p".to_owned(), "mend \"it\"\n\u{1F980}'; \0".to_owned()],
            env: vec![("A".to_owned(), "b=c".to_owned()), ("EMPTY".to_owned(), String::new())],
            cwd: "/srv/work".into(),
            user: "agent".to_owned(),
            stdin: odd.then(|| "/srv/prompt".into()),
            limits: Limits {
                wall: Some(Duration::from_secs(3_600)),
                active: odd.then_some(Duration::from_nanos(1)),
                idle: odd.then_some(Duration::MAX),
                output_bytes: odd.then_some(u64::MAX),
                memory_bytes: odd.then_some(1 << 33),
                tasks: odd.then_some(100),
                cpu_percent: odd.then_some(150),
            },
            grace: Duration::from_secs(10),
            leftovers: if odd { Leftovers::Wait } else { Leftovers::Kill },
            asked_by: 1_000,
            withheld: false,
            part: None,
        },
        submitted_unix_ns: 1_700_000_000_000_000_000 + number.cast_signed(),
        boot_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        stage,
        told: Vec::new(),
    }
}
