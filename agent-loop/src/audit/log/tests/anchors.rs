//! Checkpoints on their way out of the log.

use super::*;

/// An anchor that keeps what it is handed, fails, or never answers.
#[derive(Debug, Default)]
struct Outside {
    kept: Mutex<Vec<Handed>>,
    fails: bool,
    stuck: Option<Mutex<std::sync::mpsc::Receiver<()>>>,
}

impl Anchor for Outside {
    fn name(&self) -> &'static str {
        "outside"
    }

    fn publish(&self, checkpoint: &Handed) -> io::Result<Receipt> {
        if let Some(stuck) = &self.stuck {
            let _ = stuck.lock().expect("ours").recv();
        }
        if self.fails {
            return Err(io::Error::other("no route to it"));
        }
        self.kept.lock().expect("ours").push(checkpoint.clone());
        Ok(Receipt("kept".to_owned()))
    }
}

fn anchored(outside: &Arc<Outside>, every: Duration) -> Settings {
    Settings { anchors: vec![Arc::clone(outside) as Arc<dyn Anchor>], anchor_every: every, ..small() }
}

fn anchor_records(lines: &[String]) -> Vec<serde_json::Value> {
    let lines = lines.iter().filter(|line| line.contains("\"kind\":\"anchor\""));
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn checkpoints_are_handed_out_and_the_log_says_so() {
    let (dir, outside) = (Dir::new(), Arc::new(Outside::default()));
    let (mut log, _) = dir.open(anchored(&outside, Duration::from_secs(3_600)));
    (0..30).for_each(|_| assert!(log.append(intent("x")).is_some()));
    let _ = log.close();
    let lines = dir.verified();
    let kept = outside.kept.lock().expect("ours");
    let last = kept.last().expect("the end is handed out");
    let (covered, after) = lines.split_at(usize::try_from(last.size).expect("few"));
    assert_eq!(anchor_records(after).len(), after.len(), "all but records of handing out: {after:?}");
    assert_eq!(covered.iter().filter(|line| line.contains("run.intent")).count(), 30);
    let records = anchor_records(&lines);
    assert_eq!(records.len(), kept.len());
    for (record, kept) in records.iter().zip(kept.iter()) {
        let said = &record["anchor"];
        assert_eq!(
            (&said["to"], &said["result"], &said["why"]),
            (&"outside".into(), &"anchored".into(), &"kept".into())
        );
        assert_eq!((&said["size"], &said["root"]), (&kept.size.into(), &kept.root.clone().into()));
        assert_eq!(fs::read(dir.audit().join(layout::kept(kept.size))).expect("it is kept here too"), kept.text);
    }
}

#[test]
fn an_anchor_that_fails_is_told_and_the_log_goes_on() {
    let (dir, outside) = (Dir::new(), Arc::new(Outside { fails: true, ..Outside::default() }));
    let (mut log, _) = dir.open(anchored(&outside, Duration::from_millis(1)));
    let end = std::time::Instant::now() + LONG;
    while !String::from_utf8_lossy(&fs::read(dir.plain()).expect("a segment")).contains("no route to it") {
        assert!(std::time::Instant::now() < end && log.append(intent("x")).is_some());
        assert!(log.durable(LONG));
    }
    let progress = log.close();
    assert_eq!(progress.failing, None);
    let records = anchor_records(&dir.verified());
    assert!(records.iter().all(|record| record["anchor"]["result"] == "failed"));
}

#[test]
fn an_anchor_that_never_answers_holds_up_no_line_and_no_end() {
    let (let_go, stuck) = std::sync::mpsc::channel();
    let (dir, outside) = (Dir::new(), Arc::new(Outside { stuck: Some(Mutex::new(stuck)), ..Outside::default() }));
    let (mut log, _) = dir.open(anchored(&outside, Duration::from_millis(1)));
    for _ in 0..50 {
        assert!(log.append(intent("x")).is_some() && log.durable(LONG));
    }
    let progress = log.close();
    assert_eq!((progress.durable, progress.closed), (progress.signed, true));
    let records = anchor_records(&dir.verified());
    let why = records.last().expect("a record")["anchor"]["why"].as_str().expect("a reason").to_owned();
    assert!(why.contains("did not answer within"), "{why}");
    drop(let_go);
}
