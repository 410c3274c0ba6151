//! A daemon that was taken over: whatever it sends, no stranger is hit and the keeper goes on.

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use agent_loop::keeper::process::client::ClientError;
use agent_loop::keeper::process::protocol::{
    CgroupLimits, Descriptors, Envelope, LONGEST, MOST_FDS, Process, Request, VERSION,
};
use agent_loop_tests::harness::{cgroup, eventually};
use agent_loop_tests::{needs, sys};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use serde_json::{Value, json};

use super::bench::{Output, Place, Stranger, With, process, run, sealed, shell};

/// A connection that sends what it likes.
pub struct Raw(OwnedFd);

impl Raw {
    pub fn connect(place: &Place) -> Self {
        Self::at(&place.socket())
    }

    /// One that has said hello, as soon as the place of the last client is free.
    pub fn greeted(place: &Place) -> Self {
        eventually("a place", || {
            let raw = Self::connect(place);
            raw.ask(1, &Request::Hello, &[]);
            raw.reply(1).filter(|reply| reply["welcome"].is_object()).map(|_| raw)
        })
    }

    pub fn at(path: &Path) -> Self {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        connect(fd.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).expect("a keeper that listens");
        Self(fd)
    }

    /// Sends a datagram; whether it was taken, or the keeper had hung up.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        eventually("room for a message", || {
            match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
                Err(Errno::EAGAIN) => None,
                sent => Some(sent.is_ok()),
            }
        })
    }

    pub fn ask(&self, id: u64, request: &Request, fds: &[BorrowedFd<'_>]) -> bool {
        let envelope = Envelope { v: VERSION, id, body: request };
        self.send(&serde_json::to_vec(&envelope).expect("JSON"), fds)
    }

    /// What was said by now, if something was.
    pub fn hear(&self) -> Option<(Value, Vec<OwnedFd>)> {
        let (bytes, fds) = sys::receive(self.0.as_fd()).ok()?;
        Some((serde_json::from_slice(&bytes).ok()?, fds))
    }

    /// The reply of this number; `None` when the keeper hung up before.
    pub fn reply(&self, id: u64) -> Option<Value> {
        eventually("a reply", || match sys::receive(self.0.as_fd()) {
            Ok((bytes, _)) if bytes.is_empty() => Some(None),
            Ok((bytes, _)) => {
                let said: Value = serde_json::from_slice(&bytes).expect("JSON");
                (said["id"] == id).then(|| Some(said["body"].clone()))
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => None,
            Err(_) => Some(None),
        })
    }

    /// Whether the keeper hangs up on it.
    pub fn is_hung_up(&self) -> bool {
        eventually("a word or the end", || match sys::receive(self.0.as_fd()) {
            Ok((bytes, _)) => bytes.is_empty().then_some(true),
            Err(error) => (error.raw_os_error() != Some(libc::EAGAIN)).then_some(true),
        })
    }
}

fn why(reply: Option<Value>) -> String {
    let reply = reply.expect("a reply");
    reply["refused"]["why"].as_str().unwrap_or_else(|| panic!("not refused: {reply}")).to_owned()
}

#[test]
fn nothing_is_done_before_hello_and_in_no_other_version() {
    needs!(cgroup);
    let place = Place::new();
    let _keeper = place.keeper();
    let raw = Raw::connect(&place);
    let prepare = Request::Prepare { run: run(1), limits: CgroupLimits::default() };
    assert!(raw.ask(7, &prepare, &[]));
    assert!(why(raw.reply(7)).contains("hello"));
    let other = json!({"v": VERSION + 1, "id": 8, "body": "hello"});
    assert!(raw.send(&serde_json::to_vec(&other).expect("JSON"), &[]));
    assert!(why(raw.reply(8)).contains(&format!("version {VERSION}")));
    assert!(raw.ask(9, &prepare, &[]));
    assert!(why(raw.reply(9)).contains("hello"), "another version's hello is none");
    raw.ask(10, &Request::Hello, &[]);
    assert!(raw.reply(10).expect("a reply")["welcome"]["pid"].is_number());
    assert!(!place.cgroup(&run(1)).exists());
}

#[test]
fn what_cannot_be_read_is_refused_or_ends_the_connection_alone() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let connect = || Raw::greeted(&place);
    let raw = connect();
    let open = keeper.open();
    drop(raw);
    let null = File::open("/dev/null").expect("/dev/null");
    let hello = br#"{"v":2,"id":1,"body":"hello"}"#;
    let too_long = [&hello[..], &vec![b' '; LONGEST]].concat();
    let texts: [&[u8]; 5] = [b"", b"x", b"{}", br#"{"v":2,"id":0,"body":"hello"}"#, &[0; 1000]];
    for text in texts {
        let raw = connect();
        assert!(raw.send(text, &[null.as_fd()]));
        assert!(raw.is_hung_up(), "{:?}", text.get(..20));
    }
    // A request that is too long, or has too many descriptors, is refused; all of them are closed.
    let raw = connect();
    assert!(raw.send(&too_long, &[null.as_fd()]));
    assert!(why(raw.reply(1)).contains("cut off"));
    for (id, count) in [(2, MOST_FDS + 1), (3, 100), (4, 253)] {
        assert!(raw.ask(id, &Request::Kill { run: run(1) }, &vec![null.as_fd(); count]));
        assert!(why(raw.reply(id)).contains("cut off"), "{count}");
    }
    // Names are names.
    for (id, name) in (5..).zip(["..", "/", "run-", "run-1/../..", "../keeper", "", "run-0000000001000000000000000I"]) {
        assert!(raw.ask(id, &Request::Kill { run: name.to_owned() }, &[]));
        assert!(why(raw.reply(id)).contains("is not the name"), "{name}");
    }
    assert_eq!(keeper.open(), open, "every descriptor is closed");
}

#[test]
fn a_client_that_hears_nothing_holds_nobody_up() {
    needs!(cgroup);
    let place = Place::new();
    let mut keeper = place.keeper();
    let deaf = Raw::connect(&place);
    deaf.ask(1, &Request::Hello, &[]);
    // Until its own buffer is full, and the keeper's too.
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let text = serde_json::to_vec(&json!({"v": 1, "id": 2, "body": {"kill": {"run": "x".repeat(400)}}})).expect("JSON");
    let mut sent = 0;
    let mut refused = 0;
    while refused < 20 && sent < 100_000 {
        match sendmsg::<()>(deaf.0.as_raw_fd(), &[IoSlice::new(&text)], &[], flags, None) {
            Ok(_) => sent += 1,
            Err(Errno::EAGAIN) => {
                refused += 1;
                std::thread::yield_now();
            }
            Err(errno) => panic!("{errno}"),
        }
    }
    assert!(refused > 0, "{sent} requests were taken");
    eventually("a keeper that waits for it", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", keeper.pid())).expect("it lives");
        stat.contains(") S ").then_some(())
    });
    assert!(matches!(place.try_daemon().map(drop), Err(ClientError::Lost(_))), "its place is taken");
    drop(deaf);
    let mut daemon = place.daemon();
    daemon.start(&run(1), "sleep 1000");
    daemon.finish(&run(1));
    assert!(keeper.is_alive());
}

/// A reproducible source of choices (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("small")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

const MESSAGES: u64 = 20_000;

/// Where requests and their descriptors are chosen from.
struct Armoury {
    names: Vec<String>,
    people: Vec<Process>,
    cgroups: Vec<u64>,
    fds: Vec<OwnedFd>,
}

impl Armoury {
    fn request(&self, dice: &mut Dice) -> Request {
        let run = dice.one(&self.names).clone();
        let signal = *dice.one(&[0, 1, 9, 15, 17, 19, 64, 65, 255]);
        let mut person = *dice.one(&self.people);
        if dice.below(3) == 0 {
            person.ino = *dice.one(&[None, Some(0), person.ino.map(|ino| ino.wrapping_add(1)), dice_ino(&self.people)]);
        }
        let flag = |dice: &mut Dice| dice.below(2) == 0;
        let fds = Descriptors { stdin: flag(dice), writers: flag(dice), drains: flag(dice) };
        let output_bytes = *dice.one(&[None, Some(0), Some(1), Some(u64::MAX)]);
        let limits = CgroupLimits {
            memory_bytes: *dice.one(&[None, Some(0), Some(u64::MAX)]),
            tasks: *dice.one(&[None, Some(0)]),
            cpu_percent: *dice.one(&[None, Some(u32::MAX)]),
        };
        match dice.below(18) {
            0 => Request::Hello,
            1 | 2 => Request::Prepare { run, limits },
            3..=5 => Request::Launch { run, fds, output_bytes },
            6 => Request::Thaw { run },
            7 | 8 => {
                let cgroup = *dice.one(&self.cgroups);
                let main = (dice.below(4) > 0).then_some(person);
                Request::Adopt { run, cgroup, main, fds, output_bytes }
            }
            9 | 10 => Request::Signal { run, to: person, signal },
            11 | 12 => Request::SignalMember { run, pid: person.pid, signal },
            13 => Request::Kill { run },
            14 => Request::Freeze { run },
            15 => Request::Look { run },
            16 => Request::Revision,
            _ => Request::Remove { run },
        }
    }

    fn given(&self, dice: &mut Dice, request: &Request) -> Vec<BorrowedFd<'_>> {
        let right = if let Request::Launch { fds, .. } = request {
            1 + usize::from(fds.stdin) + 2 * usize::from(fds.writers)
        } else {
            0
        };
        let count = if dice.below(3) > 0 { right } else { dice.below(12) };
        // A specification stands first, most of the time.
        let first = (0..count.min(1)).map(|_| &self.fds[0]);
        let others: Vec<&OwnedFd> = (1..count.max(1)).map(|_| dice.one(&self.fds)).collect();
        first.chain(others).map(AsFd::as_fd).collect()
    }
}

fn dice_ino(people: &[Process]) -> Option<u64> {
    people.first().and_then(|person| person.ino)
}

#[test]
fn twenty_thousand_hostile_messages_hit_no_stranger_and_do_not_end_the_keeper() {
    needs!(cgroup);
    let place = Place::new();
    let mut keeper = place.keeper();
    let strangers: Vec<Stranger> = (0..4).map(|_| Stranger::new()).collect();
    let mut daemon = place.daemon();
    // With a client and no run. What this process had open without the flag it has too: other tests run beside.
    let at_first = keeper.open();
    let born = daemon.start(&run(1), "sleep 1000 & sleep 1000");
    drop(daemon);
    // A cgroup beside the runs, with a process in it that no request may reach.
    let beside = place.runs().with_file_name("beside");
    fs::create_dir(&beside).expect("a cgroup");
    let beside = Beside(&beside);
    let dir = File::open(beside.0).expect("it");
    let at = sys::Place { cgroup: Some(dir.as_fd()), ..sys::Place::default() };
    let inside = sys::clone_at(sys::Stub::Pause, at).expect("clone3");

    let mut names: Vec<String> = (1..=6).map(run).collect();
    names.extend(["..", "../beside", "run-", "", "/", &run(1)[..20]].map(str::to_owned));
    let mut people: Vec<Process> = strangers.iter().map(Stranger::process).collect();
    people.extend([
        born.main,
        process(std::process::id()),
        process(keeper.pid()),
        process(1),
        process(inside.pid.cast_unsigned()),
        Process { pid: 0, start_ns: 0, ino: None },
        Process { pid: 2, start_ns: 1, ino: Some(2) },
        Process { pid: u32::MAX, start_ns: u64::MAX, ino: Some(u64::MAX) },
    ]);
    let spec = |script: &str| sealed(&serde_json::to_vec(&shell(script)).expect("JSON"));
    let output = Output::new(&place.path(""), "1");
    let mut fds = vec![spec("sleep 1000"), spec("exit 1"), sealed(b"[]"), dir.try_clone().expect("it").into()];
    fds.extend(output.writers.into_iter().chain(output.drains));
    let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    fds.push(socket.into());
    fds.push(sys::pidfd_open(inside.pid).expect("our child"));
    let id = std::os::unix::fs::MetadataExt::ino(&dir.metadata().expect("its id"));
    let armoury = Armoury { names, people, cgroups: vec![born.cgroup, id, 0, u64::MAX], fds };

    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut dice = Dice(seed);
    let mut raw = Raw::connect(&place);
    let mut lives = 0;
    for message in 1..=MESSAGES {
        let request = armoury.request(&mut dice);
        let mut text = serde_json::to_vec(&Envelope { v: VERSION, id: message, body: &request }).expect("JSON");
        match dice.below(10) {
            0 => text = (0..dice.below(200)).map(|_| dice.next().to_le_bytes()[0]).collect(),
            1 => {
                let at = dice.below(text.len());
                text[at] = dice.next().to_le_bytes()[0];
            }
            2 => text.truncate(dice.below(text.len())),
            _ => {}
        }
        let given = armoury.given(&mut dice, &request);
        let taken = raw.send(&text, &given);
        while raw.hear().is_some() {}
        // Hung up on, or gone by itself: the next one says hello.
        if !taken || dice.below(400) == 0 {
            lives += 1;
            drop(raw);
            raw = Raw::greeted(&place);
        }
    }
    drop(raw);
    assert!(keeper.is_alive() && lives > 10, "seed {seed:#x}: {}", place.stderr());
    assert!(strangers.iter().all(Stranger::is_alive), "seed {seed:#x}");
    assert!(!sys::pidfd_ended(inside.pidfd.as_fd(), std::time::Duration::ZERO), "seed {seed:#x}");
    // All that it holds can be ended, and then it holds no descriptor more than at its start.
    let mut daemon = eventually("a place", || place.try_daemon().ok());
    for held in std::mem::take(&mut daemon.held) {
        daemon.finish(&held.run);
    }
    assert!(daemon.refused(Request::Kill { run: run(1) }).contains("not held"));
    eventually("as few descriptors as at first", || (keeper.open() == at_first).then_some(()));
    assert!(keeper.children().is_empty());
    let _ = sys::pidfd_signal(&inside.pidfd, libc::SIGKILL);
    sys::wait(inside.pid).expect("our child");
}

/// A cgroup that is removed with the test; the cell's own kill empties it.
struct Beside<'a>(&'a Path);

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        cgroup::kill(self.0);
        for _ in 0..200 {
            if fs::remove_dir(self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn runs_come_and_go_without_a_descriptor_or_a_cgroup_left() {
    needs!(cgroup);
    let place = Place::new();
    let keeper = place.keeper();
    let mut daemon = place.daemon();
    let open = keeper.open();
    for number in 1..=100 {
        let with = With::output(Output::new(&place.path(""), "1"));
        daemon.bear(&run(number), &shell("echo x; exit 0"), &with);
        drop(with);
        daemon.thaw(&run(number));
        assert_eq!(daemon.until_exited(&run(number)), Some(0));
        daemon.remove(&run(number));
    }
    assert_eq!((keeper.open(), keeper.children()), (open, vec![]));
    let left = fs::read_dir(place.runs()).expect("the place for runs").filter_map(Result::ok);
    assert_eq!(left.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count(), 0);
}
