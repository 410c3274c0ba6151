//! The id of a conversation with an agent, fixed before it begins. [pure]

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// A random UUID (version 4, RFC 9562): what `claude` calls a session, and takes again to go on.
///
/// Whoever writes issues cannot know it before; so what must not be guessed is derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

/// A text that is not the id of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a session (a UUID in lower case)")]
pub struct NotASession(pub String);

impl SessionId {
    /// Makes one of random bytes, which the caller got from the kernel.
    #[must_use]
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// A word for the fence around what others wrote: nobody but us can know it beforehand, and the same session has
    /// another one in each attempt.
    #[must_use]
    pub fn fence(&self, attempt: u32, again: u32) -> String {
        let mut digest = Sha256::new();
        digest.update(b"agent-loop fence\n");
        digest.update(self.0);
        digest.update(attempt.to_be_bytes());
        digest.update(again.to_be_bytes());
        HEXLOWER.encode(digest.finalize().get(..12).unwrap_or_default())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = HEXLOWER.encode(&self.0);
        for (at, digit) in hex.chars().enumerate() {
            if matches!(at, 8 | 12 | 16 | 20) {
                f.write_str("-")?;
            }
            fmt::Write::write_char(f, digit)?;
        }
        Ok(())
    }
}

impl FromStr for SessionId {
    type Err = NotASession;

    /// Reads exactly what is written: any UUID, since an agent may have been started by hand.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        let bytes = HEXLOWER.decode(hex.as_bytes()).ok().and_then(|it| it.try_into().ok()).map(Self);
        bytes.filter(|it: &Self| it.to_string() == text).ok_or_else(|| NotASession(text.chars().take(60).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_random_uuid_and_reads_only_what_it_writes() {
        let session = SessionId::from_random([0xff; 16]);
        assert_eq!(session.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(session.to_string().parse(), Ok(session));
        for bad in ["", "x", "ffffffffffff4fffbfffffffffffffff", "FFFFFFFF-ffff-4fff-bfff-ffffffffffff", "-h"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fence_is_another_one_for_each_session_and_attempt() {
        let (one, two) = (SessionId::from_random([1; 16]), SessionId::from_random([2; 16]));
        let fences = [one.fence(1, 0), one.fence(2, 0), one.fence(1, 1), two.fence(1, 0)];
        let different: std::collections::BTreeSet<&String> = fences.iter().collect();
        assert_eq!((different.len(), fences[0].len()), (4, 24));
    }
}
