//! A forge and hosts that remember: what reads return and writes do, with answers that get lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::forge::MergedProof;
use crate::work::*;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done and answered.
    Answered,
    /// It is done, and the answer is lost.
    DoneUnheard,
    /// It never arrives, and nobody knows.
    Lost,
    /// It is not done, for a limit of the forge.
    Limited,
    /// The daemon ends before it, after its intent.
    CrashBefore,
    /// The daemon ends right after it.
    CrashAfter,
}

/// A pull request of the shadow.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) open: bool,
    pub(super) head: Sha,
    pub(super) merged: Option<Sha>,
    pub(super) mergeable: Mergeable,
}

/// One host: its tasks, what it has seen, and its runs by attempt.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) task: Task,
    pub(super) seen: Seen,
    pub(super) runs: BTreeMap<u32, Run>,
    /// What the agent has committed in its clone.
    pub(super) commit: Option<Sha>,
    /// The kinds written since they were last read.
    unread: BTreeSet<String>,
    /// Acts since the last wait.
    pub(super) busy: u32,
}

/// The world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: At,
    pub(super) rules: Rules,
    pub(super) open: bool,
    pub(super) labels: BTreeSet<String>,
    /// Which commit, whose, when, and the commits that it names.
    pub(super) claim: Option<(Sha, &'static str, At, Vec<Sha>)>,
    pub(super) remote: Option<Sha>,
    pub(super) requests: Vec<Request>,
    pub(super) checks: BTreeMap<Sha, Ci>,
    pub(super) comments: Vec<Comment>,
    /// Every comment that was ever made.
    pub(super) made: Vec<Mark>,
    pub(super) closes: u32,
    pub(super) merges: Vec<(u64, Sha)>,
    /// Heads that a decision has read as green.
    green: BTreeSet<Sha>,
    numbers: u64,
}

pub(super) fn key() -> IssueKey {
    "o/r#42".parse().expect("an issue")
}

pub(super) fn says(name: &str, says: Says) -> Check {
    Check { name: name.to_owned(), source: "actions".to_owned(), order: 1, says }
}

impl Host {
    pub(super) fn new(name: &'static str) -> Self {
        let branch = "issue-42-fix".parse().expect("a branch");
        let base = "main".parse().expect("a branch");
        Self {
            name,
            task: Task::new(key(), branch, base),
            seen: Seen::default(),
            runs: BTreeMap::new(),
            commit: None,
            unread: BTreeSet::new(),
            busy: 0,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.runs.values().any(|run| matches!(run, Run::Alive | Run::Unproven))
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: At(1_800_000_000),
            rules: Rules::default(),
            open: true,
            labels: ["State/Ready".to_owned()].into(),
            claim: None,
            remote: None,
            requests: Vec::new(),
            checks: BTreeMap::new(),
            comments: Vec::new(),
            made: Vec::new(),
            closes: 0,
            merges: Vec::new(),
            green: BTreeSet::new(),
            numbers: 0,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn commit(&mut self) -> Sha {
        format!("{:040x}", self.number()).parse().expect("a commit")
    }

    /// The checks of a commit, by default with one that has yet to end.
    pub(super) fn ci(&mut self, head: &Sha) -> &mut Ci {
        self.checks.entry(head.clone()).or_insert_with(|| Ci {
            checks: vec![says("test", Says::Pending)],
            workflows: 1,
            approval: false,
            required: Required::Names(vec!["test".to_owned()]),
        })
    }

    /// One decision of a host and what comes of it; `others` has an agent on the same issue.
    pub(super) fn step(&mut self, host: &mut Host, others: bool, fate: Fate) -> Act {
        let Step { task, act } = decide(&host.task, &host.seen, self.now, &self.rules);
        host.task = task;
        host.busy += 1;
        assert!(host.busy < 200, "it goes round and round: {:?}: {act:?}", host.task.state);
        match &act {
            Act::Read(need) => self.read(host, need),
            Act::Wait(until) => {
                assert!(*until > self.now, "a wait that is none");
                self.now = (*until).min(self.now.after(600));
                host.seen.forget();
                host.unread.clear();
                host.busy = 0;
            }
            Act::Forget => host.seen.forget(),
            Act::Rest => host.busy = 0,
            Act::Write(write) => self.written(host, write, others, fate),
        }
        act
    }

    fn written(&mut self, host: &mut Host, write: &Write, others: bool, fate: Fate) {
        self.check(host, write, others);
        let kind = write.kind();
        let step = host.task.step;
        let local = matches!(kind, Kind::Prepare | Kind::Launch | Kind::Stop | Kind::Clean);
        let doubt = || Reply::Doubt("no answer".to_owned());
        host.unread.insert(format!("{kind:?}"));
        match fate {
            Fate::CrashBefore => host.seen = Seen::default(),
            Fate::CrashAfter => {
                let _ = self.perform(host, write);
                host.seen = Seen::default();
            }
            Fate::Limited if !local => host.seen.written(kind, step, Reply::Limited(self.now.after(60))),
            Fate::Lost if !local => host.seen.written(kind, step, doubt()),
            Fate::DoneUnheard if !local => {
                let _ = self.perform(host, write);
                host.seen.written(kind, step, doubt());
            }
            Fate::Answered | Fate::Limited | Fate::Lost | Fate::DoneUnheard => {
                let reply = self.perform(host, write);
                host.seen.written(kind, step, reply);
            }
        }
    }

    /// What must hold at each write.
    fn check(&self, host: &Host, write: &Write, others: bool) {
        let kind = format!("{:?}", write.kind());
        // What is made on this host begins anew each time.
        let anew = matches!(write.kind(), Kind::Prepare | Kind::Clean);
        assert!(anew || !host.unread.contains(&kind), "{kind} is written again without a read (I18)");
        match write {
            Write::Launch { .. } => {
                assert!(!host.is_alive() && !others, "a second agent on one issue (I13)");
                assert!(
                    self.claim.as_ref().is_some_and(|(_, holder, ..)| *holder == host.name),
                    "without a claim (I13)"
                );
            }
            Write::Push { head, .. } => {
                let named = self.claim.as_ref().is_some_and(|(.., heads)| heads.contains(head));
                assert!(named, "a commit that the claim does not name: who takes over would not know it for ours");
            }
            Write::Merge { pull, head } => {
                assert!(self.green.contains(head), "a head that was never green (I16)");
                assert_eq!(host.task.pull, Some(*pull), "a pull request that is not ours");
                assert_eq!(host.task.state, State::Merging(Head { sha: head.clone(), since: head_since(&host.task) }));
            }
            Write::Close(proof) => {
                let request = self.requests.iter().find(|it| it.number == proof.pull().0).expect("it is there");
                assert_eq!((request.merged.as_ref(), &request.head), (Some(proof.commit()), proof.head()), "(I16)");
            }
            Write::Comment { edit: None, mark, .. } => {
                assert!(!self.comments.iter().any(|it| it.mark == *mark), "{mark:?} is there already (I14)");
            }
            Write::Comment { edit: Some(id), text, .. } => {
                let (_, digest) = read_marker(&key(), text).expect("a marker");
                let there = self.comments.iter().find(|it| it.id == *id).expect("it is there");
                assert_ne!(there.digest, digest, "an edit that changes nothing (I14)");
            }
            _ => {}
        }
    }

    fn perform(&mut self, host: &mut Host, write: &Write) -> Reply {
        match write {
            Write::Claim if self.claim.is_some() => return Reply::Conflict("it exists".to_owned()),
            Write::Claim => self.claim = Some((self.commit(), host.name, self.now, Vec::new())),
            Write::TakeClaim { from, heads } => match &self.claim {
                Some((at, ..)) if at == from => {
                    self.claim = Some((self.commit(), host.name, self.now, heads.clone()));
                }
                _ => return Reply::Conflict("not a fast-forward".to_owned()),
            },
            Write::Release { at } => match &self.claim {
                Some((there, ..)) if there == at => self.claim = None,
                _ => return Reply::Conflict("it moved".to_owned()),
            },
            Write::Label { add, remove } => {
                self.labels.extend(add.iter().cloned());
                self.labels.retain(|label| !remove.contains(label));
            }
            Write::Comment { edit, mark, text } => {
                let (read, digest) = read_marker(&key(), text).expect("a marker");
                assert_eq!(read, *mark);
                let id = edit.unwrap_or_else(|| {
                    self.made.push(mark.clone());
                    CommentId(self.number())
                });
                self.comments.retain(|comment| comment.id != id);
                self.comments.push(Comment { id, mark: mark.clone(), digest });
                self.comments.sort_by_key(|comment| comment.id);
            }
            Write::DropComment(id) => self.comments.retain(|comment| comment.id != *id),
            Write::Prepare(_) => {}
            Write::Launch { attempt, .. } => drop(host.runs.entry(*attempt).or_insert(Run::Alive)),
            Write::Stop(_) => {
                let over = Run::Over(RunEnd::Stopped("as asked".to_owned()));
                host.runs.values_mut().filter(|run| **run == Run::Alive).for_each(|run| *run = over.clone());
            }
            Write::Push { expect, .. } if self.remote != *expect => return Reply::Conflict("stale info".to_owned()),
            Write::Push { head, .. } => {
                self.remote = Some(head.clone());
                self.requests.iter_mut().filter(|it| it.open).for_each(|it| it.head = head.clone());
            }
            Write::Open => {
                let Some(head) = self.remote.clone() else { return Reply::Refused("no branch".to_owned()) };
                if self.requests.iter().any(|it| it.open) {
                    return Reply::Conflict("it exists".to_owned());
                }
                let number = self.number();
                self.requests.push(Request { number, open: true, head, merged: None, mergeable: Mergeable::Yes });
            }
            Write::Merge { pull, head } => {
                let commit = self.commit();
                let request = self.requests.iter_mut().find(|it| it.number == pull.0).expect("it is there");
                if !request.open {
                    return Reply::NotNow("it is closed".to_owned());
                }
                if request.head != *head {
                    return Reply::Conflict("head branch was modified".to_owned());
                }
                if request.mergeable != Mergeable::Yes {
                    return Reply::NotNow("not mergeable".to_owned());
                }
                (request.open, request.merged) = (false, Some(commit));
                self.merges.push((pull.0, head.clone()));
            }
            Write::Close(_) => {
                self.open = false;
                self.closes += 1;
            }
            Write::Clean { .. } => {}
        }
        Reply::Done
    }

    fn read(&mut self, host: &mut Host, need: &Need) {
        let written: &[&str] = match need {
            Need::Issue => &["Label", "Close"],
            Need::Claim => &["Claim", "TakeClaim", "Release"],
            Need::Comments => &["Comment", "DropComment"],
            Need::Pulls => &["Open", "Merge"],
            Need::Remote => &["Push"],
            Need::Run => &["Launch", "Stop"],
            Need::Ci(_) | Need::OnBase { .. } | Need::Commits => &[],
        };
        host.unread.retain(|kind| !written.contains(&kind.as_str()));
        let part = match need {
            Need::Issue => Part::Issue(Issue { open: self.open, labels: self.labels.iter().cloned().collect() }),
            Need::Claim => Part::Claim(match &self.claim {
                None => Claim::Free,
                Some((at, holder, time, heads)) if *holder == host.name => {
                    Claim::Ours { at: at.clone(), time: *time, heads: heads.clone() }
                }
                Some((at, holder, time, heads)) => {
                    let (at, host, heads) = (at.clone(), (*holder).to_owned(), heads.clone());
                    Claim::Theirs { at, host, time: *time, heads }
                }
            }),
            Need::Comments => Part::Comments(self.comments.clone()),
            Need::Pulls => {
                // As `issues` reads them: open, of the commit that was pushed, or known.
                let counts = |it: &&Request| {
                    it.open
                        || host.task.pushed.as_ref() == Some(&it.head)
                        || host.task.pull == Some(PullNumber(it.number))
                };
                Part::Pulls(self.requests.iter().filter(counts).map(pull).collect())
            }
            Need::Remote => Part::Remote(self.remote.clone()),
            Need::Ci(head) => {
                let ci = self.ci(head).clone();
                if verdict(&ci, &self.rules.ci) == Verdict::Green {
                    self.green.insert(head.clone());
                }
                Part::Ci(head.clone(), ci)
            }
            Need::OnBase { head, .. } => {
                Part::OnBase(self.requests.iter().any(|it| it.merged.is_some() && it.head == *head))
            }
            Need::Run => Part::Run(host.runs.get(&host.task.attempt).cloned().unwrap_or(Run::Never)),
            Need::Commits => Part::Commits(host.commit.clone().map_or(Commits::None, Commits::Upto)),
        };
        host.seen.read(self.now, part);
    }
}

fn head_since(task: &Task) -> At {
    match &task.state {
        State::Merging(head) => head.since,
        _ => At(0),
    }
}

fn pull(request: &Request) -> Pull {
    let number = PullNumber(request.number);
    let state = match &request.merged {
        Some(commit) => PullState::Merged(MergedProof::of_a_test(number, request.head.clone(), commit.clone())),
        None if request.open => PullState::Open,
        None => PullState::Closed,
    };
    let base = "main".parse().expect("a branch");
    Pull { number, state, head: request.head.clone(), base, draft: false, mergeable: request.mergeable }
}
