//! What /proc says about numbers: for people, for degraded mode, and for refusals. Never a proof of identity.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{fs, io};

use crate::event::Member;
use crate::model::ProcessKey;

/// The flag of kernel threads in the ninth field of stat (`PF_KTHREAD` of linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

/// The most descendants that one look collects; a tree beyond it is reported as incomplete.
const MOST: usize = 65_536;

/// The fields of /proc/PID/stat that we use (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: u32,
    /// Its name, lossy where it is not UTF-8. Chosen by the process itself.
    pub comm: String,
    /// The state letter of its leader thread: `Z` does not mean that the process is dead.
    pub state: char,
    /// Its parent's number now.
    pub ppid: u32,
    /// Its process group.
    pub pgrp: i32,
    /// Its session.
    pub session: i32,
    /// The kernel's flags of the leader.
    pub flags: u32,
    /// When it started, in ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Parses the line; the name may hold spaces, parentheses and newlines, so the last `)` ends it.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
        let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first field after the name is the third of the line.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            pid,
            comm,
            state: field(3)?.chars().next()?,
            ppid: field(4)?.parse().ok()?,
            pgrp: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }

    /// Reads it; `None` if the number is free.
    ///
    /// # Errors
    /// When /proc cannot be read or says something unknown.
    pub fn read(pid: u32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(line) => Self::parse(&line)
                .map(Some)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat has an unknown form")),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it is a thread of the kernel.
    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Its key to the resolution of a tick: it names a process in degraded mode and proves nothing.
    #[must_use]
    pub fn key(&self) -> ProcessKey {
        ProcessKey::new(self.pid, ticks_to_ns(self.start_ticks))
    }
}

/// Whether /proc answered that the process is gone.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether /proc is of our own PID namespace: in another one's, numbers mean other processes.
///
/// # Errors
/// When there is no /proc.
pub fn proc_is_ours() -> io::Result<bool> {
    let own = fs::read_link("/proc/self")?;
    Ok(own.to_str() == Some(std::process::id().to_string().as_str()))
}

/// Nanoseconds since boot of a number of ticks.
#[must_use]
pub fn ticks_to_ns(ticks: u64) -> u64 {
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let hertz = hertz.and_then(|hertz| u64::try_from(hertz).ok()).filter(|&hertz| hertz > 0).unwrap_or(100);
    ticks.saturating_mul(1_000_000_000 / hertz)
}

/// Describes a number for [`Member`], as far as /proc tells.
#[must_use]
pub fn member(pid: u32, key: Option<ProcessKey>) -> Member {
    let stat = Stat::read(pid).ok().flatten();
    let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
    Member {
        pid,
        key,
        state: stat.as_ref().map(|stat| stat.state),
        // The kernel says "0" when it does not wait or we may not know.
        wchan: wchan.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty() && name != "0"),
        comm: stat.map(|stat| stat.comm),
    }
}

/// The children of a process now: of all its threads.
///
/// # Errors
/// When /proc cannot be read. A process that is gone has none.
pub fn children(pid: u32) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if is_gone(&error) => return Ok(found),
        Err(error) => return Err(error),
    };
    for thread in threads {
        let Ok(thread) = thread else { continue };
        let list: PathBuf = thread.path().join("children");
        match fs::read_to_string(&list) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // The thread has ended; a kernel without the file is told from that below.
            Err(error) if is_gone(&error) => {
                if thread.path().join("stat").exists() && !list.exists() {
                    return children_by_parent(pid);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The same without `CONFIG_PROC_CHILDREN`: every process whose parent it is.
fn children_by_parent(parent: u32) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if Stat::read(pid).ok().flatten().is_some_and(|stat| stat.ppid == parent) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// The descendants of a process now, and whether all were seen (it may grow while being looked at).
///
/// # Errors
/// When /proc cannot be read.
pub fn descendants(pid: u32) -> io::Result<(BTreeSet<u32>, bool)> {
    let mut found = BTreeSet::new();
    let mut open = vec![pid];
    while let Some(next) = open.pop() {
        for child in children(next)? {
            if found.len() >= MOST {
                return Ok((found, false));
            }
            if child != pid && found.insert(child) {
                open.push(child);
            }
        }
    }
    Ok((found, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(comm: &str) -> String {
        format!("77 ({comm}) D 5 7 8 0 -1 2097216 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0")
    }

    #[test]
    fn the_last_parenthesis_ends_the_name() {
        for comm in ["sh", "a b", ") R 1 1", "x) Z 0 (", "", "new\nline"] {
            let stat = Stat::parse(line(comm).as_bytes()).expect("parses");
            assert_eq!((stat.pid, stat.comm.as_str(), stat.state, stat.ppid), (77, comm, 'D', 5));
            assert_eq!(stat.start_ticks, 4242);
            assert!(stat.is_kernel_thread());
        }
    }

    #[test]
    fn a_short_or_foreign_line_is_no_stat() {
        for text in ["", "77", "77 (x", "77 (x) R", "x (y) R 1", ") 77 ("] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_tick_is_ten_milliseconds_here() {
        assert_eq!(ticks_to_ns(100), 1_000_000_000);
    }

    #[test]
    fn a_child_is_among_children_and_descendants() {
        let child = crate::keeper::testing::Held::pause();
        let own = std::process::id();
        assert!(children(own).expect("children").contains(&child.pid()));
        let (all, complete) = descendants(own).expect("descendants");
        assert!(all.contains(&child.pid()) && complete);
        assert!(children_by_parent(own).expect("scan").contains(&child.pid()));
    }

    #[test]
    fn a_free_number_has_no_stat() {
        assert_eq!(Stat::read(4_000_000).expect("reads"), None);
        assert!(children(4_000_000).expect("reads").is_empty());
    }
}
