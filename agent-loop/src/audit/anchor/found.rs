//! Reads back what anchors kept: files that were dropped, and entries of the journal as `journalctl -o json` writes them.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::files::LONGEST;
use super::journal::FIELD;

/// The longest entry of a journal that is read, bytes.
const LONGEST_ENTRY: u64 = 1 << 20;

/// Something that was kept and may be a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file, and the line in it where that is one of entries.
    pub place: String,
    /// What was kept.
    pub bytes: Vec<u8>,
    /// Whether only root could have put it there, as far as the place says. Anybody may write to a journal.
    pub of_root: bool,
}

/// What a directory of anchors holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hoard {
    /// What may be checkpoints, by place.
    pub found: Vec<Found>,
    /// Files that are neither dropped checkpoints nor entries of a journal.
    pub others: u64,
}

/// Reads a directory, and the directories in it: `*.checkpoint` files, and `*.json` or `*.jsonl` files of a journal's
/// entries. A file that is named itself is read too.
///
/// # Errors
/// When something cannot be read.
pub fn read(path: &Path) -> io::Result<Hoard> {
    let mut hoard = Hoard::default();
    let mut files = Vec::new();
    if path.is_dir() {
        collect(path, 1, &mut files)?;
    } else {
        files.push(path.to_owned());
    }
    files.sort();
    for file in files {
        match file.extension().and_then(|end| end.to_str()) {
            Some("checkpoint") => {
                let mut bytes = Vec::new();
                File::open(&file)?.take(LONGEST).read_to_end(&mut bytes)?;
                hoard.found.push(Found { place: file.display().to_string(), bytes, of_root: true });
            }
            Some("json" | "jsonl") => entries(&file, &mut hoard.found)?,
            Some(_) | None => hoard.others += 1,
        }
    }
    Ok(hoard)
}

fn collect(dir: &Path, deeper: u32, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.is_dir() {
            files.push(path);
        } else if deeper > 0 {
            collect(&path, deeper - 1, files)?;
        }
    }
    Ok(())
}

/// An entry, as far as it matters here. A value that is no text is written as its bytes.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "AGENT_LOOP_CHECKPOINT")]
    checkpoint: Option<Value>,
    /// The user who wrote it, by the kernel's credentials: the journal itself adds what begins with a line.
    #[serde(rename = "_UID")]
    uid: Option<Value>,
}

fn entries(file: &Path, found: &mut Vec<Found>) -> io::Result<()> {
    let mut from = BufReader::new(File::open(file)?);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if from.by_ref().take(LONGEST_ENTRY).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if memchr::memmem::find(&line, FIELD.as_bytes()).is_none() {
            continue;
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { continue };
        let of_root = entry.uid.as_ref().and_then(Value::as_str) == Some("0");
        if let Some(bytes) = entry.checkpoint.as_ref().and_then(bytes) {
            found.push(Found { place: format!("{}:{number}", file.display()), bytes, of_root });
        }
    }
    Ok(())
}

/// A value as the journal writes it: a text, or an array of bytes.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(bytes) => bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_and_entries_are_found_and_what_else_is_there_is_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("log")).expect("made");
        fs::write(dir.path().join("log/7.checkpoint"), "one").expect("written");
        fs::write(dir.path().join("notes.txt"), "x").expect("written");
        let entries = "{\"MESSAGE\":\"x\"}\n{\"AGENT_LOOP_CHECKPOINT\":\"two\\n\",\"_UID\":\"0\"}\nAGENT_LOOP_CHECKPOINT\n\
                       {\"AGENT_LOOP_CHECKPOINT\":[226,128,148],\"_UID\":\"1000\"}\n";
        fs::write(dir.path().join("journal.json"), entries).expect("written");
        let hoard = read(dir.path()).expect("read");
        let found: Vec<(&[u8], bool)> = hoard.found.iter().map(|it| (it.bytes.as_slice(), it.of_root)).collect();
        assert_eq!(found, [(&b"two\n"[..], true), ("—".as_bytes(), false), (b"one", true)]);
        assert!(hoard.found[0].place.ends_with("journal.json:2"), "{}", hoard.found[0].place);
        assert_eq!(hoard.others, 1);
        assert_eq!(read(&dir.path().join("journal.json")).expect("read").found.len(), 2, "a file by itself");
    }
}
