//! I23: whatever an agent writes into its clone, nothing of it is executed by us, and nothing of ours goes elsewhere.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use agent_loop::forge::Sha;
use agent_loop::git::{Pushed, Taken};
use agent_loop_tests::fake_github::TOKEN;
use agent_loop_tests::needs;

use super::world::{Between, Room, Rule, open_to_all, program};

/// What a clone can be made to do, as a script in it. `$PAY` leaves a file behind, owned by whoever ran it; `$ELSEWHERE`
/// is a listener. Then whether git that is run in the clone as root falls for it.
const CORPUS: &[(&str, &str, bool)] = &[
    ("core.fsmonitor", "git config core.fsmonitor \"$PAY\"", true),
    (
        "hooks",
        "for hook in $(ls $HOME/hooks) pre-push post-checkout post-index-change reference-transaction pre-commit \
         post-commit pre-auto-gc post-rewrite proc-receive pre-receive update post-receive post-update push-to-checkout \
         pre-merge-commit post-merge prepare-commit-msg commit-msg fsmonitor-watchman; do
           ln -sf \"$PAY\" .git/hooks/$hook; done",
        true,
    ),
    ("core.hooksPath", "mkdir -p $HOME/hooks && ln -sf \"$PAY\" $HOME/hooks/pre-push && git config core.hooksPath $HOME/hooks", true),
    ("filter.clean", "git config filter.x.clean \"$PAY\"; git config filter.x.smudge \"$PAY\"; git config filter.x.process \"$PAY\"; echo '* filter=x' >> .git/info/attributes; touch -d '2 days ago' *", true),
    ("diff.external", "git config diff.external \"$PAY\"; git config diff.x.textconv \"$PAY\"; echo '* diff=x' >> .git/info/attributes; echo more >> README.md", true),
    ("core.sshCommand", "git config core.sshCommand \"$PAY\"; git config remote.origin.url ssh://example.invalid/x", true),
    ("url.insteadOf", "git config url.\"$ELSEWHERE\".insteadOf \"$FORGE\"", true),
    ("url.pushInsteadOf", "git config url.\"$ELSEWHERE\".pushInsteadOf \"$FORGE\"", true),
    ("remote.pushurl", "git config remote.origin.pushurl \"$ELSEWHERE\"", true),
    ("remote.proxy", "git config remote.origin.proxy \"$PROXY\"", true),
    ("http.proxy", "git config http.proxy \"$PROXY\"; git config http.sslVerify false", true),
    ("credential.helper", "git config credential.helper \"!$PAY\"", true),
    ("core.askPass", "git config core.askPass \"$PAY\"; git config core.editor \"$PAY\"; git config core.pager \"$PAY\"; git config gpg.program \"$PAY\"; git config push.gpgSign true", true),
    ("include.path", "printf '[core]\\n\\tfsmonitor = %s\\n' \"$PAY\" > ../more.config; git config include.path ../../more.config", true),
    ("uploadpack.packObjectsHook", "git config uploadpack.packObjectsHook \"$PAY\"; git config core.alternateRefsCommand \"$PAY\"", false),
    ("remote.uploadpack", "git config remote.origin.uploadpack \"$PAY\"; git config remote.origin.receivepack \"$PAY\"; git config remote.origin.url \"$PWD\"", true),
    ("remote.vcs", "git config remote.origin.vcs ext; git config protocol.ext.allow always; git config remote.origin.url \"ext::$PAY\"", true),
    ("a symlinked .git", "mv .git ../real.git && git config -f ../real.git/config core.fsmonitor \"$PAY\" && ln -s ../real.git .git", true),
    ("a .git file", "mv .git ../real.git && git config -f ../real.git/config core.fsmonitor \"$PAY\" && echo 'gitdir: ../real.git' > .git", true),
    ("a symlinked objects", "mv .git/objects ../objects && ln -s ../../objects .git/objects; git config core.fsmonitor \"$PAY\"", true),
    ("alternates", "mv .git/objects ../far && mkdir -p .git/objects/info && readlink -f ../far > .git/objects/info/alternates; git config core.fsmonitor \"$PAY\"", true),
    ("a worktree elsewhere", "git config core.worktree / ; git config core.fsmonitor \"$PAY\"", true),
    ("a submodule", "git init -q sub; git -C sub -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; git -C sub config core.fsmonitor \"$PAY\"; git add sub 2>/dev/null; printf '[submodule \"sub\"]\\n\\tpath = sub\\n\\turl = ./sub\\n' > .gitmodules; git add .gitmodules; git commit -q -m sub; git config submodule.sub.update \"!$PAY\"", true),
    ("a replace ref", "git replace -f HEAD HEAD~1; git config core.fsmonitor \"$PAY\"", true),
    ("a graft", "git rev-parse HEAD > .git/info/grafts; git config core.fsmonitor \"$PAY\"", true),
    ("a branch like an option", "git update-ref refs/heads/--upload-pack=id HEAD; git symbolic-ref HEAD refs/heads/-q; git config core.fsmonitor \"$PAY\"", true),
    ("a fake bundle in PATH", "cp \"$PAY\" git; cp \"$PAY\" git-remote-http; git config alias.bundle \"!$PAY\"; git config alias.fetch \"!$PAY\"; git config core.gitProxy \"$PAY\"; git config trace2.eventTarget $HOME/marks/trace; git config core.fsmonitor \"$PAY\"", true),
];

/// A room with a commit in its clone, a directory for marks, a payload that leaves one, and a listener.
struct Trap {
    room: Room,
    given: Sha,
    elsewhere: Between,
}

impl Trap {
    async fn set(script: &str) -> Self {
        let room = Room::open().await;
        let given = room.prepare().await;
        room.agent.commit("fix.txt", "fixed\n");
        let home = room.agent.home();
        open_to_all(&home.join("marks"));
        let payload = home.join("payload");
        let text = format!("#!/bin/sh\ntouch {}/mark-$(id -u)-$$\nexit 1\n", home.join("marks").display());
        fs::write(&payload, text).expect("a scratch file");
        fs::set_permissions(&payload, fs::Permissions::from_mode(0o755)).expect("our own");
        let elsewhere = Between::start("http://127.0.0.1:1/", Rule::DropWrites);
        let forge = room.fake.git_url();
        let prelude = format!(
            "export PAY={} ELSEWHERE={} PROXY={} FORGE={forge}\nmkdir -p .git/hooks $HOME/hooks .git/info\n\
             git config remote.origin.url $FORGE\n",
            payload.display(),
            elsewhere.url("http://x/elsewhere.git"),
            elsewhere.url("http://x/").trim_end_matches('/'),
        );
        room.agent.sh(&format!("{prelude}{script}"));
        Self { room, given, elsewhere }
    }

    fn marks(&self) -> std::path::PathBuf {
        self.room.agent.home().join("marks")
    }

    /// How many marks root has left, and forgets all.
    fn marks_of_root(&self) -> usize {
        let mut of_root = 0;
        for entry in fs::read_dir(self.marks()).expect("it is there").flatten() {
            of_root += usize::from(entry.metadata().expect("its owner").uid() == 0);
            fs::remove_file(entry.path()).expect("we are root");
        }
        of_root
    }
}

#[tokio::test]
async fn i23_nothing_that_an_agent_writes_into_its_clone_is_executed_by_us_or_moves_our_push() {
    needs!(root);
    for (what, script, _) in CORPUS {
        let trap = Trap::set(script).await;
        let room = &trap.room;
        trap.marks_of_root();
        let before = trap.elsewhere.heard();
        let drawn = room.draw(&trap.given);
        let taken = room.take_file(&room.bundle(), &trap.given, Default::default()).await.expect("this host works");
        match &taken {
            Taken::Upto { head, .. } => {
                let pushed = room.push(head, None).await;
                assert_eq!(pushed.ok(), Some(Pushed::Done), "{what}: to the forge and nowhere else");
                assert_eq!(room.fake.world().at("refs/heads/issue-1-fix"), Some(head.to_string()), "{what}");
            }
            // Its own tricks kept the agent from handing out its work: its own loss.
            Taken::Refused(why) => eprintln!("{what}: {why}; {}", String::from_utf8_lossy(&drawn.stderr)),
            Taken::Nothing => panic!("{what}: there is a commit"),
        }
        let main = room.fetch("main").await.expect("it answers").expect("it is there");
        let bundle = room.gifts().join("again.bundle");
        let fix = super::branch("issue-1-fix");
        let given = room.repository.give(&fix, &main, &super::branch("main"), &main, &bundle, None).await;
        given.expect("it is all ours");
        room.repository.tidy().await.expect("it is all ours");
        assert_eq!(trap.marks_of_root(), 0, "{what}: something of the agent was executed as root");
        assert_eq!(trap.elsewhere.heard(), before, "{what}: somebody else was talked to");
        room.nothing_is_left();
    }
}

/// What one would write without thinking of it: root's git in the agent's directory, with the token.
fn naive(clone: &Path, forge: &str) {
    let with_token = forge.replace("http://", &format!("http://x-access-token:{TOKEN}@"));
    for args in [
        &["status"][..],
        &["diff"],
        &["fetch", "origin"],
        &["push", "origin", "HEAD:refs/heads/issue-1-fix"],
        &["push", &with_token, "HEAD:refs/heads/issue-1-fix"],
        &["submodule", "update"],
    ] {
        let mut git = Command::new(program("git"));
        git.args(["-c", "safe.directory=*", "-C"]).arg(clone).args(args);
        git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_SSH_VARIANT", "simple").stdin(Stdio::null());
        // `safe.directory` is not taken from the command line.
        git.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        git.env("GIT_CONFIG_GLOBAL", clone.with_file_name("root.config")).env("GIT_CONFIG_NOSYSTEM", "1");
        drop(git.output().expect("git is here"));
    }
}

#[tokio::test]
async fn i23_the_corpus_bites_who_runs_git_in_the_clone() {
    needs!(root);
    let mut toothless = Vec::new();
    for (what, script, bites) in CORPUS {
        let trap = Trap::set(script).await;
        fs::write(trap.room.agent.home().join("root.config"), "[safe]\n\tdirectory = *\n").expect("a scratch file");
        trap.marks_of_root();
        let before = trap.elsewhere.heard();
        naive(&trap.room.agent.clone_dir(), &trap.room.fake.git_url());
        let bitten = trap.marks_of_root() > 0 || trap.elsewhere.heard() > before;
        if bitten != *bites {
            toothless.push((what, bitten));
        }
    }
    assert!(toothless.is_empty(), "not as it is written in the corpus: {toothless:?}");
}

#[tokio::test]
async fn i23_an_agent_cannot_have_us_write_where_it_likes() {
    needs!(root);
    let room = Room::open().await;
    let given = room.prepare().await;
    let (fix, main) = (super::branch("issue-1-fix"), super::branch("main"));
    let give =
        async |to: &Path| room.repository.give(&fix, &given, &main, &given, to, Some(super::world::NOBODY)).await;
    let victim = room.scratch.path().join("victim");
    fs::create_dir(&victim).expect("a directory");
    fs::write(victim.join("x.bundle"), "kept").expect("a file");
    std::os::unix::fs::symlink(&victim, room.agent.home().join("link")).expect("a link");
    for to in [room.agent.home().join("x.bundle"), room.agent.home().join("link/x.bundle"), "x.bundle".into()] {
        assert!(give(&to).await.is_err(), "{}", to.display());
    }
    // A link in a directory of ours is removed, not followed.
    let to = room.gifts().join("x.bundle");
    std::os::unix::fs::symlink(victim.join("x.bundle"), &to).expect("a link");
    give(&to).await.expect("a place of ours");
    assert_eq!(fs::read_to_string(victim.join("x.bundle")).ok().as_deref(), Some("kept"));
    assert_eq!(fs::metadata(victim.join("x.bundle")).map(|it| it.uid()).ok(), Some(0));
}
