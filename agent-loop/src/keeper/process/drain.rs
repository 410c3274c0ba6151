//! The output of a run: from its pipes into files that the agent cannot reach, bounded and counted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

use super::protocol::OutputState;
use crate::model::BootNs;

/// The most bytes that one look at one pipe takes: a flood waits for the other runs.
pub(super) const ROUND: usize = 64 << 10;

/// How many looks the last drain of a run takes at most: more than a pipe can hold (1 MiB by default).
const LAST_ROUNDS: usize = 64;

/// The least time between two notices of one run.
const PAUSE_NS: u64 = 250_000_000;

/// How long a file that could not be written is left alone.
const RETRY_NS: u64 = 1_000_000_000;

/// One pipe and the file that it is drained into.
#[derive(Debug)]
pub(super) struct Stream {
    pipe: File,
    file: File,
}

impl Stream {
    /// Takes the reading end of a pipe, and a regular file that can only be appended to.
    ///
    /// # Errors
    /// A fragment that says what is wrong with them.
    pub(super) fn new(pipe: OwnedFd, file: OwnedFd) -> Result<Self, String> {
        let (kind, flags) = look(&pipe)?;
        if kind != SFlag::S_IFIFO || flags & OFlag::O_ACCMODE != OFlag::O_RDONLY {
            return Err("what output is read from must be the reading end of a pipe".to_owned());
        }
        let set = fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK));
        set.map_err(|errno| format!("setting a pipe of output to non-blocking: {errno}"))?;
        let (kind, flags) = look(&file)?;
        if kind != SFlag::S_IFREG || flags & OFlag::O_ACCMODE == OFlag::O_RDONLY || !flags.contains(OFlag::O_APPEND) {
            return Err("what output is written to must be a regular file open for appending".to_owned());
        }
        Ok(Self { pipe: pipe.into(), file: file.into() })
    }
}

fn look(fd: &OwnedFd) -> Result<(SFlag, OFlag), String> {
    let failed = |errno| format!("looking at a descriptor for output: {errno}");
    let kind = fstat(fd).map_err(failed)?.st_mode & SFlag::S_IFMT.bits();
    Ok((SFlag::from_bits_truncate(kind), OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).map_err(failed)?)))
}

/// Both streams of a run, and what became of them.
#[derive(Debug)]
pub(super) struct Drain {
    streams: [Option<Stream>; 2],
    budget: Option<u64>,
    state: OutputState,
    /// What was told last, and when.
    told: OutputState,
    told_at: BootNs,
    retry_at: BootNs,
}

impl Drain {
    /// Drains `streams` for a run; of their bytes `budget` are kept.
    pub(super) fn new(run: String, streams: [Option<Stream>; 2], budget: Option<u64>) -> Self {
        let state = OutputState::none(run);
        Self { streams, budget, told: state.clone(), state, told_at: BootNs(0), retry_at: BootNs(0) }
    }

    /// The pipes that are still open, each with its number.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.streams.iter().enumerate().filter_map(|(index, it)| Some((index, it.as_ref()?.pipe.as_fd())))
    }

    /// How it stands.
    pub(super) fn state(&self) -> &OutputState {
        &self.state
    }

    /// Takes what one pipe has, [`ROUND`] bytes at most; says whether there may be more.
    pub(super) fn round(&mut self, index: usize, now: BootNs) -> bool {
        let Some(Some(stream)) = self.streams.get_mut(index) else { return false };
        let mut bytes = [0; ROUND];
        match stream.pipe.read(&mut bytes) {
            Ok(count @ 1..) => {
                self.keep(index, bytes.get(..count).unwrap_or(&[]), now);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Ok(_) => {}
            Err(error) => self.state.failed = Some(format!("reading the agent's output: {error}")),
        }
        // Nobody can write to it any more.
        self.streams[index] = None;
        false
    }

    /// Takes what each pipe has, as one that was asked whether there is anything.
    pub(super) fn look(&mut self, now: BootNs) {
        for index in 0..self.streams.len() {
            self.round(index, now);
        }
        self.state.looked_ns = now.0;
    }

    /// Takes what is left, as far as it can be there already: called when nobody of the run lives any more.
    pub(super) fn finish(&mut self, now: BootNs) {
        for index in 0..self.streams.len() {
            let mut rounds = 0;
            while rounds < LAST_ROUNDS && self.round(index, now) {
                rounds += 1;
            }
        }
    }

    fn keep(&mut self, index: usize, bytes: &[u8], now: BootNs) {
        let Some(Some(Stream { file, .. })) = self.streams.get_mut(index) else { return };
        let state = &mut self.state;
        state.last_ns = now.0;
        let room = self.budget.map_or(u64::MAX, |budget| budget.saturating_sub(state.kept));
        let wanted = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        state.over_budget |= wanted < bytes.len();
        let mut written = 0;
        if wanted > 0 && now >= self.retry_at {
            let error = write(file, bytes.get(..wanted).unwrap_or(&[]), &mut written).err();
            if error.is_some() {
                self.retry_at = BootNs(now.0.saturating_add(RETRY_NS));
            }
            state.failed = error.map(|error| format!("writing the agent's output: {error}"));
        }
        state.kept += written as u64;
        state.lost += (bytes.len() - written) as u64;
    }

    /// Whether there is news, and if so when it may be told: what is worth stopping a run for at once, the rest
    /// a few times a second.
    pub(super) fn due(&self) -> Option<BootNs> {
        let alarm = self.state.over_budget && !self.told.over_budget
            || self.state.failed.is_some() && self.told.failed.is_none()
            || self.state.looked_ns > self.told.looked_ns;
        match self.state == self.told {
            true => None,
            false if alarm => Some(BootNs(0)),
            false => Some(BootNs(self.told_at.0.saturating_add(PAUSE_NS))),
        }
    }

    /// The news that may be told now.
    pub(super) fn news(&mut self, now: BootNs) -> Option<OutputState> {
        self.due().filter(|&due| due <= now)?;
        self.told = self.state.clone();
        self.told_at = now;
        Some(self.told.clone())
    }
}

/// Writes all of it, or as much as there is room for.
fn write(file: &mut File, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        drain: Drain,
        write: File,
    }

    impl Bench {
        fn new(budget: Option<u64>) -> Self {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let (read, write) = nix::unistd::pipe().expect("a pipe");
            let file = append(&dir.path().join("out"));
            let stream = Stream::new(read, file.into()).expect("fits");
            Self { dir, drain: Drain::new("run".to_owned(), [Some(stream), None], budget), write: write.into() }
        }

        fn say(&mut self, text: &[u8], at: u64) {
            self.write.write_all(text).expect("room in the pipe");
            self.drain.round(0, BootNs(at));
        }

        fn file(&self) -> Vec<u8> {
            fs::read(self.dir.path().join("out")).expect("the file")
        }
    }

    fn append(path: &Path) -> File {
        File::options().create(true).append(true).open(path).expect("a file")
    }

    #[test]
    fn what_is_beyond_the_budget_is_counted_and_thrown_away() {
        let mut bench = Bench::new(Some(10));
        bench.say(b"0123456789", 1);
        assert!(!bench.drain.state().over_budget, "it was reached, not passed");
        bench.say(b"ab", 2);
        bench.say(b"cd", 3);
        let state = bench.drain.state();
        assert_eq!((state.kept, state.lost, state.last_ns, state.over_budget), (10, 4, 3, true));
        assert_eq!(bench.file(), b"0123456789");
    }

    #[test]
    fn news_come_at_most_four_times_a_second_and_alarms_once_at_once() {
        let mut bench = Bench::new(Some(4));
        let quarter = PAUSE_NS;
        assert_eq!(bench.drain.news(BootNs(quarter)), None, "nothing was written");
        bench.say(b"a", quarter);
        assert_eq!(bench.drain.news(BootNs(quarter)).map(|news| news.kept), Some(1));
        bench.say(b"b", quarter + 1);
        assert_eq!(bench.drain.news(BootNs(quarter + 1)), None);
        assert_eq!(bench.drain.due(), Some(BootNs(2 * quarter)));
        bench.say(b"cdef", quarter + 2);
        assert_eq!(bench.drain.news(BootNs(quarter + 2)).map(|news| (news.kept, news.lost)), Some((4, 2)));
        bench.say(b"g", quarter + 3);
        assert_eq!(bench.drain.news(BootNs(quarter + 3)), None, "the alarm is given once");
        assert_eq!(bench.drain.news(BootNs(2 * quarter + 2)).map(|news| news.lost), Some(3));
        assert_eq!(bench.drain.due(), None);
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_bytes_not_the_pipe_and_is_tried_again() {
        let mut bench = Bench::new(None);
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let good = std::mem::replace(&mut bench.drain.streams[0].as_mut().expect("open").file, full);
        bench.say(b"abc", 5);
        assert_eq!(
            bench.drain.news(BootNs(5)).and_then(|news| news.failed).map(|why| why.contains("space")),
            Some(true)
        );
        bench.drain.streams[0].as_mut().expect("open").file = good;
        bench.say(b"def", 6);
        assert_eq!((bench.drain.state().kept, bench.drain.state().lost), (0, 6), "left alone for a while");
        bench.say(b"ghi", 5 + RETRY_NS);
        assert_eq!((bench.drain.state().kept, bench.drain.state().lost), (3, 6));
        assert_eq!((bench.drain.state().failed.as_deref(), bench.file().as_slice()), (None, &b"ghi"[..]));
    }

    #[test]
    fn the_end_of_all_writers_ends_the_stream() {
        let mut bench = Bench::new(None);
        bench.write.write_all(b"last").expect("room in the pipe");
        let (_, other) = nix::unistd::pipe().expect("a pipe");
        drop(std::mem::replace(&mut bench.write, other.into()));
        bench.drain.finish(BootNs(1));
        assert_eq!((bench.drain.pipes().count(), bench.file().as_slice()), (0, &b"last"[..]));
    }

    #[test]
    fn one_look_takes_a_bounded_share_of_a_flood() {
        let mut bench = Bench::new(None);
        fcntl(&bench.write, FcntlArg::F_SETPIPE_SZ(i32::try_from(4 * ROUND).expect("small"))).expect("a larger pipe");
        bench.say(&vec![b'x'; 3 * ROUND], 1);
        assert_eq!(bench.drain.state().kept, ROUND as u64);
    }

    #[test]
    fn only_a_pipe_and_a_file_for_appending_are_taken() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let pipe = || nix::unistd::pipe().expect("a pipe");
        let good = || OwnedFd::from(append(&dir.path().join("out")));
        let plain = || OwnedFd::from(File::create(dir.path().join("plain")).expect("a file"));
        let null = || OwnedFd::from(File::options().append(true).open("/dev/null").expect("/dev/null"));
        let reading = || OwnedFd::from(File::open(dir.path().join("plain")).expect("a file"));
        assert!(Stream::new(pipe().0, good()).is_ok());
        for (pipe, file) in
            [(pipe().1, good()), (good(), good()), (pipe().0, plain()), (pipe().0, null()), (pipe().0, reading())]
        {
            assert!(Stream::new(pipe, file).is_err());
        }
    }
}
