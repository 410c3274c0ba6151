//! Random schedules of everything that can happen to a fleet: the shadow checks each step, and that nothing is
//! executed twice, lost, or left behind.

use std::time::Duration;

use proptest::prelude::*;

use super::shadow::World;
use super::{FleetEvent, FleetSettings};
use crate::model::WaitStatus;
use crate::run::{Limits, RunId};
use crate::supervise::Leftovers;

#[derive(Clone, Debug)]
enum Op {
    Submit,
    Stop(usize),
    Answer(u8),
    Settle,
    Pass(u16),
    Die(usize, u8),
    KillFrozen(usize),
    FailSaves(u8),
    FailPrepare,
    FailLaunch,
    FailRemovals(u8),
    LoseKeeper,
    FindKeeper,
    Crash,
    Reboot,
    WakeEarly,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => Just(Op::Submit),
        3 => any::<usize>().prop_map(Op::Stop),
        10 => (1..6u8).prop_map(Op::Answer),
        3 => Just(Op::Settle),
        4 => (0..3000u16).prop_map(Op::Pass),
        4 => (any::<usize>(), any::<u8>()).prop_map(|(who, code)| Op::Die(who, code)),
        1 => any::<usize>().prop_map(Op::KillFrozen),
        2 => (1..4u8).prop_map(Op::FailSaves),
        1 => Just(Op::FailPrepare),
        1 => Just(Op::FailLaunch),
        1 => (1..4u8).prop_map(Op::FailRemovals),
        2 => Just(Op::LoseKeeper),
        2 => Just(Op::FindKeeper),
        3 => Just(Op::Crash),
        1 => Just(Op::Reboot),
        1 => Just(Op::WakeEarly),
    ];
    prop::collection::vec(op, 0..120)
}

fn play(world: &mut World, op: &Op) {
    let known: Vec<RunId> = world.fleet.records().map(|record| record.id).collect();
    let pick = |who: usize| known.get(who.checked_rem(known.len())?).copied();
    match *op {
        Op::Submit => {
            world.submit();
        }
        Op::Stop(who) => pick(who).into_iter().for_each(|id| world.stop(id)),
        Op::Answer(count) => (0..count).for_each(|_| {
            world.answer();
        }),
        Op::Settle => world.settle(),
        Op::Pass(ms) => world.pass(Duration::from_millis(u64::from(ms))),
        Op::Die(who, code) => pick(who).into_iter().for_each(|id| world.die(id, WaitStatus::Exited(code))),
        Op::KillFrozen(who) => {
            // Root may kill what is frozen.
            let frozen = world.host.iter().filter(|(_, agent)| !agent.thawed).map(|(name, _)| *name);
            let frozen: Vec<_> = frozen.collect();
            if let Some(name) = who.checked_rem(frozen.len()).map(|at| frozen[at]) {
                world.end(name, crate::supervise::shadow::killed(9));
            }
        }
        Op::FailSaves(count) => world.faults.saves += u32::from(count),
        Op::FailPrepare => world.faults.prepares += 1,
        Op::FailLaunch => world.faults.launches += 1,
        Op::FailRemovals(count) => world.faults.removals += u32::from(count),
        Op::LoseKeeper => world.lose_keeper(),
        Op::FindKeeper => world.find_keeper(),
        Op::Crash => world.crash(),
        Op::Reboot => world.reboot(),
        Op::WakeEarly => world.tell(FleetEvent::Woke),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Over crashes of the daemon, losses of the keeper and of the host, failures of every step: no run executes
    /// twice, each accepted one ends once and as it did, none thaws before its birth is durable (I6), none is
    /// prepared before its intent is (I19), none is removed before its end is, at most so many live, no deadline
    /// moves (I11), nothing of another boot is touched, no live run is discarded.
    #[test]
    fn no_run_is_executed_twice_lost_or_left_behind(
        ops in ops(), max_agents in 1..4u32, deaf: bool, wait: bool, wall in prop::option::of(1..20u64),
    ) {
        let mut world = World::new(max_agents);
        world.deaf = deaf;
        world.leftovers = if wait { Leftovers::Wait } else { Leftovers::Kill };
        world.limits = Limits { wall: wall.map(Duration::from_secs), ..Limits::default() };
        for op in &ops {
            play(&mut world, op);
        }
        world.finish();
    }

    /// What a fleet may do can change at any time: what runs goes on, what waits starts once it may.
    #[test]
    fn fewer_or_more_agents_than_before_end_all_the_same(ops in ops(), narrow in 1..3u32) {
        let mut world = World::new(4);
        for (at, op) in ops.iter().enumerate() {
            play(&mut world, op);
            let max_agents = if at % 7 < 3 { narrow } else { 4 };
            world.fleet.set(FleetSettings { max_agents });
        }
        world.finish();
    }
}
