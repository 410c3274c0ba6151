//! The forge: who was first, who says no, what is in doubt, and where nothing is ever sent.

use std::os::unix::fs::PermissionsExt as _;

use agent_loop::forge::{Credential, Sha};
use agent_loop::git::{GitError, Patience, Pushed, Repository};
use agent_loop_tests::fake_github::FakeGitHub;
use agent_loop_tests::needs;

use super::world::{Between, Room, Rule, branch, program, sha};

async fn with_a_commit(room: &Room) -> (Sha, Sha) {
    let given = room.prepare().await;
    let head = room.agent.commit("fix.txt", "fixed\n");
    room.take(&given).await.expect("this host works");
    (given, head)
}

#[tokio::test]
async fn who_pushed_first_is_never_overwritten() {
    needs!(root);
    let room = Room::open().await;
    let (given, head) = with_a_commit(&room).await;
    let other = sha(&room.fake.world().push("issue-1-fix", "theirs.txt", "theirs\n"));
    // It should not be there, or be elsewhere; what is expected is known to us or not.
    for expect in [None, Some(&given)] {
        let pushed = room.push(&head, expect).await.expect("it answers");
        assert!(matches!(pushed, Pushed::Moved(_)), "{expect:?}: {pushed:?}");
    }
    assert!(matches!(room.push(&head, Some(&other)).await, Err(GitError::Missing { .. })), "not fetched yet");
    room.fetch("issue-1-fix").await.expect("it answers");
    let pushed = room.push(&head, Some(&other)).await.expect("it answers");
    assert!(matches!(pushed, Pushed::Refused(_)), "it is where it was expected, and would be rewritten: {pushed:?}");
    assert_eq!(room.fake.world().at("refs/heads/issue-1-fix"), Some(other.to_string()));
    // It went away meanwhile.
    assert!(room.fake.world().delete_ref("refs/heads/issue-1-fix"));
    let pushed = room.push(&head, Some(&given)).await.expect("it answers");
    assert!(matches!(pushed, Pushed::Moved(_)), "{pushed:?}");
    assert_eq!(room.fake.world().at("refs/heads/issue-1-fix"), None);
}

#[tokio::test]
async fn a_push_that_is_done_already_is_done_and_one_that_is_refused_says_why() {
    needs!(root);
    let room = Room::open().await;
    let (_, head) = with_a_commit(&room).await;
    let hook = room.fake.world().git_dir().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().expect("a directory")).expect("the fake's own");
    std::fs::write(&hook, "#!/bin/sh\necho 'rule 7 says no' >&2\nexit 1\n").expect("the fake's own");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("the fake's own");
    let Ok(Pushed::Refused(why)) = room.push(&head, None).await else { panic!("the hook says no") };
    assert!(why.contains("rule 7 says no"), "{why}");
    std::fs::remove_file(&hook).expect("it is there");
    for _ in 0..2 {
        assert_eq!(room.push(&head, None).await.expect("it answers"), Pushed::Done, "also when it is there already");
    }
}

#[tokio::test]
async fn i18_a_push_without_an_answer_is_a_doubt_and_is_sent_once() {
    needs!(root);
    let fake = FakeGitHub::start();
    let between = Between::start(&fake.git_url(), Rule::Pass);
    let url = between.url(&fake.git_url());
    let room = Room::at(fake, url).await;
    let (_, head) = with_a_commit(&room).await;
    for (rule, there) in [(Rule::DropWrites, false), (Rule::LoseAnswers, true)] {
        between.set(rule);
        let before = room.fake.take_heard().len();
        let pushed = room.push(&head, None).await;
        assert!(matches!(pushed, Ok(Pushed::Doubt(_))), "{rule:?}: {pushed:?}");
        assert_eq!(room.fake.world().at("refs/heads/issue-1-fix").is_some(), there, "{rule:?}");
        let heard = room.fake.take_heard();
        let writes = heard.iter().filter(|it| it.method == "POST" && it.path.contains("git-receive-pack")).count();
        assert!(writes <= 2, "git asks with an empty request first: {before} {heard:?}");
    }
    between.set(Rule::Pass);
    assert_eq!(room.fetch("issue-1-fix").await.expect("a read settles it"), Some(head));
}

#[tokio::test]
async fn who_is_not_reached_or_does_not_let_us_in_was_sent_nothing() {
    needs!(root);
    let room = Room::open().await;
    let (_, head) = with_a_commit(&room).await;
    let bad = Credential { user: "u".to_owned(), password: "not-it".to_owned().into() };
    let error = room.repository.push(&branch("issue-1-fix"), &head, None, &bad).await;
    assert!(matches!(error, Err(GitError::Credential { .. })), "{error:?}");
    let error = room.repository.fetch(&branch("main"), &bad).await;
    assert!(matches!(error, Err(GitError::Credential { .. })), "{error:?}");
    let place = room.scratch.path().join("elsewhere");
    let nowhere = Repository::open(&place, &program("git"), "http://127.0.0.1:1/o/r.git".to_owned()).await;
    let error = nowhere.expect("a fresh place").fetch(&branch("main"), &bad).await;
    assert!(matches!(error, Err(GitError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn i12_a_forge_that_says_nothing_holds_nobody_up() {
    needs!(root);
    let fake = FakeGitHub::start();
    let between = Between::start(&fake.git_url(), Rule::Pass);
    let url = between.url(&fake.git_url());
    let mut room = Room::at(fake, url).await;
    let (_, head) = with_a_commit(&room).await;
    between.set(Rule::HoldWrites);
    let short = std::time::Duration::from_secs(2);
    room.repository = room.repository.with_patience(Patience { remote: short, ..Patience::default() });
    let begun = std::time::Instant::now();
    let pushed = room.push(&head, None).await;
    assert!(matches!(pushed, Ok(Pushed::Doubt(_))), "{pushed:?}");
    assert!(begun.elapsed() < short * 10, "long before curl gives up: {:?}", begun.elapsed());
    // It goes on, with what it needs; other work does not wait for it.
    room.fetch("main").await.expect("it answers").expect("it is there");
    between.set(Rule::Pass);
    let there = || room.fake.world().at("refs/heads/issue-1-fix");
    for _ in 0..500 {
        if there().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(there(), Some(head.to_string()), "what was in doubt came to its end");
}

#[tokio::test]
async fn a_forge_that_sends_us_elsewhere_is_not_followed() {
    needs!(root);
    let fake = FakeGitHub::start();
    let elsewhere = Between::start(&fake.git_url(), Rule::Pass);
    let to = elsewhere.url(&fake.git_url());
    let text: &'static str = format!(
        "HTTP/1.1 301 Moved\r\nlocation: {to}/info/refs?service=git-upload-pack\r\ncontent-length: 0\r\nconnection: \
         close\r\n\r\n"
    )
    .leak();
    let between = Between::start(&fake.git_url(), Rule::Answer(text));
    let url = between.url(&fake.git_url());
    let room = Room::at(fake, url).await;
    let error = room.fetch("main").await;
    assert!(matches!(error, Err(GitError::Unreachable { .. } | GitError::Failed { .. })), "{error:?}");
    assert_eq!((between.heard() > 0, elsewhere.heard()), (true, 0), "the token went nowhere else");
}

#[tokio::test]
async fn a_place_or_a_git_that_others_can_change_is_not_used() {
    needs!(root);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let url = || "https://example.com/o/r.git".to_owned();
    let place = scratch.path().join("open");
    std::fs::create_dir(&place).expect("a directory");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).expect("our own");
    let error = Repository::open(&place, &program("git"), url()).await;
    assert!(matches!(error, Err(GitError::Place(_))), "{error:?}");
    let git = scratch.path().join("git");
    std::fs::write(&git, "#!/bin/sh\n").expect("a file");
    std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o777)).expect("our own");
    for git in [git.as_path(), "git".as_ref(), "/nonexistent/git".as_ref()] {
        let error = Repository::open(&scratch.path().join("room"), git, url()).await;
        assert!(error.is_err(), "{}", git.display());
    }
    let error = Repository::open(&scratch.path().join("a:b"), &program("git"), url()).await;
    assert!(matches!(error, Err(GitError::Unfit(_))), "{error:?}");
}
