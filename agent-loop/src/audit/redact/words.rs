//! What only a command line shows: the word after a flag, a header over several words, a script for a shell.

use std::ops::Range;
use std::sync::OnceLock;

use regex::Regex;

use super::Span;
use super::shapes::{PROGRAMS, Policy, VALUE, is_harmless};

/// How deep scripts in scripts are read as command lines; shapes are found at any depth.
const DEPTH: u32 = 3;

/// Shells, whose `-c` takes a script.
const SHELLS: [&str; 8] = ["sh", "bash", "zsh", "dash", "ash", "ksh", "fish", "busybox"];

/// Words that may stand between a header's name and its secret.
const SCHEMES: [&str; 6] = ["bearer", "basic", "token", "digest", "negotiate", "apikey"];

/// For each word what is secret in it.
pub(super) fn spans(policy: &Policy, words: &[String], cut: bool) -> Vec<Vec<Span>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut spans = of_words(policy, &words, DEPTH);
    for (number, (word, spans)) in words.iter().zip(&mut spans).enumerate() {
        spans.extend(policy.spans(word, cut && number + 1 == words.len()));
    }
    spans
}

/// What is secret in a text that is no word of a command line and may hold one.
pub(super) fn of_text(policy: &Policy, text: &str) -> Vec<Span> {
    let mut spans = policy.spans(text, false);
    spans.extend(of_script(policy, text, DEPTH));
    spans
}

/// What the order of the words tells.
fn of_words(policy: &Policy, words: &[&str], depth: u32) -> Vec<Vec<Span>> {
    let mut spans: Vec<Vec<Span>> = vec![Vec::new(); words.len()];
    let program = program_of(words);
    let (mut rest_is_key, mut key_ends) = (false, false);
    let mut awaited: Option<&'static str> = None;
    for (number, word) in words.iter().enumerate() {
        let mut whole = |from: usize, rule| spans[number].push(Span { at: from..word.len(), rule });
        if rest_is_key {
            // An unquoted key: each of its lines, and of the words of its first and last line, is a word of its own.
            whole(0, "pem");
            key_ends |= word.starts_with("-----END");
            rest_is_key = !(key_ends && word.ends_with("-----"));
            continue;
        }
        if let Some(rule) = awaited.take() {
            if rule == "header" && SCHEMES.contains(&word.to_ascii_lowercase().trim_matches(['"', '\''])) {
                awaited = Some(rule);
                continue;
            }
            if !is_flag(word) && !is_harmless(word, false) {
                whole(0, rule);
                continue;
            }
        }
        let script =
            number.checked_sub(1).and_then(|before| words.get(before)).is_some_and(|before| is_script_flag(before))
                && words.iter().take(number).any(|it| SHELLS.contains(&base(it)));
        if *word == "-----BEGIN" || (word.ends_with("-----BEGIN") && !word.contains(' ')) {
            rest_is_key = words.iter().skip(number + 1).take(3).any(|it| it.starts_with("KEY"));
            if rest_is_key {
                whole(0, "pem");
                key_ends = false;
            }
        } else if !script && let Some((name, value)) = word.split_once('=') {
            let value_at = word.len() - value.len();
            let plain = name.trim_start_matches('-').chars().all(|it| it.is_alphanumeric() || "_-./:".contains(it));
            if plain && policy.promise(name).is_some() && !is_harmless(value, false) {
                whole(value_at, "name");
            }
        } else if let Some(name) = word.strip_suffix(':').filter(|it| !it.contains(char::is_whitespace)) {
            let header = name.trim_start_matches(['"', '\'']).to_ascii_lowercase();
            if header.ends_with("authorization")
                || header.ends_with("cookie")
                || policy.promise(&header) == Some(super::names::Promise::Strong)
            {
                awaited = Some("header");
            }
        } else if word.eq_ignore_ascii_case("bearer") && number > 0 {
            awaited = Some("bearer");
        } else if word.starts_with('-') && !word.contains(char::is_whitespace) {
            if policy.promise(word).is_some() {
                awaited = Some("argument");
            } else {
                awaited = letter(program, words, word).and_then(|at| {
                    if at == word.len() {
                        return (!program_glues(program)).then_some("argument");
                    }
                    whole(at, "argument");
                    None
                });
            }
        } else if let Some(rest) = word.strip_prefix("pass:").filter(|rest| !rest.is_empty()) {
            whole(word.len() - rest.len(), "argument");
        }
        if depth > 0 && word.contains(char::is_whitespace) && policy.may_hold_any(word) {
            spans[number].extend(of_script(policy, word, depth - 1));
        }
    }
    spans
}

/// A text read as a shell would divide it, command by command.
fn of_script(policy: &Policy, text: &str, depth: u32) -> Vec<Span> {
    static PIECE: OnceLock<Regex> = OnceLock::new();
    let piece = PIECE.get_or_init(|| Regex::new(VALUE).expect("a constant that a test compiles"));
    let mut commands: Vec<Vec<Range<usize>>> = vec![Vec::new()];
    let mut end = 0;
    for found in piece.find_iter(text) {
        let between = text.get(end..found.start()).unwrap_or_default();
        if between.contains([';', '|', '&', '(', ')', '\n']) {
            commands.push(Vec::new());
        }
        end = found.end();
        if let Some(command) = commands.last_mut() {
            command.push(inner(found.as_str(), found.range()));
        }
    }
    let mut spans = Vec::new();
    for command in commands {
        let words: Vec<&str> = command.iter().filter_map(|at| text.get(at.clone())).collect();
        for (at, found) in command.iter().zip(of_words(policy, &words, depth)) {
            let shifted = |span: Span| Span { at: at.start + span.at.start..at.start + span.at.end, ..span };
            spans.extend(found.into_iter().map(shifted));
        }
    }
    spans
}

/// The piece without the quotes around it.
fn inner(piece: &str, at: Range<usize>) -> Range<usize> {
    let quoted = |quote: char| piece.len() > 1 && piece.starts_with(quote) && piece.ends_with(quote);
    if quoted('"') || quoted('\'') { at.start + 1..at.end - 1 } else { at }
}

/// The program that the command line is of: past variables, and past programs that start others.
fn program_of<'a>(words: &[&'a str]) -> &'a str {
    let starter =
        |word: &str| matches!(base(word), "env" | "sudo" | "exec" | "time" | "nice" | "nohup" | "timeout" | "xargs");
    let first = words.iter().find(|word| !word.contains('=') && !word.starts_with('-') && !starter(word));
    let known = words.iter().map(|word| base(word)).find(|word| PROGRAMS.iter().any(|(program, _)| program == word));
    let named = first.map_or("", |word| base(word));
    if PROGRAMS.iter().any(|(program, _)| *program == named) { named } else { known.unwrap_or(named) }
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Where the secret begins in a flag of one letter, if this program has such a one; at its end where it is the next word.
fn letter(program: &str, words: &[&str], word: &str) -> Option<usize> {
    let (_, flags) = PROGRAMS.iter().find(|(name, _)| *name == program)?;
    if matches!(program, "docker" | "podman") && !words.contains(&"login") {
        return None;
    }
    let fitting = flags.iter().filter(|flag| word.starts_with(**flag)).max_by_key(|flag| flag.len())?;
    // A long one is a word of its own: `--user`, not `--user-agent`.
    (fitting.len() == 2 && !word.starts_with("--") || word.len() == fitting.len()).then_some(fitting.len())
}

/// Whether the program takes its secret only in the same word; the next word is then something else.
fn program_glues(program: &str) -> bool {
    matches!(program, "mysql" | "mysqldump" | "mysqladmin" | "mariadb" | "7z")
}

fn is_flag(word: &str) -> bool {
    let rest = word.strip_prefix("--").unwrap_or("");
    rest.starts_with(|it: char| it.is_ascii_lowercase())
        || (word.len() == 2 && word.starts_with('-') && !word.ends_with('-'))
}

/// `-c`, `-lc`, `-ec`.
fn is_script_flag(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|it| it.ends_with('c') && it.len() <= 4 && it.bytes().all(|it| it.is_ascii_lowercase()))
}
