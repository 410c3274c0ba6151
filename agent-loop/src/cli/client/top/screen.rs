//! What the console shows, and what a key changes of it. [pure]

use std::collections::VecDeque;

use crate::control::api::{QueueView, RunView, StatusView, TreeView};

/// How many of the latest events are held.
const EVENTS: usize = 200;

/// The daemon's answers at one time.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// The daemon.
    pub(super) status: StatusView,
    /// Its runs, the newest first.
    pub(super) runs: Vec<RunView>,
    /// Its repositories.
    pub(super) queue: QueueView,
    /// The processes of the chosen run, where one is chosen and lives.
    pub(super) tree: Option<TreeView>,
}

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    First,
    Last,
    /// Shows runs that are over as well, or no more.
    All,
    Quit,
}

/// What is to be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Another run is meant, or others are to be shown.
    Look,
    Quit,
}

/// The console.
#[derive(Clone, Debug, Default)]
pub(super) struct Screen {
    /// What was found last.
    pub(super) look: Option<Look>,
    /// Why there is nothing newer.
    pub(super) trouble: Option<String>,
    /// The latest events, the newest last, as lines of the log.
    pub(super) events: VecDeque<String>,
    /// The run that is meant.
    chosen: Option<String>,
    /// Whether runs that are over are shown.
    pub(super) all: bool,
}

impl Screen {
    /// The run that is meant, by its id.
    pub(super) fn chosen(&self) -> Option<&str> {
        self.chosen.as_deref()
    }

    /// Where it stands among the runs.
    pub(super) fn place(&self) -> Option<usize> {
        let runs = &self.look.as_ref()?.runs;
        runs.iter().position(|run| Some(&run.run) == self.chosen.as_ref())
    }

    /// Takes what was found, or why nothing was: what was found before stays on the screen, marked as old.
    pub(super) fn take(&mut self, look: Result<Look, String>) {
        match look {
            Ok(look) => {
                self.trouble = None;
                self.look = Some(look);
                // A run that is gone from the list gives its place to the first.
                if self.place().is_none() {
                    self.choose(0);
                }
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    /// Takes a line of the log.
    pub(super) fn event(&mut self, line: String) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(line);
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: Key) -> Option<Wish> {
        let last = self.look.as_ref().map_or(0, |look| look.runs.len().saturating_sub(1));
        let place = self.place().unwrap_or(0);
        match key {
            Key::Quit => return Some(Wish::Quit),
            Key::All => self.all = !self.all,
            Key::Up => self.choose(place.saturating_sub(1)),
            Key::Down => self.choose((place + 1).min(last)),
            Key::First => self.choose(0),
            Key::Last => self.choose(last),
        }
        Some(Wish::Look)
    }

    fn choose(&mut self, place: usize) {
        let Some(look) = &mut self.look else { return };
        self.chosen = look.runs.get(place).map(|run| run.run.clone());
        // Another run's processes are not shown under its name.
        if look.tree.as_ref().map(|tree| &tree.run) != self.chosen.as_ref() {
            look.tree = None;
        }
    }
}
