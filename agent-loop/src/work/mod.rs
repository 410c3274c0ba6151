//! From issue to verified merge: what is to be done next for an issue, as a function of what was seen. [pure]
//!
//! ```text
//! Eligible -> Preparing -> Running -> Exited -> Pushing(H) -> Opening(H) -> CiWait(H) -> MergeGate(H) -> Merging(H)
//!                ^            |          |                                     |  ^          |   ^          |   |
//!                |          stop       failed                failed, conflict  |  | new H'   |   | open     v   v
//!                +-- Backoff <-----------+<------------------------------------+--+----------+   +-- MergeUnknown(H)
//!                                        |                                     |                      |   merged
//!                     NeedsHuman <-------+  budget used up      CiMissing, CiApproval          Closing(H) <-+
//!                                                                                                 |
//!  any -> Superseded (a person or another host took it) -------------------> Cleaned <---------- Done
//! ```
//! Inside: the words, the verdict on checks, which issues are picked, the decision, the words that people read on the
//! forge. Not inside: a forge, git, a process, a clock. Called by the shell of the loop.
//!
//! A decision is `(task, seen, now, rules) -> (task, act)`, one act at a time. It rests only on what was read since the last
//! write; so a crash at any step, a lost answer and a person who acts meanwhile are all the same case: read, decide.

mod act;
mod ci;
mod comment;
mod decide;
mod pick;
mod rules;
mod seen;
mod task;
#[cfg(test)]
mod tests;
mod words;

pub use act::{Act, Kind, Need, Write};
pub use ci::{Accept, Check, Ci, CiRules, Required, Says, Verdict, verdict};
pub use comment::{marker, pull_request, read_marker, sentence as says, step as passed};
pub use decide::{Step, decide};
pub use pick::{Candidate, Order, Skip, pick};
pub use rules::{Budgets, Labels, Rules};
pub use seen::{Claim, Comment, Commits, Issue, Mark, Mergeable, Part, Pull, PullState, Reply, Run, RunEnd, Seen};
pub use task::{Gone, Head, Passed, Purpose, Spent, State, Status, Task, Why, Writing};
pub use words::{At, Branch, CommentId, IssueKey, NotAName, PullNumber, RepoName, Sha};
