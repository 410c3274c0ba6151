//! The files of one run: what it writes, and the pipes it writes into.
//!
//! The agent holds the write ends; a keeper drains the pipes into files that the agent can neither open nor truncate.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};

use super::StoreError;
use super::entry::{self, Access, refused};
use super::place::{LogDir, Place, StateDir, failed, failed_at};
use crate::run::RunId;

/// The directory of the pipes, in the state directory.
const PIPES: &str = "pipes";
/// The directory of the runs' output, in the log directory.
const RUNS: &str = "runs";
/// Standard output, then standard error: the file in the directory of the run, the ending of the pipe's name.
const STREAMS: [(&str, &str); 2] = [("stdout", ".out"), ("stderr", ".err")];

/// What a keeper moves: from the pipe (read-only, not blocking) to the end of the file.
pub type Drain = (OwnedFd, OwnedFd);

/// The files of a run to be launched; standard output first, then standard error.
#[derive(Debug)]
pub struct RunFiles {
    /// What the agent writes into. Each is open for reading too, so that the agent gets no SIGPIPE while no keeper
    /// reads; whoever launched the agent closes its own, else the drains never end.
    pub writers: [OwnedFd; 2],
    /// What a keeper moves.
    pub drains: [Drain; 2],
}

/// The files of a run that lives; standard output first, then standard error.
#[derive(Debug)]
pub struct Reopened {
    /// What a keeper moves.
    pub drains: [Drain; 2],
    /// How many bytes the files hold already.
    pub held: [u64; 2],
}

impl RunFiles {
    /// Makes the files and pipes of a run that is about to be launched.
    ///
    /// An attempt before, which executed nothing, may have left empty ones.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] where something else stands in their place, or output does already;
    /// [`StoreError::Failed`].
    pub fn create(state: &StateDir, log: &LogDir, run: RunId) -> Result<Self, StoreError> {
        let (pipes, runs) = places(state, log, run)?;
        let [out, err] = STREAMS;
        let (first, first_drain) = make(&pipes, &runs, run, out)?;
        let (second, second_drain) = make(&pipes, &runs, run, err)?;
        Ok(Self { writers: [first, second], drains: [first_drain, second_drain] })
    }

    /// Opens the files and pipes of a run that was launched before.
    ///
    /// # Errors
    /// As [`RunFiles::create`]; [`StoreError::Failed`] where one is gone.
    pub fn reopen(state: &StateDir, log: &LogDir, run: RunId) -> Result<Reopened, StoreError> {
        let (pipes, runs) = places(state, log, run)?;
        let [out, err] = STREAMS;
        let (first, first_held) = again(&pipes, &runs, run, out)?;
        let (second, second_held) = again(&pipes, &runs, run, err)?;
        Ok(Reopened { drains: [first, second], held: [first_held, second_held] })
    }

    /// Removes the pipes of a run that is over; its output stays.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; pipes that are gone already are none.
    pub fn remove_pipes(state: &StateDir, run: RunId) -> Result<(), StoreError> {
        let pipes = state.0.below(PIPES)?;
        for (_, ending) in STREAMS {
            remove(&pipes, &format!("{run}{ending}"))?;
        }
        Ok(())
    }

    /// The runs that have pipes: those of runs that are over were left by a crash.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where they cannot be listed; [`StoreError::Unsafe`] where something else is there.
    pub fn with_pipes(state: &StateDir) -> Result<Vec<RunId>, StoreError> {
        let pipes = state.0.below(PIPES)?;
        let doing = "listing the pipes of runs";
        let mut listing =
            Dir::openat(&pipes.dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(failed(doing))?;
        let mut runs = std::collections::BTreeSet::new();
        for entry in listing.iter() {
            let entry = entry.map_err(failed(doing))?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            let id = STREAMS.iter().find_map(|(_, ending)| name.strip_suffix(ending));
            match id.and_then(|id| id.parse::<RunId>().ok().filter(|run| run.to_string() == id)) {
                Some(run) => drop(runs.insert(run)),
                None => {
                    let path = pipes.path.join(&*name);
                    return Err(refused(&path, "is not a pipe of a run", "find out who put it there, and remove it"));
                }
            }
        }
        Ok(runs.into_iter().collect())
    }

    /// Where below the log directory the output of a run is: standard output, standard error. For people; not to be opened by us.
    #[must_use]
    pub fn paths(log: &Path, run: RunId) -> [PathBuf; 2] {
        STREAMS.map(|(file, _)| log.join(RUNS).join(run.to_string()).join(file))
    }

    /// Opens the output of a run for reading: standard output, standard error.
    ///
    /// # Errors
    /// As [`RunFiles::reopen`].
    pub fn read(log: &LogDir, run: RunId) -> Result<[File; 2], StoreError> {
        let runs = log.0.below(RUNS)?.below(&run.to_string())?;
        let [(out, _), (err, _)] = STREAMS;
        Ok([runs.file(out, Access::Read, u64::MAX)?, runs.file(err, Access::Read, u64::MAX)?])
    }
}

impl Reopened {
    /// Moves what is left in the pipes into the files, as far as the budget of both allows; returns how many bytes. For
    /// a run of which nothing lives, so that nothing more comes.
    ///
    /// # Errors
    /// What reading or writing reports.
    pub fn read_the_rest(self, budget: Option<u64>) -> std::io::Result<u64> {
        use std::io::{ErrorKind, Read as _, Write as _};
        let before: u64 = self.held.iter().sum();
        let mut room = budget.map_or(u64::MAX, |budget| budget.saturating_sub(before));
        let mut moved = 0;
        for (pipe, file) in self.drains {
            let (mut pipe, mut file) = (File::from(pipe), File::from(file));
            let mut bytes = vec![0; 64 << 10];
            loop {
                let read = match pipe.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                let kept = read.min(usize::try_from(room).unwrap_or(usize::MAX));
                file.write_all(bytes.get(..kept).unwrap_or_default())?;
                room -= kept as u64;
                moved += kept as u64;
            }
        }
        Ok(moved)
    }
}

fn places(state: &StateDir, log: &LogDir, run: RunId) -> Result<(Place, Place), StoreError> {
    Ok((state.0.below(PIPES)?, log.0.below(RUNS)?.below(&run.to_string())?))
}

fn make(pipes: &Place, runs: &Place, run: RunId, (file, ending): (&str, &str)) -> Result<(OwnedFd, Drain), StoreError> {
    let output = runs.file(file, Access::Append, u64::MAX)?;
    if length(&output)? > 0 {
        return Err(refused(&runs.path.join(file), "holds output already", "no run is launched twice; move it away"));
    }
    let name = format!("{run}{ending}");
    remove(pipes, &name)?;
    mkfifoat(&pipes.dir, name.as_str(), Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(failed_at("making the pipe", &pipes.path.join(&name)))?;
    let pipe = fifo(pipes, &name, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    let writer = fifo(pipes, &name, OFlag::O_RDWR)?;
    Ok((writer, (pipe, output.into())))
}

fn again(pipes: &Place, runs: &Place, run: RunId, (file, ending): (&str, &str)) -> Result<(Drain, u64), StoreError> {
    let output = runs.file(file, Access::AppendExisting, u64::MAX)?;
    let held = length(&output)?;
    let pipe = fifo(pipes, &format!("{run}{ending}"), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    Ok(((pipe, output.into()), held))
}

/// Opens a pipe. What stands in its place is not waited for: only the owner of the directory could have put it there.
fn fifo(pipes: &Place, name: &str, how: OFlag) -> Result<OwnedFd, StoreError> {
    let path = pipes.path.join(name);
    let safe = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = openat(&pipes.dir, name, how | safe, Mode::empty()).map_err(failed_at("opening the pipe", &path))?;
    entry::check_fifo(&opened, &path)?;
    Ok(opened)
}

fn length(file: &File) -> Result<u64, StoreError> {
    let stat = nix::sys::stat::fstat(file).map_err(failed("looking at the output of a run"))?;
    Ok(u64::try_from(stat.st_size).unwrap_or_default())
}

fn remove(pipes: &Place, name: &str) -> Result<(), StoreError> {
    match unlinkat(&pipes.dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed_at("removing the pipe", &pipes.path.join(name))(errno)),
    }
}
