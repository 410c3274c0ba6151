//! Whether `claude` has a credential for the agents that would be started now: asked of itself, as the agents' user, without
//! a network. What it answers beside is not shown: it names accounts.
//!
//! Only `claude auth status` is asked, which costs nothing and sends nothing. That a credential is there is no proof that it
//! is accepted; that none is there is proof that each attempt fails.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::User;
use serde::Deserialize;

use super::service::Found;
use crate::agent::AgentCommand;
use crate::config::{Agent, Config};
use crate::daemon::agent_environment;
use crate::error;

/// How long it may take: a start of `claude` takes a second or two.
const WITHIN: &str = "30s";
/// The most bytes of its answer that are read.
const LONGEST: u64 = 64 << 10;

/// Options by which the command of agents has credentials that this question does not see.
const ELSEWHERE: [&str; 2] = ["--settings", "--bare"];

/// The answer of `claude auth status`: what is known of its form, and all that is looked at.
#[derive(Deserialize)]
struct Status {
    #[serde(rename = "loggedIn")]
    logged_in: bool,
    #[serde(rename = "authMethod")]
    method: Option<String>,
}

/// Asks; `None` where agents are started by another command.
pub(super) fn look(config: &Config) -> Option<Found> {
    let Ok(AgentCommand::Claude { program, extra }) = config.agent.command.agent() else { return None };
    Some(ask(config, &program, &extra).unwrap_or_else(Found::Unknown))
}

/// What was found; else why it is not known.
fn ask(config: &Config, program: &str, extra: &[String]) -> Result<Found, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Found::Hidden);
    }
    if let Some(option) = extra.iter().find(|arg| ELSEWHERE.contains(&arg.split('=').next().unwrap_or_default())) {
        return Err(format!("`command` of `[agent]` has {option}, which may hold a credential of its own"));
    }
    let name = config.agent.user.as_deref().ok_or("no `user` is set in `[agent]`")?;
    let user = User::from_name(name).ok().flatten().ok_or_else(|| format!("no user {name}"))?;
    let environment = of_the_daemon(&config.host.runtime_dir.join("socket"), &config.agent, &user)?;
    let (program, name) = (program.to_owned(), name.to_owned());
    // The thread leaves the network, and what it starts is born there.
    let asked = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("leaving the network: {errno}"))?;
        answer(&program, &name, environment)
    });
    let (code, text) = asked.join().map_err(|_| "asking it came to nothing".to_owned())??;
    judge(code, &text)
}

/// The environment of agents: what the daemon that runs hands on of its own.
fn of_the_daemon(socket: &Path, rules: &Agent, user: &User) -> Result<Vec<(OsString, OsString)>, String> {
    let unknown = |why: &dyn std::fmt::Display| format!("agents have their environment from the daemon: {why}");
    let daemon = UnixStream::connect(socket).map_err(|error| unknown(&format!("{}: {error}", socket.display())))?;
    let daemon = getsockopt(&daemon, PeerCredentials).map_err(|errno| unknown(&errno))?;
    let bytes = std::fs::read(format!("/proc/{}/environ", daemon.pid())).map_err(|error| unknown(&error))?;
    let value = |name: &str| {
        let mut pairs = bytes.split(|byte| *byte == 0);
        let value = pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(OsStr::from_bytes(value).to_owned())
    };
    let shell = Some(user.shell.as_path()).filter(|shell| !shell.as_os_str().is_empty());
    Ok(agent_environment(rules, &user.name, &user.dir, shell, value))
}

/// Its exit code and its answer: supervised as any command of `exec`, which ends it in time and leaves nothing of it.
fn answer(program: &str, user: &str, environment: Vec<(OsString, OsString)>) -> Result<(Option<i32>, Vec<u8>), String> {
    let failed = |error: std::io::Error| format!("asking it: {error}");
    let mut exec = Command::new("/proc/self/exe");
    exec.args(["exec", "--quiet", "--limit", WITHIN, "--grace", "1s", "--user", user, "--"]);
    exec.args([program, "auth", "status", "--json"]).current_dir("/").env_clear().envs(environment);
    let mut exec = exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
    let mut text = Vec::new();
    let read = exec.stdout.take().map_or(Ok(0), |out| out.take(LONGEST).read_to_end(&mut text));
    let status = exec.wait().map_err(failed)?;
    read.map_err(failed)?;
    Ok((status.code(), text))
}

/// What follows from its answer. [pure]
fn judge(code: Option<i32>, text: &[u8]) -> Result<Found, String> {
    if let Ok(Status { logged_in, method }) = serde_json::from_slice(text) {
        // A word of its own, and no name of anybody.
        let is_word =
            |it: &String| it.len() < 32 && it.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.".contains(&byte));
        let method = method.filter(is_word).map_or_else(String::new, |method| format!(" ({method})"));
        return Ok(match logged_in {
            true => Found::Good(format!("claude has a credential{method}")),
            false => Found::Bad("claude says that it is not logged in, as the user of agents".to_owned()),
        });
    }
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(error::NOT_FOUND) => {
            Ok(Found::Bad("the program of `command` is not found in the PATH of agents".to_owned()))
        }
        Some(error::NOT_EXECUTABLE) => {
            Ok(Found::Bad("the program of `command` cannot be executed by agents".to_owned()))
        }
        Some(error::LIMIT) => Err(format!("claude did not answer within {WITHIN}")),
        Some(code) => Err(format!("claude answers {code}, and not as `claude auth status` does from 2.1.41 on")),
        None => Err("what asked it was killed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_claude_does_not_say_is_not_known_and_what_it_says_beside_is_not_shown() {
        let said = |text: &str, code: u8| judge(Some(i32::from(code)), text.as_bytes());
        let yes = r#"{"loggedIn": true, "authMethod": "claude.ai", "email": "a@b.example", "orgName": "B"}"#;
        assert_eq!(said(yes, 0), Ok(Found::Good("claude has a credential (claude.ai)".to_owned())));
        let odd = r#"{"loggedIn": true, "authMethod": "sk-ant-Secret", "more": {}}"#;
        assert_eq!(
            said(odd, 1),
            Ok(Found::Good("claude has a credential".to_owned())),
            "by what it says, not by its code"
        );
        let no = r#"{"loggedIn": false, "authMethod": "none"}"#;
        for code in [0, 1] {
            assert!(matches!(said(no, code), Ok(Found::Bad(_))), "{code}");
        }
        assert!(matches!(said("", error::NOT_FOUND), Ok(Found::Bad(why)) if why.contains("PATH")));
        assert!(matches!(said("", error::NOT_EXECUTABLE), Ok(Found::Bad(_))));
        for (text, code) in [
            ("", 0),
            ("Not logged in", 1),
            (r#"{"loggedIn": "false"}"#, 1),
            (r#"{"loggedIn": fal"#, 1),
            ("[]", 1),
            ("", error::LIMIT),
            ("", error::INTERNAL),
        ] {
            assert!(said(text, code).is_err(), "{text:?} {code}");
        }
        assert!(judge(None, b"").is_err());
    }
}
