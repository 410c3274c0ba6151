//! Where cgroup v2 is on this host, which may mount it beside v1.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
