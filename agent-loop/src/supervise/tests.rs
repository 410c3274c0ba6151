//! The ladder and the ends of a run, path by path, against the shadow kernel.

use std::time::Duration;

use super::shadow::{Fate, Nature, Shadow, killed};
use super::{Core, Leftovers, Settings};
use crate::event::{
    Action, Cause, Event, Fact, GapCause, LaunchFailure, Launched, Member, Outcome, Phase, Step, Summary, Tree,
};
use crate::model::{BootNs, ProcessKey, Source, StopReason, WaitStatus};

const GRACE: Duration = Duration::from_secs(10);
const DEAF: Nature =
    Nature { ignores_int: true, ignores_term: true, survives_cgroup_kill: false, stuck: false, left_cgroup: false };
const OPERATOR: StopReason = StopReason::Operator { signal: 15 };

fn run(settings: Settings) -> Shadow {
    Shadow::running(settings, 1)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn child(shadow: &mut Shadow, nature: Nature) -> ProcessKey {
    let key = shadow.fork(shadow.main, nature, Fate::default()).expect("a free number");
    shadow.exec(key, Fate::default());
    key
}

fn steps(shadow: &Shadow) -> Vec<(Step, u32)> {
    let step = |fact: &Fact| match fact {
        Fact::Phase(Phase::Step { step, processes, .. }) => Some((*step, *processes)),
        _ => None,
    };
    shadow.facts.iter().filter_map(step).collect()
}

fn causes(shadow: &Shadow) -> Vec<Cause> {
    let cause = |fact: &Fact| match fact {
        Fact::Exit { cause, .. } => Some(*cause),
        _ => None,
    };
    shadow.facts.iter().filter_map(cause).collect()
}

fn killed_fact(shadow: &Shadow) -> Option<(StopReason, u32, bool)> {
    shadow.facts.iter().find_map(|fact| match fact {
        Fact::RunKilled { reason, survivors, proven, .. } => Some((*reason, *survivors, *proven)),
        _ => None,
    })
}

fn end(shadow: &Shadow) -> &Summary {
    shadow.finished.as_ref().expect("the run is over")
}

/// Each signal has its intent right before it, and each intent names why.
fn assert_intents(shadow: &Shadow) {
    let intents = shadow.facts.iter().filter(|fact| matches!(fact, Fact::SignalIntent { cgroup: false, .. })).count();
    assert_eq!(intents, shadow.signals.len());
}

#[test]
fn a_quiet_run_ends_with_the_status_of_its_main_process() {
    let mut shadow = run(Settings::default());
    let tool = child(&mut shadow, Nature::default());
    shadow.pass(secs(1));
    shadow.exit(tool, WaitStatus::Exited(0), Fate::default());
    shadow.exit(shadow.main, WaitStatus::Exited(4), Fate::default());
    shadow.pass(secs(1));
    let summary = end(&shadow);
    assert_eq!(summary.outcome, Outcome::Ended);
    assert_eq!(summary.status, Some(WaitStatus::Exited(4)));
    assert_eq!((summary.births, summary.deaths, summary.leftovers, summary.gaps), (2, 2, 0, 0));
    assert!(summary.proven);
    assert!(summary.elapsed < Duration::from_millis(1100), "{:?}", summary.elapsed);
    assert!(shadow.gaps.is_empty() && shadow.signals.is_empty());
    assert_eq!(killed_fact(&shadow), None);
    shadow.assert_closed();
}

#[test]
fn a_polite_main_process_is_interrupted_and_nothing_more() {
    let mut shadow = run(Settings { limit: Some(secs(60)), ..Settings::default() });
    shadow.pass(secs(59));
    assert!(shadow.signals.is_empty());
    shadow.pass(secs(2));
    assert_eq!(shadow.signals, [(100, 2)]);
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(StopReason::Deadline));
    assert_eq!(killed_fact(&shadow), Some((StopReason::Deadline, 0, true)));
    assert_eq!(causes(&shadow), [Cause::StoppedByUs]);
    assert_intents(&shadow);
}

#[test]
fn a_deaf_tree_climbs_the_whole_ladder_and_ends_empty() {
    let mut shadow = run(Settings { limit: Some(secs(60)), grace: GRACE, ..Settings::default() });
    shadow.nature(shadow.main, DEAF);
    child(&mut shadow, DEAF);
    child(&mut shadow, Nature { survives_cgroup_kill: true, ..DEAF });
    shadow.pass(secs(79));
    assert_eq!(shadow.signals, [(100, 2), (100, 15), (101, 15), (102, 15)]);
    assert!(shadow.finished.is_none());
    shadow.pass(secs(2));
    assert_eq!(steps(&shadow), [(Step::Interrupt, 1), (Step::Terminate, 3), (Step::Kill, 3)]);
    assert_eq!(shadow.signals.last(), Some(&(102, 9)));
    assert_eq!(killed_fact(&shadow), Some((StopReason::Deadline, 0, true)));
    assert_eq!(causes(&shadow), [Cause::StoppedByUs; 3]);
    assert_intents(&shadow);
    shadow.assert_closed();
}

#[test]
fn what_the_interrupted_main_process_leaves_behind_is_terminated_at_once() {
    let mut shadow = run(Settings { grace: GRACE, ..Settings::default() });
    child(&mut shadow, Nature::default());
    shadow.tell(Event::StopRequested(OPERATOR));
    shadow.pass(secs(1));
    assert_eq!(shadow.signals, [(100, 2), (101, 15)]);
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(OPERATOR));
}

#[test]
fn the_first_reason_of_a_stop_stands() {
    let mut shadow = run(Settings { limit: Some(secs(5)), grace: GRACE, ..Settings::default() });
    shadow.nature(shadow.main, DEAF);
    shadow.tell(Event::StopRequested(OPERATOR));
    shadow.tell(Event::StopRequested(StopReason::OutputBudget));
    shadow.pass(secs(30));
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(OPERATOR));
}

#[test]
fn impatience_skips_to_the_kill() {
    for asked_before in [false, true] {
        let mut shadow = run(Settings { grace: GRACE, ..Settings::default() });
        shadow.nature(shadow.main, DEAF);
        child(&mut shadow, DEAF);
        shadow.round();
        if asked_before {
            shadow.tell(Event::StopRequested(OPERATOR));
        }
        shadow.tell(Event::Impatient);
        shadow.pass(Duration::from_millis(100));
        assert_eq!(steps(&shadow).last(), Some(&(Step::Kill, 2)));
        let reason = if asked_before { OPERATOR } else { StopReason::Operator { signal: 2 } };
        assert_eq!(end(&shadow).outcome, Outcome::Stopped(reason));
    }
}

#[test]
fn without_grace_the_kill_comes_at_once() {
    let mut shadow = run(Settings { grace: Duration::ZERO, ..Settings::default() });
    shadow.nature(shadow.main, DEAF);
    shadow.tell(Event::StopRequested(OPERATOR));
    assert_eq!(shadow.finished.as_ref().map(|summary| &summary.outcome), Some(&Outcome::Stopped(OPERATOR)));
}

#[test]
fn leftovers_are_told_by_name_and_stopped_and_the_outcome_is_the_mains() {
    let mut shadow = run(Settings { grace: GRACE, ..Settings::default() });
    child(&mut shadow, Nature::default());
    child(&mut shadow, DEAF);
    child(&mut shadow, Nature { left_cgroup: true, ..DEAF });
    shadow.pass(secs(1));
    shadow.exit(shadow.main, WaitStatus::Exited(7), Fate::default());
    shadow.pass(secs(9));
    let told = shadow.facts.iter().find_map(|fact| match fact {
        Fact::Phase(Phase::Draining { leftovers }) => Some(leftovers.iter().map(|(_, name)| name.clone()).collect()),
        _ => None,
    });
    let told: Vec<String> = told.expect("leftovers");
    assert_eq!(told, ["tool101 -x", "tool102 -x"]);
    assert_eq!(shadow.signals, [(101, 15), (102, 15), (103, 15)]);
    shadow.pass(secs(3));
    let summary = end(&shadow);
    assert_eq!((summary.outcome.clone(), summary.status), (Outcome::Ended, Some(WaitStatus::Exited(7))));
    assert_eq!(killed_fact(&shadow), Some((StopReason::Leftovers, 0, true)));
    assert_intents(&shadow);
    shadow.assert_closed();
}

#[test]
fn one_that_left_the_cgroup_is_a_leftover_although_the_tree_is_empty() {
    let mut shadow = run(Settings { grace: GRACE, ..Settings::default() });
    child(&mut shadow, Nature { left_cgroup: true, ..Nature::default() });
    shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
    shadow.pass(secs(1));
    assert_eq!(shadow.signals, [(101, 15)]);
    assert_eq!((end(&shadow).outcome.clone(), end(&shadow).leftovers), (Outcome::Ended, 1));
}

#[test]
fn leftovers_that_are_waited_for_get_no_signal_before_the_limit() {
    let settings = Settings { limit: Some(secs(60)), leftovers: Leftovers::Wait, grace: GRACE, ..Settings::default() };
    for patient in [true, false] {
        let mut shadow = run(settings);
        let daemon = child(&mut shadow, Nature::default());
        shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
        shadow.pass(secs(50));
        assert!(shadow.signals.is_empty() && shadow.finished.is_none());
        let outcome = if patient {
            shadow.exit(daemon, WaitStatus::Exited(1), Fate::default());
            Outcome::Ended
        } else {
            Outcome::Stopped(StopReason::Deadline)
        };
        shadow.pass(secs(11));
        let summary = end(&shadow);
        assert_eq!((summary.outcome.clone(), summary.leftovers), (outcome, 1));
        assert_eq!(summary.status, Some(WaitStatus::Exited(0)));
    }
}

#[test]
fn i06_a_stop_while_frozen_kills_before_the_thaw() {
    let mut core = Core::new(Settings::default());
    assert_eq!(core.handle(BootNs(1), Event::StopRequested(OPERATOR)), []);
    let key = ProcessKey::new(100, 2);
    let launched = Launched { key, ino: None, run: super::shadow::RUN, at: BootNs(2), traced: true };
    let actions = core.handle(BootNs(3), Event::Launched(launched));
    assert!(!actions.contains(&Action::Thaw), "{actions:?}");
    assert!(matches!(actions[0], Action::Log(Fact::RunBorn(_))));
    let kill = actions.iter().position(|action| *action == Action::KillCgroup).expect("a kill");
    assert!(matches!(actions[kill - 1], Action::Log(Fact::SignalIntent { cgroup: true, .. })));
}

fn failure() -> LaunchFailure {
    LaunchFailure { step: "executing the command".into(), errno: Some(2) }
}

#[test]
fn a_launch_that_failed_before_the_birth_ends_when_nothing_is_left() {
    let mut core = Core::new(Settings::default());
    assert_eq!(core.handle(BootNs(1), Event::LaunchFailed(failure())), [Action::InspectTree, wake(10_000_000_001)]);
    let actions = core.handle(BootNs(2), Event::Tree(Tree::Empty { proven: true }));
    let outcome = actions.iter().find_map(|action| match action {
        Action::Finish(summary) => Some((summary.outcome.clone(), summary.births)),
        _ => None,
    });
    assert_eq!(outcome, Some((Outcome::LaunchFailed(failure()), 0)));
    assert_eq!(core.handle(BootNs(3), Event::Impatient), []);
}

fn wake(at: u64) -> Action {
    Action::WakeAt(BootNs(at))
}

#[test]
fn a_command_that_cannot_be_executed_is_a_failed_launch_in_either_order() {
    for reason_first in [true, false] {
        let mut shadow = Shadow::new(Settings::default(), 1);
        shadow.launch(Nature::default());
        shadow.exec(shadow.main, Fate::default());
        if reason_first {
            shadow.tell(Event::LaunchFailed(failure()));
            shadow.exit(shadow.main, WaitStatus::Exited(127), Fate::default());
        } else {
            shadow.exit(shadow.main, WaitStatus::Exited(127), Fate::default());
            let told = Event::MainExited(Some(WaitStatus::Exited(127)));
            assert_eq!(shadow.core.handle(BootNs(shadow.now), told).first(), Some(&Action::InspectTree));
            shadow.tell(Event::LaunchFailed(failure()));
            shadow.tell(Event::Tree(Tree::Empty { proven: true }));
        }
        shadow.pass(secs(1));
        assert_eq!(end(&shadow).outcome, Outcome::LaunchFailed(failure()));
        assert_eq!((end(&shadow).births, end(&shadow).deaths), (1, 1));
    }
}

#[test]
fn a_failure_of_ours_is_told_although_the_main_process_ended_by_itself() {
    for told in [false, true] {
        let mut shadow = run(Settings { grace: GRACE, ..Settings::default() });
        child(&mut shadow, DEAF);
        shadow.round();
        if told {
            shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
            shadow.pass(Duration::from_millis(100));
            shadow.tell(Event::StopRequested(StopReason::Internal));
        } else {
            let ended = Event::MainExited(Some(WaitStatus::Exited(0)));
            assert_eq!(shadow.core.handle(BootNs(shadow.now), ended).first(), Some(&Action::InspectTree));
            shadow.tell(Event::StopRequested(StopReason::Internal));
            shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
            shadow.tell(Event::Tree(members(1)));
        }
        shadow.pass(secs(12));
        assert_eq!(end(&shadow).outcome, Outcome::Stopped(StopReason::Internal), "leftovers told: {told}");
    }
}

#[test]
fn a_main_process_that_a_tracer_holds_for_ever_ends_its_run_with_the_kernels_status() {
    for lost in [false, true] {
        let mut shadow = run(Settings::default());
        shadow.is_held_for(None, true);
        shadow.exit(shadow.main, WaitStatus::Exited(7), Fate { lost, ..Fate::default() });
        shadow.pass(secs(3));
        let summary = end(&shadow);
        assert_eq!((summary.outcome.clone(), summary.status), (Outcome::Ended, Some(WaitStatus::Exited(7))));
        let source = if lost { Source::RunTable } else { Source::Kernel };
        assert_eq!((summary.status_source, summary.proven), (source, true));
        assert!(summary.elapsed < secs(2), "{:?}", summary.elapsed);
        shadow.assert_closed();
    }
}

#[test]
fn a_tracer_that_lets_go_while_others_are_awaited_leaves_the_status_to_waitid() {
    let mut shadow = run(Settings { leftovers: Leftovers::Wait, ..Settings::default() });
    let daemon = child(&mut shadow, Nature::default());
    shadow.is_held_for(Some(secs(20)), true);
    shadow.exit(shadow.main, WaitStatus::Exited(7), Fate::default());
    shadow.pass(secs(30));
    shadow.exit(daemon, WaitStatus::Exited(0), Fate::default());
    shadow.pass(secs(3));
    assert_eq!((end(&shadow).status_source, end(&shadow).leftovers), (Source::Waitid, 1));
}

#[test]
fn what_a_failed_launch_leaves_behind_is_killed_after_the_grace() {
    let mut shadow = Shadow::new(Settings { grace: GRACE, ..Settings::default() }, 1);
    shadow.launch(DEAF);
    shadow.tell(Event::LaunchFailed(failure()));
    shadow.pass(secs(9));
    assert!(shadow.finished.is_none() && steps(&shadow).is_empty());
    shadow.pass(secs(2));
    assert_eq!(end(&shadow).outcome, Outcome::LaunchFailed(failure()));
    assert_eq!(killed_fact(&shadow), Some((StopReason::Internal, 0, true)));
}

fn alarms(shadow: &Shadow) -> Vec<u64> {
    let alarm = |fact: &Fact| match fact {
        Fact::Phase(Phase::Unkillable { since, members }) => {
            assert!(!members.is_empty());
            Some(since.as_secs())
        }
        _ => None,
    };
    shadow.facts.iter().filter_map(alarm).collect()
}

const STUCK: Nature = Nature { stuck: true, ..DEAF };

#[test]
fn a_process_in_state_d_is_told_every_ten_seconds_and_awaited() {
    let mut shadow = run(Settings { grace: secs(1), ..Settings::default() });
    let stuck = child(&mut shadow, STUCK);
    shadow.tell(Event::StopRequested(OPERATOR));
    shadow.pass(secs(60));
    let told = alarms(&shadow);
    assert!(told.first() == Some(&1) && (5..=6).contains(&told.len()), "{told:?}");
    assert!(shadow.finished.is_none());
    let kills = shadow.signals.iter().filter(|signal| **signal == (101, 9)).count();
    assert!((3..=9).contains(&kills), "retried at the pace of the alarms: {kills}");
    shadow.exit(stuck, killed(9), Fate::default());
    shadow.pass(secs(2));
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(OPERATOR));
}

#[test]
fn an_unkillable_rest_is_given_up_when_told_to() {
    for impatient in [true, false] {
        let give_up = (!impatient).then_some(secs(30));
        let mut shadow = run(Settings { grace: secs(1), give_up, ..Settings::default() });
        child(&mut shadow, STUCK);
        shadow.tell(Event::StopRequested(OPERATOR));
        shadow.pass(secs(25));
        assert!(shadow.finished.is_none());
        if impatient {
            shadow.tell(Event::Impatient);
        }
        shadow.pass(secs(10));
        assert_eq!(end(&shadow).outcome, Outcome::NotEmpty { reason: OPERATOR, survivors: 1 });
        assert_eq!(killed_fact(&shadow), Some((OPERATOR, 1, false)));
        assert_eq!((end(&shadow).births, end(&shadow).deaths, end(&shadow).proven), (2, 1, false));
    }
}

#[test]
fn a_kill_of_the_cgroup_that_is_at_work_gets_no_help() {
    let mut core = started(true);
    core.handle(BootNs(10), Event::Impatient);
    core.handle(BootNs(11), Event::CgroupKilled(Ok(())));
    for left in (1..40u32).rev() {
        let now = BootNs(u64::from(60 - left) * 5_000_000);
        let actions = core.handle(now, Event::Tree(members(left)));
        let helps = actions.iter().any(|action| matches!(action, Action::SignalMember { .. }));
        assert!(!helps, "{left} left");
        core.handle(BootNs(now.0 + 1_000_000), Event::Woke);
    }
    let actions = core.handle(BootNs(400_000_000), Event::Tree(members(1)));
    assert!(actions.contains(&Action::SignalMember { pid: 200, signal: 9 }));
}

fn members(left: u32) -> Tree {
    let member = |pid| Member { pid, key: None, state: Some('R'), wchan: None, comm: None };
    Tree::Populated((200..200 + left).map(member).collect())
}

fn started(traced: bool) -> Core {
    let mut core = Core::new(Settings { grace: GRACE, ..Settings::default() });
    let key = ProcessKey::new(100, 2);
    core.handle(
        BootNs(3),
        Event::Launched(Launched { key, ino: None, run: super::shadow::RUN, at: BootNs(2), traced }),
    );
    core.handle(BootNs(4), Event::Started);
    core
}

#[test]
fn a_main_process_on_its_way_out_is_no_leftover_and_gets_no_signal() {
    let mut core = started(true);
    let main = ProcessKey::new(100, 2);
    core.handle(BootNs(10), Event::MainHeld(Some(WaitStatus::Exited(31))));
    let listed =
        |pid, key| Event::Tree(Tree::Populated(vec![Member { pid, key, state: None, wchan: None, comm: None }]));
    // Its death is recorded, and the kernel lists it still.
    let mut actions = core.handle(BootNs(11), listed(main.tgid, None));
    actions.extend(core.handle(BootNs(12), listed(main.tgid, Some(main))));
    let told = |actions: &[Action]| {
        actions.iter().any(|action| {
            matches!(action, Action::SignalMember { .. } | Action::Log(Fact::Phase(Phase::Draining { .. })))
        })
    };
    assert!(!told(&actions), "{actions:?}");
    // Who else is there is one, though it had the same number.
    let actions = core.handle(BootNs(13), listed(main.tgid, Some(ProcessKey::new(main.tgid, 9))));
    assert!(told(&actions), "{actions:?}");
}

#[test]
fn without_ebpf_the_tree_says_whom_to_stop_and_the_end_is_not_proven() {
    let mut core = started(false);
    let actions = core.handle(BootNs(10), Event::StopRequested(OPERATOR));
    assert!(actions.iter().any(|action| matches!(action, Action::Signal { signal: 2, .. })));
    let actions = core.handle(BootNs(20), Event::MainExited(Some(WaitStatus::Exited(1))));
    let death = actions.iter().find_map(|action| match action {
        Action::Log(Fact::Exit { death, inferred, .. }) => Some((death.source, death.status, *inferred)),
        _ => None,
    });
    assert_eq!(death, Some((Source::Waitid, Some(WaitStatus::Exited(1)), None)));
    assert!(actions.contains(&Action::InspectTree));
    core.handle(BootNs(21), Event::Tree(members(1)));
    let actions = core.handle(BootNs(22), Event::Tree(members(1)));
    assert!(actions.contains(&Action::SignalMember { pid: 200, signal: 15 }), "{actions:?}");
    let actions = core.handle(BootNs(23), Event::Tree(Tree::Empty { proven: false }));
    let proven = actions.iter().find_map(|action| match action {
        Action::Finish(summary) => Some((summary.proven, summary.births, summary.deaths)),
        _ => None,
    });
    assert_eq!(proven, Some((false, 1, 1)));
    assert!(!actions.iter().any(|action| matches!(action, Action::ReadCounters | Action::ReadLiveSet)));
}

#[test]
fn where_the_cgroup_cannot_be_killed_each_member_is() {
    let mut shadow = run(Settings { grace: Duration::ZERO, ..Settings::default() });
    shadow.cgroup_kill_works = false;
    shadow.nature(shadow.main, DEAF);
    child(&mut shadow, DEAF);
    shadow.tell(Event::StopRequested(OPERATOR));
    shadow.pass(secs(1));
    assert_eq!(shadow.signals.iter().filter(|(_, signal)| *signal == 9).count(), 2);
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(OPERATOR));
}

#[test]
fn where_the_cgroup_cannot_be_killed_a_fork_bomb_is_frozen_first() {
    let mut shadow = run(Settings { grace: Duration::ZERO, ..Settings::default() });
    (shadow.cgroup_kill_works, shadow.is_bomb, shadow.pids) = (false, true, 60_000);
    child(&mut shadow, DEAF);
    shadow.tell(Event::StopRequested(OPERATOR));
    shadow.pass(secs(5));
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(OPERATOR));
    shadow.assert_closed();
}

#[test]
fn what_the_live_set_had_no_room_for_leaves_the_end_unproven() {
    let mut shadow = run(Settings::default());
    shadow.totals.live_full = 2;
    shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
    shadow.pass(secs(2));
    assert_eq!((end(&shadow).outcome.clone(), end(&shadow).proven, end(&shadow).unseen), (Outcome::Ended, false, 2));
}

#[test]
fn i10_before_a_repair_nobody_outside_the_cgroup_is_signalled() {
    let mut shadow = run(Settings { grace: Duration::ZERO, ..Settings::default() });
    child(&mut shadow, Nature { left_cgroup: true, ..DEAF });
    shadow.fork(shadow.main, Nature::default(), Fate { lost: true, ..Fate::default() });
    shadow.round();
    assert!(shadow.core.tracker().is_dirty());
    shadow.tell(Event::StopRequested(OPERATOR));
    assert!(!shadow.signals.contains(&(101, 9)) && !shadow.signals.contains(&(101, 15)));
    shadow.pass(secs(1));
    assert!(shadow.signals.contains(&(101, 9)));
    assert_eq!(end(&shadow).outcome, Outcome::Stopped(OPERATOR));
    shadow.assert_closed();
}

#[test]
fn a_status_whose_record_was_lost_comes_from_waitid() {
    let mut shadow = run(Settings::default());
    shadow.exit(shadow.main, WaitStatus::Exited(9), Fate { lost: true, ..Fate::default() });
    shadow.pass(secs(1));
    assert_eq!(end(&shadow).status, Some(WaitStatus::Exited(9)));
    let told = shadow.facts.iter().find_map(|fact| match fact {
        Fact::Exit { death, inferred, .. } => Some((death.source, inferred.is_some())),
        _ => None,
    });
    assert_eq!(told, Some((Source::Waitid, true)));
    assert_eq!((shadow.gaps.len(), shadow.gaps[0].lost_exit, shadow.gaps[0].repaired), (1, 1, true));
}

#[test]
fn i20_a_death_that_nothing_accounts_for_is_declared() {
    let mut shadow = run(Settings::default());
    let tool = child(&mut shadow, Nature::default());
    // Its record vanishes and no counter tells.
    shadow.exit(tool, WaitStatus::Exited(0), Fate { lost: true, ..Fate::default() });
    shadow.totals.lost_exit = 0;
    shadow.exit(shadow.main, WaitStatus::Exited(0), Fate::default());
    shadow.pass(secs(4));
    let summary = end(&shadow);
    assert_eq!((summary.births, summary.deaths), (2, 2));
    assert!(summary.elapsed < secs(2));
    let gap = &shadow.gaps[0];
    assert_eq!((shadow.gaps.len(), gap.cause, gap.lost_exit, gap.inferred_deaths), (1, GapCause::NoDeath, 1, 1));
    assert_eq!(shadow.core.tracker().accounts().deaths.declared, 1);
}

#[test]
fn i11_the_deadline_counts_from_the_birth() {
    let settings = Settings { limit: Some(secs(60)), ..Settings::default() };
    let mut core = Core::new(settings);
    let key = ProcessKey::new(100, 2);
    let launched = Launched { key, ino: None, run: super::shadow::RUN, at: BootNs(2), traced: true };
    let actions = core.handle(BootNs(30_000_000_000), Event::Launched(launched));
    assert!(actions.contains(&wake(60_000_000_002)), "{actions:?}");
}
