//! Cgroups that were not made by this process: the place for runs that was configured, and the run of a predecessor.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat::{Mode, mkdirat};

use super::{CgroupError, Home, OwnCgroup, RunCgroup, doing, is_cgroup2, open_at, open_path, plain_name, read_at};
use crate::keeper::mounts;
use crate::model::RunTag;

impl Home {
    /// Takes this directory as the place for runs, and makes it where it is missing in a cgroup that exists.
    ///
    /// # Errors
    /// [`CgroupError::NotACgroup`] where it, or what it would be made in, is not on version 2.
    pub fn at_path(path: &Path) -> Result<Self, CgroupError> {
        let absolute = std::path::absolute(path).map_err(doing(format!("resolving {}", path.display())))?;
        let (Some(above), Some(leaf)) = (absolute.parent(), absolute.file_name()) else {
            return Err(CgroupError::NotACgroup);
        };
        let above = fs::canonicalize(above).map_err(doing(format!("resolving {}", above.display())))?;
        let path = above.join(leaf);
        let parent = open_path(&above).map_err(doing(format!("opening {}", above.display())))?;
        let dir = match open_at(parent.as_fd(), leaf.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !is_cgroup2(parent.as_fd()) {
                    return Err(CgroupError::NotACgroup);
                }
                mkdirat(&parent, leaf, Mode::from_bits_truncate(0o755))
                    .map_err(io::Error::from)
                    .and_then(|()| open_at(parent.as_fd(), leaf.as_ref()))
                    .map_err(doing(format!("making {}", path.display())))?
            }
            other => other.map_err(doing(format!("opening {}", path.display())))?,
        };
        if !is_cgroup2(dir.as_fd()) {
            return Err(CgroupError::NotACgroup);
        }
        // The root of the hierarchy has no type.
        if let Ok(kind) = read_at(dir.as_fd(), "cgroup.type")
            && kind.trim() != "domain"
        {
            return Err(CgroupError::NotADomain { path, kind: kind.trim().to_owned() });
        }
        let read = fs::read("/proc/self/mountinfo").map_err(doing("reading /proc/self/mountinfo"))?;
        let name = mounts::seen_at(&mounts::cgroup2(&read), &path).ok_or(CgroupError::NoVersion2)?;
        Self::at(dir, path, name)
    }
}

impl RunCgroup {
    /// Opens the cgroup of an attempt that another process launched, if it has the recorded id.
    ///
    /// It never gets another process (I7).
    ///
    /// # Errors
    /// [`CgroupError::OtherCgroup`] where the name belongs to another cgroup; ENOENT where it is gone.
    pub fn open(home: &Home, leaf: &str, recorded: RunTag) -> Result<Self, CgroupError> {
        if !plain_name(leaf) {
            return Err(CgroupError::Name(leaf.to_owned()));
        }
        let path = home.path.join(leaf);
        let parent = home.dir.try_clone().map_err(doing("holding the place for runs"))?;
        let dir = open_at(parent.as_fd(), leaf.as_ref()).map_err(doing(format!("opening {}", path.display())))?;
        let own = OwnCgroup::prove(dir, recorded, Some(home.name.join(leaf)))?;
        Ok(Self { own, parent, leaf: leaf.to_owned(), path, level: home.level.map(|level| level + 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::testing;

    #[test]
    fn a_place_for_runs_is_made_where_it_is_missing_and_known_by_name_and_level() {
        let Some(outer) = testing::cgroup("a_place_for_runs") else { return };
        let path = outer.path().join("runs");
        let made = Home::at_path(&path).expect("made");
        let again = Home::at_path(&path).expect("opened");
        assert_eq!((made.name(), made.level()), (again.name(), again.level()));
        assert_eq!(made.level(), outer.level().map(|level| level + 1));
        assert_eq!(Some(made.name()), outer.own().name().map(|name| name.join("runs")).as_deref());
        // Through a link to what is above it, it is the same place; a link in its place is none.
        let dir = testing::scratch();
        let link = testing::at(&dir, "link");
        std::os::unix::fs::symlink(outer.path(), &link).expect("a link");
        assert_eq!(Home::at_path(&link.join("runs")).expect("opened").path(), made.path());
        std::os::unix::fs::symlink(&path, testing::at(&dir, "runs")).expect("a link");
        assert!(Home::at_path(&testing::at(&dir, "runs")).is_err());
    }

    #[test]
    fn what_is_not_on_version_2_is_no_place_for_runs() {
        let dir = testing::scratch();
        assert!(matches!(Home::at_path(dir.path()), Err(CgroupError::NotACgroup)));
        assert!(Home::at_path(&testing::at(&dir, "runs")).is_err());
        assert!(!testing::at(&dir, "runs").exists());
        assert!(Home::at_path(Path::new("/")).is_err());
    }

    #[test]
    fn a_run_is_opened_by_its_id_alone_and_is_spent() {
        let Some(outer) = testing::cgroup("a_run_is_opened_by_its_id_alone") else { return };
        let home = Home::at_path(&outer.path().join("runs")).expect("made");
        let made = RunCgroup::create(&home, "run-x").expect("made");
        let opened = RunCgroup::open(&home, "run-x", made.tag()).expect("opened");
        assert!(opened.own().is_spent() && !made.own().is_spent());
        assert_eq!((opened.tag(), opened.level(), opened.path()), (made.tag(), made.level(), made.path()));
        let other = RunTag(made.tag().0 + 1);
        assert!(matches!(RunCgroup::open(&home, "run-x", other), Err(CgroupError::OtherCgroup { .. })));
        for name in ["..", ".", "", "../x", "cgroup.procs", "a/b"] {
            assert!(matches!(RunCgroup::open(&home, name, made.tag()), Err(CgroupError::Name(_))), "{name}");
        }
    }
}
