//! Bundles: lines of a log with the proof that it holds them, for somebody who has nothing else of it. [pure]

use serde::{Deserialize, Serialize};
use tlog_tiles::{Hash, RecordProof, check_record, record_hash};

use crate::audit::log::layout::LONGEST_LINE;
use crate::audit::log::note;

/// The format of a bundle; others are refused.
pub(super) const FORMAT: &str = "agent-loop.bundle/1";

/// The largest tree that a bundle may be of: twice as many nodes can still be counted.
const LARGEST: u64 = 1 << 60;

/// The longest proof: one hash for each level of the largest tree.
const LONGEST_PROOF: usize = 60;

/// A bundle as it is written: compact JSON in this order, with a line end.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bundle {
    pub(super) format: String,
    /// The run whose lines these are; null where they were chosen by number.
    pub(super) run: Option<String>,
    /// The verifier key that signed the checkpoint.
    pub(super) key: String,
    pub(super) checkpoint: String,
    pub(super) records: Vec<Record>,
}

/// A line, and the hashes from it to the root, base 64.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) line: String,
    pub(super) proof: Vec<String>,
}

/// What a bundle proves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proven {
    /// The origin of the log.
    pub log: String,
    /// How many lines it had when it was signed.
    pub size: u64,
    /// When that was, by the wall clock of the host.
    pub signed_at: String,
    /// The run that all of the lines are of, where the bundle is about one.
    pub run: Option<String>,
    /// The lines, in order.
    pub lines: Vec<String>,
    /// Whether the key is the one that was pinned.
    pub pinned: bool,
}

/// Why a bundle proves nothing.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum NotProven {
    /// It cannot be read.
    #[error("it is no bundle of this version: {0}")]
    NotABundle(String),
    /// Its checkpoint is not signed by the key.
    #[error("{0}")]
    NotSigned(String),
    /// A line is not proven.
    #[error("line {seq}: {what}")]
    NotALine {
        /// Its number, as the bundle says.
        seq: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct Head {
    seq: u64,
    run: Option<String>,
}

impl Bundle {
    /// As it is written to a file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing into memory fails for a map with keys that are no texts alone, and there is none.
        let _ = serde_json::to_writer(&mut bytes, self);
        bytes.push(b'\n');
        bytes
    }
}

/// Checks a bundle by itself; with `pubkey`, a verifier key, it must be signed by that one.
///
/// # Errors
/// [`NotProven`]; then nothing in it is to be believed.
pub fn check(bytes: &[u8], pubkey: Option<&str>) -> Result<Proven, NotProven> {
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(|error| NotProven::NotABundle(error.to_string()))?;
    let wrong = |what: &str| Err(NotProven::NotABundle(what.to_owned()));
    if bundle.format != FORMAT {
        return wrong("its format is another");
    }
    // Written in one way alone, so that no byte of it can change unseen.
    if bundle.to_bytes() != bytes || !note::is_key(&bundle.key) {
        return wrong("it is written differently than bundles are");
    }
    if bundle.records.is_empty() || !bundle.records.is_sorted_by(|one, next| one.seq < next.seq) {
        return wrong("its lines are none, or not in order");
    }
    let not_signed = |error: note::NotACheckpoint| NotProven::NotSigned(error.to_string());
    let read = note::read(bundle.checkpoint.as_bytes()).map_err(not_signed)?;
    if pubkey.is_some_and(|pubkey| pubkey != bundle.key) {
        return Err(NotProven::NotSigned("it is signed by another key than the one that was pinned".to_owned()));
    }
    let stamp = read.verify(&bundle.key).map_err(not_signed)?;
    if stamp.size > LARGEST {
        return wrong("its log is too large");
    }
    for record in &bundle.records {
        let proven = prove(record, bundle.run.as_deref(), stamp.size, stamp.root);
        proven.map_err(|what| NotProven::NotALine { seq: record.seq, what })?;
    }
    Ok(Proven {
        log: read.origin.clone(),
        size: stamp.size,
        signed_at: stamp.time.clone(),
        run: bundle.run,
        lines: bundle.records.into_iter().map(|record| record.line).collect(),
        pinned: pubkey.is_some(),
    })
}

fn prove(record: &Record, run: Option<&str>, size: u64, root: Hash) -> Result<(), &'static str> {
    let line = record.line.as_bytes();
    if line.len() >= LONGEST_LINE || line.contains(&b'\n') {
        return Err("it is no single line, or too long");
    }
    if record.proof.len() > LONGEST_PROOF || record.seq >= size {
        return Err("the signed log does not reach it");
    }
    let head: Head = serde_json::from_slice(line).map_err(|_| "it is no record")?;
    if head.seq != record.seq {
        return Err("it says to be another line");
    }
    if run.is_some() && head.run.as_deref() != run {
        return Err("it is of another run than the bundle says");
    }
    let proof: Option<RecordProof> = record.proof.iter().map(|text| hash(text)).collect();
    let proof = proof.ok_or("its proof holds what is no hash")?;
    check_record(&proof, size, root, record.seq, record_hash(line)).map_err(|_| "it is not a line of the signed log")
}

fn hash(text: &str) -> Option<Hash> {
    let bytes = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
    Some(Hash(bytes.try_into().ok()?))
}
