//! The tracker by itself: orders, doubles, and the two looks of a repair.

use super::{Life, Tracker};
use crate::event::{Action, Cause, Event, Fact, Gap, GapCause, Launched};
use crate::model::{Birth, BootNs, Death, Exec, Live, ProcessKey, RunTag, Source, Totals, WaitStatus};
use crate::supervise::shadow::{self, RUN};

const MAIN: ProcessKey = ProcessKey::new(10, 10);
const CHILD: ProcessKey = ProcessKey::new(11, 20);
const MS: u64 = 1_000_000;

fn tracker() -> Tracker {
    let mut tracker = Tracker::new(Totals::default(), true);
    tracker.launched(&Launched { key: MAIN, ino: None, run: RUN, at: BootNs(10), traced: true });
    tracker
}

fn birth(key: ProcessKey) -> Birth {
    match shadow::birth(key, Some(MAIN)) {
        Event::Born(birth) => birth,
        other => panic!("{other:?}"),
    }
}

fn exec(key: ProcessKey, at: u64) -> Exec {
    match shadow::exec(key, at) {
        Event::Execed(exec) => exec,
        other => panic!("{other:?}"),
    }
}

fn death(key: ProcessKey, status: WaitStatus, at: u64) -> Death {
    let at = BootNs(at);
    Death { key, ino: None, run: RUN, forker: Some(MAIN), status: Some(status), at, source: Source::Kernel }
}

fn live(key: ProcessKey) -> Live {
    Live { key, ino: None, run: RUN, forker: Some(MAIN) }
}

/// What was said, in short: `fork 11`, `fork? 11` where inferred, `exec`, `exit`, `gap`, and the questions.
fn said(out: &mut Vec<Action>) -> Vec<String> {
    let mark = |inferred: bool| if inferred { "?" } else { "" };
    let short = |action| match action {
        Action::Log(Fact::Fork { birth, inferred }) => format!("fork{} {}", mark(inferred.is_some()), birth.key.tgid),
        Action::Log(Fact::Exec(exec)) => format!("exec {}", exec.key.tgid),
        Action::Log(Fact::Exit { death, inferred, .. }) => {
            format!("exit{} {}", mark(inferred.is_some()), death.key.tgid)
        }
        Action::Log(Fact::Gap(_)) => "gap".into(),
        Action::ReadCounters => "counters?".into(),
        Action::ReadLiveSet => "live set?".into(),
        other => panic!("{other:?}"),
    };
    std::mem::take(out).into_iter().map(short).collect()
}

fn gap(out: &[Action]) -> Gap {
    let gap = out.iter().find_map(|action| match action {
        Action::Log(Fact::Gap(gap)) => Some(gap.clone()),
        _ => None,
    });
    gap.expect("a gap")
}

#[test]
fn an_exec_before_its_birth_is_told_after_it() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.execed(BootNs(30), exec(CHILD, 30), &mut out);
    tracker.round_ended(BootNs(31), &mut out);
    assert_eq!(said(&mut out), ["counters?"]);
    tracker.born(BootNs(32), birth(CHILD), &mut out);
    assert_eq!(said(&mut out), ["fork 11", "exec 11"]);
}

#[test]
fn an_exec_waits_one_more_round_for_its_birth_which_is_then_inferred() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.execed(BootNs(30), exec(CHILD, 30), &mut out);
    tracker.round_ended(BootNs(31), &mut out);
    assert!(tracker.registry().get(&CHILD).is_none());
    tracker.round_ended(BootNs(32), &mut out);
    assert_eq!(said(&mut out), ["counters?", "live set?", "fork? 11", "exec 11"]);
    tracker.born(BootNs(33), birth(CHILD), &mut out);
    assert_eq!(said(&mut out), [""; 0]);
    assert_eq!((tracker.accounts().births.late, tracker.accounts().births.duplicates), (1, 0));
}

#[test]
fn a_death_without_birth_tells_both_and_names_the_forker() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.died(BootNs(30), death(CHILD, WaitStatus::Exited(1), 30), &mut out);
    tracker.died(BootNs(30), death(CHILD, WaitStatus::Exited(1), 30), &mut out);
    tracker.round_ended(BootNs(31), &mut out);
    tracker.round_ended(BootNs(32), &mut out);
    let inferred = out.iter().find_map(|action| match action {
        Action::Log(Fact::Fork { birth, inferred }) => Some((birth.forker, birth.at, inferred.is_some())),
        _ => None,
    });
    assert_eq!(inferred, Some((Some(MAIN), BootNs(20), true)));
    assert_eq!(said(&mut out), ["counters?", "live set?", "fork? 11", "exit 11"]);
    assert_eq!(tracker.accounts().deaths.duplicates, 1);
}

#[test]
fn an_exec_after_the_death_is_still_told() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.born(BootNs(20), birth(CHILD), &mut out);
    tracker.died(BootNs(30), death(CHILD, WaitStatus::Exited(0), 30), &mut out);
    tracker.execed(BootNs(30), exec(CHILD, 25), &mut out);
    assert_eq!(said(&mut out), ["fork 11", "exit 11", "exec 11"]);
}

#[test]
fn the_main_process_is_born_once_and_its_first_exec_is_the_launchers() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.born(BootNs(11), birth(MAIN), &mut out);
    tracker.execed(BootNs(12), exec(MAIN, 12), &mut out);
    assert_eq!(said(&mut out), [""; 0]);
    tracker.execed(BootNs(13), exec(MAIN, 13), &mut out);
    tracker.execed(BootNs(13), exec(MAIN, 13), &mut out);
    assert_eq!(said(&mut out), ["exec 10"]);
    let accounts = tracker.accounts();
    assert_eq!((accounts.births.emitted, accounts.execs.filtered, accounts.execs.duplicates), (1, 1, 1));
}

#[test]
fn the_dead_are_remembered_for_two_rounds_and_then_forgotten() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.born(BootNs(20), birth(CHILD), &mut out);
    tracker.died(BootNs(30), death(CHILD, WaitStatus::Exited(0), 30), &mut out);
    for round in 0..2 {
        tracker.round_ended(BootNs(40 + round), &mut out);
        tracker.born(BootNs(40 + round), birth(CHILD), &mut out);
        tracker.died(BootNs(40 + round), death(CHILD, WaitStatus::Exited(0), 30), &mut out);
    }
    assert_eq!((tracker.accounts().births.duplicates, tracker.accounts().deaths.duplicates), (2, 2));
    tracker.round_ended(BootNs(50), &mut out);
    assert_eq!(tracker.registry().len(), 1);
    assert_eq!(said(&mut out), ["fork 11", "exit 11", "counters?"]);
}

#[test]
fn memory_is_bounded_by_the_living() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    for turn in 0..10_000u64 {
        let key = ProcessKey::new(20 + u32::try_from(turn % 5).unwrap(), 100 + turn);
        tracker.born(BootNs(100 + turn), birth(key), &mut out);
        tracker.died(BootNs(100 + turn), death(key, WaitStatus::Exited(0), 100 + turn), &mut out);
        tracker.round_ended(BootNs(100 + turn), &mut out);
        out.clear();
    }
    assert!(tracker.registry().len() <= 4, "{}", tracker.registry().len());
}

#[test]
fn counters_are_read_at_most_every_50_ms_and_only_while_records_flow() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let mut asked = 0;
    for ms in 1..=1000u64 {
        let now = BootNs(ms * MS);
        let key = ProcessKey::new(1000 + u32::try_from(ms).unwrap(), ms * MS);
        tracker.born(now, birth(key), &mut out);
        tracker.round_ended(now, &mut out);
        if said(&mut out).contains(&"counters?".to_owned()) {
            asked += 1;
            tracker.counted(now, Totals { seen_fork: ms, ..Totals::default() }, &mut out);
        }
    }
    assert_eq!(asked, 20);
    tracker.tick(BootNs(1100 * MS), &mut out);
    assert_eq!(said(&mut out), ["counters?"]);
    tracker.counted(BootNs(1100 * MS), Totals::default(), &mut out);
    assert_eq!(tracker.wake(), None);
}

#[test]
fn one_look_at_the_live_set_proves_nothing() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let late = ProcessKey::new(12, 21);
    tracker.born(BootNs(20), birth(CHILD), &mut out);
    tracker.round_ended(BootNs(20), &mut out);
    let lost = Totals { seen_fork: 3, seen_exit: 1, lost_exec: 4, ..Totals::default() };
    tracker.counted(BootNs(MS), lost, &mut out);
    tracker.live_set(BootNs(MS), &[live(MAIN), live(late)], &mut out);
    assert_eq!(said(&mut out), ["fork 11", "counters?", "live set?"]);
    assert_eq!(tracker.wake(), Some(BootNs(21 * MS)));
    // Both hooks had changed the map and not yet written their records.
    tracker.born(BootNs(2 * MS), birth(late), &mut out);
    tracker.died(BootNs(2 * MS), death(CHILD, WaitStatus::Exited(7), 2 * MS), &mut out);
    tracker.tick(BootNs(21 * MS), &mut out);
    tracker.live_set(BootNs(21 * MS), &[live(MAIN), live(late)], &mut out);
    tracker.counted(BootNs(21 * MS), lost, &mut out);
    let gap = gap(&out);
    assert_eq!((gap.inferred_births, gap.inferred_deaths, gap.lost_exec, gap.repaired), (0, 0, 4, true));
    assert_eq!(gap.cause, GapCause::RingFull);
    assert!(!tracker.is_dirty());
}

#[test]
fn what_two_looks_show_is_inferred_and_late_records_are_counted() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let (unborn, passing) = (ProcessKey::new(12, 21), ProcessKey::new(13, 22));
    tracker.born(BootNs(20), birth(CHILD), &mut out);
    tracker.round_ended(BootNs(20), &mut out);
    let lost = Totals { lost_fork: 2, lost_exit: 2, ..Totals::default() };
    tracker.counted(BootNs(MS), lost, &mut out);
    tracker.live_set(BootNs(MS), &[live(MAIN), live(unborn), live(passing)], &mut out);
    tracker.tick(BootNs(21 * MS), &mut out);
    tracker.live_set(BootNs(21 * MS), &[live(MAIN), live(unborn)], &mut out);
    assert_eq!(said(&mut out), ["fork 11", "counters?", "live set?", "live set?", "fork? 12", "fork? 13", "exit? 11"]);
    // Gone between the looks: its death is confirmed by a third.
    tracker.tick(BootNs(41 * MS), &mut out);
    tracker.live_set(BootNs(41 * MS), &[live(MAIN), live(unborn)], &mut out);
    tracker.counted(BootNs(41 * MS), lost, &mut out);
    assert_eq!(said(&mut out), ["live set?", "exit? 13", "counters?", "gap"]);
    tracker.died(BootNs(42 * MS), death(CHILD, WaitStatus::Exited(7), MS), &mut out);
    tracker.born(BootNs(42 * MS), birth(unborn), &mut out);
    assert_eq!(said(&mut out), [""; 0]);
    assert_eq!((tracker.accounts().births.late, tracker.accounts().deaths.late), (1, 1));
}

#[test]
fn a_loss_that_goes_on_extends_the_gap() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    for turn in 1..=5u64 {
        let now = BootNs(turn * 10 * MS);
        tracker.counted(now, Totals { lost_exec: turn, ..Totals::default() }, &mut out);
        tracker.live_set(now, &[live(MAIN)], &mut out);
    }
    assert!(!said(&mut out).contains(&"gap".to_owned()));
    tracker.counted(BootNs(60 * MS), Totals { lost_exec: 5, ..Totals::default() }, &mut out);
    let gap = gap(&out);
    assert_eq!((gap.id.0, gap.lost_exec, gap.from, gap.to), (1, 5, BootNs(10), BootNs(50 * MS)));
}

#[test]
fn i09_no_death_of_the_main_process_is_inferred_before_waitid_answered() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    tracker.counted(BootNs(MS), Totals { seen_exit: 1, lost_exit: 1, ..Totals::default() }, &mut out);
    for turn in 0..3u64 {
        tracker.live_set(BootNs((1 + 20 * turn) * MS), &[], &mut out);
        tracker.tick(BootNs((21 + 20 * turn) * MS), &mut out);
        assert!(tracker.registry().is_alive(&MAIN));
    }
    out.clear();
    tracker.main_exited(BootNs(70 * MS), Some(WaitStatus::Exited(5)), &mut out);
    assert_eq!(tracker.registry().get(&MAIN).map(|entry| entry.life), Some(Life::Reaped));
    tracker.live_set(BootNs(71 * MS), &[], &mut out);
    let told = out.iter().find_map(|action| match action {
        Action::Log(Fact::Exit { death, cause, .. }) => Some((death.status, death.source, *cause)),
        _ => None,
    });
    assert_eq!(told, Some((Some(WaitStatus::Exited(5)), Source::Waitid, Cause::Exited)));
}

#[test]
fn a_signal_that_was_sent_is_the_cause_and_one_that_was_not_is_not() {
    for (sent, taken_back, status, cause) in [
        (15, false, shadow::killed(15), Cause::StoppedByUs),
        (15, true, shadow::killed(15), Cause::Signal),
        (15, false, shadow::killed(9), Cause::Signal),
        (15, false, WaitStatus::Exited(143), Cause::Exited),
    ] {
        let (mut tracker, mut out) = (tracker(), Vec::new());
        tracker.born(BootNs(20), birth(CHILD), &mut out);
        tracker.registry_mut().note_signal(&CHILD, sent);
        if taken_back {
            tracker.registry_mut().forget_signal(&CHILD, sent);
        }
        tracker.died(BootNs(30), death(CHILD, status, 30), &mut out);
        let told = out.iter().find_map(|action| match action {
            Action::Log(Fact::Exit { cause, .. }) => Some(*cause),
            _ => None,
        });
        assert_eq!(told, Some(cause), "{sent} {taken_back} {status}");
    }
}

#[test]
fn a_sigkill_is_ours_only_after_our_kill_began() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let other = ProcessKey::new(12, 21);
    tracker.born(BootNs(20), birth(CHILD), &mut out);
    tracker.born(BootNs(21), birth(other), &mut out);
    tracker.registry_mut().note_kill(BootNs(40));
    tracker.died(BootNs(50), death(CHILD, shadow::killed(9), 39), &mut out);
    tracker.died(BootNs(50), death(other, shadow::killed(9), 41), &mut out);
    let causes: Vec<_> = out
        .iter()
        .filter_map(|action| match action {
            Action::Log(Fact::Exit { cause, .. }) => Some(*cause),
            _ => None,
        })
        .collect();
    assert_eq!(causes, [Cause::Signal, Cause::StoppedByUs]);
}

#[test]
fn a_number_belongs_to_its_newest_owner() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let heir = ProcessKey::new(CHILD.tgid, 99);
    tracker.born(BootNs(20), birth(CHILD), &mut out);
    tracker.born(BootNs(99), birth(heir), &mut out);
    assert_eq!(tracker.registry().by_tgid(CHILD.tgid).map(|entry| entry.key), Some(heir));
    tracker.died(BootNs(100), death(CHILD, WaitStatus::Exited(0), 90), &mut out);
    assert_eq!(tracker.registry().by_tgid(CHILD.tgid).map(|entry| entry.key), Some(heir));
    assert_eq!(tracker.registry().living_count(RUN), 2);
}

#[test]
fn other_runs_in_the_live_set_are_none_of_ours() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let stranger = Live { run: RunTag(5), ..live(CHILD) };
    tracker.counted(BootNs(MS), Totals { lost_exec: 1, ..Totals::default() }, &mut out);
    tracker.live_set(BootNs(MS), &[live(MAIN), stranger], &mut out);
    tracker.counted(BootNs(2 * MS), Totals { lost_exec: 1, ..Totals::default() }, &mut out);
    assert_eq!(said(&mut out), ["live set?", "counters?", "gap"]);
}

#[test]
fn a_birth_inferred_during_a_repair_is_looked_for_before_the_gap_closes() {
    let (mut tracker, mut out) = (tracker(), Vec::new());
    let lost = Totals { lost_fork: 1, lost_exit: 1, ..Totals::default() };
    tracker.execed(BootNs(30), exec(CHILD, 30), &mut out);
    tracker.counted(BootNs(31), lost, &mut out);
    // Nothing to suspect yet: it is dead, and nobody but its exec names it.
    tracker.live_set(BootNs(32), &[live(MAIN)], &mut out);
    assert_eq!(said(&mut out), ["live set?", "counters?"]);
    tracker.round_ended(BootNs(33), &mut out);
    tracker.round_ended(BootNs(34), &mut out);
    tracker.counted(BootNs(35), lost, &mut out);
    assert_eq!(said(&mut out), ["fork? 11", "exec 11", "live set?"]);
    tracker.live_set(BootNs(36), &[live(MAIN)], &mut out);
    tracker.tick(BootNs(21 * MS), &mut out);
    tracker.live_set(BootNs(21 * MS), &[live(MAIN)], &mut out);
    tracker.counted(BootNs(22 * MS), lost, &mut out);
    assert_eq!(said(&mut out), ["counters?", "live set?", "exit? 11", "counters?", "gap"]);
}
