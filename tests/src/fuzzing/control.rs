//! What a client of the control socket can send.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use agent_loop::control::api::{Ask, KillRequest, Problem, StartRequest};
use agent_loop::control::server::Access;
use agent_loop::run::RunId;

use crate::fake_daemon::FakeDaemon;
use crate::harness::PATIENCE;

/// The first byte says what the rest is: a body of either kind, a request in parts, or the bytes of a whole connection.
pub(super) fn run(bytes: &[u8]) {
    let [kind, rest @ ..] = bytes else { return };
    match kind % 4 {
        0 => start(rest),
        1 => kill(rest),
        2 => request(rest),
        _ => drop(exchange(rest, true)),
    }
}

fn start(bytes: &[u8]) {
    let Ok(wish) = serde_json::from_slice::<StartRequest>(bytes) else { return };
    match wish.check() {
        Ok(()) => {
            assert!(!wish.argv[0].is_empty());
            let again = serde_json::to_vec(&wish).expect("written");
            assert_eq!(serde_json::from_slice::<StartRequest>(&again).expect("read"), wish);
        }
        Err(problem) => assert_eq!(problem.status(), 400),
    }
}

fn kill(bytes: &[u8]) {
    let Ok(wish) = serde_json::from_slice::<KillRequest>(bytes) else { return };
    if wish.check().is_ok() {
        assert!(!wish.reason.trim().is_empty() && !wish.reason.contains('\n'));
    }
}

/// Method and path in the first line, headers in those that follow, the body after an empty line. It is sent whole, with
/// its true length.
fn request(bytes: &[u8]) {
    let (head, body) = match bytes.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut text = lines.next().unwrap_or_default().to_vec();
    text.extend_from_slice(b" HTTP/1.1\r\nhost: x\r\n");
    let framing = |line: &[u8]| {
        let line = line.to_ascii_lowercase();
        line.starts_with(b"content-length") || line.starts_with(b"transfer-encoding") || line.starts_with(b"expect")
    };
    for line in lines.filter(|line| !framing(line)) {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(body);
    exchange(&text, false);
}

/// Sends these bytes over a connection of their own and reads the head of the answer.
fn exchange(bytes: &[u8], hang_up: bool) -> Vec<u8> {
    static DAEMON: OnceLock<(FakeDaemon, tempfile::TempDir)> = OnceLock::new();
    let (daemon, _) = DAEMON.get_or_init(|| {
        let dir = tempfile::TempDir::new().expect("a scratch directory");
        (FakeDaemon::start(&dir.path().join("socket"), Access::default(), |_| {}), dir)
    });
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    // It may be refused before all of it is read.
    let _ = stream.write_all(bytes);
    if hang_up {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            // Hung up on with unread bytes: those who send too much.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no answer and no end: {error}"),
        }
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{:?}", String::from_utf8_lossy(&answer));
    let asked = std::mem::take(&mut daemon.script().asked);
    asked.iter().for_each(|(ask, _)| reaches_the_daemon(ask));
    answer
}

/// What the daemon is asked has passed every check.
fn reaches_the_daemon(ask: &Ask) {
    let is_id = |run: &String| run.parse::<RunId>().is_ok();
    match ask {
        Ask::Status | Ask::Events | Ask::Issues(_) => {}
        Ask::Within(_) => panic!("no path leads there"),
        Ask::Runs { limit, .. } => assert!(*limit <= 1000),
        Ask::Run(run) | Ask::Tree(run) | Ask::Logs(run) => assert!(is_id(run), "{run:?}"),
        Ask::Start(wish) => assert_eq!(wish.check(), Ok::<(), Problem>(())),
        Ask::Kill { run, reason, .. } => assert!(is_id(run) && !reason.trim().is_empty(), "{run:?} {reason:?}"),
    }
}
