//! From the words of a forge to those that decisions rest on. [pure]
//!
//! A word that is not known becomes one that nothing is decided by: never green, never merged, never closed.

use std::collections::BTreeSet;

use crate::forge::{
    self, CheckRun, CheckStatus, CommitStatus, Conclusion, IssueState, MergeState, PullRequest, PullState,
    Requirements, StatusState, WorkflowRun,
};
use crate::work::{self, Check, Ci, IssueKey, Mergeable, Required, Says, Sha};

/// An issue; `None` where its state is a word that is not known.
pub(super) fn issue(it: &forge::Issue) -> Option<work::Issue> {
    let open = match it.state {
        IssueState::Open => true,
        IssueState::Closed => false,
        IssueState::Other(_) => return None,
    };
    Some(work::Issue { open, labels: it.labels.clone() })
}

/// Our own comments on an issue, lowest id first: by our login, with a marker of ours.
pub(super) fn comments(all: &[forge::Comment], us: &forge::Identity, key: &IssueKey) -> Vec<work::Comment> {
    let ours = |it: &&forge::Comment| match (us.app, it.app) {
        (Some(ours), Some(app)) => ours == app,
        (Some(_), None) | (None, _) => it.author.as_ref() == Some(&us.login),
    };
    let read = |it: &forge::Comment| {
        let (mark, digest) = work::read_marker(key, &it.text)?;
        Some(work::Comment { id: it.id, mark, digest })
    };
    let mut comments: Vec<work::Comment> = all.iter().filter(ours).filter_map(read).collect();
    comments.sort_by_key(|comment| comment.id);
    comments
}

/// A pull request that is open.
pub(super) fn open_pull(it: &PullRequest) -> Option<work::Pull> {
    if it.summary.state != PullState::Open {
        return None;
    }
    Some(work::Pull {
        number: it.summary.number,
        state: work::PullState::Open,
        head: it.summary.head.clone(),
        base: it.summary.base.parse().ok()?,
        draft: it.summary.draft,
        mergeable: mergeable(it.mergeable, &it.merge_state),
    })
}

const fn mergeable(can: Option<bool>, state: &MergeState) -> Mergeable {
    match (state, can) {
        (MergeState::Dirty, _) => Mergeable::Conflict,
        (MergeState::Behind, _) => Mergeable::Behind,
        (MergeState::Blocked, _) => Mergeable::Blocked,
        (
            MergeState::Clean
            | MergeState::HasHooks
            | MergeState::Unstable
            | MergeState::Draft
            | MergeState::Unknown
            | MergeState::Other(_),
            Some(false),
        ) => Mergeable::Conflict,
        (MergeState::Clean | MergeState::HasHooks | MergeState::Unstable | MergeState::Draft, Some(true)) => {
            Mergeable::Yes
        }
        (
            MergeState::Clean
            | MergeState::HasHooks
            | MergeState::Unstable
            | MergeState::Draft
            | MergeState::Unknown
            | MergeState::Other(_),
            Some(true) | None,
        ) => Mergeable::Unknown,
    }
}

/// What is known of the checks of a commit.
pub(super) fn ci(
    head: &Sha,
    runs: &[CheckRun],
    statuses: &[CommitStatus],
    workflows: &[WorkflowRun],
    requirements: &Result<Requirements, String>,
) -> Ci {
    let mut checks: Vec<Check> = Vec::new();
    let (required, of_app) = match requirements {
        Ok(requirements) => required(requirements),
        Err(why) => (Required::Unknown(why.clone()), BTreeSet::new()),
    };
    for run in runs.iter().filter(|run| run.head == *head) {
        let app = run.app.as_ref().map(|(id, _)| *id);
        let source = app.map_or_else(|| "check".to_owned(), |id| format!("check of app {id}"));
        let check = |name: String| Check { name, source: source.clone(), order: run.id, says: says(run) };
        checks.push(check(run.name.clone()));
        // Required of one app: whoever else makes a check of that name does not count for it.
        if let Some(app) = app
            && of_app.contains(&(run.name.clone(), app))
        {
            checks.push(check(by_app(&run.name, app)));
        }
    }
    for status in statuses {
        let says = match &status.state {
            StatusState::Success => Says::Success,
            StatusState::Pending => Says::Pending,
            StatusState::Failure | StatusState::Error => Says::Failed,
            StatusState::Other(word) => Says::Unknown(word.clone()),
        };
        checks.push(Check { name: status.context.clone(), source: "status".to_owned(), order: status.id, says });
    }
    let of_head = workflows.iter().filter(|run| run.head == *head);
    Ci {
        checks,
        workflows: u32::try_from(of_head.clone().count()).unwrap_or(u32::MAX),
        approval: of_head.clone().any(WorkflowRun::waits_for_a_person),
        required,
    }
}

fn by_app(name: &str, app: u64) -> String {
    format!("{name} (of app {app})")
}

/// The names that are required, and those of them that one app has to make.
fn required(it: &Requirements) -> (Required, BTreeSet<(String, u64)>) {
    if it.merge_queue {
        return (Required::Queue, BTreeSet::new());
    }
    if it.hidden {
        let why = "the branch is protected, and this token is not told which checks that requires".to_owned();
        return (Required::Unknown(why), BTreeSet::new());
    }
    if !it.unknown.is_empty() {
        let why = format!("rules of kinds that are not known: {}", it.unknown.join(", "));
        return (Required::Unknown(why), BTreeSet::new());
    }
    let name = |check: &forge::RequiredCheck| match check.app {
        Some(app) => by_app(&check.name, app),
        None => check.name.clone(),
    };
    let of_app = it.checks.iter().filter_map(|check| Some((check.name.clone(), check.app?))).collect();
    (Required::Names(it.checks.iter().map(name).collect()), of_app)
}

fn says(run: &CheckRun) -> Says {
    match &run.status {
        CheckStatus::Queued | CheckStatus::InProgress | CheckStatus::Requested | CheckStatus::Pending => Says::Pending,
        CheckStatus::Waiting => Says::Approval,
        CheckStatus::Other(word) => Says::Unknown(word.clone()),
        CheckStatus::Completed | CheckStatus::Untold => match &run.conclusion {
            None => Says::Unknown("it has no conclusion".to_owned()),
            Some(Conclusion::Success) => Says::Success,
            Some(Conclusion::Failure | Conclusion::TimedOut | Conclusion::StartupFailure) => Says::Failed,
            Some(Conclusion::Neutral) => Says::Neutral,
            Some(Conclusion::Cancelled) => Says::Cancelled,
            Some(Conclusion::Skipped) => Says::Skipped,
            Some(Conclusion::ActionRequired) => Says::Approval,
            Some(Conclusion::Stale) => Says::Stale,
            Some(Conclusion::Other(word)) => Says::Unknown(word.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::RequiredCheck;
    use crate::work::{At, CiRules, Verdict, verdict};

    fn sha(digit: char) -> Sha {
        digit.to_string().repeat(40).parse().expect("a commit")
    }

    fn run(name: &str, app: Option<u64>, status: CheckStatus, conclusion: Option<Conclusion>) -> CheckRun {
        CheckRun {
            id: 1,
            name: name.to_owned(),
            app: app.map(|id| (id, "app".to_owned())),
            head: sha('a'),
            status,
            conclusion,
            started: None,
            completed: None,
            url: None,
        }
    }

    fn judged(runs: &[CheckRun], requirements: &Result<Requirements, String>) -> Verdict {
        verdict(&ci(&sha('a'), runs, &[], &[], requirements), &CiRules::default())
    }

    fn needs(checks: Vec<RequiredCheck>) -> Result<Requirements, String> {
        Ok(Requirements { checks, ..Requirements::default() })
    }

    #[test]
    fn only_completed_success_of_this_commit_is_green() {
        let none = needs(vec![]);
        let done = CheckStatus::Completed;
        assert_eq!(judged(&[run("t", None, done.clone(), Some(Conclusion::Success))], &none), Verdict::Green);
        let mut other = run("t", None, done.clone(), Some(Conclusion::Success));
        other.head = sha('b');
        assert_ne!(judged(&[other], &none), Verdict::Green, "the check of another commit");
        for conclusion in [
            None,
            Some(Conclusion::Failure),
            Some(Conclusion::Neutral),
            Some(Conclusion::Cancelled),
            Some(Conclusion::Skipped),
            Some(Conclusion::TimedOut),
            Some(Conclusion::ActionRequired),
            Some(Conclusion::Stale),
            Some(Conclusion::StartupFailure),
            Some(Conclusion::Other("passed".to_owned())),
        ] {
            assert_ne!(
                judged(&[run("t", None, done.clone(), conclusion.clone())], &none),
                Verdict::Green,
                "{conclusion:?}"
            );
        }
        for status in [CheckStatus::Queued, CheckStatus::Waiting, CheckStatus::Other("done".to_owned())] {
            assert_ne!(
                judged(&[run("t", None, status.clone(), Some(Conclusion::Success))], &none),
                Verdict::Green,
                "{status:?}"
            );
        }
    }

    #[test]
    fn a_check_that_one_app_has_to_make_counts_from_that_app_alone() {
        let required = needs(vec![RequiredCheck { name: "t".to_owned(), app: Some(7) }]);
        let by = |app| run("t", app, CheckStatus::Completed, Some(Conclusion::Success));
        assert_eq!(judged(&[by(Some(7))], &required), Verdict::Green);
        assert_ne!(judged(&[by(Some(8))], &required), Verdict::Green);
        assert_ne!(judged(&[by(None)], &required), Verdict::Green);
    }

    #[test]
    fn what_a_branch_requires_and_is_not_told_makes_nothing_green() {
        let good = [run("t", None, CheckStatus::Completed, Some(Conclusion::Success))];
        let hidden = Ok(Requirements { hidden: true, ..Requirements::default() });
        let unknown = Ok(Requirements { unknown: vec!["new_rule".to_owned()], ..Requirements::default() });
        for requirements in [hidden, unknown, Err("403".to_owned())] {
            assert!(matches!(judged(&good, &requirements), Verdict::Stuck(_)), "{requirements:?}");
        }
        let queue = Ok(Requirements { merge_queue: true, ..Requirements::default() });
        assert_eq!(judged(&good, &queue), Verdict::Queue);
    }

    #[test]
    fn a_comment_is_ours_by_its_author_and_its_marker() {
        let key: IssueKey = "o/r#7".parse().expect("an issue");
        let comment = |id, author: &str, text: &str| forge::Comment {
            id: work::CommentId(id),
            author: Some(forge::Login(author.to_owned())),
            app: None,
            text: text.to_owned(),
            created: At(0),
            updated: At(0),
        };
        let marked = format!("{}\nhello", work::marker(&key, &work::Mark::Status, "00"));
        let us = forge::Identity { login: forge::Login("bot".to_owned()), app: None, scopes: forge::Scopes::Untold };
        let all = [
            comment(9, "Bot", &marked),
            comment(3, "bot", &marked),
            comment(2, "mallory", &marked),
            comment(1, "bot", "hello"),
        ];
        let ids: Vec<u64> = comments(&all, &us, &key).iter().map(|comment| comment.id.0).collect();
        assert_eq!(ids, [3, 9], "the lowest first, and neither another's nor one without a marker");
    }

    #[test]
    fn a_merge_state_that_is_not_known_is_not_yes() {
        for (state, can, expected) in [
            (MergeState::Clean, Some(true), Mergeable::Yes),
            (MergeState::Unstable, Some(true), Mergeable::Yes),
            (MergeState::Clean, None, Mergeable::Unknown),
            (MergeState::Unknown, Some(true), Mergeable::Unknown),
            (MergeState::Other("odd".to_owned()), Some(true), Mergeable::Unknown),
            (MergeState::Unknown, Some(false), Mergeable::Conflict),
            (MergeState::Dirty, None, Mergeable::Conflict),
            (MergeState::Behind, Some(true), Mergeable::Behind),
            (MergeState::Blocked, Some(true), Mergeable::Blocked),
        ] {
            assert_eq!(mergeable(can, &state), expected, "{state:?} {can:?}");
        }
    }
}
