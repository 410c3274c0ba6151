//! The thread that writes: bytes into segments, hashes into the tree, signatures over it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tlog_tiles::{Hash, record_hash};

use super::disk::Disk;
use super::front::Shared;
use super::key::Key;
use super::layout;
use super::mend;
use super::note::{self, Stamp};
use super::plan::Plan;
use super::settings::Settings;
use super::tree::{TileId, Tree, WIDTH};
use crate::audit::anchor::{Handed, Slot};
use crate::clock;
use crate::store::Lock;

/// How long the end waits for a disk that fails.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How often a full disk is looked at.
const FULL_LOOK: Duration = Duration::from_secs(1);

/// What the front end hands over.
#[derive(Debug)]
pub(super) enum Message {
    /// Lines, in their order.
    Batch(Batch),
    /// All that came before is to be signed now.
    Sign,
    /// Nothing comes any more.
    Close,
}

/// Lines that are handed over together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// A segment begins with them: the number of its first line.
    pub(super) begins: Option<u64>,
    /// The lines, each with its end.
    pub(super) bytes: Vec<u8>,
    /// Where each ends.
    pub(super) ends: Vec<usize>,
    /// Somebody waits for them.
    pub(super) urgent: bool,
    /// A checkpoint is to cover them at once.
    pub(super) sign: bool,
    /// That checkpoint is kept.
    pub(super) keep: bool,
    /// Closed segments that go once all this is durable.
    pub(super) remove: Vec<PathBuf>,
    /// Checkpoints that are kept once all this is durable: that an anchor has them is told here.
    pub(super) put: Vec<(PathBuf, Vec<u8>)>,
}

/// What the thread is made of.
pub(super) struct Writer {
    pub(super) disk: Box<dyn Disk>,
    pub(super) tree: Tree,
    pub(super) key: Key,
    /// Who hands checkpoints out.
    pub(super) anchors: Option<Arc<Slot>>,
    pub(super) boot_id: String,
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    /// Bytes of the open segment that are durable.
    pub(super) offset: u64,
    /// The first line of the open segment.
    pub(super) first: u64,
    pub(super) plan: Plan,
    pub(super) queue: VecDeque<Batch>,
    /// What was written after `offset` and is not durable: all of it is written again where a sync failed.
    pub(super) unsynced: Vec<u8>,
    pub(super) rewrite: bool,
    /// Full tiles that are not on the disk yet.
    pub(super) tiles: Vec<(TileId, Vec<Hash>)>,
    /// The tiles of the right edge as they were put last.
    pub(super) edge: Vec<PathBuf>,
    /// Tiles that lie there and need not be durable yet: the lines of the open segment can make them again.
    pub(super) soft: Vec<PathBuf>,
    pub(super) keep: bool,
    pub(super) remove: Vec<PathBuf>,
    pub(super) put: Vec<(PathBuf, Vec<u8>)>,
    /// Whether the reserve is there, of this writer or of one before it.
    pub(super) reserved: bool,
    /// Held as long as anything is written: another writer is refused.
    pub(super) lock: Option<Lock>,
    pub(super) start: Instant,
}

impl Writer {
    /// Runs until nothing comes any more.
    pub(super) fn run(mut self, from: &Receiver<Message>) {
        // The reserve is there before the first line is durable.
        self.look_for_room();
        loop {
            // While the disk is full it is looked at every second: nothing is launched meanwhile.
            let full = self.shared.read().full;
            let sleep = self.plan.sleep(self.start.elapsed());
            match from.recv_timeout(if full { sleep.min(FULL_LOOK) } else { sleep }) {
                Ok(Message::Batch(batch)) => {
                    self.queue.push_back(batch);
                    let (mut closing, mut signing) = (false, false);
                    // What else waits goes to the disk together with it.
                    while let Ok(message) = from.try_recv() {
                        match message {
                            Message::Batch(batch) => self.queue.push_back(batch),
                            Message::Sign => signing = true,
                            Message::Close => closing = true,
                        }
                    }
                    if closing {
                        return self.close();
                    }
                    if signing {
                        self.finish();
                    }
                }
                Ok(Message::Sign) => self.finish(),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return self.close(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.work();
        }
    }

    /// Writes, makes durable and signs all that came.
    fn finish(&mut self) {
        let done = self.write_all().and_then(|()| {
            if self.plan.unsynced > 0 {
                self.sync()?;
            }
            if self.shared.read().signed < self.tree.size() { self.sign() } else { Ok(()) }
        });
        self.tell(done);
    }

    /// Writes what waits; makes durable and signs what is due.
    fn work(&mut self) {
        let now = self.start.elapsed();
        if !self.plan.may_try(now) {
            return;
        }
        if self.try_work() {
            // Nothing else wakes us for what the reserve made room for.
            self.try_work();
        }
    }

    /// Does what is due; whether to try again at once.
    fn try_work(&mut self) -> bool {
        let done = self.write_all().and_then(|()| {
            if self.plan.must_sync(self.start.elapsed()) {
                self.sync()?;
            }
            if self.plan.must_sign(self.start.elapsed()) {
                self.sign()?;
            }
            Ok(())
        });
        self.tell(done)
    }

    /// Takes how it went; whether the reserve was given up to a full disk, which is then tried again at once.
    fn tell(&mut self, done: io::Result<()>) -> bool {
        let Err(error) = done else {
            self.plan.failed_at = None;
            if self.shared.read().failing.is_some() {
                self.shared.change(|progress| progress.failing = None);
            }
            if self.shared.read().full {
                self.look_for_room();
            }
            return false;
        };
        let full = error.kind() == io::ErrorKind::StorageFull;
        self.shared.change(|progress| {
            progress.full |= full;
            progress.failing = Some(error.to_string());
        });
        if full && self.reserved && self.disk.remove(Path::new(layout::RESERVE)).is_ok() {
            self.reserved = false;
            // An earlier failure does not hold up the try that follows.
            self.plan.failed_at = None;
            return true;
        }
        self.plan.failed_at = Some(self.start.elapsed());
        false
    }

    fn write_all(&mut self) -> io::Result<()> {
        while let Some(mut batch) = self.queue.pop_front() {
            if let Err(error) = self.write(&mut batch) {
                self.queue.push_front(batch);
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch) -> io::Result<()> {
        if let Some(first) = batch.begins {
            self.begin(first)?;
            batch.begins = None;
        }
        self.disk.write(&batch.bytes, self.offset + self.unsynced.len() as u64)?;
        let mut from = 0;
        let tiles = &mut self.tiles;
        for end in &batch.ends {
            // Without its line end.
            let line = batch.bytes.get(from..end.saturating_sub(1)).unwrap_or_default();
            self.tree.push(record_hash(line), &mut |id, hashes| tiles.push((id, hashes.to_vec())));
            from = *end;
        }
        self.unsynced.extend_from_slice(&batch.bytes);
        self.keep |= batch.keep;
        self.remove.append(&mut batch.remove);
        self.put.append(&mut batch.put);
        let now = self.start.elapsed();
        self.plan.wrote(batch.ends.len() as u64, batch.urgent, batch.sign, now);
        Ok(())
    }

    /// Begins a segment once everything before it is durable, signed, and its hashes are.
    fn begin(&mut self, first: u64) -> io::Result<()> {
        let is_first = self.tree.size() == 0;
        if !is_first {
            if self.plan.unsynced > 0 {
                self.sync()?;
            }
            self.keep = true;
            self.sign()?;
            self.disk.sync_all()?;
            self.soft.clear();
        }
        self.disk.begin(first)?;
        if !is_first {
            self.disk.pack(self.first);
        }
        (self.first, self.offset) = (first, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.rewrite {
            // After a sync that failed the kernel may have dropped any page and call the next sync a success.
            self.disk.write(&self.unsynced, self.offset)?;
        }
        self.rewrite = true;
        self.disk.sync()?;
        self.rewrite = false;
        self.offset += self.unsynced.len() as u64;
        self.shared.pending.fetch_sub(self.unsynced.len(), Ordering::Relaxed);
        self.unsynced.clear();
        self.plan.synced();
        let durable = self.tree.size();
        self.shared.change(|progress| (progress.durable, progress.failing) = (durable, None));
        self.remove_all();
        while let Some((path, note)) = self.put.last() {
            self.disk.put(path, note, true)?;
            self.put.pop();
        }
        Ok(())
    }

    /// Removes what is to go. What cannot be removed is kept in mind, holds nothing else up, and is no failure to write.
    fn remove_all(&mut self) {
        let disk = &mut self.disk;
        self.remove.retain(|path| disk.remove(path).is_err());
        let left = self.remove.len() as u64;
        if self.shared.read().unremoved != left {
            self.shared.change(|progress| progress.unremoved = left);
        }
    }

    /// Puts the tiles, then the checkpoint over all lines, which are durable.
    fn sign(&mut self) -> io::Result<()> {
        let Self { disk, soft, tiles, first, .. } = self;
        let mut put = |id: TileId, path: &Path, hashes: &[Hash]| {
            // The open segment is hashed on from these, and the lines before it may be removed.
            let durable = id.is_edge_of(*first);
            disk.put(path, &mend::bytes(hashes), durable)?;
            if !durable {
                soft.push(path.to_owned());
            }
            io::Result::Ok(())
        };
        while let Some((id, hashes)) = tiles.last() {
            put(*id, &layout::tile(id.level, id.index, WIDTH), hashes)?;
            tiles.pop();
        }
        let mut edge = Vec::new();
        for (id, hashes) in self.tree.partial() {
            let path = layout::tile(id.level, id.index, hashes.len());
            if !self.edge.contains(&path) {
                put(id, &path, hashes)?;
            }
            edge.push(path);
        }
        let clock = clock::both();
        let stamp = Stamp {
            size: self.tree.size(),
            root: self.tree.root(),
            time: clock.wall(clock.boot),
            boot_id: self.boot_id.clone(),
            boot_ns: clock.boot.0,
        };
        let note = note::sign(self.key.signer(), &stamp).map_err(io::Error::other)?;
        // In this order: one that is kept and newer than the newest would look like a roll-back.
        self.disk.put(Path::new(layout::CHECKPOINT), &note, true)?;
        if self.keep {
            self.disk.put(&layout::kept(stamp.size), &note, true)?;
            self.keep = false;
        }
        for path in std::mem::replace(&mut self.edge, edge) {
            if !self.edge.contains(&path) {
                self.soft.retain(|soft| *soft != path);
                self.remove.push(path);
            }
        }
        self.remove_all();
        if let Some(anchors) = &self.anchors {
            let root = data_encoding::BASE64.encode(&stamp.root.0);
            anchors.offer(Handed { origin: self.key.origin().to_owned(), size: stamp.size, root, text: note });
        }
        self.plan.signed(self.start.elapsed());
        self.shared.change(|progress| (progress.signed, progress.signed_ns) = (stamp.size, stamp.boot_ns));
        self.look_for_room();
        Ok(())
    }

    /// Looks how full the disk is, and makes the reserve again where there is room for it.
    fn look_for_room(&mut self) {
        let free = self.disk.free();
        // On a small disk the mark is a twentieth of it.
        let mark = free.map_or(self.settings.low_water, |(_, whole)| self.settings.low_water.min(whole / 20));
        let has = |bytes: u64| free.is_none_or(|(free, _)| free >= bytes);
        // Room for the reserve beyond the mark, or the reserve itself would fill the disk.
        if has(mark.saturating_add(self.settings.reserve)) && !self.reserved && self.settings.reserve > 0 {
            self.reserved = self.disk.reserve(self.settings.reserve).is_ok();
        }
        self.shared.change(|progress| (progress.free, progress.full) = (free.map(|(free, _)| free), !has(mark)));
    }

    /// Writes, makes durable and signs everything, within reason.
    fn close(mut self) {
        let end = Instant::now() + CLOSE_WITHIN;
        self.keep = true;
        loop {
            let done = self.write_all().and_then(|()| {
                if self.plan.unsynced > 0 {
                    self.sync()?;
                }
                self.sign()?;
                // Who reads a closed log after a power cut finds its hashes.
                self.disk.settle(&self.soft)
            });
            let is_done = done.is_ok();
            self.tell(done);
            if is_done || Instant::now() >= end {
                break;
            }
            std::thread::sleep(self.plan.sleep(self.start.elapsed()).min(Duration::from_millis(100)));
        }
        drop(self.lock.take());
        self.shared.change(|progress| progress.closed = true);
    }
}
