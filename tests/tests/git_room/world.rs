//! A room, a forge, and an agent of another user.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use agent_loop::forge::{Branch, Credential, Sha};
use agent_loop::git::{
    Author, GitError, Pushed, Repository, TakeLimits, Taken, clone_argv, refresh_argv, remove_argv, take_argv,
    unlock_argv,
};
use agent_loop_tests::fake_github::{FakeGitHub, TOKEN};
use tempfile::TempDir;

/// The user that agents of these tests are.
pub const NOBODY: u32 = 65_534;

pub fn sha(text: &str) -> Sha {
    text.parse().expect("the id of a commit")
}

pub fn branch(name: &str) -> Branch {
    name.parse().expect("a branch")
}

pub fn credential() -> Credential {
    Credential { user: "x-access-token".to_owned(), password: TOKEN.to_owned().into() }
}

/// The absolute path of a program.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|it| it.is_file()).expect("it is installed")
}

/// A room, its forge and one agent.
pub struct Room {
    pub fake: FakeGitHub,
    pub repository: Repository,
    pub agent: Agent,
    pub scratch: TempDir,
}

impl Room {
    pub async fn open() -> Self {
        Self::with_git(&program("git")).await
    }

    /// With this program as the git of the room; the agent has the host's.
    pub async fn with_git(git: &Path) -> Self {
        let fake = FakeGitHub::start();
        let url = fake.git_url();
        Self::by(fake, url, git).await
    }

    /// With another address of the forge, such as that of a [`Between`].
    pub async fn at(fake: FakeGitHub, url: String) -> Self {
        Self::by(fake, url, &program("git")).await
    }

    async fn by(fake: FakeGitHub, url: String, git: &Path) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        // The agent has to come to its own part of it.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711)).expect("our own");
        let repository = Repository::open(&scratch.path().join("room"), git, url).await;
        fs::DirBuilder::new().mode(0o711).create(scratch.path().join("gifts")).expect("a fresh directory");
        let agent = Agent::new(&scratch.path().join("agent"));
        Self { fake, repository: repository.expect("a fresh place"), agent, scratch }
    }

    pub async fn fetch(&self, name: &str) -> Result<Option<Sha>, GitError> {
        self.repository.fetch(&branch(name), &credential()).await
    }

    /// Fetches, gives, and lets the agent clone; returns what it was given.
    pub async fn prepare(&self) -> Sha {
        let main = self.fetch("main").await.expect("the forge answers").expect("it has a main");
        let bundle = self.give(&main, &main).await;
        let author = Author { name: "An Agent".to_owned(), email: "agent@example.com".to_owned() };
        let clone =
            clone_argv(&program("git"), &bundle, &self.agent.clone_dir(), &branch("issue-1-fix"), Some(&author));
        self.agent.run(&clone, &self.agent.home()).expect_success();
        main
    }

    async fn give(&self, at: &Sha, base: &Sha) -> PathBuf {
        let bundle = self.gifts().join("given.bundle");
        let given =
            self.repository.give(&branch("issue-1-fix"), at, &branch("main"), base, &bundle, Some(NOBODY)).await;
        given.expect("both are here");
        let stat = fs::metadata(&bundle).expect("it was written");
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (NOBODY, 0o400), "only its reader reads it");
        bundle
    }

    /// Where what is given lies: ours, and the agent passes through.
    pub fn gifts(&self) -> PathBuf {
        self.scratch.path().join("gifts")
    }

    pub async fn refresh(&self, at: &Sha, base: &Sha) {
        let bundle = self.give(at, base).await;
        let dir = self.agent.clone_dir();
        let argv = refresh_argv(&program("git"), &bundle, &dir, &branch("issue-1-fix"), &branch("main"));
        self.agent.run(&argv, &self.agent.home()).expect_success();
    }

    pub fn empty_clone(&self) {
        let dir = self.agent.clone_dir();
        self.agent.run(&unlock_argv(&program("chmod"), &dir), &self.agent.home());
        self.agent.run(&remove_argv(&program("find"), &dir), &self.agent.home()).expect_success();
    }

    /// Where the keeper would put the agent's output.
    pub fn bundle(&self) -> PathBuf {
        self.scratch.path().join("taken.bundle")
    }

    /// Runs what takes the agent's commits out, as the agent; its output goes where the keeper would put it.
    pub fn draw(&self, since: &Sha) -> Output {
        let argv = take_argv(&program("git"), &self.agent.clone_dir(), &branch("issue-1-fix"), since);
        let output = self.agent.run(&argv, &self.agent.home());
        fs::write(self.bundle(), &output.stdout).expect("a scratch file");
        output
    }

    pub async fn take(&self, since: &Sha) -> Result<Taken, GitError> {
        self.take_within(since, TakeLimits::default()).await
    }

    pub async fn take_within(&self, since: &Sha, limits: TakeLimits) -> Result<Taken, GitError> {
        self.draw(since).expect_success();
        self.take_file(&self.bundle(), since, limits).await
    }

    pub async fn take_file(&self, file: &Path, since: &Sha, limits: TakeLimits) -> Result<Taken, GitError> {
        self.repository.take(file, &branch("issue-1-fix"), since, limits).await
    }

    pub async fn push(&self, head: &Sha, expect: Option<&Sha>) -> Result<Pushed, GitError> {
        self.repository.push(&branch("issue-1-fix"), head, expect, &credential()).await
    }

    /// No quarantine is left, and no file of a pack that is half there.
    pub fn nothing_is_left(&self) {
        let place = self.repository.dir().parent().expect("it is in its place");
        let names = fs::read_dir(place).expect("it is ours").map(|it| it.expect("an entry").file_name());
        let names: Vec<OsString> = names.collect();
        assert_eq!(names, ["repository.git"], "nothing else is in its place");
        let packs = fs::read_dir(self.repository.dir().join("objects/pack")).expect("it has packs");
        let odd = packs.map(|it| it.expect("an entry").file_name()).find(|name| name.to_string_lossy().contains("tmp"));
        assert_eq!(odd, None);
    }

    /// Whether our repository holds an object.
    pub fn holds(&self, object: &str) -> bool {
        let mut git = Command::new(program("git"));
        git.arg("--git-dir").arg(self.repository.dir()).args(["cat-file", "-e", object]);
        git.stderr(Stdio::null()).status().expect("git is here").success()
    }
}

/// An agent: another user, with a home and a clone of its own.
pub struct Agent {
    home: PathBuf,
}

impl Agent {
    fn new(home: &Path) -> Self {
        fs::create_dir(home).expect("a fresh directory");
        let it = Self { home: home.to_owned() };
        fs::create_dir(it.clone_dir()).expect("a fresh directory");
        for dir in [it.home(), it.clone_dir()] {
            chown(&dir, Some(NOBODY), Some(NOBODY)).expect("we are root");
        }
        it
    }

    pub fn home(&self) -> PathBuf {
        self.home.clone()
    }

    pub fn clone_dir(&self) -> PathBuf {
        self.home.join("clone")
    }

    /// Runs a command as the agent.
    pub fn run(&self, argv: &[OsString], dir: &Path) -> Output {
        let (name, args) = argv.split_first().expect("a command");
        let mut command = Command::new(name);
        command.args(args).current_dir(dir).uid(NOBODY).gid(NOBODY).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.home);
        command.env("GIT_CONFIG_NOSYSTEM", "1").output().expect("it starts")
    }

    /// Runs git in the clone; it has to succeed.
    pub fn must(&self, args: &[&str]) -> String {
        let argv: Vec<OsString> =
            [program("git").into_os_string()].into_iter().chain(args.iter().map(Into::into)).collect();
        let output = self.run(&argv, &self.clone_dir());
        output.expect_success();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a shell script in the clone; it has to succeed.
    pub fn sh(&self, script: &str) -> String {
        let argv: Vec<OsString> = ["/bin/sh", "-euc", script].map(Into::into).to_vec();
        let output = self.run(&argv, &self.clone_dir());
        output.expect_success();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Commits a file.
    pub fn commit(&self, file: &str, text: &str) -> Sha {
        fs::write(self.clone_dir().join(file), text).expect("we are root");
        chown(self.clone_dir().join(file), Some(NOBODY), Some(NOBODY)).expect("we are root");
        self.must(&["add", "--", file]);
        self.must(&["commit", "--quiet", "--message", "a change"]);
        sha(&self.must(&["rev-parse", "HEAD"]))
    }
}

pub trait Succeeded {
    fn expect_success(&self);
}

impl Succeeded for Output {
    fn expect_success(&self) {
        assert!(self.status.success(), "{}: {}", self.status, String::from_utf8_lossy(&self.stderr));
    }
}

/// What stands between git and the forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everything is handed on.
    Pass,
    /// A request to write is heard whole and never answered.
    DropWrites,
    /// A request to write is done, and its answer is lost.
    LoseAnswers,
    /// A request to write is held until it is let go.
    HoldWrites,
    /// Everything is answered by this.
    Answer(&'static str),
}

/// A proxy on loopback that breaks what it is told to.
pub struct Between {
    address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    held: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
}

impl Between {
    pub fn start(to: &str, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let to = to.strip_prefix("http://").and_then(|it| it.split('/').next()).unwrap_or_default().to_owned();
        let it = Self {
            address: listener.local_addr().expect("it is bound"),
            rule: Arc::new(Mutex::new(rule)),
            held: Arc::default(),
            heard: Arc::default(),
        };
        let (rule, held, heard) = (Arc::clone(&it.rule), Arc::clone(&it.held), Arc::clone(&it.heard));
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (rule, held, heard, to) = (Arc::clone(&rule), Arc::clone(&held), Arc::clone(&heard), to.clone());
                thread::spawn(move || {
                    heard.fetch_add(1, Ordering::SeqCst);
                    hand_on(stream, &to, &rule, &held)
                });
            }
        });
        it
    }

    /// An address below it.
    pub fn url(&self, of: &str) -> String {
        let path = of.strip_prefix("http://").and_then(|it| it.split_once('/')).map_or("", |(_, path)| path);
        format!("http://{}/{path}", self.address)
    }

    pub fn set(&self, rule: Rule) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = rule;
    }

    pub fn holds(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// How many connections there were.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

fn hand_on(mut client: TcpStream, to: &str, rule: &Mutex<Rule>, held: &AtomicBool) {
    let now = || *rule.lock().unwrap_or_else(PoisonError::into_inner);
    let mut request = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let read = client.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend_from_slice(&buffer[..read]);
        if whole(&request) {
            break;
        }
    }
    let writes = request.starts_with(b"POST") && request.windows(16).any(|it| it == b"git-receive-pack");
    match now() {
        Rule::DropWrites if writes => return,
        Rule::Answer(text) => {
            let _ = client.write_all(text.as_bytes());
            return;
        }
        Rule::HoldWrites if writes => {
            held.store(true, Ordering::SeqCst);
            while now() == Rule::HoldWrites {
                thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        Rule::Pass | Rule::DropWrites | Rule::LoseAnswers | Rule::HoldWrites => {}
    }
    let Ok(mut server) = TcpStream::connect(to) else { return };
    let _ = server.write_all(&request);
    let mut answer = Vec::new();
    let _ = server.read_to_end(&mut answer);
    if !(writes && now() == Rule::LoseAnswers) {
        let _ = client.write_all(&answer);
    }
}

/// Whether a request is there with its body.
fn whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|it| it == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if head.contains("transfer-encoding: chunked") {
        return request.ends_with(b"0\r\n\r\n");
    }
    request.len() >= end + 4 + length.unwrap_or(0)
}

/// A file that is not there, to be made by somebody who should not.
pub fn open_to_all(dir: &Path) {
    fs::create_dir_all(dir).expect("a scratch directory");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("our own");
    drop(File::open(dir).expect("it is there"));
}
