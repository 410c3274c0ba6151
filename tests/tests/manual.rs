//! Every command line of the documents is one that the program takes, and what can be run on a test's host is run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_loop_tests::harness::{Host, agent_loop};
use agent_loop_tests::needs;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents for people.
fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    for entry in fs::read_dir(root().join("docs")).expect("the documents") {
        let path = entry.expect("an entry").path();
        // Measurements tell what was run, with what is compared, and not what a person types.
        if path.extension().is_some_and(|end| end == "md") && !path.ends_with("measurements.md") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// The words of each command of a line of shell; what a comment says, and where output goes, is left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut to_file) = (None, false);
    let end = |words: &mut Vec<String>, word: &mut Option<String>, to_file: &mut bool| {
        if let Some(word) = word.take()
            && !std::mem::take(to_file)
        {
            words.push(word);
        }
    };
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => end(&mut words, &mut word, &mut to_file),
            (None, '|' | ';' | '&') => {
                end(&mut words, &mut word, &mut to_file);
                all.push(std::mem::take(&mut words));
            }
            (None, '>' | '<') => {
                end(&mut words, &mut word, &mut to_file);
                to_file = true;
            }
            (Some(_) | None, _) => word.get_or_insert_default().push(c),
        }
    }
    end(&mut words, &mut word, &mut to_file);
    all.push(words);
    all.retain(|words| !words.is_empty());
    all
}

/// The lines of blocks of shell, and what stands between backticks within a line.
fn shell(text: &str) -> Vec<String> {
    let (mut lines, mut block) = (Vec::new(), None);
    for line in text.lines() {
        match (block, line.trim().strip_prefix("```")) {
            (None, Some(kind)) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (Some("sh" | ""), None) => lines.push(line.to_owned()),
            (Some(_), None) => {}
            (None, None) => lines.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    lines
}

/// Every command of the documents that begins with this program; the words after it.
fn of_the_documents() -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for path in documents() {
        for line in shell(&fs::read_to_string(path).expect("a document")) {
            for words in commands(&line) {
                if let Some(("agent-loop", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest))
                    // `agent-loop` alone names the program, and in `systemctl stop agent-loop` it is a unit.
                    && !rest.is_empty()
                {
                    found.insert(rest.to_vec());
                }
            }
        }
    }
    found
}

#[test]
fn a_line_of_shell_is_taken_apart_as_a_shell_does() {
    let words = |line: &str| commands(line).iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(words("agent-loop why RUN   # what ended it"), ["agent-loop|why|RUN"]);
    assert_eq!(words("a 'b c' \"d e\" > f; g && h -x | i"), ["a|b c|d e", "g", "h|-x", "i"]);
    assert_eq!(words("agent-loop serve &   # as root"), ["agent-loop|serve"]);
    assert_eq!(shell("a `b c` d\n```sh\ne\n```\n```toml\nf\n```\n"), ["b c", "e"]);
}

#[test]
fn every_command_line_of_the_documents_is_one_that_the_program_takes() {
    let all = of_the_documents();
    assert!(all.len() > 30, "{all:#?}");
    for words in &all {
        let line = words.join(" ");
        // Said of a command and not typed: what it takes is left out.
        let named_alone = words.iter().all(|word| !word.starts_with('-')) && words.len() < 3;
        let parsed = agent_loop::cli::command()
            .no_binary_name(true)
            .try_get_matches_from(words.iter().map(|word| if word == "RUN" { "8QK3M2ZP" } else { word }));
        if let Err(error) = parsed {
            use clap::error::ErrorKind;
            let told = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let short = named_alone
                && matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
            assert!(told || short, "`agent-loop {line}`: {error}");
        }
    }
}

/// Why a line is not run here; none is.
fn not_here(words: &[String]) -> Option<&'static str> {
    let has = |word: &str| words.iter().any(|it| it == word);
    match words.first().map(String::as_str)? {
        "serve" | "keeper" | "hold" => Some("it is what the test's host runs by itself"),
        "top" => Some("it draws on a terminal; `terminal.rs` has one"),
        "tick" | "queue" | "retry" | "pause" | "resume" | "import" => {
            Some("it needs a forge; the tests of issues have one")
        }
        "exec" if !has("--") => Some("it is named without a command"),
        "config" if has("--probe") => Some("it needs a forge; `probe.rs` has one"),
        "config" if words.len() < 2 => Some("it is named without what it does"),
        "start" | "kill" | "why" | "logs" | "tree" | "audit" if words.len() < 2 => {
            Some("it is named without what it takes")
        }
        "start" if words.iter().any(|word| word.contains('/') && word.contains('#')) => Some("it needs a forge"),
        "audit" if has("redact-test") && words.len() < 3 => Some("it is named without what it takes"),
        "audit" if has("verify-bundle") || has("prove") => Some("it needs signed lines; `bundles.rs` has them"),
        "logs" | "why" if words.iter().any(|word| word.contains('#')) => Some("it needs an issue; `steer.rs` has one"),
        "audit" if has("--pubkey") || has("--anchors") => Some("it needs anchors; `anchored.rs` has them"),
        _ => None,
    }
}

/// The words as they are on this host: its run, its log, its configuration, a command that is there.
fn here(words: &[String], host: &Host, run: &str) -> Vec<String> {
    let mut words: Vec<String> = words
        .iter()
        .filter(|word| !matches!(word.as_str(), "-f" | "--follow"))
        .map(|word| match word.as_str() {
            "8QK3M2ZP" | "RUN" | "01M89B3Q" | "01M8" => run.to_owned(),
            other => other.to_owned(),
        })
        .collect();
    // An agent of the documents is one that is there.
    if let Some(at) = words.iter().position(|word| word == "claude") {
        words.truncate(at);
        words.push("true".to_owned());
    }
    let path = |name: &str| host.path(name).display().to_string();
    match (words[0].as_str(), words.get(1).map(String::as_str)) {
        ("config", Some("check" | "show")) => {
            words.truncate(2);
            words.extend(["--config".to_owned(), path("config.toml")]);
        }
        // Whom agents run as here has no home.
        ("start", _) => drop(words.splice(1..1, ["--cwd".to_owned(), "/".to_owned()])),
        ("bugreport", _) => words.extend(["--config".to_owned(), path("config.toml")]),
        ("audit", Some(verb)) if verb != "redact-test" => {
            // A log that is named is this one.
            words.retain(|word| !word.starts_with("/var/log") && word != "DIR");
            words.push(path("log"));
        }
        _ => {}
    }
    words
}

#[test]
fn what_can_be_run_of_the_documents_is_run() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let run = host.start(&["--grace", "200ms"], ["sleep", "600"]);
    host.in_state(&run, "running");
    let mut all: Vec<Vec<String>> = of_the_documents().into_iter().filter(|words| not_here(words).is_none()).collect();
    // What ends the run comes last.
    all.sort_by_key(|words| words[0] == "kill" && !words.iter().any(|word| word == "--dry-run"));
    let mut verbs = BTreeSet::new();
    for (number, written) in all.iter().enumerate() {
        let words = here(written, &host, &run);
        let place = host.path(format!("manual-{number}"));
        fs::create_dir(&place).expect("a directory");
        let mut command = Command::new(agent_loop());
        command.args(&words).current_dir(&place).env("AGENT_LOOP_SOCKET", host.path("run/socket"));
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let good: &[i32] = match (words[0].as_str(), words.get(1).map(String::as_str)) {
            // What it found of this host; of a log that is not anchored.
            ("doctor", _) | ("audit", Some("redact-test")) => &[0, 1],
            ("audit", Some("verify")) => &[0, 1, 2],
            _ => &[0],
        };
        let code = output.status.code().unwrap_or(-1);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(good.contains(&code), "`agent-loop {}` ({}): {code}: {said}", written.join(" "), words.join(" "));
        verbs.insert(words[0].clone());
    }
    for verb in ["audit", "config", "doctor", "events", "exec", "kill", "logs", "ps", "start", "status", "tree", "why"]
    {
        assert!(verbs.contains(verb), "{verb} of the documents is not run: {verbs:?}");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        for (link, _) in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || link.contains("://") {
                continue;
            }
            let there = path.parent().unwrap_or(Path::new("/")).join(file);
            assert!(there.exists(), "{}: {link}", path.display());
        }
    }
}
