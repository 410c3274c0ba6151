//! Which issues are taken, and in which order. [pure]

use std::collections::BTreeSet;

use super::words::{At, IssueKey};

/// An open issue as the forge lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub key: IssueKey,
    /// Its labels.
    pub labels: Vec<String>,
    /// Who wrote it.
    pub author: String,
    /// Who set the label of ready issues, where that is known.
    pub labeller: Option<String>,
    /// When it was written.
    pub created: At,
    /// Whether it is a pull request: a forge lists those too.
    pub is_pull: bool,
}

/// What is taken in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The label of ready issues.
    pub ready: String,
    /// Labels that keep an issue from being taken: work in progress, a question.
    pub not: Vec<String>,
    /// Labels that go first, the first of them first.
    pub priority: Vec<String>,
    /// Whose issues, or whose label, count.
    pub allowed: Vec<String>,
}

/// Why an issue is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// It is a pull request.
    Pull,
    /// It does not have the label.
    NotReady,
    /// It has a label that keeps it.
    Kept,
    /// Neither its author nor who labelled it is on the list.
    NotAllowed,
    /// It is a task already.
    Known,
}

/// The issues to be taken, in their order: priority, then age, then number.
///
/// Beside them those that are not, and why.
#[must_use]
pub fn pick(
    candidates: Vec<Candidate>,
    order: &Order,
    known: &BTreeSet<IssueKey>,
) -> (Vec<Candidate>, Vec<(IssueKey, Skip)>) {
    let mut taken = Vec::new();
    let mut skipped = Vec::new();
    for candidate in candidates {
        match skip(&candidate, order, known) {
            Some(why) => skipped.push((candidate.key, why)),
            None => taken.push(candidate),
        }
    }
    taken.sort_by_key(|it| (rank(it, order), it.created, it.key.clone()));
    // A list that is read page by page while it changes may name one twice.
    taken.dedup_by(|one, other| one.key == other.key);
    (taken, skipped)
}

fn skip(candidate: &Candidate, order: &Order, known: &BTreeSet<IssueKey>) -> Option<Skip> {
    let has = |label: &String| candidate.labels.contains(label);
    // Logins differ in case alone nowhere; nothing else is compared loosely.
    let allowed = |login: &str| order.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(login));
    if candidate.is_pull {
        Some(Skip::Pull)
    } else if known.contains(&candidate.key) {
        Some(Skip::Known)
    } else if !has(&order.ready) {
        Some(Skip::NotReady)
    } else if order.not.iter().any(has) {
        Some(Skip::Kept)
    } else if !allowed(&candidate.author) && !candidate.labeller.as_deref().is_some_and(allowed) {
        Some(Skip::NotAllowed)
    } else {
        None
    }
}

fn rank(candidate: &Candidate, order: &Order) -> usize {
    order.priority.iter().position(|label| candidate.labels.contains(label)).unwrap_or(order.priority.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u64, labels: &[&str], created: i64) -> Candidate {
        Candidate {
            key: format!("o/r#{number}").parse().expect("an issue"),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            author: "alice".to_owned(),
            labeller: None,
            created: At(created),
            is_pull: false,
        }
    }

    fn order() -> Order {
        Order {
            ready: "Ready".to_owned(),
            not: vec!["Question".to_owned()],
            priority: vec!["High".to_owned(), "Low".to_owned()],
            allowed: vec!["Alice".to_owned()],
        }
    }

    fn numbers(candidates: Vec<Candidate>, known: &[&str]) -> (Vec<u64>, Vec<Skip>) {
        let known = known.iter().map(|key| key.parse().expect("an issue")).collect();
        let (taken, skipped) = pick(candidates, &order(), &known);
        (taken.iter().map(|it| it.key.number).collect(), skipped.into_iter().map(|(_, why)| why).collect())
    }

    #[test]
    fn priority_comes_before_age_and_age_before_number() {
        let list = vec![
            candidate(1, &["Ready"], 50),
            candidate(2, &["Ready"], 10),
            candidate(3, &["Ready", "Low"], 90),
            candidate(4, &["Ready", "High", "Low"], 99),
            candidate(6, &["Ready"], 10),
            candidate(5, &["Ready"], 10),
        ];
        assert_eq!(numbers(list, &[]).0, [4, 3, 2, 5, 6, 1]);
    }

    #[test]
    fn what_is_not_to_be_taken_is_told_why() {
        let stranger = |labeller: Option<&str>| Candidate {
            author: "mallory".to_owned(),
            labeller: labeller.map(str::to_owned),
            ..candidate(5, &["Ready"], 1)
        };
        let list = vec![
            Candidate { is_pull: true, ..candidate(1, &["Ready"], 1) },
            candidate(2, &["Other"], 1),
            candidate(3, &["Ready", "Question"], 1),
            candidate(4, &["Ready"], 1),
            stranger(None),
            stranger(Some("mallory")),
        ];
        let why = [Skip::Pull, Skip::NotReady, Skip::Kept, Skip::Known, Skip::NotAllowed, Skip::NotAllowed];
        assert_eq!(numbers(list, &["o/r#4"]), (vec![], why.to_vec()));
        assert_eq!(numbers(vec![stranger(Some("alice"))], &[]).0, [5], "who may sets the label");
    }

    #[test]
    fn an_issue_that_is_listed_twice_is_taken_once() {
        assert_eq!(numbers(vec![candidate(1, &["Ready"], 1), candidate(1, &["Ready"], 1)], &[]).0, [1]);
    }
}
