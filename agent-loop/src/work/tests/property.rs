//! Random histories: lost answers, crashes, people and another host at every step (I13, I14, I15, I16, I18).

use proptest::prelude::*;

use super::shadow::{Fate, Host, World, says};
use crate::work::*;

/// How many decisions a history has.
const STEPS: usize = 400;

/// Choices in the order they are asked for; when they are used up, all goes well.
struct Tape(std::vec::IntoIter<u8>);

impl Tape {
    fn pick(&mut self, sides: u8) -> u8 {
        self.0.next().map_or(0, |byte| byte % sides)
    }
}

fn fate(tape: &mut Tape) -> Fate {
    match tape.pick(14) {
        8 => Fate::DoneUnheard,
        9 => Fate::Lost,
        10 => Fate::Limited,
        11 => Fate::CrashBefore,
        12 => Fate::CrashAfter,
        _ => Fate::Answered,
    }
}

/// Agents and checks go on; with a tape that is used up they succeed.
fn progress(world: &mut World, host: &mut Host, tape: &mut Tape) {
    let ended = match tape.pick(10) {
        0..=4 => RunEnd::Worked,
        5 => RunEnd::Failed("is_error".to_owned()),
        6 => RunEnd::Stopped("deadline".to_owned()),
        7 => RunEnd::WaitUntil(world.now.after(900)),
        8 => RunEnd::Infrastructure("no keeper".to_owned()),
        _ => return,
    };
    if let Some(run) = host.runs.values_mut().find(|run| **run == Run::Alive) {
        if ended == RunEnd::Worked {
            host.commit = Some(world.commit());
        }
        *run = Run::Over(ended);
    }
    let judged = match tape.pick(12) {
        0..=5 => Says::Success,
        6 | 7 => Says::Failed,
        8 => Says::Cancelled,
        9 => Says::Skipped,
        10 => Says::Unknown("new".to_owned()),
        _ => Says::Pending,
    };
    if let Some(head) = world.requests.iter().rev().find(|it| it.open).map(|it| it.head.clone()) {
        world.ci(&head).checks = vec![says("test", judged)];
    }
}

/// Somebody does something on the forge.
fn people(world: &mut World, tape: &mut Tape) {
    let act = tape.pick(60);
    let commit = world.commit();
    let request = world.requests.iter_mut().rev().find(|it| it.open);
    match (act, request) {
        (40, _) => world.open = false,
        (41 | 42, _) => drop(world.labels.remove("State/InProgress")),
        (43 | 44, _) => drop(world.labels.insert("State/Ready".to_owned())),
        (45, Some(request)) => (request.open, request.merged) = (false, Some(commit)),
        (46, Some(request)) => request.open = false,
        (47 | 48, Some(request)) => {
            request.head = commit.clone();
            world.remote = Some(commit);
        }
        (49, Some(request)) => request.mergeable = Mergeable::Unknown,
        (50, Some(request)) => request.mergeable = Mergeable::Conflict,
        (51 | 52, Some(request)) => request.mergeable = Mergeable::Yes,
        (53, Some(request)) => {
            let head = request.head.clone();
            world.ci(&head).approval = true;
        }
        (54, Some(request)) => {
            let head = request.head.clone();
            let ci = world.ci(&head);
            (ci.checks, ci.workflows) = (vec![], 0);
        }
        (55, _) => world.remote = None,
        (56, _) => world.now = world.now.after(3_700),
        _ => {}
    }
}

/// Takes troubles away, so that a history comes to its end.
fn calm(world: &mut World) {
    for request in world.requests.iter_mut().filter(|it| it.open) {
        request.mergeable = Mergeable::Yes;
    }
    let open: Vec<Sha> = world.requests.iter().filter(|it| it.open).map(|it| it.head.clone()).collect();
    for head in open {
        let ci = world.ci(&head);
        (ci.approval, ci.workflows, ci.checks) = (false, 1, vec![says("test", Says::Success)]);
    }
}

fn settled(task: &Task) -> bool {
    matches!(task.state, State::Cleaned | State::NeedsHuman(_))
}

fn play(tape: Vec<u8>) -> (World, [Host; 2]) {
    let mut tape = Tape(tape.into_iter());
    let mut world = World::new();
    let mut hosts = [Host::new("one"), Host::new("two")];
    for step in 0..STEPS {
        let turn = usize::from(tape.pick(5) == 4);
        let other_is_alive = hosts[1 - turn].is_alive();
        let fate = fate(&mut tape);
        world.step(&mut hosts[turn], other_is_alive, fate);
        people(&mut world, &mut tape);
        progress(&mut world, &mut hosts[turn], &mut tape);
        if step > STEPS / 2 {
            calm(&mut world);
        }
    }
    (world, hosts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i13_i14_i16_i18_hold_whatever_is_lost_and_whoever_acts(tape in proptest::collection::vec(any::<u8>(), 0..1_200)) {
        let (world, hosts) = play(tape);
        // At each write the shadow has checked what must hold; this is what must hold at the end.
        let statuses = world.comments.iter().filter(|it| it.mark == Mark::Status).count();
        prop_assert!(statuses <= 1, "{statuses} status comments");
        for mark in &world.made {
            let times = world.made.iter().filter(|it| *it == mark).count();
            prop_assert!(times == 1, "{mark:?} was posted {times} times");
        }
        prop_assert!(world.merges.len() <= 1, "{:?}", world.merges);
        prop_assert!(!hosts.iter().all(Host::is_alive), "two agents");
    }

    #[test]
    fn left_alone_every_task_comes_to_rest(tape in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (mut world, mut hosts) = play(tape);
        for _ in 0..1_500 {
            for turn in 0..2 {
                let other = hosts[1 - turn].is_alive();
                world.step(&mut hosts[turn], other, Fate::Answered);
                progress(&mut world, &mut hosts[turn], &mut Tape(vec![].into_iter()));
                calm(&mut world);
            }
        }
        for host in &hosts {
            prop_assert!(settled(&host.task), "{}: {:?}", host.name, host.task);
        }
    }
}
