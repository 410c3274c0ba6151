//! What a submission says that is secret stays in memory: neither the database nor an answer has it (I22). [pure]

use std::path::{Path, PathBuf};

use crate::audit::redact::Redactor;
use crate::run::Submission;
use crate::track::NAME_CHARS;

/// Puts marks in the places of secrets, and returns the submission as it was, if it had any.
pub(super) fn withhold(submission: &mut Submission, redactor: &Redactor) -> Option<Submission> {
    let whole = submission.clone();
    submission.argv = redactor.words(&whole.argv, false);
    for ((name, value), (_, whole)) in submission.env.iter_mut().zip(&whole.env) {
        let word = redactor.words(&[format!("{name}={whole}")], false).concat();
        // A name that is secret itself takes its value with it.
        match word.strip_prefix(&format!("{name}=")) {
            Some(found) => found.clone_into(value),
            None => (*name, *value) = ("redacted".to_owned(), word),
        }
    }
    submission.cwd = shown(&whole.cwd, redactor);
    submission.stdin = whole.stdin.as_deref().map(|path| shown(path, redactor));
    submission.withheld = *submission != whole;
    submission.withheld.then_some(whole)
}

fn shown(path: &Path, redactor: &Redactor) -> PathBuf {
    path.to_str().map_or_else(|| path.to_owned(), |text| redactor.text(text).as_ref().into())
}

/// A command line as the registry keeps it, for people: its words with one space between them, the end perhaps cut.
pub(super) fn command(name: &str, redactor: &Redactor) -> String {
    let words: Vec<String> = name.split(' ').map(str::to_owned).collect();
    redactor.words(&words, name.chars().count() >= NAME_CHARS).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Limits;
    use crate::supervise::Leftovers;

    fn submission(argv: &[&str], env: &[(&str, &str)]) -> Submission {
        Submission {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: "/".into(),
            user: "nobody".to_owned(),
            stdin: None,
            limits: Limits::default(),
            grace: std::time::Duration::ZERO,
            leftovers: Leftovers::Kill,
            asked_by: 0,
            part: None,
            withheld: false,
        }
    }

    #[test]
    fn a_submission_without_secrets_is_kept_as_it_is() {
        let mut it = submission(&["claude", "-p", "fix it"], &[("LANG", "C")]);
        let before = it.clone();
        assert_eq!(withhold(&mut it, &Redactor::passing()), None);
        assert_eq!(it, before);
    }

    #[test]
    fn a_secret_in_a_command_line_that_was_cut_is_none_the_less_one() {
        let token = format!("gh{}Zq7Kf2Lm9Rt4Vx8Bn3Wc6Yd1Hs5Jq0Pa", "p_");
        for shown in 1..=token.len() {
            let name = format!("{} {}", "x".repeat(NAME_CHARS - shown - 1), &token[..shown]);
            let said = command(&name, &Redactor::passing());
            assert!(shown < 5 || !said.contains(&token[..shown]), "{said}");
        }
        assert_eq!(command("sh -c true", &Redactor::passing()), "sh -c true");
    }

    #[test]
    fn each_place_of_a_secret_makes_a_submission_be_withheld() {
        let token = format!("gh{}Zq7Kf2Lm9Rt4Vx8Bn3Wc6Yd1Hs5Jq0Pa", "p_");
        let path: PathBuf = format!("/tmp/{token}").into();
        let plain = || submission(&["tool"], &[]);
        let cases = [
            submission(&["tool", "--password", "horse battery"], &[]),
            submission(&["tool", &token], &[]),
            submission(&["tool"], &[("MY_TOKEN", "horse battery")]),
            submission(&["tool"], &[("ANY", &token)]),
            submission(&["tool"], &[(&token, "any")]),
            Submission { cwd: path.clone(), ..plain() },
            Submission { stdin: Some(path), ..plain() },
        ];
        for mut it in cases {
            let before = it.clone();
            assert_eq!(withhold(&mut it, &Redactor::passing()), Some(before.clone()), "{before:?}");
            assert!(it.withheld, "{it:?}");
            let text = format!("{it:?}");
            assert!(!text.contains(&token) && !text.contains("battery"), "{text}");
        }
    }
}
