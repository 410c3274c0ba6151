//! The lines that a log writes about itself, and what each kind of line demands of the disk.

use serde::Serialize;

use super::{Clock, GapBody, Line, Shared};

/// The version of the lines' shape: readers refuse a newer major.
pub const SCHEMA: &str = "1.0";

/// What the kind of a line demands of who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Durable before what it announces is done, and signed at once.
    Mark,
    /// The same, and its checkpoint is kept.
    End,
    /// Durable before what it announces is done.
    First,
    /// Durable soon.
    Soon,
}

impl Class {
    /// Whether it is durable before anything else happens.
    #[must_use]
    pub const fn is_durable_first(self) -> bool {
        matches!(self, Self::Mark | Self::End | Self::First)
    }

    /// Whether a checkpoint is to cover it at once.
    #[must_use]
    pub const fn is_signed_at_once(self) -> bool {
        matches!(self, Self::Mark | Self::End)
    }

    /// Whether that checkpoint is kept.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::End)
    }
}

/// `log.segment`: what the lines of a segment are.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct Segment {
    format: &'static str,
    schema: &'static str,
    schema_sha256: Option<String>,
    version: &'static str,
    log: String,
    first_seq: u64,
    redaction_sha256: Option<String>,
    previous: Option<u64>,
    /// Files of hashes that the start before this segment made again; without it none.
    #[serde(skip_serializing_if = "Option::is_none")]
    mended: Option<u64>,
}

/// `key`: a key comes into use.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct Key {
    epoch: u32,
    verifier: String,
    from: u64,
}

/// `retention`: a closed segment goes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct Retention {
    first_seq: u64,
    lines: u64,
    reason: &'static str,
}

/// `anchor`: a checkpoint was handed out, or could not be.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct Anchor {
    to: String,
    size: u64,
    root: String,
    result: &'static str,
    /// What the other side said, or why it failed.
    why: String,
}

/// The gap of a line: in what the kernel recorded, or in what was written.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) enum AnyGap {
    Kernel(GapBody),
    Torn { cause: &'static str, bytes: u64, sha256: String },
    Lost { cause: &'static str, lines: u64 },
}

/// What stays the same in the heads of all segments of a log.
#[derive(Clone, Debug)]
pub struct SegmentHead {
    log: String,
    /// The hash of the JSON Schema of the lines.
    pub schema_sha256: Option<String>,
    /// The hash of the redaction policy.
    pub redaction_sha256: Option<String>,
    /// Files of hashes that the start before this segment made again.
    pub mended: Option<u64>,
}

impl SegmentHead {
    /// Of the log with this origin.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        Self { log: origin.to_owned(), schema_sha256: None, redaction_sha256: None, mended: None }
    }
}

/// Makes the lines of a log about itself: of no run.
#[derive(Clone, Debug)]
pub struct OwnLines {
    boot_id: Shared,
}

impl OwnLines {
    /// In this boot.
    #[must_use]
    pub fn new(boot_id: &str) -> Self {
        Self { boot_id: Shared(boot_id.into()) }
    }

    pub(super) fn line(&self, kind: &'static str, clock: Clock) -> Line {
        Line {
            kind,
            boot_ns: clock.boot.0,
            time: clock.wall(clock.boot),
            boot_id: self.boot_id.clone(),
            ..Line::default()
        }
    }

    /// The head of a segment, after the one that begins with the line `previous`.
    #[must_use]
    pub fn segment(&self, head: &SegmentHead, first: u64, previous: Option<u64>, clock: Clock) -> Line {
        let segment = Segment {
            format: crate::audit::log::layout::FORMAT,
            schema: SCHEMA,
            schema_sha256: head.schema_sha256.clone(),
            version: env!("CARGO_PKG_VERSION"),
            log: head.log.clone(),
            first_seq: first,
            redaction_sha256: head.redaction_sha256.clone(),
            previous,
            mended: head.mended,
        };
        Line { segment: Some(segment), ..self.line("log.segment", clock) }
    }

    /// A key that comes into use at this size of the log.
    #[must_use]
    pub fn key(&self, epoch: u32, verifier: &str, from: u64, clock: Clock) -> Line {
        let key = Key { epoch, verifier: verifier.to_owned(), from };
        Line { key: Some(key), ..self.line("key", clock) }
    }

    /// The gap that a crash tore.
    #[must_use]
    pub fn torn(&self, bytes: u64, sha256: &str, clock: Clock) -> Line {
        let gap = AnyGap::Torn { cause: "torn_tail", bytes, sha256: sha256.to_owned() };
        Line { gap: Some(gap), ..self.line("gap", clock) }
    }

    /// The gap of lines that found no room, on a disk that was full or that failed.
    #[must_use]
    pub fn lost(&self, lines: u64, full: bool, clock: Clock) -> Line {
        let gap = AnyGap::Lost { cause: if full { "disk_full" } else { "write_failed" }, lines };
        Line { gap: Some(gap), ..self.line("gap", clock) }
    }

    /// A daemon that starts on this host.
    #[must_use]
    pub fn host(&self, host: super::Host, clock: Clock) -> Line {
        Line { host: Some(host), ..self.line("host.start", clock) }
    }

    /// Something that concerns the daemon, in words: `host.stop`, `config`.
    #[must_use]
    pub fn told(&self, kind: &'static str, why: String, clock: Clock) -> Line {
        Line { why: Some(why), ..self.line(kind, clock) }
    }

    /// Somebody who asked for something over the control socket: the user id by the kernel's credentials, and what.
    #[must_use]
    pub fn admin(&self, uid: u32, what: String, clock: Clock) -> Line {
        Line { uid: Some(Some(uid)), why: Some(what), ..self.line("admin", clock) }
    }

    /// A checkpoint of this size and root that was handed to the anchor `to`; what that said, or why it failed.
    #[must_use]
    pub fn anchor(&self, to: &str, size: u64, root: &str, told: &Result<String, String>, clock: Clock) -> Line {
        let (result, why) = match told {
            Ok(receipt) => ("anchored", receipt),
            Err(why) => ("failed", why),
        };
        let anchor = Anchor { to: to.to_owned(), size, root: root.to_owned(), result, why: why.clone() };
        Line { anchor: Some(anchor), ..self.line("anchor", clock) }
    }

    /// A closed segment that goes, since all of them are too large or it is too old: `size` or `age`.
    #[must_use]
    pub fn retention(&self, first: u64, lines: u64, reason: &'static str, clock: Clock) -> Line {
        let retention = Retention { first_seq: first, lines, reason };
        Line { retention: Some(retention), ..self.line("retention", clock) }
    }
}

impl Line {
    /// What its kind demands of who writes it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.kind {
            "run.killed" | "merge.result" | "gap" => Class::Mark,
            "run.exit" => Class::End,
            "run.intent" | "run.born" | "signal.intent" | "merge.intent" | "comment.intent" | "forge.intent"
            | "key" | "log.segment" | "retention" => Class::First,
            _ => Class::Soon,
        }
    }

    /// Whether it tells of anchoring alone, which is not worth anchoring for itself.
    #[must_use]
    pub fn is_of_anchoring(&self) -> bool {
        self.kind == "anchor"
    }

    /// Gives it its number.
    #[must_use]
    pub fn numbered(self, seq: u64) -> Self {
        Self { seq, ..self }
    }

    /// Appends its text, without a line end, to `to`; one that is too long is cut in its arguments.
    pub fn write(mut self, to: &mut Vec<u8>) {
        let from = to.len();
        // Writing into memory fails for a map with keys that are no texts alone, and there is none.
        let _ = serde_json::to_writer(&mut *to, &self);
        if to.len() - from < crate::audit::log::layout::LONGEST_LINE {
            return;
        }
        self.shorten();
        to.truncate(from);
        let _ = serde_json::to_writer(&mut *to, &self);
    }
}
