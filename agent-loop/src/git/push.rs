//! What goes to the forge: one commit to one branch, over nothing that others pushed.

use super::error::{GitError, of_remote};
use super::process::{Call, Said};
use super::repository::Repository;
use super::secret::Secret;
use crate::forge::{Branch, Credential, Sha};

/// How a push went, as its answer says. Whether the branch is there now is read from the forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The forge took it, or had it already.
    Done,
    /// The branch is not where it was expected to be; nothing was changed.
    Moved(String),
    /// The forge refuses it; nothing was changed.
    Refused(String),
    /// It may have happened or not: read the branch before anything else (I18).
    Doubt(String),
}

impl Repository {
    /// Pushes `head` to a branch of the forge that is at `expect`, or that is not there. It is sent once.
    ///
    /// `head` has to go on from `expect`: nothing that is on the forge is ever rewritten. Nothing but the branch is pushed.
    ///
    /// # Errors
    /// Where nothing was sent: a commit is not here, the forge was not reached or did not let us in, this host failed.
    pub async fn push(
        &self,
        branch: &Branch,
        head: &Sha,
        expect: Option<&Sha>,
        credential: &Credential,
    ) -> Result<Pushed, GitError> {
        let doing = format!("pushing branch {branch}");
        for commit in [Some(head), expect].into_iter().flatten() {
            if !self.has(commit).await? {
                return Err(GitError::Missing { doing, commit: commit.to_string() });
            }
        }
        // The lease alone would let a branch be rewritten that is where it is expected.
        if let Some(expect) = expect
            && !self.is_ancestor(expect, head, self.local(&doing)).await?
        {
            let why = format!("commit {} does not go on from {}", head.short(), expect.short());
            return Ok(Pushed::Refused(format!("{why}, which is on the forge; what is there is never rewritten")));
        }
        let name = format!("refs/heads/{branch}");
        let secret = Secret::new(&self.url, credential)?;
        let call = Call::new(&doing, self.patience.remote)
            .remote(self.protocol, secret)
            .args(["push", "--porcelain", "--no-verify", "--no-recurse-submodules", "--no-follow-tags", "--no-signed"])
            .args([format!("--force-with-lease={name}:{}", expect.map_or("", Sha::as_str))])
            .args(["--", &self.url, &format!("{head}:{name}")]);
        match self.git.run(call).await {
            Ok(said) => answer(&doing, &name, &said),
            Err(error @ GitError::TimedOut { .. }) => Ok(Pushed::Doubt(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Reads what `git push --porcelain` said (git-push(1), "OUTPUT").
fn answer(doing: &str, name: &str, said: &Said) -> Result<Pushed, GitError> {
    let lines = said.out.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        let (flag, refs, summary) = (parts.next()?, parts.next()?, parts.next()?);
        (refs.rsplit_once(':')?.1 == name).then_some((flag, summary))
    });
    let lines: Vec<(&str, &str)> = lines.collect();
    let all = |summary: &str| if said.err.is_empty() { summary.to_owned() } else { format!("{summary}; {}", said.err) };
    match lines[..] {
        [(" " | "*" | "+" | "=", _)] if said.code == Some(0) => Ok(Pushed::Done),
        [("!", summary)] if summary.starts_with("[remote failure]") => Ok(Pushed::Doubt(all(summary))),
        // The second three are a forge's words where somebody was first by a moment.
        [("!", summary)]
            if [
                "stale info",
                "fetch first",
                "non-fast-forward",
                "cannot lock ref",
                "already exists",
                "but expected",
            ]
            .iter()
            .any(|it| summary.contains(it)) =>
        {
            Ok(Pushed::Moved(all(summary)))
        }
        [("!", summary)] => Ok(Pushed::Refused(all(summary))),
        [] => match of_remote(doing, said.why()) {
            // These words are of the question before the push.
            error @ GitError::Credential { .. } => Err(error),
            error @ GitError::Unreachable { .. } if said.err.contains("unable to access") => Err(error),
            GitError::Unreachable { said, .. } | GitError::Failed { said, .. } => Ok(Pushed::Doubt(said)),
            error @ (GitError::Place(_)
            | GitError::Unfit(_)
            | GitError::Io { .. }
            | GitError::TimedOut { .. }
            | GitError::Missing { .. }) => Err(error),
        },
        _ => Ok(Pushed::Doubt(all("git said more than one thing of the branch"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32, out: &str, err: &str) -> Result<Pushed, GitError> {
        let said = Said { code: Some(code), out: out.to_owned(), err: err.to_owned() };
        answer("pushing", "refs/heads/b", &said)
    }

    #[test]
    fn a_push_is_done_only_where_git_says_so_of_the_branch() {
        for flag in [" ", "*", "="] {
            let out = format!("To https://h/r\n{flag}\tabc:refs/heads/b\t[new branch]\nDone\n");
            assert_eq!(of(0, &out, "").ok(), Some(Pushed::Done), "{flag:?}");
            assert!(!matches!(of(1, &out, ""), Ok(Pushed::Done)), "the code says no");
        }
        let other = "To https://h/r\n*\tabc:refs/heads/bb\t[new branch]\nDone\n";
        for out in ["", "Done\n", "To https://h/r\nDone\n", other] {
            assert!(matches!(of(0, out, ""), Ok(Pushed::Doubt(_))), "{out}");
        }
    }

    #[test]
    fn who_was_first_is_told_from_who_says_no_and_from_doubt() {
        let line = |summary: &str| format!("To https://h/r\n!\tabc:refs/heads/b\t{summary}\nDone\n");
        for moved in [
            "[rejected] (stale info)",
            "[rejected] (fetch first)",
            "[rejected] (non-fast-forward)",
            "[remote rejected] (cannot lock ref 'refs/heads/b': is at 1 but expected 2)",
            "[remote rejected] (cannot lock ref 'refs/heads/b': reference already exists)",
        ] {
            assert!(matches!(of(1, &line(moved), ""), Ok(Pushed::Moved(_))), "{moved}");
        }
        for refused in ["[remote rejected] (protected branch hook declined)", "[remote rejected] (pre-receive hook)"] {
            assert!(matches!(of(1, &line(refused), ""), Ok(Pushed::Refused(_))), "{refused}");
        }
        let failure = line("[remote failure] (remote failed to report status)");
        assert!(matches!(of(1, &failure, ""), Ok(Pushed::Doubt(_))));
    }

    #[test]
    fn what_was_never_sent_is_an_error_and_what_broke_off_is_a_doubt() {
        let access = "fatal: unable to access 'https://h/r/': Failed to connect to h";
        assert!(matches!(of(128, "", access), Err(GitError::Unreachable { .. })));
        let denied = "fatal: could not read Username for 'https://h': terminal prompts disabled";
        assert!(matches!(of(128, "", denied), Err(GitError::Credential { .. })));
        for broken in
            ["error: RPC failed; curl 52 Empty reply from server; fatal: the remote end hung up unexpectedly", "odd"]
        {
            assert!(matches!(of(1, "", broken), Ok(Pushed::Doubt(_))), "{broken}");
        }
    }
}
