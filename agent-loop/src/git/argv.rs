//! What is run as the agent, in its own clone and with its own rights: arguments only, never a shell. [pure]
//!
//! Whatever a clone's configuration makes git execute is executed by the agent's user, in the agent's cgroup, without
//! the token. What these commands print or write is believed in nothing.

use std::ffi::OsString;
use std::path::Path;

use crate::forge::{Branch, Sha};

/// Whose name stands on the commits of an agent that sets none itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

/// Makes the clone: from a bundle (an absolute path) into a directory that is empty or not there, on `branch`. `author`
/// is written into its configuration; without one the agent's user needs a name of its own.
#[must_use]
pub fn clone_argv(git: &Path, bundle: &Path, dir: &Path, branch: &Branch, author: Option<&Author>) -> Vec<OsString> {
    let mut argv = Argv::of(git).with(["clone", "--quiet", "--origin=origin", "--template="]);
    argv = argv.with([format!("--branch={branch}")]);
    if let Some(Author { name, email }) = author {
        argv = argv.with([format!("--config=user.name={name}"), format!("--config=user.email={email}")]);
    }
    argv.with(["--"]).with([bundle, dir]).0
}

/// Brings what a newer bundle holds into the clone: `origin/<branch>` and `origin/<base>`, nothing else is touched.
#[must_use]
pub fn refresh_argv(git: &Path, bundle: &Path, dir: &Path, branch: &Branch, base: &Branch) -> Vec<OsString> {
    let remote = |branch: &Branch| format!("+refs/heads/{branch}:refs/remotes/origin/{branch}");
    let argv = Argv::of(git).with(["-C".as_ref(), dir]).with(["fetch", "--quiet", "--no-tags", "--"]).with([bundle]);
    let mut argv = argv.with([remote(branch)]);
    if base != branch {
        argv = argv.with([remote(base)]);
    }
    argv.0
}

/// Writes a bundle of the branch to standard output: `since` and what comes after it. `since` itself is in it, so that
/// the bundle of a branch without a new commit is not empty, which git refuses: whatever fails is a failure.
#[must_use]
pub fn take_argv(git: &Path, dir: &Path, branch: &Branch, since: &Sha) -> Vec<OsString> {
    let argv = Argv::of(git).with(["-C".as_ref(), dir]).with(["bundle", "create", "--quiet", "-"]);
    argv.with([format!("refs/heads/{branch}"), format!("^{since}^@")]).0
}

/// Gives the agent's user back its right to write in each directory of its clone: a tool may have taken it away. To
/// be run before [`remove_argv`]; whether it succeeds does not matter.
#[must_use]
pub fn unlock_argv(chmod: &Path, dir: &Path) -> Vec<OsString> {
    Argv::of(chmod).with(["-R", "-f", "u+rwX", "--"]).with([dir]).0
}

/// Empties a directory (an absolute path) and leaves it; `find` is that of findutils. Links are removed, not followed.
#[must_use]
pub fn remove_argv(find: &Path, dir: &Path) -> Vec<OsString> {
    Argv::of(find).with(["-P"]).with([dir]).with(["-xdev", "-mindepth", "1", "-delete"]).0
}

struct Argv(Vec<OsString>);

impl Argv {
    fn of(program: &Path) -> Self {
        Self(vec![program.into()])
    }

    fn with<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.0.extend(args.into_iter().map(Into::into));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(argv: &[OsString]) -> String {
        argv.iter().map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_run_as_the_agent_is_arguments_and_no_shell() {
        let (git, bundle, dir) = (Path::new("/usr/bin/git"), Path::new("/b/x.bundle"), Path::new("/w/c"));
        let branch: Branch = "issue-1-fix".parse().expect("a branch");
        let base: Branch = "main".parse().expect("a branch");
        let since: Sha = "a".repeat(40).parse().expect("a commit");
        let author = Author { name: "A Bot".to_owned(), email: "bot@example.com".to_owned() };
        assert_eq!(
            words(&clone_argv(git, bundle, dir, &branch, Some(&author))),
            "/usr/bin/git clone --quiet --origin=origin --template= --branch=issue-1-fix --config=user.name=A Bot \
             --config=user.email=bot@example.com -- /b/x.bundle /w/c"
        );
        assert_eq!(
            words(&refresh_argv(git, bundle, dir, &branch, &base)),
            "/usr/bin/git -C /w/c fetch --quiet --no-tags -- /b/x.bundle \
             +refs/heads/issue-1-fix:refs/remotes/origin/issue-1-fix +refs/heads/main:refs/remotes/origin/main"
        );
        assert_eq!(
            words(&take_argv(git, dir, &branch, &since)),
            format!("/usr/bin/git -C /w/c bundle create --quiet - refs/heads/issue-1-fix ^{since}^@")
        );
        let remove = words(&remove_argv(Path::new("/usr/bin/find"), dir));
        assert_eq!(remove, "/usr/bin/find -P /w/c -xdev -mindepth 1 -delete");
        assert_eq!(words(&unlock_argv(Path::new("/bin/chmod"), dir)), "/bin/chmod -R -f u+rwX -- /w/c");
    }
}
