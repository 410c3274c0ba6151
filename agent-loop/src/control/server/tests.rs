//! The server as clients find it: a task stands in for the daemon's shell.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::*;
use crate::control::api::{
    Answer, Ask, EventFeed, IssueAsk, KillRequest, KillView, LogFiles, LogView, MissedView, Problem, Question,
    QueueView, RepoVerb, RepoView, RunView, StartRequest, StatusView, StoryView, TaskVerb, TaskView, TickView,
    TreeView,
};
use crate::control::client::{Client, ClientError, OutputStream};
use crate::control::feed::Lines;

const RUN: &str = "01K9ABCDEFGHJKMNPQRSTVWXYZ";

/// How long a test waits for a fact before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn test(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.expect("within patience") });
}

/// What the stand-in says to a question; `None` keeps the asker waiting.
type Says = Option<Result<Answer, Problem>>;

struct Daemon {
    dir: TempDir,
    asked: Arc<Mutex<Vec<(Ask, Caller)>>>,
    tasks: [AbortHandle; 2],
}

impl Daemon {
    async fn new(says: impl Fn(&Ask) -> Says + Send + 'static) -> Self {
        Self::with(Limits::default(), || 0, says).await
    }

    /// With limits, and with every client taken for the user that `uid` says.
    async fn with(limits: Limits, uid: fn() -> u32, says: impl Fn(&Ask) -> Says + Send + 'static) -> Self {
        PEER.with(|peer| peer.set(uid));
        let dir = tempfile::tempdir().expect("a directory");
        let access = Access { group: None, owner: None };
        let mut server = Server::bind(&dir.path().join("socket"), access).await.expect("bound").with_limits(limits);
        server.access.owner = Some(OWNER);
        server.peer = |_| Ok(PEER.with(std::cell::Cell::get)());
        let (questions, mut inbox) = mpsc::channel::<Question>(1);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let shell = tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Some(Question { ask, from, reply }) = inbox.recv().await {
                let says = says(&ask);
                heard.lock().expect("whole").push((ask, from));
                match says {
                    Some(answer) => drop(reply.send(answer)),
                    None => waiting.push(reply),
                }
            }
        });
        let serving = tokio::spawn(server.serve(questions));
        Self { dir, asked, tasks: [shell.abort_handle(), serving.abort_handle()] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client(&self) -> Client {
        Client::new(self.path("socket"))
    }

    fn asked(&self) -> Vec<Ask> {
        self.asked.lock().expect("whole").iter().map(|(ask, _)| ask.clone()).collect()
    }

    /// Sends bytes and leaves the connection open.
    async fn send(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path("socket")).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    /// Sends bytes and reads to the end: the status, the head in small letters, the body.
    async fn raw(&self, request: &str) -> (u16, String, String) {
        let mut stream = UnixStream::connect(self.path("socket")).await.expect("connected");
        // Whoever is refused early may find the connection closed while it still writes.
        let _ = stream.write_all(request.as_bytes()).await;
        read(stream).await
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, String, String) {
        self.raw(&format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

const OWNER: u32 = 4242;

thread_local! {
    /// Who the clients of this test are; every test has a thread of its own.
    static PEER: std::cell::Cell<fn() -> u32> = const { std::cell::Cell::new(|| 0) };
}

async fn read(mut stream: UnixStream) -> (u16, String, String) {
    let mut answer = Vec::new();
    // What is reset after an answer was sent early has the answer all the same.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// The code of an error object, which has a sentence too.
fn code(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    assert!(value["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{body}");
    value["error"]["code"].as_str().expect("a code").to_owned()
}

async fn eventually(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if fact().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("waited for {what}");
}

fn status_view() -> StatusView {
    StatusView {
        version: "1.2.3".to_owned(),
        pid: 7,
        backend: "ebpf".to_owned(),
        degraded: vec!["no \"memory\" controller".to_owned()],
        keeper: Ok(6),
        since: "2026-11-22T20:00:00.5Z".to_owned(),
        runs: BTreeMap::from([("running".to_owned(), 2), ("queued".to_owned(), 1), ("pid 4711".to_owned(), 9)]),
        max_agents: 4,
        observed: Vec::new(),
        lost: 5,
        log: LogView { durable: 4_812, signed: 4_800, checkpoint_age_ms: Some(2_100) },
        forges: Vec::new(),
    }
}

/// Answers every question with the least there is.
fn all(ask: &Ask) -> Says {
    Some(Ok(match ask {
        Ask::Status => Answer::Status(status_view()),
        Ask::Runs { .. } => Answer::Runs(vec![RunView { run: RUN.to_owned(), ..RunView::default() }]),
        Ask::Run(run) => Answer::Run(Box::new(RunView { run: run.clone(), ..RunView::default() })),
        Ask::Tree(run) => Answer::Tree(TreeView { run: run.clone(), processes: Vec::new() }),
        Ask::Logs(_) => Answer::Logs(LogFiles { stdout: "/nowhere".into(), stderr: "/nowhere".into(), open: false }),
        Ask::Events => Answer::Events(EventFeed {
            recent: vec!["{\"seq\":1}".into(), "{\"seq\":2}".into()],
            live: Lines::new(1, 1_000).follow(),
        }),
        Ask::Start(_) => Answer::Started { run: RUN.to_owned() },
        Ask::Issues(IssueAsk::Queue) => Answer::Queue(QueueView::default()),
        Ask::Issues(IssueAsk::Story(issue)) => {
            Answer::Story(Box::new(StoryView { issue: issue.to_string(), ..StoryView::default() }))
        }
        Ask::Issues(IssueAsk::Act(issue, _)) => {
            Answer::Task(Box::new(TaskView { issue: issue.to_string(), ..TaskView::default() }))
        }
        Ask::Issues(IssueAsk::Steer(repo, _)) => {
            Answer::Repo(Box::new(RepoView { repo: repo.to_string(), ..RepoView::default() }))
        }
        Ask::Issues(IssueAsk::Tick { dry_run }) => Answer::Tick(TickView { dry_run: *dry_run, ..TickView::default() }),
        Ask::Within(_) => panic!("no path leads there"),
        Ask::Kill { run, dry_run, .. } => Answer::Killing(KillView {
            run: run.clone(),
            state: "running".to_owned(),
            processes: Vec::new(),
            dry_run: *dry_run,
        }),
    }))
}

#[test]
fn every_route_asks_its_question_and_gives_its_view() {
    test(async {
        let daemon = Daemon::new(all).await;
        let run = |rest: &str| format!("/v1/runs/{RUN}{rest}");
        let start = r#"{"argv":["true"],"limit":"1h"}"#;
        let wish = StartRequest { argv: vec!["true".to_owned()], limit: Some("1h".to_owned()), ..Default::default() };
        let kill = |dry_run| Ask::Kill { run: RUN.to_owned(), reason: "r".to_owned(), dry_run };
        let retry = Ask::Issues(IssueAsk::Act("o/r#7".parse().expect("an issue"), TaskVerb::Retry));
        let pause = Ask::Issues(IssueAsk::Steer("o/r".parse().expect("a repository"), RepoVerb::Pause));
        let tick = |dry_run| Ask::Issues(IssueAsk::Tick { dry_run });
        let rows: Vec<(String, Option<&str>, Ask, u16, &str)> = vec![
            ("/v1/status".into(), None, Ask::Status, 200, "{\"version\":\"1.2.3\""),
            ("/metrics".into(), None, Ask::Status, 200, "# TYPE"),
            ("/v1/runs".into(), None, Ask::Runs { all: false, limit: 100 }, 200, "{\"runs\":[{"),
            ("/v1/runs?all=true&limit=5".into(), None, Ask::Runs { all: true, limit: 5 }, 200, "{\"runs\":[{"),
            ("/v1/runs?limit=9999999".into(), None, Ask::Runs { all: false, limit: MOST_RUNS }, 200, "{\"runs\":[{"),
            (run(""), None, Ask::Run(RUN.into()), 200, "{\"run\":\"01K9"),
            (run("").to_lowercase(), None, Ask::Run(RUN.into()), 200, "{\"run\":\"01K9"),
            (run("/tree"), None, Ask::Tree(RUN.into()), 200, "{\"run\":\"01K9"),
            (run("/logs"), None, Ask::Logs(RUN.into()), 200, ""),
            (run("/logs?stream=stderr&from=3"), None, Ask::Logs(RUN.into()), 200, ""),
            ("/v1/runs".into(), Some(start), Ask::Start(Box::new(wish)), 201, "{\"run\":\"01K9"),
            (
                "/v1/tasks/o/r/7".into(),
                None,
                Ask::Issues(IssueAsk::Story("o/r#7".parse().expect("an issue"))),
                200,
                "{\"issue\":\"o/r#7\"",
            ),
            ("/v1/queue".into(), None, Ask::Issues(IssueAsk::Queue), 200, "{\"repos\":[]}"),
            ("/v1/tasks".into(), Some(r#"{"issue":"o/r#7","verb":"retry"}"#), retry, 200, "{\"issue\":\"o/r#7\""),
            ("/v1/repos".into(), Some(r#"{"repo":"o/r","verb":"pause"}"#), pause, 200, "{\"repo\":\"o/r\""),
            ("/v1/tick".into(), Some("{}"), tick(false), 200, "{\"dry_run\":false"),
            ("/v1/tick".into(), Some(r#"{"dry_run":true}"#), tick(true), 200, "{\"dry_run\":true"),
            (run("/kill"), Some(r#"{"reason":"r"}"#), kill(false), 200, "{\"run\":\"01K9"),
            (run("/kill"), Some(r#"{"reason":"r","dry_run":true}"#), kill(true), 200, "{\"run\":\"01K9"),
        ];
        for (path, body, ask, status, begin) in rows {
            let (got, head, text) = match body {
                None => daemon.get(&path).await,
                Some(body) => daemon.post(&path, body).await,
            };
            assert_eq!(got, status, "{path}: {text}");
            assert_eq!(daemon.asked().last(), Some(&ask), "{path}");
            assert!(text.starts_with(begin), "{path}: {text}");
            assert!(head.contains("connection: close"), "{path}: one request for each connection: {head}");
        }
        let (status, head, text) = daemon.get("/v1/events").await;
        assert_eq!((status, daemon.asked().last()), (200, Some(&Ask::Events)));
        assert!(head.contains("application/x-ndjson"), "{head}");
        assert!(text.contains("{\"seq\":1}\n") && text.contains("{\"seq\":2}\n"), "{text}");
    });
}

#[test]
fn every_problem_has_its_status_and_its_words() {
    type Row = (fn(String) -> Problem, u16, &'static str);
    let problems: [Row; 6] = [
        (Problem::Bad, 400, "bad_request"),
        (Problem::Forbidden, 403, "forbidden"),
        (Problem::NotFound, 404, "not_found"),
        (Problem::Conflict, 409, "conflict"),
        (Problem::TooMany, 429, "too_many"),
        (Problem::Unavailable, 503, "unavailable"),
    ];
    test(async {
        for (problem, status, word) in problems {
            let daemon = Daemon::new(move |_| Some(Err(problem("a sentence of the daemon".to_owned())))).await;
            let (got, _, body) = daemon.get("/v1/status").await;
            assert_eq!((got, code(&body).as_str()), (status, word));
            match daemon.client().status().await {
                Err(ClientError::Answered { status: got, code, message }) => {
                    assert_eq!((got, code.as_str(), message.as_str()), (status, word, "a sentence of the daemon"));
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn what_makes_no_sense_is_an_error_object_and_reaches_nobody() {
    test(async {
        let daemon = Daemon::new(all).await;
        let run = |rest: &str| format!("/v1/runs/{RUN}{rest}");
        for path in [
            "/v1/runs/4711",
            "/v1/runs/4711/tree",
            "/v1/runs/%2e%2e",
            "/v1/runs?all=perhaps",
            "/v1/runs?limit=-1",
            "/v1/runs?al=true",
            "/v1/events?follow=1",
            &run("/logs?stream=stdin"),
            &run("/logs?from=x"),
        ] {
            let (status, _, body) = daemon.get(path).await;
            assert_eq!((status, code(&body).as_str()), (400, "bad_request"), "{path}");
        }
        for path in ["/", "/v2/status", "/v1/status/", "/v1/runs/", "/v1/pids/1"] {
            let (status, _, body) = daemon.get(path).await;
            assert_eq!((status, code(&body).as_str()), (404, "not_found"), "{path}");
        }
        for (path, body) in [
            ("/v1/runs", "{"),
            ("/v1/runs", "{}"),
            ("/v1/runs", r#"{"argv":[]}"#),
            ("/v1/runs", r#"{"argv":[""]}"#),
            ("/v1/runs", r#"{"argv":["a\u0000b"]}"#),
            ("/v1/runs", r#"{"argv":["a"],"pid":1}"#),
            ("/v1/runs", r#"{"argv":["a"],"env":[["a=b","c"]]}"#),
            ("/v1/runs", r#"{"argv":["a"],"cwd":"here"}"#),
            (&run("/kill"), "{}"),
            (&run("/kill"), r#"{"reason":" "}"#),
            (&run("/kill"), r#"{"reason":"two\nlines"}"#),
            ("/v1/runs/4711/kill", r#"{"reason":"a number"}"#),
        ] {
            let (status, _, text) = daemon.post(path, body).await;
            assert_eq!((status, code(&text).as_str()), (400, "bad_request"), "{path} {body}");
        }
        for (path, body) in [("/v1/status", "{}"), ("/metrics", "")] {
            let (status, _, text) = daemon.post(path, body).await;
            assert_eq!((status, code(&text).as_str()), (405, "wrong_method"), "{path}");
        }
        assert_eq!(daemon.get(&run("/kill")).await.0, 405, "a kill is no question of a browser");
        assert_eq!(daemon.asked(), []);
    });
}

#[test]
fn an_answer_to_another_question_is_a_defect_not_an_answer() {
    test(async {
        let daemon = Daemon::new(|_| Some(Ok(Answer::Started { run: RUN.to_owned() }))).await;
        for path in ["/v1/status", "/v1/events", "/metrics"] {
            let (status, _, body) = daemon.get(path).await;
            assert_eq!((status, code(&body).as_str()), (500, "internal"), "{path}");
        }
    });
}

#[test]
fn who_may_only_read_is_refused_before_a_byte_of_the_body() {
    test(async {
        let daemon = Daemon::with(Limits::default(), || 1000, all).await;
        for path in ["/v1/runs".to_owned(), format!("/v1/runs/{RUN}/kill")] {
            // The body is announced and never sent.
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n");
            let (status, _, body) = daemon.raw(&request).await;
            assert_eq!((status, code(&body).as_str()), (403, "forbidden"), "{path}");
            assert!(body.contains("user 1000 may look"), "{body}");
        }
        assert_eq!(daemon.asked(), []);
        assert_eq!(daemon.get("/v1/status").await.0, 200);
        let reader = Caller { uid: 1000, pid: None, cgroup: None, may_write: false };
        assert_eq!(daemon.asked.lock().expect("whole")[0].1, reader);
    });
}

#[test]
fn root_and_the_owner_may_write() {
    test(async {
        for uid in [|| 0, || OWNER] {
            let daemon = Daemon::with(Limits::default(), uid, all).await;
            let (status, _, body) = daemon.post("/v1/runs", r#"{"argv":["true"]}"#).await;
            assert_eq!(status, 201, "{body}");
            let asked = daemon.asked.lock().expect("whole")[0].1.clone();
            let ours = fs::read_to_string("/proc/self/cgroup").expect("it has one");
            let ours = ours.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned);
            assert_eq!((asked.uid, asked.pid, asked.may_write), (uid(), Some(std::process::id()), true));
            // Before Linux 6.5 no cgroup is proven to be that of who asked.
            assert!(asked.cgroup.is_none() || asked.cgroup == ours, "{asked}");
        }
    });
    let nobody = Access { group: Some(5), owner: None };
    assert!(nobody.may_write(0) && !nobody.may_write(5) && !nobody.may_write(1000));
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    test(async {
        let daemon = Daemon::new(all).await;
        let fits = format!(r#"{{"argv":["{}"]}}"#, "a".repeat(200 << 10));
        assert_eq!(daemon.post("/v1/runs", &fits).await.0, 201);
        let long = format!(r#"{{"argv":["{}"]}}"#, "a".repeat(300 << 10));
        let (status, _, body) = daemon.post("/v1/runs", &long).await;
        assert_eq!((status, code(&body).as_str()), (413, "too_large"));
        let chunks = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
        let head = "POST /v1/runs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let (status, _, body) = daemon.raw(&format!("{head}{chunks}")).await;
        assert_eq!((status, code(&body).as_str()), (413, "too_large"));
        assert_eq!(daemon.asked().len(), 1);
    });
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    test(async {
        let daemon = Daemon::new(all).await;
        let long = format!("GET /v1/status HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(40 << 10));
        assert_eq!(daemon.raw(&long).await.0, 431);
        let many: String = (0..200).map(|n| format!("h{n}: v\r\n")).collect();
        assert_eq!(daemon.raw(&format!("GET /v1/status HTTP/1.1\r\n{many}\r\n")).await.0, 431);
        assert_eq!(daemon.asked(), []);
    });
}

#[test]
fn a_request_that_comes_too_slowly_is_hung_up_on() {
    test(async {
        let limits = Limits { request: Duration::from_millis(50), ..Limits::default() };
        let daemon = Daemon::with(limits, || 0, all).await;
        for begin in ["", "GET /v1/sta", "GET /v1/status HTTP/1.1\r\nhost: x\r\n"] {
            let mut stream = daemon.send(begin).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{begin:?}: {}", String::from_utf8_lossy(&answer));
        }
        let begin = daemon.send("POST /v1/runs HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{").await;
        let (status, _, body) = read(begin).await;
        assert_eq!((status, code(&body).as_str()), (408, "too_slow"));
        assert_eq!(daemon.asked(), []);
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_answered_for() {
    test(async {
        let limits = Limits { answer: Duration::from_millis(50), ..Limits::default() };
        let daemon = Daemon::with(limits, || 0, |_| None).await;
        let (status, _, body) = daemon.get("/v1/status").await;
        assert_eq!((status, code(&body).as_str()), (503, "unavailable"));
        assert!(body.contains("did not answer in time"), "{body}");
        daemon.tasks[0].abort();
        eventually("the daemon's end", async || daemon.get("/v1/status").await.2.contains("stopping")).await;
        assert_eq!(daemon.get("/v1/status").await.0, 503);
    });
}

#[test]
fn one_client_more_than_there_are_places_is_told_and_a_place_that_is_left_is_given_on() {
    test(async {
        let lines = Lines::new(4, 1 << 20);
        let sender = lines.clone();
        let daemon = Daemon::new(move |ask| {
            if *ask == Ask::Events {
                return Some(Ok(Answer::Events(EventFeed { recent: Vec::new(), live: sender.follow() })));
            }
            all(ask)
        });
        let daemon = daemon.await;
        let mut clients = Vec::new();
        for _ in 0..64 {
            clients.push(daemon.send("GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await);
        }
        eventually("64 readers", async || lines.followers() == 64).await;
        let (status, _, body) = daemon.get("/v1/status").await;
        assert_eq!((status, code(&body).as_str()), (503, "unavailable"));
        assert!(body.contains("too many clients"), "{body}");
        // A hundred at once: those beyond the ones that are told are hung up on, and nobody waits.
        let mut crowd = Vec::new();
        for _ in 0..36 {
            crowd.push(UnixStream::connect(daemon.path("socket")).await.expect("connected"));
        }
        drop(crowd);
        clients.pop();
        eventually("a place", async || daemon.client().status().await.is_ok()).await;
        assert_eq!(lines.followers(), 63, "whoever left is no reader any more");
    });
}

#[test]
fn readers_cannot_keep_the_owner_from_stopping_a_run() {
    test(async {
        let lines = Lines::new(4, 1 << 20);
        let sender = lines.clone();
        let says = move |ask: &Ask| {
            if *ask == Ask::Events {
                return Some(Ok(Answer::Events(EventFeed { recent: Vec::new(), live: sender.follow() })));
            }
            all(ask)
        };
        let daemon = Daemon::with(Limits::default(), || 1000, says).await;
        let mut readers = Vec::new();
        for _ in 0..56 {
            readers.push(daemon.send("GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await);
        }
        eventually("56 readers", async || lines.followers() == 56).await;
        assert_eq!(daemon.get("/v1/status").await.0, 503, "no reader more");
        PEER.with(|peer| peer.set(|| OWNER));
        let (status, _, body) = daemon.post(&format!("/v1/runs/{RUN}/kill"), r#"{"reason":"r"}"#).await;
        assert_eq!(status, 200, "{body}");
    });
}

#[test]
fn who_follows_gets_the_latest_lines_and_each_new_one() {
    test(async {
        let lines = Lines::new(4, 1 << 20);
        let sender = lines.clone();
        let feed = move |_: &Ask| {
            let feed = EventFeed { recent: vec!["old".into()], live: sender.follow() };
            Some(Ok(Answer::Events(feed)))
        };
        let daemon = Daemon::new(feed).await;
        let mut pieces = daemon.client().events(true).await.expect("an answer");
        assert_eq!(pieces.next().await.expect("a piece").as_deref(), Some(b"old\n".as_slice()));
        lines.send("new".into());
        assert_eq!(pieces.next().await.expect("a piece").as_deref(), Some(b"new\n".as_slice()));
        let mut past = daemon.client().events(false).await.expect("an answer");
        assert_eq!(past.next().await.expect("a piece").as_deref(), Some(b"old\n".as_slice()));
        assert_eq!(past.next().await.expect("the end"), None);
    });
}

#[test]
fn i12_a_reader_that_stops_reading_holds_up_nobody_and_learns_how_much_it_missed() {
    const LINES: usize = 2000;
    test(async {
        let lines = Lines::new(32, 1 << 20);
        let sender = lines.clone();
        let daemon = Daemon::new(move |ask| {
            if *ask == Ask::Events {
                return Some(Ok(Answer::Events(EventFeed { recent: Vec::new(), live: sender.follow() })));
            }
            all(ask)
        });
        let daemon = daemon.await;
        let mut slow = daemon.send("GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut quick = daemon.client().events(true).await.expect("an answer");
        eventually("both", async || lines.followers() == 2).await;
        let long = "x".repeat(4096);
        for number in 0..LINES {
            lines.send(format!("{number} {long}").into());
            let mut got = Vec::new();
            while !got.ends_with(b"\n") {
                got.extend_from_slice(&quick.next().await.expect("it goes on").expect("a piece"));
            }
            assert!(got.starts_with(format!("{number} ").as_bytes()), "the quick one has every line at once");
        }
        assert!(daemon.client().status().await.is_ok());
        let mut all = String::new();
        slow.read_to_string(&mut all).await.expect("what there is, and an end");
        assert!(all.ends_with("\r\n0\r\n\r\n"), "the answer is whole");
        let received = all.matches(&long).count();
        let last = all.lines().find(|line| line.contains(MissedView::KIND)).expect("it is told");
        let missed: MissedView = serde_json::from_str(last).expect("its form");
        assert!(received > 0 && missed.lines > 0, "{received} {missed:?}");
        assert_eq!(received as u64 + missed.lines, LINES as u64);
    });
}

#[test]
fn a_reader_that_never_reads_again_is_hung_up_on() {
    test(async {
        let lines = Lines::new(32, 1 << 20);
        let sender = lines.clone();
        let says = move |_: &Ask| {
            let feed = EventFeed { recent: Vec::new(), live: sender.follow() };
            Some(Ok(Answer::Events(feed)))
        };
        let limits = Limits { stall: Duration::from_millis(50), ..Limits::default() };
        let daemon = Daemon::with(limits, || 0, says).await;
        let silent = daemon.send("GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await;
        eventually("the reader", async || lines.followers() == 1).await;
        let long: Arc<str> = "x".repeat(4096).into();
        eventually("the end of the reader", async || {
            lines.send(Arc::clone(&long));
            lines.followers() == 0
        })
        .await;
        drop(silent);
    });
}

/// A run that goes on until `open` is off, and where its output is.
struct Written {
    daemon: Daemon,
    stdout: PathBuf,
    stderr: PathBuf,
    open: Arc<AtomicBool>,
    /// Holds the files.
    _dir: TempDir,
}

async fn written(content: &[u8]) -> Written {
    let dir = tempfile::tempdir().expect("a directory");
    let (stdout, stderr) = (dir.path().join("out"), dir.path().join("err"));
    fs::write(&stdout, content).expect("written");
    let open = Arc::new(AtomicBool::new(true));
    let (files, switch) = ((stdout.clone(), stderr.clone()), Arc::clone(&open));
    let says = move |_: &Ask| {
        let (stdout, stderr) = files.clone();
        Some(Ok(Answer::Logs(LogFiles { stdout, stderr, open: switch.load(Ordering::SeqCst) })))
    };
    let limits = Limits { poll: Duration::from_millis(1), ..Limits::default() };
    Written { daemon: Daemon::with(limits, || 0, says).await, stdout, stderr, open, _dir: dir }
}

async fn whole(client: &Client, stream: OutputStream, follow: bool, from: u64) -> Vec<u8> {
    let mut pieces = client.logs(RUN, stream, follow, from).await.expect("an answer");
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await.expect("it goes on") {
        all.extend_from_slice(&piece);
    }
    all
}

#[test]
fn output_is_given_byte_for_byte_from_anywhere() {
    test(async {
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let run = written(&content).await;
        let client = run.daemon.client();
        for from in [0, 1, 65_536, 299_999, 300_000, 300_001, u64::MAX / 2] {
            let at = usize::try_from(from).unwrap_or(usize::MAX).min(content.len());
            assert!(whole(&client, OutputStream::Stdout, false, from).await == content[at..], "from {from}");
        }
        assert!(whole(&client, OutputStream::Stderr, false, 0).await.is_empty(), "there is no file yet");
    });
}

#[test]
fn who_follows_output_gets_what_comes_until_the_run_is_over() {
    test(async {
        let run = written(b"first ").await;
        let client = run.daemon.client();
        let mut pieces = client.logs(RUN, OutputStream::Stdout, true, 0).await.expect("an answer");
        assert_eq!(pieces.next().await.expect("it goes on").as_deref(), Some(b"first ".as_slice()));
        let mut late = client.logs(RUN, OutputStream::Stderr, true, 0).await.expect("an answer");
        fs::write(&run.stderr, "late").expect("written");
        assert_eq!(late.next().await.expect("it goes on").as_deref(), Some(b"late".as_slice()));
        let mut file = fs::OpenOptions::new().append(true).open(&run.stdout).expect("there");
        file.write_all(b"second ").expect("written");
        assert_eq!(pieces.next().await.expect("it goes on").as_deref(), Some(b"second ".as_slice()));
        // What was written before the run is said to be over is part of it.
        file.write_all(b"last").expect("written");
        run.open.store(false, Ordering::SeqCst);
        assert_eq!(pieces.next().await.expect("it goes on").as_deref(), Some(b"last".as_slice()));
        assert_eq!(pieces.next().await.expect("the end"), None);
        assert_eq!(late.next().await.expect("the end"), None);
    });
}

#[test]
fn output_that_cannot_be_read_on_is_not_taken_for_its_end() {
    test(async {
        let run = written(b"first").await;
        let client = run.daemon.client();
        let mut followed = client.logs(RUN, OutputStream::Stdout, true, 0).await.expect("an answer");
        assert_eq!(followed.next().await.expect("it goes on").as_deref(), Some(b"first".as_slice()));
        run.daemon.tasks[0].abort();
        assert!(matches!(followed.next().await, Err(ClientError::Broken { .. })));
        let run = written(b"first").await;
        symlink(&run.stdout, &run.stderr).expect("made");
        let mut elsewhere = run.daemon.client().logs(RUN, OutputStream::Stderr, false, 0).await.expect("an answer");
        assert!(matches!(elsewhere.next().await, Err(ClientError::Broken { .. })), "a link is not followed");
    });
}

#[test]
fn the_socket_has_its_mode_and_goes_with_its_server() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run").join("socket");
        let group = nix::unistd::getegid().as_raw();
        for (access, mode) in [(Access::default(), 0o600), (Access { group: Some(group), owner: None }, 0o660)] {
            let server = Server::bind(&path, access).await.expect("bound");
            let meta = fs::symlink_metadata(&path).expect("there");
            assert_eq!(meta.mode() & 0o7777, mode);
            let parent = fs::metadata(dir.path().join("run")).expect("there");
            assert_eq!(parent.mode() & 0o022, 0, "nobody else writes there");
            assert_eq!(fs::read_dir(dir.path().join("run")).expect("there").count(), 1, "nothing else is left there");
            drop(server);
            assert!(!path.exists());
        }
    });
}

#[test]
fn a_socket_is_taken_over_only_from_the_dead() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let first = Server::bind(&path, Access::default()).await.expect("bound");
        let second = Server::bind(&path, Access::default()).await;
        assert!(matches!(&second, Err(BindError::AlreadyRunning(at)) if *at == path), "{second:?}");
        drop(first);
        // As SIGKILL leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let third = Server::bind(&path, Access::default()).await.expect("bound");
        // Somebody else's socket in its place is not removed.
        fs::remove_file(&path).expect("there");
        let other = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        drop(third);
        assert!(path.exists());
        drop(other);
    });
}

#[test]
fn a_place_that_others_can_change_is_refused() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("made");
        for (what, mode) in [(&inner, 0o775), (&inner, 0o1777), (&dir.path().to_owned(), 0o777)] {
            fs::set_permissions(what, fs::Permissions::from_mode(mode)).expect("ours");
            let bound = Server::bind(&inner.join("socket"), Access::default()).await;
            assert!(matches!(&bound, Err(BindError::Unsafe(_))), "{mode:o}: {bound:?}");
            fs::set_permissions(what, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        fs::write(inner.join("file"), "mine").expect("written");
        let bound = Server::bind(&inner.join("file"), Access::default()).await;
        assert!(matches!(&bound, Err(BindError::Unsafe(_))), "{bound:?}");
        assert_eq!(fs::read(inner.join("file")).expect("there"), b"mine");
        assert!(matches!(Server::bind("socket".as_ref(), Access::default()).await, Err(BindError::Unsafe(_))));
        assert!(Server::bind(&inner.join("socket"), Access::default()).await.is_ok());
    });
}

#[test]
fn a_client_says_why_it_has_no_answer() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let client = Client::new(&path);
        assert!(matches!(client.status().await, Err(ClientError::NotRunning(_))));
        let deaf = UnixListener::bind(&path).expect("bound");
        let hang_up = tokio::spawn(async move { deaf.accept().await.map(drop) });
        assert!(matches!(client.status().await, Err(ClientError::Broken { .. })));
        let _ = hang_up.await;
        assert!(matches!(client.status().await, Err(ClientError::NotRunning(_))));
        let wish = KillRequest { reason: "r".to_owned(), dry_run: false };
        let said = client.kill(RUN, &wish).await.expect_err("nobody is there").to_string();
        assert!(said.contains("agent-loop serve"), "{said}");
    });
}

#[test]
fn metrics_have_few_labels_and_no_process() {
    let text = metrics::text(&status_view(), None);
    assert_eq!(text, include_str!("metrics.golden"), "written was:\n{text}");
    assert!(!text.contains("4711"));
}

#[test]
fn metrics_of_issues_are_told_by_repository_and_state_and_by_nothing_else() {
    let task = |number: u32, state: &str| TaskView {
        issue: format!("o/r#{number}"),
        state: state.to_owned(),
        branch: format!("branch-{number}"),
        ..TaskView::default()
    };
    let repo = RepoView {
        repo: "o/r".to_owned(),
        requests: 41,
        not_modified: 40,
        remaining: Some(4959),
        tasks: vec![task(4711, "ci_wait"), task(4712, "ci_wait"), task(4713, "of_a_later_version")],
        waiting: vec!["o/r#4714".to_owned()],
        ..RepoView::default()
    };
    let text = metrics::text(&status_view(), Some(&QueueView { repos: vec![repo] }));
    for line in [
        "agent_loop_tasks{repo=\"o/r\",state=\"ci_wait\"} 2",
        "agent_loop_tasks{repo=\"o/r\",state=\"running\"} 0",
        "agent_loop_tasks{repo=\"o/r\",state=\"other\"} 1",
        "agent_loop_issues_waiting{repo=\"o/r\"} 1",
        "agent_loop_repo_trouble{repo=\"o/r\"} 0",
        "agent_loop_forge_requests_total{repo=\"o/r\"} 41",
        "agent_loop_forge_not_modified_total{repo=\"o/r\"} 40",
        "agent_loop_forge_remaining{repo=\"o/r\"} 4959",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("r#47") && !text.contains("branch"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    // Each family is described once.
    let mut types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let all = types.len();
    types.dedup();
    assert_eq!(types.len(), all);
}
