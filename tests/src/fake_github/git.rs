//! The repository of the fake: a real bare one, and git's own HTTP in front of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::http::{Reply, Request};

/// A bare repository.
#[derive(Debug)]
pub(super) struct Git {
    root: TempDir,
    dir: PathBuf,
}

impl Git {
    /// A repository with one commit on `main`.
    pub(super) fn new(owner: &str, name: &str) -> Self {
        let root = tempfile::tempdir().expect("a scratch directory");
        let dir = root.path().join(owner).join(format!("{name}.git"));
        std::fs::create_dir_all(&dir).expect("a directory in it");
        let git = Self { root, dir };
        git.run(&["init", "--quiet", "--bare", "--initial-branch=main", "."], b"");
        git.run(&["config", "http.receivepack", "true"], b"");
        let first = git.commit(&[("README.md", "A repository to play with.\n")], None, &[], "the beginning");
        assert!(git.update("refs/heads/main", &first, None));
        git
    }

    fn command(&self) -> Command {
        let mut git = Command::new("git");
        // Nothing of the host's configuration, and times that tests can compare.
        git.current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_DIR", &self.dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([("GIT_AUTHOR_NAME", "A Person"), ("GIT_AUTHOR_EMAIL", "person@example.com")])
            .envs([("GIT_COMMITTER_NAME", "A Person"), ("GIT_COMMITTER_EMAIL", "person@example.com")]);
        git
    }

    /// What git says, where it succeeds.
    pub(super) fn try_run(&self, args: &[&str], stdin: &[u8]) -> Option<String> {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git is here");
        child.stdin.take().expect("it is piped").write_all(stdin).expect("git reads");
        let output = child.wait_with_output().expect("git ends");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn run(&self, args: &[&str], stdin: &[u8]) -> String {
        self.try_run(args, stdin).unwrap_or_else(|| panic!("git {args:?} failed"))
    }

    /// Makes a commit: the files of `on`, and these beside or instead.
    pub(super) fn commit(&self, files: &[(&str, &str)], on: Option<&str>, parents: &[&str], message: &str) -> String {
        let mut entries: Vec<String> = on
            .map(|on| self.run(&["ls-tree", on], b""))
            .into_iter()
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| !files.iter().any(|(name, _)| line.ends_with(&format!("\t{name}"))))
            .collect();
        for (name, text) in files {
            let blob = self.run(&["hash-object", "-w", "--stdin"], text.as_bytes());
            entries.push(format!("100644 blob {blob}\t{name}"));
        }
        let tree = self.run(&["mktree"], format!("{}\n", entries.join("\n")).as_bytes());
        self.commit_tree(&tree, parents, message).expect("a tree that was just made")
    }

    /// Makes a commit of a tree.
    pub(super) fn commit_tree(&self, tree: &str, parents: &[&str], message: &str) -> Option<String> {
        let mut args = vec!["commit-tree", tree];
        for parent in parents {
            args.extend(["-p", parent]);
        }
        self.try_run(&args, message.as_bytes())
    }

    /// What a ref points at.
    pub(super) fn at(&self, name: &str) -> Option<String> {
        self.try_run(&["rev-parse", "--verify", "--quiet", name], b"")
    }

    /// Whether a commit is there.
    pub(super) fn has(&self, commit: &str) -> bool {
        self.try_run(&["cat-file", "-e", &format!("{commit}^{{commit}}")], b"").is_some()
    }

    /// The refs below a prefix, and what they point at.
    pub(super) fn below(&self, prefix: &str) -> Vec<(String, String)> {
        let all = self.run(&["for-each-ref", "--format=%(refname) %(objectname)"], b"");
        let pairs = all.lines().filter_map(|line| line.split_once(' '));
        pairs.filter(|(name, _)| name.starts_with(prefix)).map(|(name, at)| (name.to_owned(), at.to_owned())).collect()
    }

    /// Sets a ref that is now at `old` (`None`: that is not there).
    pub(super) fn update(&self, name: &str, new: &str, old: Option<&str>) -> bool {
        let none = "0".repeat(40);
        self.try_run(&["update-ref", name, new, old.unwrap_or(&none)], b"").is_some()
    }

    /// Removes a ref.
    pub(super) fn delete(&self, name: &str) -> bool {
        self.at(name).is_some() && self.try_run(&["update-ref", "-d", name], b"").is_some()
    }

    /// Whether the first is the second or one of its ancestors.
    pub(super) fn is_ancestor(&self, first: &str, second: &str) -> bool {
        self.try_run(&["merge-base", "--is-ancestor", first, second], b"").is_some()
    }

    /// The tree of two commits merged; `None` where they conflict.
    pub(super) fn merged_tree(&self, base: &str, head: &str) -> Option<String> {
        self.try_run(&["merge-tree", "--write-tree", base, head], b"")
    }

    /// A file.
    pub(super) fn file(&self, at: &str, path: &str) -> Option<String> {
        self.try_run(&["cat-file", "blob", &format!("{at}:{path}")], b"")
    }

    /// git's own answer to a request of a git client.
    pub(super) fn serve(&self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let mut git = self.command();
        git.arg("http-backend")
            .env_remove("GIT_DIR")
            .env("GIT_PROJECT_ROOT", self.root.path())
            .envs([("GIT_HTTP_EXPORT_ALL", "1"), ("REMOTE_USER", "somebody"), ("REMOTE_ADDR", "127.0.0.1")])
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", request.header("content-encoding").unwrap_or_default())
            .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or_default());
        let mut child =
            git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("git is here");
        let mut stdin = child.stdin.take().expect("it is piped");
        let body = request.body.clone();
        // It may answer before it has read all.
        let feeding = std::thread::spawn(move || drop(stdin.write_all(&body)));
        let output = child.wait_with_output().expect("git ends");
        feeding.join().expect("feeding ends with git");
        of_cgi(&output.stdout)
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A reply in the form of CGI (RFC 3875).
fn of_cgi(output: &[u8]) -> Reply {
    let end = output.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or(output.len());
    let (head, body) = output.split_at(end);
    let mut reply = Reply { code: 200, headers: Vec::new(), body: body.get(4..).unwrap_or_default().to_vec() };
    for line in String::from_utf8_lossy(head).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            reply.code = value.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500);
        } else {
            reply.headers.push((name.to_owned(), value.to_owned()));
        }
    }
    reply
}
