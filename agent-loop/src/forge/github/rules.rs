//! What a branch requires: the rules of rulesets, and the older protection of branches, together.

use serde::Deserialize;
use serde_json::Value;

use crate::forge::{RequiredCheck, Requirements};

/// A rule of a ruleset, as it applies to the branch.
#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    parameters: Value,
}

/// A branch, as far as its protection goes.
#[derive(Debug, Deserialize)]
pub(super) struct Protected {
    #[serde(default)]
    protected: bool,
    protection: Option<Protection>,
}

#[derive(Debug, Deserialize)]
struct Protection {
    required_status_checks: Option<StatusChecks>,
}

#[derive(Debug, Deserialize)]
struct StatusChecks {
    enforcement_level: Option<String>,
    #[serde(default)]
    contexts: Vec<String>,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    context: String,
    // -1 where any app may make it.
    app_id: Option<i64>,
}

/// Puts both together. Several rules of one kind all hold.
pub(super) fn requirements(rules: Vec<Rule>, branch: Protected) -> Requirements {
    let mut all = Requirements::default();
    for rule in rules {
        apply(&mut all, rule);
    }
    match branch.protection.and_then(|protection| protection.required_status_checks) {
        Some(checks) if checks.enforcement_level.as_deref() != Some("off") => {
            let of_check = |check: Check| RequiredCheck { name: check.context, app: app(check.app_id) };
            let named: Vec<RequiredCheck> = checks.checks.into_iter().map(of_check).collect();
            // `contexts` are the names in `checks` once more, or all there is.
            let bare = checks.contexts.into_iter().filter(|name| named.iter().all(|check| check.name != *name));
            all.checks.extend(bare.map(|name| RequiredCheck { name, app: None }));
            all.checks.extend(named);
        }
        Some(_) => {}
        None => all.hidden = branch.protected,
    }
    all.checks.sort();
    all.checks.dedup();
    all
}

fn app(id: Option<i64>) -> Option<u64> {
    id.and_then(|id| u64::try_from(id).ok())
}

fn apply(all: &mut Requirements, rule: Rule) {
    let with = &rule.parameters;
    match rule.kind.as_str() {
        "required_status_checks" => {
            all.up_to_date |= with["strict_required_status_checks_policy"].as_bool().unwrap_or(false);
            for check in with["required_status_checks"].as_array().into_iter().flatten() {
                match check["context"].as_str() {
                    Some(name) => {
                        all.checks
                            .push(RequiredCheck { name: name.to_owned(), app: app(check["integration_id"].as_i64()) });
                    }
                    // A check that is required and that we cannot name must not be overlooked.
                    None => all.unknown.push("required_status_checks without a name".to_owned()),
                }
            }
        }
        "merge_queue" => all.merge_queue = true,
        "pull_request" => {
            let approvals = with["required_approving_review_count"].as_u64().unwrap_or(0);
            all.approvals = all.approvals.max(u32::try_from(approvals).unwrap_or(u32::MAX));
        }
        // They say nothing of checks, and the forge enforces them itself.
        "creation"
        | "update"
        | "deletion"
        | "non_fast_forward"
        | "required_linear_history"
        | "required_signatures"
        | "commit_message_pattern"
        | "commit_author_email_pattern"
        | "committer_email_pattern"
        | "branch_name_pattern"
        | "tag_name_pattern"
        | "file_path_restriction"
        | "max_file_path_length"
        | "file_extension_restriction"
        | "max_file_size" => {}
        _ => all.unknown.push(rule.kind),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(rules: Value, branch: Value) -> Requirements {
        let rules = serde_json::from_value(rules).expect("rules");
        requirements(rules, serde_json::from_value(branch).expect("a branch"))
    }

    #[test]
    fn checks_of_rulesets_and_of_protection_are_required_together() {
        let rules = json!([
            { "type": "required_status_checks", "parameters": { "strict_required_status_checks_policy": true,
              "required_status_checks": [{ "context": "test", "integration_id": 15368 }, { "context": "lint" }] } },
            { "type": "required_status_checks", "parameters": { "required_status_checks": [{ "context": "lint" }] } },
        ]);
        let branch = json!({ "protected": true, "protection": { "required_status_checks": {
            "enforcement_level": "non_admins", "contexts": ["old", "named"],
            "checks": [{ "context": "named", "app_id": -1 }] } } });
        let all = read(rules, branch);
        let names: Vec<_> = all.checks.iter().map(|check| (check.name.as_str(), check.app)).collect();
        assert_eq!(names, [("lint", None), ("named", None), ("old", None), ("test", Some(15368))]);
        assert!(all.up_to_date && !all.hidden && all.unknown.is_empty());
    }

    #[test]
    fn what_is_not_known_or_not_told_is_said() {
        let hidden = read(json!([{ "type": "weather" }, { "type": "merge_queue" }]), json!({ "protected": true }));
        assert!(hidden.hidden && hidden.merge_queue);
        assert_eq!(hidden.unknown, ["weather"]);
        assert_eq!(read(json!([]), json!({ "protected": false })), Requirements::default());
        let nameless = json!([{ "type": "required_status_checks", "parameters": { "required_status_checks": [{}] } }]);
        assert_eq!(read(nameless, json!({})).unknown.len(), 1);
    }
}
