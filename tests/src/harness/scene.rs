//! A host whose daemon takes issues of one repository of the fake GitHub, and agents that do what a script says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Daemon, Host, claude, host};
use crate::fake_github::FakeGitHub;
use crate::stand_in::StandIn;

/// What an agent does that does its work: one commit.
pub const WORKS: &str = "cat > /dev/null\necho \"work on $1, attempt $2\" >> \"work-$1.txt\"\ngit add \"work-$1.txt\"\n\
                                git commit --quiet -m \"work on $1\"\n";

/// A host, a forge and a script.
#[derive(Debug)]
pub struct Scene {
    /// The host.
    pub host: Host,
    /// The forge, which several hosts may share.
    pub forge: Arc<FakeGitHub>,
}

/// How long a whole life may take in a build without optimisation, on a busy machine.
const LIFE: Duration = Duration::from_secs(180);

impl Scene {
    /// Agents run this script with the number of the issue and of the attempt.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn new(script: &str) -> Self {
        Self::with(script, "")
    }

    /// The same, with more settings after the repository's.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn with(script: &str, more: &str) -> Self {
        Self::on(Arc::new(FakeGitHub::start()), script, more)
    }

    /// Another host of the same repository.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn on(forge: Arc<FakeGitHub>, script: &str, more: &str) -> Self {
        let scene = Self { host: Host::new(), forge };
        scene.script(script);
        scene.configure(more);
        scene
    }

    /// Writes the configuration, with more settings after the repository's.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn configure(&self, more: &str) {
        let script = self.host.path("agent.sh");
        // Where the script leaves what a test looks at.
        let left = self.host.path("agents");
        let agent = format!(
            "user = \"nobody\"\nkind = \"command\"\n\
             command = [\"/bin/sh\", {script:?}, \"{{number}}\", \"{{attempt}}\", {left:?}]\n"
        );
        self.configure_agent(&agent, more);
    }

    fn configure_agent(&self, agent: &str, more: &str) {
        let work = self.host.path("work");
        let repo = format!(
            "[[repo]]\nname = {:?}\napi = {:?}\ntoken_file = {:?}\nallowed = [\"alice\"]\npoll = \"1s\"\n\
             write_pause = \"10ms\"\n{more}\n",
            self.forge.repository(),
            self.forge.api(),
            self.forge.token_file(),
        );
        self.host.configure(&format!("work_dir = {work:?}\nmax_agents = 4\n"), agent, &repo);
    }

    /// Has the real `claude` work on issues, with a stand-in for the model.
    ///
    /// # Panics
    /// When there is no `claude`.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn use_claude(&mut self, stand_in: &StandIn) {
        let bin = self.host.path("bin");
        fs::create_dir(&bin).expect("a fresh directory");
        let from = claude().expect("claude was fetched");
        // Where the agents' user may reach it.
        host::copy_program(&from, &bin.join("claude"));
        let config = self.host.path("agents/claude");
        fs::create_dir(&config).expect("a fresh directory");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o777)).expect("our directory");
        let set = [
            ("ANTHROPIC_BASE_URL", stand_in.url()),
            ("ANTHROPIC_API_KEY", "any".to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            ("CLAUDE_CONFIG_DIR", config.display().to_string()),
            ("CLAUDE_CODE_TMPDIR", config.display().to_string()),
        ];
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).chain(["PATH"]).collect();
        let names = format!("{names:?}");
        for (name, value) in set {
            self.host.set_env(name, value);
        }
        let agent = format!(
            "user = \"nobody\"\nenv = {names}\ncommand = [{:?}, \"--allowedTools\", \"Bash\"]\n",
            bin.join("claude")
        );
        self.configure_agent(&agent, "");
    }

    /// Writes what agents do.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn script(&self, text: &str) {
        let path = self.host.path("agent.sh");
        fs::write(&path, format!("set -e\n{text}")).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// Starts a daemon and waits until it answers.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn serving(&self) -> Daemon {
        self.host.serving()
    }

    /// Waits for the end of a daemon that is to be killed at a boundary; whether it lives to the end of the task.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn lives(&self, daemon: &mut Daemon, number: u64) -> bool {
        let begun = Instant::now();
        loop {
            if daemon.ended() {
                return false;
            }
            let over = !self.forge.world().issues[&number].open
                && self.forge.world().at(&format!("refs/agent-loop/claims/{number}")).is_none();
            if over && self.host.ask(["queue"]).status.success() && self.task(number).is_none() {
                return true;
            }
            assert!(begun.elapsed() < LIFE, "a daemon neither ends nor comes to an end: {}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Opens an issue that is ready.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn issue(&self, title: &str) -> u64 {
        self.forge.world().open_issue(title, "alice", &["State/Ready"])
    }

    /// The name of an issue.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn key(&self, number: u64) -> String {
        format!("{}#{number}", self.forge.repository())
    }

    /// The repository as people are shown it.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn repo(&self) -> Value {
        self.host.asked(["queue"])["repos"][0].clone()
    }

    /// The task of an issue as people are shown it.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn task(&self, number: u64) -> Option<Value> {
        let key = self.key(number);
        self.repo()["tasks"].as_array()?.iter().find(|task| task["issue"] == key.as_str()).cloned()
    }

    /// Waits for something in the life of a task.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > LIFE {
                panic!("waiting for {what}: {:#}\n{}\nheard {:#?}", self.repo(), self.said(), self.tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for something in the life of a task, and fails as soon as anything is merged meanwhile.
    ///
    /// # Panics
    /// When it is.
    pub fn until_unmerged<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        self.until(what, || {
            let found = look();
            for (number, pull) in &self.forge.world().pulls {
                assert_eq!(pull.merged, None, "pull request {number} was merged before {what}");
            }
            found
        })
    }

    /// What the daemons of this host said.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn said(&self) -> String {
        let files = fs::read_dir(self.host.path("")).expect("ours").map(|it| it.expect("ours").path());
        let logs = files.filter(|path| path.extension().is_some_and(|it| it == "log"));
        logs.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    /// A file that an agent's script left.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn left(&self, name: &str) -> String {
        fs::read_to_string(self.host.path("agents").join(name)).unwrap_or_default()
    }

    /// The texts of comments of ours on an issue, oldest first.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn comments(&self, number: u64) -> Vec<String> {
        let world = self.forge.world();
        let ours = world.comments.values().filter(|it| it.author == world.login && it.issue == number);
        ours.map(|it| it.body.clone()).collect()
    }

    fn tail(&self) -> Vec<String> {
        let heard = self.forge.heard();
        let lines = heard.iter().rev().take(20).map(|it| format!("{} {} -> {:?}", it.method, it.path, it.status));
        lines.collect()
    }

    /// Waits until a task is in this state.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn in_state(&self, number: u64, state: &str) -> Value {
        self.until(&format!("{} to be {state}", self.key(number)), || {
            self.task(number).filter(|task| task["state"] == state)
        })
    }

    /// Waits until nothing of a task is left.
    ///
    /// # Panics
    /// When that cannot be.
    pub fn over(&self, number: u64) {
        self.until(&format!("the end of {}", self.key(number)), || {
            let looked = !self.repo()["looked"].is_null();
            let closed = !self.forge.world().issues[&number].open;
            (looked && closed && self.task(number).is_none()).then_some(())
        });
    }

    /// The lines of the audit log of this kind.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn lines(&self, kind: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["kind"] == kind).collect()
    }

    /// All lines of the audit log.
    ///
    /// # Panics
    /// When that cannot be.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        let mut segments: Vec<_> =
            fs::read_dir(self.host.path("log/audit/seg")).expect("ours").map(|it| it.expect("ours").path()).collect();
        segments.sort();
        for segment in segments {
            let text = fs::read_to_string(segment).expect("ours");
            lines.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        }
        lines
    }

    /// How many files of this host there are, and those of them that hold these bytes.
    ///
    /// # Panics
    /// When that cannot be looked at.
    #[must_use]
    pub fn files_with(&self, bytes: &[u8]) -> (usize, Vec<PathBuf>) {
        let (mut files, mut found) = (0, Vec::new());
        let mut dirs = vec![self.host.path("")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let kind = entry.file_type().expect("it has one");
                if kind.is_dir() {
                    dirs.push(entry.path());
                } else if kind.is_file() {
                    files += 1;
                    let content = fs::read(entry.path()).unwrap_or_default();
                    if content.windows(bytes.len()).any(|it| it == bytes) {
                        found.push(entry.path());
                    }
                }
            }
        }
        (files, found)
    }
}
