//! The fields of an event, by the names of the class.

use serde::Serialize;

use super::{Activity, CLASS, Life, Origin, VERSION};
use crate::audit::read::{Exit, Proc, Record};

/// The fields of an event that are the same in all of an activity.
#[derive(Serialize)]
pub(super) struct Head<'a> {
    activity_id: u64,
    activity_name: &'static str,
    category_name: &'static str,
    category_uid: u64,
    class_name: &'static str,
    class_uid: u64,
    type_name: &'static str,
    type_uid: u64,
    severity: &'static str,
    severity_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    launch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    launch_type_id: Option<u64>,
    device: Device<'a>,
}

/// The fields of an event that are its own.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    actor: Actor<'a>,
    metadata: Metadata<'a>,
    process: Process<'a>,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    app_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
}

/// The host: a log does not hold its name, but ids that no other has.
#[derive(Serialize)]
struct Device<'a> {
    r#type: &'static str,
    type_id: u64,
    uid: &'a str,
    boot_uid: &'a str,
    os: Os<'a>,
}

#[derive(Serialize)]
struct Os<'a> {
    name: &'static str,
    r#type: &'static str,
    type_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_release: Option<&'a str>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    profiles: [&'static str; 1],
    product: Product<'a>,
    event_code: &'a str,
    original_time: &'a str,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_uid: Option<&'a str>,
}

#[derive(Serialize)]
struct Product<'a> {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd_line: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_directory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminated_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// What the class has no field for, by our own names.
#[derive(Serialize)]
struct Unmapped<'a> {
    boot_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue: Option<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inferred: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<&'a [String]>,
}

impl<'a> Head<'a> {
    pub(super) fn new(of: &'a Origin, boot: &'a str, activity: Activity) -> Self {
        let (activity_id, activity_name, type_name) = match activity {
            Activity::Fork | Activity::Exec => (1, "Launch", "Process Activity: Launch"),
            Activity::Exit => (2, "Terminate", "Process Activity: Terminate"),
        };
        let (launch_type_id, launch_type) = match activity {
            Activity::Fork => (Some(2), Some("Fork")),
            Activity::Exec => (Some(3), Some("Exec")),
            Activity::Exit => (None, None),
        };
        Self {
            activity_id,
            activity_name,
            category_name: "System Activity",
            category_uid: 1,
            class_name: "Process Activity",
            class_uid: CLASS,
            type_name,
            type_uid: CLASS * 100 + activity_id,
            // Nothing here judges what an agent does.
            severity: "Informational",
            severity_id: 1,
            launch_type,
            launch_type_id,
            device: Device {
                r#type: "Unknown",
                type_id: 0,
                uid: of.log.as_deref().unwrap_or(boot),
                boot_uid: boot,
                os: Os { name: "Linux", r#type: "Linux", type_id: 200, kernel_release: of.kernel.as_deref() },
            },
        }
    }
}

impl<'a> Event<'a> {
    pub(super) fn new(
        of: &'a Origin,
        record: &'a Record,
        proc: &'a Proc,
        life: &'a Life,
        activity: Activity,
        time: i64,
    ) -> Self {
        let exit = record.exit.as_ref().filter(|_| matches!(activity, Activity::Exit));
        let (status_id, status) = match exit.map(|exit| (exit.code, exit.signal)) {
            None => (None, None),
            Some((Some(0), _)) => (Some(1), Some("Success")),
            Some((Some(_), _) | (None, Some(_))) => (Some(2), Some("Failure")),
            // Not seen is never success.
            Some((None, None)) => (Some(0), Some("Unknown")),
        };
        let terminated_time = exit.map(|_| time);
        Self {
            time,
            status,
            status_id,
            status_detail: exit.map(|exit| detail(record, exit)),
            exit_code: exit.and_then(|exit| exit.code),
            actor: actor(record, proc, activity),
            metadata: Metadata {
                version: VERSION,
                profiles: ["host"],
                product: Product { name: "agent-loop", version: of.version.as_deref() },
                event_code: &record.kind,
                original_time: &record.time,
                sequence: record.seq,
                log_name: of.log.as_deref(),
                uid: of.log.as_ref().map(|log| format!("{log}/{}", record.seq)),
                correlation_uid: record.run.as_deref(),
            },
            process: Process { terminated_time, ..process(proc, life) },
            unmapped: Unmapped {
                boot_ns: record.boot_ns,
                issue: record.issue.as_ref(),
                inferred: record.inferred,
                signal: exit.and_then(|exit| exit.signal),
                core: exit.and_then(|exit| exit.core),
                cause: exit.and_then(|exit| exit.cause.as_deref()),
                source: exit.and_then(|exit| exit.source.as_deref()),
                argv: record.exec.as_ref().map(|exec| exec.argv.as_slice()),
            },
        }
    }
}

/// Who did it: a parent forks, a process executes and exits by itself, we launch and stop; else it is not known. A process
/// is named by its id alone: what itself was before it executed is another than what it is now.
fn actor<'a>(record: &'a Record, proc: &'a Proc, activity: Activity) -> Actor<'a> {
    let app = |name| Actor { app_name: Some(name), process: None };
    let of = |process| Actor { app_name: None, process: Some(process) };
    let named = |proc: &'a Proc| of(Process { uid: Some(&proc.id), ..numbered(proc.pid) });
    let is = |cause: &str| record.exit.as_ref().is_some_and(|exit| exit.cause.as_deref() == Some(cause));
    match activity {
        Activity::Fork if record.kind == "run.born" => app("agent-loop"),
        Activity::Fork => match (&record.parent, record.parent_pid) {
            (Some(parent), _) => named(parent),
            (None, Some(pid)) => of(numbered(pid)),
            (None, None) => app("unknown"),
        },
        Activity::Exec => named(proc),
        Activity::Exit if is("exited") => named(proc),
        Activity::Exit if is("stopped_by_us") => app("agent-loop"),
        Activity::Exit => app("unknown"),
    }
}

fn process<'a>(proc: &'a Proc, life: &'a Life) -> Process<'a> {
    // The user id says more than the name that a run was asked for with.
    let user = match (life.uid.as_deref(), life.user.as_deref()) {
        (None, None) => None,
        (Some(uid), _) => Some(User { uid: Some(uid), name: None }),
        (None, name) => Some(User { uid: None, name }),
    };
    Process {
        uid: Some(&proc.id),
        name: life.name.as_deref(),
        path: life.exe.as_deref(),
        cmd_line: life.command.as_deref(),
        working_directory: life.cwd.as_deref(),
        created_time: life.created_ms,
        user,
        ..numbered(proc.pid)
    }
}

/// A process of which nothing is known but its number.
fn numbered(pid: u32) -> Process<'static> {
    Process {
        pid,
        uid: None,
        name: None,
        path: None,
        cmd_line: None,
        working_directory: None,
        created_time: None,
        terminated_time: None,
        user: None,
    }
}

/// How it ended, in words that tell what the class cannot.
fn detail(record: &Record, exit: &Exit) -> String {
    let mut detail = record.status().unwrap_or_else(|| "status unknown".to_owned());
    if exit.core == Some(true) {
        detail.push_str(", core dumped");
    }
    if exit.cause.as_deref() == Some("stopped_by_us") {
        detail.push_str(", stopped by agent-loop");
    }
    if record.inferred.is_some() {
        detail.push_str(", inferred after a loss");
    }
    detail
}
