//! GitHub and GitHub Enterprise, over their REST API (version 2022-11-28).
//!
//! - [`GitHub`] is one repository there; `operations` is what it can do, `wire` and `rules` what answers look like
//! - `transport` sends: reads are repeated and conditional, writes are sent once, one at a time, a second apart
//! - `token`, `headers`, `etag` are its parts
//!
//! Not inside: octocrab's types, which refuse a whole answer for one new word; its retries, which repeat writes; its
//! cache, which ignores the method.

mod etag;
mod headers;
mod operations;
mod rules;
mod token;
mod transport;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use transport::Transport;

use super::{ForgeError, RepoName};

/// How we log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By a token in a file of ours (mode 0600 or 0400), such as a systemd credential. It is read again when it is no
    /// longer accepted, so that it can be replaced while we run.
    Token(PathBuf),
    /// As an installation of a GitHub App, whose private key is in a file of ours.
    App {
        /// The app's id.
        app: u64,
        /// The installation's id.
        installation: u64,
        /// The key: RSA, PEM.
        key: PathBuf,
    },
}

/// How patient the client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For a whole answer to a read.
    pub read: Duration,
    /// For a whole answer to a write; a merge takes its time.
    pub write: Duration,
    /// How long before a read without an answer is repeated, each time.
    pub repeat: Vec<Duration>,
    /// Between two writes.
    pub between_writes: Duration,
    /// A limit that is over by then is waited for; a longer one is told.
    pub limit: Duration,
    /// Bytes of answers that are kept to be asked for conditionally.
    pub kept: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
            write: Duration::from_secs(60),
            repeat: vec![Duration::from_millis(500), Duration::from_secs(2)],
            between_writes: Duration::from_secs(1),
            limit: Duration::from_secs(5),
            kept: 64 << 20,
        }
    }
}

/// Where a repository is and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The API: `https://api.github.com`, or `https://HOST/api/v3` of a GitHub Enterprise Server.
    pub api: String,
    /// The repository.
    pub repository: RepoName,
    /// How we log in.
    pub login: Login,
    /// How patient we are.
    pub patience: Patience,
}

/// A repository on GitHub.
pub struct GitHub {
    repository: RepoName,
    login: Login,
    git: String,
    transport: Transport,
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHub").field("repository", &self.repository).field("git", &self.git).finish_non_exhaustive()
    }
}

/// Why a client cannot be made; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The address is none that a token may be sent to.
    #[error("the API {0:?} is not a URL of the form https://HOST[/PATH]; without TLS only loopback is asked")]
    Api(String),
    /// The token or the key.
    #[error("{0}")]
    Login(String),
    /// The library of TLS or HTTP.
    #[error("preparing the client: {0}")]
    Client(String),
}

impl GitHub {
    /// Prepares the client; nothing is sent. It needs a tokio runtime with time and IO.
    ///
    /// # Errors
    /// [`OptionsError`] where the address is not safe for a token, or the file of the token is not.
    pub fn new(options: &Options) -> Result<Self, OptionsError> {
        let transport = Transport::new(options)?;
        // GitHub's API has a host of its own, an Enterprise Server's a path.
        let site = match transport.origin() {
            "https://api.github.com" => "https://github.com",
            other => other,
        };
        let git = format!("{site}/{}.git", options.repository);
        Ok(Self { repository: options.repository.clone(), login: options.login.clone(), git, transport })
    }

    /// Where in the API the repository is.
    fn at(&self, rest: fmt::Arguments<'_>) -> String {
        format!("/repos/{}/{}{rest}", self.repository.owner(), self.repository.name())
    }

    /// A text in a path or a query.
    fn escape(text: &str) -> String {
        const PLAIN: &percent_encoding::AsciiSet =
            &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        percent_encoding::utf8_percent_encode(text, PLAIN).to_string()
    }

    /// A name of several parts in a path.
    fn escape_parts(name: &str) -> String {
        name.split('/').map(Self::escape).collect::<Vec<_>>().join("/")
    }
}

/// An answer that cannot be understood.
fn nonsense(doing: &str, why: &dyn fmt::Display) -> ForgeError {
    ForgeError::Nonsense { doing: doing.to_owned(), why: token::scrub(&why.to_string(), None) }
}
