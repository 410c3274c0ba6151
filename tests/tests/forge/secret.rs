//! The token: in no error, no text, no argv and no environment; and how a GitHub App gets one.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use agent_loop::forge::github::{GitHub, Login};
use agent_loop::forge::{Forge, IssueNumber};
use agent_loop_tests::fake_github::{Answer, FakeGitHub, Fault, TOKEN, When};

use super::{options, play};

#[test]
fn the_token_is_in_nothing_that_is_told() {
    play(async |fake, github| {
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        let mut told = format!("{github:?} {:?} {:?}", options(&fake), github.credential().await);
        // A forge that says the token back, in every way of failing.
        let echo = format!("what is {TOKEN}?");
        for status in [400, 401, 403, 404, 409, 422, 500, 503] {
            for _ in 0..3 {
                fake.play(When::next("get", "/issues/{issue_number}"), Fault::Instead(Answer::of(status, &echo)));
                let error = github.issue(issue).await;
                told =
                    format!("{told} {error:?} {}", error.as_ref().map_or_else(ToString::to_string, |_| String::new()));
            }
            fake.play(When::next("post", "/comments"), Fault::Instead(Answer::of(status, &echo)));
            let error = github.create_comment(issue, "words").await;
            told = format!("{told} {error:?} {}", error.as_ref().map_or_else(ToString::to_string, |_| String::new()));
        }
        assert!(told.contains("[the token]"), "it was said, and was taken out");
        assert!(!told.contains(TOKEN), "{told}");
        // Children inherit nothing of it, and neither do they see it in our argv.
        let out =
            Command::new("sh").args(["-c", "cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline"]).output();
        let out = out.expect("a shell");
        assert!(out.status.success());
        assert!(!String::from_utf8_lossy(&out.stdout).contains(TOKEN));
    });
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    let fake = FakeGitHub::start();
    std::fs::set_permissions(fake.token_file(), std::fs::Permissions::from_mode(0o644)).expect("its mode");
    let error = GitHub::new(&options(&fake)).expect_err("others could read it").to_string();
    assert!(error.contains("chmod 600") && !error.contains(TOKEN), "{error}");
}

#[test]
fn an_app_gets_its_token_by_its_key_whatever_the_hosts_clock_says() {
    play(async |fake, _| {
        let key = tempfile::NamedTempFile::new().expect("a scratch file");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(key.path()).arg("2048").output();
        if !made.is_ok_and(|made| made.status.success()) {
            agent_loop_tests::harness::skip(
                "an_app_gets_its_token_by_its_key_whatever_the_hosts_clock_says",
                "no openssl",
            );
            return;
        }
        std::fs::set_permissions(key.path(), std::fs::Permissions::from_mode(0o600)).expect("its mode");
        // The host is two hours behind.
        fake.world().clock_ahead = 7_200;
        fake.world().tokens.clear();
        let mut as_app = options(&fake);
        as_app.login = Login::App { app: 42, installation: 1, key: key.path().to_owned() };
        let github = GitHub::new(&as_app).expect("the options are right");
        let identity = github.identity().await.expect("it answers");
        assert_eq!((identity.login.0.as_str(), identity.app), ("agent-loop[bot]", Some(42)));
        let issue = IssueNumber(fake.world().open_issue("Talk", "guettli", &[]));
        github.issue(issue).await.expect("with a token of its own");
        github.create_comment(issue, "words").await.expect("and the same one for a write");
        assert_eq!(fake.count("POST", "/access_tokens"), 1, "it is kept while it is good");
        // It is withdrawn early: another is asked for.
        fake.world().tokens.clear();
        github.issue(issue).await.expect("with another");
        assert_eq!(fake.count("POST", "/access_tokens"), 2);
    });
}
