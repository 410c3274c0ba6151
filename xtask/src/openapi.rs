//! `cargo xtask openapi`: GitHub's own description of its API, reduced to what the tests need of it.
//!
//! The fake GitHub of the tests checks every request and every answer against it, and takes GitHub's examples as the
//! first form of its answers. The reduced copy is committed; this command makes it again, from one pinned version.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::{place, progress};

const PACKAGE: &str = "@octokit/openapi";
const VERSION: &str = "23.0.2";
/// Its hash as npm's registry publishes it.
const INTEGRITY: &str =
    "sha512-pV8M7L9GY23AybNvTmo2nyjmpmnt6+2sRE/tqr0ZLQcPS4lnw7u5eZGNmwRNkBC3D7gZXbFx5AHzLUVRBXGDhg==";

/// The operations that the client uses, by method and path.
const OPERATIONS: [(&str, &str); 36] = [
    ("get", "/app"),
    ("post", "/app/installations/{installation_id}/access_tokens"),
    ("get", "/rate_limit"),
    ("get", "/user"),
    ("get", "/repos/{owner}/{repo}"),
    ("get", "/repos/{owner}/{repo}/actions/jobs/{job_id}/logs"),
    ("get", "/repos/{owner}/{repo}/actions/runs"),
    ("get", "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs"),
    ("get", "/repos/{owner}/{repo}/branches/{branch}"),
    ("get", "/repos/{owner}/{repo}/commits/{ref}/check-runs"),
    ("get", "/repos/{owner}/{repo}/commits/{ref}/status"),
    ("get", "/repos/{owner}/{repo}/compare/{basehead}"),
    ("get", "/repos/{owner}/{repo}/contents/{path}"),
    ("post", "/repos/{owner}/{repo}/git/commits"),
    ("get", "/repos/{owner}/{repo}/git/commits/{commit_sha}"),
    ("get", "/repos/{owner}/{repo}/git/matching-refs/{ref}"),
    ("get", "/repos/{owner}/{repo}/git/ref/{ref}"),
    ("post", "/repos/{owner}/{repo}/git/refs"),
    ("delete", "/repos/{owner}/{repo}/git/refs/{ref}"),
    ("patch", "/repos/{owner}/{repo}/git/refs/{ref}"),
    ("get", "/repos/{owner}/{repo}/issues"),
    ("delete", "/repos/{owner}/{repo}/issues/comments/{comment_id}"),
    ("patch", "/repos/{owner}/{repo}/issues/comments/{comment_id}"),
    ("get", "/repos/{owner}/{repo}/issues/{issue_number}"),
    ("patch", "/repos/{owner}/{repo}/issues/{issue_number}"),
    ("get", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("post", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("get", "/repos/{owner}/{repo}/issues/{issue_number}/events"),
    ("post", "/repos/{owner}/{repo}/issues/{issue_number}/labels"),
    ("delete", "/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}"),
    ("get", "/repos/{owner}/{repo}/labels"),
    ("get", "/repos/{owner}/{repo}/pulls"),
    ("post", "/repos/{owner}/{repo}/pulls"),
    ("get", "/repos/{owner}/{repo}/pulls/{pull_number}"),
    ("put", "/repos/{owner}/{repo}/pulls/{pull_number}/merge"),
    ("get", "/repos/{owner}/{repo}/rules/branches/{branch}"),
];

/// Runs `cargo xtask openapi`.
pub(crate) fn command() -> Result<()> {
    let fetched = fetch()?;
    let text = fs::read(fetched.join("generated/api.github.com.json")).context("reading the description")?;
    let whole: Value = serde_json::from_slice(&text).context("reading the description")?;
    let (size, reduced) = (text.len(), reduce(&whole)?);
    let at = place::root().join("tests/data/github");
    fs::create_dir_all(&at).with_context(|| format!("creating {}", at.display()))?;
    let mut text = serde_json::to_string_pretty(&reduced).context("writing the reduced description")?;
    // Lines for the sake of a diff; their indentation would be half of the file.
    text = text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    fs::write(at.join("openapi.json"), &text).context("writing the reduced description")?;
    fs::copy(fetched.join("LICENSE"), at.join("LICENSE")).context("copying its licence")?;
    progress::say(&format!("{} operations, {} KiB of {} KiB", OPERATIONS.len(), text.len() / 1024, size / 1024));
    Ok(())
}

/// Fetches the package, by npm, which compares it with its hash.
fn fetch() -> Result<PathBuf> {
    let npm = place::which("npm").context("fetching GitHub's description needs npm, which is not here")?;
    let home = place::root().join("target/openapi");
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
    let name = "agent-loop-openapi";
    let dependencies = json!({ PACKAGE: VERSION });
    let at = format!("node_modules/{PACKAGE}");
    let lock = json!({ "name": name, "lockfileVersion": 3, "packages": {
        "": { "name": name, "dependencies": dependencies },
        at.clone(): { "version": VERSION, "integrity": INTEGRITY },
    }});
    let manifest = json!({ "name": name, "private": true, "dependencies": dependencies });
    for (file, text) in [("package.json", manifest), ("package-lock.json", lock)] {
        fs::write(home.join(file), text.to_string()).with_context(|| format!("writing {file}"))?;
    }
    let mut fetch = Command::new(npm);
    fetch.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&home).current_dir(&home);
    progress::run(&format!("npm ci {PACKAGE} {VERSION}"), &mut fetch)?;
    Ok(home.join(at))
}

/// The chosen operations, and of the components what they refer to.
fn reduce(whole: &Value) -> Result<Value> {
    let mut paths = Map::new();
    for (method, path) in OPERATIONS {
        let operation = &whole["paths"][path][method];
        if operation.is_null() {
            bail!("{PACKAGE} {VERSION} has no {method} {path}");
        }
        let of_path = paths.entry(path).or_insert_with(|| json!({}));
        of_path[method] = plain(operation);
    }
    let mut reduced = json!({
        "openapi": whole["openapi"],
        "info": { "title": whole["info"]["title"], "version": whole["info"]["version"],
                  "license": whole["info"]["license"], "reduced by": "cargo xtask openapi" },
        "paths": paths,
        "components": {},
    });
    let mut open: Vec<String> = references(&reduced["paths"]);
    let mut done = BTreeSet::new();
    while let Some(reference) = open.pop() {
        if !done.insert(reference.clone()) {
            continue;
        }
        let pointer = reference.strip_prefix('#').with_context(|| format!("{reference} is in another file"))?;
        let part = plain(whole.pointer(pointer).with_context(|| format!("{reference} leads nowhere"))?);
        open.extend(references(&part));
        let names: Vec<&str> = pointer.split('/').collect();
        let [_, "components", kind, name] = names[..] else { bail!("{reference} is no component") };
        reduced["components"][kind][name] = part;
    }
    Ok(reduced)
}

/// Without what is for people alone. An object under `properties` has names, not words of the description.
fn plain(value: &Value) -> Value {
    fn go(value: &Value, names: bool) -> Value {
        const FOR_PEOPLE: [&str; 6] = ["description", "summary", "externalDocs", "tags", "x-github", "example"];
        match value {
            Value::Object(object) => {
                let kept = object.iter().filter(|(name, _)| names || !FOR_PEOPLE.contains(&name.as_str()));
                let inner = |name: &str, value| match name {
                    // What an example holds is data.
                    "value" if !names => Value::clone(value),
                    _ => go(value, !names && matches!(name, "properties" | "examples")),
                };
                kept.map(|(name, value)| (name.clone(), inner(name, value))).collect::<Map<_, _>>().into()
            }
            Value::Array(all) => all.iter().map(|value| go(value, false)).collect::<Vec<_>>().into(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }
    go(value, false)
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => object
            .iter()
            .flat_map(|(name, value)| match value.as_str().filter(|_| name == "$ref") {
                Some(text) => vec![text.to_owned()],
                None => references(value),
            })
            .collect(),
        Value::Array(all) => all.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_referred_to_comes_along_and_nothing_else() {
        let whole = json!({
            "openapi": "3.0.3", "info": {},
            "paths": OPERATIONS.iter().fold(json!({}), |mut all, (method, path)| {
                all[path][method] = json!({ "description": "words", "responses": { "200": { "$ref": "#/components/responses/a" } } });
                all
            }),
            "components": {
                "responses": { "a": { "schema": { "$ref": "#/components/schemas/b" } }, "unused": {} },
                "schemas": { "b": { "properties": { "description": { "type": "string" } } }, "unused": {} },
            },
        });
        let reduced = reduce(&whole).expect("it is whole");
        assert_eq!(
            reduced["components"]["responses"],
            json!({ "a": { "schema": { "$ref": "#/components/schemas/b" } } })
        );
        assert_eq!(reduced["components"]["schemas"]["b"]["properties"]["description"]["type"], "string", "a name");
        assert!(reduced["components"]["schemas"].get("unused").is_none());
        assert!(reduced["paths"]["/user"]["get"].get("description").is_none(), "words for people");
    }
}
