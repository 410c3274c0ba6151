//! The proof that a pull request was merged. [pure]

use super::words::PullRequest;
use crate::work::{PullNumber, Sha};

/// Proof that a pull request was merged: it was read anew, and was merged, with the head that was asked for and a commit
/// on its base.
///
/// An issue is closed on nothing else (I16). Only [`super::Forge::merged`] makes one; none is read back from a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedProof {
    pull: PullNumber,
    head: Sha,
    commit: Sha,
}

/// What a new look at a pull request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeSeen {
    /// It was merged with the head that was asked for.
    Merged(MergedProof),
    /// It was not, or with another head, or without a commit that is named.
    NotProven(Box<PullRequest>),
}

impl MergedProof {
    /// Which pull request.
    #[must_use]
    pub const fn pull(&self) -> PullNumber {
        self.pull
    }

    /// The head that was merged.
    #[must_use]
    pub const fn head(&self) -> &Sha {
        &self.head
    }

    /// The commit on the base.
    #[must_use]
    pub const fn commit(&self) -> &Sha {
        &self.commit
    }

    /// A proof without a merge, for tests of what takes one.
    #[cfg(test)]
    pub(crate) const fn of_a_test(pull: PullNumber, head: Sha, commit: Sha) -> Self {
        Self { pull, head, commit }
    }
}

impl MergeSeen {
    /// Judges a pull request that was read just now.
    pub(super) fn judge(read: PullRequest, head: &Sha) -> Self {
        match &read.merge_commit {
            Some(commit) if read.merged && read.summary.head == *head => {
                Self::Merged(MergedProof { pull: read.summary.number, head: head.clone(), commit: commit.clone() })
            }
            Some(_) | None => Self::NotProven(Box::new(read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{At, MergeState, PullState, PullSummary};

    fn pull(merged: bool, head: char, commit: Option<char>) -> PullRequest {
        let sha = |digit: char| digit.to_string().repeat(40).parse().expect("a commit");
        PullRequest {
            summary: PullSummary {
                number: PullNumber(7),
                state: PullState::Closed,
                draft: false,
                head: sha(head),
                head_branch: "b".to_owned(),
                head_repository: None,
                base: "main".to_owned(),
                author: None,
                created: At(0),
                merged_at: None,
                url: String::new(),
            },
            merged,
            merged_by: None,
            merge_commit: commit.map(sha),
            mergeable: None,
            merge_state: MergeState::Unknown,
        }
    }

    #[test]
    fn i16_a_proof_needs_merged_this_head_and_a_commit() {
        let sha = |digit: char| digit.to_string().repeat(40).parse::<Sha>().expect("a commit");
        let proof = MergedProof::of_a_test(PullNumber(7), sha('a'), sha('c'));
        let seen = |read: PullRequest| MergeSeen::judge(read, &sha('a'));
        assert_eq!(seen(pull(true, 'a', Some('c'))), MergeSeen::Merged(proof));
        for not in [pull(false, 'a', Some('c')), pull(true, 'b', Some('c')), pull(true, 'a', None)] {
            assert_eq!(seen(not.clone()), MergeSeen::NotProven(Box::new(not)));
        }
    }
}
