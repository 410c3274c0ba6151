//! The key that signs the checkpoints of a log.

use std::io::{Read as _, Write as _};

use rand_core::OsRng;
use signed_note::{Signer as _, StandardSigner};
use ulid::Ulid;

use super::OpenError;
use crate::store::StateDir;

/// The longest key file, bytes.
const LONGEST: u64 = 4_096;

/// The key of one epoch.
pub struct Key {
    signer: StandardSigner,
    verifier: String,
    private: String,
}

impl Key {
    /// Makes a key for a new log, whose id it makes too.
    #[must_use]
    pub fn generate() -> Self {
        let origin = format!("agent-loop/{}", Ulid::new());
        let (private, verifier) = signed_note::generate_key(&mut OsRng, &origin);
        let signer = StandardSigner::new(&private).expect("a key that was made just now");
        Self { signer, verifier, private }
    }

    /// Reads the key of an epoch from the directory of keys; where there is none and `make` says so, makes it.
    ///
    /// # Errors
    /// [`OpenError`] where the file is not safe, cannot be read or written, or holds no key.
    pub fn open(dir: &StateDir, epoch: u32, make: bool) -> Result<Self, OpenError> {
        let name = format!("epoch-{epoch}.key");
        let mut file = dir.file(&name, LONGEST)?;
        let mut text = String::new();
        let path = dir.path().join(&name);
        let failed = |doing| move |error: std::io::Error| OpenError::failed(doing, error);
        file.read_to_string(&mut text).map_err(failed("reading the key of the audit log"))?;
        let lines: Vec<&str> = text.lines().collect();
        if text.is_empty() && make {
            let key = Self::generate();
            let text = format!("{}\n{}\n", key.private, key.verifier);
            file.write_all(text.as_bytes()).map_err(failed("writing the key of the audit log"))?;
            file.sync_all().map_err(failed("writing the key of the audit log"))?;
            nix::unistd::fsync(dir.dir())
                .map_err(|errno| OpenError::failed("writing the key of the audit log", errno.into()))?;
            return Ok(key);
        }
        let [private, verifier] = lines[..] else { return Err(OpenError::NotAKey(path)) };
        let signer = StandardSigner::new(private).map_err(|_| OpenError::NotAKey(path))?;
        Ok(Self { signer, verifier: verifier.to_owned(), private: private.to_owned() })
    }

    /// What signs with it.
    #[must_use]
    pub const fn signer(&self) -> &StandardSigner {
        &self.signer
    }

    /// What verifies it, as a verifier key of a signed note.
    #[must_use]
    pub fn verifier(&self) -> &str {
        &self.verifier
    }

    /// Which log it is of.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.signer.name()
    }
}
