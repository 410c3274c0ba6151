//! What the daemon and the keeper say to each other.
//!
//! One message is one datagram of a `SOCK_SEQPACKET` Unix socket: JSON of at most [`LONGEST`] bytes, an
//! [`Envelope`] with the version first, descriptors beside it by `SCM_RIGHTS`. Each request has one reply of the
//! same id; notices come by themselves. Nothing is lost with a connection: what a notice said is part of the
//! [`Held`] that a new connection is told after its [`Request::Hello`].

use serde::{Deserialize, Serialize};

/// The version of this protocol. A keeper outlives upgrades of the daemon: it answers another version with
/// [`Reply::Refused`] that names its own.
pub const VERSION: u32 = 1;

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
    /// The main process, once it was born or adopted.
    pub main: Option<Process>,
    /// Whether it may run: thawed, or adopted thawed.
    pub thawed: bool,
    /// What became of its start.
    pub start: StartState,
    /// Its end, once it ended: the status as in [`Notice::Exited`].
    pub exited: Option<Option<i32>>,
    /// Its output.
    pub output: OutputState,
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
    /// Whether the budget was reached.
    pub over_budget: bool,
    /// Why the file can no longer be written, if it cannot.
    pub failed: Option<String>,
}
