//! The client of GitHub against a GitHub that remembers: every operation, every fault, and the token unseen.

mod faults;
mod operations;
mod secret;

use std::time::Duration;

use agent_loop::forge::github::{GitHub, Login, Options, Patience};
use agent_loop::forge::{Branch, Forge, IssueNumber, PullNumber, RefName, Sha};
use agent_loop_tests::fake_github::{FakeGitHub, World};

/// Patience that fits a test: what is waited for at the real one is short.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        read: Duration::from_secs(20),
        write: Duration::from_secs(20),
        repeat: vec![Duration::from_millis(1), Duration::from_millis(1)],
        between_writes: Duration::ZERO,
        limit: Duration::from_secs(2),
        kept: 64 << 20,
    }
}

fn options(fake: &FakeGitHub) -> Options {
    Options {
        api: fake.api(),
        repository: fake.repository().parse().expect("a repository"),
        login: Login::Token(fake.token_file()),
        patience: patience(),
    }
}

fn client(fake: &FakeGitHub) -> GitHub {
    GitHub::new(&options(fake)).expect("the options are right")
}

/// Runs a test against a fake, and checks that all of it was as GitHub describes.
fn play<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<FakeGitHub>, GitHub) -> F) {
    let fake = std::sync::Arc::new(FakeGitHub::start());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let github = client(&fake);
        test(std::sync::Arc::clone(&fake), github).await;
    });
    fake.assert_valid();
}

fn sha(text: &str) -> Sha {
    text.parse().expect("the id of a commit")
}

fn branch(name: &str) -> Branch {
    name.parse().expect("a branch")
}

fn main_of(world: &World) -> Sha {
    sha(&world.at("refs/heads/main").expect("main is there"))
}

/// A pull request from a branch that was pushed, with its head.
fn pull(world: &mut World) -> (PullNumber, Sha) {
    let head = world.push("issue-1-fix", "fix.txt", "fixed\n");
    let number = world.open_pull("issue-1-fix", "main", "Fix it", "Closes #1", "agent-loop-bot");
    (PullNumber(number), sha(&head))
}

#[tokio::test]
async fn a_client_is_a_forge_behind_a_pointer() {
    let fake = FakeGitHub::start();
    let forge: Box<dyn Forge> = Box::new(client(&fake));
    assert_eq!(forge.name().to_string(), fake.repository());
    assert_eq!(forge.git_url(), fake.git_url());
    assert!(forge.now().is_none(), "nothing was asked yet");
    assert_eq!(RefName::claim(IssueNumber(7)).as_str(), "refs/agent-loop/claims/7");
}
