//! The rules, each a function of a file's name and text.

use std::collections::BTreeSet;

use super::Finding;
use super::source::{PathUse, Source};

/// The only module that sends signals (I1).
const SIGNALS: &str = "agent-loop/src/keeper/signal.rs";
/// Modules that decide and touch nothing.
const PURE: [&str; 26] = [
    "agent-loop/src/model.rs",
    "agent-loop/src/event.rs",
    "agent-loop/src/run.rs",
    "agent-loop/src/track/",
    "agent-loop/src/supervise/",
    "agent-loop/src/audit/report/",
    "agent-loop/src/config/file.rs",
    "agent-loop/src/work/",
    "agent-loop/src/forge/checks.rs",
    "agent-loop/src/forge/error.rs",
    "agent-loop/src/forge/merged.rs",
    "agent-loop/src/forge/words.rs",
    "agent-loop/src/forge/github/etag.rs",
    "agent-loop/src/git/argv.rs",
    "agent-loop/src/git/bundle.rs",
    "agent-loop/src/git/error.rs",
    "agent-loop/src/agent/command.rs",
    "agent-loop/src/agent/judge.rs",
    "agent-loop/src/agent/limit.rs",
    "agent-loop/src/agent/session.rs",
    "agent-loop/src/agent/stream.rs",
    "agent-loop/src/agent/words.rs",
    "agent-loop/src/agent/mod.rs",
    "agent-loop/src/issues/claim.rs",
    "agent-loop/src/issues/lines.rs",
    "agent-loop/src/issues/translate.rs",
];
/// Where `unsafe` may be written.
const UNSAFE: [&str; 5] = [
    "agent-loop/src/keeper/",
    "agent-loop/src/kernel/",
    "agent-loop-common/src/decode.rs",
    "agent-loop-ebpf/",
    // The adversaries call the kernel in ways that no safe wrapper has.
    "tests/",
];
/// The keeper: what launches, signals and reaps as root.
const KEEPER: &str = "agent-loop/src/keeper/";
/// The daemon's end of it, which runs in the daemon.
const KEEPER_CLIENT: &str = "agent-loop/src/keeper/process/client.rs";
/// All that it may be, in lines of code and documentation, with what it shares with `exec`: what one person reads in a day.
const KEEPER_LINES: usize = 6_000;
/// More lines than this, without tests, are a sign to look.
const LONG: usize = 450;

/// Everything that the token rules find in a file.
pub(crate) fn findings(file: &str, source: &Source) -> Vec<Finding> {
    let rules = [signals, pure, keeper, unsafe_code, allow_attributes];
    rules.iter().flat_map(|rule| rule(file, source)).collect()
}

/// I1: no signal by number, and one module that owns the calls of both proofs.
fn signals(file: &str, source: &Source) -> Vec<Finding> {
    const BY_NUMBER: [&str; 9] =
        ["kill", "killpg", "tkill", "tgkill", "sigqueue", "pthread_kill", "SYS_kill", "SYS_tkill", "SYS_tgkill"];
    if file.starts_with("tests/") || file.contains("/tests/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for path in source.paths.iter().filter(|it| !it.test) {
        let from_system =
            path.segments.iter().any(|it| it == "libc" || it == "nix" || it == "rustix" || it == "signal");
        let last = path.segments.last().map_or("", String::as_str);
        if from_system && BY_NUMBER.contains(&last) {
            found.push(at(file, path.line, format!("`{}` signals by number (I1)", path.segments.join("::"))));
        }
        let glob = path.segments.ends_with(&["libc".to_owned(), "*".to_owned()])
            || path.segments.ends_with(&["signal".to_owned(), "*".to_owned()]);
        if glob {
            found.push(at(
                file,
                path.line,
                format!("`{}` hides calls that signal by number (I1)", path.segments.join("::")),
            ));
        }
    }
    if file == SIGNALS {
        return found;
    }
    for token in source.tokens.iter().filter(|it| !it.test) {
        let literal = token.text.trim_start_matches(['b', 'c', 'r', '#']).trim_end_matches('#').trim_matches('"');
        let file_of_cgroup = literal.trim_end_matches("\\0");
        let quoted = !token.ident && token.text.ends_with(['"', '#']);
        if token.ident && token.text.contains("pidfd_send_signal") {
            found.push(at(file, token.line, format!("`{}` belongs into {SIGNALS} (I1)", token.text)));
        } else if quoted && (file_of_cgroup == CGROUP_KILL || file_of_cgroup.ends_with(&format!("/{CGROUP_KILL}"))) {
            found.push(at(file, token.line, format!("the file {CGROUP_KILL} belongs into {SIGNALS} (I1)")));
        }
    }
    found
}

/// The kernel's file; put together so that this rule does not find itself.
const CGROUP_KILL: &str = concat!("cgroup", ".kill");

/// Pure modules touch no clock, file, process, socket or await.
fn pure(file: &str, source: &Source) -> Vec<Finding> {
    const ROOTS: [&str; 5] = ["tokio", "libc", "nix", "aya", "jiff"];
    // Tables of names and the calendar, without an effect.
    const TABLES: [&str; 7] = [
        "nix::sys::signal::Signal",
        "nix::errno::Errno",
        "jiff::civil::Date",
        "jiff::civil::DateTime",
        "jiff::civil::Time",
        "jiff::SignedDuration",
        "jiff::Timestamp::from_nanosecond",
    ];
    const OF_STD: [&str; 6] = ["fs", "process", "net", "env", "thread", "os"];
    if !PURE.iter().any(|it| file == *it || file.starts_with(it) && it.ends_with('/')) || is_test_file(file) {
        return Vec::new();
    }
    let is_table = |path: &PathUse| TABLES.iter().any(|table| path.segments.join("::").starts_with(table));
    let effect = |path: &PathUse| {
        let segment = |at: usize| path.segments.get(at).map_or("", String::as_str);
        let clock = path.segments.ends_with(&["Instant".to_owned(), "now".to_owned()])
            || path.segments.ends_with(&["SystemTime".to_owned(), "now".to_owned()]);
        clock
            || path.segments.len() > 1 && ROOTS.contains(&segment(0)) && !is_table(path)
            || segment(0) == "std" && OF_STD.contains(&segment(1))
    };
    let mut found: Vec<Finding> = source
        .paths
        .iter()
        .filter(|path| !path.test && effect(path))
        .map(|path| at(file, path.line, format!("`{}` in a pure module", path.segments.join("::"))))
        .collect();
    let awaits = source.tokens.iter().filter(|it| !it.test && it.ident && it.text == "await");
    found.extend(awaits.map(|it| at(file, it.line, "`.await` in a pure module".to_owned())));
    found
}

/// The keeper is synchronous, speaks to no network, reads nothing that an agent or a forge wrote, and knows no room that does.
fn keeper(file: &str, source: &Source) -> Vec<Finding> {
    const CRATES: [&str; 9] =
        ["tokio", "hyper", "octocrab", "reqwest", "rusqlite", "toml", "regex", "minijinja", "indicatif"];
    const ROOMS: [&str; 12] = [
        "agent",
        "cli",
        "config",
        "control",
        "daemon",
        "forge",
        "git",
        "issues",
        "store",
        "supervise",
        "track",
        "work",
    ];
    if !file.starts_with(KEEPER) || file == KEEPER_CLIENT || is_test_file(file) {
        return Vec::new();
    }
    let foreign = |path: &PathUse| {
        let segment = |at: usize| path.segments.get(at).map_or("", String::as_str);
        match segment(0) {
            "std" => segment(1) == "net",
            // It hides what it says, and reads no log.
            "crate" => ROOMS.contains(&segment(1)) || segment(1) == "audit" && segment(2) != "redact",
            other => path.segments.len() > 1 && CRATES.contains(&other),
        }
    };
    let uses = source.paths.iter().filter(|path| !path.test && foreign(path));
    uses.map(|path| at(file, path.line, format!("`{}` in the keeper", path.segments.join("::")))).collect()
}

/// How many lines of code and documentation the keeper has without its tests, and whether that is too much.
pub(crate) fn keeper_size<'a>(sources: impl Iterator<Item = (&'a str, &'a Source)>) -> Option<Finding> {
    let of = |source: &Source| -> BTreeSet<usize> {
        source.tokens.iter().filter(|token| !token.test).map(|token| token.line).collect()
    };
    let lines: usize = sources
        .filter(|(file, _)| file.starts_with(KEEPER) && *file != KEEPER_CLIENT && !is_test_file(file))
        .map(|(_, source)| of(source).len())
        .sum();
    let text = format!(
        "the keeper has {lines} lines of code and documentation, more than the {KEEPER_LINES} that can be read in a day"
    );
    (lines > KEEPER_LINES).then(|| at(KEEPER, 1, text))
}

/// `unsafe` lives in few places.
fn unsafe_code(file: &str, source: &Source) -> Vec<Finding> {
    if UNSAFE.iter().any(|it| file.starts_with(it)) {
        return Vec::new();
    }
    let words = source.tokens.iter().filter(|it| it.ident && it.text == "unsafe");
    words.map(|it| at(file, it.line, "`unsafe` outside the places that may hold it".to_owned())).collect()
}

/// A lint is suppressed by `expect` with a reason, which complains when it is no longer needed.
fn allow_attributes(file: &str, source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for window in source.tokens.windows(5) {
        let text: Vec<&str> = window.iter().map(|it| it.text.as_str()).collect();
        let line = window.first().map_or(0, |it| it.line);
        if matches!(text[..], ["#", "[", "allow", "(", _] | ["#", "!", "[", "allow", "("]) {
            found.push(at(file, line, "`allow` attribute: use `expect` with a reason".to_owned()));
        }
    }
    found
}

/// No path of somebody's home directory in a committed file.
pub(crate) fn home_paths(file: &str, text: &str) -> Vec<Finding> {
    const HOMES: [&str; 3] = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for home in HOMES {
            let hit = line.match_indices(home).any(|(begin, _)| {
                let before = line.get(..begin).and_then(|it| it.chars().next_back());
                let after = line.get(begin + home.len()..).and_then(|it| it.chars().next());
                // `a/root/b` and `/home/<name>` are no path of a machine.
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}'))
                    && after.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_'))
            });
            if hit {
                found.push(at(file, number + 1, format!("a path under {home}")));
            }
        }
    }
    found
}

/// A long file is a sign to look, not an error.
pub(crate) fn long_file(file: &str, text: &str, source: &Source) -> Option<Finding> {
    let lines = text.lines().count().saturating_sub(source.test_lines());
    let long = lines > LONG && !is_test_file(file);
    long.then(|| at(file, 1, format!("{lines} lines without tests, more than {LONG}: look whether it is two things")))
}

/// The files of the modules that `file` declares for tests only.
pub(crate) fn test_files(file: &str, source: &Source) -> Vec<String> {
    let folder = ["/mod.rs", "/lib.rs", "/main.rs", ".rs"].iter().find_map(|it| file.strip_suffix(it)).unwrap_or(file);
    let modules = source.test_modules().into_iter();
    modules.flat_map(|name| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]).collect()
}

/// Whether a file is of a folder of tests.
fn is_test_file(file: &str) -> bool {
    file.starts_with("tests/") || file.contains("/tests/")
}

fn at(file: &str, line: usize, text: String) -> Finding {
    Finding { file: file.to_owned(), line, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: &str = "agent-loop/src/daemon.rs";

    fn lines(rule: fn(&str, &Source) -> Vec<Finding>, file: &str, text: &str) -> Vec<usize> {
        rule(file, &Source::parse(text).expect("tokens")).iter().map(|it| it.line).collect()
    }

    #[test]
    fn a_signal_by_number_is_found_however_it_is_written() {
        for text in [
            "fn f() { unsafe { libc::kill(1, 9) }; }",
            "fn f() { nix::sys::signal::killpg(p, s); }",
            "use nix::sys::signal::{Signal, kill};",
            "use nix::sys::signal;\nfn f() {}\nuse nix::sys::{signal::kill as k};",
            "fn f() { signal::kill(p, s); }",
            "fn f() { libc::syscall(libc::SYS_tgkill, 1, 1, 9); }",
            "use libc::*;",
        ] {
            assert!(!lines(signals, ANYWHERE, text).is_empty(), "{text}");
            assert!(!lines(signals, SIGNALS, text).is_empty(), "not even there: {text}");
            assert!(lines(signals, "tests/src/recycle.rs", text).is_empty(), "{text}");
            assert!(lines(signals, ANYWHERE, &format!("#[cfg(test)]\nmod tests {{ {text} }}")).is_empty(), "{text}");
        }
        assert!(lines(signals, ANYWHERE, "// libc::kill(1, 9)\nfn f() { run.kill(); \"libc::kill\"; }").is_empty());
    }

    #[test]
    fn the_calls_that_signal_belong_to_one_module() {
        for text in [
            "fn f() { libc::syscall(libc::SYS_pidfd_send_signal, fd); }".to_owned(),
            format!("const F: &str = \"{CGROUP_KILL}\";"),
            format!("const F: &CStr = c\"{CGROUP_KILL}\";"),
            format!("fn f() {{ open(\"/sys/fs/cgroup/x/{CGROUP_KILL}\") }}"),
        ] {
            assert_eq!(lines(signals, ANYWHERE, &text), [1], "{text}");
            assert!(lines(signals, SIGNALS, &text).is_empty(), "{text}");
        }
        let prose = format!("fn f() {{ say(\"no {CGROUP_KILL} before Linux 5.14\") }}");
        assert!(lines(signals, ANYWHERE, &prose).is_empty());
    }

    #[test]
    fn effects_in_pure_modules_are_found() {
        for text in [
            "use std::fs;",
            "use std::{fmt, process::Command};",
            "fn f() { std::net::TcpStream::connect(a); }",
            "use std::time::Instant;\nfn f() { Instant::now(); }",
            "fn f() { std::time::SystemTime::now(); }",
            "use tokio::time;",
            "fn f() { libc::getpid(); }",
            "fn f() { nix::unistd::getpid(); }",
            "async fn f() { g().await }",
        ] {
            assert!(!lines(pure, "agent-loop/src/track/tracker.rs", text).is_empty(), "{text}");
            assert!(!lines(pure, "agent-loop/src/event.rs", text).is_empty(), "{text}");
            assert!(lines(pure, ANYWHERE, text).is_empty(), "{text}");
        }
        assert!(lines(pure, "agent-loop/src/model.rs", "use std::time::{Duration, Instant};").is_empty());
        assert!(lines(pure, "agent-loop/src/model.rs", "use nix::sys::signal::Signal;").is_empty());
        let test = "#[cfg(test)]\nmod tests { use std::fs; }";
        assert!(lines(pure, "agent-loop/src/model.rs", test).is_empty());
    }

    #[test]
    fn the_keeper_knows_no_network_no_runtime_and_no_room_that_reads_what_others_wrote() {
        const SERVER: &str = "agent-loop/src/keeper/process/server.rs";
        for text in [
            "use tokio::net::UnixStream;",
            "use std::net::TcpStream;",
            "use crate::store::Store;",
            "use crate::audit::{redact, past};",
            "fn f() { crate::forge::x() }",
            "fn f() { octocrab::instance(); }",
        ] {
            assert_eq!(lines(keeper, SERVER, text), [1], "{text}");
            assert!(
                lines(keeper, ANYWHERE, text).is_empty() && lines(keeper, KEEPER_CLIENT, text).is_empty(),
                "{text}"
            );
        }
        for text in ["use std::os::unix::net::UnixStream;", "use crate::audit::redact;", "use crate::model::RunTag;"] {
            assert!(lines(keeper, SERVER, text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_keeper_that_nobody_can_read_in_one_sitting_is_found() {
        let size = |file: &str, lines: usize| {
            let source = Source::parse(&"// a word\n;\n".repeat(lines)).expect("tokens");
            keeper_size([(file, &source)].into_iter()).is_some()
        };
        assert!(size("agent-loop/src/keeper/x.rs", KEEPER_LINES + 1));
        assert!(!size("agent-loop/src/keeper/x.rs", KEEPER_LINES) && !size(KEEPER_CLIENT, KEEPER_LINES + 1));
    }

    #[test]
    fn unsafe_is_found_outside_its_places() {
        let text = "fn f() {\n  unsafe { g() }\n}";
        assert_eq!(lines(unsafe_code, ANYWHERE, text), [2]);
        assert_eq!(lines(unsafe_code, "agent-loop-common/src/record.rs", text), [2]);
        assert!(lines(unsafe_code, "agent-loop/src/keeper/signal.rs", text).is_empty());
        assert!(lines(unsafe_code, ANYWHERE, "#![deny(unsafe_op_in_unsafe_fn)] // unsafe").is_empty());
    }

    #[test]
    fn allow_attributes_are_found() {
        assert_eq!(lines(allow_attributes, ANYWHERE, "\n#[allow(dead_code)]\nfn f() {}"), [2]);
        assert_eq!(lines(allow_attributes, ANYWHERE, "#![allow(dead_code)]\nfn f() {}"), [1]);
        let expect = "#[expect(dead_code, reason = \"why\")]\nfn allow() {}";
        assert!(lines(allow_attributes, ANYWHERE, expect).is_empty());
    }

    #[test]
    fn paths_of_a_home_directory_are_found() {
        let home = concat!("/ho", "me/");
        let found = |text: &str| home_paths("README.md", text).len();
        assert_eq!(found(&format!("see {home}ann/x")), 1);
        assert_eq!(found(&format!("`{}.cargo`", concat!("/ro", "ot/"))), 1);
        assert_eq!(found(&format!("{home}<name>, a{home}x, {home}")), 0);
    }

    #[test]
    fn a_module_declared_for_tests_is_a_test_file_and_its_name_alone_makes_none() {
        let source = Source::parse("pub mod a;\n#[cfg(test)]\npub(crate) mod b;\nmod tests;").expect("tokens");
        let expected = |folder: &str| vec![format!("{folder}/b.rs"), format!("{folder}/b/mod.rs")];
        assert_eq!(test_files("x/src/keeper/mod.rs", &source), expected("x/src/keeper"));
        assert_eq!(test_files("x/src/keeper.rs", &source), expected("x/src/keeper"));

        let mut marked = Source::parse("use std::fs;\nfn f() { libc::kill(1, 9) }").expect("tokens");
        assert_eq!(findings("agent-loop/src/track/b.rs", &marked).len(), 3);
        marked.mark_as_test();
        assert!(findings("agent-loop/src/track/b.rs", &marked).is_empty());
    }

    #[test]
    fn a_long_file_is_reported_and_its_tests_do_not_count() {
        let long = |text: &str| long_file(ANYWHERE, text, &Source::parse(text).expect("tokens")).is_some();
        let body = "fn f() {}\n".repeat(LONG);
        assert!(!long(&body));
        assert!(long(&format!("{body}fn g() {{}}\n")));
        assert!(!long(&format!("{body}#[cfg(test)]\nmod tests {{\n{body}}}\n")));
    }
}
