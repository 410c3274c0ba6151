//! Controllers of cgroup v1, where a host has them beside v2: a limit around one process of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::eventually;

/// A cgroup below our own in the hierarchy of one controller; who is left in it at the end goes back to where we are.
#[derive(Debug)]
pub struct OldCell {
    parent: PathBuf,
    dir: PathBuf,
}

impl OldCell {
    /// Makes one for this controller, `pids` or `memory`, or says what the host lacks.
    ///
    /// # Errors
    /// What the host lacks.
    pub fn new(controller: &str) -> Result<Self, &'static str> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = own(controller).ok_or("needs the controllers of cgroup v1")?;
        let name = format!("agent-loop-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = parent.join(name);
        fs::create_dir(&dir).map_err(|_| "needs the right to make cgroups of v1")?;
        Ok(Self { parent, dir })
    }

    /// Moves a process into it, all of its threads.
    ///
    /// # Panics
    /// When it cannot be moved.
    pub fn take(&self, pid: u32) {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string()).expect("a process of ours");
    }

    /// Writes one of its files.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn set(&self, file: &str, value: &str) {
        fs::write(self.dir.join(file), value).expect("a file of our cgroup");
    }

    /// Reads one of its files; empty where there is none.
    #[must_use]
    pub fn get(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }
}

impl Drop for OldCell {
    fn drop(&mut self) {
        eventually("nobody in a cgroup of v1", || {
            for pid in self.get("cgroup.procs").split_whitespace() {
                // It may have ended.
                let _ = fs::write(self.parent.join("cgroup.procs"), pid);
            }
            fs::remove_dir(&self.dir).ok()
        });
    }
}

/// The directory of our own cgroup in the hierarchy of this controller alone.
fn own(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (root, at) = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let is_it = kind.starts_with("cgroup ") && kind.rsplit([' ', ',']).any(|option| option == controller);
        is_it.then_some((fields.next()?, fields.next()?))
    })?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':').filter(|(of, _)| *of == controller).map(|(_, path)| path)
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(if below.as_os_str().is_empty() { at.into() } else { Path::new(at).join(below) })
}
