//! What became of what an old state file names. [pure]

use serde::Serialize;

use super::old::Old;

/// Who has the number now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its name, chosen by itself.
    pub(super) name: String,
    /// Whose it is.
    pub(super) user: Option<u32>,
    /// When it was born, seconds since 1970, as exact as the clock of this host.
    pub(super) born: i64,
}

/// What the daemon knows of the issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The file names no issue.
    Nothing,
    /// It was asked.
    Asked {
        /// Tasks of this number, and what each is at.
        tasks: Vec<(String, String)>,
        /// Its repositories.
        repos: Vec<String>,
    },
    /// It could not be asked.
    NotAsked(String),
}

/// What is told; its form is a promise to those who read `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) warnings: Vec<String>,
    pub(super) started_at: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) session: Option<String>,
    pub(super) process: Option<ProcessReport>,
    pub(super) issue: Option<IssueReport>,
    /// Always false: it is here so that nobody has to guess.
    pub(super) signalled: bool,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ProcessReport {
    pub(super) pid: u32,
    pub(super) fate: Fate,
    pub(super) says: String,
    pub(super) next: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// Nobody has the number.
    Gone,
    /// Who has it was born after the file was written: a stranger.
    Stranger,
    /// Who has it is older than the file, so it may be the agent: nothing proves it.
    Unknown,
}

/// The issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct IssueReport {
    pub(super) number: u64,
    pub(super) says: String,
    pub(super) next: String,
}

/// The clock of births and that of the file may differ by so much, seconds: the script wrote the file after the launch.
const SLACK: i64 = 2;

/// Tells what became of what the file names.
pub(super) fn judge(old: &Old, process: Option<Process>, known: &Known, warnings: Vec<String>) -> Report {
    Report {
        warnings,
        started_at: old.started.as_ref().map(|(_, text)| text.clone()),
        kind: old.kind.clone(),
        session: old.session.clone(),
        process: old.pid.map(|pid| fate(pid, old, process)),
        issue: old.issue.map(|number| issue(number, known)),
        signalled: false,
    }
}

fn fate(pid: u32, old: &Old, process: Option<Process>) -> ProcessReport {
    let told = |fate, says: String, next: &str| ProcessReport { pid, fate, says, next: next.to_owned() };
    let Some(process) = process else {
        return told(Fate::Gone, "nobody has this number any more".to_owned(), "Nothing is to be done for it.");
    };
    let user = process.user.map_or_else(|| "a user that is not told".to_owned(), |uid| format!("user {uid}"));
    let who = format!("{:?} of {user} has it now", process.name);
    if pid == 1 {
        let why = format!("{who}; it is the first process of this host and never was an agent");
        return told(Fate::Stranger, why, "Find out who wrote the file: the script never writes that.");
    }
    match &old.started {
        Some((written, _)) if process.born > written.saturating_add(SLACK) => told(
            Fate::Stranger,
            format!(
                "{who}, born {} s after the file was written: a stranger that got the number",
                process.born - written
            ),
            "Leave it alone; the agent itself has ended.",
        ),
        Some(_) => told(
            Fate::Unknown,
            format!("{who}, and it is older than the file: it may be the agent, which nothing here proves"),
            "Look at it yourself (`ps -fp PID`), and end it yourself before its issue is taken: agent-loop signals nobody \
             whom it did not launch.",
        ),
        None => told(
            Fate::Unknown,
            format!("{who}; the file does not say when it was written, so nothing can be told"),
            "Look at it yourself (`ps -fp PID`): agent-loop signals nobody whom it did not launch.",
        ),
    }
}

fn issue(number: u64, known: &Known) -> IssueReport {
    let told = |says: String, next: String| IssueReport { number, says, next };
    let label = "once its old agent has ended, give it the label of ready issues (State/Ready)";
    match known {
        Known::Asked { tasks, .. } if !tasks.is_empty() => {
            let all: Vec<String> = tasks.iter().map(|(issue, says)| format!("{issue}: {says}")).collect();
            told(format!("agent-loop works on {}", all.join("; ")), "See `agent-loop queue`.".to_owned())
        }
        Known::Asked { repos, .. } => match repos.as_slice() {
            [repo] => told(
                format!("agent-loop takes issues of {repo} and does not work on this one"),
                format!("If it is one of that repository: {label}, or `agent-loop start {repo}#{number}`."),
            ),
            _ => told(
                "agent-loop does not work on an issue of this number".to_owned(),
                format!("The file does not say of which repository it is: {label}."),
            ),
        },
        Known::NotAsked(why) => told(
            format!("whether agent-loop works on it is not known: {why}"),
            format!("Start `agent-loop serve`; {label}."),
        ),
        Known::Nothing => told("nothing is known of it".to_owned(), format!("If it is open: {label}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(pid: u32) -> Old {
        Old { pid: Some(pid), issue: Some(7), started: Some((1_000, "then".to_owned())), ..Old::default() }
    }

    fn born(at: i64) -> Option<Process> {
        Some(Process { name: "claude".to_owned(), user: Some(0), born: at })
    }

    fn fate_of(pid: u32, process: Option<Process>) -> Fate {
        judge(&old(pid), process, &Known::Nothing, Vec::new()).process.expect("it is named").fate
    }

    #[test]
    fn a_number_is_no_proof_whatever_its_name_says() {
        assert_eq!(fate_of(4_711, None), Fate::Gone);
        assert_eq!(fate_of(4_711, born(1_100)), Fate::Stranger, "called claude, and born later");
        assert_eq!(fate_of(4_711, born(900)), Fate::Unknown);
        assert_eq!(fate_of(4_711, born(1_001)), Fate::Unknown);
        assert_eq!(fate_of(1, born(1)), Fate::Stranger, "planted");
    }

    #[test]
    fn each_issue_has_a_next_step() {
        let asked = |tasks: &[(&str, &str)], repos: &[&str]| Known::Asked {
            tasks: tasks.iter().map(|(issue, says)| ((*issue).to_owned(), (*says).to_owned())).collect(),
            repos: repos.iter().map(|repo| (*repo).to_owned()).collect(),
        };
        let next = |known: &Known| judge(&old(9), None, known, Vec::new()).issue.expect("it is named").next;
        assert!(next(&asked(&[("o/r#7", "running")], &["o/r"])).contains("agent-loop queue"));
        assert!(next(&asked(&[], &["o/r"])).contains("agent-loop start o/r#7"));
        assert!(next(&asked(&[], &["o/r", "o/s"])).contains("does not say of which repository"));
        assert!(next(&Known::NotAsked("no daemon runs".to_owned())).contains("agent-loop serve"));
    }
}
