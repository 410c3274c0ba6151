//! OCSF 1.8.0, class process activity (1007) with the profile `host`: an event for each fork, exec and exit.
//!
//! What the class has no field for (a signal, a core, who said so, what is inferred) is in `status_detail` and `unmapped`.

mod event;

use std::collections::HashMap;
use std::io;

use crate::audit::read::Record;

use event::{Event, Head};

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
