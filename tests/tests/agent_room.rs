//! The real `claude`, run by the command that agent-loop makes and understood by what agent-loop makes of its output.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use agent_loop::agent::{AgentCommand, Ask, SessionId, Stream, Subject, Templates, Told, Values, Waits, judge};
use agent_loop::event::Outcome;
use agent_loop::model::{Source, WaitStatus};
use agent_loop::run::{End, RunOutcome};
use agent_loop::work::{At, Branch, RepoName, RunEnd};
use agent_loop_tests::harness::claude;
use agent_loop_tests::needs;
use agent_loop_tests::stand_in::{StandIn, Turn};

const NOBODY: u32 = 65_534;

struct Scene {
    repo: RepoName,
    branch: Branch,
    base: Branch,
    session: SessionId,
    command: AgentCommand,
}

impl Scene {
    fn new(extra: &[&str]) -> Self {
        let program = claude().expect("it was fetched").display().to_string();
        let extra = extra.iter().map(|&arg| arg.to_owned()).collect();
        Self {
            repo: "o/r".parse().expect("a repository"),
            branch: "issue-42-fix".parse().expect("a branch"),
            base: "main".parse().expect("a branch"),
            session: SessionId::from_random(*b"0123456789abcdef"),
            command: AgentCommand::claude(&program, extra).expect("a command"),
        }
    }

    /// Runs it as another user in `home`, with its prompt on standard input.
    fn run(&self, stand_in: &StandIn, home: &Path, ask: &Ask<'_>, again: bool) -> (Told, RunEnd) {
        let attempt = 1 + u32::from(again);
        let subject = Subject {
            repo: &self.repo,
            number: 42,
            title: "Greet",
            body: "Say hello to $(touch harm) `touch harm`",
            author: Some("ann"),
            branch: &self.branch,
            base: &self.base,
            attempt,
            session: self.session,
        };
        let prompt = Templates::built_in().and_then(|it| it.render(&subject, ask)).expect("a prompt");
        fs::write(home.join("prompt"), prompt).expect("a scratch file");
        let (repo, branch, base) = (&self.repo, &self.branch, &self.base);
        let values = Values { session: self.session, repo, number: 42, branch, base, attempt };
        let argv = self.command.argv(&values, again);
        let (program, args) = argv.split_first().expect("a command");
        let mut command = Command::new(program);
        command.args(args).current_dir(home).uid(NOBODY).gid(NOBODY).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home).env("SHELL", "/bin/bash");
        command.env("ANTHROPIC_BASE_URL", stand_in.url()).env("ANTHROPIC_API_KEY", "any");
        command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1").env("TMPDIR", home);
        let output = command.stdin(File::open(home.join("prompt")).expect("it is there")).output().expect("it starts");
        let mut stream = Stream::new(Some(self.session));
        stream.feed(&output.stdout);
        let told = stream.finish();
        let end = End {
            outcome: RunOutcome::Finished(Outcome::Ended),
            status: Some(WaitStatus::from_raw(output.status.into_raw())),
            source: Source::Waitid,
            births: 1,
            deaths: 1,
            leftovers: 0,
            proven: true,
            oom_kills: None,
            elapsed: Duration::from_secs(1),
            at_unix_ns: 0,
        };
        let judged = judge(self.command.preset(), &end, &told, At(1_795_621_200), Waits::default());
        (told, judged)
    }
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a scratch directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).expect("our own");
    chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("we are root");
    home
}

#[test]
fn the_real_claude_works_and_goes_on_with_its_session() {
    needs!(root, claude);
    let home = home();
    let scene = Scene::new(&["--allowedTools", "Bash"]);
    let stand_in = StandIn::start([
        Turn::Bash("echo hello > made.txt".to_owned()),
        Turn::Text("It is done.".to_owned()),
        Turn::Text("It is done again.".to_owned()),
    ]);
    let (told, end) = scene.run(&stand_in, home.path(), &Ask::Work, false);
    assert_eq!(end, RunEnd::Worked, "{told:?}");
    assert_eq!((told.session, told.result.as_deref()), (Some(scene.session.to_string()), Some("It is done.")));
    let (told, end) = scene.run(&stand_in, home.path(), &Ask::Again { reason: "no commit" }, true);
    assert_eq!(end, RunEnd::Worked, "{told:?}");
    assert_eq!((told.session, told.result.as_deref()), (Some(scene.session.to_string()), Some("It is done again.")));
    stand_in.assert_played();
    assert!(home.path().join("made.txt").exists() && !home.path().join("harm").exists());
    // A session that is there already is not begun again: that is told, and is a failure.
    let (told, end) = scene.run(&stand_in, home.path(), &Ask::Work, false);
    assert!(matches!(end, RunEnd::Failed(_)), "{end:?} {told:?}");
}

#[test]
fn the_real_claude_says_that_its_turns_are_used_up() {
    needs!(root, claude);
    let home = home();
    let scene = Scene::new(&["--allowedTools", "Bash", "--max-turns", "1"]);
    let stand_in = StandIn::start([Turn::Bash("true".to_owned())]);
    let (told, end) = scene.run(&stand_in, home.path(), &Ask::Work, false);
    assert!(matches!(end, RunEnd::Stopped(_)), "{end:?} {told:?}");
}
