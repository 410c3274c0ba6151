//! OCSF 1.8.0, class process activity (1007) with the profile `host`: an event for each fork, exec and exit.
//!
//! What the class has no field for (a signal, a core, who said so, what is inferred) is in `status_detail` and `unmapped`.

use std::collections::HashMap;
use std::io;

use serde::Serialize;

use crate::audit::read::{Exit, Proc, Record};

/// The version of the framework.
pub const VERSION: &str = "1.8.0";
/// The class: process activity.
const CLASS: u64 = 1007;

/// What a process does, by the framework's numbers.
#[derive(Clone, Copy)]
enum Activity {
    Fork,
    Exec,
    Exit,
}

/// Events on their way, one JSON object a line.
pub struct Ocsf<W: io::Write> {
    to: W,
    of: Origin,
    heads: Heads,
    /// The event that is being written.
    line: Vec<u8>,
    /// What is known of processes that live: an exit says only who it was.
    alive: HashMap<String, Life>,
}

/// What all events of an activity begin with in a boot, as text: most of an event is the same each time.
#[derive(Default)]
struct Heads {
    boot: String,
    texts: [Vec<u8>; 3],
}

impl Heads {
    /// The beginning of an object, up to where its own fields follow.
    fn get(&mut self, of: &Origin, boot: &str, activity: Activity) -> io::Result<&[u8]> {
        if self.boot != boot {
            *self = Self { boot: boot.to_owned(), ..Self::default() };
        }
        let [fork, exec, exit] = &mut self.texts;
        let text = match activity {
            Activity::Fork => fork,
            Activity::Exec => exec,
            Activity::Exit => exit,
        };
        if text.is_empty() {
            serde_json::to_writer(&mut *text, &Head::new(of, boot, activity))?;
            text.pop_if(|end| *end == b'}');
        }
        Ok(text)
    }
}

/// Where the records are from, as far as they have said.
#[derive(Default)]
struct Origin {
    log: Option<String>,
    version: Option<String>,
    kernel: Option<String>,
}

#[derive(Default)]
struct Life {
    created_ms: Option<i64>,
    /// The command, and the name of its program.
    command: Option<String>,
    name: Option<String>,
    exe: Option<String>,
    cwd: Option<String>,
    uid: Option<String>,
    user: Option<String>,
}

impl Life {
    fn executes(&mut self, argv: &[String]) {
        self.command = (!argv.is_empty()).then(|| argv.join(" "));
        let path = self.exe.as_ref().or(argv.first());
        self.name = path.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned());
    }
}

impl<W: io::Write> Ocsf<W> {
    /// Begins.
    pub fn new(to: W) -> Self {
        Self { to, of: Origin::default(), heads: Heads::default(), line: Vec::new(), alive: HashMap::new() }
    }

    /// Takes a record; what is no fork, exec or exit is no event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        if self.of.learn(record) {
            self.heads = Heads::default();
        }
        let Some(proc) = &record.proc else { return Ok(()) };
        let time = record.moment().map(|ns| ns / 1_000_000);
        let dead;
        let (activity, life) = match record.kind.as_str() {
            "run.born" | "proc.fork" => {
                let mut life = Life {
                    created_ms: time,
                    uid: record.uid.map(|uid| uid.to_string()),
                    user: record.user.clone(),
                    ..Life::default()
                };
                life.executes(record.argv.as_deref().unwrap_or_default());
                (Activity::Fork, &*self.alive.entry(proc.id.clone()).insert_entry(life).into_mut())
            }
            "proc.exec" => {
                let life = self.alive.entry(proc.id.clone()).or_default();
                if let Some(exec) = &record.exec {
                    life.exe = Some(exec.exe.clone()).filter(|exe| !exe.is_empty());
                    life.cwd.clone_from(&exec.cwd);
                    life.executes(&exec.argv);
                }
                life.uid = record.uid.map(|uid| uid.to_string()).or(life.uid.take());
                (Activity::Exec, &*life)
            }
            "proc.exit" => {
                dead = self.alive.remove(&proc.id).unwrap_or_default();
                (Activity::Exit, &dead)
            }
            _ => return Ok(()),
        };
        let event = Event::new(&self.of, record, proc, life, activity, time.unwrap_or(0));
        self.line.clear();
        self.line.extend_from_slice(self.heads.get(&self.of, &record.boot_id, activity)?);
        let joint = self.line.len();
        serde_json::to_writer(&mut self.line, &event)?;
        if let Some(brace) = self.line.get_mut(joint) {
            *brace = b',';
        }
        self.line.push(b'\n');
        self.to.write_all(&self.line)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Origin {
    /// Takes what a record says of it; whether it says anything.
    fn learn(&mut self, record: &Record) -> bool {
        if let Some(segment) = &record.segment {
            self.log.clone_from(&segment.log);
            self.version.clone_from(&segment.version);
        }
        if let Some(host) = &record.host {
            self.kernel = Some(host.kernel.clone()).filter(|kernel| !kernel.is_empty());
            self.version = Some(host.version.clone()).filter(|version| !version.is_empty()).or(self.version.take());
        }
        record.segment.is_some() || record.host.is_some()
    }
}

/// The fields of an event that are the same in all of an activity.
#[derive(Serialize)]
struct Head<'a> {
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
struct Event<'a> {
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
    fn new(of: &'a Origin, boot: &'a str, activity: Activity) -> Self {
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
    fn new(of: &'a Origin, record: &'a Record, proc: &'a Proc, life: &'a Life, activity: Activity, time: i64) -> Self {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn events(lines: &[&str]) -> Vec<Value> {
        let mut text = Vec::new();
        let mut ocsf = Ocsf::new(&mut text);
        for line in lines {
            ocsf.record(&Record::read(line.as_bytes()).expect("a record")).expect("memory");
        }
        ocsf.end().expect("memory");
        let text = String::from_utf8(text).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn a_status_that_was_not_seen_is_no_success() {
        let exit = |exit: &str| {
            let line = format!(
                r#"{{"seq":1,"kind":"proc.exit","time":"2026-11-22T14:00:00Z","proc":{{"id":"A","pid":7}},"exit":{exit}}}"#
            );
            let event = events(&[&line]).remove(0);
            (event["status_id"].clone(), event["exit_code"].clone(), event["status_detail"].clone())
        };
        assert_eq!(exit(r#"{"code":0,"cause":"exited"}"#), (json!(1), json!(0), json!("exit 0")));
        assert_eq!(exit(r#"{"code":3,"cause":"exited"}"#), (json!(2), json!(3), json!("exit 3")));
        let killed = exit(r#"{"code":null,"signal":9,"core":true,"cause":"stopped_by_us"}"#);
        assert_eq!(killed, (json!(2), Value::Null, json!("signal 9, core dumped, stopped by agent-loop")));
        assert_eq!(exit(r#"{"code":null,"signal":null}"#), (json!(0), Value::Null, json!("status unknown")));
    }

    #[test]
    fn an_exit_tells_what_its_process_had_executed_and_when_it_was_born() {
        let events = events(&[
            r#"{"seq":0,"kind":"log.segment","segment":{"schema":"1.0","log":"agent-loop/X","version":"0.1.0"}}"#,
            r#"{"seq":1,"kind":"proc.fork","time":"2026-11-22T14:00:00.5Z","run":"R","uid":1000,"proc":{"id":"B","pid":8},"parent":{"id":"A","pid":7}}"#,
            r#"{"seq":2,"kind":"proc.exec","time":"2026-11-22T14:00:01Z","run":"R","proc":{"id":"B","pid":8},"exec":{"exe":"/usr/bin/make","argv":["make","-j2"],"cwd":"/srv"}}"#,
            r#"{"seq":3,"kind":"gap","run":"R","gap":{"cause":"ring_full"}}"#,
            r#"{"seq":4,"kind":"proc.exit","time":"2026-11-22T14:00:02Z","run":"R","proc":{"id":"B","pid":8},"exit":{"code":0,"cause":"exited"}}"#,
        ]);
        let kinds: Vec<_> =
            events.iter().map(|event| (event["type_uid"].as_u64(), event["launch_type"].as_str())).collect();
        assert_eq!(kinds, [(Some(100_701), Some("Fork")), (Some(100_701), Some("Exec")), (Some(100_702), None)]);
        assert_eq!(events[0]["actor"]["process"]["uid"], "A");
        let process = &events[2]["process"];
        assert_eq!(
            (&process["cmd_line"], &process["name"], &process["path"]),
            (&json!("make -j2"), &json!("make"), &json!("/usr/bin/make"))
        );
        assert_eq!(
            (&process["created_time"], &process["terminated_time"]),
            (&json!(1_795_356_000_500_i64), &json!(1_795_356_002_000_i64))
        );
        assert_eq!(events[2]["metadata"]["uid"], "agent-loop/X/4");
    }
}
