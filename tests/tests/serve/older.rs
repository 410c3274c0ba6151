//! A keeper of before: what it does not do is told, and costs no run a limit that it can keep.

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::{needs, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen,
    sendmsg, socket,
};
use serde_json::{Value, json};

use crate::shell;
use crate::trouble::Keeper;

/// The version that keepers of before speak, and the requests that they do not know.
const VERSION: u64 = 2;
const UNKNOWN: [&str; 2] = ["revision", "look"];

/// Stands between a daemon and its keeper, and has that answer as one of before, from a moment on and up to another.
struct Between {
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    older: AtomicBool,
    ends: AtomicBool,
    /// How often it was asked to look into pipes, and refused.
    looks: AtomicU64,
}

impl Between {
    fn new(place: &Path, keeper: &Path) -> Self {
        fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
        let listener = seqpacket();
        bind(listener.as_raw_fd(), &UnixAddr::new(place).expect("a short path")).expect("bound");
        listen(&listener, Backlog::new(4).expect("a few")).expect("a listener");
        let told = Arc::<Told>::default();
        let (theirs, keeper) = (Arc::clone(&told), keeper.to_owned());
        let thread = std::thread::spawn(move || {
            while !theirs.ends.load(Ordering::SeqCst) {
                if !readable(&[&listener])[0] {
                    continue;
                }
                let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).expect("a client");
                // SAFETY: accept has just made it for us.
                let daemon = unsafe { OwnedFd::from_raw_fd(fd) };
                let behind = seqpacket();
                connect(behind.as_raw_fd(), &UnixAddr::new(&keeper).expect("a short path")).expect("the keeper");
                theirs.serve(&daemon, &behind);
            }
        });
        Self { told, thread: Some(thread) }
    }

    /// Has the keeper be one of before, or of now; as another keeper it hangs up first.
    fn be_older(&self, older: bool) {
        self.told.older.store(older, Ordering::SeqCst);
    }

    fn looks(&self) -> u64 {
        self.told.looks.load(Ordering::SeqCst)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.told.ends.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Told {
    /// Hands on what either says to the other, until one hangs up or the keeper is to be another.
    fn serve(&self, daemon: &OwnedFd, keeper: &OwnedFd) {
        let older = self.older.load(Ordering::SeqCst);
        while !self.ends.load(Ordering::SeqCst) && self.older.load(Ordering::SeqCst) == older {
            let [asks, says] = readable(&[daemon, keeper])[..] else { unreachable!("two were asked") };
            if asks {
                let Some((request, fds)) = received(daemon) else { return };
                let refused = if older { self.refused(&request) } else { None };
                match refused {
                    Some(why) => {
                        let body = json!({"refused": {"why": why, "errno": null}});
                        send(daemon, &json!({"v": VERSION, "id": request["id"], "body": body}), &[]);
                    }
                    None => send(keeper, &request, &fds),
                }
            }
            if says {
                let Some((mut said, fds)) = received(keeper) else { return };
                if let Some(welcome) = said["body"].get_mut("welcome") {
                    // Whoever listens is whom the daemon holds.
                    welcome["pid"] = std::process::id().into();
                }
                send(daemon, &said, &fds);
            }
        }
    }

    fn refused(&self, request: &Value) -> Option<String> {
        if request["v"] != VERSION {
            return Some(format!("this keeper speaks version {VERSION}, not {}", request["v"]));
        }
        let named = |name: &&&str| request["body"] == **name || request["body"].get(**name).is_some();
        let name = UNKNOWN.iter().find(named)?;
        self.looks.fetch_add(u64::from(*name == "look"), Ordering::SeqCst);
        Some(format!("a request cannot be read: unknown variant `{name}`"))
    }
}

fn seqpacket() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
}

/// Which of them can be read, or have hung up; awaited for a moment.
fn readable(sockets: &[&OwnedFd]) -> Vec<bool> {
    let mut fds: Vec<_> = sockets.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::from(20_u8)).expect("a look");
    fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()
}

/// The next message; `None` once the other end has hung up.
fn received(socket: &OwnedFd) -> Option<(Value, Vec<OwnedFd>)> {
    let (bytes, fds) = sys::receive(socket.as_fd()).ok().filter(|(bytes, _)| !bytes.is_empty())?;
    Some((serde_json::from_slice(&bytes).expect("JSON"), fds))
}

/// Sends a message; who has hung up is told of by the next look.
fn send(socket: &OwnedFd, message: &Value, fds: &[OwnedFd]) {
    let text = serde_json::to_vec(message).expect("JSON");
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let _ = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&text)], control, MsgFlags::MSG_NOSIGNAL, None);
}

#[test]
fn a_keeper_of_before_is_told_once_keeps_the_deadline_of_what_lives_and_launches_nothing() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("keeper = \"expect\"", "user = \"nobody\"\n", "");
    let behind = host.path("run/behind");
    let _keeper = Keeper::start_at(&host, &behind, 4_096, || Ok(()));
    let between = Between::new(&host.path("run/keeper/socket"), &behind.join("socket"));
    let daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do echo more; sleep 0.1; done; exec sleep 600", go.display());
    let silent = host.start(&["--idle", "3s", "--grace", "100ms"], shell(&script));
    host.in_state(&silent, "running");
    let limited = host.start(&["--limit", "4s", "--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    host.in_state(&limited, "running");

    between.be_older(true);
    fs::write(&go, "").expect("a scratch file");
    let told = eventually("what is said of a keeper of before", || {
        let said = host.degraded().into_iter().find(|line| line.contains("is of an older agent-loop"));
        let not_understood = || host.keeper_missing().filter(|why| why.contains("do not understand each other"));
        said.or_else(not_understood).or_else(|| (between.looks() > 2).then(|| "nothing".to_owned()))
    });
    assert!(told.contains("`idle`") && told.contains("systemctl restart agent-loop-agents"), "{told}");
    let waits = host.start(&[], shell("exit 7"));
    let run = host.ended(&limited);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
    eventually("a silence that is asked for again and again", || (between.looks() > 2).then_some(()));
    assert_eq!(host.run(&silent)["state"], "running", "nobody knows that it was silent");
    assert_eq!(host.run(&waits)["state"], "queued", "nobody would keep all of its limits");
    assert_eq!(daemon.log().matches("is of an older agent-loop").count(), 1, "{}", daemon.log());

    between.be_older(false);
    assert_eq!(host.ended(&silent)["outcome"], "idle", "{}", daemon.log());
    assert_eq!(host.ended(&waits)["code"], 7, "{}", daemon.log());
    assert_eq!(host.degraded(), [] as [String; 0]);
}
