//! The tamper corpus: every way to change a closed log that we know, judged by both verifiers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_loop::audit::log::{AuditLog, Key, Place, Settings, layout, note};
use agent_loop::audit::verify::{self, Options};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;
use agent_loop_tests::harness::skip;

use super::{Second, judged, state};

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";

/// A closed log of small segments.
fn log(lines: u64) -> tempfile::TempDir {
    log_of(lines, 1_200)
}

/// A closed log with segments of this size.
fn log_of(lines: u64, segment_bytes: u64) -> tempfile::TempDir {
    let dir = state();
    let settings = Settings { segment_bytes, reserve: 0, low_water: 0, ..Settings::default() };
    let (mut log, _) = AuditLog::open(&Place::below(dir.path()), settings, BOOT).expect("a log");
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec!["sh".to_owned()], "agent".to_owned());
    for number in 0..lines {
        let clock = Clock { boot: BootNs(number), real_ns: 1_000 };
        log.append(recorder.adopted(number.to_string(), clock)).expect("there is room");
    }
    let progress = log.close();
    assert_eq!(progress.durable, progress.signed);
    plain(&dir.path().join("audit"));
    dir
}

/// Brings every segment into its plain form: a change of compressed bytes is a test of the compression.
fn plain(audit: &Path) {
    // The packer may still be at it.
    for _ in 0..200 {
        for segment in layout::segments(audit).expect("segments").into_iter().filter(|segment| segment.packed) {
            let bytes = zstd::decode_all(fs::read(&segment.path).expect("a segment").as_slice()).expect("zstd");
            fs::write(segment.path.with_extension(""), bytes).expect("written");
            fs::remove_file(&segment.path).expect("removed");
        }
        let names = fs::read_dir(audit.join("seg")).expect("a directory");
        if names.filter_map(Result::ok).all(|entry| entry.path().extension().is_some_and(|end| end == "jsonl")) {
            std::thread::sleep(std::time::Duration::from_millis(30));
            if layout::segments(audit).expect("segments").iter().all(|segment| !segment.packed) {
                return;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the segments do not come to rest");
}

/// Every file that a verdict rests on.
fn files(audit: &Path) -> Vec<PathBuf> {
    fn below(dir: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { below(&path, all) } else { all.push(path) }
        }
    }
    let mut all = Vec::new();
    below(audit, &mut all);
    all.sort();
    all
}

/// Both verdicts on a log in its present state.
struct Judges {
    second: Option<Second>,
    count: u64,
}

impl Judges {
    fn new(test: &str) -> Self {
        let second = Second::start();
        if second.is_none() {
            skip(test, "python3 is not installed: the second verifier was not asked");
        }
        Self { second, count: 0 }
    }

    fn judge(&mut self, audit: &Path) -> u8 {
        let ours = judged(audit).verdict().code();
        if let Some(second) = &mut self.second {
            // It draws no sums.
            assert_eq!(second.judge(audit), ours, "change {}", self.count);
        }
        self.count += 1;
        ours
    }

    /// Judges a log in which one file has another content for a moment.
    fn changed(&mut self, audit: &Path, file: &Path, content: &[u8]) -> u8 {
        let whole = fs::read(file).expect("a file");
        fs::write(file, content).expect("written");
        let code = self.judge(audit);
        fs::write(file, whole).expect("written");
        code
    }
}

#[test]
fn every_changed_byte_of_every_file_is_found() {
    // One segment and few lines, so that each byte can have its turn.
    let dir = log_of(5, 1 << 20);
    let audit = dir.path().join("audit");
    let mut judges = Judges::new("every_changed_byte_of_every_file_is_found");
    assert_eq!(judges.judge(&audit), 1, "as it was written");
    let mut bytes = 0;
    for file in files(&audit) {
        let whole = fs::read(&file).expect("a file");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 7);
            assert_eq!(judges.changed(&audit, &file, &changed), 3, "byte {at} of {}", file.display());
            bytes += 1;
        }
    }
    assert!(bytes > 2_000, "{bytes} bytes");
    assert_eq!(judges.judge(&audit), 1, "and all of it is as it was");
}

#[test]
fn every_deletion_swap_repetition_insertion_and_truncation_is_found() {
    let dir = log(12);
    let audit = dir.path().join("audit");
    let mut judges = Judges::new("every_deletion_swap_repetition_insertion_and_truncation_is_found");
    let segments = layout::segments(&audit).expect("segments");
    assert!(segments.len() > 2);
    for segment in &segments {
        let text = fs::read_to_string(&segment.path).expect("text");
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut check = |what: &str, lines: Vec<&str>| {
            assert_eq!(
                judges.changed(&audit, &segment.path, lines.concat().as_bytes()),
                3,
                "{what} in {}",
                segment.first
            );
        };
        for at in 0..lines.len() {
            let mut less = lines.clone();
            less.remove(at);
            check("a line less", less);
            let mut twice = lines.clone();
            twice.insert(at, lines[at]);
            check("a line twice", twice);
            let mut more = lines.clone();
            more.insert(at, "{\"seq\":3,\"kind\":\"x\"}\n");
            check("a line more", more);
            check("cut after a line", lines[..at].to_vec());
            if at + 1 < lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at, at + 1);
                check("two lines swapped", swapped);
            }
        }
        for cut in (0..text.len()).step_by(7) {
            assert_eq!(
                judges.changed(&audit, &segment.path, &text.as_bytes()[..cut]),
                3,
                "cut at {cut} of {}",
                segment.first
            );
        }
    }
}

#[test]
fn files_that_are_missing_or_of_another_log_are_found() {
    let (dir, other) = (log(12), log(12));
    let (audit, foreign) = (dir.path().join("audit"), other.path().join("audit"));
    let mut judges = Judges::new("files_that_are_missing_or_of_another_log_are_found");
    for file in files(&audit) {
        let whole = fs::read(&file).expect("a file");
        let kept = file.parent().is_some_and(|dir| dir.ends_with("checkpoints"));
        fs::remove_file(&file).expect("removed");
        let code = judges.judge(&audit);
        // A checkpoint that is kept is one more witness: without it nothing is wrong, there is only one less.
        assert_eq!(code, if kept { 1 } else { 3 }, "without {}", file.display());
        fs::write(&file, whole).expect("written");
        let name = file.strip_prefix(&audit).expect("below");
        if let Ok(theirs) = fs::read(foreign.join(name)) {
            let code = judges.changed(&audit, &file, &theirs);
            assert_eq!(code, 3, "{} of another log", name.display());
        }
    }
    // Two segments in each other's place.
    let segments = layout::segments(&audit).expect("segments");
    let [one, two] = [&segments[0].path, &segments[1].path];
    let (first, second) = (fs::read(one).expect("a file"), fs::read(two).expect("a file"));
    fs::write(one, &second).expect("written");
    fs::write(two, &first).expect("written");
    assert_eq!(judges.judge(&audit), 3);
}

#[test]
fn a_forged_signature_is_found_whoever_made_it() {
    let dir = log(4);
    let audit = dir.path().join("audit");
    let mut judges = Judges::new("a_forged_signature_is_found_whoever_made_it");
    let checkpoint = audit.join("checkpoint");
    let stamp = note::read(&fs::read(&checkpoint).expect("a file")).expect("a checkpoint").stamp;
    let forger = Key::generate();
    let forged = note::sign(forger.signer(), &stamp).expect("signed");
    assert_eq!(judges.changed(&audit, &checkpoint, &forged), 3, "of another key");
    // The forger's key beside it, as a second epoch that would begin later.
    let key = audit.join("keys/epoch-2.pub");
    fs::write(&key, format!("{}\nfrom {}\n", forger.verifier(), stamp.size + 1)).expect("written");
    assert_eq!(judges.judge(&audit), 1, "a key of the future alone signs nothing yet");
    assert_eq!(judges.changed(&audit, &checkpoint, &forged), 3, "of a key whose epoch has not begun");
    fs::remove_file(&key).expect("removed");
    // Everything replaced by the forger, consistently: only a key that was pinned tells.
    let (theirs, pinned) = (log(4), fs::read_to_string(audit.join("keys/epoch-1.pub")).expect("a key"));
    let pinned = pinned.lines().next().expect("a key").to_owned();
    let options = Options { pubkey: Some(pinned), ..Options::default() };
    let judge = |audit: &Path| verify::verify(audit, &options, &mut |_| {}).expect("read").verdict().code();
    assert_eq!((judge(&audit), judge(&theirs.path().join("audit"))), (1, 3));
}

#[test]
fn a_log_that_was_rolled_back_is_found_by_what_is_kept_or_anchored() {
    let dir = log(12);
    let audit = dir.path().join("audit");
    let newest = fs::read(audit.join("checkpoint")).expect("a checkpoint");
    let anchor = dir.path().join("anchor");
    fs::write(&anchor, &newest).expect("written");
    let anchored = Options { anchors: vec![anchor], ..Options::default() };
    let judge = |options: &Options| verify::verify(&audit, options, &mut |_| {}).expect("read");
    assert_eq!(judge(&anchored).verdict().code(), 0, "with its anchor");

    // Back to a rotation: the lines after it gone, its own checkpoint put in place as the newest one.
    let segments = layout::segments(&audit).expect("segments");
    let last = segments.last().expect("a segment");
    let size = last.first;
    fs::write(audit.join("checkpoint"), fs::read(audit.join(format!("checkpoints/{size}"))).expect("kept"))
        .expect("written");
    fs::remove_file(&last.path).expect("removed");
    let mut judges = Judges::new("a_log_that_was_rolled_back_is_found_by_what_is_kept_or_anchored");
    assert_eq!(judges.judge(&audit), 3, "a later checkpoint is kept");
    for file in files(&audit.join("checkpoints")) {
        let covers: u64 =
            file.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("a size");
        if covers > size {
            fs::remove_file(file).expect("removed");
        }
    }
    fs::remove_dir_all(audit.join("tile")).expect("removed");
    let report = judge(&anchored);
    assert_eq!(report.verdict().code(), 3, "the anchor signs more lines than there are: {:?}", report.damage);
}

#[test]
fn an_unsigned_tail_and_a_torn_one_are_told() {
    let dir = log(4);
    let audit = dir.path().join("audit");
    let mut judges = Judges::new("an_unsigned_tail_and_a_torn_one_are_told");
    let segments = layout::segments(&audit).expect("segments");
    let last = &segments.last().expect("a segment").path;
    let whole = fs::read_to_string(last).expect("text");
    let next = judged(&audit).lines;
    let tail = format!("{whole}{{\"seq\":{next},\"kind\":\"x\"}}\n");
    assert_eq!(judges.changed(&audit, last, tail.as_bytes()), 1);
    assert_eq!(
        judges.changed(&audit, last, format!("{whole}{{\"seq\":99,\"kind\":\"x\"}}\n").as_bytes()),
        3,
        "a number"
    );
    assert_eq!(
        judges.changed(&audit, last, format!("{whole}{{\"seq\":{next},\"kind\":\"x\"\n").as_bytes()),
        3,
        "no JSON"
    );
    assert_eq!(judges.changed(&audit, last, format!("{whole}{{\"seq\":{next}").as_bytes()), 2, "torn");
    // A writer that died between moving it aside and declaring it.
    assert_eq!(judges.judge(&audit), 1);
    fs::create_dir(audit.join("torn")).expect("a directory");
    fs::write(audit.join("torn/000000000000-1.undeclared"), format!("1 {}\n", "0".repeat(64))).expect("written");
    assert_eq!(judges.judge(&audit), 2, "moved aside, and not declared");
}

#[test]
fn the_first_bad_line_and_its_place_are_named() {
    let dir = log(400);
    let audit = dir.path().join("audit");
    let segments = layout::segments(&audit).expect("segments");
    for segment in [&segments[1], &segments[segments.len() / 2]] {
        let text = fs::read_to_string(&segment.path).expect("text");
        let (head, rest) = text.split_once('\n').expect("lines");
        fs::write(&segment.path, format!("{head}\n{}", rest.replacen("adopted", "adopteD", 1))).expect("written");
        let report = judged(&audit);
        let first = report.damage.first().expect("damage");
        assert_eq!((first.seq, first.offset), (Some(segment.first + 1), Some(head.len() as u64 + 1)), "{first:?}");
        assert_eq!(first.file, segment.path.display().to_string());
        fs::write(&segment.path, text).expect("written");
    }
}

#[test]
fn without_zstd_the_second_verifier_calls_a_compressed_log_unreadable() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let Some(python) = python.ok().and_then(|output| String::from_utf8(output.stdout).ok()) else {
        skip("without_zstd_the_second_verifier_calls_a_compressed_log_unreadable", "python3 is not installed");
        return;
    };
    let judge = |path: &str| {
        let mut verify = Command::new(python.trim());
        verify.arg(root.join("../docs/verify.py")).arg(root.join("data/audit-v1")).env("PATH", path);
        verify.output().expect("it runs")
    };
    let output = judge("/nowhere");
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("zstd is not there"));
}

#[test]
fn another_boot_id_is_found_wherever_it_stands() {
    const OTHER: &str = "7c1e0a52-0000-4000-8000-000000000002";
    let dir = log(12);
    let audit = dir.path().join("audit");
    let mut judges = Judges::new("another_boot_id_is_found_wherever_it_stands");
    let segments = layout::segments(&audit).expect("segments");
    for segment in &segments {
        let text = fs::read_to_string(&segment.path).expect("text");
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for at in 0..lines.len() {
            let mut other: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            other[at] = other[at].replace(BOOT, OTHER);
            let changed = other.concat();
            assert_eq!(judges.changed(&audit, &segment.path, changed.as_bytes()), 3, "line {at} of {}", segment.first);
        }
        let all = text.replace(BOOT, OTHER);
        assert_eq!(judges.changed(&audit, &segment.path, all.as_bytes()), 3, "all of {}", segment.first);
    }
    for file in files(&audit).into_iter().filter(|file| !file.starts_with(audit.join("seg"))) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if text.contains(BOOT) {
            let code = judges.changed(&audit, &file, text.replace(BOOT, OTHER).as_bytes());
            assert_eq!(code, 3, "{}", file.display());
        }
    }
    // What nothing signs yet: a line of another boot stands in a segment of its own.
    let last = &segments.last().expect("a segment").path;
    let whole = fs::read_to_string(last).expect("text");
    let next = judged(&audit).lines;
    let tail = |boot: &str| format!("{whole}{{\"seq\":{next},\"kind\":\"x\",\"boot_id\":\"{boot}\"}}\n");
    assert_eq!(judges.changed(&audit, last, tail(BOOT).as_bytes()), 1, "of this boot");
    assert_eq!(judges.changed(&audit, last, tail(OTHER).as_bytes()), 3, "of another boot");
}
