//! Tasks are read as they were saved, and not at all where they were changed.

use super::Scratch;
use crate::store::{Store as _, task};
use crate::work::{
    At, CommentId, Gone, Head, Mark, Passed, PullNumber, Purpose, RunEnd, Sha, Spent, State, Task, Why, Writing,
};

fn sha(digit: char) -> Sha {
    digit.to_string().repeat(40).parse().expect("a commit")
}

/// A task in every state, with every word that there is.
fn samples() -> Vec<Task> {
    let head = || Head { sha: sha('a'), since: At(1_800_000_000) };
    let text = || "words of \"somebody\"\n\u{202e}".to_owned();
    let purposes = [
        Purpose::Work,
        Purpose::Again,
        Purpose::FixChecks { head: sha('b'), failed: vec![text(), "lint".to_owned()] },
        Purpose::FixConflict { head: sha('c') },
    ];
    let gone = [Gone::IssueClosed, Gone::LabelRemoved, Gone::ClaimLost, Gone::PullClosed, Gone::MergedElsewhere];
    let ends = [
        RunEnd::Worked,
        RunEnd::Failed(text()),
        RunEnd::WaitUntil(At(-5)),
        RunEnd::Stopped(text()),
        RunEnd::Infrastructure(text()),
    ];
    let reasons = [
        Why::AgentFailed(text()),
        Why::NothingCommitted,
        Why::HostFailed(text()),
        Why::ChecksFailed(vec![text()]),
        Why::Conflicts,
        Why::ChecksStuck(text()),
        Why::MergeQueue,
        Why::MergeFailed(text()),
        Why::Refused(text()),
        Why::ForeignBranch(sha('d')),
        Why::NotClosed(text()),
        Why::TreeNotProven,
    ];
    let mut states = vec![
        State::Eligible,
        State::Pushing(sha('e')),
        State::Opening(head()),
        State::CiWait(head()),
        State::CiMissing(head()),
        State::CiApproval(head()),
        State::MergeGate { head: head(), asked: 3 },
        State::Merging(head()),
        State::MergeUnknown { head: head(), reads: 2 },
        State::Closing { head: head(), tries: 1 },
        State::Done,
        State::Cleaned,
    ];
    for purpose in purposes {
        states.push(State::Preparing(purpose.clone()));
        states.push(State::Running { purpose: purpose.clone(), stop: None });
        let why = (states.len() % 2 == 0).then(|| "exit 1".to_owned());
        states.push(State::Backoff { until: At(7), purpose, why });
    }
    for gone in gone {
        states.push(State::Running { purpose: Purpose::Work, stop: Some(gone) });
        states.push(State::Superseded(gone));
    }
    states.extend(ends.map(State::Exited));
    states.extend(reasons.map(State::NeedsHuman));
    let numbered = (1..).zip(states);
    numbered
        .map(|(number, state)| {
            let key = format!("o/r#{number}").parse().expect("an issue");
            let branch = format!("issue-{number}-fix").parse().expect("a branch");
            let mut task = Task::new(key, branch, "main".parse().expect("a branch"));
            task.history = vec![
                Passed { at: At(1), word: "eligible", attempt: 0, head: None },
                Passed { at: At(2), word: state.word(), attempt: 1, head: state.head().cloned() },
            ];
            task.state = state;
            task.step = number;
            if number % 2 == 0 {
                task.attempt = 4;
                task.spent = Spent { failures: 1, host: 2, check_fixes: 3, conflict_fixes: 4, merges: 5 };
                task.pull = Some(PullNumber(9));
                task.pushed = Some(sha('f'));
                (task.claimed, task.labelled, task.paused, task.retry) = (true, true, number % 4 == 0, number % 6 == 0);
                task.status.id = Some(CommentId(u64::from(u32::MAX) + 1));
                task.status.digest = Some("00aa".to_owned());
                task.notices = ["a".to_owned(), text()].into();
                let mark = if number % 4 == 0 { Mark::Status } else { Mark::Notice(text()) };
                task.writing = Some(Writing { mark, digest: "11".to_owned(), since: At(3) });
            }
            task
        })
        .collect()
}

#[test]
fn a_task_in_every_state_is_read_as_it_was_saved() {
    let scratch = Scratch::new();
    let samples = samples();
    let mut store = scratch.store();
    for task in &samples {
        store.save_task(task).expect("there is room");
    }
    drop(store);
    let mut store = scratch.store();
    let by_number = |mut tasks: Vec<Task>| {
        tasks.sort_by_key(|task| task.key.number);
        tasks
    };
    assert_eq!(by_number(store.tasks().expect("good")), samples);
    // One that changes takes its own place.
    let mut changed = samples[3].clone();
    changed.state = State::Done;
    store.save_task(&changed).expect("there is room");
    drop(store);
    let read = by_number(scratch.store().tasks().expect("good"));
    assert_eq!((read.len(), &read[3]), (samples.len(), &changed));
}

#[test]
fn a_task_that_was_changed_by_hand_is_refused() {
    let scratch = Scratch::new();
    let mut store = scratch.store();
    samples().iter().for_each(|task| store.save_task(task).expect("there is room"));
    drop(store);
    let whole = std::fs::read(scratch.file("")).expect("ours");
    for (statement, said) in [
        ("DELETE FROM tasks WHERE issue = 'o/r#1'", "its tasks are not those"),
        ("UPDATE tasks SET issue = 'o/r#1000' WHERE issue = 'o/r#1'", "its row was changed"),
        ("UPDATE tasks SET task = replace(task, 'main', 'evil') WHERE issue = 'o/r#1'", "its row was changed"),
        ("UPDATE tasks SET digest = zeroblob(32) WHERE issue = 'o/r#1'", "its row was changed"),
    ] {
        scratch.put(&whole);
        super::damage::edit(&scratch, statement);
        let error = scratch.open().expect_err(statement);
        assert!(error.to_string().contains(said), "{statement}: {error}");
    }
}

#[test]
fn a_task_is_read_from_exactly_what_is_written() {
    for sample in samples() {
        let text = task::write(&sample).expect("it has a form");
        assert_eq!(task::read(&text), Ok(sample));
        for (from, to) in [("\"v\":1", "\"v\":2"), ("{\"v\"", " {\"v\""), ("\"step\"", "\"more\":1,\"step\"")] {
            assert!(task::read(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
