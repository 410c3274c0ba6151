//! The end of an `agent-loop exec`, and what must hold then.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Event, Proc, cgroup, eventually, host};
use crate::oracle::{self, Life, Status};

/// How an `agent-loop exec` ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code, or minus the signal that ended it.
    pub code: i32,
    /// What was written to the standard output.
    pub stdout: String,
    /// What was written to the standard error.
    pub stderr: String,
    /// The records of `--events`.
    pub events: Vec<Event>,
    /// Pins that were there before.
    pub(super) pins: BTreeSet<String>,
    pub(super) scratch: TempDir,
}

impl Outcome {
    /// A path in the scratch directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The records of this kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.kind == kind)
    }

    /// Births, the main process's included.
    pub fn births(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.is_birth())
    }

    /// Deaths, the main process's included.
    pub fn deaths(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.is_death())
    }

    /// Declared losses.
    pub fn gaps(&self) -> impl Iterator<Item = &Event> {
        self.of_kind("gap")
    }

    /// The main process.
    ///
    /// # Panics
    /// When it was not born exactly once.
    #[must_use]
    pub fn main(&self) -> &Proc {
        one(self.of_kind("run.born"), "run.born", &self.stderr).who()
    }

    /// The last record.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    pub fn run_exit(&self) -> &Event {
        one(self.of_kind("run.exit"), "run.exit", &self.stderr)
    }

    /// The one death of this process.
    ///
    /// # Panics
    /// When it did not die exactly once.
    #[must_use]
    pub fn death_of(&self, proc: &Proc) -> &Event {
        one(self.deaths().filter(|death| death.who().id == proc.id), "death", &self.stderr)
    }

    /// The one birth of this process that a parent's oracle told of.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    pub fn birth_of(&self, life: &Life) -> &Event {
        let during = life.after_ns..=life.before_ns;
        let fits = |birth: &&Event| birth.who().pid == life.pid && during.contains(&birth.who().start_ns);
        one(self.births().filter(fits), &format!("birth of {life:?}"), &self.stderr)
    }

    /// What the adversary's oracle said.
    ///
    /// # Panics
    /// When it said nothing.
    #[must_use]
    pub fn oracle(&self) -> Vec<Life> {
        oracle::read(&self.path("oracle")).unwrap_or_else(|err| panic!("oracle: {err}\n{}", self.stderr))
    }

    /// Whether the adversary had built everything.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.path("ready").exists()
    }

    /// Every birth has one death, after it; the sums agree; nobody survived a stop.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_tree_accounted(&self) {
        let mut open: HashMap<&Proc, &Event> = HashMap::new();
        let mut seen = BTreeSet::new();
        let mut last = None;
        for event in &self.events {
            assert!(last < Some(event.seq), "seq goes back at {event:?}");
            last = Some(event.seq);
            if event.is_birth() {
                assert!(seen.insert(&event.who().id), "born twice: {event:?}");
                open.insert(event.who(), event);
            } else if event.is_death() {
                assert!(open.remove(event.who()).is_some(), "died twice, or was never born: {event:?}");
            }
        }
        assert!(open.is_empty(), "{} births without a death, such as {:?}", open.len(), open.values().next());
        let exit = self.run_exit();
        for (name, count) in [("births", self.births().count()), ("deaths", self.deaths().count())] {
            assert_eq!(exit.value[name], count as u64, "{name} of run.exit: {}", exit.value);
        }
        for killed in self.of_kind("run.killed") {
            assert_eq!(killed.value["survivors"], 0, "{}", killed.value);
        }
        if self.gaps().next().is_none() {
            let unknown = |death: &&Event| death.status.is_none() && !host::before(6, 0);
            let vague = self.deaths().find(|death| death.inferred || unknown(death));
            assert!(vague.is_none(), "without a gap a death is not certain: {vague:?}");
        }
    }

    /// Nothing was lost.
    ///
    /// # Panics
    /// When a gap was declared.
    pub fn assert_no_gap(&self) {
        let gap = self.gaps().next();
        assert!(gap.is_none(), "{}", gap.map(|gap| gap.value.to_string()).unwrap_or_default());
    }

    /// No process of the tree lives, nor any that names the scratch directory; its cgroup is gone, no pin is new.
    ///
    /// # Panics
    /// When something is left.
    pub fn assert_nothing_left(&self) {
        let alive: Vec<_> = self.births().map(Event::who).filter(|proc| host::alive(proc).is_some()).collect();
        assert!(alive.is_empty(), "alive after the end: {alive:?}\n{}", self.stderr);
        self.assert_no_cgroup();
        let scratch = self.scratch.path();
        eventually("the end of all that name the scratch directory", || host::naming(scratch).is_empty().then_some(()));
        // Another test's run may have one just now; none of ours may stay.
        eventually("no new pin in bpffs", || host::pins().is_subset(&self.pins).then_some(()));
    }

    /// The run's cgroup is gone.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_no_cgroup(&self) {
        for id in self.of_kind("run.born").filter_map(|born| born.value["cgroup"]["id"].as_u64()) {
            let left = cgroup::find(id);
            assert!(left.is_none(), "cgroup left: {left:?}");
        }
    }

    /// Each of these lives was born and died as its parent saw it, forked by who says so.
    ///
    /// # Panics
    /// When one was not.
    pub fn assert_agrees_with(&self, lives: &[Life]) {
        let mut births: HashMap<i32, Vec<&Event>> = HashMap::new();
        for birth in self.births() {
            births.entry(birth.who().pid).or_default().push(birth);
        }
        let deaths: HashMap<&str, Option<Status>> =
            self.deaths().map(|death| (death.who().id.as_str(), death.status)).collect();
        assert!(!lives.is_empty(), "the oracle saw nothing");
        for life in lives {
            let during = life.after_ns..=life.before_ns;
            let same = births.get(&life.pid).into_iter().flatten();
            let found: Vec<_> = same.filter(|birth| during.contains(&birth.who().start_ns)).collect();
            let [birth] = found[..] else { panic!("{} births fit {life:?}: {found:?}", found.len()) };
            let forker = birth.parent.as_ref().map(|parent| parent.pid);
            assert_eq!(forker, Some(life.parent), "true forker of {life:?} in {birth:?}");
            if life.status.is_some() {
                let told = deaths.get(birth.who().id.as_str()).unwrap_or_else(|| panic!("no death of {life:?}"));
                assert!(host::agrees(told.as_ref(), life.status.as_ref()), "status of {life:?}: {told:?}");
            }
        }
    }
}

fn one<'a>(mut events: impl Iterator<Item = &'a Event>, what: &str, stderr: &str) -> &'a Event {
    let first = events.next().unwrap_or_else(|| panic!("no {what}\n{stderr}"));
    let second = events.next();
    assert!(second.is_none(), "more than one {what}: {second:?}");
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        let events = lines.iter().map(|line| Event::read(line).expect("well formed")).collect();
        let scratch = TempDir::new().expect("a scratch directory");
        Outcome { code: 0, stdout: String::new(), stderr: String::new(), events, pins: BTreeSet::new(), scratch }
    }

    const BORN: &str = r#"{"seq":1,"kind":"run.born","proc":{"id":"A","pid":4,"start_ns":10}}"#;
    const FORK: &str =
        r#"{"seq":2,"kind":"proc.fork","proc":{"id":"B","pid":5,"start_ns":20},"parent":{"id":"A","pid":4}}"#;
    const EXIT_B: &str = r#"{"seq":3,"kind":"proc.exit","proc":{"id":"B","pid":5,"start_ns":20},"exit":{"code":7,"signal":null,"core":false}}"#;
    const EXIT_A: &str = r#"{"seq":4,"kind":"proc.exit","proc":{"id":"A","pid":4,"start_ns":10},"exit":{"code":0,"signal":null,"core":false}}"#;
    const END: &str = r#"{"seq":5,"kind":"run.exit","outcome":"ended","births":2,"deaths":2}"#;

    fn life(parent: i32, code: i32) -> Life {
        let status = Some(Status::exited(code));
        Life { pid: 5, parent, role: "fork".to_owned(), after_ns: 15, before_ns: 25, status }
    }

    #[test]
    fn a_whole_log_is_accounted() {
        let outcome = outcome(&[BORN, FORK, EXIT_B, EXIT_A, END]);
        outcome.assert_tree_accounted();
        outcome.assert_agrees_with(&[life(4, 7)]);
    }

    #[test]
    #[should_panic(expected = "1 births without a death")]
    fn a_missing_death_is_found() {
        outcome(&[BORN, FORK, EXIT_A, END]).assert_tree_accounted();
    }

    #[test]
    #[should_panic(expected = "died twice")]
    fn a_second_death_is_found() {
        outcome(&[BORN, EXIT_A, &EXIT_A.replace(":4,\"kind", ":5,\"kind")]).assert_tree_accounted();
    }

    #[test]
    #[should_panic(expected = "deaths of run.exit")]
    fn a_wrong_sum_is_found() {
        outcome(&[BORN, FORK, EXIT_B, EXIT_A, &END.replace("\"deaths\":2", "\"deaths\":3")]).assert_tree_accounted();
    }

    #[test]
    #[should_panic(expected = "status of")]
    fn a_wrong_status_is_found() {
        outcome(&[BORN, FORK, EXIT_B, EXIT_A, END]).assert_agrees_with(&[life(4, 8)]);
    }

    #[test]
    #[should_panic(expected = "true forker")]
    fn a_wrong_forker_is_found() {
        outcome(&[BORN, FORK, EXIT_B, EXIT_A, END]).assert_agrees_with(&[life(1, 7)]);
    }
}
