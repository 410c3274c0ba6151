//! A GitHub that remembers, on loopback: issues, pull requests, checks, and a real bare repository behind them.
//!
//! - [`FakeGitHub`] serves the API below `/api/v3`, as GitHub Enterprise does, and git below `/OWNER/NAME.git`
//! - [`World`] is what it remembers, and what people do there meanwhile
//! - [`Fault`] is what goes wrong, for one request each
//! - each request and each answer is checked against GitHub's own description (`tests/data/github`)
//!
//! Not inside: users' rights, webhooks, GraphQL. What it cannot do is answered by 501, and is recorded as wrong.

mod answers;
mod description;
mod faults;
mod git;
mod routes;
mod world;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use faults::{Answer, Deed, Fault, When};
pub use world::{Ci, Comment, Issue, Origin, Pull, World};

use crate::http::{Reply, Request};

/// The token that is accepted at first.
pub const TOKEN: &str = "ghp_FakeTokenThatMustNeverBeSeenAnywhere01";
const OWNER: &str = "octo-org";
const NAME: &str = "playground";

/// A request that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its method, in upper case.
    pub method: String,
    /// Its path with its query, as it came.
    pub path: String,
    /// Its path in the form of GitHub's description; empty for git and what is not known.
    pub template: String,
    /// Its body.
    pub body: Value,
    /// Whether it named a tag.
    pub conditional: bool,
    /// Whether it carried a credential.
    pub credential: bool,
    /// Its `user-agent`.
    pub agent: String,
    /// What was answered; `None` where nothing was.
    pub status: Option<u16>,
}

struct Shared {
    world: Mutex<World>,
    script: Mutex<faults::Script>,
    heard: Mutex<Vec<Heard>>,
    wrong: Mutex<Vec<String>>,
    closing: AtomicBool,
    /// Whom silent connections wait for.
    closed: (Mutex<bool>, Condvar),
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running service.
pub struct FakeGitHub {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
    token_file: tempfile::NamedTempFile,
}

impl std::fmt::Debug for FakeGitHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeGitHub").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FakeGitHub {
    /// Serves an empty repository on a free port of the loopback interface.
    ///
    /// # Panics
    /// When there is no loopback interface or no git.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(OWNER, NAME, TOKEN)),
            script: Mutex::default(),
            heard: Mutex::default(),
            wrong: Mutex::default(),
            closing: AtomicBool::new(false),
            closed: (Mutex::new(false), Condvar::new()),
        });
        let listening = thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&listener, &shared, address)
        });
        let token_file = tempfile::NamedTempFile::new().expect("a scratch file");
        let fake = Self { address, shared, listening: Some(listening), token_file };
        fake.write_token(TOKEN);
        fake
    }

    /// Its port on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The API.
    #[must_use]
    pub fn api(&self) -> String {
        format!("http://{}/api/v3", self.address)
    }

    /// The repository, `owner/name`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{OWNER}/{NAME}")
    }

    /// Where git pushes to.
    #[must_use]
    pub fn git_url(&self) -> String {
        format!("http://{}/{OWNER}/{NAME}.git", self.address)
    }

    /// A file that holds the token (mode 0600).
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.token_file.path().to_owned()
    }

    /// Puts another token into the file.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_token(&self, token: &str) {
        std::fs::write(self.token_file.path(), format!("{token}\n")).expect("writing a scratch file");
    }

    /// What it remembers; held, it answers nobody.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.shared.world)
    }

    /// Plays a fault once.
    pub fn play(&self, when: When, fault: Fault) {
        lock(&self.shared.script).play(when, fault);
    }

    /// The requests so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.shared.heard).clone()
    }

    /// The requests so far, and forgets them.
    #[must_use]
    pub fn take_heard(&self) -> Vec<Heard> {
        std::mem::take(&mut *lock(&self.shared.heard))
    }

    /// How often a method was asked for on paths that end so.
    #[must_use]
    pub fn count(&self, method: &str, template: &str) -> usize {
        let fits = |heard: &&Heard| heard.method == method && heard.template.ends_with(template);
        lock(&self.shared.heard).iter().filter(fits).count()
    }

    /// Every request and answer was as GitHub describes it, and every fault was played.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_valid(&self) {
        let wrong = lock(&self.shared.wrong).clone();
        assert!(wrong.is_empty(), "not as GitHub describes it: {wrong:#?}");
        let left = lock(&self.shared.script).left();
        assert!(left.is_empty(), "faults that were never played: {left:#?}");
    }

    /// What was not as GitHub describes it.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.shared.wrong).clone()
    }
}

impl Drop for FakeGitHub {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        *lock(&self.shared.closed.0) = true;
        self.shared.closed.1.notify_all();
        // Wakes the listener, so that it sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>, address: SocketAddr) {
    for stream in listener.incoming() {
        if shared.closing.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A connection that is opened ahead and says nothing must not keep others waiting.
        thread::spawn(move || match Request::read(&stream) {
            Ok(Some(request)) => {
                let out = shared.hear(&request, address);
                // Its asker may have gone away meanwhile.
                match out {
                    Out::Whole(reply) => drop(reply.write(&stream)),
                    Out::Half(reply) => {
                        let bytes = reply.bytes();
                        let half = bytes.get(..bytes.len() - reply.body.len() / 2 - 1).unwrap_or_default();
                        drop((&stream).write_all(half));
                    }
                    Out::Nothing => {}
                    Out::Silence => {
                        let (closed, told) = &shared.closed;
                        drop(told.wait_while(lock(closed), |closed| !*closed));
                    }
                }
            }
            Ok(None) => {}
            Err(error) => lock(&shared.wrong).push(format!("reading a request: {error}")),
        });
    }
}

/// What goes out.
enum Out {
    Whole(Reply),
    Half(Reply),
    Nothing,
    Silence,
}

impl Shared {
    fn hear(&self, request: &Request, address: SocketAddr) -> Out {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let at = {
            let mut heard = lock(&self.heard);
            heard.push(Heard {
                method: request.method.clone(),
                path: request.path.clone(),
                template: String::new(),
                body: serde_json::from_slice(&request.body).unwrap_or(Value::Null),
                conditional: request.header("if-none-match").is_some(),
                credential: request.header("authorization").is_some(),
                agent: request.header("user-agent").unwrap_or_default().to_owned(),
                status: None,
            });
            heard.len() - 1
        };
        let note = |status: Option<u16>, template: &str| {
            if let Some(heard) = lock(&self.heard).get_mut(at) {
                heard.status = status;
                template.clone_into(&mut heard.template);
            }
        };
        let wrong = |what: String| lock(&self.wrong).push(format!("{} {}: {what}", request.method, request.path));
        let Some(api) = path.strip_prefix("/api/v3") else {
            let reply = self.beside_the_api(request, path);
            note(Some(reply.code), "");
            return Out::Whole(reply);
        };
        let Some(operation) = description::get().operation(&request.method, api) else {
            wrong("there is no such operation".to_owned());
            let reply = routes::error(404, "Not Found");
            note(Some(404), "");
            return Out::Whole(reply);
        };
        note(None, &operation.template);
        let query: Vec<(String, String)> = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (description::decode(name), description::decode(value)))
            .collect();
        for what in description::get().request(&operation, &query, &request.body) {
            wrong(what);
        }
        let faults = lock(&self.script).take(&operation.method, &operation.template, request);
        let mut world = lock(&self.world);
        let (mut instead, mut done, mut after, mut changed) = (None, None, Vec::new(), Vec::new());
        let mut out: fn(Reply) -> Out = Out::Whole;
        for fault in faults {
            match fault {
                Fault::Before(deed) => deed(&mut world),
                Fault::Instead(Answer(reply)) => instead = Some(reply),
                Fault::Done(Answer(reply)) => done = Some(reply),
                Fault::Dropped { done } => {
                    out = |_| Out::Nothing;
                    instead = if done { instead } else { Some(Reply::new(500, "text/plain", "")) };
                }
                Fault::CutShort => out = Out::Half,
                Fault::Silent => {
                    note(None, &operation.template);
                    return Out::Silence;
                }
                Fault::After(deed) => after.push(deed),
                Fault::Changed(change) => changed.push(change),
            }
        }
        let asked = routes::Asked {
            operation: &operation,
            query: &query,
            body: serde_json::from_slice(&request.body).unwrap_or(Value::Null),
            url: format!("http://{address}{path}"),
        };
        let mut reply = match instead {
            Some(reply) => reply,
            None => {
                let mut reply = world.admit(request, &operation).unwrap_or_else(|| world.answer(&asked));
                if changed.is_empty() {
                    let body = serde_json::from_slice(&reply.body).ok();
                    let raw =
                        request.header("accept").is_some_and(|accept| accept.contains("raw")) && reply.code == 200;
                    if !raw {
                        let found = description::get().answer(&operation, reply.code, body.as_ref());
                        found.into_iter().for_each(|what| wrong(format!("answer {}: {what}", reply.code)));
                    }
                }
                for change in changed {
                    let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
                    change(&mut body);
                    reply.body = body.to_string().into_bytes();
                }
                done.unwrap_or(reply)
            }
        };
        for deed in after {
            deed(&mut world);
        }
        if reply.code == 200 && request.method == "GET" && operation.template != "/rate_limit" {
            reply = with_tag(reply, request.header("if-none-match"));
        }
        world.charge(&mut reply);
        drop(world);
        let out = out(reply.clone());
        note(matches!(out, Out::Whole(_)).then_some(reply.code), &operation.template);
        out
    }

    /// git, and the store of logs, which is another host at the real one.
    fn beside_the_api(&self, request: &Request, path: &str) -> Reply {
        let faults = lock(&self.script).take(&request.method.to_ascii_lowercase(), When::GIT, request);
        let mut world = lock(&self.world);
        for fault in faults {
            let told = format!("{fault:?} is not played for git");
            let Fault::Before(deed) = fault else {
                lock(&self.wrong).push(told);
                continue;
            };
            deed(&mut world);
        }
        if let Some(job) = path.strip_prefix("/store/") {
            if request.header("authorization").is_some() {
                lock(&self.wrong).push("a token was sent to the store of logs".to_owned());
            }
            return match job.parse().ok().and_then(|job: u64| world.logs.get(&job)) {
                Some(log) => Reply::new(200, "text/plain", log.clone()),
                None => Reply::new(404, "text/plain", ""),
            };
        }
        let basic = request.header("authorization").and_then(|it| it.strip_prefix("Basic "));
        let decoded = basic.and_then(|it| data_encoding::BASE64.decode(it.as_bytes()).ok());
        let text = decoded.map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default();
        let known = text.split_once(':').is_some_and(|(_, token)| world.tokens.contains(token));
        if !known {
            return Reply::new(401, "text/plain", "").with("www-authenticate", "Basic realm=\"GitHub\"");
        }
        world.serve_git(request)
    }
}

/// The tag of an answer, which stands for its body and its links; 304 where the asker knows it.
fn with_tag(reply: Reply, known: Option<&str>) -> Reply {
    let links = reply.headers.iter().filter(|(name, _)| name == "link").map(|(_, value)| value.as_str());
    let mut digest = Sha256::new();
    digest.update(&reply.body);
    links.for_each(|link| digest.update(link));
    let tag = format!("W/\"{}\"", data_encoding::HEXLOWER.encode(&digest.finalize()));
    if known == Some(tag.as_str()) {
        let headers = vec![("etag".to_owned(), tag)];
        return Reply { code: 304, headers, body: Vec::new() };
    }
    reply.with("etag", tag)
}

impl World {
    fn serve_git(&self, request: &Request) -> Reply {
        self.git.serve(request)
    }

    /// Who may ask at all; `None` for those.
    fn admit(&self, request: &Request, operation: &description::Operation) -> Option<Reply> {
        let token = request.header("authorization").and_then(|it| it.strip_prefix("Bearer ")).unwrap_or_default();
        if operation.template.starts_with("/app") {
            return (!self.is_app(token)).then(|| routes::error(401, "A JSON web token could not be decoded"));
        }
        if !self.tokens.contains(token) {
            return Some(routes::error(401, "Bad credentials"));
        }
        if self.remaining == 0 {
            return Some(routes::error(403, "API rate limit exceeded for user ID 1."));
        }
        None
    }

    /// Whether this is the word of the app, by GitHub's clock. Its signature is the client's own tests' matter.
    fn is_app(&self, token: &str) -> bool {
        let claims = token.split('.').nth(1).and_then(|it| data_encoding::BASE64URL_NOPAD.decode(it.as_bytes()).ok());
        let claims: Value = claims.and_then(|it| serde_json::from_slice(&it).ok()).unwrap_or(Value::Null);
        let (issued, ends) = (claims["iat"].as_i64().unwrap_or(i64::MAX), claims["exp"].as_i64().unwrap_or(0));
        let now = self.now();
        claims["iss"] == "42" && issued <= now && ends > now && ends - now <= 600
    }

    /// Counts an answer against the hourly limit, unless nothing was new; and tells the time.
    fn charge(&mut self, reply: &mut Reply) {
        if reply.code != 304 {
            self.remaining = self.remaining.saturating_sub(1);
        }
        let now = self.now();
        let headers = [
            ("date", answers::http_date(now)),
            ("x-ratelimit-limit", "5000".to_owned()),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", (now + 1_800).to_string()),
            ("x-ratelimit-resource", "core".to_owned()),
        ];
        for (name, value) in headers {
            if !reply.headers.iter().any(|(of, _)| of == name) {
                reply.headers.push((name.to_owned(), value));
            }
        }
    }
}
