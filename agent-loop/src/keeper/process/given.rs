//! The descriptors that came with a request: as many as were announced, and what each has to be.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::fstat;

use super::drain::Stream;
use super::protocol::{Descriptors, LONGEST_SPEC, Terms};
use super::refused::Refused;
use crate::keeper::launch::{Become, LaunchSpec, Session, Stdio};

/// The descriptors of a launch or an adoption; those of the agent are closed with it.
#[derive(Debug)]
pub(super) struct Given {
    spec: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    writers: [Option<OwnedFd>; 2],
    /// The pipes with their files.
    pub(super) drains: [Option<Stream>; 2],
}

/// Refuses descriptors where none belong.
pub(super) fn nothing(fds: &[OwnedFd]) -> Result<(), Refused> {
    if fds.is_empty() { Ok(()) } else { Err(Refused::new(format!("{} descriptors came along unasked", fds.len()))) }
}

impl Given {
    /// Takes them apart, in the order of the protocol.
    pub(super) fn take(fds: Vec<OwnedFd>, spec: bool, announced: Descriptors) -> Result<Self, Refused> {
        let Descriptors { stdin, writers, drains } = announced;
        let wanted = usize::from(spec) + usize::from(stdin) + 2 * usize::from(writers) + 4 * usize::from(drains);
        if fds.len() != wanted {
            return Err(Refused::new(format!("{} descriptors came along, announced were {wanted}", fds.len())));
        }
        let mut fds = fds.into_iter();
        let mut next = |there: bool| if there { fds.next() } else { None };
        let (spec, stdin, writers) = (next(spec), next(stdin), [next(writers), next(writers)]);
        let mut stream = || match (next(drains), next(drains)) {
            (Some(pipe), Some(file)) => Stream::new(pipe, file).map(Some).map_err(Refused::new),
            (None, _) | (_, None) => Ok(None),
        };
        Ok(Self { spec, stdin, writers, drains: [stream()?, stream()?] })
    }

    /// Reads what is to be launched, with these descriptors as its standard ones.
    ///
    /// What the specification says of its standard descriptors is not used. It may name an account of the terms, and
    /// nothing else: its numbers and groups are what the host's user database says, never what was sent. Its session
    /// and its way to more rights are left to it only where it may be root anyway.
    pub(super) fn spec(&self, terms: &Terms) -> Result<LaunchSpec, Refused> {
        let fd = self.spec.as_ref().ok_or_else(|| Refused::new("there is no specification"))?;
        let mut spec: LaunchSpec = serde_json::from_slice(&sealed(fd)?)
            .map_err(|error| Refused::new(format!("the specification cannot be read: {error}")))?;
        match &mut spec.user {
            Some(Become::Account { name, may_be_root }) if terms.users.contains(name) => {
                *may_be_root = terms.allow_root;
            }
            Some(Become::Account { name, .. }) => {
                return Err(Refused::new(format!(
                    "it would run as {name:?}, which this keeper was not started for: end the keeper and start it again \
                     with `--user {name}`"
                )));
            }
            Some(Become::User(user)) => {
                let uid = user.uid;
                return Err(Refused::new(format!("it names the numbers of user {uid} itself, not an account")));
            }
            None if terms.allow_root => {}
            None => {
                return Err(Refused::new(
                    "it would run as root, which this keeper was not allowed to: name an account, or end the keeper and \
                     start it again with `--allow-root`",
                ));
            }
        }
        if !terms.allow_root {
            spec.no_new_privs = true;
            spec.session = Session::New;
        }
        let [out, err] = &self.writers;
        spec.stdio = [&self.stdin, out, err].map(|fd| fd.as_ref().map_or(Stdio::Null, |fd| Stdio::Fd(fd.as_raw_fd())));
        Ok(spec)
    }
}

/// The bytes of a memory file that nobody can change any more.
fn sealed(fd: &OwnedFd) -> Result<Vec<u8>, Refused> {
    let wanted = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    if !seals.is_ok_and(|seals| seals.contains(wanted)) {
        return Err(Refused::new("the specification must come in a sealed memory file"));
    }
    let doing = "reading the specification";
    let size = fstat(fd).map_err(|errno| Refused::because(doing, errno))?.st_size;
    let size = u64::try_from(size).ok().filter(|&size| size <= LONGEST_SPEC);
    let size = size.and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or_else(|| Refused::new(format!("the specification is longer than {LONGEST_SPEC} bytes")))?;
    let mut bytes = vec![0; size];
    let file = File::from(fd.as_fd().try_clone_to_owned().map_err(|error| Refused::because(doing, error))?);
    file.read_exact_at(&mut bytes, 0).map_err(|error| Refused::because(doing, error))?;
    Ok(bytes)
}
