//! Random trees of every nature, with lossy, doubled and shuffled records: the shadow checks each fact.

use std::time::Duration;

use proptest::prelude::*;

use super::shadow::{Fate, Nature, Shadow};
use super::{Leftovers, Settings};
use crate::event::{Event, Outcome};
use crate::model::{StopReason, WaitStatus};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Fork(usize, Nature, Fate),
    Exec(usize, Fate),
    Exit(usize, u8, Fate),
    Round,
    Pass(u8),
}

fn fate(lossy: bool) -> impl Strategy<Value = Fate> {
    let loss = if lossy { 0.3 } else { 0.0 };
    (prop::bool::weighted(loss), prop::bool::weighted(loss / 6.0), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(lost, missed, doubled, late)| Fate { lost, missed, doubled, late })
}

fn nature() -> impl Strategy<Value = Nature> {
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(
        |(ignores_int, ignores_term, survives_cgroup_kill, left_cgroup)| Nature {
            ignores_int,
            ignores_term,
            survives_cgroup_kill,
            stuck: false,
            left_cgroup,
        },
    )
}

fn ops(lossy: bool) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => (any::<usize>(), nature(), fate(lossy)).prop_map(|(who, nature, fate)| Op::Fork(who, nature, fate)),
        3 => (any::<usize>(), fate(lossy)).prop_map(|(who, fate)| Op::Exec(who, fate)),
        4 => (any::<usize>(), any::<u8>(), fate(lossy)).prop_map(|(who, code, fate)| Op::Exit(who, code, fate)),
        2 => Just(Op::Round),
        1 => (0..40u8).prop_map(Op::Pass),
    ];
    prop::collection::vec(op, 0..150)
}

/// For how long a tracer holds the dead main process; for ever if `None`.
fn held() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        3 => Just(Some(Duration::ZERO)),
        1 => (1..1500u64).prop_map(|ms| Some(Duration::from_millis(ms))),
        1 => Just(None),
    ]
}

pub(crate) fn play(shadow: &mut Shadow, ops: &[Op]) {
    for op in ops {
        let living = shadow.living();
        match op {
            Op::Fork(who, nature, fate) => {
                shadow.fork(living[who % living.len()], *nature, *fate);
            }
            Op::Exec(who, fate) => shadow.exec(living[who % living.len()], *fate),
            Op::Exit(who, code, fate) => {
                let who = living[who % living.len()];
                if who != shadow.main {
                    shadow.exit(who, WaitStatus::Exited(*code), *fate);
                }
            }
            Op::Round => shadow.round(),
            Op::Pass(ms) => shadow.pass(Duration::from_millis(u64::from(*ms))),
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Repair within a second; then the registry is the live set, and each gap counts what was lost.
    #[test]
    fn i10_after_a_repair_the_registry_is_the_live_set(ops in ops(true), seed: u64) {
        let mut shadow = Shadow::running(Settings::default(), seed);
        play(&mut shadow, &ops);
        // A loss is noticed as soon as anything is delivered again: a full ring has records in it.
        shadow.pass(Duration::from_millis(60));
        shadow.exec(shadow.main, Fate::default());
        shadow.pass(Duration::from_millis(300));
        shadow.assert_repaired();
    }

    #[test]
    fn i20_without_loss_every_record_is_written_and_no_count_is_declared(ops in ops(false), seed: u64) {
        let mut shadow = Shadow::running(Settings::default(), seed);
        play(&mut shadow, &ops);
        shadow.pass(Duration::from_millis(300));
        shadow.assert_repaired();
        prop_assert!(shadow.gaps.iter().all(|gap| gap.lost_fork + gap.lost_exec + gap.lost_exit == 0));
    }

    /// Whatever was lost and whoever resists: the end is told of an empty tree only.
    #[test]
    fn i08_a_stopped_run_is_over_only_when_its_tree_is_empty(
        ops in ops(true), seed: u64, main in nature(), last in fate(true), works: bool, hurry: bool,
        unread in 0..5u32, held in held(), silent: bool, bomb: bool,
    ) {
        let mut shadow = Shadow::running(Settings { grace: Duration::from_millis(30), ..Settings::default() }, seed);
        shadow.nature(shadow.main, main);
        shadow.cgroup_kill_works = works;
        (shadow.is_bomb, shadow.pids) = (bomb, if bomb { 60_000 } else { shadow.pids });
        play(&mut shadow, &ops);
        shadow.default_fate = last;
        shadow.unreadable = unread;
        shadow.is_held_for(held, silent);
        shadow.tell(Event::StopRequested(StopReason::OutputBudget));
        if hurry {
            shadow.tell(Event::Impatient);
        }
        shadow.pass(Duration::from_secs(5));
        let outcome = shadow.finished.as_ref().map(|summary| summary.outcome.clone());
        prop_assert_eq!(outcome, Some(Outcome::Stopped(StopReason::OutputBudget)));
        shadow.assert_repaired();
        shadow.assert_closed();
        let unseen = shadow.totals.missed + shadow.totals.live_full > 0;
        prop_assert_eq!(shadow.finished.as_ref().map(|summary| summary.proven), Some(!unseen));
    }

    #[test]
    fn i08_a_run_whose_main_process_ends_is_over_only_when_its_tree_is_empty(
        ops in ops(true), seed: u64, last in fate(true), wait: bool, unread in 0..5u32, held in held(),
        silent: bool,
    ) {
        let leftovers = if wait { Leftovers::Wait } else { Leftovers::Kill };
        let settings = Settings { grace: Duration::from_millis(30), leftovers, ..Settings::default() };
        let mut shadow = Shadow::running(settings, seed);
        play(&mut shadow, &ops);
        shadow.unreadable = unread;
        shadow.is_held_for(held, silent);
        shadow.exit(shadow.main, WaitStatus::Exited(3), last);
        shadow.pass(Duration::from_millis(100));
        if wait {
            for key in shadow.living() {
                prop_assert!(shadow.finished.is_none());
                shadow.exit(key, WaitStatus::Exited(0), last);
                shadow.pass(Duration::from_millis(3));
            }
        }
        // Whoever waits looks once in a second.
        shadow.pass(Duration::from_secs(if wait { 20 } else { 5 }));
        let end = shadow.finished.as_ref().map(|summary| (summary.outcome.clone(), summary.status));
        // Held for longer than the end waits, and its exit hook skipped: nobody knows, and nobody says that he does.
        let is_long = held.is_none_or(|held| held > Duration::from_millis(800));
        let unknown = Some((Outcome::Ended, None));
        if !(is_long && last.missed && end == unknown) {
            prop_assert_eq!(end, Some((Outcome::Ended, Some(WaitStatus::Exited(3)))));
        }
        shadow.assert_repaired();
        shadow.assert_closed();
    }

    /// Without the live set a run ends too, and its end is never told as proven.
    #[test]
    fn a_live_set_that_cannot_be_read_keeps_no_run_from_its_end(
        ops in ops(true), seed: u64, main in nature(), last in fate(true), stop: bool,
        wait: bool,
    ) {
        let mut shadow = Shadow::running(
            Settings {
                grace: Duration::from_millis(30),
                leftovers: if wait { Leftovers::Wait } else { Leftovers::Kill },
                ..Settings::default()
            },
            seed,
        );
        shadow.nature(shadow.main, main);
        play(&mut shadow, &ops);
        shadow.unreadable = u32::MAX;
        shadow.default_fate = last;
        if stop {
            shadow.tell(Event::StopRequested(StopReason::OutputBudget));
        } else {
            shadow.exit(shadow.main, WaitStatus::Exited(3), last);
            shadow.pass(Duration::from_millis(50));
            for key in if wait { shadow.living() } else { Vec::new() } {
                shadow.exit(key, WaitStatus::Exited(0), last);
            }
        }
        shadow.pass(Duration::from_secs(20));
        prop_assert_eq!(shadow.finished.as_ref().map(|summary| summary.proven), Some(false));
    }
}
