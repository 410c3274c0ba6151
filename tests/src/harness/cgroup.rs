//! Where cgroup v2 is on this host, which may mount it beside v1.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::eventually;
use crate::sys;

/// Where a cell that gives controllers to others holds its own processes.
const HELD: &str = "held";

/// The mount point of cgroup v2 and the cgroup that is its root.
fn mounted() -> Option<(PathBuf, PathBuf)> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines()
        .find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut fields = place.split(' ').skip(3);
            kind.starts_with("cgroup2 ").then_some((fields.next()?, fields.next()?))
        })
        .map(|(root, at)| (PathBuf::from(at), PathBuf::from(root)))
}

/// The mount point of cgroup v2.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    mounted().map(|(at, _)| at)
}

/// The directory of this process's own cgroup.
#[must_use]
pub fn own() -> Option<PathBuf> {
    let (at, root) = mounted()?;
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(if below.as_os_str().is_empty() { at } else { at.join(below) })
}

/// The directory of the cgroup with this id, which is its inode number.
#[must_use]
pub fn find(id: u64) -> Option<PathBuf> {
    fn search(dir: &Path, id: u64) -> Option<PathBuf> {
        if fs::metadata(dir).ok()?.ino() == id {
            return Some(dir.to_owned());
        }
        let below = fs::read_dir(dir).ok()?.filter_map(Result::ok);
        below
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .find_map(|entry| search(&entry.path(), id))
    }
    search(&mount()?, id)
}

/// The processes of this cgroup and of those below it.
#[must_use]
pub fn processes(dir: &Path) -> Vec<i32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path()));
        }
    }
    pids
}

/// Kills what is in this cgroup of a test and below it: at once, or one by one where the kernel has no cgroup.kill (before
/// Linux 5.14), each held by a pidfd while it is looked for again.
pub fn kill(dir: &Path) {
    const ROUNDS: usize = 200;
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for _ in 0..ROUNDS {
        let held: Vec<_> =
            processes(dir).into_iter().filter_map(|pid| Some((pid, sys::pidfd_open(pid).ok()?))).collect();
        let still = processes(dir);
        if still.is_empty() {
            return;
        }
        for (pid, pidfd) in held {
            if still.contains(&pid) {
                let _ = sys::pidfd_signal(&pidfd, libc::SIGKILL);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A cgroup of a test: what is started in it cannot leave anything unseen, whatever `agent-loop` says.
#[derive(Debug)]
pub struct Cell {
    dir: PathBuf,
}

impl Cell {
    /// Makes one below our own.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("agent-loop-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = own().expect("cgroup v2").join(name);
        fs::create_dir(&dir).expect("a cgroup");
        Self { dir }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Has the controllers of memory, tasks and processors kept below it, and what is started from now on in a cgroup
    /// of its own there, since a cgroup that gives controllers to others may hold no process. Whether it has them.
    ///
    /// # Panics
    /// When they are there and cannot be had.
    pub fn give_controllers(&self) -> bool {
        let there = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap_or_default();
        if !["memory", "pids", "cpu"].iter().all(|wanted| there.split_whitespace().any(|name| name == *wanted)) {
            return false;
        }
        fs::create_dir(self.dir.join(HELD)).expect("a cgroup");
        fs::write(self.dir.join("cgroup.subtree_control"), "+memory +pids +cpu").expect("a cgroup without a process");
        true
    }

    /// Starts `command` in it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn hold<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let held = self.dir.join(HELD);
        let place = if held.exists() { &held } else { &self.dir };
        let procs = File::options().write(true).open(place.join("cgroup.procs")).expect("our cgroup");
        sys::before_exec(command, move || (&procs).write_all(b"0"))
    }

    /// The names of the cgroups in it.
    #[must_use]
    pub fn below(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().filter_map(Result::ok);
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// No process and no cgroup is in it; a guard may need a moment to end.
    ///
    /// # Panics
    /// When something stays.
    pub fn assert_empty(&self) {
        assert_eq!(self.below(), Vec::<String>::new(), "cgroups left");
        eventually("the end of every process of the test's cgroup", || {
            fs::read_to_string(self.dir.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty()).then_some(())
        });
    }
}

impl Default for Cell {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cell {
    /// The watchdog: what a failed test left here is ended with its cgroup, which holds nothing else.
    fn drop(&mut self) {
        kill(&self.dir);
        for _ in 0..200 {
            for name in self.below() {
                let _ = fs::remove_dir(self.dir.join(name));
            }
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
