//! Whole lives by `serve` at a forge that loses answers, asks to wait, says what nobody knows, and takes the token away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use agent_loop_tests::fake_github::{Answer, Ci, Fault, Heard, TOKEN, When, World};
use agent_loop_tests::harness::Scene;
use agent_loop_tests::needs;
use serde_json::{Value, json};

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// It is done, and the connection ends without an answer.
    Unheard,
    /// It is not done, and the connection ends without an answer.
    Unsent,
    /// It is done, and the connection ends in the middle of the answer.
    Cut,
    /// It is done, and a gateway says that it is not.
    Gateway,
    /// It is not done: there were too many of late.
    Limited,
    /// It is not done: the token is not accepted, this once.
    Token,
}

/// Which write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Claim,
    Label,
    Comment,
    Pull,
    Merge,
    Close,
    Release,
    Branch,
}

const WRONGS: [Wrong; 6] = [Wrong::Unheard, Wrong::Unsent, Wrong::Cut, Wrong::Gateway, Wrong::Limited, Wrong::Token];
/// The writes before the checks are awaited, and those after it: a life has one fault of each.
const EARLY: [Which; 4] = [Which::Claim, Which::Label, Which::Comment, Which::Pull];
const LATE: [Which; 5] = [Which::Merge, Which::Close, Which::Branch, Which::Release, Which::Comment];

impl Wrong {
    fn fault(self) -> Fault {
        match self {
            Self::Unheard => Fault::Dropped { done: true },
            Self::Unsent => Fault::Dropped { done: false },
            Self::Cut => Fault::CutShort,
            Self::Gateway => Fault::Done(Answer::bad_gateway()),
            Self::Limited => Fault::Instead(Answer::secondary_limit(1)),
            Self::Token => Fault::Instead(Answer::bad_credentials()),
        }
    }

    const fn is_done(self) -> bool {
        match self {
            Self::Unheard | Self::Cut | Self::Gateway => true,
            Self::Unsent | Self::Limited | Self::Token => false,
        }
    }
}

/// One issue with what goes wrong in its life.
#[derive(Debug)]
struct Life {
    issue: u64,
    early: Which,
    late: Which,
    wrong: Wrong,
}

impl Life {
    fn plays_early(&self, scene: &Scene) {
        let (method, path, about) = match self.early {
            Which::Claim => ("post", "/git/refs", format!("claims/{}", self.issue)),
            Which::Label => ("post", "/labels", format!("/issues/{}", self.issue)),
            Which::Comment => ("post", "/comments", format!("/issues/{}", self.issue)),
            Which::Pull => ("post", "/pulls", format!("issue-{}-fix", self.issue)),
            Which::Merge | Which::Close | Which::Release | Which::Branch => panic!("{self:?}"),
        };
        scene.forge.play(When::next(method, path).about(&about), self.wrong.fault());
    }

    fn plays_late(&self, scene: &Scene) {
        let pull = pull_of(&scene.forge.world(), self.issue).expect("its checks are awaited");
        let (method, path, about) = match self.late {
            Which::Merge => ("put", "/merge", format!("/pulls/{pull}")),
            Which::Close => ("patch", "/issues/{issue_number}", format!("/issues/{}", self.issue)),
            Which::Branch => ("delete", "/git/refs/{ref}", format!("issue-{}-fix", self.issue)),
            Which::Release => ("delete", "/git/refs/{ref}", format!("claims/{}", self.issue)),
            Which::Comment => ("patch", "/issues/comments/{comment_id}", scene.key(self.issue)),
            Which::Claim | Which::Label | Which::Pull => panic!("{self:?}"),
        };
        scene.forge.play(When::next(method, path).about(&about), self.wrong.fault());
        // What is read before the merge has nulls and words that nobody knows in it, once each.
        let odd = |body: &mut Value| {
            for gone in ["mergeable", "merge_commit_sha", "body"] {
                body[gone] = Value::Null;
            }
            body["mergeable_state"] = json!("enchanted");
        };
        scene.forge.play(
            When::next("get", "/pulls/{pull_number}").about(&format!("/pulls/{pull}")),
            Fault::Changed(Box::new(odd)),
        );
        let ajar = |body: &mut Value| body["state"] = json!("ajar");
        let issue = format!("/issues/{}", self.issue);
        scene.forge.play(When::next("get", "/issues/{issue_number}").about(&issue), Fault::Changed(Box::new(ajar)));
    }

    /// Its checks, which run, say what nobody knows, or nothing, at one look each.
    fn plays_strange(&self, scene: &Scene) {
        let head = self.head(scene);
        let words = [
            (json!("percolating"), json!("sunny")),
            (json!("completed"), json!("sunny")),
            (json!("completed"), json!(null)),
        ];
        for (look, (status, conclusion)) in words.into_iter().enumerate() {
            let strange = move |body: &mut Value| {
                body["check_runs"][0]["status"] = status;
                body["check_runs"][0]["conclusion"] = conclusion;
                body["check_runs"][0]["app"] = Value::Null;
            };
            let when = When::next("get", "/check-runs").about(&head).after(look);
            scene.forge.play(when, Fault::Changed(Box::new(strange)));
        }
    }

    fn head(&self, scene: &Scene) -> String {
        let world = scene.forge.world();
        let pull = pull_of(&world, self.issue).expect("its checks are awaited");
        world.pulls[&pull].head.clone()
    }

    /// How often its checks were read.
    fn looks(&self, scene: &Scene) -> usize {
        let head = self.head(scene);
        let heard = scene.forge.heard();
        heard.iter().filter(|it| it.template.ends_with("/check-runs") && it.path.contains(&head)).count()
    }

    /// How often each write has to be asked for: once, and once more where nothing was done.
    fn judge_writes(&self, heard: &[Heard], pull: u64) {
        let (issue, pull) = (self.issue, format!("/pulls/{pull}/merge"));
        let (claim, branch) = (format!("agent-loop/claims/{issue}"), format!("issue-{issue}-fix"));
        let text = |it: &Heard, name: &str| it.body[name].as_str().unwrap_or_default().to_owned();
        let asked = |which: Which| {
            let is = |it: &&Heard| match which {
                Which::Claim => {
                    it.method == "POST" && it.path.ends_with("/git/refs") && text(it, "ref").ends_with(&claim)
                }
                Which::Label => it.method == "POST" && it.path.ends_with(&format!("/issues/{issue}/labels")),
                Which::Comment => it.method == "POST" && it.path.ends_with(&format!("/issues/{issue}/comments")),
                Which::Pull => {
                    it.method == "POST" && it.path.ends_with("/pulls") && text(it, "head").ends_with(&branch)
                }
                Which::Merge => it.method == "PUT" && it.path.ends_with(&pull),
                Which::Close => it.method == "PATCH" && it.path.ends_with(&format!("/issues/{issue}")),
                Which::Release => it.method == "DELETE" && it.path.ends_with(&claim),
                Which::Branch => it.method == "DELETE" && it.path.ends_with(&branch),
            };
            heard.iter().filter(is).count()
        };
        for which in [Which::Claim, Which::Label, Which::Comment, Which::Pull, Which::Merge, Which::Close] {
            // The late one of a comment is an edit of it.
            let hit = self.early == which || self.late == which && which != Which::Comment;
            let again = usize::from(hit && !self.wrong.is_done());
            assert_eq!(asked(which), 1 + again, "{self:?}: {which:?}, asked for again only where nothing was done");
        }
        // Its absence is no evidence of who removed it: a second request changes nothing, and is not made without need.
        for which in [Which::Release, Which::Branch] {
            assert!((1..=1 + usize::from(self.late == which)).contains(&asked(which)), "{self:?}: {which:?}");
        }
    }

    /// The same end as that of a life in which all goes well.
    fn judge(&self, scene: &Scene, heard: &[Heard]) {
        let world = scene.forge.world();
        let issue = &world.issues[&self.issue];
        assert_eq!((issue.open, issue.closed), (false, 1), "{self:?}");
        assert_eq!(issue.labels, Vec::<String>::new(), "{self:?}");
        let branch = format!("issue-{}-fix", self.issue);
        let pulls: Vec<_> = world.pulls.iter().filter(|(_, pull)| pull.head_branch == branch).collect();
        assert_eq!(pulls.len(), 1, "{self:?}: one pull request");
        let (number, pull) = pulls[0];
        assert_eq!(pull.merged.as_ref().map(|(_, by)| by), Some(&world.login), "{self:?}");
        assert_eq!(world.at(&format!("refs/heads/{branch}")), None, "{self:?}");
        let claim = world.at(&format!("refs/agent-loop/claims/{}", self.issue));
        // Given up by name, and its ref could not be removed: whoever wants it may have it.
        let is_left = self.late == Which::Release && !self.wrong.is_done();
        assert!(claim.is_none() || is_left, "{self:?}: {claim:?}");
        let number = *number;
        drop(world);
        self.judge_writes(heard, number);
        let comments = scene.comments(self.issue);
        assert_eq!(comments.len(), 1, "{self:?}: {comments:#?}");
        assert!(comments[0].contains("merged, and closed by that"), "{self:?}: {comments:#?}");
        let work = scene.host.path(format!("work/octo-org+playground+{}", self.issue));
        assert!(!work.exists(), "{self:?}");
        let begun = scene.left("log").matches(&format!("begin {}\n", self.issue)).count();
        assert_eq!(begun, 1, "{self:?}: one agent");
    }
}

fn pull_of(world: &World, issue: u64) -> Option<u64> {
    let branch = format!("issue-{issue}-fix");
    world.pulls.iter().find(|(_, pull)| pull.head_branch == branch).map(|(number, _)| *number)
}

/// Commits; issues that are held stay at work for as long as the test wants.
const SCRIPT: &str = "cat > /dev/null\necho \"begin $1\" >> \"$3/log\"\necho \"work on $1\" >> \"work-$1.txt\"\n\
                      git add \"work-$1.txt\"\ngit commit --quiet -m \"work on $1\"\n\
                      if [ -e \"$3/hold-$1\" ]; then while [ ! -e \"$3/go\" ]; do sleep 0.2; done; fi\n";

/// Has every task look now, instead of after a wait that is there to spare a real forge. None of them needs a person.
fn hurry(scene: &Scene) {
    for task in scene.repo()["tasks"].as_array().into_iter().flatten() {
        assert_ne!(task["state"], "needs_human", "what goes wrong here passes by itself: {task:#}");
        let slow = ["merge_gate", "merging", "merge_unknown", "closing", "done", "superseded", "opening", "ci_wait"];
        if slow.iter().any(|state| task["state"] == *state) || !task["trouble"].is_null() {
            // It may have come to its end meanwhile.
            let _ = scene.host.ask(["resume", task["issue"].as_str().expect("a name")]);
        }
    }
    let mut said = BTreeSet::new();
    for comment in scene.forge.world().comments.values() {
        assert!(said.insert(comment.issue), "said twice on issue {}: {}", comment.issue, comment.body);
    }
}

fn in_state(scene: &Scene, issues: &[u64], state: &str) -> bool {
    let tasks = scene.repo();
    let is = |issue: &u64| {
        let key = scene.key(*issue);
        let all = tasks["tasks"].as_array().into_iter().flatten();
        all.into_iter().any(|task| task["issue"] == key.as_str() && task["state"] == state)
    };
    issues.iter().all(is)
}

fn refused(scene: &Scene) -> usize {
    scene.forge.heard().iter().filter(|it| it.status == Some(401)).count()
}

/// Lives side by side, in one repository under one daemon: with a fault of an early write and one of a late write each.
fn lives(faults: &[(Which, Which, Wrong)]) {
    let scene = Scene::with(SCRIPT, "max_tasks = 64\n");
    {
        let mut world = scene.forge.world();
        world.ci = Ci::Running;
        world.closes = false;
        // The forge's clock is two hours behind the host's.
        world.clock_ahead = -7_200;
    }
    let mut lives = Vec::new();
    for &(early, late, wrong) in faults {
        let life = Life { issue: scene.issue(&format!("{wrong:?}: {early:?}, {late:?}")), early, late, wrong };
        life.plays_early(&scene);
        lives.push(life);
    }
    // Its agent is at work when the token is taken away.
    let held = scene.issue("held");
    std::fs::write(scene.host.path(format!("agents/hold-{held}")), "").expect("room");
    let begun = Instant::now();
    let _daemon = scene.serving();

    let early: Vec<u64> = lives.iter().map(|life| life.issue).collect();
    let mut hurried = Instant::now();
    let mut pace = || {
        if hurried.elapsed() > Duration::from_secs(1) {
            hurry(&scene);
            hurried = Instant::now();
        }
    };
    // What was not done is asked for again once it could have been seen: half a minute by the forge's clock, which is stepped.
    let is_there = |life: &Life| pull_of(&scene.forge.world(), life.issue).is_some();
    let mut stepped = Instant::now();
    scene.until("all checks to be awaited", || {
        pace();
        if stepped.elapsed() > Duration::from_secs(4) && !lives.iter().all(is_there) {
            scene.forge.world().clock_ahead += 31;
            stepped = Instant::now();
        }
        (in_state(&scene, &early, "ci_wait") && in_state(&scene, &[held], "running")).then_some(())
    });
    eprintln!("all at their checks after {:?}", begun.elapsed());

    // The token is taken away, in the middle of all of it; then there is a new one.
    let before = refused(&scene);
    {
        let mut world = scene.forge.world();
        world.tokens.clear();
        world.tokens.insert("ghp_another".to_owned());
    }
    std::fs::write(scene.host.path("agents/go"), "").expect("room");
    scene.until("everybody to be refused", || (refused(&scene) > before + lives.len()).then_some(()));
    scene.until("the trouble to be told", || {
        scene.repo()["trouble"].as_str().is_some_and(|it| it.contains("token")).then_some(())
    });
    scene.forge.write_token("ghp_another");
    scene.until("all to go on", || {
        pace();
        let mut all = early.clone();
        all.push(held);
        in_state(&scene, &all, "ci_wait").then_some(())
    });
    eprintln!("all with the new token after {:?}", begun.elapsed());

    let looks: Vec<usize> = lives.iter().map(|life| life.looks(&scene)).collect();
    lives.iter().for_each(|life| life.plays_strange(&scene));
    scene.until_unmerged("words that nobody knows to be read", || {
        pace();
        lives.iter().zip(&looks).all(|(life, before)| life.looks(&scene) > before + 3).then_some(())
    });
    lives.iter().for_each(|life| life.plays_late(&scene));
    scene.forge.world().ci = Ci::Passing;
    scene.until("every end", || {
        pace();
        let open = early.iter().chain([&held]).any(|issue| scene.forge.world().issues[issue].open);
        (!open && scene.repo()["tasks"].as_array().is_some_and(Vec::is_empty)).then_some(())
    });
    eprintln!("{} lives with a fault each before and after their checks, in {:?}", lives.len(), begun.elapsed());
    let heard = scene.forge.heard();
    lives.iter().for_each(|life| life.judge(&scene, &heard));
    scene.forge.assert_valid();
    assert_eq!(scene.files_with(TOKEN.as_bytes()).1, Vec::<std::path::PathBuf>::new());
}

/// The writes that matter most; `AGENT_LOOP_LIVES`, which `cargo xtask lives` sets, has every write go wrong in every way.
const SOME: [(Which, Which, Wrong); 6] = [
    (Which::Pull, Which::Merge, Wrong::Unheard),
    (Which::Comment, Which::Close, Wrong::Cut),
    (Which::Claim, Which::Comment, Wrong::Gateway),
    (Which::Label, Which::Branch, Wrong::Limited),
    (Which::Pull, Which::Close, Wrong::Unsent),
    (Which::Comment, Which::Merge, Wrong::Token),
];

#[test]
fn a_life_in_which_any_write_goes_wrong_comes_to_the_same_end() {
    needs!(root, bpf, cgroup);
    if std::env::var_os("AGENT_LOOP_LIVES").is_none() {
        return lives(&SOME);
    }
    for turn in 0..LATE.len() {
        let fault = |(at, wrong): (usize, Wrong)| {
            let at = at + turn;
            (EARLY[at % EARLY.len()], LATE[at % LATE.len()], wrong)
        };
        lives(&WRONGS.into_iter().enumerate().map(fault).collect::<Vec<_>>());
    }
}
