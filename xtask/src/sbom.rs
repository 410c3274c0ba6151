//! The bill of materials of the package: what is linked into the binary and its eBPF program, as CycloneDX 1.5.
//!
//! From cargo's own resolution and the checksums of `Cargo.lock`; no time and no random number is in it, so that the same
//! sources give the same bytes. <https://cyclonedx.org/docs/1.5/json/>

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::place;

/// What the package holds the programs of.
const ROOTS: [&str; 2] = ["agent-loop", "agent-loop-ebpf"];

/// Writes it to this file.
pub(crate) fn write(file: &Path) -> Result<()> {
    let mut cargo = place::host_cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = cargo.current_dir(place::root()).output().context("asking cargo what is linked")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).context("reading what cargo says")?;
    let lock = fs::read_to_string(place::root().join("Cargo.lock")).context("reading Cargo.lock")?;
    let text = serde_json::to_string_pretty(&of(&metadata, &lock)?)? + "\n";
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// The bill for what cargo resolved.
fn of(metadata: &Value, lock: &str) -> Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let linked: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| {
            // A kind of none is a normal dependency; those of builds and tests are in no program.
            let normal = |dep: &Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            (
                text(&node["id"]),
                list(&node["deps"]).iter().filter(|dep| normal(dep)).map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let mut open: Vec<String> = packages
        .iter()
        .filter(|(_, it)| ROOTS.contains(&text(&it["name"]).as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    anyhow::ensure!(open.len() == ROOTS.len(), "cargo knows {open:?}, not {ROOTS:?}");
    let mut in_it = BTreeSet::new();
    while let Some(id) = open.pop() {
        if in_it.insert(id.clone()) {
            open.extend(linked.get(&id).cloned().unwrap_or_default());
        }
    }
    let sums = checksums(lock);
    let name_of =
        |id: &String| packages.get(id).map(reference).context("cargo names a package that it does not describe");
    let mut components = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    for id in &in_it {
        let package = packages.get(id).context("cargo names a package that it does not describe")?;
        let key = reference(package);
        let on = linked.get(id).into_iter().flatten().map(name_of).collect::<Result<BTreeSet<_>>>()?;
        dependencies.insert(key.clone(), json!({"ref": key, "dependsOn": on}));
        components.insert(key, component(package, &sums)?);
    }
    let own = components.keys().find(|key| key.starts_with("pkg:cargo/agent-loop@")).cloned();
    let own = components.remove(&own.context("agent-loop is not among its own packages")?);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies.into_values().collect::<Vec<_>>(),
    }))
}

/// The package URL, which names it here too.
fn reference(package: &Value) -> String {
    let word = |key: &str| package[key].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", word("name"), word("version"))
}

fn component(package: &Value, sums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let word = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let (name, version) = (word("name"), word("version"));
    // The older way to say "or" is none of SPDX's.
    let licence = word("license").replace('/', " OR ");
    anyhow::ensure!(!licence.is_empty(), "{name} {version} names no licence");
    let kind = if ROOTS.contains(&name.as_str()) { "application" } else { "library" };
    let mut component = json!({
        "type": kind,
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        "purl": reference(package),
        "licenses": [{"expression": licence}],
    });
    if let Some(sum) = sums.get(&(name.clone(), version.clone())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    } else {
        anyhow::ensure!(package["source"].is_null(), "{name} {version} has no checksum in Cargo.lock");
    }
    Ok(component)
}

/// The checksums of the registry's packages.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_what_is_linked_with_its_licence_and_checksum_and_is_the_same_twice() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let made = ["a", "b"].map(|name| {
            let file = scratch.path().join(name);
            write(&file).expect("cargo is here");
            fs::read_to_string(file).expect("our file")
        });
        assert_eq!(made[0], made[1]);
        assert!(!made[0].contains("path+file") && !made[0].contains(&place::root().display().to_string()));
        let bill: Value = serde_json::from_str(&made[0]).expect("JSON");
        assert_eq!(
            (&bill["bomFormat"], &bill["metadata"]["component"]["name"]),
            (&"CycloneDX".into(), &"agent-loop".into())
        );
        let components = bill["components"].as_array().expect("components");
        let find = |name: &str| components.iter().find(|it| it["name"] == name);
        for name in ["aya", "tokio", "agent-loop-common", "agent-loop-ebpf", "aya-ebpf"] {
            assert!(find(name).is_some(), "{name} is linked");
        }
        // Of tests, of builds, of the developer's commands.
        for name in ["proptest", "tempfile", "xtask", "fuser"] {
            assert!(find(name).is_none(), "{name} is not linked");
        }
        for it in components {
            let own = it["name"].as_str().is_some_and(|name| name.starts_with("agent-loop"));
            let sum = it["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64);
            assert!(sum || own, "{it}");
            assert!(it["licenses"][0]["expression"].as_str().is_some_and(|licence| !licence.is_empty()), "{it}");
        }
        let names: BTreeSet<_> = components
            .iter()
            .chain([&bill["metadata"]["component"]])
            .map(|it| &it["bom-ref"])
            .map(Value::to_string)
            .collect();
        for it in bill["dependencies"].as_array().expect("dependencies") {
            for on in it["dependsOn"].as_array().expect("names") {
                assert!(names.contains(&on.to_string()), "{on}");
            }
        }
    }
}
