//! A daemon that only talks: the real control socket with a script behind it, in a thread of the test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use agent_loop::control::api::{
    Answer, Ask, Caller, EventFeed, KillView, LogFiles, Problem, Question, RunView, StatusView, TreeView,
};
use agent_loop::control::feed::Lines;
use agent_loop::control::server::{Access, Server};
use tokio::sync::{mpsc, oneshot};

/// What the daemon says, and what it was asked.
#[derive(Debug)]
pub struct Script {
    /// Every question so far and who asked.
    pub asked: Vec<(Ask, Caller)>,
    /// The answer to every question, where there is one.
    pub problem: Option<Problem>,
    /// Its runs.
    pub runs: Vec<RunView>,
    /// The processes of its runs.
    pub trees: BTreeMap<String, TreeView>,
    /// Where the output of its runs is, and whether they go on.
    pub output: Option<LogFiles>,
    /// Events of the past.
    pub recent: Vec<String>,
    /// Events to come.
    pub events: Lines,
    /// What a run that is started becomes.
    pub started: RunView,
}

/// The daemon; dropped, it ends and its socket is gone.
#[derive(Debug)]
pub struct FakeDaemon {
    socket: PathBuf,
    script: Arc<Mutex<Script>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    /// Starts it on this socket; its script is prepared before anybody can ask.
    ///
    /// # Panics
    /// When the socket cannot be bound.
    #[must_use]
    pub fn start(socket: &Path, access: Access, prepare: impl FnOnce(&mut Script)) -> Self {
        let mut script = Script {
            asked: Vec::new(),
            problem: None,
            runs: Vec::new(),
            trees: BTreeMap::new(),
            output: None,
            recent: Vec::new(),
            events: Lines::new(64, 1 << 20),
            started: RunView::default(),
        };
        prepare(&mut script);
        let script = Arc::new(Mutex::new(script));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (path, held) = (socket.to_owned(), Arc::clone(&script));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(&path, access).await.expect("the socket is bound");
                ready.send(()).expect("somebody waits");
                let (questions, inbox) = mpsc::channel(16);
                tokio::select! {
                    () = server.serve(questions) => {}
                    () = answer(inbox, &held) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("the daemon is up");
        Self { socket: socket.to_owned(), script, stop: Some(stop), thread: Some(thread) }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its script, to be read and changed.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Ask> {
        self.script().asked.iter().map(|(ask, _)| ask.clone()).collect()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn answer(mut inbox: mpsc::Receiver<Question>, script: &Mutex<Script>) {
    while let Some(Question { ask, from, reply }) = inbox.recv().await {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        script.asked.push((ask.clone(), from));
        let says = match &script.problem {
            Some(problem) => Err(problem.clone()),
            None => script.says(ask),
        };
        drop(reply.send(says));
    }
}

impl Script {
    fn says(&mut self, ask: Ask) -> Result<Answer, Problem> {
        let unknown = |run: &str| Problem::NotFound(format!("there is no run {run}"));
        Ok(match ask {
            Ask::Status => Answer::Status(status()),
            Ask::Runs { all, .. } => {
                Answer::Runs(self.runs.iter().filter(|run| all || run.state != "ended").cloned().collect())
            }
            Ask::Run(run) => {
                let found = self.runs.iter().find(|view| view.run == run).cloned();
                Answer::Run(Box::new(found.ok_or_else(|| unknown(&run))?))
            }
            Ask::Tree(run) => Answer::Tree(self.trees.get(&run).cloned().ok_or_else(|| unknown(&run))?),
            Ask::Logs(run) => Answer::Logs(self.output.clone().ok_or_else(|| unknown(&run))?),
            Ask::Events => Answer::Events(EventFeed {
                recent: self.recent.iter().map(|line| line.as_str().into()).collect(),
                live: self.events.follow(),
            }),
            Ask::Issues(_) | Ask::Within(_) => return Err(Problem::Conflict("no repository is configured".to_owned())),
            Ask::Start(_) => {
                self.runs.insert(0, self.started.clone());
                Answer::Started { run: self.started.run.clone() }
            }
            Ask::Kill { run, dry_run, .. } => {
                let tree = self.trees.get(&run).ok_or_else(|| unknown(&run))?;
                let (processes, state) = (tree.processes.clone(), "running".to_owned());
                Answer::Killing(KillView { run, state, processes, dry_run })
            }
        })
    }
}

fn status() -> StatusView {
    StatusView {
        version: "0.1.0".to_owned(),
        pid: std::process::id(),
        backend: "ebpf".to_owned(),
        degraded: Vec::new(),
        keeper: Ok(1),
        since: "2026-11-22T20:00:00Z".to_owned(),
        runs: BTreeMap::from([("running".to_owned(), 1)]),
        max_agents: 4,
        observed: Vec::new(),
        lost: 0,
        log: agent_loop::control::api::LogView::default(),
        forges: Vec::new(),
    }
}
