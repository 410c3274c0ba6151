//! `audit redact-test`: what would be held back from the records, and by which rule.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::audit::redact::{Policy, Redactor, TagKey};
use crate::config::Config;
use crate::error;

/// The most bytes that are read from standard input.
const LONGEST: u64 = 16 << 20;

/// Shows what the redaction would hold back: of a command line, or of each line of standard input.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration whose rules hold beside the built-in ones.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The words of a command line; `-` alone reads lines of text from standard input.
    #[arg(required = true, value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop audit redact-test -- curl -u me:secret https://example.org
  agent-loop audit redact-test --config /etc/agent-loop/config.toml - < build.log

The secrets themselves are not printed again; the tags are under a key of this call alone.
Exit codes: 0 nothing would be held back; 1 something would; 2 called wrongly; 3 the configuration is wrong.";

/// Something would be held back.
const HELD_BACK: u8 = 1;

/// Runs `audit redact-test` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let policy = match args.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config.map_or_else(Policy::built_in, |config| config.audit.policy()),
        Err(error) => {
            eprintln!("agent-loop: reading the configuration: {}", crate::audit::redact::said(&error.to_string()));
            return error::CONFIG;
        }
    };
    let redactor = Redactor::new(policy, TagKey::passing());
    let (text, any) = if args.words.iter().map(Path::new).eq([Path::new("-")]) {
        let mut text = Vec::new();
        if let Err(error) = io::stdin().lock().take(LONGEST).read_to_end(&mut text) {
            eprintln!("agent-loop: reading standard input: {error}");
            return error::USAGE;
        }
        of_text(&redactor, &String::from_utf8_lossy(&text))
    } else {
        let words: Vec<String> = args.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        of_words(&redactor, &words)
    };
    if let Err(error) = io::stdout().lock().write_all(text.as_bytes()) {
        eprintln!("agent-loop: writing the answer: {error}");
        return error::FAILED;
    }
    if any { HELD_BACK } else { error::DONE }
}

fn of_words(redactor: &Redactor, words: &[String]) -> (String, bool) {
    let (found, words) = redactor.explain(words);
    let mut text = String::new();
    for it in &found {
        let _ = writeln!(text, "word {}: {} bytes by the rule `{}`", it.word + 1, it.bytes, it.rule);
    }
    for word in &words {
        let _ = writeln!(text, "  {}", word.escape_debug());
    }
    let _ = writeln!(text, "policy {}", redactor.policy_sha256());
    (text, !found.is_empty())
}

/// A text as a whole: a secret may have several lines.
fn of_text(redactor: &Redactor, text: &str) -> (String, bool) {
    let held = redactor.text(text);
    let any = held != text;
    (held.into_owned(), any)
}
