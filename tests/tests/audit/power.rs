//! Power cuts: at every step of a writer, with whatever a disk that was not waited for may have kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_loop::audit::log::{AuditLog, Disk, Files, Keep, OpenError, Opened, Place, Settings, layout};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;
use agent_loop_tests::harness::{eventually, skip};

use super::{Second, judged, state};

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";
const LONG: Duration = Duration::from_secs(20);

/// How many outcomes of one cut are tried at most.
const OUTCOMES: usize = 12;

/// A file that was changed and not waited for: what a power cut may leave of it, as it is now first.
type Fates = Vec<Content>;

/// What a file holds; `None` is no file.
type Content = Option<Vec<u8>>;

/// A moment at which the power is cut.
struct Moment {
    /// The state as the processes saw it.
    dir: tempfile::TempDir,
    fates: Vec<(PathBuf, Fates)>,
    /// The open segment, and what of it is durable.
    open: (PathBuf, Vec<u8>),
}

/// What the disk was asked to do, and has not said to have done.
#[derive(Default)]
struct Volatile {
    /// What stood there when it was durable last, and what was put since.
    files: BTreeMap<PathBuf, (Content, Content)>,
    open: PathBuf,
    durable: Vec<u8>,
    moments: Vec<Moment>,
    /// How many moments are kept.
    most: usize,
}

/// A disk that keeps in mind what it was not waited for, and takes every step of the writer for the last.
struct Cut {
    files: Files,
    audit: PathBuf,
    volatile: Arc<Mutex<Volatile>>,
}

impl Cut {
    /// Keeps the state before a step.
    fn moment(&self) {
        let mut volatile = self.volatile.lock().expect("ours");
        if volatile.moments.len() >= volatile.most {
            return;
        }
        let home = self.audit.parent().expect("a home");
        // A closed segment is compressed meanwhile: where it goes away under our hands, there was no such moment.
        let dir = eventually("a moment of its own", || {
            let dir = quick();
            match copy(home, dir.path()) {
                Ok(()) => Some(dir),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => panic!("copying a moment: {error}"),
            }
        });
        let now = |name: &Path| fs::read(self.audit.join(name)).ok();
        let mut fates: Vec<(PathBuf, Fates)> = Vec::new();
        for (name, (old, put)) in &volatile.files {
            let mut of = vec![now(name), old.clone()];
            if let Some(put) = put {
                of.extend([Vec::new(), vec![0; put.len()], put[..put.len() / 2].to_vec()].map(Some));
            }
            fates.push((name.clone(), of));
        }
        let (open, durable) = (volatile.open.clone(), volatile.durable.clone());
        let written = now(&open).unwrap_or_default();
        if written.len() > durable.len() {
            // Its pages go to the disk in any order.
            let middle = durable.len() + (written.len() - durable.len()) / 2;
            let mut late = written.clone();
            late[durable.len()..middle].fill(0);
            let half = written[..middle].to_vec();
            fates.push((open.clone(), vec![Some(written), Some(durable.clone()), Some(half), Some(late)]));
        }
        volatile.moments.push(Moment { dir, fates, open: (open, durable) });
    }

    /// Keeps in mind that a file is about to be changed.
    fn soften(&self, name: &Path, put: Option<&[u8]>) {
        let old = fs::read(self.audit.join(name)).ok();
        let mut volatile = self.volatile.lock().expect("ours");
        let (_, last) = volatile.files.entry(name.to_owned()).or_insert((old, None));
        // One that is removed may come back as it was put.
        *last = put.map(<[u8]>::to_vec).or_else(|| last.take());
    }

    fn harden(&self, name: &Path) {
        self.volatile.lock().expect("ours").files.remove(name);
    }
}

impl Disk for Cut {
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.moment();
        self.files.write(bytes, at)?;
        self.moment();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut volatile = self.volatile.lock().expect("ours");
        volatile.durable = fs::read(self.audit.join(&volatile.open))?;
        Ok(())
    }

    fn begin(&mut self, first: u64) -> io::Result<()> {
        self.moment();
        self.files.begin(first)?;
        let mut volatile = self.volatile.lock().expect("ours");
        volatile.open = layout::names(first)[0].clone();
        volatile.durable.clear();
        Ok(())
    }

    fn put(&mut self, name: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        self.moment();
        if durable {
            self.harden(name);
        } else {
            self.soften(name, Some(bytes));
        }
        self.files.put(name, bytes, false)
    }

    fn settle(&mut self, names: &[PathBuf]) -> io::Result<()> {
        self.moment();
        names.iter().for_each(|name| self.harden(name));
        Ok(())
    }

    fn remove(&mut self, name: &Path) -> io::Result<()> {
        self.moment();
        if self.audit.join(name).exists() {
            self.soften(name, None);
        }
        self.files.remove(name)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.moment();
        self.volatile.lock().expect("ours").files.clear();
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

/// A directory of state in memory where there is one: what is durable is up to the test.
fn quick() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return state();
    }
    let closed = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(closed).tempdir_in(memory).expect("a scratch directory")
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            fs::DirBuilder::new().create(&target)?;
            fs::set_permissions(&target, metadata.permissions())?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn settings() -> Settings {
    Settings { reserve: 0, low_water: 0, ..Settings::default() }
}

/// Starts a writer, in the same boot: another one begins another segment, which waits for the whole disk.
fn open(home: &Path, settings: Settings, volatile: &Arc<Mutex<Volatile>>) -> Result<(AuditLog, Opened), OpenError> {
    let audit = home.join("audit");
    let last =
        layout::segments(&audit).ok().and_then(|all| all.last().map(|last| layout::names(last.first)[0].clone()));
    {
        let mut volatile = volatile.lock().expect("ours");
        volatile.open = last.unwrap_or_default();
        volatile.durable = fs::read(audit.join(&volatile.open)).unwrap_or_default();
    }
    let disk = |files| Box::new(Cut { files, audit, volatile: Arc::clone(volatile) }) as Box<dyn Disk>;
    AuditLog::open_on(&Place::below(home), settings, BOOT, disk)
}

fn fill(log: &mut AuditLog, lines: u64) {
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec!["sh".to_owned()], "agent".to_owned());
    for number in 0..lines {
        let clock = Clock { boot: BootNs(number), real_ns: 1_000 };
        log.append(recorder.adopted(number.to_string(), clock)).expect("there is room");
    }
}

/// Which fate each file has: all alike first, then each alone, then others drawn by a number that stands for the moment.
fn outcomes(moment: &Moment, number: usize) -> Vec<Vec<usize>> {
    let most = moment.fates.iter().map(|(_, fates)| fates.len()).max().unwrap_or(1);
    let fate = |of: usize, wanted: usize| wanted.min(moment.fates[of].1.len() - 1);
    let files = moment.fates.len();
    let mut all: Vec<Vec<usize>> = (0..most).map(|wanted| (0..files).map(|of| fate(of, wanted)).collect()).collect();
    for alone in 0..files {
        all.push((0..files).map(|of| if of == alone { fate(of, 2) } else { 0 }).collect());
    }
    let mut drawn = number as u64;
    while all.len() < OUTCOMES && files > 1 {
        let draw = |of: usize| {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            fate(of, usize::try_from(drawn >> 33).unwrap_or(0) % most)
        };
        all.push((0..files).map(draw).collect());
    }
    all.truncate(OUTCOMES.max(most + files));
    all.sort();
    all.dedup();
    all
}

/// Hashes that no size of a closed log needs: narrower ones beside another, or beside the full one.
fn strays(dir: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    let narrow = dir.extension().is_some_and(|end| end == "p");
    let mut all =
        if narrow && (entries.len() > 1 || dir.with_extension("").exists()) { entries.clone() } else { Vec::new() };
    all.extend(entries.iter().filter(|path| path.is_dir()).flat_map(|dir| strays(dir)));
    all
}

/// What came of a start after a power cut.
struct After {
    mended: bool,
    torn: bool,
}

/// Cuts the power at this moment with this outcome, starts, goes on, and has the log judged.
fn cut(moment: &Moment, outcome: &[usize], second: Option<&mut Second>) -> After {
    let dir = quick();
    copy(moment.dir.path(), dir.path()).expect("copied");
    let audit = dir.path().join("audit");
    let mut told = Vec::new();
    for ((name, fates), fate) in moment.fates.iter().zip(outcome) {
        let path = audit.join(name);
        told.push(format!("{} fate {fate}", name.display()));
        if let Some(bytes) = &fates[*fate] {
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(&path, bytes).expect("written");
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    let volatile = Arc::new(Mutex::new(Volatile { most: 1, ..Volatile::default() }));
    let opened = open(dir.path(), settings(), &volatile);
    let (mut log, opened) = opened.unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let (name, durable) = &moment.open;
    let there = fs::read(audit.join(name)).expect("the open segment");
    assert!(there.starts_with(durable), "durable lines are there: {told:?}");
    fill(&mut log, 3);
    let closed = log.close();
    assert_eq!(closed.signed, closed.durable, "{told:?}");
    // Killed before it did anything.
    let first = volatile.lock().expect("ours").moments.remove(0);
    let report = judged(&first.dir.path().join("audit"));
    assert!(report.verdict().code() <= 2, "{told:?}: {report:?}");
    let report = judged(&audit);
    let code = report.verdict().code();
    assert_eq!(code, if opened.torn.is_empty() { 1 } else { 2 }, "{told:?}: {report:?}");
    if let Some(second) = second {
        assert_eq!(second.judge(&audit), code, "{told:?}");
    }
    let declared = report.unchecked.iter().any(|line| line.contains("files of hashes as they were"));
    assert_eq!(declared, opened.mended > 0, "{told:?}: {:?}", report.unchecked);
    let stray = strays(&audit.join("tile"));
    assert!(stray.is_empty(), "no verifier looks at {stray:?}: {told:?}");
    After { mended: opened.mended > 0, torn: !opened.torn.is_empty() }
}

#[test]
fn a_power_cut_at_any_step_with_any_outcome_costs_no_durable_line_also_where_older_segments_are_gone() {
    const TEST: &str =
        "a_power_cut_at_any_step_with_any_outcome_costs_no_durable_line_also_where_older_segments_are_gone";
    let dir = quick();
    let mut second = Second::start();
    if second.is_none() {
        skip(TEST, "python3 is not installed: the second verifier was not asked");
    }
    let volatile: Arc<Mutex<Volatile>> = Arc::default();
    let keep = Keep { bytes: Some(1), age: None };
    // Some 300 lines before the segment that is cut begin it in the middle of a tile, beside one that is full.
    let mut log = open(dir.path(), Settings { keep, ..settings() }, &volatile).expect("a log").0;
    fill(&mut log, 330);
    assert!(log.sign(LONG));
    let _ = log.close();
    let mut log = open(dir.path(), Settings { keep, segment_bytes: 60_000, ..settings() }, &volatile).expect("a log").0;
    volatile.lock().expect("ours").most = usize::MAX;
    // It begins another segment, removes the older one, and fills its tile.
    for lines in [2, 1, 5, 180, 3] {
        fill(&mut log, lines);
        assert!(log.sign(LONG), "{:?}", log.progress());
        if let Some(retention) = log.closed() {
            log.retire(&retention.look(&[]).expect("a look"));
        }
        assert!(log.durable(LONG));
    }
    let _ = log.close();
    let moments = std::mem::take(&mut volatile.lock().expect("ours").moments);
    let first = layout::segments(&dir.path().join("audit")).expect("segments")[0].first;
    assert!(first > 256 && !first.is_multiple_of(256), "retention was in use, and a tile is needed: {first}");
    let (mut tried, mut mended, mut torn) = (0, 0, 0);
    for (number, moment) in moments.iter().enumerate() {
        for outcome in outcomes(moment, number) {
            // It takes its time for each signature.
            let after = cut(moment, &outcome, second.as_mut().filter(|_| tried % 8 == 0));
            tried += 1;
            mended += u64::from(after.mended);
            torn += u64::from(after.torn);
        }
    }
    println!("{} moments, {tried} outcomes, {mended} with hashes made again, {torn} torn", moments.len());
    assert!(moments.len() > 20 && mended > 10 && torn > 2, "{} moments, {mended}, {torn}", moments.len());
}
