//! What a line of the audit log means, and a request at the forge; for a person who watches. [pure]

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fake_github::Heard;

/// Tells lines; it remembers which runs are steps of git, and which state was told last.
#[derive(Debug, Default)]
pub(super) struct Teller {
    agents: BTreeSet<String>,
    state: Value,
}

impl Teller {
    /// A line of the log in words; `None` for what is no step of the story.
    pub(super) fn line(&mut self, line: &Value) -> Option<String> {
        let run = line["run"].as_str().unwrap_or_default();
        match line["kind"].as_str()? {
            "run.born" if is_agent(line) => drop(self.agents.insert(run.to_owned())),
            "run.born" | "run.exit" if !self.agents.contains(run) => return None,
            "task.state" if std::mem::replace(&mut self.state, line["task"]["state"].clone()) == self.state => {
                return None;
            }
            _ => {}
        }
        words(line)
    }
}

fn words(line: &Value) -> Option<String> {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let short = |value: &Value| value.as_str().map_or_else(|| "?".to_owned(), |sha| sha.chars().take(10).collect());
    let (task, write) = (&line["task"], &line["write"]);
    let what = write["what"].as_str().unwrap_or_default();
    let done = write["answer"] == "done";
    Some(match line["kind"].as_str()? {
        "host.start" => "the daemon has started".to_owned(),
        "task.state" => format!("[{}] {}", word(&task["state"]), state(task, &short)?),
        "forge.intent" if what == "claim" => {
            "it is going to claim the issue: each write is announced in the log before it is sent".to_owned()
        }
        "forge.result" if what == "claim" && done => "claimed: no other host takes this issue now".to_owned(),
        "forge.result" if what == "push" && done => {
            format!("pushed {} from the daemon's own repository: the agent has no token", short(&write["head"]))
        }
        "forge.result" if what == "open" && done => "the pull request was asked for; it is read back".to_owned(),
        "forge.result" if what == "close" => format!("closing the issue: {}", word(&write["answer"])),
        "forge.result" if what == "release" && done => "the claim is given up".to_owned(),
        "run.born" => born(line),
        "proc.exec" => commit(line)?,
        "run.exit" => end(line)?,
        "ci.verdict" => {
            let checks = line["ci"]["checks"].as_array().map_or(0, Vec::len);
            format!(
                "the checks of {} say: {} ({checks} checks)",
                short(&line["ci"]["head"]),
                word(&line["ci"]["verdict"])
            )
        }
        "merge.intent" => format!("it is going to ask for the merge of {} and of no other head", short(&write["head"])),
        "merge.result" if write["answer"] == "proven" => {
            format!("PROVEN: read again, it is merged: pull request {}", word(&write["about"]))
        }
        "merge.result" => format!("the answer to the merge: {}; an answer proves nothing", word(&write["answer"])),
        _ => return None,
    })
}

fn state(task: &Value, short: &impl Fn(&Value) -> String) -> Option<String> {
    let head = short(&task["head"]);
    Some(match task["state"].as_str()? {
        "preparing" => "a clone of its own is made, by the agent's user; then the prompt".to_owned(),
        "running" => format!("attempt {}: the agent is started", task["attempt"]),
        "exited" => "its tree is proven empty; what it committed is taken out of its clone".to_owned(),
        "pushing" => format!("it committed {head}"),
        "opening" => "the branch is at the forge; now its pull request".to_owned(),
        "ci_wait" => format!("pull request {}: the checks of {head} are awaited", task["pull"]),
        "merge_gate" => format!("{head} was green: everything else that a merge needs is looked at"),
        "merging" => "the merge is asked for".to_owned(),
        "merge_unknown" => "whether it is merged is not known: it is read, never asked for again blindly".to_owned(),
        "closing" => "the issue may be closed: the proof is there".to_owned(),
        "done" => "the issue is closed".to_owned(),
        "cleaned" => "nothing of it is left on this host".to_owned(),
        other => other.replace('_', " "),
    })
}

/// Whether a birth is that of the agent, not of a step in its clone.
fn is_agent(line: &Value) -> bool {
    const STEPS: [&str; 3] = ["git", "find", "chmod"];
    let program = line["argv"][0].as_str().unwrap_or_default();
    !STEPS.iter().any(|step| program.rsplit('/').next() == Some(step))
}

fn born(line: &Value) -> String {
    let program = line["argv"][0].as_str().and_then(|it| it.rsplit('/').next()).unwrap_or("?");
    format!("the agent ({program}) was born as process {}, recorded before its first instruction", line["proc"]["pid"])
}

fn commit(line: &Value) -> Option<String> {
    let argv: Vec<&str> = line["exec"]["argv"].as_array()?.iter().filter_map(Value::as_str).collect();
    let is_commit = argv.first().is_some_and(|it| it.ends_with("git")) && argv.get(1) == Some(&"commit");
    is_commit.then(|| format!("the kernel saw process {} execute: {}", line["proc"]["pid"], argv.join(" ")))
}

fn end(line: &Value) -> Option<String> {
    let (births, deaths) = (line["births"].as_u64()?, line["deaths"].as_u64()?);
    Some(format!("the agent is over: {births} births, {deaths} deaths, outcome {}", line["outcome"].as_str()?))
}

/// A request in words, where it changes something.
pub(super) fn request(heard: &Heard) -> Option<String> {
    let status = heard.status?;
    if heard.method == "GET" {
        return None;
    }
    if heard.template.is_empty() {
        // What git fetches with is a POST too.
        return heard.path.contains("git-receive-pack").then(|| format!("git push -> {status}"));
    }
    let path = heard.template.trim_start_matches("/repos/{owner}/{repo}");
    let about = match (heard.method.as_str(), path) {
        ("POST", "/git/refs") => heard.body["ref"].as_str().unwrap_or_default().to_owned(),
        ("POST", "/issues/{issue_number}/labels") => heard.body["labels"].to_string(),
        ("PUT", "/pulls/{pull_number}/merge") => format!("sha {}", heard.body["sha"]),
        ("PATCH", "/issues/{issue_number}") => format!("state {}", heard.body["state"]),
        _ => String::new(),
    };
    Some(format!("{} {path} {about} -> {status}", heard.method).replace("  ", " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_proof_is_told_as_one_and_an_answer_is_not() {
        let merge =
            |answer: &str| json!({ "kind": "merge.result", "write": { "answer": answer, "about": "7 as abc" } });
        let mut teller = Teller::default();
        assert!(teller.line(&merge("proven")).expect("it is told").starts_with("PROVEN"));
        assert!(!teller.line(&merge("done")).expect("it is told").contains("PROVEN"));
    }

    #[test]
    fn the_agent_is_told_and_steps_of_git_are_not() {
        let born = |run: &str, program: &str| json!({ "kind": "run.born", "run": run, "argv": [program], "proc": {} });
        let over = |run: &str| json!({ "kind": "run.exit", "run": run, "births": 1, "deaths": 1, "outcome": "ended" });
        let mut teller = Teller::default();
        assert_eq!(teller.line(&born("A", "/usr/bin/git")), None);
        assert!(teller.line(&born("B", "/bin/sh")).is_some());
        assert_eq!(teller.line(&over("A")), None);
        assert!(teller.line(&over("B")).is_some());
    }

    #[test]
    fn reads_are_not_told_and_a_merge_is_told_with_its_head() {
        let heard = |method: &str, template: &str| Heard {
            method: method.to_owned(),
            path: "/x".to_owned(),
            template: template.to_owned(),
            body: json!({ "sha": "abc" }),
            conditional: false,
            credential: true,
            agent: String::new(),
            status: Some(200),
        };
        assert_eq!(request(&heard("GET", "/repos/{owner}/{repo}/pulls")), None);
        let merge = request(&heard("PUT", "/repos/{owner}/{repo}/pulls/{pull_number}/merge")).expect("it is told");
        assert_eq!(merge, "PUT /pulls/{pull_number}/merge sha \"abc\" -> 200");
    }
}
