//! What the daemon and the keeper say to each other.
//!
//! One message is one datagram of a `SOCK_SEQPACKET` Unix socket: JSON of at most [`LONGEST`] bytes, an
//! [`Envelope`] with the version first, descriptors beside it by `SCM_RIGHTS`. Each request has one reply of the
//! same id; notices come by themselves. Nothing is lost with a connection: what a notice said is part of the
//! [`Held`] that a new connection is told after its [`Request::Hello`].

use serde::{Deserialize, Serialize};

/// The version of this protocol. A keeper outlives upgrades of the daemon: it answers another version with
/// [`Reply::Refused`] that names its own.
pub const VERSION: u32 = 2;

/// What was added within this version, the oldest first: each is what a keeper of before does not do, and what follows.
///
/// How many of them a keeper does is its answer to [`Request::Revision`]. A request that is added has its line here.
pub const ADDED: [&str; 1] = ["looks into no pipe for a silent run, so that no limit of silence (`idle`) strikes"];

/// The longest datagram, in bytes.
pub const LONGEST: usize = 64 << 10;

/// The most descriptors of one datagram.
pub const MOST_FDS: usize = 8;

/// The most runs that a keeper holds.
pub const MOST_RUNS: usize = 1024;

/// The most bytes of a launch specification, which crosses as a descriptor of a sealed memory file.
pub const LONGEST_SPEC: u64 = 4 << 20;

/// A message with its frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<T> {
    /// [`VERSION`].
    pub v: u32,
    /// The request's number, not 0; its reply has the same, a notice has 0.
    ///
    /// A [`Reply::Refused`] under 0 is of the connection itself, which is closed after it.
    pub id: u64,
    /// The message.
    pub body: T,
}

/// A process in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its exact start, nanoseconds of CLOCK_BOOTTIME; 0 where only its inode is known.
    pub start_ns: u64,
    /// Its pidfd's inode (Linux 6.9 and later).
    pub ino: Option<u64>,
}

/// What the daemon asks. `run` is always the name of a cgroup below the keeper's root, a [`crate::run::RunName`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First of all. The reply is [`Reply::Welcome`], before it comes one [`Notice::Held`] for each run.
    Hello,
    /// Asks how much of [`ADDED`] the keeper does. Replied by [`Reply::Revision`]; who refuses it does nothing of it.
    ///
    /// A request, and no part of the welcome: a daemon of before reads no welcome that says more than it knows.
    Revision,
    /// Makes a new, frozen cgroup and sets its limits. Replied by [`Reply::Prepared`].
    Prepare {
        /// The run.
        run: String,
        /// What it may take.
        limits: CgroupLimits,
    },
    /// Bears the main process in the prepared cgroup, frozen. Replied by [`Reply::Born`] with its pidfd.
    ///
    /// Descriptors, in this order: the specification, then as [`Descriptors`] says.
    Launch {
        /// The run.
        run: String,
        /// What follows the specification.
        fds: Descriptors,
        /// How many bytes of output are kept; what comes after is counted and thrown away.
        output_bytes: Option<u64>,
    },
    /// Lets the born process run. Refused for a run that was killed.
    Thaw {
        /// The run.
        run: String,
    },
    /// Takes up a run that another keeper launched: its cgroup is opened and must have this id.
    ///
    /// The main process is opened and verified; a process that cannot be proven to be it is not held.
    Adopt {
        /// The run.
        run: String,
        /// The recorded id of its cgroup.
        cgroup: u64,
        /// The recorded main process, where one was born.
        main: Option<Process>,
        /// The output to go on with: as for a launch, without standard input and the ends of the agent.
        fds: Descriptors,
        /// As for a launch, less what is in the files already.
        output_bytes: Option<u64>,
    },
    /// Gives the output of a held run its pipes and files, where it has none: they could not be opened before.
    /// Refused where it has.
    Drain {
        /// The run.
        run: String,
        /// As for an adoption: only drains belong to it.
        fds: Descriptors,
        /// As for an adoption.
        output_bytes: Option<u64>,
    },
    /// Has the pipes of a run looked into once more. [`Notice::Output`] tells of it, with [`OutputState::looked_ns`], as
    /// soon as the disks of the output let that be done. Refused where nobody reads its output.
    Look {
        /// The run.
        run: String,
    },
    /// Signals one process, proven to be this one and of this run.
    Signal {
        /// The run.
        run: String,
        /// Who.
        to: Process,
        /// The signal's number.
        signal: u8,
    },
    /// Signals whoever has this number, if it is in the run's cgroup.
    SignalMember {
        /// The run.
        run: String,
        /// The number.
        pid: u32,
        /// The signal's number.
        signal: u8,
    },
    /// Kills the run's cgroup.
    Kill {
        /// The run.
        run: String,
    },
    /// Freezes the run's cgroup: what is found under the root and belongs to nobody.
    Freeze {
        /// The run.
        run: String,
    },
    /// Removes the run's empty cgroup and forgets the run. Refused while something lives in it.
    Remove {
        /// The run.
        run: String,
    },
}

/// Which descriptors come with a message, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptors {
    /// The agent's standard input; /dev/null without.
    pub stdin: bool,
    /// The agent's ends of both output pipes: standard output, standard error.
    pub writers: bool,
    /// The keeper's ends of both output pipes, and the files they are drained into: pipe and file of standard
    /// output, pipe and file of standard error.
    pub drains: bool,
}

/// Limits that the run's cgroup can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimits {
    /// memory.max in bytes.
    pub memory_bytes: Option<u64>,
    /// pids.max.
    pub tasks: Option<u64>,
    /// cpu.max in hundredths of a processor.
    pub cpu_percent: Option<u32>,
}

/// A request that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its number; 0 where not even that can be told, and the connection is of no use.
    pub id: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Reads a request with its number.
///
/// # Errors
/// [`Unreadable`] for whatever is not exactly a request of this version.
pub fn read_request(bytes: &[u8]) -> Result<(u64, Request), Unreadable> {
    let unreadable = |id, why| Unreadable { id, why };
    if bytes.len() > LONGEST {
        return Err(unreadable(0, format!("a request is longer than {LONGEST} bytes")));
    }
    // The frame before what is in it: another version's requests may have a form of their own.
    let Envelope { v, id, body } = serde_json::from_slice::<Envelope<serde_json::Value>>(bytes)
        .map_err(|error| unreadable(0, format!("a request cannot be read: {error}")))?;
    if id == 0 {
        return Err(unreadable(0, "a request needs a number other than 0".to_owned()));
    }
    if v != VERSION {
        return Err(unreadable(id, format!("this keeper speaks version {VERSION}, not {v}")));
    }
    match serde_json::from_value(body) {
        Ok(request) => Ok((id, request)),
        Err(error) => Err(unreadable(id, format!("a request cannot be read: {error}"))),
    }
}

/// What the keeper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The keeper is there; the runs it holds were told before.
    Welcome {
        /// Its own number.
        pid: u32,
        /// The boot it runs in.
        boot_id: String,
        /// What it was started with and does not change: whoever asks compares it with what they expect.
        terms: Terms,
    },
    /// It does the first so many of [`ADDED`].
    Revision {
        /// How many: more than the daemon knows of, where the keeper is the newer one.
        number: usize,
    },
    /// The cgroup is there, frozen and empty.
    Prepared {
        /// Its id, which is the run's tag.
        cgroup: u64,
        /// Its depth as the kernel counts, where known.
        level: Option<u32>,
        /// Where it is seen in the file system.
        path: String,
        /// Limits that could not be set, each with its reason.
        missing: Vec<Missing>,
    },
    /// The main process was born; its pidfd comes along.
    Born {
        /// Its number.
        pid: u32,
        /// Its pidfd's inode.
        ino: Option<u64>,
    },
    /// It was adopted.
    Adopted {
        /// Whether the main process is alive and held.
        main_alive: bool,
    },
    /// A signal was delivered, or its target had gone.
    Signalled {
        /// The proof it was sent on; `None` if the process had gone.
        proof: Option<String>,
    },
    /// Done.
    Done,
    /// Not done.
    Refused {
        /// Why, as a fragment.
        why: String,
        /// The error number behind it.
        errno: Option<i32>,
    },
}

/// What a keeper was started with. Nothing that it is asked changes it: another keeper would have to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The directory of the cgroup below which it makes and looks for runs.
    pub runs: String,
    /// Where it looks for the pinned live set.
    pub pins: Option<String>,
    /// The names of the accounts that it launches runs as.
    pub users: Vec<String>,
    /// Whether one of them may be root.
    pub allow_root: bool,
}

/// A limit that could not be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// The file it would have been written to.
    pub file: String,
    /// Why not.
    pub why: String,
}

/// What the keeper says by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Notice {
    /// A run that it holds, told after [`Request::Hello`].
    Held(Held),
    /// What became of the start of a run's main process.
    Start {
        /// The run.
        run: String,
        /// How it went.
        start: StartState,
    },
    /// The main process of a run ended.
    Exited {
        /// The run.
        run: String,
        /// Its status as `wait(2)` encodes it; `None` where the keeper is not its parent.
        status: Option<i32>,
    },
    /// More output was drained; at most a few times a second.
    Output(OutputState),
}

/// A run that the keeper holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The run.
    pub run: String,
    /// The id of its cgroup.
    pub cgroup: u64,
    /// Where that is seen in the file system.
    pub path: String,
    /// The main process, once it was born or adopted; its start is told only where the live set has proven it.
    pub main: Option<Process>,
    /// Whether it may run: thawed, or adopted thawed.
    pub thawed: bool,
    /// What became of its start.
    pub start: StartState,
    /// Its end, once it ended: the status as in [`Notice::Exited`].
    pub exited: Option<Exit>,
    /// Whether its pipes were handed over.
    pub drained: bool,
    /// Its output.
    pub output: OutputState,
}

/// The end of a main process. Not an option of an option: JSON writes both nones alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Its status as `wait(2)` encodes it; `None` where the keeper is not its parent.
    pub status: Option<i32>,
}

/// What became of the start of a main process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StartState {
    /// Not launched, or on its way.
    Pending,
    /// The command is being executed.
    Started,
    /// A step failed.
    Failed {
        /// What was being done.
        step: String,
        /// The error number.
        errno: i32,
        /// The code a shell would give, where it failed at the execution itself.
        code: Option<u8>,
    },
    /// It died before.
    Died,
    /// Another keeper launched it, and what became of it is not known here.
    Unknown,
}

/// How much a run has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputState {
    /// The run.
    pub run: String,
    /// Bytes in the files, by this keeper.
    pub kept: u64,
    /// Bytes thrown away: beyond the budget, or not to be written.
    pub lost: u64,
    /// When the last byte came, nanoseconds of CLOCK_BOOTTIME; 0 for never.
    pub last_ns: u64,
    /// When its pipes were last looked into because of a [`Request::Look`], nanoseconds of CLOCK_BOOTTIME; 0 for never.
    /// Whatever was written before is in this state.
    #[serde(default, skip_serializing_if = "is_never")]
    pub looked_ns: u64,
    /// Whether the budget was reached.
    pub over_budget: bool,
    /// Why the file can no longer be written, if it cannot.
    pub failed: Option<String>,
}

impl OutputState {
    /// Of a run that has written nothing.
    pub(super) const fn none(run: String) -> Self {
        Self { run, kept: 0, lost: 0, last_ns: 0, looked_ns: 0, over_budget: false, failed: None }
    }
}

/// Whether a moment never was: a daemon that never asked for it is not told of it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_never(ns: &u64) -> bool {
    *ns == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const RUN: &str = "run-00000000010000000000000002";

    fn read(value: &serde_json::Value) -> Result<(u64, Request), Unreadable> {
        read_request(&serde_json::to_vec(value).expect("JSON"))
    }

    fn every_request() -> Vec<Request> {
        let run = || RUN.to_owned();
        let process = Process { pid: 7, start_ns: u64::MAX, ino: Some(9) };
        let (limits, fds) = (CgroupLimits::default(), Descriptors { stdin: true, writers: true, drains: true });
        vec![
            Request::Hello,
            Request::Revision,
            Request::Prepare { run: run(), limits },
            Request::Launch { run: run(), fds, output_bytes: Some(1) },
            Request::Thaw { run: run() },
            Request::Adopt { run: run(), cgroup: 3, main: Some(process), fds, output_bytes: None },
            Request::Drain { run: run(), fds, output_bytes: Some(0) },
            Request::Look { run: run() },
            Request::Signal { run: run(), to: process, signal: 15 },
            Request::SignalMember { run: run(), pid: 7, signal: 9 },
            Request::Kill { run: run() },
            Request::Freeze { run: run() },
            Request::Remove { run: run() },
        ]
    }

    #[test]
    fn every_request_is_read_as_it_was_written() {
        for request in every_request() {
            let text = serde_json::to_vec(&Envelope { v: VERSION, id: 5, body: request.clone() }).expect("JSON");
            assert_eq!(read_request(&text), Ok((5, request)));
        }
    }

    #[test]
    fn a_request_of_another_version_is_told_ours_under_its_number() {
        let refused = read(&json!({"v": VERSION + 1, "id": 8, "body": {"dance": []}})).expect_err("another version");
        assert_eq!(refused.id, 8);
        assert!(refused.why.contains(&format!("speaks version {VERSION}")), "{}", refused.why);
    }

    #[test]
    fn an_unknown_field_or_request_is_refused_under_its_number() {
        for body in [
            json!({"thaw": {"run": RUN, "force": true}}),
            json!({"thaw": {}}),
            json!({"dance": {"run": RUN}}),
            json!("thaw"),
            json!({"hello": {}}),
            json!({"signal_member": {"run": RUN, "pid": -1, "signal": 9}}),
            json!({"signal_member": {"run": RUN, "pid": 4_294_967_296_u64, "signal": 9}}),
            json!({"signal_member": {"run": RUN, "pid": 2, "signal": 256}}),
            json!({"kill": {"run": RUN}, "thaw": {"run": RUN}}),
            json!(null),
        ] {
            assert_eq!(read(&json!({"v": VERSION, "id": 3, "body": body})).expect_err("no request").id, 3, "{body}");
        }
    }

    #[test]
    fn without_a_frame_the_connection_is_of_no_use() {
        let deep = [b"[".repeat(30_000), b"]".repeat(30_000)].concat();
        let long = [br#"{"v":2,"id":1,"body":"hello"}"#.to_vec(), vec![b' '; LONGEST]].concat();
        let texts: [&[u8]; 8] = [
            b"",
            b"{}",
            b"\xff\xfe",
            br#"{"v":2,"id":0,"body":"hello"}"#,
            br#"{"v":2,"id":1,"body":"hello","x":1}"#,
            br#"{"v":2,"id":1,"body":"hello"}{}"#,
            &deep,
            &long,
        ];
        for text in texts {
            assert_eq!(read_request(text).expect_err("no request").id, 0);
        }
    }

    proptest! {
        #[test]
        fn bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_request(&bytes);
        }

        #[test]
        fn a_damaged_request_is_read_or_refused(
            which in 0..13_usize, at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>(),
        ) {
            let body = every_request().swap_remove(which);
            let mut text = serde_json::to_vec(&Envelope { v: VERSION, id: 5, body }).expect("JSON");
            let at = at % text.len();
            text[at] = byte;
            // What is still read is in its form what is written again.
            if let Ok((id, request)) = read_request(&text) {
                let again = serde_json::to_vec(&Envelope { v: VERSION, id, body: request.clone() }).expect("JSON");
                prop_assert_eq!(read_request(&again), Ok((id, request)));
            }
            text.truncate(cut % text.len());
            prop_assert!(read_request(&text).is_err());
        }
    }
}
