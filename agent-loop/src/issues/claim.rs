//! The commit that a claim on an issue points at: who holds it, in words for people and for other hosts. [pure]

use crate::forge::Commit;
use crate::work::{At, Claim, IssueKey, Sha};

/// Who we are to other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The name of this host, for people.
    pub(super) host: String,
    /// What this daemon's state is known by: random, made once.
    pub(super) instance: String,
}

const TITLE: &str = "agent-loop: a claim on an issue";
const RELEASED: &str = "agent-loop: a claim that was given up";
/// The most commits that a claim names.
const HEADS: usize = 4;

impl Holder {
    /// The message of a claim, with the commits that its branch may be at by what was pushed under it.
    pub(super) fn claim(&self, key: &IssueKey, heads: &[Sha]) -> String {
        let heads: Vec<&str> = heads.iter().take(HEADS).map(Sha::as_str).collect();
        let heads = if heads.is_empty() { String::new() } else { format!("heads: {}\n", heads.join(" ")) };
        format!("{TITLE}\n\nissue: {key}\nhost: {}\ninstance: {}\n{heads}", plain(&self.host), self.instance)
    }

    /// The message of a claim that is given up, before its ref goes.
    pub(super) fn release(&self, key: &IssueKey) -> String {
        format!("{RELEASED}\n\nissue: {key}\nhost: {}\ninstance: {}\n", plain(&self.host), self.instance)
    }

    /// Whose a claim is, by its commit. What is not understood is another host's, as old as its commit says.
    pub(super) fn read(&self, key: &IssueKey, commit: &Commit) -> Claim {
        let at = commit.id.clone();
        let field = |name: &str| {
            let value = commit.message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().to_owned()
        };
        let title = commit.message.lines().next().unwrap_or_default();
        let of_issue = field("issue") == key.to_string();
        if title == RELEASED && of_issue {
            // Whoever wants it may have it; its ref is about to go.
            return Claim::Theirs { at, host: "nobody: given up".to_owned(), time: At(i64::MIN), heads: Vec::new() };
        }
        let time = commit.committed;
        let named = title == TITLE && of_issue;
        let heads = field("heads");
        let heads = heads.split(' ').take(HEADS).filter_map(|head| head.parse().ok()).filter(|_| named).collect();
        if named && field("instance") == self.instance {
            return Claim::Ours { at, time, heads };
        }
        Claim::Theirs { at, host: field("host").chars().take(100).collect(), time, heads }
    }
}

fn plain(host: &str) -> String {
    host.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(instance: &str) -> Holder {
        Holder { host: "build-1\nissue: o/r#8".to_owned(), instance: instance.to_owned() }
    }

    #[test]
    fn a_claim_is_ours_by_its_instance_and_its_issue() {
        let key: IssueKey = "o/r#7".parse().expect("an issue");
        let commit = |message: String| Commit {
            id: "a".repeat(40).parse().expect("a commit"),
            tree: "b".repeat(40).parse().expect("a tree"),
            parents: Vec::new(),
            message,
            committed: At(5),
        };
        let ours = holder("aa");
        assert!(matches!(ours.read(&key, &commit(ours.claim(&key, &[]))), Claim::Ours { time: At(5), .. }));
        let theirs = holder("bb").claim(&key, &[]);
        assert!(matches!(ours.read(&key, &commit(theirs)), Claim::Theirs { time: At(5), .. }));
        let other = ours.claim(&"o/r#8".parse().expect("an issue"), &[]);
        assert!(matches!(ours.read(&key, &commit(other)), Claim::Theirs { .. }), "a host's name says no issue");
        for odd in ["", "agent-loop", "issue: o/r#7\ninstance: aa"] {
            assert!(matches!(ours.read(&key, &commit(odd.to_owned())), Claim::Theirs { time: At(5), .. }), "{odd:?}");
        }
        let heads = ['1', '2'].map(|digit| digit.to_string().repeat(40).parse::<Sha>().expect("a commit"));
        let named = |claim: Claim| match claim {
            Claim::Ours { heads, .. } | Claim::Theirs { heads, .. } => heads,
            Claim::Free => panic!("it is held"),
        };
        assert_eq!(named(ours.read(&key, &commit(ours.claim(&key, &heads)))), heads);
        assert_eq!(named(ours.read(&key, &commit(holder("bb").claim(&key, &heads)))), heads);
        let elsewhere = ours.claim(&"o/r#8".parse().expect("an issue"), &heads);
        assert_eq!(named(ours.read(&key, &commit(elsewhere))), [], "of another issue");
        let odd = format!("{}heads: --upload-pack=x {} main\n", ours.claim(&key, &[]), heads[0]);
        assert_eq!(named(ours.read(&key, &commit(odd))), [heads[0].clone()], "what is no commit is left out");
        let released = ours.read(&key, &commit(ours.release(&key)));
        assert!(matches!(released, Claim::Theirs { time: At(i64::MIN), .. }));
    }
}
