//! What a daemon does without being asked by a run: its heartbeat, a look at keeper and pins, what failed before, a reload.

use sd_notify::NotifyState;

use super::shell::Daemon;
use crate::config::Config;
use crate::kernel::pins;
use crate::run::Stage;
use crate::supervise::fleet::{FleetEvent, FleetSettings};

impl Daemon {
    /// Tells systemd, where it asked to be told, that the loop which drains the rings goes round, and what it does.
    pub(super) fn beat(&mut self) {
        for news in [self.store.news(), self.files.news()].into_iter().flatten() {
            match news {
                Ok(answers) => self.say(&answers),
                Err(silent) => self.trouble(&silent),
            }
        }
        let alive = self.fleet.records().filter(|record| !matches!(record.stage, Stage::Queued)).count();
        let waiting = self.fleet.records().count() - alive;
        let keeper = self.keeper.state().map_or_else(|_| "no keeper".to_owned(), |pid| format!("keeper {pid}"));
        let status = format!("{alive} runs, {waiting} wait for their turn; {keeper}");
        // Who does not hear it restarts us.
        let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }

    /// Says once in what the keeper is another than it would be started now; nothing is launched meanwhile.
    pub(super) fn compare_the_keeper(&mut self) {
        let differs = self.keeper.differs();
        if let Some(what) = &differs {
            self.trouble(what);
        }
        self.queue.push_back(FleetEvent::LaunchesHeld(differs.is_some() || self.unseen.is_some()));
    }

    pub(super) fn keeper_lost(&mut self) {
        if let Err(why) = self.keeper.state() {
            self.trouble(&format!("{why}; agents run on, nothing is launched or stopped until there is one"));
        }
        self.queue.push_back(FleetEvent::KeeperLost);
    }

    /// Looks whether the kernel side is pinned as it was: we hold it open and go on by it in any case, but a keeper
    /// proves by the pins alone, and the next daemon goes on by nothing else.
    pub(super) fn look_for_the_pins(&mut self) {
        let found = pins::check(&self.setup.config.host.pins, &self.tracing);
        let why = found.err().map(|error| {
            format!(
                "{error}; signals that need it as proof are refused, and what happens while no daemon runs is lost: \
                 start the daemon again"
            )
        });
        match (&self.unpinned, &why) {
            (None, Some(why)) => self.trouble(why),
            (Some(_), None) => self.say("the kernel side is pinned again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.unpinned = why;
    }

    /// What failed before is tried again.
    ///
    /// # Errors
    /// As [`Daemon::try_again`].
    pub(super) async fn again(&mut self) -> anyhow::Result<()> {
        self.keeper.look();
        self.give_up_waiting();
        self.discard_all().await;
        self.prove_again().await;
        self.read_again().await;
        self.thaw_again().await;
        self.try_again()
    }

    /// Tells once that we are ready, as soon as that is so.
    ///
    /// # Errors
    /// What telling reports.
    pub(super) fn tell_ready(&mut self) -> anyhow::Result<()> {
        if self.unseen.is_some() {
            return Ok(());
        }
        self.ready.take().map_or(Ok(()), |ready| ready())
    }

    /// Reads the configuration again: says what changes, and takes it up or keeps the old one.
    pub(super) fn reload(&mut self, reload: &mut impl FnMut() -> anyhow::Result<Config>) {
        let new = match reload() {
            Ok(new) => new,
            Err(error) => return self.trouble(&format!("reload: {error:#}; the old configuration stays")),
        };
        let changes = self.setup.config.difference(&new);
        if changes.is_empty() {
            self.say("reload: nothing changed");
        }
        for change in changes {
            self.say(&format!("reload: {change}"));
            self.note(|lines, clock| lines.told("config", change, clock));
        }
        self.setup.config = self.setup.config.reloaded(&new);
        self.keeper.set(&self.setup);
        self.compare_the_keeper();
        self.fleet.set(FleetSettings { max_agents: self.setup.config.host.max_agents });
        // More runs may be let in now.
        self.queue.push_back(FleetEvent::Woke);
    }
}
