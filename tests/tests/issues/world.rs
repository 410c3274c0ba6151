//! A host with one repository of the fake GitHub, and agents that do what a script says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use agent_loop_tests::fake_github::FakeGitHub;
use agent_loop_tests::harness::{Daemon, Host};
use serde_json::Value;

/// What an agent does that does its work: one commit.
pub(crate) const WORKS: &str = "cat > /dev/null\necho \"work on $1, attempt $2\" >> work.txt\ngit add work.txt\n\
                                git commit --quiet -m \"work on $1\"\n";

/// A host, a forge and a script.
pub(crate) struct Scene {
    pub(crate) host: Host,
    pub(crate) forge: FakeGitHub,
}

/// How long a whole life may take in a build without optimisation, on a busy machine.
const LIFE: Duration = Duration::from_secs(180);

impl Scene {
    /// Agents run this script with the number of the issue and of the attempt.
    pub(crate) fn new(script: &str) -> Self {
        Self::with(script, "")
    }

    /// The same, with more settings after the repository's.
    pub(crate) fn with(script: &str, more: &str) -> Self {
        let scene = Self { host: Host::new(), forge: FakeGitHub::start() };
        scene.script(script);
        scene.configure(more);
        scene
    }

    pub(crate) fn configure(&self, more: &str) {
        let work = self.host.path("work");
        let script = self.host.path("agent.sh");
        let agent = format!(
            "user = \"nobody\"\nkind = \"command\"\ncommand = [\"/bin/sh\", {script:?}, \"{{number}}\", \"{{attempt}}\"]\n"
        );
        let repo = format!(
            "[[repo]]\nname = {:?}\napi = {:?}\ntoken_file = {:?}\nallowed = [\"alice\"]\npoll = \"1s\"\n{more}\n",
            self.forge.repository(),
            self.forge.api(),
            self.forge.token_file(),
        );
        self.host.configure(&format!("work_dir = {work:?}\nmax_agents = 4\n"), &agent, &repo);
    }

    /// Writes what agents do.
    pub(crate) fn script(&self, text: &str) {
        let path = self.host.path("agent.sh");
        fs::write(&path, format!("set -e\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn serving(&self) -> Daemon {
        self.host.serving()
    }

    /// Opens an issue that is ready.
    pub(crate) fn issue(&self, title: &str) -> u64 {
        self.forge.world().open_issue(title, "alice", &["State/Ready"])
    }

    /// The name of an issue.
    pub(crate) fn key(&self, number: u64) -> String {
        format!("{}#{number}", self.forge.repository())
    }

    /// The repository as people are shown it.
    pub(crate) fn repo(&self) -> Value {
        self.host.asked(["queue"])["repos"][0].clone()
    }

    /// The task of an issue as people are shown it.
    pub(crate) fn task(&self, number: u64) -> Option<Value> {
        let key = self.key(number);
        self.repo()["tasks"].as_array()?.iter().find(|task| task["issue"] == key.as_str()).cloned()
    }

    /// Waits for something in the life of a task.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begun.elapsed() > LIFE {
                let log = fs::read_to_string(self.host.path("serve.log")).unwrap_or_default();
                panic!("waiting for {what}: {:#}\n{log}\nheard {:#?}", self.repo(), self.tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn tail(&self) -> Vec<String> {
        let heard = self.forge.heard();
        let lines = heard.iter().rev().take(20).map(|it| format!("{} {} -> {:?}", it.method, it.path, it.status));
        lines.collect()
    }

    /// Waits until a task is in this state.
    pub(crate) fn in_state(&self, number: u64, state: &str) -> Value {
        self.until(&format!("{} to be {state}", self.key(number)), || {
            self.task(number).filter(|task| task["state"] == state)
        })
    }

    /// Waits until nothing of a task is left.
    pub(crate) fn over(&self, number: u64) {
        self.until(&format!("the end of {}", self.key(number)), || {
            let looked = !self.repo()["looked"].is_null();
            let closed = !self.forge.world().issues[&number].open;
            (looked && closed && self.task(number).is_none()).then_some(())
        });
    }

    /// The lines of the audit log of this kind.
    pub(crate) fn lines(&self, kind: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["kind"] == kind).collect()
    }

    /// All lines of the audit log.
    pub(crate) fn log(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        let mut segments: Vec<_> =
            fs::read_dir(self.host.path("log/audit/seg")).unwrap().map(|it| it.unwrap().path()).collect();
        segments.sort();
        for segment in segments {
            let text = fs::read_to_string(segment).unwrap();
            lines.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        }
        lines
    }
}
