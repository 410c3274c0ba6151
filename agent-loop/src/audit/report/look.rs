//! How an outcome is told: by a word, a sign, and a class that the style gives a colour and a pattern.

use super::model::Outcome;

/// The look of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    Succeeded,
    Failed,
    Stopped,
    LaunchFailed,
    NotEmpty,
    Unknown,
    Lost,
    Open,
}

impl Look {
    pub(super) const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::Failed,
        Self::Stopped,
        Self::LaunchFailed,
        Self::NotEmpty,
        Self::Unknown,
        Self::Lost,
        Self::Open,
    ];

    pub(super) const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Stopped(_) => Self::Stopped,
            Outcome::LaunchFailed => Self::LaunchFailed,
            Outcome::NotEmpty => Self::NotEmpty,
            Outcome::Unknown => Self::Unknown,
            Outcome::Lost => Self::Lost,
            Outcome::Open => Self::Open,
        }
    }

    /// A class of the style.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::LaunchFailed => "unlaunched",
            Self::NotEmpty => "notempty",
            Self::Unknown => "unknown",
            Self::Lost => "lost",
            Self::Open => "open",
        }
    }

    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Succeeded => "✓",
            Self::Failed => "✕",
            Self::Stopped => "■",
            Self::LaunchFailed => "⊘",
            Self::NotEmpty => "!",
            Self::Unknown | Self::Lost => "?",
            Self::Open => "▸",
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped by us",
            Self::LaunchFailed => "launch failed",
            Self::NotEmpty => "tree not empty",
            Self::Unknown => "status unknown",
            Self::Lost => "lost sight of",
            Self::Open => "no end in the log",
        }
    }
}
