//! The verdict on a commit: a function of its checks and of what is required, and of nothing else (I15). [pure]
//!
//! Explicit success only. What is absent, unknown, cancelled, waiting or skipped is not green.

use std::collections::BTreeMap;

/// What a check or a commit status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Queued, waiting for a machine, or running.
    Pending,
    /// Passed.
    Success,
    /// Said neither yes nor no.
    Neutral,
    /// Not run, by its own conditions.
    Skipped,
    /// Failed, timed out, or could not start.
    Failed,
    /// Ended by somebody before it could tell.
    Cancelled,
    /// The forge gave up on it.
    Stale,
    /// Waits for a person to let it run.
    Approval,
    /// A word that is not known here.
    Unknown(String),
}

/// A check run or a commit status on the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, as rules require it.
    pub name: String,
    /// Who made it: of two by the same one with the same name the later counts.
    pub source: String,
    /// Higher is later.
    pub order: u64,
    /// What it says.
    pub says: Says,
}

/// What the branch requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Required {
    /// It could not be read: then nothing is green.
    Unknown(String),
    /// These names; none is no requirement.
    Names(Vec<String>),
    /// A merge queue, which takes merges out of our hands.
    Queue,
}

/// Everything a verdict is a function of, for one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ci {
    /// Check runs and commit statuses.
    pub checks: Vec<Check>,
    /// Workflow runs that have started or wait, whether or not they have a check yet.
    pub workflows: u32,
    /// Whether one of them waits for a person's approval.
    pub approval: bool,
    /// What the forge requires on the base branch.
    pub required: Required,
}

/// What the operator wrote in `[ci]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CiRules {
    /// Required names, beside those of the forge.
    pub required: Vec<String>,
    /// Results beside success that a required check may have.
    pub accept: Vec<Accept>,
    /// Whether a repository without any CI is wanted: `expect = "none"`.
    pub expect_none: bool,
}

/// A result that counts as success where the operator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// `skipped`
    Skipped,
    /// `neutral`
    Neutral,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every required check passed, or without such at least one and no other said no.
    Green,
    /// These failed; nothing is running any more.
    Failed(Vec<String>),
    /// Something has yet to speak.
    Pending,
    /// Nothing has started.
    Missing,
    /// A person has to let it run.
    Approval,
    /// It will not become green by itself; why.
    Stuck(String),
    /// The branch has a merge queue.
    Queue,
}

/// Judges a commit.
#[must_use]
pub fn verdict(ci: &Ci, rules: &CiRules) -> Verdict {
    let forge = match &ci.required {
        Required::Queue => return Verdict::Queue,
        Required::Unknown(why) => return Verdict::Stuck(format!("the required checks are not known: {why}")),
        Required::Names(names) => names,
    };
    let mut required: Vec<&String> = forge.iter().chain(&rules.required).collect();
    required.sort_unstable();
    required.dedup();
    let latest = latest(&ci.checks);
    if latest.is_empty() && ci.workflows == 0 && !ci.approval {
        return if required.is_empty() && rules.expect_none { Verdict::Green } else { Verdict::Missing };
    }
    if ci.approval || latest.iter().any(|check| check.says == Says::Approval) {
        return Verdict::Approval;
    }
    if required.is_empty() { all(&latest, ci.workflows) } else { each(&required, &latest, &rules.accept) }
}

/// The latest check of each name and maker, by name.
fn latest(checks: &[Check]) -> Vec<&Check> {
    let mut latest: BTreeMap<(&str, &str), &Check> = BTreeMap::new();
    for check in checks {
        let held = latest.entry((&check.name, &check.source)).or_insert(check);
        if check.order >= held.order {
            *held = check;
        }
    }
    latest.into_values().collect()
}

/// With required names: each of them must be there and passed, by whoever made it.
fn each(required: &[&String], latest: &[&Check], accept: &[Accept]) -> Verdict {
    let mut failed = Vec::new();
    let mut stuck = None;
    let mut pending = false;
    for name in required {
        let of_name: Vec<&&Check> = latest.iter().filter(|check| check.name == **name).collect();
        pending |= of_name.is_empty();
        for check in of_name {
            match &check.says {
                Says::Success => {}
                Says::Skipped if accept.contains(&Accept::Skipped) => {}
                Says::Neutral if accept.contains(&Accept::Neutral) => {}
                Says::Pending => pending = true,
                Says::Failed => failed.push(check.name.clone()),
                other @ (Says::Skipped
                | Says::Neutral
                | Says::Cancelled
                | Says::Stale
                | Says::Approval
                | Says::Unknown(_)) => {
                    stuck.get_or_insert_with(|| format!("the required check {:?} {}", check.name, other.words()));
                }
            }
        }
    }
    // What fails without being required runs on all the same, and says nothing.
    conclude(failed, stuck, pending)
}

/// Without required names: at least one has passed, and none says no.
fn all(latest: &[&Check], workflows: u32) -> Verdict {
    let mut failed = Vec::new();
    let mut stuck = None;
    let mut pending = false;
    let mut passed = false;
    for check in latest {
        match &check.says {
            Says::Success => passed = true,
            Says::Skipped | Says::Neutral => {}
            Says::Pending => pending = true,
            Says::Failed => failed.push(check.name.clone()),
            other @ (Says::Cancelled | Says::Stale | Says::Approval | Says::Unknown(_)) => {
                stuck.get_or_insert_with(|| format!("the check {:?} {}", check.name, other.words()));
            }
        }
    }
    // A workflow without a check has yet to make one.
    pending |= latest.is_empty() && workflows > 0;
    if !passed && !pending && failed.is_empty() && stuck.is_none() {
        stuck = Some("every check was skipped or neutral, and none passed".to_owned());
    }
    conclude(failed, stuck, pending)
}

fn conclude(failed: Vec<String>, stuck: Option<String>, pending: bool) -> Verdict {
    match (pending, failed.is_empty(), stuck) {
        (true, _, _) => Verdict::Pending,
        (false, false, _) => Verdict::Failed(failed),
        (false, true, Some(why)) => Verdict::Stuck(why),
        (false, true, None) => Verdict::Green,
    }
}

impl Says {
    /// What it did, after "the check".
    fn words(&self) -> String {
        match self {
            Self::Pending => "has yet to end".to_owned(),
            Self::Success => "passed".to_owned(),
            Self::Neutral => "was neutral".to_owned(),
            Self::Skipped => "was skipped".to_owned(),
            Self::Failed => "failed".to_owned(),
            Self::Cancelled => "was cancelled".to_owned(),
            Self::Stale => "was given up by the forge".to_owned(),
            Self::Approval => "waits for an approval".to_owned(),
            Self::Unknown(word) => format!("says {word:?}, which is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, says: Says) -> Check {
        Check { name: name.to_owned(), source: "actions".to_owned(), order: 1, says }
    }

    fn ci(required: &[&str], checks: Vec<Check>) -> Ci {
        let required = Required::Names(required.iter().map(|&name| name.to_owned()).collect());
        Ci { workflows: u32::from(!checks.is_empty()), checks, approval: false, required }
    }

    fn judge(required: &[&str], checks: Vec<Check>) -> Verdict {
        verdict(&ci(required, checks), &CiRules::default())
    }

    const NOT_GREEN: [Says; 6] =
        [Says::Pending, Says::Neutral, Says::Skipped, Says::Failed, Says::Cancelled, Says::Stale];

    #[test]
    fn i15_a_required_check_is_green_by_success_alone() {
        assert_eq!(judge(&["test"], vec![check("test", Says::Success)]), Verdict::Green);
        let others = [Says::Approval, Says::Unknown("sunny".to_owned())];
        for result in NOT_GREEN.into_iter().chain(others) {
            let verdict = judge(&["test"], vec![check("test", result.clone()), check("lint", Says::Success)]);
            assert_ne!(verdict, Verdict::Green, "{result:?}");
        }
    }

    #[test]
    fn i15_no_check_is_not_green() {
        assert_eq!(judge(&[], vec![]), Verdict::Missing);
        assert_eq!(judge(&["test"], vec![]), Verdict::Missing);
        assert_eq!(judge(&["test"], vec![check("lint", Says::Success)]), Verdict::Pending, "one that is absent");
        let expect_none = CiRules { expect_none: true, ..CiRules::default() };
        assert_eq!(verdict(&ci(&[], vec![]), &expect_none), Verdict::Green, "the operator says that there is none");
        assert_eq!(verdict(&ci(&["test"], vec![]), &expect_none), Verdict::Missing, "and the forge that there is");
        let failed = ci(&[], vec![check("surprise", Says::Failed)]);
        assert_eq!(verdict(&failed, &expect_none), Verdict::Failed(vec!["surprise".to_owned()]));
    }

    #[test]
    fn i15_without_requirements_one_has_passed_and_none_says_no() {
        let with = |result| judge(&[], vec![check("a", Says::Success), check("b", result)]);
        assert_eq!((with(Says::Skipped), with(Says::Neutral)), (Verdict::Green, Verdict::Green));
        for result in [Says::Pending, Says::Failed, Says::Cancelled, Says::Stale, Says::Unknown(String::new())] {
            assert_ne!(with(result.clone()), Verdict::Green, "{result:?}");
        }
        assert!(matches!(judge(&[], vec![check("a", Says::Skipped)]), Verdict::Stuck(_)));
    }

    #[test]
    fn requirements_that_are_not_known_make_nothing_green() {
        let mut ci = ci(&[], vec![check("a", Says::Success)]);
        ci.required = Required::Unknown("403".to_owned());
        assert!(matches!(verdict(&ci, &CiRules::default()), Verdict::Stuck(_)));
        ci.required = Required::Queue;
        assert_eq!(verdict(&ci, &CiRules::default()), Verdict::Queue);
    }

    #[test]
    fn the_latest_of_a_name_counts_and_two_makers_of_one_name_both_do() {
        let run = |order, result| Check { order, ..check("test", result) };
        assert_eq!(judge(&["test"], vec![run(2, Says::Success), run(1, Says::Failed)]), Verdict::Green);
        assert_ne!(judge(&["test"], vec![run(1, Says::Success), run(2, Says::Failed)]), Verdict::Green);
        let status = Check { source: "status".to_owned(), ..run(1, Says::Pending) };
        assert_eq!(judge(&["test"], vec![run(2, Says::Success), status]), Verdict::Pending);
    }

    #[test]
    fn a_failure_is_told_when_nothing_runs_any_more() {
        let checks = |last| vec![check("a", Says::Failed), check("b", Says::Failed), check("c", last)];
        assert_eq!(judge(&[], checks(Says::Pending)), Verdict::Pending);
        assert_eq!(judge(&[], checks(Says::Cancelled)), Verdict::Failed(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(judge(&["a"], checks(Says::Pending)), Verdict::Failed(vec!["a".to_owned()]), "c is not required");
    }

    #[test]
    fn what_waits_for_a_person_is_neither_missing_nor_green() {
        let mut waiting = ci(&["test"], vec![]);
        waiting.approval = true;
        assert_eq!(verdict(&waiting, &CiRules::default()), Verdict::Approval);
        waiting.checks = vec![check("test", Says::Success)];
        assert_eq!(verdict(&waiting, &CiRules::default()), Verdict::Approval);
    }

    #[test]
    fn an_accepted_result_counts_where_the_operator_says_so() {
        let skipped = ci(&["test"], vec![check("test", Says::Skipped)]);
        let rules = |accept| CiRules { accept, ..CiRules::default() };
        assert_eq!(verdict(&skipped, &rules(vec![Accept::Skipped])), Verdict::Green);
        assert!(matches!(verdict(&skipped, &rules(vec![Accept::Neutral])), Verdict::Stuck(_)));
        let cancelled = ci(&["test"], vec![check("test", Says::Cancelled)]);
        assert!(matches!(verdict(&cancelled, &rules(vec![Accept::Skipped, Accept::Neutral])), Verdict::Stuck(_)));
    }
}
