//! The way of a run path by path, against the shadow of store, keeper and host.

use std::time::Duration;

use super::shadow::{ASKED, OPERATOR, World, failure};
use super::{Fleet, FleetAction, FleetEvent, FleetSettings, Now, RETRY, settings_of};
use crate::event::{Action, Event, Fact, Launched, Member, Outcome, Tree};
use crate::model::{BootNs, ProcessKey, RunTag, StopReason, WaitStatus};
use crate::run::{End, Limits, Part, RunId, RunOutcome, RunRecord, Stage};
use crate::supervise::shadow::{Fate, Nature, Shadow, killed};
use crate::supervise::{Core, Leftovers, Settings};
use crate::track::Restored;

const LAUNCH: [&str; 6] = ["save queued", "save intended", "prepare", "launch", "save born", "thaw"];
const SEC: u64 = 1_000_000_000;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn limited(limits: Limits) -> World {
    let mut world = World::new(4);
    world.limits = limits;
    world
}

fn stopped(reason: StopReason) -> Option<RunOutcome> {
    Some(RunOutcome::Finished(Outcome::Stopped(reason)))
}

fn ended() -> Option<RunOutcome> {
    Some(RunOutcome::Finished(Outcome::Ended))
}

fn end(world: &World, id: RunId) -> &End {
    match &world.store[&id].stage {
        Stage::Ended(end) => end,
        other => panic!("not over: {other:?}"),
    }
}

fn count(world: &World, what: &str) -> usize {
    world.said.iter().filter(|said| *said == what).count()
}

/// A run whose answers are delivered up to this many.
fn answered(answers: u32) -> (World, RunId) {
    let mut world = World::new(1);
    let id = world.submit();
    for _ in 0..answers {
        assert!(world.answer());
    }
    (world, id)
}

/// The number of answers after which a run is in each state of its launch.
const UNSAVED: u32 = 0;
const INTENDING: u32 = 1;
const PREPARING: u32 = 2;
const LAUNCHING: u32 = 3;
const RECORDING: u32 = 5;
const THAWED: u32 = 6;

#[test]
fn a_run_goes_from_its_submission_to_its_removal() {
    let mut world = World::new(1);
    let id = world.running();
    assert_eq!(world.said, LAUNCH);
    world.pass(secs(5));
    assert_eq!(world.said, LAUNCH);
    world.die(id, WaitStatus::Exited(3));
    world.pass(secs(1));
    assert_eq!(world.said[LAUNCH.len()..], ["save ended", "remove"]);
    let end = end(&world, id);
    assert_eq!((Some(end.outcome.clone()), end.status), (ended(), Some(WaitStatus::Exited(3))));
    assert_eq!((end.births, end.deaths, end.proven, end.elapsed.as_secs()), (1, 1, true, 5));
    assert_eq!(end.at_unix_ns, 1_000_000 * 1_000_000_000 + 6_000_000_000);
    assert_eq!(world.fleet.state(id), None);
    world.finish();
}

#[test]
fn i19_nothing_is_prepared_before_its_intent_is_durable() {
    let (mut world, id) = answered(UNSAVED);
    // The run is accepted, and then the disk is full for a while.
    world.tell(FleetEvent::KeeperLost);
    world.settle();
    world.faults.saves = 4;
    world.tell(FleetEvent::KeeperReady);
    world.pass(millis(3_900));
    assert_eq!((count(&world, "save intended fails"), count(&world, "prepare")), (4, 0));
    assert_eq!(world.fleet.state(id), Some("queued"));
    world.pass(secs(2));
    assert_eq!(world.said[5..], LAUNCH[1..]);
    assert_eq!(world.fleet.state(id), Some("running"));
}

#[test]
fn i06_a_birth_that_cannot_be_saved_is_never_thawed_and_ends() {
    for fails in [1, 2, 30] {
        let (mut world, id) = answered(LAUNCHING);
        world.faults.saves = fails;
        world.pass(secs(40));
        assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Internal), "{fails}");
        assert_eq!((count(&world, "thaw"), count(&world, "kill"), count(&world, "remove")), (0, 1, 1));
        world.finish();
        assert!(world.executed.is_empty());
    }
}

#[test]
fn a_birth_that_could_not_be_saved_is_not_launched_again_by_the_next_daemon_once_its_stop_is_known() {
    let (mut world, id) = answered(LAUNCHING);
    world.faults.saves = 1;
    // The answer to the failed save, and the save of the reason for the stop.
    for _ in 0..3 {
        world.answer();
    }
    assert!(world.said.contains(&"save stopping".to_owned()), "{:?}", world.said);
    world.crash();
    world.finish();
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Internal));
    assert!(world.executed.is_empty());
}

#[test]
fn a_stop_is_heard_in_every_phase() {
    let none: &[&str] = &[];
    for (answers, forbidden, outcome) in [
        (UNSAVED, &["save intended", "prepare"][..], Some(RunOutcome::Withdrawn)),
        (INTENDING, &["prepare"], Some(RunOutcome::Withdrawn)),
        (PREPARING, &["launch"], Some(RunOutcome::Withdrawn)),
        (LAUNCHING, &["thaw"], stopped(OPERATOR)),
        (LAUNCHING + 1, &["thaw"], stopped(OPERATOR)),
        (RECORDING, &["thaw"], stopped(OPERATOR)),
        (THAWED, none, stopped(OPERATOR)),
        (THAWED + 3, none, stopped(OPERATOR)),
    ] {
        let (mut world, id) = answered(answers);
        world.stop(id);
        world.pass(secs(3));
        assert_eq!(world.outcome(id).cloned(), outcome, "{answers}");
        for step in forbidden {
            assert_eq!(count(&world, step), 0, "{answers}: {:?}", world.said);
        }
        world.finish();
    }
}

#[test]
fn a_stop_of_what_waits_for_a_slot_withdraws_it_at_once() {
    let mut world = World::new(1);
    let (first, second) = (world.running(), world.submit());
    world.settle();
    assert_eq!(world.fleet.state(second), Some("queued"));
    world.stop(second);
    world.settle();
    assert_eq!(world.outcome(second), Some(&RunOutcome::Withdrawn));
    assert_eq!((world.fleet.state(first), world.fleet.state(second)), (Some("running"), None));
}

#[test]
fn a_stop_of_what_ends_changes_nothing() {
    let mut world = World::new(1);
    let id = world.running();
    world.faults.saves = 2;
    world.die(id, WaitStatus::Exited(0));
    world.settle();
    assert_eq!(world.fleet.state(id), Some("draining"), "over only once that is durable");
    world.stop(id);
    world.faults.removals = 1;
    world.pass(millis(2500));
    world.stop(id);
    world.finish();
    assert_eq!(world.outcome(id).cloned(), ended());
}

#[test]
fn a_stop_of_a_launch_that_was_cut_off_withdraws_it() {
    for answers in [PREPARING, LAUNCHING] {
        let (mut world, id) = answered(answers);
        world.lose_keeper();
        world.settle();
        assert_eq!(world.fleet.unsure().collect::<Vec<_>>(), [id]);
        world.stop(id);
        world.find_keeper();
        world.settle();
        assert_eq!(world.outcome(id), Some(&RunOutcome::Withdrawn));
        assert_eq!((count(&world, "save queued"), count(&world, "save intended")), (1, 1));
        world.finish();
        assert!(world.executed.is_empty());
    }
}

#[test]
fn a_launch_that_was_cut_off_keeps_its_slot_until_stock_is_taken() {
    let (mut world, first) = answered(PREPARING);
    // It answers no more, and that it is lost is told later.
    world.keeper = None;
    let second = world.submit();
    world.settle();
    assert_eq!(world.fleet.unsure().collect::<Vec<_>>(), [first]);
    assert_eq!(world.fleet.state(second), Some("queued"));
    world.tell(FleetEvent::KeeperLost);
    world.find_keeper();
    world.finish();
}

#[test]
fn a_stop_before_a_birth_that_could_not_be_saved_is_remembered_all_the_same() {
    let (mut world, id) = answered(LAUNCHING);
    world.stop(id);
    world.faults.saves = 1;
    world.answer();
    world.answer();
    assert_eq!(world.said.last().map(String::as_str), Some("save stopping fails"));
    // Nobody can kill it, and the daemon ends before anybody can.
    world.lose_keeper();
    world.pass(secs(2));
    world.crash();
    world.finish();
    assert_eq!(world.outcome(id).cloned(), stopped(OPERATOR));
    assert!(world.executed.is_empty());
}

#[test]
fn a_core_is_not_thawed_that_is_dead() {
    let mut core = Core::new(Settings::default());
    assert!(core.handle(BootNs(20), Event::MainExited(Some(killed(9)))).is_empty());
    let (key, run) = (ProcessKey::new(10, 10), RunTag(7));
    let launched = Launched { key, ino: None, run, at: BootNs(10), traced: true };
    let actions = core.handle(BootNs(30), Event::Launched(launched));
    assert!(actions.contains(&Action::InspectTree) && !actions.contains(&Action::Thaw), "{actions:?}");
}

#[test]
fn a_cut_off_launch_is_made_again_as_another_attempt_that_executes_once() {
    for answers in PREPARING..=LAUNCHING + 1 {
        for dies in [false, true] {
            let (mut world, id) = answered(answers);
            if dies {
                world.crash();
            } else {
                world.lose_keeper();
                world.settle();
                assert_eq!(world.fleet.state(id), Some("launching"));
                world.find_keeper();
            }
            world.settle();
            assert_eq!(world.fleet.state(id), Some("running"), "{answers} {dies}");
            assert_eq!(world.fleet.record(id).map(|record| record.attempt), Some(2));
            world.finish();
            assert_eq!(world.executed[&id], 1);
            assert_eq!(world.outcome(id).cloned(), ended());
        }
    }
}

#[test]
fn what_the_keeper_refuses_is_over_and_told_why() {
    for (prepares, launches) in [(1, 0), (0, 1)] {
        let mut world = World::new(1);
        (world.faults.prepares, world.faults.launches) = (prepares, launches);
        let id = world.submit();
        world.settle();
        let told = RunOutcome::Finished(Outcome::LaunchFailed(failure()));
        assert_eq!(world.outcome(id), Some(&told));
        world.finish();
    }
}

#[test]
fn slots_are_given_in_the_order_of_submission() {
    let mut world = World::new(2);
    let runs: Vec<RunId> = (0..5).map(|_| world.submit()).collect();
    world.settle();
    let states = |world: &World| runs.iter().map(|id| world.fleet.state(*id).unwrap_or("-")).collect::<Vec<_>>();
    assert_eq!(states(&world), ["running", "running", "queued", "queued", "queued"]);
    world.die(runs[1], WaitStatus::Exited(0));
    world.pass(millis(10));
    assert_eq!(states(&world), ["running", "-", "running", "queued", "queued"]);
    world.fleet.set(FleetSettings { max_agents: 1 });
    world.die(runs[0], WaitStatus::Exited(0));
    world.pass(secs(5));
    assert_eq!(states(&world), ["-", "-", "running", "queued", "queued"]);
    world.die(runs[2], WaitStatus::Exited(0));
    world.pass(millis(10));
    assert_eq!(states(&world), ["-", "-", "-", "running", "queued"]);
    assert_eq!(world.fleet.records().map(|record| record.id).collect::<Vec<_>>(), runs[3..]);
}

#[test]
fn a_step_of_a_task_waits_for_no_agent_and_no_agent_for_it() {
    let part = |what: &str| Some(Part { issue: "o/r#7".to_owned(), attempt: 1, what: what.to_owned() });
    let mut world = World::new(1);
    let submit = |world: &mut World, part: Option<Part>| {
        let mut record = world.record();
        record.submission.part = part;
        let id = record.id;
        world.tell(FleetEvent::Submitted(Box::new(record)));
        world.settle();
        id
    };
    let agent = submit(&mut world, part(Part::AGENT));
    let step = submit(&mut world, part("clone/1/1"));
    let (second, other) = (submit(&mut world, part("take/1/1")), submit(&mut world, None));
    let states = |world: &World, runs: &[RunId]| -> Vec<&str> {
        runs.iter().map(|id| world.fleet.state(*id).unwrap_or("-")).collect()
    };
    let all = [agent, step, second, other];
    assert_eq!(states(&world, &all), ["running", "running", "queued", "queued"]);
    world.die(step, WaitStatus::Exited(0));
    world.pass(millis(10));
    assert_eq!(states(&world, &all), ["running", "-", "running", "queued"], "a step takes no agent's place");
}

#[test]
fn an_agent_that_withstands_its_stop_keeps_its_slot() {
    let mut world = World::new(1);
    world.deaf = true;
    let (first, second) = (world.running(), world.submit());
    world.stop(first);
    world.pass(millis(150));
    assert_eq!((world.fleet.state(first), world.fleet.state(second)), (Some("stopping"), Some("queued")));
    world.lose_keeper();
    world.pass(secs(60));
    assert_eq!((world.fleet.state(first), world.fleet.state(second)), (Some("unkillable"), Some("queued")));
    world.find_keeper();
    world.pass(secs(15));
    assert_eq!((world.fleet.state(first), world.fleet.state(second)), (None, Some("running")));
    assert_eq!(world.outcome(first).cloned(), stopped(OPERATOR));
}

#[test]
fn without_a_keeper_nothing_is_begun() {
    let mut world = World::new(1);
    world.lose_keeper();
    let id = world.submit();
    world.pass(secs(10));
    assert_eq!((world.fleet.state(id), world.said.as_slice()), (Some("queued"), &["save queued".to_owned()][..]));
    world.find_keeper();
    world.settle();
    assert_eq!(world.fleet.state(id), Some("running"));
}

#[test]
fn output_puts_the_limit_of_silence_off() {
    let mut world = limited(Limits { idle: Some(secs(10)), ..Limits::default() });
    let id = world.running();
    world.pass(secs(8));
    let at = Some(BootNs(world.now));
    world.tell(FleetEvent::Output { id, at, looked: None, over_budget: false });
    world.pass(millis(9_900));
    assert_eq!(world.fleet.state(id), Some("running"));
    // News of the same byte, and of none, is none.
    world.tell(FleetEvent::Output { id, at, looked: None, over_budget: false });
    world.tell(FleetEvent::Output { id, at: None, looked: None, over_budget: false });
    world.pass(millis(200));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Idle));
}

#[test]
fn who_cannot_be_found_silent_is_not_stopped_for_silence() {
    let mut world = limited(Limits { idle: Some(secs(10)), ..Limits::default() });
    let id = world.running();
    world.hung = true;
    world.pass(secs(60));
    assert_eq!(world.fleet.state(id), Some("running"));
    // What was told late of the time before is no word on the time since.
    world.tell(FleetEvent::Output { id, at: Some(BootNs(SEC)), looked: Some(BootNs(9 * SEC)), over_budget: false });
    assert_eq!(world.fleet.state(id), Some("running"));
    // The disk answers, and what was held up comes to light; then nothing more does.
    world.tell(FleetEvent::Output { id, at: Some(BootNs(world.now)), looked: None, over_budget: false });
    world.hung = false;
    world.pass(millis(9_900));
    assert_eq!(world.fleet.state(id), Some("running"));
    world.pass(secs(1));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Idle));
}

#[test]
fn the_limit_of_silence_counts_anew_when_another_daemon_takes_over() {
    let mut world = limited(Limits { idle: Some(secs(10)), ..Limits::default() });
    let id = world.running();
    for _ in 0..5 {
        world.pass(secs(9));
        world.tell(FleetEvent::Output { id, at: Some(BootNs(world.now)), looked: None, over_budget: false });
    }
    world.crash();
    world.pass(millis(9_900));
    assert_eq!(world.fleet.state(id), Some("running"));
    world.pass(millis(200));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Idle));
}

#[test]
fn the_limit_of_waking_time_leaves_out_the_sleep_of_the_host() {
    let mut world = limited(Limits { active: Some(secs(10)), ..Limits::default() });
    // What was slept before counts for nobody.
    world.sleep(secs(500));
    let id = world.running();
    for restart in [false, true] {
        world.pass(secs(3));
        world.sleep(secs(3600));
        if restart {
            world.crash();
        }
        world.pass(millis(1));
        assert_eq!(world.fleet.state(id), Some("running"));
    }
    world.pass(millis(3_900));
    assert_eq!(world.fleet.state(id), Some("running"));
    world.pass(millis(200));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::ActiveLimit));
}

#[test]
fn the_wall_limit_counts_the_sleep_of_the_host() {
    let mut world = limited(Limits { wall: Some(secs(60)), ..Limits::default() });
    let id = world.running();
    world.pass(secs(1));
    world.sleep(secs(58));
    world.pass(millis(900));
    assert_eq!(world.fleet.state(id), Some("running"));
    world.sleep(secs(3600));
    world.pass(millis(1));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Deadline));
}

#[test]
fn i11_a_deadline_is_the_same_however_often_the_daemon_restarts() {
    let mut world = limited(Limits { wall: Some(secs(60)), ..Limits::default() });
    let id = world.running();
    for _ in 0..5 {
        world.pass(secs(11));
        world.crash();
    }
    world.pass(millis(4_900));
    assert_eq!(world.fleet.state(id), Some("running"));
    world.pass(millis(200));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Deadline));
}

#[test]
fn more_output_than_its_budget_stops_a_run_once() {
    let mut world = World::new(1);
    world.deaf = true;
    let id = world.running();
    for _ in 0..5 {
        world.tell(FleetEvent::Output { id, at: Some(BootNs(world.now)), looked: None, over_budget: true });
    }
    world.settle();
    assert_eq!(count(&world, "signal 2"), 1);
    world.pass(secs(3));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::OutputBudget));
}

#[test]
fn leftovers_that_are_waited_for_are_part_of_the_run_and_those_that_are_stopped_are_not() {
    for (leftovers, free) in [(Leftovers::Wait, true), (Leftovers::Kill, false)] {
        let mut shadow = Shadow::running(Settings { leftovers, ..Settings::default() }, 1);
        let deaf = Nature { ignores_int: true, ignores_term: true, ..Nature::default() };
        shadow.fork(shadow.main, deaf, Fate::default()).expect("a free number");
        shadow.pass(millis(10));
        assert!(shadow.core.runs_free());
        shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
        shadow.pass(secs(1));
        assert!(shadow.finished.is_none());
        assert_eq!(shadow.core.runs_free(), free);
    }
}

#[test]
fn an_end_is_durable_before_anything_is_removed() {
    let mut world = World::new(1);
    let id = world.running();
    world.faults.saves = 8;
    world.die(id, WaitStatus::Exited(0));
    world.pass(millis(7_900));
    assert_eq!((count(&world, "save ended fails"), count(&world, "remove")), (8, 0));
    world.faults.removals = 3;
    world.pass(secs(5));
    assert_eq!((count(&world, "save ended"), count(&world, "remove fails"), count(&world, "remove")), (1, 3, 1));
    assert_eq!(world.fleet.state(id), None);
}

#[test]
fn the_answer_to_an_older_save_does_not_make_an_end_durable() {
    let (mut world, id) = answered(UNSAVED);
    world.faults.saves = 1;
    world.stop(id);
    assert_eq!(world.said, ["save queued", "save ended fails"]);
    world.settle();
    assert_eq!(count(&world, "remove"), 0);
    world.finish();
    assert_eq!(world.outcome(id), Some(&RunOutcome::Withdrawn));
}

#[test]
fn what_fails_is_tried_once_a_second() {
    let mut world = World::new(1);
    let id = world.running();
    world.faults.removals = u32::MAX;
    world.faults.saves = 20;
    world.die(id, WaitStatus::Exited(0));
    world.pass(RETRY * 40);
    let tries = count(&world, "remove fails") + count(&world, "save ended fails");
    assert!((38..=41).contains(&tries), "{tries}");
}

#[test]
fn what_the_kernel_tells_before_the_birth_is_known_is_part_of_the_run() {
    let mut world = World::new(1);
    let id = world.running();
    world.pass(secs(1));
    world.die(id, WaitStatus::Exited(0));
    world.pass(secs(2));
    let facts: Vec<&Fact> = world.facts.values().flatten().collect();
    assert!(!facts.iter().any(|fact| matches!(fact, Fact::Gap(_))), "{facts:?}");
    assert_eq!(end(&world, id).elapsed, secs(1));
}

#[test]
fn a_main_process_killed_while_its_birth_is_written_is_over() {
    for answers in [LAUNCHING, LAUNCHING + 1, RECORDING] {
        let (mut world, id) = answered(answers);
        let name = *world.host.keys().next().expect("a cgroup");
        world.end(name, killed(9));
        world.pass(secs(2));
        assert_eq!(count(&world, "thaw"), 0);
        assert_eq!(end(&world, id).status, Some(killed(9)));
        assert_eq!(world.outcome(id).cloned(), ended());
        world.finish();
    }
}

#[test]
fn a_fleet_that_is_woken_early_asks_to_be_woken_again() {
    let mut world = limited(Limits { wall: Some(secs(60)), ..Limits::default() });
    let id = world.running();
    world.pass(secs(1));
    let due = world.wake;
    assert!(due.is_some());
    for _ in 0..3 {
        world.wake = None;
        world.tell(FleetEvent::Woke);
        assert_eq!(world.wake, due);
    }
    world.pass(secs(60));
    assert_eq!(world.outcome(id).cloned(), stopped(StopReason::Deadline));
}

#[test]
fn nothing_is_asked_twice_of_the_same_moment() {
    let limits = Limits { wall: Some(secs(60)), active: Some(secs(50)), idle: Some(secs(40)), ..Limits::default() };
    // In each state of the launch, then while it is stopped, then while its end and its removal fail.
    for answers in 0..14 {
        for (stop, saves, removals) in [(false, 0, 0), (true, 0, 0), (true, 2, 0), (true, 0, 2)] {
            let mut world = limited(limits.clone());
            world.deaf = true;
            let id = world.submit();
            (0..answers).for_each(|_| {
                world.answer();
            });
            (world.faults.saves, world.faults.removals) = (saves, removals);
            if stop {
                world.stop(id);
            }
            for _ in 0..30 {
                world.wake = None;
                world.tell(FleetEvent::Woke);
                for _ in 0..50 {
                    let actions = world.fleet.handle(world.clock(), FleetEvent::Woke);
                    let later = |action: &FleetAction| match action {
                        FleetAction::WakeAt(at) => at.0 > world.now,
                        _ => false,
                    };
                    assert!(actions.len() <= 1 && actions.iter().all(later), "{actions:?}");
                }
                world.answer();
                if let Some(wake) = world.wake {
                    world.now = world.now.max(wake);
                }
            }
        }
    }
}

#[test]
fn what_was_born_and_not_thawed_when_the_daemon_ended_is_thawed_by_the_next() {
    let (mut world, id) = answered(RECORDING);
    world.crash();
    world.settle();
    assert_eq!(world.executed.get(&id), Some(&1));
    world.crash();
    world.settle();
    assert_eq!(count(&world, "thaw"), 1);
    world.finish();
    assert_eq!(world.outcome(id).cloned(), ended());
}

#[test]
fn what_could_not_be_thawed_since_the_keeper_was_lost_is_thawed_when_there_is_another() {
    let (mut world, id) = answered(RECORDING);
    world.lose_keeper();
    world.pass(secs(5));
    assert_eq!(world.executed.get(&id), None);
    world.find_keeper();
    world.settle();
    assert_eq!(world.executed.get(&id), Some(&1));
    world.finish();
    assert_eq!(world.outcome(id).cloned(), ended());
}

#[test]
fn what_was_stopped_before_it_was_thawed_is_never_thawed_by_the_next_daemon() {
    let (mut world, id) = answered(LAUNCHING);
    world.stop(id);
    // Its birth is durable together with the reason of the stop, and the daemon ends before the kill.
    world.answer();
    world.answer();
    assert_eq!(world.said.last().map(String::as_str), Some("save stopping"));
    world.crash();
    world.pass(secs(3));
    assert_eq!(world.outcome(id).cloned(), stopped(OPERATOR));
    world.finish();
    assert!(world.executed.is_empty());
}

#[test]
fn a_stop_goes_on_under_the_next_daemon_with_its_first_reason() {
    let mut world = limited(Limits { wall: Some(secs(60)), ..Limits::default() });
    world.deaf = true;
    let id = world.running();
    world.pass(secs(1));
    world.stop(id);
    world.settle();
    world.sleep(secs(3600));
    world.crash();
    world.pass(secs(3));
    assert_eq!(world.outcome(id).cloned(), stopped(OPERATOR));
}

#[test]
fn an_end_while_no_daemon_ran_is_its_own_whatever_limit_passed_since() {
    let limits = Limits { wall: Some(secs(60)), active: Some(secs(60)), idle: Some(secs(60)), ..Limits::default() };
    let mut world = limited(limits);
    let id = world.running();
    world.pass(secs(10));
    world.die(id, WaitStatus::Exited(7));
    world.now += 3600 * SEC;
    world.crash();
    world.pass(secs(3));
    let end = end(&world, id);
    assert_eq!((Some(end.outcome.clone()), end.status), (ended(), Some(WaitStatus::Exited(7))));
}

/// A run of an earlier daemon whose main process and another one live.
fn resumed(leftovers: Leftovers) -> (Fleet, RunId, Now) {
    let (fleet, id, now, _) = resumed_into(Fleet::new(FleetSettings { max_agents: 1 }), leftovers);
    (fleet, id, now)
}

fn resumed_into(mut fleet: Fleet, leftovers: Leftovers) -> (Fleet, RunId, Now, Vec<FleetAction>) {
    let mut world = World::new(1);
    world.leftovers = leftovers;
    let id = world.running();
    let record = world.store[&id].clone();
    let Stage::Born(born) = &record.stage else { panic!("{record:?}") };
    let launched = Launched { key: born.main, ino: None, run: born.cgroup, at: born.at, traced: false };
    let restored = Restored::new(launched, born.baseline);
    let core = Box::new(Core::resumed(BootNs(world.now), settings_of(&record, born.baseline), &restored));
    let actions = fleet.handle(world.clock(), FleetEvent::Resumed { record: Box::new(record), core });
    (fleet, id, world.clock(), actions)
}

#[test]
fn what_may_be_frozen_is_thawed_as_soon_as_there_is_a_keeper() {
    let fleet = || Fleet::new(FleetSettings { max_agents: 1 });
    let thaws = |actions: &[FleetAction], id| actions.contains(&FleetAction::Of(id, Action::Thaw));
    let (mut before, id, now, actions) = resumed_into(fleet(), Leftovers::Kill);
    assert!(!thaws(&actions, id));
    assert!(thaws(&before.handle(now, FleetEvent::KeeperReady), id));
    before.handle(now, FleetEvent::Of(id, Event::Started));
    assert!(!thaws(&before.handle(now, FleetEvent::KeeperReady), id));
    let mut after = fleet();
    after.handle(now, FleetEvent::KeeperReady);
    let (_, id, _, actions) = resumed_into(after, Leftovers::Kill);
    assert!(thaws(&actions, id));
}

fn saves(actions: &[FleetAction]) -> Vec<Option<StopReason>> {
    let reason = |action: &FleetAction| match action {
        FleetAction::Save(record) => match &record.stage {
            Stage::Born(born) => Some(born.stopping),
            other => panic!("{other:?}"),
        },
        _ => None,
    };
    actions.iter().filter_map(reason).collect()
}

#[test]
fn the_reason_of_a_stop_is_remembered_but_for_leftovers_of_a_main_process_that_ended_by_itself() {
    let left = Member { pid: 999, key: None, state: None, wchan: None, comm: None };
    let (mut fleet, id, now) = resumed(Leftovers::Kill);
    fleet.handle(now, FleetEvent::Of(id, Event::MainExited(Some(WaitStatus::Exited(0)))));
    let actions = fleet.handle(now, FleetEvent::Of(id, Event::Tree(Tree::Populated(vec![left]))));
    assert_eq!(fleet.state(id), Some("stopping"));
    assert_eq!(saves(&actions), []);
    let (mut fleet, id, now) = resumed(Leftovers::Kill);
    let actions = fleet.handle(now, FleetEvent::StopAsked { id, reason: OPERATOR, told: ASKED.to_owned() });
    assert_eq!(fleet.state(id), Some("stopping"));
    assert_eq!(saves(&actions), [Some(OPERATOR)]);
    // What the stop itself asks for comes before the store.
    let last = actions.iter().rposition(|action| matches!(action, FleetAction::Of(..)));
    let save = actions.iter().position(|action| matches!(action, FleetAction::Save(_)));
    assert!(last < save, "{actions:?}");
}

#[test]
fn who_asks_for_the_end_of_a_run_is_saved_with_it_and_once() {
    let ask = |id, who: &str| FleetEvent::StopAsked { id, reason: OPERATOR, told: who.to_owned() };
    let told = |actions: &[FleetAction]| -> Vec<Vec<String>> {
        let of = |action: &FleetAction| match action {
            FleetAction::Save(record) => Some(record.told.clone()),
            _ => None,
        };
        actions.iter().filter_map(of).collect()
    };
    let (mut fleet, id, now) = resumed(Leftovers::Kill);
    assert_eq!(told(&fleet.handle(now, ask(id, ASKED))), [[ASKED]]);
    assert_eq!(told(&fleet.handle(now, ask(id, ASKED))), [[""; 0]; 0], "nothing new");
    assert_eq!(told(&fleet.handle(now, ask(id, "another"))), [[ASKED, "another"]]);
    for number in 0..100 {
        fleet.handle(now, ask(id, &number.to_string()));
    }
    assert_eq!(fleet.record(id).expect("it is stopping").told.len(), RunRecord::MOST_TOLD);
    // In the queue too, where nothing else of it would be saved but its end.
    let mut world = World::new(1);
    world.running();
    let waits = world.submit();
    world.settle();
    let actions = world.fleet.handle(world.clock(), ask(waits, ASKED));
    assert_eq!(told(&actions), [[ASKED]]);
    assert_eq!(told(&world.fleet.handle(world.clock(), ask(waits, "too late"))), [[""; 0]; 0], "it is as it ended");
}

#[test]
fn a_submission_that_could_not_be_saved_never_runs_and_one_that_was_accepted_before_is_never_dropped() {
    let mut world = World::new(1);
    world.faults.saves = 1;
    let refused = world.submit();
    world.pass(secs(5));
    assert_eq!((world.fleet.state(refused), world.executed.len()), (None, 0));
    let accepted = world.submit();
    world.answer();
    world.faults.saves = 0;
    world.crash();
    assert_eq!(world.fleet.record(accepted).map(|record| record.attempt), Some(2));
    let mut world = World::new(1);
    let (first, second) = (world.running(), world.submit());
    world.settle();
    world.faults.saves = 2;
    world.crash();
    world.settle();
    assert_eq!((world.fleet.state(first), world.fleet.state(second)), (Some("running"), Some("queued")));
    world.finish();
    assert_eq!(world.outcome(second).cloned(), ended());
}

#[test]
fn an_id_is_submitted_once() {
    let mut world = World::new(1);
    let id = world.running();
    let record = world.store[&id].clone();
    world.tell(FleetEvent::Submitted(Box::new(record)));
    world.settle();
    assert_eq!(world.said, LAUNCH);
}

#[test]
fn a_run_lost_to_a_restart_of_the_host_is_told_so_and_nothing_is_asked_for_it() {
    let mut world = World::new(1);
    let (lost, waits) = (world.running(), world.submit());
    world.settle();
    world.said.clear();
    world.reboot();
    world.settle();
    assert_eq!(world.outcome(lost), Some(&RunOutcome::LostToReboot));
    assert_eq!((end(&world, lost).proven, end(&world, lost).status), (false, None));
    // What waited is launched in this boot, and known as of this boot.
    assert_eq!(world.fleet.state(waits), Some("running"));
    assert_eq!(count(&world, "remove") + count(&world, "kill") + count(&world, "discard"), 0);
    world.crash();
    world.settle();
    assert_eq!(world.fleet.state(waits), Some("running"));
    world.finish();
    assert_eq!(world.outcome(waits).cloned(), ended());
}

#[test]
fn kills_for_want_of_memory_are_part_of_the_end() {
    let mut world = World::new(1);
    let id = world.running();
    world.tell(FleetEvent::OomKills { id, kills: 2 });
    world.die(id, killed(9));
    world.pass(secs(1));
    assert_eq!(end(&world, id).oom_kills, Some(2));
}

#[test]
fn why_an_empty_tree_is_not_proven_is_remembered() {
    let mut world = World::new(1);
    let id = world.running();
    for totals in world.totals.values_mut() {
        totals.missed += 3;
    }
    world.die(id, killed(9));
    world.pass(secs(2));
    assert!(!end(&world, id).proven);
    let told = world.store[&id].told.concat();
    assert!(told.contains("up to 3 births"), "{told}");
}

#[test]
fn events_of_a_run_that_is_not_there_change_nothing() {
    let mut world = World::new(1);
    let id = world.record().id;
    for event in [
        FleetEvent::Saved { id, result: Ok(()) },
        FleetEvent::Removed { id, result: Ok(()) },
        FleetEvent::Of(id, Event::Started),
        FleetEvent::Output { id, at: None, looked: None, over_budget: true },
        FleetEvent::StopAsked { id, reason: OPERATOR, told: ASKED.to_owned() },
        FleetEvent::Again(id),
        FleetEvent::OomKills { id, kills: 1 },
    ] {
        world.tell(event);
    }
    world.settle();
    assert_eq!((world.said.len(), world.wake), (0, None));
}

#[test]
fn a_stop_that_was_asked_for_before_the_birth_was_durable_is_not_forgotten_by_a_crash() {
    for answers in [INTENDING, PREPARING, LAUNCHING, LAUNCHING + 1, RECORDING] {
        let (mut world, id) = answered(answers);
        world.stop(id);
        world.crash();
        world.finish();
        let outcome = world.outcome(id).cloned();
        assert!(outcome == Some(RunOutcome::Withdrawn) || outcome == stopped(OPERATOR), "{answers}: {outcome:?}");
        assert!(world.executed.is_empty(), "{answers}");
    }
}

#[test]
fn a_record_of_one_run_makes_nobody_look_at_the_others() {
    let mut world = World::new(1);
    let id = world.running();
    for _ in 0..200 {
        world.submit();
    }
    world.settle();
    let Stage::Born(born) = &world.store[&id].stage else { panic!("it is born") };
    let key = born.main;
    let now = world.clock();
    let before = world.fleet.looks.get();
    for number in 0..100 {
        let event = Event::Execed(crate::model::Exec::empty(key, RunTag(0), BootNs(number)));
        world.fleet.handle(now, FleetEvent::Of(id, event));
        world.fleet.handle(now, FleetEvent::Of(id, Event::RoundEnded));
    }
    assert_eq!(world.fleet.looks.get() - before, 200);
}
