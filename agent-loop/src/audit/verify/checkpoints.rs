//! The checkpoints of a log and their keys: read first, so that the roots they sign can be compared on the way.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lines::Read;
use super::{Options, Report};
use crate::audit::anchor;
use crate::audit::log::layout;
use crate::audit::log::note::{self, Stamp, Unverified};

/// The checkpoints that were found, and the sizes that they sign.
pub(super) struct Checkpoints {
    /// File, what it says.
    signed: Vec<(PathBuf, Stamp)>,
    anchors: Vec<(PathBuf, Stamp)>,
    newest: Option<Stamp>,
    epochs: Vec<Epoch>,
}

/// A key and the sizes that it may sign.
#[derive(Clone, Debug)]
struct Epoch {
    number: u32,
    key: String,
    from: u64,
}

pub(super) fn read(audit: &Path, options: &Options, report: &mut Report) -> io::Result<Checkpoints> {
    let epochs = epochs(audit, options, report)?;
    if options.pubkey.is_none() {
        report.unchecked.push("the key is the log's own: `--pubkey` pins one that you got elsewhere".to_owned());
    }
    let mut all = Checkpoints { signed: Vec::new(), anchors: Vec::new(), newest: None, epochs };
    let newest = audit.join(layout::CHECKPOINT);
    match fs::read(&newest) {
        Ok(bytes) => {
            if let Some(stamp) = all.verified(&newest, &bytes, report) {
                all.newest = Some(stamp.clone());
                all.signed.push((newest, stamp));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.damaged(&newest, None, None, "the newest checkpoint is not there".to_owned());
        }
        Err(error) => return Err(error),
    }
    for path in sorted(&audit.join(layout::CHECKPOINTS))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.starts_with('.') {
            continue;
        }
        let bytes = fs::read(&path)?;
        if let Some(stamp) = all.verified(&path, &bytes, report) {
            if stamp.size.to_string() != name {
                report.damaged(&path, None, None, format!("it covers {} lines, its name says {name}", stamp.size));
            }
            all.signed.push((path, stamp));
        }
    }
    for dir in &options.hoards {
        all.hoard(dir, report)?;
    }
    for path in &options.anchors {
        let bytes = fs::read(path)?;
        if let Some(stamp) = all.verified(path, &bytes, report) {
            all.anchors.push((path.clone(), stamp));
        }
    }
    Ok(all)
}

/// The keys of all epochs, in order.
fn epochs(audit: &Path, options: &Options, report: &mut Report) -> io::Result<Vec<Epoch>> {
    let mut epochs: Vec<Epoch> = Vec::new();
    for path in sorted(&audit.join(layout::KEYS))? {
        let text = fs::read_to_string(&path).unwrap_or_default();
        match epoch(&path, &text) {
            Some(epoch) => epochs.push(epoch),
            None => report.damaged(&path, None, None, "it holds no key of an epoch".to_owned()),
        }
    }
    epochs.sort_by_key(|epoch| epoch.number);
    let follows = epochs.iter().zip(1..).all(|(epoch, number)| epoch.number == number)
        && epochs.windows(2).all(|pair| matches!(pair, [one, next] if one.from <= next.from));
    if epochs.first().is_none_or(|first| first.from != 0) || !follows {
        report.damaged(&audit.join(layout::KEYS), None, None, "its epochs do not follow each other from 1".to_owned());
    }
    if let Some(pinned) = &options.pubkey
        && let Some(first) = epochs.first_mut()
        && first.key != *pinned
    {
        report.damaged(&audit.join(layout::key(1)), None, None, "it is not the key that was pinned".to_owned());
        first.key.clone_from(pinned);
    }
    Ok(epochs)
}

fn epoch(path: &Path, text: &str) -> Option<Epoch> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_prefix("epoch-")?.strip_suffix(".pub")?.parse().ok()?;
    let (key, rest) = text.strip_suffix('\n')?.split_once('\n')?;
    let from: u64 = rest.strip_prefix("from ")?.parse().ok()?;
    // Written in one way alone, so that no byte of it can change unseen.
    let same = text == format!("{key}\nfrom {from}\n") && name == format!("epoch-{number}.pub");
    (same && note::is_key(key)).then(|| Epoch { number, key: key.to_owned(), from })
}

/// The files of a directory by name; none where there is no directory.
fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

impl Checkpoints {
    /// The sizes at which the root has to be known.
    pub(super) fn sizes(&self) -> BTreeSet<u64> {
        self.signed.iter().chain(&self.anchors).map(|(_, stamp)| stamp.size).collect()
    }

    /// Up to where lines are signed.
    pub(super) fn newest(&self) -> u64 {
        self.newest.as_ref().map_or(0, |stamp| stamp.size)
    }

    /// The newest checkpoint, and the verifier key that signed it.
    pub(super) fn signed_newest(&self) -> Option<(&Stamp, &str)> {
        let stamp = self.newest.as_ref()?;
        let epoch = self.epochs.iter().rev().find(|epoch| epoch.from <= stamp.size)?;
        Some((stamp, &epoch.key))
    }

    /// Takes what anchors kept of this log. What others than root could have put there proves nothing by being wrong.
    fn hoard(&mut self, dir: &Path, report: &mut Report) -> io::Result<()> {
        let hoard = anchor::read(dir)?;
        let ours = self.epochs.first().and_then(|epoch| epoch.key.split('+').next()).map(str::to_owned);
        let (mut none, mut of_others, mut not_signed) = (hoard.others, 0_u64, 0_u64);
        for found in hoard.found {
            let Ok(read) = note::read(&found.bytes) else {
                none += 1;
                continue;
            };
            if Some(&read.origin) != ours.as_ref() {
                of_others += 1;
                continue;
            }
            let path = PathBuf::from(found.place);
            match self.key_of(&read) {
                Ok(stamp) => {
                    report.checkpoints += 1;
                    self.anchors.push((path, stamp));
                }
                Err(why) if found.of_root => report.damaged(&path, None, None, why),
                Err(_) => not_signed += 1,
            }
        }
        for (count, what) in [
            (none, "that hold no checkpoint"),
            (of_others, "that are of another log: one that was begun anew under another name has no anchors"),
            (not_signed, "that the key of the log did not sign: anybody may write to a journal"),
        ] {
            if count > 0 {
                report.unchecked.push(format!("{count} of what is in {} {what}", dir.display()));
            }
        }
        Ok(())
    }

    fn verified(&self, path: &Path, bytes: &[u8], report: &mut Report) -> Option<Stamp> {
        let read = match note::read(bytes) {
            Ok(read) => read,
            Err(error) => {
                report.damaged(path, None, None, format!("it is no checkpoint: {error}"));
                return None;
            }
        };
        match self.key_of(&read) {
            Ok(stamp) => {
                report.checkpoints += 1;
                Some(stamp)
            }
            Err(why) => {
                report.damaged(path, None, None, why);
                None
            }
        }
    }

    fn key_of(&self, read: &Unverified) -> Result<Stamp, String> {
        let size = read.stamp.size;
        let epoch = self.epochs.iter().rev().find(|epoch| epoch.from <= size);
        let epoch = epoch.ok_or_else(|| "there is no key that could have signed it".to_owned())?;
        if let Ok(stamp) = read.verify(&epoch.key) {
            return Ok(stamp.clone());
        }
        let other = self.epochs.iter().find(|epoch| read.verify(&epoch.key).is_ok());
        Err(match other {
            Some(other) => format!(
                "it covers {size} lines and is signed by the key of epoch {}, which signs from {} on: epoch {} signs there",
                other.number, other.from, epoch.number
            ),
            None => "it is not signed by the key of the log".to_owned(),
        })
    }

    /// Compares every root that was signed with that of the lines.
    pub(super) fn judge(&self, read: &Read, report: &mut Report) {
        report.signed = self.newest();
        report.signed_at = self.newest.as_ref().map(|stamp| stamp.time.clone());
        report.log = self.epochs.first().and_then(|epoch| epoch.key.split('+').next()).map(str::to_owned);
        let all = || self.signed.iter().chain(&self.anchors);
        let good: BTreeSet<u64> = all()
            .filter(|(_, stamp)| read.roots.get(&stamp.size) == Some(&stamp.root))
            .map(|(_, stamp)| stamp.size)
            .collect();
        for (path, stamp) in all() {
            let sound = good.range(..stamp.size).next_back().copied().unwrap_or(0);
            judge(path, stamp, sound, read, report);
        }
        let anchored = self.anchors.iter().filter(|(_, stamp)| read.roots.get(&stamp.size) == Some(&stamp.root));
        report.anchors = anchored.clone().count() as u64;
        report.anchored = anchored.map(|(_, stamp)| stamp.size).max();
        let kept = self.signed.iter().map(|(_, stamp)| stamp.size).max().unwrap_or(0);
        if kept > self.newest() {
            let what =
                format!("it covers {} lines, and one that covers {kept} is kept: it was rolled back", self.newest());
            report.damaged(Path::new(layout::CHECKPOINT), Some(self.newest()), None, what);
        }
        let since = self.newest.as_ref().map_or("ever", |stamp| &stamp.time);
        match report.anchored {
            None => report.unchecked.push(format!(
                "no anchor outside of the host: who had its key could have rewritten all of it until {since}"
            )),
            Some(anchored) if anchored < report.to_anchor() => report.unchecked.push(format!(
                "no anchor covers lines {anchored} to {}: who had its key could have rewritten them until {since}",
                report.signed - 1
            )),
            Some(anchored) if anchored < report.signed => report.unchecked.push(format!(
                "no anchor covers lines {anchored} to {}, which tell of anchoring alone: who had its key could have put \
                 others there until {since}",
                report.signed - 1
            )),
            Some(_) => {}
        }
        report.unchecked.push(format!("whether more was written after {since}: a running log signs once a minute"));
    }
}

/// Judges one checkpoint; the first `sound` lines are those of another one that is in order.
fn judge(path: &Path, stamp: &Stamp, sound: u64, read: &Read, report: &mut Report) {
    match read.roots.get(&stamp.size) {
        Some(root) if *root == stamp.root => {}
        Some(_) => {
            let what =
                format!("the first {} lines are not those that it signs; the first {sound} are in order", stamp.size);
            report.damaged(path, Some(sound), None, what);
        }
        None if stamp.size > read.end => {
            report.damaged(
                path,
                Some(read.end),
                None,
                format!("it signs {} lines, {} are there", stamp.size, read.end),
            );
        }
        // It ends in lines that a retention took away.
        None => report.unchecked.push(format!("the checkpoint over {} lines, whose lines were removed", stamp.size)),
    }
}
