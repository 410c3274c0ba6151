//! What a task leaves in the audit log. [pure]

use sha2::{Digest as _, Sha256};

use crate::audit::{Area, CiBody, TaskBody, TaskKind, TaskLine, WriteBody};
use crate::work::{self, Check, Ci, CiRules, Reply, Required, Says, Sha, State, Task, Verdict, Write};

/// A task came to another state.
pub(super) fn state(task: &Task) -> TaskLine {
    line(TaskKind::State, task)
}

/// A write is about to be sent.
pub(super) fn intent(task: &Task, area: Area, write: &Write) -> TaskLine {
    TaskLine { write: Some(body(write)), ..line(TaskKind::Intent(area), task) }
}

/// A write was answered.
pub(super) fn result(task: &Task, area: Area, write: &Write, reply: &Reply) -> TaskLine {
    let (answer, said) = match reply {
        Reply::Done => ("done", None),
        Reply::Conflict(why) => ("conflict", Some(why.clone())),
        Reply::NotNow(why) => ("not_now", Some(why.clone())),
        Reply::Refused(why) => ("refused", Some(why.clone())),
        Reply::Limited(_) => ("limited", None),
        Reply::Doubt(why) => ("doubt", Some(why.clone())),
        Reply::Local(why) => ("local", Some(why.clone())),
    };
    let write = WriteBody { answer: Some(answer), said, ..body(write) };
    TaskLine { write: Some(write), ..line(TaskKind::Result(area), task) }
}

/// A read proved that the pull request is merged.
pub(super) fn proven(task: &Task, proof: &crate::forge::MergedProof) -> TaskLine {
    let write = WriteBody {
        what: "merge",
        about: Some(format!("{} as {}", proof.pull(), proof.commit())),
        head: Some(proof.head().to_string()),
        answer: Some("proven"),
        ..WriteBody::default()
    };
    TaskLine { write: Some(write), ..line(TaskKind::Result(Area::Merge), task) }
}

/// What the checks of a commit say.
pub(super) fn verdict(task: &Task, head: &Sha, ci: &Ci, rules: &CiRules) -> TaskLine {
    let verdict = match work::verdict(ci, rules) {
        Verdict::Green => "green",
        Verdict::Failed(_) => "failed",
        Verdict::Pending => "pending",
        Verdict::Missing => "missing",
        Verdict::Approval => "approval",
        Verdict::Stuck(_) => "stuck",
        Verdict::Queue => "queue",
    };
    let required = match &ci.required {
        Required::Names(names) => Some(names.iter().chain(&rules.required).cloned().collect()),
        Required::Unknown(_) | Required::Queue => None,
    };
    let checks = ci.checks.iter().map(check).collect();
    TaskLine { ci: Some(CiBody { head: head.to_string(), verdict, required, checks }), ..line(TaskKind::Verdict, task) }
}

fn check(it: &Check) -> String {
    let says = match &it.says {
        Says::Pending => "pending",
        Says::Success => "success",
        Says::Neutral => "neutral",
        Says::Skipped => "skipped",
        Says::Failed => "failed",
        Says::Cancelled => "cancelled",
        Says::Stale => "stale",
        Says::Approval => "approval",
        Says::Unknown(word) => word,
    };
    format!("{} ({}): {says}", it.name, it.source)
}

fn line(kind: TaskKind, task: &Task) -> TaskLine {
    let why = match &task.state {
        State::NeedsHuman(_) | State::Superseded(_) | State::Backoff { .. } => Some(work::says(task)),
        State::Exited(end) => Some(format!("{end:?}")),
        State::Eligible
        | State::Preparing(_)
        | State::Running { .. }
        | State::Pushing(_)
        | State::Opening(_)
        | State::CiWait(_)
        | State::CiMissing(_)
        | State::CiApproval(_)
        | State::MergeGate { .. }
        | State::Merging(_)
        | State::MergeUnknown { .. }
        | State::Closing { .. }
        | State::Done
        | State::Cleaned => None,
    };
    TaskLine {
        kind,
        issue: task.key.to_string(),
        task: TaskBody {
            state: task.state.word(),
            step: task.step,
            attempt: task.attempt,
            branch: task.branch.to_string(),
            base: task.base.to_string(),
            pull: task.pull.map(|pull| pull.0),
            head: task.state.head().map(ToString::to_string),
            why,
        },
        write: None,
        ci: None,
    }
}

fn body(write: &Write) -> WriteBody {
    let named = |what, about: Option<String>, head: Option<&Sha>| WriteBody {
        what,
        about,
        head: head.map(ToString::to_string),
        ..WriteBody::default()
    };
    match write {
        Write::Claim => named("claim", None, None),
        Write::TakeClaim { from, heads } => {
            let heads: Vec<&str> = heads.iter().map(Sha::as_str).collect();
            let about = (!heads.is_empty()).then(|| format!("for the branch at {}", heads.join(" or ")));
            named("take_claim", about, Some(from))
        }
        Write::Release { at } => named("release", None, Some(at)),
        Write::Label { add, remove } => {
            let signed = |sign: char, names: &[String]| -> Vec<String> {
                names.iter().map(|name| format!("{sign}{name}")).collect()
            };
            let all = [signed('+', add), signed('-', remove)].concat();
            named("label", Some(all.join(" ")), None)
        }
        Write::Comment { edit, mark, text } => {
            let mark = match mark {
                work::Mark::Status => "status",
                work::Mark::Notice(key) => key,
            };
            let about = edit.map_or_else(|| mark.to_owned(), |id| format!("{mark}, instead of {}", id.0));
            let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
            WriteBody { sha256: Some(sha256), ..named("comment", Some(about), None) }
        }
        Write::DropComment(id) => named("drop_comment", Some(id.0.to_string()), None),
        Write::Prepare(_) => named("prepare", None, None),
        Write::Launch { .. } => named("launch", None, None),
        Write::Stop(gone) => named("stop", Some(gone.word().to_owned()), None),
        Write::Push { head, expect } => {
            named("push", expect.as_ref().map(|expect| format!("from {expect}")), Some(head))
        }
        Write::Open => named("open", None, None),
        Write::Merge { pull, head } => named("merge", Some(pull.to_string()), Some(head)),
        Write::Close(proof) => named("close", Some(format!("{} as {}", proof.pull(), proof.commit())), None),
        Write::Clean { branch } => named("clean", None, branch.as_ref()),
    }
}
