//! A log that is written, closed, killed, damaged and gone on with, on disks that are well and on others.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2_11::Sha256;

use super::*;
use crate::audit::anchor::{Anchor, Handed, Receipt};
use crate::audit::{Clock, Line, OwnLines, Recorder};
use crate::model::BootNs;

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().expect("a directory");
        Self(dir)
    }

    fn place(&self) -> Place {
        Place::below(self.0.path())
    }

    fn audit(&self) -> PathBuf {
        self.0.path().join("audit")
    }

    fn open(&self, settings: Settings) -> (AuditLog, Opened) {
        AuditLog::open(&self.place(), settings, BOOT).expect("a log")
    }

    fn refused(&self) -> String {
        let opened = AuditLog::open(&self.place(), small(), BOOT);
        opened.err().expect("it is refused").to_string()
    }

    fn plain(&self) -> PathBuf {
        let segments = layout::segments(&self.audit()).expect("segments");
        segments.last().expect("a segment").path.clone()
    }

    /// Every line of the log, in order, by a reading that shares nothing with the writer but the names.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for segment in layout::segments(&self.audit()).expect("segments") {
            assert_eq!(segment.first, lines.len() as u64, "the name of {}", segment.path.display());
            let bytes = fs::read(&segment.path).expect("a segment");
            let bytes = if segment.packed { zstd::decode_all(bytes.as_slice()).expect("zstd") } else { bytes };
            let text = String::from_utf8(bytes).expect("text");
            assert!(text.is_empty() || text.ends_with('\n'));
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }

    /// Checks the log by another implementation of the tree; its lines.
    fn verified(&self) -> Vec<String> {
        let lines = self.lines();
        let public = fs::read_to_string(self.audit().join("keys/epoch-1.pub")).expect("a key");
        let key = public.lines().next().expect("a key");
        let mut kept: BTreeSet<PathBuf> = fs::read_dir(self.audit().join("checkpoints"))
            .expect("a directory")
            .map(|it| it.expect("an entry").path())
            .collect();
        kept.insert(self.audit().join("checkpoint"));
        for path in kept {
            let read = note::read(&fs::read(&path).expect("a checkpoint")).expect("a checkpoint");
            let stamp = read.verify(key).expect("our key");
            let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
            let covered = lines.get(..usize::try_from(stamp.size).expect("few")).expect("no line is missing");
            covered.iter().for_each(|line| oracle.push(line.as_bytes().to_vec()));
            assert_eq!(stamp.root.0.as_slice(), oracle.root().as_bytes().as_slice(), "{}", path.display());
        }
        for (number, line) in lines.iter().enumerate() {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(value["seq"], number, "{line}");
        }
        lines
    }
}

fn size(bytes: u64) -> Keep {
    Keep { bytes: Some(bytes), age: None }
}

fn small() -> Settings {
    Settings { reserve: 0, low_water: 0, ..Settings::default() }
}

fn clock() -> Clock {
    Clock { boot: BootNs(5), real_ns: 1_000 }
}

fn line(text: &str) -> Line {
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec![text.to_owned()], "agent".to_owned());
    recorder.adopted(text.to_owned(), clock())
}

fn intent(text: &str) -> Line {
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec![text.to_owned()], "agent".to_owned());
    recorder.intent(clock())
}

fn kinds(lines: &[String]) -> Vec<String> {
    let kind = |line: &String| {
        serde_json::from_str::<serde_json::Value>(line).expect("JSON")["kind"].as_str().map(str::to_owned)
    };
    lines.iter().filter_map(kind).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_log_is_closed_with_everything_durable_and_signed() {
    let dir = Dir::new();
    let (mut log, opened) = dir.open(small());
    assert_eq!(opened, Opened::default());
    for number in 0..700 {
        assert_eq!(log.append(line(&number.to_string())).map(|(seq, _)| seq), Some(number + 2));
    }
    let progress = log.close();
    assert_eq!((progress.durable, progress.signed, progress.closed), (702, 702, true));
    let lines = dir.verified();
    assert_eq!(
        (lines.len(), kinds(&lines)[..3].to_vec()),
        (702, vec!["log.segment".to_owned(), "key".to_owned(), "run.adopted".to_owned()])
    );
    for (level, index, width) in [(0, 0, 256), (0, 1, 256), (0, 2, 190), (1, 0, 2)] {
        let tile = fs::read(dir.audit().join(layout::tile(level, index, width))).expect("a tile");
        assert_eq!(tile.len(), width * 32, "tile {level} {index}");
    }
}

#[test]
fn a_log_is_gone_on_with_in_the_same_segment_and_in_another_boot_in_a_new_one() {
    let dir = Dir::new();
    for round in 0..5 {
        let (mut log, opened) = dir.open(small());
        assert_eq!(opened.lines, if round == 0 { 0 } else { 2 + round * 300 });
        (0..300).for_each(|_| assert!(log.append(line("x")).is_some()));
        let _ = log.close();
    }
    assert_eq!(layout::segments(&dir.audit()).expect("segments").len(), 1);
    let (mut log, _) = AuditLog::open(&dir.place(), small(), "another-boot").expect("a log");
    log.append(line("y"));
    let _ = log.close();
    let lines = dir.verified();
    assert_eq!((lines.len(), kinds(&lines)[1_502].as_str()), (1_504, "log.segment"));
    let edge = fs::read_dir(dir.audit().join("tile/0/005.p")).expect("a directory").count();
    assert_eq!(edge, 1, "only the newest edge is kept");
}

#[test]
fn what_is_durable_first_is_so_before_the_answer() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    for number in 0..20 {
        log.append(intent(&number.to_string()));
        assert!(log.durable(LONG));
        let there = fs::read_to_string(dir.plain()).expect("a segment");
        assert!(there.contains(&format!("\"argv\":[\"{number}\"]")), "line {number}");
    }
    let _ = log.close();
    dir.verified();
}

#[test]
fn segments_follow_each_other_and_closed_ones_are_compressed() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(Settings { segment_bytes: 20_000, ..small() });
    for number in 0..1_000 {
        log.append(line(&number.to_string()));
    }
    let _ = log.close();
    let lines = dir.verified();
    let heads = kinds(&lines).iter().filter(|kind| *kind == "log.segment").count();
    let segments = layout::segments(&dir.audit()).expect("segments");
    assert!(heads > 8 && segments.len() == heads, "{heads} heads, {} segments", segments.len());
    // Whatever a compression left is finished by the next start.
    for _ in 0..2 {
        let (mut log, opened) = dir.open(small());
        assert_eq!(opened.lines, lines.len() as u64);
        let _ = log.close();
    }
    let end = std::time::Instant::now() + LONG;
    while layout::segments(&dir.audit()).expect("segments").iter().filter(|it| !it.packed).count() > 1 {
        assert!(std::time::Instant::now() < end, "the closed segments stay plain");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(dir.verified(), lines);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    assert!(dir.refused().contains("in use"), "{}", dir.refused());
    let _ = log.close();
    let _ = dir.open(small()).0.close();
}

#[test]
fn a_start_that_was_cut_off_is_made_again_wherever_it_was() {
    let whole = {
        let dir = Dir::new();
        let _ = dir.open(small()).0.close();
        fs::read(dir.plain()).expect("a segment")
    };
    for cut in (0..=whole.len()).step_by(9) {
        let dir = Dir::new();
        let _ = dir.open(small()).0.close();
        for name in ["checkpoint", "checkpoints/2"] {
            fs::remove_file(dir.audit().join(name)).expect("removed");
        }
        fs::write(dir.plain(), &whole[..cut]).expect("written");
        let (mut log, opened) = dir.open(small());
        assert_eq!(opened, Opened::default(), "cut at {cut}");
        let _ = log.close();
        assert_eq!(dir.verified().len(), 2);
    }
}

#[test]
fn a_torn_end_is_moved_aside_and_declared_wherever_it_was_torn() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    log.append(line("whole"));
    let _ = log.close();
    let lines = 3;
    let whole = fs::read(dir.plain()).expect("a segment");
    let next = b"{\"seq\":3,\"kind\":\"run.adopted\"}\n";
    for (round, cut) in (1..next.len()).step_by(5).enumerate() {
        fs::write(dir.plain(), [fs::read(dir.plain()).expect("a segment").as_slice(), &next[..cut]].concat())
            .expect("written");
        let (mut log, opened) = dir.open(small());
        let torn = opened.torn.expect("it is torn");
        assert_eq!((torn.bytes, fs::read(&torn.path).expect("it is kept")), (cut as u64, next[..cut].to_vec()));
        let _ = log.close();
        let read = dir.verified();
        assert_eq!(read.len(), lines + round + 1);
        let gap: serde_json::Value = serde_json::from_str(read.last().expect("a line")).expect("JSON");
        assert_eq!(
            (&gap["kind"], &gap["gap"]["cause"], &gap["gap"]["bytes"]),
            (&"gap".into(), &"torn_tail".into(), &cut.into())
        );
    }
    assert!(fs::read(dir.plain()).expect("a segment").starts_with(&whole), "what was whole stays");
}

#[test]
fn whole_lines_beyond_the_checkpoint_are_gone_on_with() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    log.append(line("signed"));
    let _ = log.close();
    let text = fs::read_to_string(dir.plain()).expect("a segment");
    // As a crash leaves it between the sync of lines and the signature over them.
    fs::write(dir.plain(), format!("{text}{{\"seq\":3,\"kind\":\"x\"}}\n")).expect("written");
    let (mut log, opened) = dir.open(small());
    assert_eq!(opened, Opened { lines: 4, torn: None });
    let _ = log.close();
    assert_eq!(dir.verified().len(), 4);
}

#[test]
fn what_was_signed_and_changed_is_refused_and_kept() {
    let change = |name: &str, change: &dyn Fn(&Dir)| {
        let dir = Dir::new();
        let (mut log, _) = dir.open(Settings { segment_bytes: 3_000, ..small() });
        (0..40).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
        let _ = log.close();
        change(&dir);
        let why = dir.refused();
        assert!(why.contains("move it away") || why.contains("move the log away"), "{name}: {why}");
    };
    let edit = |from: &'static str, to: &'static str| {
        move |dir: &Dir| {
            let text = fs::read_to_string(dir.plain()).expect("a segment");
            assert!(text.contains(from), "{text}");
            fs::write(dir.plain(), text.replacen(from, to, 1)).expect("written");
        }
    };
    change("a changed line", &edit("\"agent", "\"agend"));
    change("a changed word", &edit("run.adopted", "run.adoptee"));
    change("a line less", &|dir| {
        let text = fs::read_to_string(dir.plain()).expect("a segment");
        let (rest, _) = text.trim_end().rsplit_once('\n').expect("lines");
        fs::write(dir.plain(), format!("{rest}\n")).expect("written");
    });
    change("an empty segment", &|dir| fs::write(dir.plain(), "").expect("written"));
    change("the last segment less", &|dir| fs::remove_file(dir.plain()).expect("removed"));
    change("all segments less", &|dir| {
        layout::segments(&dir.audit())
            .expect("segments")
            .iter()
            .for_each(|it| fs::remove_file(&it.path).expect("removed"));
    });
    change("the checkpoint less", &|dir| fs::remove_file(dir.audit().join("checkpoint")).expect("removed"));
    change("a checkpoint of another key", &|dir| {
        let bytes = fs::read(dir.audit().join("checkpoint")).expect("a checkpoint");
        let stamp = note::read(&bytes).expect("a checkpoint").stamp;
        fs::write(dir.audit().join("checkpoint"), note::sign(Key::generate().signer(), &stamp).expect("signed"))
            .expect("written");
    });
    change("the key less", &|dir| fs::remove_file(dir.0.path().join("audit-key/epoch-1.key")).expect("removed"));
}

#[test]
fn hashes_that_a_crash_lost_are_made_again() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    (0..600).for_each(|_| assert!(log.append(line("x")).is_some()));
    let _ = log.close();
    fs::remove_dir_all(dir.audit().join("tile")).expect("removed");
    let (mut log, opened) = dir.open(small());
    assert_eq!(opened.lines, 602);
    let _ = log.close();
    for (level, index, width) in [(0, 0, 256), (0, 1, 256), (0, 2, 90), (1, 0, 2)] {
        assert!(dir.audit().join(layout::tile(level, index, width)).exists(), "tile {level} {index}");
    }
}

#[test]
fn hashes_at_the_edge_that_a_power_cut_emptied_are_made_again() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    (0..600).for_each(|_| assert!(log.append(line("x")).is_some()));
    let _ = log.close();
    // It was put by another name first, and not durable: the name outlives the power cut, the bytes do not.
    fs::write(dir.audit().join(layout::tile(1, 0, 2)), "").expect("emptied");
    let (mut log, _) = dir.open(small());
    assert!(log.append(line("y")).is_some());
    let _ = log.close();
    assert_eq!(fs::read(dir.audit().join(layout::tile(1, 0, 2))).expect("a tile").len(), 64);
    dir.verified();
}

#[test]
fn the_oldest_closed_segments_go_and_none_that_is_needed() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(Settings { segment_bytes: 5_000, keep: size(1), ..small() });
    (0..200).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    assert!(log.durable(LONG));
    let before = layout::segments(&dir.audit()).expect("segments");
    assert!(before.len() > 6);
    let floor = before[3].first;
    assert_eq!(log.retain(floor).expect("removed"), 3);
    let _ = log.close();
    let after = layout::segments(&dir.audit()).expect("segments");
    assert_eq!(after.first().map(|segment| segment.first), Some(floor), "the one with the line {floor} stays");
    let text = fs::read_to_string(dir.plain()).expect("a segment");
    assert_eq!(text.matches("\"kind\":\"retention\"").count(), 3);
    let (mut log, opened) = dir.open(small());
    assert!(opened.lines > 200, "and what is left is gone on with");
    let _ = log.close();
}

#[test]
fn a_line_that_is_too_long_is_cut_in_the_middle_of_its_arguments() {
    let argv: Vec<String> = (0..20_000).map(|number| format!("word-{number}")).collect();
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), argv.clone(), "agent".to_owned());
    let mut text = Vec::new();
    recorder.intent(clock()).write(&mut text);
    assert!(text.len() < layout::LONGEST_LINE, "{}", text.len());
    let line: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let kept = line["argv"].as_array().expect("words");
    assert_eq!((&kept[0], kept.last().expect("a word")), (&"word-0".into(), &"word-19999".into()));
    let mut hash = <sha2::Sha256 as sha2::Digest>::new();
    argv.iter().for_each(|word| sha2::Digest::update(&mut hash, format!("{word}\0")));
    let sha256 = data_encoding::HEXLOWER.encode(&sha2::Digest::finalize(hash));
    assert_eq!((&line["argv_cut"]["argc"], &line["argv_cut"]["sha256"]), (&20_000.into(), &sha256.into()));
    let mut one = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec!["x".repeat(100_000)], "agent".to_owned());
    text.clear();
    one.intent(clock()).write(&mut text);
    assert!(text.len() < layout::LONGEST_LINE && text.starts_with(b"{"), "{}", text.len());
    OwnLines::new(BOOT).lost(1, true, clock()).write(&mut text);
}

/// What a disk does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ill {
    Full,
    Io,
    /// A sync fails, and what was written since the last one is lost, as a kernel may lose it.
    Forgetful,
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
            Some(Ill::Forgetful) | None => Ok(()),
        }
    }
}

/// A disk in a mood.
struct Moody {
    files: Files,
    mood: Mood,
    synced: u64,
    written: u64,
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

    fn pack(&mut self, _first: u64) {}
}

fn moody(dir: &Dir, settings: Settings) -> (AuditLog, Mood) {
    let mood = Mood::default();
    let given = mood.clone();
    let disk = |files| Box::new(Moody { files, mood: given, synced: 0, written: 0 }) as Box<dyn Disk>;
    (AuditLog::open_on(&dir.place(), settings, BOOT, disk).expect("a log").0, mood)
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
    assert!(opened.torn.is_some());
    let _ = log.close();
    dir.verified();
}

/// An anchor that keeps what it is handed, fails, or never answers.
#[derive(Debug, Default)]
struct Outside {
    kept: Mutex<Vec<Handed>>,
    fails: bool,
    stuck: Option<Mutex<std::sync::mpsc::Receiver<()>>>,
}

impl Anchor for Outside {
    fn name(&self) -> &'static str {
        "outside"
    }

    fn publish(&self, checkpoint: &Handed) -> io::Result<Receipt> {
        if let Some(stuck) = &self.stuck {
            let _ = stuck.lock().expect("ours").recv();
        }
        if self.fails {
            return Err(io::Error::other("no route to it"));
        }
        self.kept.lock().expect("ours").push(checkpoint.clone());
        Ok(Receipt("kept".to_owned()))
    }
}

fn anchored(outside: &Arc<Outside>, every: Duration) -> Settings {
    Settings { anchors: vec![Arc::clone(outside) as Arc<dyn Anchor>], anchor_every: every, ..small() }
}

fn anchor_records(lines: &[String]) -> Vec<serde_json::Value> {
    let lines = lines.iter().filter(|line| line.contains("\"kind\":\"anchor\""));
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn checkpoints_are_handed_out_and_the_log_says_so() {
    let (dir, outside) = (Dir::new(), Arc::new(Outside::default()));
    let (mut log, _) = dir.open(anchored(&outside, Duration::from_secs(3_600)));
    (0..30).for_each(|_| assert!(log.append(intent("x")).is_some()));
    let _ = log.close();
    let lines = dir.verified();
    let kept = outside.kept.lock().expect("ours");
    let last = kept.last().expect("the end is handed out");
    assert_eq!(last.size, lines.len() as u64 - 1, "all but the record of this handing out");
    let records = anchor_records(&lines);
    assert_eq!(records.len(), kept.len());
    for (record, kept) in records.iter().zip(kept.iter()) {
        let said = &record["anchor"];
        assert_eq!(
            (&said["to"], &said["result"], &said["why"]),
            (&"outside".into(), &"anchored".into(), &"kept".into())
        );
        assert_eq!((&said["size"], &said["root"]), (&kept.size.into(), &kept.root.clone().into()));
        assert_eq!(fs::read(dir.audit().join(layout::kept(kept.size))).expect("it is kept here too"), kept.text);
    }
}

#[test]
fn an_anchor_that_fails_is_told_and_the_log_goes_on() {
    let (dir, outside) = (Dir::new(), Arc::new(Outside { fails: true, ..Outside::default() }));
    let (mut log, _) = dir.open(anchored(&outside, Duration::from_millis(1)));
    let end = std::time::Instant::now() + LONG;
    while !String::from_utf8_lossy(&fs::read(dir.plain()).expect("a segment")).contains("no route to it") {
        assert!(std::time::Instant::now() < end && log.append(intent("x")).is_some());
        assert!(log.durable(LONG));
    }
    let progress = log.close();
    assert_eq!(progress.failing, None);
    let records = anchor_records(&dir.verified());
    assert!(records.iter().all(|record| record["anchor"]["result"] == "failed"));
}

#[test]
fn an_anchor_that_never_answers_holds_up_no_line_and_no_end() {
    let (let_go, stuck) = std::sync::mpsc::channel();
    let (dir, outside) = (Dir::new(), Arc::new(Outside { stuck: Some(Mutex::new(stuck)), ..Outside::default() }));
    let (mut log, _) = dir.open(anchored(&outside, Duration::from_millis(1)));
    for _ in 0..50 {
        assert!(log.append(intent("x")).is_some() && log.durable(LONG));
    }
    let progress = log.close();
    assert_eq!((progress.durable, progress.closed), (progress.signed, true));
    let records = anchor_records(&dir.verified());
    let why = records.last().expect("a record")["anchor"]["why"].as_str().expect("a reason").to_owned();
    assert!(why.contains("did not answer within"), "{why}");
    drop(let_go);
}

#[test]
fn a_segment_that_is_too_old_goes_with_its_reason() {
    let dir = Dir::new();
    let age = Some(Duration::from_millis(1));
    let (mut log, _) = dir.open(Settings { segment_bytes: 5_000, keep: Keep { bytes: None, age }, ..small() });
    (0..60).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    assert!(log.durable(LONG) && log.has_closed());
    std::thread::sleep(Duration::from_millis(5));
    let closed = layout::segments(&dir.audit()).expect("segments").len() as u64 - 1;
    assert!(closed > 1);
    assert_eq!(log.retain(u64::MAX).expect("removed"), closed);
    assert!(!log.has_closed() || log.next() > 60, "it was looked at");
    let _ = log.close();
    let text = fs::read_to_string(dir.plain()).expect("a segment");
    assert_eq!(text.matches("\"reason\":\"age\"").count() as u64, closed);
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
    let gone = log.retain(segments[4].first).expect("removed");
    assert_eq!(gone, 4);
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
