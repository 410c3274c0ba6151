//! What an operator lets the loop do in one repository. [pure]

use super::ci::CiRules;

/// The rules of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The names of labels.
    pub labels: Labels,
    /// How often things may fail.
    pub budgets: Budgets,
    /// What is green.
    pub ci: CiRules,
    /// How long a head may have no check before it counts as missing, seconds.
    pub ci_start_grace: u64,
    /// How long the checks of a head may take, seconds.
    pub ci_timeout: u64,
    /// Whether we merge; else a person does.
    pub merge: bool,
    /// Whether the branch is deleted after the merge.
    pub delete_branch: bool,
    /// How often the forge is looked at, seconds.
    pub poll: u64,
    /// How old a claim of ours may get before it is renewed, seconds.
    pub claim_renew: u64,
    /// How old the claim of another host has to be before it is taken over, seconds.
    pub claim_stale: u64,
    /// The first wait after a failure, seconds; it doubles with each.
    pub backoff: u64,
    /// The longest wait after a failure, seconds.
    pub backoff_most: u64,
}

/// The names of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// An issue to be worked on.
    pub ready: String,
    /// One that is being worked on.
    pub in_progress: String,
    /// One that a person has to look at.
    pub question: String,
}

/// How often things may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Runs that do not succeed.
    pub failures: u32,
    /// Failures of this host or its network in a row.
    pub host: u32,
    /// Runs to mend checks.
    pub check_fixes: u32,
    /// Runs to mend conflicts.
    pub conflict_fixes: u32,
    /// Merges asked for.
    pub merges: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            labels: Labels::default(),
            budgets: Budgets { failures: 3, host: 8, check_fixes: 3, conflict_fixes: 2, merges: 3 },
            ci: CiRules::default(),
            ci_start_grace: 900,
            ci_timeout: 7_200,
            merge: true,
            delete_branch: true,
            poll: 60,
            claim_renew: 600,
            claim_stale: 3_600,
            backoff: 30,
            backoff_most: 3_600,
        }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            ready: "State/Ready".to_owned(),
            in_progress: "State/InProgress".to_owned(),
            question: "State/Question".to_owned(),
        }
    }
}
