//! What a person does to an issue and its pull request, at each moment of a life by `serve`: theirs is the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_loop_tests::fake_github::{Ci, Deed, Fault, Heard, Pull, When, World};
use agent_loop_tests::harness::{Daemon, Scene};
use agent_loop_tests::needs;
use serde_json::Value;

/// What a person does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Closes the issue.
    Close,
    /// Takes the labels away by which it is worked on.
    Unlabel,
    /// Merges the pull request.
    Merge,
    /// Closes the pull request.
    ClosePull,
    /// Pushes to the branch.
    Push,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The claim was made, and nothing else yet.
    Claimed,
    /// The first agent works.
    Working,
    /// The agent works on what checks of the pull request found.
    Mending,
    /// The branch was pushed, and its pull request is about to be made.
    Pushed,
    /// The pull request was made.
    Opened,
    /// Its checks run.
    Waiting,
    /// The merge is about to be done.
    Asked,
    /// The merge was done.
    Merged,
}

/// What has to come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is let go: nothing is merged, and the issue is as the person left it.
    LetGo,
    /// It is merged and closed.
    Merged {
        /// By whom.
        by: By,
        /// At the head of the task's own push, or at the person's.
        theirs: bool,
    },
    /// A person is asked.
    Asks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Us,
    Person,
}

/// Every act at every moment at which there is something to act on.
const ALL: &[(At, &[Act])] = &[
    (At::Claimed, &[Act::Close, Act::Unlabel, Act::Push]),
    (At::Working, &[Act::Close, Act::Unlabel, Act::Push]),
    (At::Mending, &[Act::Close, Act::Unlabel, Act::Merge, Act::ClosePull, Act::Push]),
    (At::Pushed, &[Act::Close, Act::Unlabel, Act::Push]),
    (At::Opened, &[Act::Close, Act::Unlabel, Act::Merge, Act::ClosePull, Act::Push]),
    (At::Waiting, &[Act::Close, Act::Unlabel, Act::Merge, Act::ClosePull, Act::Push]),
    (At::Asked, &[Act::Close, Act::Unlabel, Act::Merge, Act::ClosePull, Act::Push]),
    (At::Merged, &[Act::Close, Act::Unlabel, Act::Push]),
];

const fn end(at: At, act: Act) -> End {
    let ours = End::Merged { by: By::Us, theirs: false };
    match (act, at) {
        // It was too late: what is merged stays merged, and its issue is closed once.
        (Act::Close | Act::Unlabel, At::Asked | At::Merged) | (Act::Push, At::Merged) => ours,
        (Act::Close | Act::Unlabel | Act::ClosePull, _) => End::LetGo,
        (Act::Merge, _) => End::Merged { by: By::Person, theirs: false },
        // No pull request stands for it yet: whose commits these are is not ours to say.
        (Act::Push, At::Claimed | At::Working) => End::Asks,
        // Judged by its own checks, whoever pushed it.
        (Act::Push, At::Mending | At::Pushed | At::Opened | At::Waiting | At::Asked) => {
            End::Merged { by: By::Us, theirs: true }
        }
    }
}

/// Commits, and stays for as long as the test wants; says so where two are at it at once.
const SCRIPT: &str = "cat > /dev/null\nexec 9> \"$3/lock-$1\"\nflock --nonblock 9 || echo TWICE >> \"$3/log\"\n\
                      echo \"begin $1 $2\" >> \"$3/log\"\necho \"attempt $2\" >> \"work-$1.txt\"\ngit add \"work-$1.txt\"\n\
                      git commit --quiet -m \"work on $1\"\n\
                      if [ -e \"$3/hold-$1-$2\" ]; then while [ ! -e \"$3/go-$1\" ]; do sleep 0.2; done; fi\n";

/// One issue, with what a person does to it and when.
struct Play {
    at: At,
    act: Act,
    issue: u64,
    /// Whether what has to be done once its pull request is there was done.
    armed: bool,
    /// The agent's run at the time.
    run: Option<String>,
}

type Acted = Arc<Mutex<BTreeSet<u64>>>;

/// The tasks as people are shown them, by their issues: one question for all of them.
type Tasks = BTreeMap<String, Value>;

fn tasks(scene: &Scene) -> Tasks {
    let tasks = scene.repo()["tasks"].as_array().cloned().unwrap_or_default();
    tasks.into_iter().filter_map(|task| Some((task["issue"].as_str()?.to_owned(), task))).collect()
}

fn branch(issue: u64) -> String {
    format!("issue-{issue}-fix")
}

fn pull_of(world: &World, issue: u64) -> Option<(u64, Pull)> {
    let mut ours = world.pulls.iter().filter(|(_, pull)| pull.head_branch == branch(issue));
    let (number, pull) = ours.next()?;
    assert!(ours.next().is_none(), "a second pull request for {issue}");
    Some((*number, pull.clone()))
}

impl Act {
    fn does(self, world: &mut World, issue: u64) {
        let pull = pull_of(world, issue).map(|(number, _)| number);
        match self {
            Self::Close => world.close(issue),
            Self::Unlabel => {
                let taken = ["State/Ready", "State/InProgress"].map(|label| world.unlabel(issue, label, "alice"));
                assert!(taken.contains(&true), "{issue} has neither label");
            }
            Self::Merge => drop(world.merge(pull.expect("it is there"), true, "alice").expect("a person may")),
            Self::ClosePull => world.close(pull.expect("it is there")),
            Self::Push => drop(world.push(&branch(issue), &format!("theirs-{issue}.txt"), "by a person")),
        }
    }

    /// The same, as something that happens beside a request; it is noted.
    fn deed(self, issue: u64, acted: &Acted) -> Deed {
        let acted = Arc::clone(acted);
        Box::new(move |world| {
            self.does(world, issue);
            acted.lock().expect("ours").insert(issue);
        })
    }
}

impl Play {
    fn begin(scene: &Scene, at: At, act: Act, acted: &Acted) -> Self {
        let issue = scene.issue(&format!("{act:?} when {at:?}"));
        let deed = || act.deed(issue, acted);
        let hold = |attempt: u32| std::fs::write(scene.host.path(format!("agents/hold-{issue}-{attempt}")), "");
        match at {
            At::Claimed => {
                let claim = format!("claims/{issue}");
                scene.forge.play(When::next("post", "/git/refs").about(&claim), Fault::After(deed()));
            }
            At::Working => hold(1).expect("room"),
            At::Mending => hold(2).expect("room"),
            At::Pushed | At::Opened => {
                let fault = if at == At::Pushed { Fault::Before(deed()) } else { Fault::After(deed()) };
                scene.forge.play(When::next("post", "/pulls").about(&branch(issue)), fault);
            }
            // Its pull request has no number yet.
            At::Waiting | At::Asked | At::Merged => {}
        }
        Self { at, act, issue, armed: false, run: None }
    }

    /// Does what is due; all checks run without an end until something is said of them here.
    fn goes_on(&mut self, scene: &Scene, task: Option<&Value>, acted: &Acted) {
        let has_acted = acted.lock().expect("ours").contains(&self.issue);
        let pull = pull_of(&scene.forge.world(), self.issue);
        let says = |head: &str, conclusion: &str| {
            let check = ("test".to_owned(), "completed".to_owned(), Some(conclusion.to_owned()));
            scene.forge.world().checks.insert(head.to_owned(), vec![check]);
        };
        if has_acted {
            // Whatever head there is now: nothing but the person's act stands in the way of a merge.
            if let Some((_, pull)) = pull {
                says(&pull.head, "success");
            }
            return;
        }
        let begun = |attempt: u32| scene.left("log").contains(&format!("begin {} {attempt}\n", self.issue));
        match (self.at, pull) {
            (At::Claimed | At::Pushed | At::Opened, _) => {}
            (At::Working, _) if begun(1) => self.acts_beside_the_agent(scene, task, acted),
            (At::Mending, Some(_)) if begun(2) => self.acts_beside_the_agent(scene, task, acted),
            (At::Mending, Some((_, pull))) if !self.armed => {
                says(&pull.head, "failure");
                self.armed = true;
            }
            (At::Waiting, Some((number, _))) => {
                if task.is_some_and(|task| task["state"] == "ci_wait" && task["pull"] == number) {
                    self.act.deed(self.issue, acted)(&mut scene.forge.world());
                }
            }
            (At::Asked | At::Merged, Some((number, pull))) if !self.armed => {
                let deed = self.act.deed(self.issue, acted);
                let fault = if self.at == At::Asked { Fault::Before(deed) } else { Fault::After(deed) };
                scene.forge.play(When::next("put", "/merge").about(&format!("/pulls/{number}")), fault);
                says(&pull.head, "success");
                self.armed = true;
            }
            (At::Working | At::Mending | At::Waiting | At::Asked | At::Merged, _) => {}
        }
    }

    fn acts_beside_the_agent(&mut self, scene: &Scene, task: Option<&Value>, acted: &Acted) {
        let Some(task) = task.filter(|task| task["state"] == "running") else { return };
        self.run = task["run"].as_str().map(str::to_owned);
        if self.run.is_none() {
            return;
        }
        self.act.deed(self.issue, acted)(&mut scene.forge.world());
        if self.act == Act::Push {
            // The only act beside which an agent may go on; any other has to stop it.
            std::fs::write(scene.host.path(format!("agents/go-{}", self.issue)), "").expect("room");
        }
    }

    fn is_over(&self, scene: &Scene, task: Option<&Value>) -> bool {
        match end(self.at, self.act) {
            End::LetGo | End::Merged { .. } => task.is_none(),
            // The state is told before it is written to the forge, the notice last.
            End::Asks => {
                task.is_some_and(|task| task["state"] == "needs_human")
                    && scene.comments(self.issue).iter().any(|it| it.contains("agent-loop:1 notice"))
            }
        }
    }

    /// What has to hold in the end.
    fn judge(&self, scene: &Scene, heard: &[Heard]) {
        let Self { at, act, issue, .. } = self;
        let name = format!("{act:?} when {at:?} (#{issue})");
        let end = end(*at, *act);
        if let Some(run) = &self.run
            && *act != Act::Push
        {
            let run = scene.host.ended(run);
            assert_eq!((&run["outcome"], &run["proven"]), (&"operator".into(), &true.into()), "{name}: {run}");
        }
        let world = scene.forge.world();
        let (it, pull) = (&world.issues[issue], pull_of(&world, *issue));
        let person_closed = *act == Act::Close;
        let closed = person_closed || matches!(end, End::Merged { .. });
        assert_eq!((it.open, it.closed), (!closed, u32::from(closed)), "{name}");
        let put = format!("/pulls/{}/merge", pull.as_ref().map_or(0, |(number, _)| *number));
        let merges: Vec<&Heard> = heard.iter().filter(|it| it.method == "PUT" && it.path.ends_with(&put)).collect();
        let done = merges.iter().filter(|it| it.status == Some(200)).count();
        let merged = pull.as_ref().and_then(|(_, pull)| Some((pull.head.clone(), pull.merged.clone()?.1)));
        let has_theirs = |at: &str| world.file(at, &format!("theirs-{issue}.txt")).is_some();
        match end {
            End::LetGo => {
                assert_eq!((merged, done), (None, 0), "{name}");
                // Before it has set a label it may be let go as it was found.
                let of_labels = format!("/issues/{issue}/labels");
                let set = heard.iter().any(|it| it.method != "GET" && it.path.contains(&of_labels));
                let untouched = *at == At::Claimed && *act == Act::Close && !set;
                assert_eq!(it.labels, if untouched { vec!["State/Ready"] } else { vec![] }, "{name}");
            }
            End::Merged { by, theirs } => {
                let (head, who) = merged.unwrap_or_else(|| panic!("{name}: nothing is merged"));
                assert_eq!(who == world.login, by == By::Us, "{name}: merged by {who}");
                assert_eq!(done, usize::from(by == By::Us), "{name}: {merges:#?}");
                assert_eq!(has_theirs(&head), theirs, "{name}: {head}");
                let left = world.at(&format!("refs/heads/{}", branch(*issue)));
                // A branch that somebody moved on is theirs.
                assert_eq!(left.is_some(), (*at, *act) == (At::Merged, Act::Push), "{name}: {left:?}");
                assert_eq!(it.labels, Vec::<String>::new(), "{name}");
            }
            End::Asks => {
                assert_eq!((merged, done, pull), (None, 0, None), "{name}");
                assert_eq!(it.labels, ["State/Question"], "{name}");
            }
        }
        let claim = world.at(&format!("refs/agent-loop/claims/{issue}"));
        assert_eq!(claim.is_some(), end == End::Asks, "{name}: {claim:?}");
        drop(world);
        let work = scene.host.path(format!("work/octo-org+playground+{issue}"));
        assert_eq!(work.exists(), end == End::Asks && *at != At::Claimed, "{name}: {}", work.display());
        let comments = scene.comments(*issue);
        let notices = comments.iter().filter(|it| it.contains("agent-loop:1 notice")).count();
        // Before it has said a word it may be let go without one.
        let silent = *at == At::Claimed && end == End::LetGo;
        let expected = (usize::from(end == End::Asks), usize::from(!silent));
        assert_eq!((notices, comments.len() - notices), expected, "{name}: {comments:#?}");
        let log = scene.left("log");
        let agents = log.matches(&format!("begin {issue} ")).count();
        let expected = match at {
            At::Claimed => 0,
            At::Mending => 2,
            At::Working | At::Pushed | At::Opened | At::Waiting | At::Asked | At::Merged => 1,
        };
        assert_eq!(agents, expected, "{name}: {log}");
    }
}

fn writes(scene: &Scene) -> Vec<Heard> {
    let heard = scene.forge.heard().into_iter();
    heard.filter(|it| it.method != "GET" && !it.template.is_empty()).collect()
}

/// Has tasks look now that wait to spare a real forge.
fn hurry(scene: &Scene, tasks: &Tasks) {
    for (key, task) in tasks {
        if matches!(task["state"].as_str(), Some("merge_gate" | "merging" | "merge_unknown" | "closing" | "opening")) {
            // It may have come to its end meanwhile.
            let _ = scene.host.ask(["resume", key]);
        }
    }
}

/// Plays them all side by side, in one repository under one daemon.
fn plays(pairs: &[(At, Act)]) {
    let scene = Scene::with(SCRIPT, "max_tasks = 64\n");
    {
        let mut world = scene.forge.world();
        world.ci = Ci::Running;
        world.closes = false;
    }
    let acted = Acted::default();
    let mut plays: Vec<Play> = pairs.iter().map(|(at, act)| Play::begin(&scene, *at, *act, &acted)).collect();
    let begun = Instant::now();
    let _daemon: Daemon = scene.serving();
    let mut hurried = Instant::now();
    let mut shown = BTreeMap::new();
    scene.until("every end", || {
        let tasks = tasks(&scene);
        for task in tasks.values() {
            if let Some(run) = task["run"].as_str() {
                let attempt = task["attempt"].clone();
                let first = shown.entry(run.to_owned()).or_insert_with(|| attempt.clone());
                assert_eq!(*first, attempt, "the run of one attempt is shown as another's: {task}");
            }
        }
        let of = |play: &Play| tasks.get(&scene.key(play.issue));
        plays.iter_mut().for_each(|play| play.goes_on(&scene, of(play), &acted));
        if hurried.elapsed() > Duration::from_secs(1) {
            hurry(&scene, &tasks);
            hurried = Instant::now();
        }
        let acted = acted.lock().expect("ours").len() == plays.len();
        (acted && plays.iter().all(|play| play.is_over(&scene, of(play)))).then_some(())
    });
    let took = begun.elapsed();
    // Nothing of it is taken up again, and nothing is said again.
    let (said, looks) = (writes(&scene).len(), scene.forge.count("GET", "/git/matching-refs/{ref}"));
    scene.until("two more looks", || (scene.forge.count("GET", "/git/matching-refs/{ref}") > looks + 2).then_some(()));
    let after = writes(&scene);
    assert_eq!(after.len(), said, "{:#?}", after.get(said..));
    let heard = scene.forge.heard();
    plays.iter().for_each(|play| play.judge(&scene, &heard));
    assert!(!scene.left("log").contains("TWICE"), "{}", scene.left("log"));
    scene.forge.assert_valid();
    eprintln!("{} acts of a person at moments of a life, in {took:?}: each has the last word", plays.len());
}

/// Each moment and each act once; `AGENT_LOOP_LIVES`, which `cargo xtask lives` sets, has every act played at every moment.
const SOME: [(At, Act); 9] = [
    (At::Claimed, Act::Unlabel),
    (At::Working, Act::Close),
    (At::Mending, Act::Merge),
    (At::Mending, Act::Push),
    (At::Pushed, Act::Close),
    (At::Opened, Act::ClosePull),
    (At::Waiting, Act::Unlabel),
    (At::Asked, Act::Push),
    (At::Merged, Act::Push),
];

#[test]
fn what_a_person_does_at_any_moment_of_a_life_has_the_last_word() {
    needs!(root, bpf, cgroup);
    if std::env::var_os("AGENT_LOOP_LIVES").is_none() {
        return plays(&SOME);
    }
    for (at, acts) in ALL {
        let pairs: Vec<(At, Act)> = acts.iter().map(|act| (*at, *act)).collect();
        plays(&pairs);
    }
}
