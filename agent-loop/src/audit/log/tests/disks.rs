//! Disks that are full, fail, forget, or keep what is to go.

use super::*;

/// What a disk does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ill {
    Full,
    Io,
    /// A sync fails, and what was written since the last one is lost, as a kernel may lose it.
    Forgetful,
    /// A sync does not come back.
    Hung,
}

#[derive(Clone, Default)]
struct Mood(Arc<Mutex<Option<Ill>>>);

impl Mood {
    fn set(&self, ill: Option<Ill>) {
        *self.0.lock().expect("a mood") = ill;
    }

    fn get(&self) -> Option<Ill> {
        *self.0.lock().expect("a mood")
    }

    fn check(&self) -> io::Result<()> {
        match self.get() {
            Some(Ill::Full) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(Ill::Io) => Err(io::Error::other("input/output error")),
            Some(Ill::Forgetful | Ill::Hung) | None => Ok(()),
        }
    }
}

/// A disk in a mood.
struct Moody {
    files: Files,
    mood: Mood,
    synced: u64,
    written: u64,
    packed: Arc<Mutex<Vec<u64>>>,
}

impl Disk for Moody {
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.mood.check().is_err() {
            // A part of it gets there.
            self.files.write(&bytes[..bytes.len() / 2], at)?;
        }
        self.mood.check()?;
        self.written = at + bytes.len() as u64;
        self.files.write(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.mood.get() == Some(Ill::Forgetful) {
            let lost = usize::try_from(self.written - self.synced).expect("few");
            self.files.write(&vec![0; lost], self.synced)?;
            self.mood.set(None);
            return Err(io::Error::other("input/output error"));
        }
        while self.mood.get() == Some(Ill::Hung) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.mood.check()?;
        self.synced = self.written;
        self.files.sync()
    }

    fn begin(&mut self, first: u64) -> io::Result<()> {
        self.mood.check()?;
        (self.synced, self.written) = (0, 0);
        self.files.begin(first)
    }

    fn put(&mut self, name: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        self.mood.check()?;
        self.files.put(name, bytes, durable)
    }

    fn settle(&mut self, names: &[PathBuf]) -> io::Result<()> {
        self.mood.check()?;
        self.files.settle(names)
    }

    fn remove(&mut self, name: &Path) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.mood.check()
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.mood.check()?;
        self.files.reserve(bytes)
    }

    fn free(&self) -> Option<(u64, u64)> {
        self.files.free()
    }

    fn pack(&mut self, first: u64) {
        self.packed.lock().expect("ours").push(first);
    }
}

fn moody(dir: &Dir, settings: Settings) -> (AuditLog, Mood) {
    let mood = Mood::default();
    let given = mood.clone();
    let packed = Arc::default();
    let disk = |files| Box::new(Moody { files, mood: given, synced: 0, written: 0, packed }) as Box<dyn Disk>;
    (AuditLog::open_on(&dir.place(), settings, BOOT, disk).expect("a log").0, mood)
}

#[test]
fn a_segment_is_packed_once_also_where_a_crash_left_the_next_one_without_a_line() {
    let dir = Dir::new();
    let settings = || Settings { segment_bytes: 5_000, ..small() };
    let (mut log, _) = moody(&dir, settings());
    (0..100).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    let _ = log.close();
    let lines = dir.verified().len();
    let begun: Vec<u64> = layout::segments(&dir.audit()).expect("segments").iter().map(|it| it.first).collect();
    fs::write(dir.audit().join(layout::SEGMENTS).join(layout::segment(lines as u64)), "").expect("begun");
    let packed: Arc<Mutex<Vec<u64>>> = Arc::default();
    let given = Arc::clone(&packed);
    let disk =
        |files| Box::new(Moody { files, mood: Mood::default(), synced: 0, written: 0, packed: given }) as Box<dyn Disk>;
    let (mut log, _) = AuditLog::open_on(&dir.place(), settings(), BOOT, disk).expect("a log");
    let _ = log.close();
    assert!(begun.len() > 2);
    assert_eq!(*packed.lock().expect("ours"), begun, "each of them, and once");
    dir.verified();
}

#[test]
fn a_disk_that_fails_and_recovers_loses_no_line_that_was_taken() {
    for ill in [Ill::Full, Ill::Io, Ill::Forgetful] {
        let dir = Dir::new();
        let (mut log, mood) = moody(&dir, small());
        log.append(intent("before"));
        assert!(log.durable(LONG));
        mood.set(Some(ill));
        for number in 0..50 {
            log.append(intent(&number.to_string()));
            log.flush();
        }
        if ill != Ill::Forgetful {
            assert!(!log.durable(Duration::from_millis(50)), "{ill:?}");
            assert!(log.progress().failing.is_some() && log.progress().full == (ill == Ill::Full));
        }
        mood.set(None);
        assert!(log.durable(LONG), "{ill:?}: {:?}", log.progress());
        assert_eq!(log.progress().failing, None);
        let _ = log.close();
        let lines = dir.verified();
        assert_eq!(lines.len(), 53, "{ill:?}");
        assert!(!kinds(&lines).contains(&"gap".to_owned()), "nothing was lost");
    }
}

#[test]
fn a_hundred_stops_wait_once_for_a_disk_that_does_not_answer() {
    const STOP: Duration = Duration::from_millis(5);
    let dir = Dir::new();
    let (mut log, mood) = moody(&dir, small());
    assert!(log.durable(LONG));
    for hang in 0..2 {
        assert_eq!(log.patience(STOP), STOP, "hang {hang}: it answered");
        mood.set(Some(Ill::Hung));
        let mut waits = 0;
        for number in 0..100 {
            log.append(intent(&number.to_string()));
            waits += u32::from(!log.patience(STOP).is_zero());
            assert!(!log.durable(STOP), "nothing is durable");
        }
        assert_eq!(waits, 1, "hang {hang}");
        assert_eq!(log.patience(2 * STOP), STOP, "who may wait longer waits for the rest");
        mood.set(None);
        assert!(log.durable(LONG), "hang {hang}: all of it is durable in the end");
    }
    let _ = log.close();
    assert_eq!(dir.verified().len(), 202);
}

#[test]
fn what_finds_no_room_is_counted_and_declared_when_there_is_some_again() {
    let dir = Dir::new();
    let (mut log, mood) = moody(&dir, Settings { pending_bytes: 10_000, ..small() });
    assert!(log.durable(LONG));
    mood.set(Some(Ill::Full));
    let mut taken = 0;
    for number in 0..200 {
        taken += usize::from(log.append(intent(&number.to_string())).is_some());
        log.flush();
    }
    assert!(taken < 100 && log.refused() == 200 - taken as u64);
    assert!(!log.durable(Duration::from_millis(20)), "what was refused is never durable");
    mood.set(None);
    let end = std::time::Instant::now() + LONG;
    while log.append(line("after")).is_none() {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = 200 - taken;
    let _ = log.close();
    let lines = dir.verified();
    let gaps: Vec<serde_json::Value> = lines
        .iter()
        .filter(|line| line.contains("\"gap\""))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let declared: u64 = gaps.iter().filter_map(|gap| gap["gap"]["lines"].as_u64()).sum();
    assert!(declared >= refused as u64, "{declared} of {refused}");
    assert!(gaps.iter().all(|gap| gap["gap"]["cause"] == "disk_full" || gap["gap"]["cause"] == "write_failed"));
}

#[test]
fn a_log_that_cannot_be_closed_says_how_far_it_came() {
    let dir = Dir::new();
    let (mut log, mood) = moody(&dir, small());
    assert!(log.durable(LONG));
    mood.set(Some(Ill::Io));
    log.append(intent("never"));
    let progress = log.close();
    assert_eq!((progress.durable, progress.closed), (2, true));
    assert!(progress.failing.is_some());
    // The half of it that got there is declared by the next.
    let (mut log, opened) = dir.open(small());
    assert_eq!(opened.torn.len(), 1);
    let _ = log.close();
    dir.verified();
}

/// A disk on which the segments with these names cannot be removed, and are packed as soon as they may be removed.
struct Sticky {
    files: Files,
    stuck: Arc<Mutex<Vec<String>>>,
    removed: Arc<Mutex<Vec<PathBuf>>>,
}

impl Disk for Sticky {
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.files.write(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.sync()
    }

    fn begin(&mut self, first: u64) -> io::Result<()> {
        self.files.begin(first)
    }

    fn put(&mut self, name: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        self.files.put(name, bytes, durable)
    }

    fn settle(&mut self, _names: &[PathBuf]) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &Path) -> io::Result<()> {
        let text = name.to_string_lossy();
        if self.stuck.lock().expect("ours").iter().any(|stuck| text.contains(stuck.as_str())) {
            return Err(io::Error::other("operation not permitted"));
        }
        self.removed.lock().expect("ours").push(name.to_owned());
        self.files.remove(name)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&mut self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn free(&self) -> Option<(u64, u64)> {
        None
    }

    fn pack(&mut self, _first: u64) {}
}

#[test]
fn a_segment_that_cannot_be_removed_keeps_no_other_from_going() {
    let dir = Dir::new();
    let (stuck, removed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let disk =
        |files| Box::new(Sticky { files, stuck: Arc::clone(&stuck), removed: Arc::clone(&removed) }) as Box<dyn Disk>;
    let settings = Settings { segment_bytes: 5_000, keep: size(1), ..small() };
    let (mut log, _) = AuditLog::open_on(&dir.place(), settings, BOOT, disk).expect("a log");
    (0..200).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    assert!(log.durable(LONG));
    let segments = layout::segments(&dir.audit()).expect("segments");
    let (first, second) = (segments[0].first, segments[1].first);
    // The packer is at work on the second: it has another name by the time that it goes.
    let plain = &segments[1].path;
    let packed = zstd::encode_all(fs::read(plain).expect("a segment").as_slice(), 1).expect("zstd");
    fs::write(plain.with_extension("jsonl.zst"), packed).expect("written");
    stuck.lock().expect("ours").push(layout::segment(first));
    let leaving = log.closed().expect("segments were closed").look(&[]).expect("a look");
    log.retire(&leaving[..4]);
    assert!(log.durable(LONG));
    let there = |first: u64| layout::names(first).iter().any(|name| dir.audit().join(name).exists());
    // They go right after the sync.
    let end = std::time::Instant::now() + LONG;
    while log.progress().unremoved != 2 {
        assert!(std::time::Instant::now() < end, "both names of the first: {:?}", log.progress());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(there(first) && !there(second) && !there(segments[2].first) && !there(segments[3].first));
    assert_eq!(log.progress().failing, None, "nothing else fails");
    // What goes is told once, though it is still there.
    (0..50).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    assert!(log.durable(LONG));
    let leaving = log.closed().expect("segments were closed").look(&[]).expect("a look");
    assert_eq!(leaving.first().map(|it| it.first), Some(segments[4].first));
    log.retire(&[]);
    stuck.lock().expect("ours").clear();
    log.append(intent("another sync"));
    assert!(log.durable(LONG));
    let progress = log.close();
    assert_eq!(progress.unremoved, 0);
    assert!(!there(first), "it was tried again");
    assert!(removed.lock().expect("ours").contains(&layout::names(second)[1]));
}

#[test]
fn a_segment_that_was_removed_while_it_was_packed_does_not_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let plain = dir.path().join("000000000000.jsonl");
    fs::write(&plain, "x\n".repeat(1_000)).expect("written");
    let taken = || fs::remove_file(&plain).expect("retention was first");
    disk::pack_then(&plain, taken).expect("packed");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}
