//! Which names promise that their value is secret: of flags, variables, headers, fields.

/// How surely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    /// It is also an everyday word: only a flag or an equals sign makes it the name of a secret.
    Weak,
    /// Whatever stands after it, a colon too.
    Strong,
}

/// A name from the configuration, as it is compared: in lower case, without what divides its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub(super) String);

impl UserName {
    /// Takes it as it was written.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if text.len() < 2 || text.contains(odd) {
            return Err("write the name of a flag, variable or field, without dashes before it and value".to_owned());
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Parts that promise it wherever they stand.
const STRONG: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "token",
    "tokens",
    "apikey",
    "authkey",
    "credential",
    "credentials",
    "jwt",
    "privatekey",
    "secretkey",
    "accesskey",
];
/// Parts that do as the last one, or alone.
const WEAK: [&str; 9] = ["auth", "pass", "pw", "pwd", "cred", "creds", "cookie", "cookies", "bearer"];
/// What a name without divisions ends in: `PGPASSWORD`, `authtoken`.
const ENDS: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "accesskey", "privatekey"];
/// What stands before `key` where that is secret.
const KEYS: [&str; 13] = [
    "api",
    "access",
    "private",
    "secret",
    "signing",
    "encryption",
    "session",
    "account",
    "shared",
    "master",
    "deploy",
    "auth",
    "service",
];
/// Names that are secret as a whole.
const WHOLE: [&str; 5] = ["sig", "x-amz-signature", "x-goog-signature", "pgpass", "netrc"];
/// Last parts that make it the name of something else: where the secret is, how long, of which kind.
const ABOUT: [&str; 36] = [
    "file", "files", "path", "dir", "stdin", "url", "uri", "endpoint", "sock", "socket", "type", "kind", "env",
    "command", "cmd", "helper", "ttl", "expiry", "expires", "lifetime", "length", "len", "size", "count", "limit",
    "budget", "max", "min", "usage", "fd", "scope", "scopes", "mode", "method", "store", "provider",
];

/// What a name promises of its value; `None` where nothing.
pub(super) fn promise(name: &str, user: &[UserName]) -> Option<Promise> {
    let name = name.trim_start_matches(['-', '/', '.', '_']);
    if name.is_empty() || name.len() > 128 {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    if user.iter().any(|it| it.0 == lower) || WHOLE.contains(&lower.as_str()) {
        return Some(Promise::Strong);
    }
    let parts = parts(name);
    let last = parts.last()?.as_str();
    let first = parts.first()?.as_str();
    if ABOUT.contains(&last) || first == "no" || lower == "pwd" || lower == "oldpwd" {
        return None;
    }
    let is_key = |pair: &[String]| matches!(pair, [what, key] if key == "key" && KEYS.contains(&what.as_str()));
    let strong = |part: &String| STRONG.contains(&part.as_str()) || ENDS.iter().any(|end| part.ends_with(end));
    if parts.iter().any(strong) || parts.windows(2).any(is_key) {
        Some(Promise::Strong)
    } else if WEAK.contains(&last) || (last == "pat" && parts.len() > 1) {
        Some(Promise::Weak)
    } else {
        None
    }
}

/// The parts of a name, in lower case: divided by what is no letter and no digit, and before a capital after a small letter.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut small = false;
    for char in name.chars() {
        if !char.is_alphanumeric() || (small && char.is_uppercase()) {
            parts.push(String::new());
        }
        small = char.is_lowercase();
        if char.is_alphanumeric()
            && let Some(part) = parts.last_mut()
        {
            part.extend(char.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_promise_secrets_by_their_parts() {
        for name in [
            "--token",
            "GITHUB_TOKEN",
            "authToken",
            "_authToken",
            "PGPASSWORD",
            "MYSQL_PASSWORD",
            "SECRET_KEY_BASE",
            "aws_secret_access_key",
            "x-api-key",
            "Private-Token",
            "clientSecret",
            "TOKEN_2",
            "DB_PASSWORD_PROD",
            "accountKey",
            "ANTHROPIC_API_KEY",
        ] {
            assert_eq!(promise(name, &[]), Some(Promise::Strong), "{name}");
        }
        for name in ["auth", "DB_PASS", "MYSQL_PWD", "GH_PAT", "cookie", "REDISCLI_AUTH"] {
            assert_eq!(promise(name, &[]), Some(Promise::Weak), "{name}");
        }
        for name in [
            "--tokenizer",
            "PWD",
            "OLDPWD",
            "--token-file",
            "--password-stdin",
            "no-password",
            "SSH_AUTH_SOCK",
            "TOKEN_URL",
            "keyboard",
            "monkey",
            "compass",
            "author",
            "key",
            "max_token_count",
            "bypass",
            "",
        ] {
            assert_eq!(promise(name, &[]), None, "{name}");
        }
    }

    #[test]
    fn a_name_of_the_configuration_is_compared_without_case() {
        let user = [UserName::parse("Klammer_Affe").expect("good")];
        assert_eq!(promise("KLAMMER_AFFE", &user), Some(Promise::Strong));
        assert!(UserName::parse("a b").is_err() && UserName::parse("x").is_err());
    }
}
