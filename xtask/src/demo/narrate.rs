//! Says what the records of an events file mean while they appear.

use std::collections::BTreeSet;

use serde_json::Value;

/// Comments on each kind of record when it is met for the first time, and on every death by us.
#[derive(Debug, Default)]
pub(crate) struct Narrator {
    read: usize,
    said: BTreeSet<&'static str>,
}

impl Narrator {
    /// The comments on what is new in `text`, the whole file so far; an unfinished last line waits.
    pub(crate) fn comments(&mut self, text: &str) -> Vec<String> {
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        let fresh = text.get(self.read..end).unwrap_or_default();
        self.read = self.read.max(end);
        let records = fresh.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter_map(|record| self.comment(&record)).collect()
    }

    fn comment(&mut self, record: &Value) -> Option<String> {
        let pid = record["proc"]["pid"].as_u64().unwrap_or_default();
        let (topic, text) = match record["kind"].as_str()? {
            "run.born" => {
                ("born", format!("the command was born as {pid}: who it is was recorded before its first instruction"))
            }
            "proc.fork" => {
                let parent = record["parent"]["pid"].as_u64().unwrap_or_default();
                ("fork", format!("a birth: {parent} forked {pid}; each one is reported, whether it ever execs or not"))
            }
            "proc.exec" => ("exec", format!("{pid} became {}", argv(record))),
            "proc.exit" => exit(record, pid)?,
            "signal.intent" => stop(record)?,
            "gap" => ("gap", "records were lost here: that is declared and repaired, never hidden".to_owned()),
            "run.killed" => {
                let survivors = record["survivors"].as_u64().map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                let elapsed = record["elapsed_ms"].as_u64().unwrap_or_default();
                (
                    "killed",
                    format!("the stop took {elapsed} ms and left {survivors} survivors: only now it counts as done"),
                )
            }
            "run.exit" => {
                let (births, deaths) = (&record["births"], &record["deaths"]);
                ("end", format!("the end: {births} births, {deaths} deaths, outcome {}", record["outcome"]))
            }
            _ => return None,
        };
        self.said.insert(topic).then_some(text)
    }
}

fn exit(record: &Value, pid: u64) -> Option<(&'static str, String)> {
    let exit = &record["exit"];
    match (exit["code"].as_u64(), exit["signal"].as_u64()) {
        (Some(7), _) => Some(("code", format!("a death: {pid} ended with code 7, as it was told to"))),
        (None, Some(15)) => Some(("term", format!("{pid} obeyed SIGTERM"))),
        (None, Some(9)) => {
            Some(("kill", format!("{pid} had to be killed: it, or its shell, ignored what came before")))
        }
        _ => None,
    }
}

fn stop(record: &Value) -> Option<(&'static str, String)> {
    let text = "each signal is recorded before it is sent, and goes to a process that was proven to be the one meant";
    match record["signal"].as_u64()? {
        2 => Some(("int", format!("the limit of 3 s is reached; first SIGINT to the command. {text}"))),
        15 => Some(("ask", "SIGTERM to every process of the tree, then one second of grace".to_owned())),
        9 => Some(("force", "the grace is over: everything that is left is killed, the daemon too".to_owned())),
        _ => None,
    }
}

fn argv(record: &Value) -> String {
    let words = record["exec"]["argv"].as_array().cloned().unwrap_or_default();
    let first = words.iter().filter_map(Value::as_str).take(3).map(|it| it.lines().next().unwrap_or_default());
    first.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_explained_once_and_a_torn_line_waits() {
        let fork = r#"{"kind":"proc.fork","proc":{"pid":11},"parent":{"pid":10}}"#;
        let killed = r#"{"kind":"run.killed","survivors":0,"elapsed_ms":38}"#;
        let mut narrator = Narrator::default();
        assert_eq!(narrator.comments(&format!("{fork}\n{fork}\n{}", &killed[..20])).len(), 1);
        let text = format!("{fork}\n{fork}\n{killed}\n");
        let comments = narrator.comments(&text);
        assert_eq!(comments.len(), 1);
        assert!(comments[0].contains("38 ms") && comments[0].contains("0 survivors"), "{comments:?}");
        assert!(narrator.comments(&text).is_empty());
    }
}
