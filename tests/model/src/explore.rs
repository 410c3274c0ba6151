//! Explores a model, every state of it.

use std::collections::BTreeSet;

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use crate::check::Step;
use crate::state::{Act, Bad, Job, SignalModel, State};
use crate::tell;
use crate::world::AGENT;

const NEVER: [(&str, Bad); 5] = [
    ("a stranger that came after the last look is hit", Bad::Raced),
    ("a stranger that was taken for another is hit", Bad::Mistaken),
    ("a proof outlives its process unnoticed", Bad::Outlived),
    ("one that lives is told to have gone", Bad::GoneAlive),
    ("the keeper holds another as the main process", Bad::WrongMain),
];

impl Model for SignalModel {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, acts: &mut Vec<Act>) {
        self.acts(state, acts);
    }

    fn next_state(&self, last: &State, act: Act) -> Option<State> {
        let (next, _) = self.after(last, act);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER[0].0, |_, state: &State| state.bad != Some(NEVER[0].1)),
            Property::always(NEVER[1].0, |_, state: &State| state.bad != Some(NEVER[1].1)),
            Property::always(NEVER[2].0, |_, state: &State| state.bad != Some(NEVER[2].1)),
            Property::always(NEVER[3].0, |_, state: &State| state.bad != Some(NEVER[3].1)),
            Property::always(NEVER[4].0, |_, state: &State| state.bad != Some(NEVER[4].1)),
            Property::sometimes("a signal is about to be sent", |_, state: &State| match state.job {
                Job::Checks(check) => check.step == Step::Act && state.world.lives(AGENT),
                Job::Kills(who) => state.world.lives(who),
                Job::Idle | Job::Looks => false,
            }),
        ]
    }
}

/// A counterexample: the shortest way to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it leads to.
    pub bad: Bad,
    /// What it leads to, in words.
    pub what: &'static str,
    /// The steps, in words.
    pub steps: Vec<String>,
}

/// What was found in a model.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How many different states there are, all seen.
    pub states: usize,
    /// The longest way to one of them.
    pub depth: usize,
    /// What must never be and is, each by its shortest way.
    pub found: Vec<Found>,
    /// Whether the agent is about to be signalled in some state: the model does something.
    pub lively: bool,
}

/// Looks at every state that can be reached.
#[must_use]
pub fn explore(model: SignalModel) -> Outcome {
    let checker = model.checker().spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let found = NEVER.into_iter().filter(|(what, _)| discoveries.remove(what).is_some());
    let found = found.map(|(what, bad)| Found { bad, what, steps: tell::steps(model, shortest(model, what)) });
    let found = found.collect();
    let lively = discoveries.len() == 1;
    Outcome { states: checker.unique_state_count(), depth: checker.max_depth(), found, lively }
}

/// A shortest way to something that must never be; nothing more is looked for.
#[must_use]
pub fn counterexample(model: SignalModel) -> Option<Found> {
    let names = NEVER.map(|(what, _)| what);
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf(names.into())).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let (what, bad) = NEVER.into_iter().find(|(what, _)| discoveries.contains_key(what))?;
    Some(Found { bad, what, steps: tell::steps(model, shortest(model, what)) })
}

/// A shortest way to what is known to be found: the explorer gives the last one that it came upon.
fn shortest(model: SignalModel, what: &'static str) -> Vec<(State, Option<Act>)> {
    let mut best = Vec::new();
    let mut longest = usize::MAX;
    loop {
        let names = BTreeSet::from([what]);
        let checker = model.checker().finish_when(HasDiscoveries::AnyOf(names)).target_max_depth(longest);
        let Some(path) = checker.spawn_bfs().join().discovery(what) else { return best };
        best = path.into_vec();
        longest = best.len();
    }
}
