//! What can go wrong with git, by what a caller does about it. [pure]

use std::io;
use std::time::Duration;

use crate::store::StoreError;

/// Why git gave no answer. What is in doubt or refused after a push or in a bundle is no error but an answer.
///
/// The texts are for people. What git said in them is cut, without control characters, and without the token.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The directory cannot be used.
    #[error(transparent)]
    Place(#[from] StoreError),
    /// What was configured cannot be used.
    #[error("{0}")]
    Unfit(String),
    /// This host failed at it.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It took too long. Its process is left to end by its own limits.
    #[error("{doing}: no end after {} s; it ends by its own limits, try again later", after.as_secs())]
    TimedOut {
        /// What was being done.
        doing: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The forge could not be reached; nothing was changed there.
    #[error("{doing}: the forge was not reached: {said}; it is tried again later")]
    Unreachable {
        /// What was being done.
        doing: String,
        /// What git said.
        said: String,
    },
    /// The forge does not take the credential, or hides the repository from it; nothing was changed there.
    #[error("{doing}: the forge did not let us in: {said}; look whether the token is valid and may read and push")]
    Credential {
        /// What was being done.
        doing: String,
        /// What git said.
        said: String,
    },
    /// A commit is not in our repository.
    #[error("{doing}: commit {commit} is not in our repository; fetch its branch first")]
    Missing {
        /// What was being done.
        doing: String,
        /// The commit.
        commit: String,
    },
    /// git failed.
    #[error("{doing}: git failed: {said}")]
    Failed {
        /// What was being done.
        doing: String,
        /// What git said.
        said: String,
    },
}

/// Names what was being done.
pub(super) fn io_at(doing: impl Into<String>) -> impl FnOnce(io::Error) -> GitError {
    move |source| GitError::Io { doing: doing.into(), source }
}

/// Sorts what git said of a remote: not reached, not let in, or something else.
pub(super) fn of_remote(doing: &str, said: String) -> GitError {
    // Words of git and curl in the C locale; the status is the forge's.
    const NOT_LET_IN: [&str; 6] = [
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "returned error: 401",
        "returned error: 403",
        "not found",
    ];
    const NOT_REACHED: [&str; 5] =
        ["unable to access", "Could not resolve", "Failed to connect", "unexpected disconnect", "RPC failed"];
    let doing = doing.to_owned();
    if NOT_LET_IN.iter().any(|it| said.contains(it)) {
        GitError::Credential { doing, said }
    } else if NOT_REACHED.iter().any(|it| said.contains(it)) {
        GitError::Unreachable { doing, said }
    } else {
        GitError::Failed { doing, said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_of_a_remote_is_sorted() {
        let sort = |said: &str| match of_remote("fetching", said.to_owned()) {
            GitError::Credential { .. } => "credential",
            GitError::Unreachable { .. } => "unreachable",
            GitError::Failed { .. } => "failed",
            GitError::Place(_)
            | GitError::Unfit(_)
            | GitError::Io { .. }
            | GitError::TimedOut { .. }
            | GitError::Missing { .. } => "else",
        };
        for (said, kind) in [
            ("fatal: could not read Username for 'https://h': terminal prompts disabled", "credential"),
            ("fatal: unable to access 'https://h/': The requested URL returned error: 403", "credential"),
            ("fatal: repository 'https://h/x.git/' not found", "credential"),
            ("fatal: unable to access 'https://h/': Could not resolve host: h", "unreachable"),
            ("fatal: unable to access 'https://h/': The requested URL returned error: 502", "unreachable"),
            ("error: RPC failed; curl 18 transfer closed", "unreachable"),
            ("fatal: bad object", "failed"),
        ] {
            assert_eq!(sort(said), kind, "{said}");
        }
    }
}
