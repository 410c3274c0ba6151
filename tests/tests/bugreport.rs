//! The report for somebody who helps: what is needed is in it, and no secret.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use agent_loop_tests::harness::{Host, agent_loop};
use agent_loop_tests::needs;

fn bugreport(config: &Path, to: &Path) -> Output {
    let mut command = Command::new(agent_loop());
    command.args(["bugreport", "--config"]).arg(config).arg("--output").arg(to).output().expect("it runs")
}

fn parts(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(File::open(archive).expect("a file")).expect("zstd"));
    let entries = archive.entries().expect("an archive").map(|entry| {
        let mut entry = entry.expect("an entry");
        let (name, mut text) = (entry.path().expect("a name").display().to_string(), String::new());
        entry.read_to_string(&mut text).expect("text");
        (name, text)
    });
    entries.collect()
}

#[test]
fn a_report_has_what_is_needed_and_no_secret() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let token = format!("gh{}Zq7Kf2Lm9Rt4Vx8Bn3Wc6Yd1Hs5Jq0Pa", "p_");
    let id = host.start(&["--env", &format!("MY_TOKEN={token}")], ["sh", "-c", "exit 3", "sh", &token]);
    host.ended(&id);
    // Where a person could have put one.
    let config = host.path("config.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, format!("# {token}\n{text}")).expect("our file");
    fs::create_dir(host.path("state").join(&token)).expect("a directory");

    let to = host.path("report.tar.zst");
    let made = bugreport(&config, &to);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(fs::metadata(&to).expect("the report").permissions().mode() & 0o777, 0o600);
    let found = parts(&to);
    let json = |name: &str| {
        serde_json::from_str::<serde_json::Value>(&found[name]).unwrap_or_else(|why| panic!("{name}: {why}"))
    };
    assert_eq!(json("status.json")["backend"], "ebpf");
    assert_eq!(json("runs.json")["runs"][0]["code"], 3);
    assert!(json("doctor.json").is_object() && json("config.json").is_object());
    assert!(found["records.jsonl"].lines().any(|line| line.contains("\"kind\":\"run.exit\"") && line.contains(&id)));
    assert!(found["host.txt"].contains("Linux version") && found["files.txt"].contains("agent-loop.db"));
    for (name, text) in &found {
        assert!(!text.is_empty(), "{name} is empty");
        assert!(!text.contains(&token), "{name} has a secret");
    }

    // What is there is not written over; without a daemon, without a configuration, it is made all the same.
    let again = bugreport(&config, &to);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("File exists"), "{again:?}");
    daemon.kill();
    let without = host.path("without.tar.zst");
    assert!(bugreport(&host.path("none.toml"), &without).status.success());
    let found = parts(&without);
    assert!(found["status.json"].contains("no daemon answers"), "{}", found["status.json"]);
    assert!(found["config.json"].contains("none.toml"), "{}", found["config.json"]);
}
