//! The credential on its way to git: in no argument, no environment, and no file that has a name.
//!
//! It is a line of git's configuration in memory (memfd_create(2)), which git is told to include by the path of our own
//! descriptor, `/proc/<us>/fd/<n>`. The kernel lets only our own user and root open that, who could read our memory too; no
//! child inherits the descriptor, so none can hand it on. It goes away with the process that needed it.

use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;

use data_encoding::BASE64;
use nix::sys::memfd::{MFdFlags, memfd_create};
use secrecy::{ExposeSecret as _, SecretString};

use super::error::GitError;
use crate::forge::Credential;

/// What stands where a secret stood.
const MARK: &str = "[the token]";

/// A credential that git can read while this lives.
pub(super) struct Secret {
    file: File,
    /// What must be in no text: the token, and the token as it goes over the wire.
    hidden: [SecretString; 2],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Prepares a credential for requests below `url` and for no others.
    pub(super) fn new(url: &str, credential: &Credential) -> Result<Self, GitError> {
        let Credential { user, password } = credential;
        let token = password.expose_secret();
        if user.contains(':') || user.chars().chain(token.chars()).any(char::is_control) || token.is_empty() {
            let why = "the credential for git has a `:` or a control character in its user, or an empty token";
            return Err(GitError::Unfit(format!("{why}: write another one")));
        }
        let encoded = BASE64.encode(format!("{user}:{token}").as_bytes());
        // The section's name holds a URL that was checked to have nothing to escape.
        let text = format!("[http \"{url}\"]\n\textraHeader = Authorization: Basic {encoded}\n");
        let file = memory(text.as_bytes()).map_err(super::error::io_at("keeping the credential in memory"))?;
        Ok(Self { file, hidden: [SecretString::from(token), SecretString::from(encoded)] })
    }

    /// Where git finds it, while this lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A text without it.
    pub(super) fn scrub(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, hidden| text.replace(hidden.expose_secret(), MARK))
    }
}

/// A file in memory, open at its beginning, that no child inherits and nobody else may open.
pub(super) fn memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("agent-loop-git", MFdFlags::MFD_CLOEXEC)?);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(user: &str, token: &str) -> Credential {
        Credential { user: user.to_owned(), password: token.to_owned().into() }
    }

    #[test]
    fn a_secret_is_read_by_its_path_while_it_lives_and_printed_nowhere() {
        let secret = Secret::new("https://h/o/r.git", &credential("bot", "hunter22")).expect("a good credential");
        let encoded = BASE64.encode(b"bot:hunter22");
        let text = std::fs::read_to_string(secret.path()).expect("it is ours");
        assert_eq!(text, format!("[http \"https://h/o/r.git\"]\n\textraHeader = Authorization: Basic {encoded}\n"));
        assert!(!format!("{secret:?}").contains("hunter22"));
        let said = secret.scrub(&format!("bad hunter22, bad {encoded}"));
        assert_eq!(said, format!("bad {MARK}, bad {MARK}"));
    }

    #[test]
    fn a_credential_that_could_be_two_is_refused_and_not_said() {
        for (user, token) in [("a:b", "hunter22"), ("a", "hunter22\nx"), ("a\n", "hunter22"), ("a", "")] {
            let error = Secret::new("https://h/o/r.git", &credential(user, token)).expect_err("refused");
            assert!(!error.to_string().contains("hunter22"), "{error}");
        }
    }
}
