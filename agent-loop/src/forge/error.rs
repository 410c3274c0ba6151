//! What can go wrong at the forge, by what a caller does about it. [pure]

use std::time::Duration;

use crate::work::At;

/// Why a read has no answer, or why a write did certainly not happen.
///
/// The texts are for people. What the forge said in them is cut, without control characters, and without the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// It is not there, no longer there, or hidden from this token: forges do not tell these apart.
    #[error("{doing}: not there, or hidden from this token: {said}")]
    Gone {
        /// What was being done.
        doing: String,
        /// What the forge said.
        said: String,
    },
    /// The repository has another name now; the configuration should say so.
    #[error("{doing}: the repository has moved; find its new name and write it into the configuration")]
    Moved {
        /// What was being done.
        doing: String,
    },
    /// The token is good and may not do this.
    #[error("{doing}: not permitted: {said}; give the token the right, or the account the role")]
    NotPermitted {
        /// What was being done.
        doing: String,
        /// What the forge said.
        said: String,
    },
    /// The token is not accepted, also after it was read again.
    #[error("{doing}: the token is not accepted: {said}; put a valid one in its place")]
    Token {
        /// What was being done.
        doing: String,
        /// What the forge said, or what is wrong with the file.
        said: String,
    },
    /// A limit of the forge. Until it is over nothing more is sent.
    #[error("{doing}: {kind} limit of the forge, over in {} s", wait.as_secs())]
    Limited {
        /// What was being done.
        doing: String,
        /// Which limit.
        kind: LimitKind,
        /// How long from now.
        wait: Duration,
        /// Until when, by the forge's clock, where that is known.
        until: Option<At>,
    },
    /// The forge understood and refuses: what was asked is not valid, or something stands against it.
    #[error("{doing}: refused ({status}): {said}")]
    Refused {
        /// What was being done.
        doing: String,
        /// The status of the answer.
        status: u16,
        /// What the forge said.
        said: String,
    },
    /// No answer, or the forge has trouble of its own; for a read, after every repetition.
    #[error("{doing}: no answer: {why}")]
    Unreachable {
        /// What was being done.
        doing: String,
        /// What happened.
        why: String,
    },
    /// An answer that does not make sense.
    #[error("{doing}: the answer makes no sense: {why}")]
    Nonsense {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Which limit of the forge was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// So many requests in an hour.
    Primary,
    /// Too much at once.
    Secondary,
}

impl std::fmt::Display for LimitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary => "the hourly",
            Self::Secondary => "a secondary",
        })
    }
}

/// How a write failed: certainly, or perhaps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It did not happen.
    #[error(transparent)]
    NotDone(#[from] ForgeError),
    /// It may have happened: read before anything else (I18).
    #[error(transparent)]
    Doubt(#[from] Doubt),
}

/// A write that may have happened or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: it may have happened or not, {why}; read before anything is written again")]
pub struct Doubt {
    /// What was being done.
    pub doing: String,
    /// Why it is not known.
    pub why: DoubtWhy,
}

/// Why the outcome of a write is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoubtWhy {
    /// The request may have arrived, and no whole answer came.
    #[error("the answer was lost ({0})")]
    NoAnswer(String),
    /// The forge failed while it worked on it.
    #[error("the forge answered {0}")]
    Status(u16),
    /// It was accepted, by an answer that cannot be read.
    #[error("the answer cannot be read ({0})")]
    Unreadable(String),
}
