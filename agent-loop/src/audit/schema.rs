//! The JSON Schema of the lines of a log: `docs/audit-schema.json`, made from the types that write them.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// The schema (draft 2020-12) as it is committed.
pub const JSON: &str = include_str!("../../../docs/audit-schema.json");

/// The SHA-256 of [`JSON`] in hexadecimal digits, which the head of each segment names.
#[must_use]
pub fn sha256() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| data_encoding::HEXLOWER.encode(&Sha256::digest(JSON)));
    &HASH
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::{Line, SCHEMA};

    /// Every kind, and what a line of it has beside the common fields.
    const KINDS: [(&str, &[&str]); 34] = [
        ("admin", &["uid", "why"]),
        ("anchor", &["anchor"]),
        ("ci.verdict", &["task", "ci"]),
        ("comment.intent", &["task", "write"]),
        ("comment.result", &["task", "write"]),
        ("config", &["why"]),
        ("forge.intent", &["task", "write"]),
        ("forge.result", &["task", "write"]),
        ("gap", &["gap"]),
        ("host.start", &["host"]),
        ("host.stop", &["why"]),
        ("key", &["key"]),
        ("log.lost", &["why"]),
        ("log.segment", &["segment"]),
        ("log.torn", &["why"]),
        ("merge.intent", &["task", "write"]),
        ("merge.result", &["task", "write"]),
        ("proc.exec", &["proc", "uid", "exec"]),
        ("proc.exit", &["proc", "exit", "inferred"]),
        ("proc.fork", &["proc", "parent", "parent_pid", "uid", "discovery", "inferred"]),
        ("retention", &["retention"]),
        ("run.adopted", &["why"]),
        ("run.born", &["proc", "cgroup", "argv", "user"]),
        (
            "run.exit",
            &["outcome", "reason", "exit", "births", "deaths", "leftovers", "survivors", "tree", "elapsed_ms"],
        ),
        ("run.intent", &["argv", "user"]),
        ("run.killed", &["reason", "survivors", "tree", "elapsed_ms"]),
        ("run.output_unheard", &["why"]),
        ("run.stop_asked", &["why"]),
        ("run.unkillable", &["why"]),
        ("signal.intent", &["to", "signal", "reason"]),
        ("signal.refused", &["to", "signal", "result", "why"]),
        ("signal.result", &["to", "signal", "result"]),
        ("stats", &["stats"]),
        ("task.state", &["task"]),
    ];

    /// What renews the committed file.
    const RENEW: &str = "cargo test -p agent-loop --lib audit::schema -- --ignored renew";

    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit-schema.json")
    }

    fn generated() -> Value {
        let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let mut schema = generator.into_root_schema_for::<Line>().to_value();
        schema["title"] = json!(format!("A line of an audit log of agent-loop, shape {SCHEMA}"));
        schema["properties"]["kind"]["enum"] = KINDS.iter().map(|(kind, _)| json!(kind)).collect();
        schema["allOf"] = KINDS
            .iter()
            .map(|(kind, has)| {
                json!({ "if": { "properties": { "kind": { "const": kind } } }, "then": { "required": has } })
            })
            .collect();
        schema
    }

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let committed: Value = serde_json::from_str(JSON).expect("JSON");
        assert!(committed == generated(), "the types have changed, the file has not: {RENEW}");
    }

    #[test]
    fn the_format_names_the_hash_of_the_schema() {
        let format = fs::read_to_string(path().with_file_name("audit-format.md")).expect("the format");
        assert!(format.contains(sha256()), "docs/audit-format.md is to name {}", sha256());
    }

    /// Written by hand after a change of the types: beside the others it would have them compare a file with itself.
    #[test]
    #[ignore = "it writes what the others read"]
    fn renew() {
        let text = serde_json::to_string_pretty(&generated()).expect("JSON") + "\n";
        fs::write(path(), &text).expect("written");
        println!("sha256 for docs/audit-format.md: {}", data_encoding::HEXLOWER.encode(&Sha256::digest(text)));
    }
}
