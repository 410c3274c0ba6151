//! Where version 2 of cgroups is mounted and where we are in it: text of /proc in, paths out. [pure]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// One mount of cgroup2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The cgroup that is seen at the mount point, as our cgroup namespace names it.
    pub(super) root: PathBuf,
    /// Where it is mounted.
    pub(super) point: PathBuf,
}

/// The cgroup2 mounts of /proc/self/mountinfo (proc_pid_mountinfo(5)), in its order.
pub(super) fn cgroup2(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    // Any number of optional fields, ended by a lone hyphen; then the type.
    fields.find(|field| field == b"-")?;
    (fields.next()? == b"cgroup2").then(|| Mount { root: unescape(root), point: unescape(point) })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The version 2 line of /proc/PID/cgroup, `0::/path`; `None` if there is none.
pub(super) fn version2_path(cgroup: &[u8]) -> Option<PathBuf> {
    let line = cgroup.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    line.starts_with(b"/").then(|| PathBuf::from(std::ffi::OsStr::from_bytes(line)))
}

/// The controllers that /proc/PID/cgroup shows in hierarchies of version 1.
pub(super) fn version1_controllers(cgroup: &[u8]) -> Vec<String> {
    let lines = cgroup.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let lists = lines.filter_map(|line| line.split(':').nth(1));
    lists
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty() && !name.contains('='))
        .map(str::to_owned)
        .collect()
}

/// Where the cgroup `path` is seen through `mount`; `None` if it lies outside.
pub(super) fn below(mount: &Mount, path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(&mount.root).ok()?;
    // `..` stands for a cgroup outside our cgroup namespace: no name leads there.
    let inside = rest.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| if rest.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(rest) })
}

/// The cgroup that is seen at `path`, as our cgroup namespace names it; `None` where no mount shows one there.
///
/// Of two mounts at one point the later one in the list is seen.
pub(super) fn seen_at(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let over = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let mount = over.max_by_key(|mount| mount.point.components().count())?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    Some(if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) })
}

/// How many cgroups lie above `path` in our namespace: the root has none.
pub(super) fn depth(path: &Path) -> u32 {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_))).count();
    u32::try_from(parts).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime shared:9 - cgroup cgroup rw,devices
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 master:2 - cgroup2 cgroup2 rw\n";

    fn at(root: &str, point: &str) -> Mount {
        Mount { root: root.into(), point: point.into() }
    }

    #[test]
    fn a_hybrid_host_mounts_version_2_elsewhere() {
        assert_eq!(cgroup2(HYBRID), [at("/", "/sys/fs/cgroup/unified")]);
        assert_eq!(version2_path(b"9:name=systemd:/\n4:memory:/a\n0::/a b\n"), Some("/a b".into()));
    }

    #[test]
    fn the_controllers_of_version_1_are_told_from_named_hierarchies() {
        let text = b"9:name=systemd:/\n4:memory:/a\n3:cpu,cpuacct:/\n0::/a b\n";
        assert_eq!(version1_controllers(text), ["memory", "cpu", "cpuacct"]);
        assert!(version1_controllers(b"0::/\n").is_empty());
    }

    #[test]
    fn escapes_are_undone() {
        let line = b"30 23 0:26 /a\\040b /mnt/t\\011n\\012b\\134\\777x rw - cgroup2 none rw";
        assert_eq!(cgroup2(line), [at("/a b", "/mnt/t\tn\nb\\\\777x")]);
    }

    #[test]
    fn a_host_without_version_2_has_no_mount_and_no_path() {
        assert_eq!(cgroup2(b"36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\ngarbage\n1 2 3\n"), []);
        for text in [&b""[..], b"4:memory:/a\n", b"0::\n", b"0::relative\n", b"10::/a\n"] {
            assert_eq!(version2_path(text), None);
        }
    }

    #[test]
    fn a_path_is_relative_to_the_root_of_the_mount() {
        let own = Path::new("/user.slice/x");
        assert_eq!(below(&at("/", "/sys/fs/cgroup"), own), Some("/sys/fs/cgroup/user.slice/x".into()));
        assert_eq!(below(&at("/user.slice", "/m"), own), Some("/m/x".into()));
        assert_eq!(below(&at("/user.slice/x", "/m"), own), Some("/m".into()));
        assert_eq!(below(&at("/user", "/m"), own), None);
        assert_eq!(below(&at("/other", "/m"), own), None);
    }

    #[test]
    fn a_cgroup_outside_the_namespace_has_no_place() {
        assert_eq!(below(&at("/", "/m"), Path::new("/../x")), None);
        assert_eq!(below(&at("/../..", "/m"), Path::new("/")), None);
        assert_eq!(below(&at("/..", "/m"), Path::new("/../x")), Some("/m/x".into()));
    }

    #[test]
    fn a_path_is_named_by_the_innermost_mount_over_it() {
        let mounts = [at("/", "/m"), at("/a", "/m/x"), at("/b", "/m/x"), at("/..", "/n")];
        let seen = |path: &str| seen_at(&mounts, Path::new(path));
        assert_eq!(seen("/m"), Some("/".into()));
        assert_eq!(seen("/m/y/z"), Some("/y/z".into()));
        assert_eq!(seen("/m/x/z"), Some("/b/z".into()));
        assert_eq!(seen("/m/xy"), Some("/xy".into()));
        assert_eq!(seen("/n/z"), Some("/../z".into()));
        assert_eq!(seen("/o"), None);
    }

    #[test]
    fn the_root_has_depth_zero() {
        assert_eq!([depth(Path::new("/")), depth(Path::new("/a")), depth(Path::new("/a/b c"))], [0, 1, 2]);
    }
}
