//! Where the socket lies: a directory that nobody else can write to, the right mode before anybody can connect.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{geteuid, getpid};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::Access;

/// Connections that wait to be taken.
const BACKLOG: u32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another agent-loop answers on {}: stop it first, or name another socket", .0.display())]
    AlreadyRunning(PathBuf),
    /// The place is not safe: whoever can write there could stand in for the daemon.
    #[error("{0}")]
    Unsafe(String),
    /// A step failed.
    #[error("{doing} {}: {why}", path.display())]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What went wrong.
        why: io::Error,
    },
}

/// The path of a bound socket; dropped, it is removed if it is still this socket's.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds, with the mode and the owners set before the socket has its name.
pub(super) async fn bind(path: &Path, access: Access) -> Result<(UnixListener, Place), BindError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |why| BindError::Failed { doing, path, why }
    };
    let (Some(dir), Some(name)) = (path.parent().filter(|_| path.is_absolute()), path.file_name()) else {
        return Err(BindError::Unsafe(format!("the socket's path {} is not absolute", path.display())));
    };
    safe_directory(dir)?;
    not_answering(path).await?;
    let mut young = std::ffi::OsString::from(".");
    young.push(name);
    young.push(format!(".{}", getpid()));
    let young = dir.join(young);
    match fs::remove_file(&young) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &young)(why)),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixSocket::new_stream().map_err(failed("making the socket", path))?;
    socket.bind(&young).map_err(failed("binding the socket", &young))?;
    let ready = || {
        let mode = if access.group.is_some() { 0o660 } else { 0o600 };
        std::os::unix::fs::lchown(&young, access.owner, access.group).map_err(failed("handing over", &young))?;
        fs::set_permissions(&young, Permissions::from_mode(mode)).map_err(failed("setting the mode of", &young))?;
        let listener = socket.listen(BACKLOG).map_err(failed("listening on", &young))?;
        let meta = fs::symlink_metadata(&young).map_err(failed("reading", &young))?;
        fs::rename(&young, path).map_err(failed("naming the socket", path))?;
        Ok((listener, Place { path: path.to_owned(), file: (meta.dev(), meta.ino()) }))
    };
    ready().inspect_err(|_| drop(fs::remove_file(&young)))
}

/// Nobody answers on the path, and what is there may be replaced.
async fn not_answering(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(BindError::Failed { doing: "reading", path: path.to_owned(), why }),
        Ok(meta) if !meta.file_type().is_socket() => {
            let text = format!("{} is there and no socket: remove it, or name another socket", path.display());
            return Err(BindError::Unsafe(text));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(why) if matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        // Somebody listens, if only too busy to take one more.
        Ok(_) => Err(BindError::AlreadyRunning(path.to_owned())),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => Err(BindError::AlreadyRunning(path.to_owned())),
        Err(why) => Err(BindError::Failed { doing: "asking who is on", path: path.to_owned(), why }),
    }
}

/// The directory exists and only we can put something into it or in its place.
fn safe_directory(dir: &Path) -> Result<(), BindError> {
    let failed = |doing| move |why| BindError::Failed { doing, path: dir.to_owned(), why };
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(failed("making")(why)),
        Ok(()) | Err(_) => {}
    }
    let real = dir.canonicalize().map_err(failed("resolving"))?;
    for step in real.ancestors() {
        let meta = fs::symlink_metadata(step).map_err(failed("reading"))?;
        let ours = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
        // In a sticky directory nobody can take away what is ours; the socket's own is not one.
        let writable = meta.mode() & 0o022 != 0 && (step == real || meta.mode() & 0o1000 == 0);
        if !meta.is_dir() || !ours || writable {
            let text = format!(
                "{} is not safe for the control socket in {}: it must be a directory of root that nobody else can \
                 write to (it is uid {}, mode {:04o})",
                step.display(),
                dir.display(),
                meta.uid(),
                meta.mode() & 0o7777
            );
            return Err(BindError::Unsafe(text));
        }
    }
    Ok(())
}
