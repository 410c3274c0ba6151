//! What the documents say of tests is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of all tests of the tree: the function that follows each attribute, and those of property tests.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for dir in ["agent-loop", "agent-loop-common", "tests", "xtask"] {
        collect(&root().join(dir), &mut names);
    }
    names
}

fn collect(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).expect("a file");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
                if let Some(name) = line.strip_prefix("fn ").or(line.strip_prefix("async fn ")).filter(|_| is_test) {
                    names.extend(name.split(['(', '<']).next().map(str::to_owned));
                    is_test = false;
                }
            }
        }
    }
}

/// What stands between backticks in a text, and looks like the name of a test.
fn named(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| {
        name.matches('_').count() > 2 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_fault_names_tests_that_exist_or_says_that_it_is_not_shown() {
    let text = fs::read_to_string(root().join("docs/faults.md")).expect("the faults");
    let tests = tests();
    let missing: Vec<_> = named(&text).into_iter().filter(|name| !tests.contains(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    let table = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("| ")).skip(1).map(str::to_owned).collect()
    };
    let (faults, before) = text.split_once("\n## ").expect("two tables");
    let rows = table(faults);
    for row in rows.iter().chain(&table(before)) {
        assert!(!named(row).is_empty() || row.contains("not shown here"), "{row}");
    }
    let numbers = rows.iter().filter_map(|row| row.split('|').nth(1)?.trim().parse::<u32>().ok());
    assert_eq!(numbers.collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>(), "each fault of the design, in order");
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the map");
    let tests = tests();
    let missing: Vec<_> = named(&text).into_iter().filter(|name| !tests.contains(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/threat-model.md")).expect("the threat model");
    let tests = tests();
    let missing: Vec<_> = named(&text).into_iter().filter(|name| !tests.contains(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    // Each try has a test, or says that nothing holds it.
    let (_, tries) = text.split_once("\n| try |").expect("a table of tries");
    for row in tries.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| try")) {
        let held = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        assert!(held.contains('`') || held == "the same" || held == "not held", "{row}");
    }
}
