//! The keeper's place: one keeper at a time, its socket in a directory that is nobody else's.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};

use super::KeeperError;

/// A listening socket, and the lock that makes it the only one.
#[derive(Debug)]
pub(super) struct Place {
    /// It accepts without waiting.
    pub(super) listener: OwnedFd,
    path: PathBuf,
    /// Any descriptor of this file that we closed would end the lock: it is opened once.
    _lock: File,
}

fn io(doing: String) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::Io { doing, source }
}

impl Place {
    /// Takes the place, and replaces the socket of a keeper that is dead.
    ///
    /// # Errors
    /// [`KeeperError::AlreadyRunning`] and [`KeeperError::Unsafe`]; what the kernel reports.
    pub(super) fn take(path: &Path) -> Result<Self, KeeperError> {
        let absolute = std::path::absolute(path).map_err(io(format!("resolving {}", path.display())))?;
        let dir = absolute.parent().ok_or_else(|| KeeperError::Unsafe("/ is no place for a socket".to_owned()))?;
        check(dir)?;
        let lock = lock(&absolute)?;
        match fs::symlink_metadata(&absolute) {
            Ok(old) if old.file_type().is_socket() => {
                fs::remove_file(&absolute).map_err(io(format!("removing the old {}", path.display())))?;
            }
            Ok(_) => return Err(KeeperError::Unsafe(format!("{} is there and is no socket", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(format!("looking at {}", path.display()))(error)),
        }
        let doing = || format!("listening at {}", path.display());
        let failed = |errno: Errno| io(doing())(errno.into());
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed)?;
        let address = UnixAddr::new(&absolute).map_err(failed)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &address).map_err(failed)?;
        // Nobody else can enter the directory meanwhile.
        fs::set_permissions(&absolute, fs::Permissions::from_mode(0o600)).map_err(io(doing()))?;
        let backlog = Backlog::new(8).map_err(failed)?;
        listen(&listener, backlog).map_err(failed)?;
        Ok(Self { listener, path: absolute, _lock: lock })
    }
}

impl Drop for Place {
    /// The lock file stays: were it removed, two could hold the lock of two files of one name.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Refuses a directory that others could enter, or put something into.
fn check(dir: &Path) -> Result<(), KeeperError> {
    let found = fs::symlink_metadata(dir).map_err(io(format!("looking at {}", dir.display())))?;
    let own = nix::unistd::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(KeeperError::Unsafe(format!(
            "{} must be a directory of user {own} that nobody else may enter: `install -d -m 0700 {}`",
            dir.display(),
            dir.display()
        )));
    }
    Ok(())
}

/// A record lock, which no child inherits (flock(2) and OFD locks are inherited).
fn lock(socket: &Path) -> Result<File, KeeperError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let doing = || format!("locking {}", path.display());
    let mut options = File::options();
    // std opens with O_CLOEXEC.
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&path).map_err(io(doing()))?;
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(file),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(KeeperError::AlreadyRunning(socket.to_owned())),
        Err(errno) => Err(io(doing())(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::keeper::testing;

    fn private() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a scratch directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("our directory");
        dir
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_left() {
        let dir = private();
        let path = testing::at(&dir, "socket");
        drop(UnixListener::bind(&path).expect("a socket"));
        let place = Place::take(&path).expect("taken");
        assert_eq!(fs::metadata(&path).expect("a socket").mode() & 0o777, 0o600);
        drop(place);
        assert!(!path.exists());
        fs::write(&path, "x").expect("a file");
        assert!(matches!(Place::take(&path), Err(KeeperError::Unsafe(_))));
        assert_eq!(fs::read(&path).expect("still there"), b"x");
    }

    #[test]
    fn a_directory_that_others_may_enter_is_no_place() {
        let dir = private();
        let inner = testing::at(&dir, "inner");
        fs::create_dir(&inner).expect("a directory");
        for mode in [0o755, 0o710, 0o701, 0o770, 0o1777] {
            fs::set_permissions(&inner, fs::Permissions::from_mode(mode)).expect("our directory");
            assert!(matches!(Place::take(&inner.join("socket")), Err(KeeperError::Unsafe(_))), "{mode:o}");
        }
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).expect("our directory");
        std::os::unix::fs::symlink(&inner, testing::at(&dir, "link")).expect("a link");
        assert!(matches!(Place::take(&testing::at(&dir, "link").join("socket")), Err(KeeperError::Unsafe(_))));
        assert!(Place::take(&inner.join("socket")).is_ok());
    }
}
