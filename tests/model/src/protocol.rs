//! By which protocol, on which host, and which of our guards stand.

/// How a process is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Ours: a keeper that opens, verifies and signals through the descriptor.
    Ours(Guards),
    /// `agent_loop.py`: `kill(pid, 0)`, then `kill(pid, 9)`, by a number from a file.
    ByNumber,
    /// The stopgap proposed for it: name and start time of /proc compared with the recorded ones, then `kill(pid, 9)`.
    Stopgap,
}

/// What the kernel of the host can do, and what is recorded. The hooks may be detached at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Pidfds have inodes (Linux 6.9 and later).
    pub inodes: bool,
    /// The record has the inode of the process; its start alone otherwise.
    pub recorded: bool,
    /// A pidfd tells the cgroup of its process (Linux 6.13 and later); its path in /proc is read by number before.
    pub tells_cgroup: bool,
}

impl Host {
    /// Linux 6.13 and later.
    pub const NEW: Self = Self { inodes: true, recorded: true, tells_cgroup: true };
    /// Linux 6.9 to 6.12.
    pub const MIDDLE: Self = Self { tells_cgroup: false, ..Self::NEW };
    /// Before Linux 6.9.
    pub const OLD: Self = Self { inodes: false, recorded: false, tells_cgroup: false };
    /// Linux 6.13 and later, a process recorded by its start alone.
    pub const BY_START: Self = Self { recorded: false, ..Self::NEW };
}

/// The checks of our protocol, each of which can be left out to see what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// `PidFd::open` comes before `verify`.
    pub open_first: bool,
    /// `signal::known` compares the inodes.
    pub inode: bool,
    /// `signal::known` wants the live set to have exactly this start under the number.
    pub live_set: bool,
    /// `signal::known` wants the process to belong to the run.
    pub belonging: bool,
    /// `pins::live_set` wants the hooks to be attached, asked after the descriptor was opened.
    pub attached: bool,
    /// `witness::Witness` believes an entry only if who has the number now looks like it.
    pub agrees: bool,
    /// `supervise::fleet::plan` gives up what was recorded in another boot.
    pub boot_id: bool,
    /// `OwnCgroup::prove` compares the id of what has the run's name with the recorded one.
    pub cgroup_id: bool,
    /// `OwnCgroup::holds_by_name` makes sure that the name is still of the cgroup that is held.
    pub name_is_held: bool,
}

impl Guards {
    /// All of them, as the code has them.
    pub const ALL: Self = Self {
        open_first: true,
        inode: true,
        live_set: true,
        belonging: true,
        attached: true,
        agrees: true,
        boot_id: true,
        cgroup_id: true,
        name_is_held: true,
    };
}
