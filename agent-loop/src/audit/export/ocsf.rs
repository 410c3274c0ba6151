//! OCSF 1.8.0, class process activity (1007) with the profile `host`: an event for each fork, exec and exit.
//!
//! What the class has no field for (a signal, a core, who said so, what is inferred) is in `status_detail` and `unmapped`.

use std::collections::HashMap;
use std::io;

use serde_json::{Map, Value, json};

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
    /// The log's id and the version of who wrote it, once it was named.
    log: Option<String>,
    version: Option<String>,
    /// The kernel's release, once it was named.
    kernel: Option<String>,
    /// What is known of processes that live: an exit says only who it was.
    alive: HashMap<String, Life>,
}

#[derive(Clone, Debug, Default)]
struct Life {
    created_ms: Option<i64>,
    argv: Vec<String>,
    exe: Option<String>,
    cwd: Option<String>,
    uid: Option<u32>,
    user: Option<String>,
}

impl<W: io::Write> Ocsf<W> {
    /// Begins.
    pub fn new(to: W) -> Self {
        Self { to, log: None, version: None, kernel: None, alive: HashMap::new() }
    }

    /// Takes a record; what is no fork, exec or exit is no event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        if let Some(segment) = &record.segment {
            (self.log, self.version) = (segment.log.clone(), segment.version.clone());
        }
        if let Some(host) = &record.host {
            self.kernel = Some(host.kernel.clone()).filter(|kernel| !kernel.is_empty());
            self.version = Some(host.version.clone()).filter(|version| !version.is_empty()).or(self.version.take());
        }
        let Some(proc) = &record.proc else { return Ok(()) };
        let time = record.moment().map(|ns| ns / 1_000_000);
        let (activity, life) = match record.kind.as_str() {
            "run.born" | "proc.fork" => {
                let life = Life {
                    created_ms: time,
                    argv: record.argv.clone().unwrap_or_default(),
                    uid: record.uid,
                    user: record.user.clone(),
                    ..Life::default()
                };
                self.alive.insert(proc.id.clone(), life.clone());
                (Activity::Fork, life)
            }
            "proc.exec" => {
                let life = self.alive.entry(proc.id.clone()).or_default();
                if let Some(exec) = &record.exec {
                    life.argv.clone_from(&exec.argv);
                    life.exe = Some(exec.exe.clone()).filter(|exe| !exe.is_empty());
                    life.cwd.clone_from(&exec.cwd);
                }
                life.uid = record.uid.or(life.uid);
                (Activity::Exec, life.clone())
            }
            "proc.exit" => (Activity::Exit, self.alive.remove(&proc.id).unwrap_or_default()),
            _ => return Ok(()),
        };
        let event = self.event(record, proc, &life, activity, time.unwrap_or(0));
        serde_json::to_writer(&mut self.to, &event)?;
        self.to.write_all(b"\n")
    }

    fn event(&self, record: &Record, proc: &Proc, life: &Life, activity: Activity, time: i64) -> Value {
        let (id, name) = match activity {
            Activity::Fork | Activity::Exec => (1, "Launch"),
            Activity::Exit => (2, "Terminate"),
        };
        let mut event = json!({
            "activity_id": id,
            "activity_name": name,
            "category_name": "System Activity",
            "category_uid": 1,
            "class_name": "Process Activity",
            "class_uid": CLASS,
            "type_name": format!("Process Activity: {name}"),
            "type_uid": CLASS * 100 + id,
            // Nothing here judges what an agent does.
            "severity": "Informational",
            "severity_id": 1,
            "time": time,
            "actor": actor(record, proc, life, activity),
            "device": self.device(record),
            "metadata": self.metadata(record),
            "process": process(proc, life),
            "unmapped": unmapped(record),
        });
        let launch = match activity {
            Activity::Fork => Some((2, "Fork")),
            Activity::Exec => Some((3, "Exec")),
            Activity::Exit => None,
        };
        if let Some((id, name)) = launch {
            event["launch_type_id"] = json!(id);
            event["launch_type"] = json!(name);
        }
        if let (Activity::Exit, Some(exit)) = (activity, &record.exit) {
            event["process"]["terminated_time"] = json!(time);
            event["status_detail"] = json!(detail(record, exit));
            let (id, name) = match (exit.code, exit.signal) {
                (Some(0), _) => (1, "Success"),
                (Some(_), _) | (None, Some(_)) => (2, "Failure"),
                // Not seen is never success.
                (None, None) => (0, "Unknown"),
            };
            event["status_id"] = json!(id);
            event["status"] = json!(name);
            if let Some(code) = exit.code {
                event["exit_code"] = json!(code);
            }
        }
        event
    }

    /// The host: a log does not hold its name, but ids that no other has.
    fn device(&self, record: &Record) -> Value {
        let mut os = json!({ "name": "Linux", "type": "Linux", "type_id": 200 });
        if let Some(kernel) = &self.kernel {
            os["kernel_release"] = json!(kernel);
        }
        let uid = self.log.as_deref().unwrap_or(&record.boot_id);
        json!({ "type": "Unknown", "type_id": 0, "uid": uid, "boot_uid": record.boot_id, "os": os })
    }

    fn metadata(&self, record: &Record) -> Value {
        let mut product = json!({ "name": "agent-loop" });
        if let Some(version) = &self.version {
            product["version"] = json!(version);
        }
        let mut metadata = json!({
            "version": VERSION,
            "profiles": ["host"],
            "product": product,
            "event_code": record.kind,
            "original_time": record.time,
            "sequence": record.seq,
        });
        if let Some(log) = &self.log {
            metadata["log_name"] = json!(log);
            metadata["uid"] = json!(format!("{log}/{}", record.seq));
        }
        if let Some(run) = &record.run {
            metadata["correlation_uid"] = json!(run);
        }
        metadata
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Who did it: a parent forks, a process executes and exits by itself, we launch and stop; else it is not known.
fn actor(record: &Record, proc: &Proc, life: &Life, activity: Activity) -> Value {
    let is = |cause: &str| record.exit.as_ref().is_some_and(|exit| exit.cause.as_deref() == Some(cause));
    match activity {
        Activity::Fork if record.kind == "run.born" => json!({ "app_name": "agent-loop" }),
        Activity::Fork => match (&record.parent, record.parent_pid) {
            (Some(parent), _) => json!({ "process": { "pid": parent.pid, "uid": parent.id } }),
            (None, Some(pid)) => json!({ "process": { "pid": pid } }),
            (None, None) => json!({ "app_name": "unknown" }),
        },
        Activity::Exec => json!({ "process": process(proc, life) }),
        Activity::Exit if is("exited") => json!({ "process": process(proc, life) }),
        Activity::Exit if is("stopped_by_us") => json!({ "app_name": "agent-loop" }),
        Activity::Exit => json!({ "app_name": "unknown" }),
    }
}

fn process(proc: &Proc, life: &Life) -> Value {
    let mut process = Map::new();
    process.insert("pid".to_owned(), json!(proc.pid));
    process.insert("uid".to_owned(), json!(proc.id));
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            process.insert(name.to_owned(), value);
        }
    };
    let first = life.exe.as_ref().or(life.argv.first());
    put("name", first.map(|path| json!(path.rsplit('/').next().unwrap_or(path))));
    put("path", life.exe.as_ref().map(|exe| json!(exe)));
    put("cmd_line", (!life.argv.is_empty()).then(|| json!(life.argv.join(" "))));
    put("working_directory", life.cwd.as_ref().map(|cwd| json!(cwd)));
    put("created_time", life.created_ms.map(|ms| json!(ms)));
    let uid = life.uid.map(|uid| json!({ "uid": uid.to_string() }));
    put("user", uid.or_else(|| life.user.as_ref().map(|user| json!({ "name": user }))));
    Value::Object(process)
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

/// What the class has no field for, by our own names.
fn unmapped(record: &Record) -> Value {
    let mut unmapped = json!({ "boot_ns": record.boot_ns, "issue": record.issue, "inferred": record.inferred });
    if let Some(exit) = &record.exit {
        unmapped["signal"] = json!(exit.signal);
        unmapped["core"] = json!(exit.core);
        unmapped["cause"] = json!(exit.cause);
        unmapped["source"] = json!(exit.source);
    }
    if let Some(exec) = &record.exec {
        unmapped["argv"] = json!(exec.argv);
    }
    unmapped
}

#[cfg(test)]
mod tests {
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
