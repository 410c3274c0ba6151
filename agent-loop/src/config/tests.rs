use super::*;

const EXAMPLE: &str = include_str!("../../../packaging/config.toml");

/// The least that a repository has, and what the example shows of what has no default.
const REPO: &str = r#"
[[repo]]
name = "owner/name"
token_file = "/etc/agent-loop/token"
allowed = ["alice"]
base = "main"
priority = ["Prio/High"]
"#;

fn wrong(text: &str) -> String {
    Config::parse(text, "c.toml").expect_err(text).to_string()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(Config::parse("", "c.toml"), Ok(Config::default()));
}

#[test]
fn the_example_is_the_default_and_mentions_every_key() {
    assert_eq!(Config::parse(EXAMPLE, "packaging/config.toml"), Ok(Config::default()));
    let mut section = "";
    let mut mentioned = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.trim_start_matches('#').strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ")
            && !key.contains(' ')
        {
            mentioned.push((section, key));
        }
    }
    let mut keys: Vec<_> = Config::default().entries().iter().map(|entry| (entry.section, entry.key)).collect();
    let repo = Config::parse(REPO, "repo").expect("it is good").repo_entries().remove(0);
    let by_app = ["app_id", "installation_id", "key_file"];
    keys.extend(repo.iter().map(|entry| (entry.section, entry.key)).filter(|(_, key)| !by_app.contains(key)));
    mentioned.sort_unstable();
    keys.sort_unstable();
    assert_eq!(mentioned, keys);
}

#[test]
fn the_settings_that_the_example_leaves_out_are_good_as_they_stand_there() {
    let full = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting == "[[repo]]" || !setting.starts_with([' ', '#']) && setting.contains(" = ") => {
            format!("{setting}\n")
        }
        Some(_) | None => format!("{line}\n"),
    });
    let config = Config::parse(&full.collect::<String>(), "full").expect("the example is good");
    let unset: Vec<_> = config.entries().into_iter().filter(|entry| entry.value.is_none()).collect();
    assert_eq!(unset, []);
    assert_eq!(
        config.repos,
        Config::parse(REPO, "repo").expect("it is good").repos,
        "what is left out is as it stands"
    );
    assert_eq!(config.limits.run.wall, Some(Duration::from_secs(3600)));
    assert_eq!(config.host.cgroup_root, Some("/sys/fs/cgroup/agent-loop".into()));
}

#[test]
fn every_key_that_is_written_is_read() {
    // Each setting in turn gets a value that is not its default; only its own entry may change by that.
    for (line, key) in [
        ("[host]\nstate_dir = \"/x\"", "host.state_dir"),
        ("[host]\nlog_dir = \"/x\"", "host.log_dir"),
        ("[host]\nruntime_dir = \"/x\"", "host.runtime_dir"),
        ("[host]\nwork_dir = \"/x\"", "host.work_dir"),
        ("[host]\ngit = \"/x\"", "host.git"),
        ("[host]\npins = \"/x\"", "host.pins"),
        ("[host]\ncgroup_root = \"/x\"", "host.cgroup_root"),
        ("[host]\nmax_agents = 1024", "host.max_agents"),
        ("[host]\nsocket_group = \"x\"", "host.socket_group"),
        ("[host]\nowner = \"x\"", "host.owner"),
        ("[host]\nkeeper = \"expect\"", "host.keeper"),
        ("[kernel]\nring_bytes = 4096", "kernel.ring_bytes"),
        ("[kernel]\nexecs_ring_bytes = 4096", "kernel.execs_ring_bytes"),
        ("[kernel]\nlive_entries = 100", "kernel.live_entries"),
        ("[kernel]\nwatch = []", "kernel.watch"),
        ("[agent]\nuser = \"x\"", "agent.user"),
        ("[agent]\nallow_root = true", "agent.allow_root"),
        ("[agent]\nenv = [\"A_1\"]", "agent.env"),
        ("[limits]\nwall = \"1s\"", "limits.wall"),
        ("[limits]\nactive = \"1s\"", "limits.active"),
        ("[limits]\nidle = \"1s\"", "limits.idle"),
        ("[limits]\ngrace = \"0s\"", "limits.grace"),
        ("[limits]\noutput_bytes = 1", "limits.output_bytes"),
        ("[limits]\nmemory_bytes = 1", "limits.memory_bytes"),
        ("[limits]\ntasks = 1", "limits.tasks"),
        ("[limits]\ncpu_percent = 1", "limits.cpu_percent"),
        ("[limits]\nleftovers = \"wait\"", "limits.leftovers"),
        ("[audit]\nredact_names = [\"x1\"]", "audit.redact_names"),
        ("[audit]\nredact_patterns = [\"x1\"]", "audit.redact_patterns"),
        ("[audit]\nsegment_bytes = 1048576", "audit.segment_bytes"),
        ("[audit]\nsegment_age = \"1h\"", "audit.segment_age"),
        ("[audit]\nkeep_bytes = 67108864", "audit.keep_bytes"),
        ("[audit]\nkeep_age = \"1day\"", "audit.keep_age"),
        ("[audit]\non_full = \"launch\"", "audit.on_full"),
        ("[audit]\nanchor_dir = \"/x\"", "audit.anchor_dir"),
        ("[audit]\nanchor_journal = true", "audit.anchor_journal"),
        ("[audit]\nanchor_every = \"10s\"", "audit.anchor_every"),
        ("[agent]\ncommand = [\"x\"]", "agent.command"),
        ("[agent]\nprompts = \"/x\"", "agent.prompts"),
        ("[ci]\nrequired = [\"x\"]", "ci.required"),
        ("[ci]\naccept = [\"skipped\"]", "ci.accept"),
        ("[ci]\nexpect = \"none\"", "ci.expect"),
        ("[ci]\nstart_grace = \"1m\"", "ci.start_grace"),
        ("[ci]\ntimeout = \"1m\"", "ci.timeout"),
        ("[merge]\nenabled = false", "merge.enabled"),
        ("[merge]\nmethod = \"rebase\"", "merge.method"),
        ("[merge]\ndelete_branch = false", "merge.delete_branch"),
        ("[claim]\nrenew = \"1m\"", "claim.renew"),
        ("[claim]\nstale = \"2h\"", "claim.stale"),
        ("[budgets]\nfailures = 1", "budgets.failures"),
        ("[budgets]\nhost_failures = 1", "budgets.host_failures"),
        ("[budgets]\ncheck_fixes = 0", "budgets.check_fixes"),
        ("[budgets]\nconflict_fixes = 0", "budgets.conflict_fixes"),
        ("[budgets]\nmerges = 1", "budgets.merges"),
    ] {
        let config = Config::parse(line, "c.toml").unwrap_or_else(|error| panic!("{line}: {error}"));
        let changes = Config::default().difference(&config);
        assert!(matches!(&changes[..], [one] if one.starts_with(&format!("{key}: "))), "{line}: {changes:?}");
        // A reload takes up exactly what does not say that it needs a restart.
        let reloaded = Config::default().reloaded(&config);
        let waits = changes.iter().all(|change| change.ends_with(", from the next restart of agent-loop on"));
        assert_eq!(reloaded == Config::default(), waits, "{line}: {changes:?}");
    }
}

#[test]
fn a_repository_says_all_that_is_needed_and_nothing_twice() {
    let config = Config::parse(REPO, "c.toml").expect("it is good");
    assert!(Config::default().difference(&config)[0].contains("the repositories are others"));
    assert_eq!(Config::default().reloaded(&config), Config::default(), "that needs a restart");
    let with = |from: &str, to: &str| wrong(&REPO.replace(from, to));
    let twice = wrong(&format!("{REPO}{REPO}"));
    assert!(twice.contains("owner/name is there twice"), "{twice}");
    for (said, text) in [
        ("`repo.name`: write the repository's name", with("name = \"owner/name\"", "")),
        ("`repo.name`: \"x\": \"x\" is not a repository", with("owner/name", "x")),
        ("`repo.token_file`: write either", with("token_file", "key_file")),
        ("`repo.token_file`: write either", with("base =", "app_id = 1\nbase =")),
        ("`repo.token_file`: write an absolute path", with("/etc/agent-loop/token", "token")),
        ("`repo.allowed`: write whose issues are taken", with("[\"alice\"]", "[]")),
        ("`repo.base`: \"-x\"", with("\"main\"", "\"-x\"")),
        ("`repo.branch`: write a branch with", with("base = \"main\"", "branch = \"x\"")),
        ("`repo.branch`: write a branch with", with("base = \"main\"", "branch = \"-{number}\"")),
        ("`repo.ready`: the three labels", with("base = \"main\"", "question = \"State/Ready\"")),
        ("`repo.max_tasks`: write a number from 1 to 64", with("base = \"main\"", "max_tasks = 0")),
        ("`repo.poll`: \"1ms\": write at least", with("base = \"main\"", "poll = \"1ms\"")),
        ("`repo.write_pause`: \"soon\"", with("base = \"main\"", "write_pause = \"soon\"")),
        ("`claim.stale`: write at least three times", wrong("[claim]\nstale = \"20m\"")),
        ("`agent.command`: the command is empty", wrong("[agent]\nkind = \"command\"")),
        ("`agent.command`: \"{x}\"", wrong("[agent]\nkind = \"command\"\ncommand = [\"a\", \"{x}\"]")),
        ("`agent.command`: \"--resume\" is written by", wrong("[agent]\ncommand = [\"claude\", \"--resume\"]")),
        ("`ci.accept`: \"failure\": write", wrong("[ci]\naccept = [\"failure\"]")),
    ] {
        assert!(text.starts_with("c.toml:") && text.contains(said), "{text}\n{said}");
    }
}

#[test]
fn a_kind_of_agent_is_read_with_its_command() {
    let config = Config::parse("[agent]\nkind = \"command\"\ncommand = [\"make\"]", "c.toml").expect("it is good");
    let changes = Config::default().difference(&config);
    assert!(changes.len() == 2 && changes[0].starts_with("agent.kind: "), "{changes:?}");
    assert_eq!(Config::default().reloaded(&config), Config::default(), "that needs a restart");
}

#[test]
fn a_key_that_nobody_knows_is_refused_with_its_line() {
    let said = wrong("[host]\n\nmax_agent = 4\n");
    assert!(said.starts_with("c.toml:3: `host.max_agent`: unknown field `max_agent`, expected one of "), "{said}");
    assert!(said.contains("`max_agents`"), "{said}");
    let said = wrong("[hosts]\n");
    assert!(said.starts_with("c.toml:1: unknown field `hosts`, expected one of `host`, "), "{said}");
    let said = wrong("max_agents = 4\n");
    assert!(said.starts_with("c.toml:1: `max_agents`: unknown field"), "{said}");
    let said = wrong("[limits]\nwall = \"1h\"\nwall = \"2h\"\n");
    assert!(said.starts_with("c.toml:3: `limits.wall`: duplicate key"), "{said}");
}

#[test]
fn a_wrong_value_is_refused_with_file_line_key_and_what_to_write() {
    for (text, said) in [
        ("\n[host]\nmax_agents = 0", "c.toml:3: `host.max_agents`: write a number from 1 to 1024"),
        ("[host]\nmax_agents = 1025", "c.toml:2: `host.max_agents`: write a number from 1 to 1024"),
        ("[host]\nkeeper = \"x\"", "c.toml:2: `host.keeper`: \"x\": write \"start\" or \"expect\""),
        ("[host]\npins = \"x\"", "c.toml:2: `host.pins`: write an absolute path, without `..`"),
        ("[host]\npins = \"/a/../b\"", "c.toml:2: `host.pins`: write an absolute path, without `..`"),
        ("[host]\npins = \"/\"", "c.toml:2: `host.pins`: write an absolute path, without `..`"),
        ("[host]\nowner = \"a b\"", "c.toml:2: `host.owner`: write the name of a user or group"),
        ("[kernel]\nring_bytes = 5000", "c.toml:2: `kernel.ring_bytes`: write a power of two from 4096 to 1073741824"),
        ("[kernel]\nring_bytes = 2048", "c.toml:2: `kernel.ring_bytes`: write a power of two from 4096 to 1073741824"),
        ("[kernel]\nlive_entries = 0", "c.toml:2: `kernel.live_entries`: write a number from 64 to 4194304"),
        (
            "[kernel]\nwatch = [\n\"claude\",\n\"/bin/x\"]",
            "c.toml:4: `kernel.watch`: \"/bin/x\": write the name of a program without its path, of 15 bytes at most",
        ),
        (
            &format!("[kernel]\nwatch = [{}\n\"last\"]", "\"x\",".repeat(60)),
            "c.toml:3: `kernel.watch`: \"last\": write 60 names at most",
        ),
        (
            "[agent]\nuser = \"root\"",
            "c.toml:2: `agent.user`: name a user of its own, or set `allow_root = true` below",
        ),
        ("[agent]\nenv = [\"A=b\"]", "c.toml:2: `agent.env`: \"A=b\": write the name of a variable, without a value"),
        (
            "[agent]\nenv = [\"HOME\"]",
            "c.toml:2: `agent.env`: \"HOME\": HOME is set from the user database; leave it out",
        ),
        ("[limits]\nwall = \"0s\"", "c.toml:2: `limits.wall`: \"0s\": write more than 0, or leave it out for no limit"),
        ("[limits]\ntasks = 0", "c.toml:2: `limits.tasks`: write more than 0, or leave it out for no limit"),
        (
            "[audit]\nredact_names = [\n\"ok\",\n\"a b\"]",
            "c.toml:4: `audit.redact_names`: \"a b\": write the name of a flag, variable or field, without dashes before it and value",
        ),
        ("[audit]\nredact_patterns = [\"(\"]", "c.toml:2: `audit.redact_patterns`: \"(\": error: unclosed group"),
        (
            "[audit]\nsegment_bytes = 1000",
            "c.toml:2: `audit.segment_bytes`: write a number of bytes from 1048576 to 4294967296",
        ),
        ("[audit]\nsegment_age = \"59s\"", "c.toml:2: `audit.segment_age`: \"59s\": write 1m or more"),
        (
            "[audit]\nsegment_bytes = 2097152\nkeep_bytes = 2097151",
            "c.toml:3: `audit.keep_bytes`: write at least the size of a segment, 2097152, or leave it out to keep all",
        ),
        ("[audit]\nkeep_age = \"23h\"", "c.toml:2: `audit.keep_age`: \"23h\": write 1day or more"),
        ("[audit]\non_full = \"halt\"", "c.toml:2: `audit.on_full`: \"halt\": write \"stop-launching\" or \"launch\""),
        ("[audit]\nanchor_dir = \"a\"", "c.toml:2: `audit.anchor_dir`: write an absolute path, without `..`"),
        ("[audit]\nanchor_every = \"9s\"", "c.toml:2: `audit.anchor_every`: \"9s\": write 10s or more"),
        ("[limits]\nleftovers = \"x\"", "c.toml:2: `limits.leftovers`: \"x\": write \"kill\" or \"wait\""),
    ] {
        assert_eq!(wrong(text), said, "{text}");
    }
    let said = wrong("[limits]\nwall = \"1 fortnight\"");
    assert!(said.ends_with("write it like \"90s\", \"10m\" or \"1h 30m\""), "{said}");
    let said = wrong("[limits]\ntasks = -1");
    assert!(said.starts_with("c.toml:2: `limits.tasks`: "), "{said}");
    let said = wrong("[limits]\nwall = 60");
    assert!(said.starts_with("c.toml:2: `limits.wall`: invalid type: integer `60`, expected a string"), "{said}");
    assert!(wrong("[host\n").starts_with("c.toml:1: "));
}

#[test]
fn root_by_name_needs_a_word() {
    let config = Config::parse("[agent]\nuser = \"root\"\nallow_root = true", "c").expect("it is allowed");
    assert_eq!(config.agent.user.as_deref(), Some("root"));
}

#[test]
fn a_change_says_from_what_to_what_and_when() {
    let old = Config::parse("[host]\nowner = \"a\"", "c").expect("good");
    let new = Config::parse("[limits]\nwall = \"1h\"\n[host]\nstate_dir = \"/s\"", "c").expect("good");
    assert_eq!(
        old.difference(&new),
        [
            "host.state_dir: \"/var/lib/agent-loop\" becomes \"/s\", from the next restart of agent-loop on",
            "host.owner: \"a\" becomes nothing, from the next restart of agent-loop on",
            "limits.wall: nothing becomes \"1h\"",
        ]
    );
    assert!(old.difference(&old).is_empty());
    let held = old.reloaded(&new);
    assert_eq!((held.host.state_dir, held.host.owner), (old.host.state_dir, old.host.owner));
    assert_eq!(held.limits, new.limits);
}

#[test]
fn a_file_that_others_can_write_or_that_is_none_is_not_read() {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    let said = |path: &Path| Config::load(path).expect_err("refused").to_string();
    assert!(said(&path).contains("--config"), "{}", said(&path));
    fs::write(&path, "[host]\nmax_agents = 9\n").expect("ours");
    for (mode, good) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        assert_eq!(Config::load(&path).is_ok(), good, "{mode:o}");
    }
    assert!(said(&path).contains("chmod go-w "), "{}", said(&path));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
    fs::write(&path, [b'#'; (1 << 20) + 1]).expect("ours");
    assert!(said(&path).contains("more than 1048576 bytes"), "{}", said(&path));
    fs::write(&path, b"\xff").expect("ours");
    assert!(said(&path).contains("not UTF-8"), "{}", said(&path));
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("ours");
    for none in [&fifo, dir.path()] {
        assert!(said(none).contains("not a regular file"), "{}", said(none));
    }
}

#[test]
fn a_name_that_the_host_does_not_know_is_refused_with_its_key() {
    let check = |text: &str| {
        let config = Config::parse(text, "c").unwrap_or_else(|error| panic!("{error}"));
        config.check_names("c.toml").map_err(|error| error.to_string())
    };
    assert_eq!(
        check("[agent]\nuser = \"root\"\nallow_root = true\n[host]\nowner = \"root\"\nsocket_group = \"root\""),
        Ok(())
    );
    for (text, key) in [
        ("[agent]\nuser = \"no-such-one\"", "agent.user"),
        ("[host]\nowner = \"no-such-one\"", "host.owner"),
        ("[host]\nsocket_group = \"no-such-one\"", "host.socket_group"),
    ] {
        let said = check(text).expect_err(text);
        assert!(said.starts_with(&format!("c.toml: `{key}`: there is no ")), "{said}");
    }
}

#[test]
fn the_log_is_kept_as_the_settings_say() {
    let log = |text: &str| Config::parse(text, "c").unwrap_or_else(|error| panic!("{error}")).audit.log();
    let default = log("");
    assert_eq!(format!("{default:?}"), format!("{:?}", log::Settings::default()));
    let set = log("[audit]\nsegment_bytes = 1048576\nsegment_age = \"2m\"\nkeep_bytes = 1048577\nkeep_age = \"3m\"\n\
         anchor_dir = \"/mnt/a\"\nanchor_journal = true\nanchor_every = \"30s\"");
    let seconds = Duration::from_secs;
    assert_eq!((set.segment_bytes, set.segment_age), (1 << 20, seconds(120)));
    assert_eq!((set.keep.bytes, set.keep.age), (Some(1_048_577), Some(seconds(180))));
    let names: Vec<&str> = set.anchors.iter().map(|anchor| anchor.name()).collect();
    assert_eq!((names, set.anchor_every), (vec!["files", "journal"], seconds(30)));
    // Settings that have nothing to do with secrets change no policy.
    let policy = |text: &str| Config::parse(text, "c").expect("good").audit.policy();
    assert!(Arc::ptr_eq(&policy("[audit]\nanchor_journal = true"), &policy("")), "it is the built-in one");
}
