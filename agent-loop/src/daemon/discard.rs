//! What is nobody's is killed and removed: by the keeper, which proves that it is this cgroup.

use super::keeper::{done, signal_result};
use super::shell::{Daemon, Discard};
use super::tree::Root;
use crate::event::SignalResult;
use crate::keeper::process::protocol::{Descriptors, Reply, Request};

impl Daemon {
    /// Tries to discard everything that is to be.
    pub(super) async fn discard_all(&mut self) {
        if !self.keeper.is_up() {
            return;
        }
        for discard in std::mem::take(&mut self.discards) {
            match self.discard(&discard).await {
                Ok(()) => {
                    self.forget_run(discard.cgroup);
                    self.tell(&serde_json::json!({ "kind": "host.discarded", "cgroup": discard.name.to_string() }));
                }
                // Told by its own line in status; tried again until it is gone.
                Err(_) => self.discards.push(discard),
            }
        }
    }

    /// Kills and removes a cgroup of the root; the keeper proves that it is this one.
    pub(super) async fn discard(&mut self, discard: &Discard) -> Result<(), String> {
        let run = discard.name.to_string();
        if self.try_remove(&run).await.is_ok() {
            return Ok(());
        }
        let fds = Descriptors::default();
        let adopt = Request::Adopt { run: run.clone(), cgroup: discard.cgroup.0, main: None, fds, output_bytes: None };
        // Refused where it is held already; where it is neither held nor there, nothing is left to be discarded.
        let adopted = self.ask(adopt, &[]).await?.reply;
        let there = |root: &Root| root.id(discard.name).map_or(true, |id| id == Some(discard.cgroup));
        if matches!(adopted, Reply::Refused { errno: Some(libc::ENOENT), .. }) && !self.root.as_ref().is_some_and(there)
        {
            return Ok(());
        }
        let killed = done(self.ask(Request::Kill { run: run.clone() }, &[]).await);
        for pid in self.members(discard) {
            let request = Request::SignalMember { run: run.clone(), pid, signal: 9 };
            match signal_result(self.ask(request, &[]).await) {
                SignalResult::Sent(_) | SignalResult::Gone | SignalResult::Refused(_) => {}
            }
        }
        self.try_remove(&run).await.map_err(|why| match killed {
            Ok(()) => why,
            Err(kill) => format!("{kill}; {why}"),
        })
    }

    async fn try_remove(&mut self, run: &str) -> Result<(), String> {
        done(self.ask(Request::Remove { run: run.to_owned() }, &[]).await)
    }

    fn members(&self, discard: &Discard) -> Vec<u32> {
        let root = self.root.as_ref();
        let cgroup = root.and_then(|root| root.cgroup(discard.name, discard.cgroup).ok());
        cgroup.and_then(|cgroup| cgroup.procs().ok()).map(|procs| procs.pids.into_iter().collect()).unwrap_or_default()
    }
}
