//! `agent-loop config`: whether a configuration is good, and what holds by it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Map, Value, json};

use super::client::draw::visible;
use crate::audit::redact;
use crate::config::{Config, ConfigError, Entry, PLACE};
use crate::error;
use crate::issues::{self, Finding, Level};

/// Checks or shows the configuration.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say whether it is good, with the line and the key of what is not.
    Check(Check),
    /// Show every setting as it holds, those that are not in the file too.
    Show(Which),
}

#[derive(Debug, ClapArgs)]
struct Check {
    /// Ask the forges too: what the tokens may do, whether the labels are there, what the base branches require. Nothing
    /// is written there.
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, ClapArgs)]
struct Which {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = PLACE)]
    config: PathBuf,
    /// Print one JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop config check && systemctl reload agent-loop
  agent-loop config check --probe
  agent-loop config show --json | jq .limits

Exit codes: 0 it is good; 3 it is not; 4 with --probe: a forge says that no issue would be brought to its end.";

/// Runs `config` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let (Verb::Check(Check { which, .. }) | Verb::Show(which)) = &args.verb;
    let config = match read(&which.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("agent-loop: reading the configuration: {}", redact::said(&error.to_string()));
            let said = if which.json { print(&pretty(&refusal(&error))) } else { Ok(()) };
            return if said.is_ok() { error::CONFIG } else { error::FAILED };
        }
    };
    let mut code = error::DONE;
    let text = match &args.verb {
        Verb::Check(Check { probe: true, which }) => match probed(&config) {
            Ok(findings) => {
                let is_wrong = findings.iter().any(|finding| finding.level == Level::Wrong);
                code = if is_wrong { error::FORGE } else { error::DONE };
                match which.json {
                    true => pretty(
                        &json!({ "ok": !is_wrong, "findings": findings.iter().map(as_json).collect::<Vec<_>>() }),
                    ),
                    false => good(&which.config, &config) + &told(&findings),
                }
            }
            Err(why) => {
                eprintln!("agent-loop: starting the event loop: {why}");
                return error::FAILED;
            }
        },
        Verb::Check(Check { which, .. }) if which.json => pretty(&json!({ "ok": true })),
        Verb::Check(Check { which, .. }) => good(&which.config, &config),
        Verb::Show(which) if which.json => pretty(&object(&config)),
        Verb::Show(_) => toml(&config),
    };
    match print(&text) {
        Ok(()) => code,
        Err(error) => {
            eprintln!("agent-loop: writing the answer: {error}");
            error::FAILED
        }
    }
}

fn read(path: &Path) -> Result<Config, ConfigError> {
    let config = Config::load(path)?;
    config.check_names(&path.display().to_string())?;
    Ok(config)
}

/// What the forges say of it.
fn probed(config: &Config) -> io::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(issues::probe(config)))
}

fn as_json(finding: &Finding) -> Value {
    let Finding { repo, level, says, next } = finding;
    json!({ "repo": repo, "level": level.word(), "says": redact::said(says), "next": next })
}

fn told(findings: &[Finding]) -> String {
    let mut text = String::new();
    if findings.is_empty() {
        text.push_str("no forge was asked: it names no `[[repo]]`\n");
    }
    for Finding { repo, level, says, next } in findings {
        let says = visible(&redact::said(says));
        let _ = writeln!(text, "{repo}: {:<5}  {says}", level.word());
        if !next.is_empty() {
            let _ = writeln!(text, "{repo}:        -> {next}");
        }
    }
    text
}

fn good(path: &Path, config: &Config) -> String {
    let mut text = format!("{}: good\n", path.display());
    if config.agent.user.is_none() {
        text.push_str("no run can be started: it names no `user` in [agent]\n");
    }
    text
}

fn refusal(error: &ConfigError) -> Value {
    let ConfigError { file, line, key, why } = error;
    json!({ "ok": false, "error": { "file": file, "line": line, "key": key, "message": redact::said(why) } })
}

/// The settings as a file that says the same.
fn toml(config: &Config) -> String {
    let mut text = String::new();
    for group in config.entries().chunk_by(|a, b| a.section == b.section) {
        let gap = if text.is_empty() { "" } else { "\n" };
        let section = group.first().map_or("", |entry| entry.section);
        let _ = writeln!(text, "{gap}[{section}]");
        settings(&mut text, group);
    }
    for repo in config.repo_entries() {
        text.push_str("\n[[repo]]\n");
        settings(&mut text, &repo);
    }
    text
}

fn settings(text: &mut String, entries: &[Entry]) {
    for Entry { key, value, .. } in entries {
        let _ = match value {
            Some(value) => writeln!(text, "{key} = {value}"),
            None => writeln!(text, "# {key} is not set"),
        };
    }
}

fn object(config: &Config) -> Value {
    let mut object = Map::new();
    for Entry { section, key, value, .. } in config.entries() {
        let section = object.entry(section).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(settings) = section {
            settings.insert(key.to_owned(), json(value.as_ref()));
        }
    }
    let repo = |entries: &Vec<Entry>| {
        Value::Object(entries.iter().map(|it| (it.key.to_owned(), json(it.value.as_ref()))).collect())
    };
    object.insert("repo".to_owned(), Value::Array(config.repo_entries().iter().map(repo).collect()));
    Value::Object(object)
}

/// A setting is a text, a number, a flag or a list of texts: each has its form in JSON.
fn json(value: Option<&toml::Value>) -> Value {
    value.map_or(Value::Null, |value| serde_json::to_value(value).unwrap_or(Value::Null))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_as_the_same_configuration() {
        let text = "[host]\nmax_agents = 7\n[limits]\nwall = \"1h 30m\"\noutput_bytes = 9\n[agent]\nuser = \"a'b\"\n\
                    [[repo]]\nname = \"o/r\"\ntoken_file = \"/t\"\nallowed = [\"a\"]\n";
        let config = Config::parse(text, "c").expect("it is good");
        let shown = toml(&config);
        assert_eq!(Config::parse(&shown, "shown"), Ok(config.clone()), "{shown}");
        assert!(shown.contains("# cgroup_root is not set\n"), "{shown}");
        let object = object(&config);
        assert_eq!(object["limits"]["wall"], "1h 30m");
        assert_eq!(object["host"]["max_agents"], 7);
        assert_eq!(object["host"]["owner"], Value::Null);
        assert_eq!(object["kernel"]["watch"], json!(["claude"]));
        assert_eq!(object["repo"][0]["branch"], "issue-{number}-fix");
    }
}
