//! The mark that stands where a secret stood, and its keyed tag.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// How many bytes of the tag are kept: enough to tell secrets of one log apart.
const TAG_BYTES: usize = 8;

/// The key of a log's tags. Without it a tag does not even confirm a guess.
#[derive(Clone)]
pub struct TagKey([u8; Self::LENGTH]);

impl TagKey {
    /// How many bytes it has.
    pub const LENGTH: usize = 32;

    /// A key that was kept.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Makes one from the kernel's random numbers.
    ///
    /// # Errors
    /// Where the kernel gives none.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; Self::LENGTH];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A key that nobody keeps: equal secrets have equal tags in this process alone.
    ///
    /// # Panics
    /// Where the kernel has no random numbers, which no Linux that runs this lacks.
    #[must_use]
    pub fn passing() -> Self {
        Self::generate().expect("the kernel has random numbers")
    }

    /// Its bytes, to be kept beside the private key of the log.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The tag of a secret, in hexadecimal digits.
    pub(super) fn tag(&self, secret: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(secret.as_bytes());
        let tag = mac.finalize().into_bytes();
        data_encoding::HEXLOWER.encode(tag.get(..TAG_BYTES).unwrap_or_default())
    }
}

/// The mark.
pub(super) fn mark(rule: &str, tag: &str) -> String {
    format!("‹redacted:{rule}:{tag}›")
}
