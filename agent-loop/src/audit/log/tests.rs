//! A log that is written, closed, killed, damaged and gone on with, on disks that are well and on others.

mod anchors;
mod disks;

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
use crate::audit::verify::{Options, verify};
use crate::audit::{Clock, Line, OwnLines, Recorder, past};
use crate::model::BootNs;
use crate::run::RunId;

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
            // It may be compressed since it was listed.
            let (bytes, packed) = match fs::read(&segment.path) {
                Ok(bytes) => (bytes, segment.packed),
                Err(_) => (fs::read(segment.path.with_extension("jsonl.zst")).expect("a segment"), true),
            };
            let bytes = if packed { zstd::decode_all(bytes.as_slice()).expect("zstd") } else { bytes };
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
    let mut aside = Vec::new();
    for (round, cut) in (1..next.len()).step_by(5).enumerate() {
        fs::write(dir.plain(), [fs::read(dir.plain()).expect("a segment").as_slice(), &next[..cut]].concat())
            .expect("written");
        let (mut log, opened) = dir.open(small());
        let [torn] = &opened.torn[..] else { panic!("it is torn once: {opened:?}") };
        assert_eq!((torn.bytes, fs::read(&torn.path).expect("it is kept")), (cut as u64, next[..cut].to_vec()));
        aside.push((torn.path.clone(), next[..cut].to_vec()));
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
    assert!(aside.iter().all(|(path, torn)| fs::read(path).is_ok_and(|there| there == *torn)), "each of them is kept");
}

#[test]
fn what_was_moved_aside_is_declared_however_often_a_crash_comes_first() {
    let dir = Dir::new();
    let _ = dir.open(small()).0.close();
    let whole = fs::read(dir.plain()).expect("a segment");
    let torn = |number: u8| vec![b'{', b'0' + number];
    let tear = |number: u8| fs::write(dir.plain(), [whole.clone(), torn(number)].concat()).expect("written");
    // Each opening ends before it has written a line: the first four find an end of their own, the others none.
    for round in 0..6 {
        if round < 4 {
            tear(round);
        }
        let found = open::open(&dir.place(), BOOT).expect("it opens");
        let aside = found.opened.torn.iter().map(|it| fs::read(&it.path).expect("it is kept"));
        assert_eq!(aside.collect::<Vec<_>>(), (0..4.min(round + 1)).map(torn).collect::<Vec<_>>(), "opening {round}");
        let report = verify(&dir.audit(), &Options::default(), &mut |_| {}).expect("it is read");
        assert_eq!((report.torn, report.verdict().code()), (2 * 4.min(round as u64 + 1), 2), "a verifier says so");
        assert_eq!(fs::read(dir.plain()).expect("a segment"), whole);
    }
    // They are declared also where somebody has taken them away.
    fs::remove_file(open::open(&dir.place(), BOOT).expect("it opens").opened.torn.remove(0).path).expect("removed");
    // One that ended between moving the bytes aside and taking them out of the segment.
    tear(2);
    let (mut log, opened) = dir.open(small());
    let _ = log.close();
    assert_eq!(opened.torn.len(), 4, "{opened:?}");
    assert_eq!(opened.torn.iter().filter(|it| it.path.exists()).count(), 3, "they are kept");
    let declared = || {
        let read = dir.verified();
        let gaps = read.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let torn = gaps.filter(|line| line["gap"]["cause"] == "torn_tail");
        torn.map(|line| line["gap"]["sha256"].as_str().expect("a hash").to_owned()).collect::<Vec<_>>()
    };
    let expected: Vec<String> = opened.torn.into_iter().map(|it| it.sha256).collect();
    assert_eq!(declared(), expected);
    let (mut log, opened) = dir.open(small());
    let _ = log.close();
    assert_eq!(opened.torn, [], "once it is declared it is told no more");
    assert_eq!(declared(), expected);
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
    assert_eq!(opened, Opened { lines: 4, ..Opened::default() });
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
fn a_start_that_is_refused_keeps_the_hashes_that_tell_which_line_was_changed() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    (0..600).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    let _ = log.close();
    let tile = dir.audit().join(layout::tile(0, 0, 256));
    let hashes = fs::read(&tile).expect("a tile");
    let text = fs::read_to_string(dir.plain()).expect("a segment");
    fs::write(dir.plain(), text.replacen("run.adopted", "run.adoptee", 1)).expect("written");
    assert!(dir.refused().contains("are not these"));
    assert!(fs::read(&tile).expect("a tile") == hashes, "the hash of the line as it was is evidence");
    // Without a change of the lines they are what was changed.
    fs::write(dir.plain(), text).expect("written");
    fs::write(&tile, vec![7; hashes.len()]).expect("written");
    let (mut log, opened) = dir.open(small());
    assert_eq!(opened.mended, 1);
    let _ = log.close();
    assert!(fs::read(&tile).expect("a tile") == hashes);
    assert!(dir.verified().last().expect("a line").contains("\"mended\":1"));
}

#[test]
fn hashes_that_a_crash_lost_are_made_again() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(small());
    (0..600).for_each(|_| assert!(log.append(line("x")).is_some()));
    let _ = log.close();
    fs::remove_dir_all(dir.audit().join("tile")).expect("removed");
    let (mut log, opened) = dir.open(small());
    assert_eq!((opened.lines, opened.mended), (602, 4));
    let _ = log.close();
    let heads = |lines: &[String]| kinds(lines).iter().filter(|kind| *kind == "log.segment").count();
    let lines = dir.verified();
    let last = lines.last().expect("a line");
    assert!(heads(&lines) == 2 && last.contains("\"mended\":4"), "it is told: {last}");
    for (level, index, width) in [(0, 0, 256), (0, 1, 256), (0, 2, 91), (1, 0, 2)] {
        assert!(dir.audit().join(layout::tile(level, index, width)).exists(), "tile {level} {index}");
    }
    let (mut log, opened) = dir.open(small());
    assert_eq!(opened.mended, 0);
    let _ = log.close();
    assert_eq!(heads(&dir.verified()), 2, "and told once");
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
    for number in 0..200 {
        assert!(log.append(line(&number.to_string())).is_some());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(log.durable(LONG));
    let before = layout::segments(&dir.audit()).expect("segments");
    assert!(before.len() > 6);
    let floor = before[3].first;
    // A run that was submitted in the middle of the fourth.
    let since = past::begun(&before[3]).expect("read").expect("it says when") + 1;
    let runs = [RunId(ulid::Ulid::from_parts(since, 0)), RunId(ulid::Ulid::from_parts(u64::MAX >> 16, 0))];
    let retention = log.closed().expect("segments were closed");
    assert!(log.closed().is_none(), "one looks at a time");
    let leaving = retention.look(&runs).expect("a look");
    assert_eq!(leaving.iter().map(|it| it.first).collect::<Vec<_>>(), [0, before[1].first, before[2].first]);
    log.retire(&leaving);
    assert!(log.closed().is_none(), "nothing was closed since");
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
fn what_is_closed_after_somebody_began_to_look_stays() {
    let dir = Dir::new();
    let (mut log, _) = dir.open(Settings { segment_bytes: 5_000, keep: size(1), ..small() });
    let append = |log: &mut AuditLog| {
        (0..60).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
        assert!(log.durable(LONG));
    };
    append(&mut log);
    let retention = log.closed().expect("segments were closed");
    let until = layout::segments(&dir.audit()).expect("segments").pop().expect("one is open").first;
    // It may be of a run that nobody knew then.
    append(&mut log);
    let leaving = retention.look(&[]).expect("a look");
    assert_eq!(leaving.last().map(|it| it.first + it.lines), Some(until), "all that were closed then, and none after");
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

#[test]
fn a_segment_that_is_too_old_goes_with_its_reason() {
    let dir = Dir::new();
    let age = Some(Duration::from_millis(1));
    let (mut log, _) = dir.open(Settings { segment_bytes: 5_000, keep: Keep { bytes: None, age }, ..small() });
    (0..60).for_each(|number| assert!(log.append(line(&number.to_string())).is_some()));
    assert!(log.durable(LONG));
    std::thread::sleep(Duration::from_millis(5));
    let closed = layout::segments(&dir.audit()).expect("segments").len() as u64 - 1;
    assert!(closed > 1);
    let leaving = log.closed().expect("segments were closed").look(&[]).expect("a look");
    assert_eq!(leaving.len() as u64, closed);
    log.retire(&leaving);
    let _ = log.close();
    let text = fs::read_to_string(dir.plain()).expect("a segment");
    assert_eq!(text.matches("\"reason\":\"age\"").count() as u64, closed);
}
