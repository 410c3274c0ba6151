//! The token: read from a file that only we can read, or asked for as a GitHub App.
//!
//! It is never in an argv, an environment, an error or a log: `SecretString` does not print itself, and what the forge
//! says passes [`scrub`] before it becomes a text.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use nix::sys::stat::{SFlag, fstat};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::forge::At;

/// The most bytes of a file that holds a token or a key.
const LONGEST: u64 = 16 << 10;

/// Reads a token from its file: one line of visible characters.
pub(super) fn from_file(path: &Path) -> Result<SecretString, String> {
    let text = secret_file(path)?;
    let token = text.expose_secret().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{} does not hold a token alone, on one line", path.display()));
    }
    Ok(SecretString::from(token))
}

/// Reads a file that nobody else can read or write; what was opened is checked.
fn secret_file(path: &Path) -> Result<SecretString, String> {
    let name = path.display();
    // A FIFO must not hold us up. Links are followed: a credential may be one; what counts is what was opened.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(|error| format!("opening {name}: {error}"))?;
    let stat = fstat(&file).map_err(|errno| format!("looking at {name}: {errno}"))?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(format!("{name} is not a regular file"));
    }
    let ours = nix::unistd::geteuid().as_raw();
    if stat.st_uid != 0 && stat.st_uid != ours {
        return Err(format!(
            "{name} belongs to user {}, who knows and could change it: `chown root {name}`",
            stat.st_uid
        ));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!("{name} has mode {mode:04o}, others could read or change it: `chmod 600 {name}`"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| format!("reading {name}: {error}"))?;
    Ok(SecretString::from(text))
}

/// The signed word with which a GitHub App asks for a token: a JSON Web Token (RS256), good for nine minutes.
pub(super) fn of_app(app: u64, key: &Path, now: At) -> Result<SecretString, String> {
    let wrong = |why: &str| format!("{} is not the private key of a GitHub App (RSA, PEM): {why}", key.display());
    let pem = secret_file(key)?;
    let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| wrong("no PEM block"))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Sec1(_) | _ => return Err(wrong("another kind of key")),
    };
    let pair = pair.map_err(|rejected| wrong(&rejected.to_string()))?;
    // A minute back: the forge's clock may be a little behind the one we know of it.
    let claims = serde_json::json!({ "iat": now.0 - 60, "exp": now.0 + 480, "iss": app.to_string() });
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", encode(r#"{"alg":"RS256","typ":"JWT"}"#), encode(&claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| wrong("signing failed"))?;
    Ok(SecretString::from(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))))
}

/// What somebody said, for people: cut, without control characters, and without the token.
pub(super) fn scrub(text: &str, token: Option<&SecretString>) -> String {
    const LONGEST: usize = 400;
    let without = token
        .map(|token| token.expose_secret().trim())
        .filter(|token| !token.is_empty())
        .map_or_else(|| text.to_owned(), |token| text.replace(token, "[the token]"));
    let clean = without.chars().map(|c| if c.is_control() { ' ' } else { c });
    let cut: String = clean.take(LONGEST).collect();
    cut.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        fs::write(file.path(), text).expect("writing it");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).expect("its mode");
        file
    }

    #[test]
    fn a_token_that_others_could_read_or_change_is_refused() {
        for mode in [0o600, 0o400] {
            let token = from_file(file("s3cret\n", mode).path()).expect("a safe file");
            assert_eq!(token.expose_secret(), "s3cret");
        }
        for mode in [0o640, 0o604, 0o622, 0o660] {
            let error = from_file(file("s3cret\n", mode).path()).expect_err("others could");
            assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_said() {
        for text in ["", "\n", "two words", "two\nlines", "tab\there", "ä"] {
            let error = from_file(file(text, 0o600).path()).expect_err("no token");
            assert!(error.contains("on one line"), "{error}");
            assert!(text.trim().is_empty() || !error.contains(text.trim()), "{error}");
        }
        assert!(from_file(Path::new("/dev/null")).expect_err("no file").contains("not a regular file"));
    }

    #[test]
    fn what_the_forge_says_never_holds_the_token() {
        let token = SecretString::from("s3cret");
        let said = scrub("bad \u{1b}[31m credentials\ns3cret s3cret", Some(&token));
        assert_eq!(said, "bad  [31m credentials [the token] [the token]");
        assert_eq!(scrub(&"x".repeat(9_999), None).len(), 400);
    }

    #[test]
    fn a_key_of_another_kind_is_refused_and_not_said() {
        let pem = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let error = of_app(1, file(pem, 0o600).path(), At(0)).expect_err("no key");
        assert!(error.contains("not the private key") && !error.contains("c2VjcmV0"), "{error}");
    }
}
