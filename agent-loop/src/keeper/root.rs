//! The cgroup below which the runs of a daemon are made: found through /proc/self/mountinfo, wherever it is mounted.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::{CgroupError, in_initial_namespace};
use super::mounts;

/// What it is called where nothing else is configured.
const NAME: &str = "agent-loop";

/// The root of the runs and its depth as the kernel counts; `None` inside a cgroup namespace, which hides it.
///
/// # Errors
/// [`CgroupError::NoVersion2`] where no hierarchy of version 2 is mounted; [`CgroupError::NotACgroup`] where the
/// configured root is not below one.
pub fn find(configured: Option<&Path>) -> Result<(PathBuf, Option<u32>), CgroupError> {
    let doing = "reading /proc/self/mountinfo";
    let mountinfo =
        fs::read("/proc/self/mountinfo").map_err(|source| CgroupError::Io { doing: doing.to_owned(), source })?;
    choose(&mounts::cgroup2(&mountinfo), configured, in_initial_namespace())
}

fn choose(
    mounts: &[mounts::Mount],
    configured: Option<&Path>,
    initial: bool,
) -> Result<(PathBuf, Option<u32>), CgroupError> {
    let (mount, path) = match configured {
        Some(path) => {
            let below = mounts.iter().filter(|mount| path.starts_with(&mount.point) && path != mount.point);
            // The innermost mount is the one that is seen.
            let mount = below.max_by_key(|mount| mount.point.as_os_str().len()).ok_or(CgroupError::NotACgroup)?;
            (mount, path.to_path_buf())
        }
        None => {
            // One that shows the whole hierarchy, else the first.
            let whole = mounts.iter().find(|mount| mount.root == Path::new("/"));
            let mount = whole.or(mounts.first()).ok_or(CgroupError::NoVersion2)?;
            (mount, mount.point.join(NAME))
        }
    };
    let inside = path.strip_prefix(&mount.point).map_err(|_| CgroupError::NotACgroup)?;
    let level = mounts::depth(&mount.root) + mounts::depth(inside);
    Ok((path, initial.then_some(level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str) -> mounts::Mount {
        mounts::Mount { root: root.into(), point: point.into() }
    }

    #[test]
    fn the_root_of_the_runs_lies_below_the_mount_of_the_whole_hierarchy() {
        let mounts = [mount("/some/slice", "/mnt/part"), mount("/", "/sys/fs/cgroup/unified")];
        let (path, level) = choose(&mounts, None, true).expect("there is one");
        assert_eq!((path, level), (PathBuf::from("/sys/fs/cgroup/unified/agent-loop"), Some(1)));
        assert_eq!(choose(&mounts, None, false).expect("there is one").1, None);
    }

    #[test]
    fn a_configured_root_counts_from_the_hierarchys_own_root() {
        let mounts = [mount("/", "/sys/fs/cgroup"), mount("/some/slice", "/sys/fs/cgroup/bound")];
        let at = |path: &str| choose(&mounts, Some(Path::new(path)), true);
        assert_eq!(at("/sys/fs/cgroup/system.slice/runs").expect("below").1, Some(2));
        assert_eq!(at("/sys/fs/cgroup/bound/runs").expect("below").1, Some(3));
        assert!(at("/sys/fs/cgroup").is_err(), "the mount point itself is nobody's");
        assert!(at("/elsewhere").is_err());
        assert!(choose(&[], None, true).is_err());
    }
}
