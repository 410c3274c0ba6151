//! The token: in no process's arguments or environment, in no file with a name, in no error.

use std::fs;
use std::time::Duration;

use agent_loop::forge::Credential;
use agent_loop_tests::fake_github::{FakeGitHub, TOKEN};
use agent_loop_tests::needs;
use data_encoding::BASE64;

use super::world::{Between, Room, Rule, branch};

/// A token of one test: others run beside it.
const OWN: &str = "ghp_TokenOfThisTestAloneWhichNobodyMayRead07";

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|it| it == needle.as_bytes())
}

/// Files of all processes that hold one of the needles, and how many processes name `ours` in their arguments.
fn told(needles: &[&str], ours: &str) -> (Vec<String>, usize) {
    let (mut told, mut seen) = (Vec::new(), 0);
    for entry in fs::read_dir("/proc").expect("it is mounted").flatten() {
        for name in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            seen += usize::from(name == "cmdline" && contains(&bytes, ours));
            if needles.iter().any(|needle| contains(&bytes, needle)) {
                told.push(format!("{}/{name}", entry.path().display()));
            }
        }
    }
    (told, seen)
}

/// Files below a directory that hold one of the needles.
fn files(dir: &std::path::Path, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("our own").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            found.extend(files(&entry.path(), needles));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            if needles.iter().any(|needle| contains(&bytes, needle)) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// How many of our own descriptors are files in memory that hold this.
fn in_memory(needle: &str) -> usize {
    let mine = fs::read_dir("/proc/self/fd").expect("our own").flatten().map(|it| it.path());
    let memory = mine.filter(|it| fs::read_link(it).is_ok_and(|to| to.to_string_lossy().contains("agent-loop-git")));
    memory.filter(|it| contains(&fs::read(it).unwrap_or_default(), needle)).count()
}

#[tokio::test]
async fn i23_while_a_forge_holds_a_push_the_token_is_nowhere_to_be_read() {
    needs!(root);
    let fake = FakeGitHub::start();
    let between = Between::start(&fake.git_url(), Rule::Pass);
    let url = between.url(&fake.git_url());
    let room = std::sync::Arc::new(Room::at(fake, url.clone()).await);
    let given = room.prepare().await;
    let head = room.agent.commit("fix.txt", "fixed\n");
    room.take(&given).await.expect("this host works");
    room.fake.world().tokens.insert(OWN.to_owned());
    between.set(Rule::HoldWrites);
    let pushing = tokio::spawn({
        let (room, head) = (std::sync::Arc::clone(&room), head.clone());
        let own = Credential { user: "x-access-token".to_owned(), password: OWN.to_owned().into() };
        async move { room.repository.push(&branch("issue-1-fix"), &head, None, &own).await }
    });
    tokio::time::timeout(Duration::from_secs(60), async {
        while !between.holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the push is held");
    let encoded = BASE64.encode(format!("x-access-token:{OWN}").as_bytes());
    let needles = [OWN, encoded.as_str()];
    assert_eq!(in_memory(&encoded), 1, "it is where git reads it");
    let (told, seen) = told(&needles, &url);
    assert!(seen >= 2, "git and its helper were looked at: {seen}");
    assert_eq!(told, [""; 0], "somebody can read the token");
    assert_eq!(files(room.scratch.path(), &needles), [""; 0]);
    // The agent's user cannot open what git reads.
    let path = format!("cat /proc/{}/fd/* 2>/dev/null | grep -c '{encoded}' || true", std::process::id());
    assert_eq!(room.agent.sh(&path), "0");
    between.set(Rule::Pass);
    let pushed = pushing.await.expect("no panic").expect("it answers");
    assert_eq!(pushed, agent_loop::git::Pushed::Done);
    assert_eq!(in_memory(&encoded), 0, "it went away with the process that needed it");
}

#[tokio::test]
async fn a_forge_that_says_the_token_back_is_not_quoted() {
    needs!(root);
    let fake = FakeGitHub::start();
    let encoded = BASE64.encode(format!("x-access-token:{TOKEN}").as_bytes());
    let body = format!("what is {TOKEN}, or {encoded}?\n");
    let text: &'static str = format!(
        "HTTP/1.1 500 Oh\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .leak();
    let between = Between::start(&fake.git_url(), Rule::Answer(text));
    let url = between.url(&fake.git_url());
    let room = Room::at(fake, url).await;
    let error = room.fetch("main").await.expect_err("it fails");
    let said = format!("{error} {error:?} {:?}", room.repository);
    assert!(said.contains("[the token]"), "it was said, and taken out: {said}");
    assert!(!said.contains(TOKEN) && !said.contains(&encoded), "{said}");
}
