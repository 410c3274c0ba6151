//! What a log is found to be.

use serde::Serialize;

/// The verdict; its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Intact, and an anchor outside of the log covers all of its newest checkpoint but the records of anchoring after it.
    Anchored,
    /// Intact; its tail is unsigned, or it is not anchored.
    Intact,
    /// Intact, and it declares gaps itself.
    Gaps,
    /// The sum of the kernel's records does not add up.
    Unaccounted,
    /// Tampered with.
    Tampered,
}

impl Verdict {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Anchored => 0,
            Self::Intact => 1,
            Self::Gaps => 2,
            Self::Tampered => 3,
            Self::Unaccounted => 5,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Anchored => "intact and anchored",
            Self::Intact => "intact",
            Self::Gaps => "intact, with gaps that it declares itself",
            Self::Unaccounted => "the sum of the kernel's records does not add up",
            Self::Tampered => "tampered with",
        }
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The first line that it concerns, where that can be told.
    pub seq: Option<u64>,
    /// Where that begins in its file, bytes.
    pub offset: Option<u64>,
    /// The file.
    pub file: String,
    /// What is wrong.
    pub what: String,
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The origin of the log.
    pub log: Option<String>,
    /// How many lines were read.
    pub lines: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many lines the newest checkpoint covers.
    pub signed: u64,
    /// When that was signed, by the wall clock of the host.
    pub signed_at: Option<String>,
    /// How many checkpoints were verified.
    pub checkpoints: u64,
    /// How many lines the newest anchor covers; `None` without one.
    pub anchored: Option<u64>,
    /// How many anchors were verified.
    pub anchors: u64,
    /// How many lines there are up to the last that does not tell of anchoring alone.
    pub of_others: u64,
    /// Gaps that the log declares, in words.
    pub gaps: Vec<String>,
    /// Lines that a retention took away: they are proven by nothing but the tree.
    pub removed: u64,
    /// Bytes after the last whole line that nothing declares yet.
    pub torn: u64,
    /// Sums that do not add up, in words; `None` where they were not drawn.
    pub sums: Option<Vec<String>>,
    /// How many sums were drawn.
    pub runs: u64,
    /// What was not checked.
    pub unchecked: Vec<String>,
    /// The first damage by line, if there is any; more may follow it.
    pub damage: Vec<Damage>,
}

impl Report {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if !self.damage.is_empty() {
            Verdict::Tampered
        } else if self.sums.as_ref().is_some_and(|wrong| !wrong.is_empty()) {
            Verdict::Unaccounted
        } else if !self.gaps.is_empty() || self.torn > 0 {
            Verdict::Gaps
        } else if self.anchored.is_none_or(|anchored| anchored < self.to_anchor()) || self.lines > self.signed {
            Verdict::Intact
        } else {
            Verdict::Anchored
        }
    }

    /// How many lines an anchor has to cover: the records of the last anchoring come after it.
    pub(super) fn to_anchor(&self) -> u64 {
        self.signed.min(self.of_others)
    }

    pub(super) fn damaged(&mut self, file: &std::path::Path, seq: Option<u64>, offset: Option<u64>, what: String) {
        self.damage.push(Damage { seq, offset, file: file.display().to_string(), what });
    }
}
