//! One row of the table of runs: the record as values of SQL, and the digest over them.

use rusqlite::types::Value;
use sha2::{Digest as _, Sha256};

use super::wire;
use crate::model::{BootNs, PidfsIno, ProcessKey, RunTag, StopReason};
use crate::run::{Born, RunId, RunRecord, Stage};

/// The columns that the digest covers, in its order.
pub(super) const COLUMNS: &str = "id, attempt, submitted_unix_ns, boot_id, stage, submission, cgroup, main_tgid, \
     main_start_ns, main_ino, born_ns, deadline_ns, traced, stopping, suspended_ns, baseline, ended, told";
/// How many they are.
pub(super) const WIDTH: usize = 18;
/// How many of them the digest always covers: those after them came later, and count where they hold something.
const ALWAYS: usize = 17;

/// A digest.
pub(super) type Sum = [u8; 32];

/// The record as values, in the order of [`COLUMNS`].
///
/// Numbers without sign are kept by their bits: those from 2^63 on look negative in SQL.
///
/// # Errors
/// What the record holds has no form on disk.
pub(super) fn write(run: &RunRecord) -> Result<Vec<Value>, String> {
    let (stage, born, end) = match &run.stage {
        Stage::Queued => ("queued", None, None),
        Stage::Intended(_) => ("intended", None, None),
        Stage::Born(born) => ("born", Some(born), None),
        Stage::Ended(end) => ("ended", None, Some(end)),
    };
    let number = |pick: fn(&Born) -> Option<u64>| bits(born.and_then(pick));
    let stopping = match &run.stage {
        Stage::Born(born) => born.stopping,
        Stage::Intended(stopping) => *stopping,
        Stage::Queued | Stage::Ended(_) => None,
    };
    let stopping = stopping.map(wire::write_reason).transpose()?;
    Ok(vec![
        Value::Text(run.id.to_string()),
        Value::Integer(run.attempt.into()),
        Value::Integer(run.submitted_unix_ns),
        Value::Text(run.boot_id.clone()),
        Value::Text(stage.to_owned()),
        Value::Text(wire::write_submission(&run.submission)?),
        number(|born| Some(born.cgroup.0)),
        number(|born| Some(born.main.tgid.into())),
        number(|born| Some(born.main.start_boottime_ns)),
        number(|born| born.ino.map(|ino| ino.0)),
        number(|born| Some(born.at.0)),
        number(|born| born.deadline.map(|deadline| deadline.0)),
        number(|born| Some(born.traced.into())),
        text(stopping),
        number(|born| Some(born.suspended_ns)),
        text(born.map(|born| wire::write_totals(&born.baseline)).transpose()?),
        text(end.map(wire::write_end).transpose()?),
        text((!run.told.is_empty()).then(|| wire::write_told(&run.told)).transpose()?),
    ])
}

/// The record that [`write()`] made these values from.
///
/// # Errors
/// Says what is not as we would have written it.
pub(super) fn read(values: &[Value]) -> Result<RunRecord, String> {
    let run = parse(values)?;
    // What reads but would be written otherwise (a missing field, a stray column) was not written by us.
    if write(&run)? != values {
        return Err("a column that agent-loop would have written otherwise".to_owned());
    }
    Ok(run)
}

fn parse(values: &[Value]) -> Result<RunRecord, String> {
    let [
        id,
        attempt,
        submitted,
        boot_id,
        stage,
        submission,
        cgroup,
        main_tgid,
        main_start,
        main_ino,
        born,
        deadline,
        traced,
        stopping,
        suspended,
        baseline,
        ended,
        told,
    ] = values
    else {
        return Err(format!("{} columns", values.len()));
    };
    let stage = match as_text("stage", stage)? {
        "queued" => Stage::Queued,
        "intended" => Stage::Intended(reason(stopping)?),
        "born" => Stage::Born(Born {
            cgroup: RunTag(needed("cgroup", cgroup)?),
            main: ProcessKey::new(small("main_tgid", main_tgid)?, needed("main_start_ns", main_start)?),
            ino: maybe("main_ino", main_ino)?.map(PidfsIno),
            at: BootNs(needed("born_ns", born)?),
            deadline: maybe("deadline_ns", deadline)?.map(BootNs),
            traced: match needed("traced", traced)? {
                0 => false,
                1 => true,
                other => return Err(format!("traced is {other}")),
            },
            stopping: reason(stopping)?,
            suspended_ns: needed("suspended_ns", suspended)?,
            baseline: wire::read_totals(as_text("baseline", baseline)?)?,
        }),
        "ended" => Stage::Ended(wire::read_end(as_text("ended", ended)?)?),
        other => return Err(format!("the stage {other:?}")),
    };
    Ok(RunRecord {
        id: as_text("id", id)?.parse::<RunId>().map_err(|error| format!("id: {error}"))?,
        attempt: small("attempt", attempt)?,
        submission: wire::read_submission(as_text("submission", submission)?)?,
        submitted_unix_ns: needed("submitted_unix_ns", submitted)?.cast_signed(),
        boot_id: as_text("boot_id", boot_id)?.to_owned(),
        stage,
        told: if *told == Value::Null { Vec::new() } else { wire::read_told(as_text("told", told)?)? },
    })
}

/// The digest over a row: a changed bit in any column changes it.
///
/// It finds damage and edits by hand, not the forgery of somebody who writes it anew: against those stands that
/// state read from disk never authorises a signal by itself (I4).
pub(super) fn sum(values: &[Value]) -> Sum {
    let mut hash = Sha256::new();
    hash.update(b"agent-loop run 1\0");
    let (first, later) = values.split_at(values.len().min(ALWAYS));
    for value in first.iter().chain(later.iter().filter(|value| **value != Value::Null)) {
        let mut part = |tag: u8, bytes: &[u8]| {
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        match value {
            Value::Null => part(0, &[]),
            Value::Integer(number) => part(1, &number.to_le_bytes()),
            Value::Real(number) => part(2, &number.to_bits().to_le_bytes()),
            Value::Text(text) => part(3, text.as_bytes()),
            Value::Blob(bytes) => part(4, bytes),
        }
    }
    hash.finalize().into()
}

/// Why a run is to be stopped, if it is.
fn reason(value: &Value) -> Result<Option<StopReason>, String> {
    if *value == Value::Null { Ok(None) } else { wire::read_reason(as_text("stopping", value)?).map(Some) }
}

fn bits(number: Option<u64>) -> Value {
    number.map_or(Value::Null, |number| Value::Integer(number.cast_signed()))
}

fn text(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::Text)
}

fn as_text<'a>(column: &str, value: &'a Value) -> Result<&'a str, String> {
    if let Value::Text(text) = value { Ok(text) } else { Err(format!("{column} is {}", value.data_type())) }
}

fn maybe(column: &str, value: &Value) -> Result<Option<u64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Integer(number) => Ok(Some(number.cast_unsigned())),
        Value::Real(_) | Value::Text(_) | Value::Blob(_) => Err(format!("{column} is {}", value.data_type())),
    }
}

fn needed(column: &str, value: &Value) -> Result<u64, String> {
    maybe(column, value)?.ok_or_else(|| format!("{column} is missing"))
}

fn small(column: &str, value: &Value) -> Result<u32, String> {
    u32::try_from(needed(column, value)?).map_err(|_| format!("{column} is out of range"))
}
