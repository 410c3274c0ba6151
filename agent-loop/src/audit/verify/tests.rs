//! Logs that no writer of ours wrote, whole and damaged at random, and the bundles made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tlog_tiles::Hash;

use super::*;
use crate::audit::log::note::{self, Stamp};
use crate::audit::log::{Key, layout};

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";

/// The files of a log by name, made from the description alone: it shares signing with the writer, and nothing else.
#[derive(Clone)]
struct Log {
    files: BTreeMap<PathBuf, Vec<u8>>,
    key: String,
}

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// RFC 6962, section 2.1, as it stands there.
fn root(hashes: &[[u8; 32]]) -> [u8; 32] {
    match hashes {
        [] => sha(&[]),
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            sha(&[&[1], &root(left), &root(right)])
        }
    }
}

/// A log of segments with these first lines, the last of them up to `end`; the lines are of two runs in turn.
fn made(firsts: &[u64], end: u64) -> Log {
    let key = Key::generate();
    let mut files = BTreeMap::new();
    let mut lines = Vec::new();
    let common = format!("\"boot_ns\":5,\"time\":\"2026-11-22T14:00:00Z\",\"boot_id\":\"{BOOT}\"");
    for (number, first) in firsts.iter().enumerate() {
        let previous = number.checked_sub(1).and_then(|it| firsts.get(it));
        let previous = previous.map_or("null".to_owned(), u64::to_string);
        let next = firsts.get(number + 1).copied().unwrap_or(end);
        let head = format!(
            "{{\"seq\":{first},\"kind\":\"log.segment\",{common},\"run\":null,\"issue\":null,\"segment\":{{\"format\":\
             \"{}\",\"log\":\"{}\",\"first_seq\":{first},\"previous\":{previous}}}}}\n",
            layout::FORMAT,
            key.origin()
        );
        let line = |seq: u64| {
            format!("{{\"seq\":{seq},\"kind\":\"run.adopted\",{common},\"run\":\"RUN{}\",\"issue\":null}}\n", seq % 2)
        };
        let text: String = std::iter::once(head).chain((first + 1..next).map(line)).collect();
        lines.extend(text.lines().map(str::to_owned));
        files.insert(Path::new("seg").join(layout::segment(*first)), text.into_bytes());
    }
    let leaves: Vec<[u8; 32]> = lines.iter().map(|line| sha(&[&[0], line.as_bytes()])).collect();
    let (mut level, mut hashes) = (0, leaves.clone());
    while !hashes.is_empty() {
        for (index, tile) in hashes.chunks(256).enumerate() {
            files.insert(layout::tile(level, index as u64, tile.len()), tile.concat());
        }
        hashes = hashes.chunks_exact(256).map(root).collect();
        level += 1;
    }
    for (name, size) in
        firsts.iter().skip(1).map(|size| (format!("checkpoints/{size}"), *size)).chain([("checkpoint".to_owned(), end)])
    {
        let covered = leaves.get(..usize::try_from(size).expect("few")).expect("they are there");
        let time = "2026-11-22T14:00:00Z".to_owned();
        let stamp = Stamp { size, root: Hash(root(covered)), time, boot_id: BOOT.to_owned(), boot_ns: size };
        files.insert(name.into(), note::sign(key.signer(), &stamp).expect("signed"));
    }
    files.insert(layout::key(1), format!("{}\nfrom 0\n", key.verifier()).into_bytes());
    Log { files, key: key.verifier().to_owned() }
}

impl Log {
    fn lie(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, bytes) in &self.files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        dir
    }

    fn judged(&self) -> Report {
        let dir = self.lie();
        verify(dir.path(), &Options { account: true, ..Options::default() }, &mut |_| {}).expect("it can be read")
    }

    fn bundle(&self, wanted: &Wanted) -> Result<Made, ProveError> {
        prove(self.lie().path(), wanted)
    }
}

fn lines(seq: impl IntoIterator<Item = u64>) -> Wanted {
    Wanted::Lines(seq.into_iter().collect::<BTreeSet<u64>>())
}

#[test]
fn a_log_that_no_writer_of_ours_wrote_is_intact() {
    for (firsts, end) in [(vec![0], 1), (vec![0], 256), (vec![0, 100], 257), (vec![0, 300, 301, 600], 700)] {
        let report = made(&firsts, end).judged();
        assert_eq!((report.verdict(), report.lines), (Verdict::Intact, end), "{report:?}");
    }
}

#[test]
fn lines_that_were_removed_need_a_record_that_says_so() {
    let remove = |log: &mut Log, first| log.files.remove(&Path::new("seg").join(layout::segment(first)));
    let mut log = made(&[0, 40, 300], 400);
    let last = Path::new("seg").join(layout::segment(300));
    remove(&mut log, 0).expect("it is there");
    assert_eq!(log.judged().verdict(), Verdict::Tampered, "nothing says that they were removed");
    let whole = log.files.get(&last).expect("it is there").clone();
    let say = |log: &mut Log, records: &[(u64, u64)]| {
        let mut text = whole.clone();
        for (number, (first, lines)) in records.iter().enumerate() {
            let seq = 400 + number;
            let line = format!(
                "{{\"seq\":{seq},\"kind\":\"retention\",\"retention\":{{\"first_seq\":{first},\"lines\":{lines}}}}}\n"
            );
            text.extend_from_slice(line.as_bytes());
        }
        log.files.insert(last.clone(), text);
    };
    say(&mut log, &[(0, 40)]);
    let report = log.judged();
    assert_eq!((report.verdict(), report.removed), (Verdict::Intact, 40), "{report:?}");
    assert!(report.unchecked.iter().any(|it| it.contains("lines 0 to 39")), "{report:?}");
    say(&mut log, &[(0, 39)]);
    assert_eq!(log.judged().verdict(), Verdict::Tampered, "one line less than are gone");
    // Numbers at their end must not hold the verifier up.
    say(&mut log, &[(0, u64::MAX), (u64::MAX, 1)]);
    assert_eq!(log.judged().verdict(), Verdict::Intact);
    say(&mut log, &[(0, 39), (39, u64::MAX), (u64::MAX, u64::MAX)]);
    assert_eq!(log.judged().verdict(), Verdict::Intact);
}

#[test]
fn a_segment_that_names_another_one_before_it_is_found() {
    let mut log = made(&[0, 6], 12);
    // Unsigned, so that nothing but its own words can be wrong.
    let name = Path::new("seg").join(layout::segment(12));
    let head = log.files[&Path::new("seg").join(layout::segment(6))].clone();
    let head =
        String::from_utf8(head).expect("text").lines().next().expect("a head").replace("\"seq\":6", "\"seq\":12");
    let head = head.replace("\"first_seq\":6", "\"first_seq\":12") + "\n";
    for (previous, verdict) in [("6", Verdict::Intact), ("0", Verdict::Tampered), ("null", Verdict::Tampered)] {
        let head = head.replace("\"previous\":0", &format!("\"previous\":{previous}"));
        log.files.insert(name.clone(), head.into_bytes());
        let report = log.judged();
        assert_eq!(report.verdict(), verdict, "{previous}: {report:?}");
    }
}

#[test]
fn every_changed_byte_of_a_key_is_found_though_no_line_names_it() {
    let mut log = made(&[0], 3);
    let whole = log.files[&layout::key(1)].clone();
    for at in 0..whole.len() {
        for change in [1, 0x20, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= change;
            log.files.insert(layout::key(1), changed);
            assert_eq!(log.judged().verdict(), Verdict::Tampered, "byte {at} changed by {change}");
        }
    }
}

#[test]
fn what_root_could_have_rewritten_is_told() {
    let log = made(&[0, 6], 12);
    let dir = log.lie();
    let told = |anchors: &[&str]| {
        let anchors = anchors.iter().map(|name| dir.path().join(name)).collect();
        let report = verify(dir.path(), &Options { anchors, ..Options::default() }, &mut |_| {}).expect("read");
        let window = report.unchecked.iter().find(|it| it.contains("rewritten")).cloned();
        (report.verdict(), window.unwrap_or_default())
    };
    assert!(told(&[]).1.contains("all of it until 2026-11-22T14:00:00Z"));
    let (verdict, window) = told(&["checkpoints/6"]);
    assert!(verdict == Verdict::Intact && window.contains("lines 6 to 11"), "{window}");
    assert_eq!(told(&["checkpoints/6", "checkpoint"]), (Verdict::Anchored, String::new()));
}

#[test]
fn a_bundle_proves_its_lines_and_names_the_key() {
    for (firsts, end) in [(vec![0], 1), (vec![0], 256), (vec![0, 100, 400], 700)] {
        let log = made(&firsts, end);
        for wanted in [lines([0]), lines([end - 1]), lines((0..end).step_by(37)), lines(0..end)] {
            let Wanted::Lines(seqs) = &wanted else { panic!("lines") };
            let made = log.bundle(&wanted).expect("a bundle");
            let proven = check_bundle(&made.bytes, Some(&log.key)).expect("it is proven");
            assert_eq!((made.records, proven.lines.len(), proven.size), (seqs.len(), seqs.len(), end));
            assert!(proven.pinned && !check_bundle(&made.bytes, None).expect("proven").pinned);
            let other = check_bundle(&made.bytes, Some(Key::generate().verifier()));
            assert!(matches!(other, Err(NotProven::NotSigned(_))), "{other:?}");
        }
    }
}

#[test]
fn a_bundle_of_a_run_holds_its_lines_and_no_other() {
    let log = made(&[0, 50], 90);
    let made = log.bundle(&Wanted::Run("RUN1".to_owned())).expect("a bundle");
    let proven = check_bundle(&made.bytes, None).expect("proven");
    assert_eq!((made.records, made.unsigned, proven.run.as_deref()), (45, 0, Some("RUN1")));
    assert!(proven.lines.iter().all(|line| line.contains("\"run\":\"RUN1\"")));
    assert!(matches!(log.bundle(&Wanted::Run("RUN".to_owned())), Err(ProveError::NoRun(_))));
    // A line of another run under the name of this one.
    let text = String::from_utf8(made.bytes).expect("text").replacen("\"run\":\"RUN1\"", "\"run\":\"RUN0\"", 1);
    assert!(matches!(check_bundle(text.as_bytes(), None), Err(NotProven::NotALine { .. })));
}

#[test]
fn what_is_not_signed_not_there_or_changed_is_in_no_bundle() {
    let mut log = made(&[0, 50], 90);
    assert!(matches!(log.bundle(&lines([3, 90])), Err(ProveError::NotThere(90))));
    let last = Path::new("seg").join(layout::segment(50));
    log.files.get_mut(&last).expect("it is there").extend_from_slice(b"{\"seq\":90,\"kind\":\"x\",\"run\":\"RUN1\"}\n");
    assert!(matches!(log.bundle(&lines([3, 90])), Err(ProveError::NotYet { seq: 90, size: 90 })));
    assert_eq!(log.bundle(&Wanted::Run("RUN1".to_owned())).expect("a bundle").unsigned, 1);
    let text = String::from_utf8(log.files[&last].clone()).expect("text");
    log.files.insert(last, text.replacen("run.adopted", "run.adoptee", 1).into_bytes());
    assert!(matches!(log.bundle(&lines([51])), Err(ProveError::Changed { seq: 51, .. })));
    log.bundle(&lines([52])).expect("the others are what they were");
    log.files.insert("checkpoint".into(), b"nonsense".to_vec());
    assert!(matches!(log.bundle(&lines([52])), Err(ProveError::NotSigned)));
}

#[test]
fn every_changed_byte_of_a_bundle_is_found() {
    let bytes = made(&[0, 5], 9).bundle(&lines([1, 4, 5])).expect("a bundle").bytes;
    check_bundle(&bytes, None).expect("proven");
    for at in 0..bytes.len() {
        for change in [1, 0x20, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            assert!(check_bundle(&changed, None).is_err(), "byte {at} changed by {change}");
        }
        assert!(check_bundle(&bytes[..at], None).is_err(), "cut at {at}");
    }
    assert!(check_bundle(&[bytes.as_slice(), b"\n"].concat(), None).is_err(), "a line end more");
}

/// A piece of a text that is put in the place of another piece.
fn patch() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "[\\{\\}\\[\\]\",:0-9a-z\\\\ \n]{0,30}".prop_map(String::into_bytes),
        Just(b"18446744073709551615".to_vec()),
    ];
    (any::<prop::sample::Index>(), 0_usize..60, bytes)
}

fn patched(whole: &[u8], (at, length, new): &(prop::sample::Index, usize, Vec<u8>)) -> Vec<u8> {
    let at = at.index(whole.len() + 1);
    let end = (at + length).min(whole.len());
    [&whole[..at], new.as_slice(), &whole[end..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_that_was_changed_anywhere_is_never_intact(file in any::<prop::sample::Index>(), patch in patch()) {
        let mut log = made(&[0, 6], 12);
        let name = file.get(&log.files.keys().cloned().collect::<Vec<_>>()).clone();
        let whole = log.files[&name].clone();
        let changed = patched(&whole, &patch);
        log.files.insert(name.clone(), changed.clone());
        let verdict = log.judged().verdict();
        // More bytes after the last line are what a crash leaves.
        let is_tail = name.ends_with(layout::segment(6)) && changed.starts_with(&whole);
        match verdict {
            Verdict::Intact => prop_assert_eq!(whole, changed),
            Verdict::Gaps => prop_assert!(is_tail, "{}", name.display()),
            Verdict::Tampered => prop_assert!(whole != changed),
            Verdict::Anchored | Verdict::Unaccounted => prop_assert!(false, "{:?}", verdict),
        }
    }

    #[test]
    fn a_bundle_that_was_changed_anywhere_proves_nothing(patch in patch()) {
        let bytes = made(&[0, 6], 12).bundle(&lines([2, 7])).expect("a bundle").bytes;
        let changed = patched(&bytes, &patch);
        prop_assert_eq!(check_bundle(&changed, None).is_ok(), changed == bytes);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,200}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(check_bundle(bytes, None).is_err());
            prop_assert!(note::read(bytes).is_err());
        }
    }

    #[test]
    fn a_kind_that_is_read_quickly_is_the_one_that_json_has(patch in patch()) {
        let line = b"{\"seq\":41,\"kind\":\"run.adopted\",\"run\":\"RUN1\",\"boot_ns\":5}";
        let changed = patched(line, &patch);
        if let (Some(kind), Ok(value)) = (lines::kind(&changed, 41), serde_json::from_slice::<serde_json::Value>(&changed)) {
            // A key that stands twice is in no line of ours; the full reading refuses it.
            if String::from_utf8_lossy(&changed).matches("\"kind\"").count() == 1 {
                prop_assert_eq!(value["kind"].as_str().map(str::as_bytes), Some(kind));
            }
            if String::from_utf8_lossy(&changed).matches("\"seq\"").count() == 1 {
                prop_assert_eq!(&value["seq"], 41);
            }
        }
    }
}
