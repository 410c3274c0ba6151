//! The command line of an agent. [pure]
//!
//! What is put into it is an id, a number or a name that was read strictly (I17): no text of an issue has a placeholder, and
//! nothing goes through a shell. Prompts go in by standard input.

use super::session::SessionId;
use crate::work::{Branch, RepoName};

/// How the output of an agent is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// `claude -p`, whose stream of JSON says what became of it.
    Claude,
    /// Any command, of which the exit code is all that is known.
    Other,
}

/// What an operator configured to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentCommand {
    /// `claude`, in words of ours and these of the operator.
    Claude {
        /// The program: a path, or a name that the agent's PATH finds.
        program: String,
        /// Arguments of the operator, such as `--permission-mode acceptEdits` or `--max-turns 60`.
        extra: Vec<String>,
    },
    /// Any command.
    Other {
        /// For the first run of a session.
        first: Vec<Pattern>,
        /// For each later one; without it the first one again.
        again: Option<Vec<Pattern>>,
    },
}

/// Why a command cannot be used; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is none.
    #[error("the command is empty: write the program and its arguments as a list")]
    Empty,
    /// A placeholder that is not known.
    #[error(
        "{arg:?}: {{{name}}} is none of {{session}}, {{branch}}, {{base}}, {{number}}, {{repo}}, {{attempt}}; a brace is written twice"
    )]
    Placeholder {
        /// The argument.
        arg: String,
        /// What stands between the braces.
        name: String,
    },
    /// A brace without its partner.
    #[error("{0:?}: a brace without its partner; a brace itself is written twice")]
    Brace(String),
    /// An argument that agent-loop writes itself.
    #[error("{0:?} is written by agent-loop itself: leave it out")]
    Ours(String),
    /// A null byte.
    #[error("{0:?} holds a null byte")]
    Null(String),
}

/// What stands in for placeholders: ids, numbers and safe names, never a text of somebody.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `{session}`.
    pub session: SessionId,
    /// `{repo}`, as `owner/name`.
    pub repo: &'a RepoName,
    /// `{number}` of the issue.
    pub number: u64,
    /// `{branch}`.
    pub branch: &'a Branch,
    /// `{base}`.
    pub base: &'a Branch,
    /// `{attempt}`, from 1.
    pub attempt: u32,
}

/// An argument with its placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Session,
    Branch,
    Base,
    Number,
    Repo,
    Attempt,
}

/// Options of `claude` by which it would not be what we make of it: another form of output, another session, no end.
const OURS: [&str; 18] = [
    "-p",
    "--print",
    "--output-format",
    "--input-format",
    "--session-id",
    "-r",
    "--resume",
    "-c",
    "--continue",
    "--fork-session",
    "--no-session-persistence",
    "-w",
    "--worktree",
    "--bg",
    "--from-pr",
    "-h",
    "--help",
    "--version",
];

impl AgentCommand {
    /// The preset `claude`, with these arguments of the operator.
    ///
    /// # Errors
    /// Where an argument is one that agent-loop writes itself.
    pub fn claude(program: &str, extra: Vec<String>) -> Result<Self, CommandError> {
        if program.is_empty() {
            return Err(CommandError::Empty);
        }
        for arg in &extra {
            no_null(arg)?;
            let name = arg.split('=').next().unwrap_or_default();
            if OURS.contains(&name) {
                return Err(CommandError::Ours(arg.clone()));
            }
        }
        no_null(program)?;
        Ok(Self::Claude { program: program.to_owned(), extra })
    }

    /// Any command; `again` is for the later runs of a session.
    ///
    /// # Errors
    /// Where it is empty, or a placeholder is not known.
    pub fn other(first: &[String], again: Option<&[String]>) -> Result<Self, CommandError> {
        let read = |argv: &[String]| {
            if argv.first().is_none_or(String::is_empty) {
                return Err(CommandError::Empty);
            }
            argv.iter().map(|arg| Pattern::read(arg)).collect::<Result<Vec<Pattern>, _>>()
        };
        Ok(Self::Other { first: read(first)?, again: again.map(read).transpose()? })
    }

    /// How its output is understood.
    #[must_use]
    pub const fn preset(&self) -> Preset {
        match self {
            Self::Claude { .. } => Preset::Claude,
            Self::Other { .. } => Preset::Other,
        }
    }

    /// The arguments of a run; `again` where the session has had one before, from the same directory.
    #[must_use]
    pub fn argv(&self, values: &Values<'_>, again: bool) -> Vec<String> {
        match self {
            Self::Claude { program, extra } => {
                let fixed = ["-p", "--output-format", "stream-json", "--verbose"].map(str::to_owned);
                let session = [if again { "--resume" } else { "--session-id" }.to_owned(), values.session.to_string()];
                [vec![program.clone()], fixed.to_vec(), session.to_vec(), extra.clone()].concat()
            }
            Self::Other { first, again: later } => {
                let patterns = later.as_ref().filter(|_| again).unwrap_or(first);
                patterns.iter().map(|pattern| pattern.fill(values)).collect()
            }
        }
    }
}

fn no_null(arg: &str) -> Result<(), CommandError> {
    if arg.contains('\0') { Err(CommandError::Null(arg.to_owned())) } else { Ok(()) }
}

impl Pattern {
    fn read(arg: &str) -> Result<Self, CommandError> {
        no_null(arg)?;
        let lonely = || CommandError::Brace(arg.to_owned());
        let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), arg.chars().peekable());
        while let Some(c) = rest.next() {
            match c {
                '{' if rest.next_if_eq(&'{').is_some() => text.push('{'),
                '}' if rest.next_if_eq(&'}').is_some() => text.push('}'),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match rest.next().ok_or_else(lonely)? {
                            '}' => break,
                            c => name.push(c),
                        }
                    }
                    let part = match name.as_str() {
                        "session" => Part::Session,
                        "branch" => Part::Branch,
                        "base" => Part::Base,
                        "number" => Part::Number,
                        "repo" => Part::Repo,
                        "attempt" => Part::Attempt,
                        _ => return Err(CommandError::Placeholder { arg: arg.to_owned(), name }),
                    };
                    parts.extend([Part::Text(std::mem::take(&mut text)), part]);
                }
                '}' => return Err(lonely()),
                c => text.push(c),
            }
        }
        parts.push(Part::Text(text));
        Ok(Self(parts))
    }

    fn fill(&self, values: &Values<'_>) -> String {
        let words = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Session => values.session.to_string(),
            Part::Branch => values.branch.to_string(),
            Part::Base => values.base.to_string(),
            Part::Number => values.number.to_string(),
            Part::Repo => values.repo.to_string(),
            Part::Attempt => values.attempt.to_string(),
        });
        words.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(args: &[&str]) -> Vec<String> {
        args.iter().map(|&arg| arg.to_owned()).collect()
    }

    fn argv(command: &AgentCommand, again: bool) -> Vec<String> {
        let values = Values {
            session: SessionId::from_random([7; 16]),
            repo: &"o/r".parse().expect("a repository"),
            number: 42,
            branch: &"issue-42-fix".parse().expect("a branch"),
            base: &"main".parse().expect("a branch"),
            attempt: 3,
        };
        command.argv(&values, again)
    }

    #[test]
    fn claude_is_given_a_session_and_goes_on_with_it() {
        let command = AgentCommand::claude("claude", list(&["--max-turns", "60"])).expect("a command");
        let id = "07070707-0707-4707-8707-070707070707";
        let of = |how: &str| {
            list(&["claude", "-p", "--output-format", "stream-json", "--verbose", how, id, "--max-turns", "60"])
        };
        assert_eq!(argv(&command, false), of("--session-id"));
        assert_eq!(argv(&command, true), of("--resume"));
    }

    #[test]
    fn what_would_make_claude_something_else_is_refused() {
        for arg in ["--resume", "--session-id=x", "-c", "--output-format=text", "-p", "--fork-session", "--bg"] {
            assert_eq!(AgentCommand::claude("claude", list(&[arg])), Err(CommandError::Ours(arg.to_owned())));
        }
        assert!(AgentCommand::claude("", vec![]).is_err() && AgentCommand::claude("claude", list(&["a\0"])).is_err());
    }

    #[test]
    fn placeholders_are_filled_and_braces_written_twice_are_braces() {
        let first = list(&["agent", "--id={session}", "{repo}#{number}", "{{\"a\": 1}}", "{branch}..{base}"]);
        let again = list(&["agent", "again", "{attempt}"]);
        let command = AgentCommand::other(&first, Some(&again)).expect("a command");
        let id = "07070707-0707-4707-8707-070707070707";
        let expected = list(&["agent", &format!("--id={id}"), "o/r#42", "{\"a\": 1}", "issue-42-fix..main"]);
        assert_eq!(argv(&command, false), expected);
        assert_eq!(argv(&command, true), list(&["agent", "again", "3"]));
        let command = AgentCommand::other(&first, None).expect("a command");
        assert_eq!(argv(&command, true), expected, "without a second one the first again");
    }

    #[test]
    fn i17_there_is_no_placeholder_for_text_of_an_issue() {
        for arg in ["{title}", "{body}", "{issue}", "{prompt}", "{comment}", "{}", "{session }", "{ branch}", "{0}"] {
            let error = AgentCommand::other(&list(&["agent", arg]), None);
            assert!(matches!(error, Err(CommandError::Placeholder { .. })), "{arg}: {error:?}");
        }
        for arg in ["{", "}", "{session", "a}b", "{{}", "{session}}"] {
            let error = AgentCommand::other(&list(&["agent", arg]), None);
            assert!(matches!(error, Err(CommandError::Brace(_))), "{arg}: {error:?}");
        }
        assert_eq!(AgentCommand::other(&[], None), Err(CommandError::Empty));
    }
}
