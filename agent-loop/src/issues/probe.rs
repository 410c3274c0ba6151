//! What the forge says of a configuration: may the token do what is needed, are the labels there, what does the base demand.
//!
//! `findings` is pure; nothing is written at the forge.

use super::repo::reach;
use crate::config::{self, Config};
use crate::forge::github::GitHub;
use crate::forge::{Forge as _, ForgeError, Identity, MergeMethod, RefName, Repository, Requirements, Scopes};
use crate::work::Branch;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `owner/name`.
    pub repo: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub says: String,
    /// What to do about it; empty where nothing is to be done.
    pub next: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// It works, and may not be what is wanted.
    Note,
    /// With this no issue is brought to its end.
    Wrong,
}

impl Level {
    /// The word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Wrong => "wrong",
        }
    }
}

/// Asks the forge of each repository.
pub async fn probe(config: &Config) -> Vec<Finding> {
    let mut all = Vec::new();
    for settings in &config.repos {
        let name = settings.name.to_string();
        match look(settings).await {
            Ok(seen) => all.extend(findings(settings, config, &seen)),
            Err(error) => all.push(Finding {
                repo: name,
                level: Level::Wrong,
                says: format!("{error:#}"),
                next: "check `name`, `api`, the token and the network, then probe again".to_owned(),
            }),
        }
    }
    all
}

/// What was read of a repository.
#[derive(Clone, Debug)]
struct SeenRepo {
    us: Identity,
    repository: Repository,
    base: Branch,
    labels: Vec<String>,
    requirements: Result<Requirements, String>,
    claims: Result<usize, String>,
    /// Whether what a verdict rests on can be read.
    checks: Result<(), String>,
}

async fn look(settings: &config::Repo) -> anyhow::Result<SeenRepo> {
    let (forge, us, base) = reach(settings).await?;
    Ok(SeenRepo {
        us,
        repository: forge.repository().await?,
        labels: forge.labels().await?,
        requirements: forge.requirements(&base).await.map_err(|error| error.to_string()),
        claims: forge.references(&RefName::claims()).await.map(|all| all.len()).map_err(|error| error.to_string()),
        checks: checks(&forge, &base).await.map_err(|error| error.to_string()),
        base,
    })
}

/// Reads the checks of the base, as those of a pull request will be.
async fn checks(forge: &GitHub, base: &Branch) -> Result<(), ForgeError> {
    // That it is not there is told by what it requires.
    let Some(head) = forge.reference(&RefName::branch(base)).await? else { return Ok(()) };
    forge.check_runs(&head).await?;
    forge.statuses(&head).await?;
    forge.workflow_runs(&head).await?;
    Ok(())
}

/// What that means for this configuration.
fn findings(settings: &config::Repo, config: &Config, seen: &SeenRepo) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut found = |level, says: String, next: &str| {
        all.push(Finding { repo: settings.name.to_string(), level, says, next: next.to_owned() });
    };
    found(Level::Good, format!("logged in as {}", seen.us.login.0), "");
    scopes(&seen.us.scopes, &mut found);
    match seen.repository.push {
        Some(true) => found(Level::Good, "the account may push".to_owned(), ""),
        Some(false) => {
            found(Level::Wrong, "the account may not push".to_owned(), "give it the role Write in the repository")
        }
        None => found(Level::Note, "the forge does not tell whether the account may push".to_owned(), ""),
    }
    let method = config.merge.method;
    if let Some(allowed) = &seen.repository.methods
        && config.merge.enabled
        && !allowed.contains(&method)
    {
        let words: Vec<&str> = allowed.iter().map(|method| word(*method)).collect();
        let says = format!("[merge] method is {:?}, and the repository allows {}", word(method), words.join(", "));
        found(Level::Wrong, says, "write one that is allowed, or allow it in the repository's settings");
    }
    let labels = &settings.labels;
    let missing = |label: &&String| !seen.labels.iter().any(|it| it == *label);
    let gone: Vec<&String> =
        [&labels.ready, &labels.in_progress, &labels.question].into_iter().filter(missing).collect();
    if gone.is_empty() {
        found(Level::Good, "its three labels are there".to_owned(), "");
    }
    for label in gone {
        let next = if *label == labels.ready {
            "create it there: no issue can have it, so none is taken"
        } else {
            "create it there; else the forge makes it when it is first set, without a colour of your choice"
        };
        let level = if *label == labels.ready { Level::Wrong } else { Level::Note };
        found(level, format!("there is no label {label:?}"), next);
    }
    for label in settings.priority.iter().filter(missing) {
        found(Level::Note, format!("there is no label {label:?}, which `priority` names"), "create it, or take it out");
    }
    requirements(config, seen, &mut found);
    if config.limits.run.wall.is_none() && config.limits.run.active.is_none() {
        let says = "[limits] has no `wall`: an agent that never ends keeps its place for ever".to_owned();
        found(Level::Note, says, "write how long an agent may take, as `wall = \"2h\"`");
    }
    match &seen.claims {
        Ok(count) => found(Level::Good, format!("claims can be read: {count} are held"), ""),
        Err(why) => {
            found(Level::Wrong, format!("claims cannot be read: {why}"), "give the token the right to read contents")
        }
    }
    match &seen.checks {
        Ok(()) => found(Level::Good, "checks can be read".to_owned(), ""),
        Err(why) => {
            let next = "give it the right to read checks, actions and commit statuses; a fine-grained token of an account \
                        cannot have the first: use a GitHub App, or a classic token";
            found(Level::Wrong, format!("checks cannot be read, so nothing is ever green: {why}"), next);
        }
    }
    all
}

fn scopes(scopes: &Scopes, found: &mut impl FnMut(Level, String, &str)) {
    let Scopes::Classic(scopes) = scopes else {
        let needs = "it needs to read and write contents, issues and pull requests, and to read checks, actions and commit \
                     statuses; workflows too where agents change them";
        return found(Level::Note, "the forge does not tell what this kind of token may do".to_owned(), needs);
    };
    let has = |scope: &str| scopes.iter().any(|it| it == scope);
    if has("repo") {
        found(Level::Good, "the token has the scope `repo`".to_owned(), "");
    } else if has("public_repo") {
        found(
            Level::Note,
            "the token has the scope `public_repo`".to_owned(),
            "for a private repository give it `repo`",
        );
    } else {
        found(Level::Wrong, "the token has not the scope `repo`".to_owned(), "make one that has it");
    }
    if !has("workflow") {
        let says = "the token has not the scope `workflow`: a push that changes a workflow is refused".to_owned();
        found(Level::Note, says, "give it that scope where agents are to change workflows");
    }
    let more: Vec<&str> =
        scopes.iter().map(String::as_str).filter(|it| it.contains("admin") || it.contains("delete")).collect();
    if !more.is_empty() {
        let says = format!("the token may do more than is needed: {}", more.join(", "));
        found(Level::Note, says, "make one without these scopes");
    }
}

fn requirements(config: &Config, seen: &SeenRepo, found: &mut impl FnMut(Level, String, &str)) {
    let base = &seen.base;
    let requirements = match &seen.requirements {
        Ok(requirements) => requirements,
        Err(why) => {
            let next = "see that the branch is there and that the token may read the repository's rules";
            return found(Level::Wrong, format!("what {base} requires cannot be read: {why}"), next);
        }
    };
    if requirements.merge_queue {
        let next = "take the queue away for this branch, or set `enabled = false` in [merge]: a person merges then";
        found(Level::Wrong, format!("{base} has a merge queue, which agent-loop does not use"), next);
    }
    if requirements.hidden {
        let next = "give the token the right to read administration, or turn the protection into a ruleset";
        found(
            Level::Wrong,
            format!("{base} is protected, and this token is not told which checks that requires"),
            next,
        );
    }
    if !requirements.unknown.is_empty() {
        let says = format!("{base} has rules of kinds that are not known: {}", requirements.unknown.join(", "));
        found(Level::Wrong, says, "take them away: while they are there nothing counts as green");
    }
    if requirements.approvals > 0 {
        let says =
            format!("{base} requires {} approving reviews: each pull request waits for them", requirements.approvals);
        found(Level::Note, says, "");
    }
    let mut names: Vec<&str> = requirements.checks.iter().map(|check| check.name.as_str()).collect();
    names.extend(config.ci.required.iter().map(String::as_str));
    if !names.is_empty() {
        found(Level::Good, format!("required of a pull request into {base}: {}", names.join(", ")), "");
    } else if config.ci.expect_none {
        let says = format!("{base} requires no check, and [ci] expects none: what an agent commits is merged unseen");
        found(Level::Note, says, "write `expect = \"checks\"` where that is not meant");
    } else {
        let says = format!("{base} requires no check by name: a head is green once one has passed and none says no");
        found(Level::Note, says, "require checks by name, there or as `required` in [ci]");
    }
}

const fn word(method: MergeMethod) -> &'static str {
    match method {
        MergeMethod::Merge => "merge",
        MergeMethod::Squash => "squash",
        MergeMethod::Rebase => "rebase",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{Login, RequiredCheck};

    fn config() -> Config {
        let text = "[agent]\nuser = \"a\"\n[limits]\nwall = \"1h\"\n[[repo]]\nname = \"o/r\"\ntoken_file = \"/t\"\nallowed = [\"a\"]\n";
        Config::parse(text, "c").expect("it is good")
    }

    fn seen() -> SeenRepo {
        let check = RequiredCheck { name: "test".to_owned(), app: None };
        SeenRepo {
            us: Identity {
                login: Login("bot".to_owned()),
                app: None,
                scopes: Scopes::Classic(vec!["repo".to_owned(), "workflow".to_owned()]),
            },
            repository: Repository {
                name: "o/r".to_owned(),
                default_branch: "main".to_owned(),
                archived: false,
                push: Some(true),
                methods: Some(vec![MergeMethod::Squash]),
            },
            base: "main".parse().expect("a branch"),
            labels: ["State/Ready", "State/InProgress", "State/Question"].map(str::to_owned).to_vec(),
            requirements: Ok(Requirements { checks: vec![check], ..Requirements::default() }),
            claims: Ok(0),
            checks: Ok(()),
        }
    }

    fn levels(seen: &SeenRepo, config: &Config) -> (usize, usize, String) {
        let all = findings(&config.repos[0], config, seen);
        let of = |level| all.iter().filter(|it| it.level == level).count();
        assert!(all.iter().filter(|it| it.level == Level::Wrong).all(|it| !it.next.is_empty()), "{all:#?}");
        (of(Level::Wrong), of(Level::Note), all.iter().map(|it| format!("{}\n", it.says)).collect())
    }

    #[test]
    fn a_good_repository_has_nothing_to_say_against_it() {
        let (wrong, notes, says) = levels(&seen(), &config());
        assert_eq!((wrong, notes), (0, 0), "{says}");
        assert!(says.contains("required of a pull request into main: test"), "{says}");
    }

    #[test]
    fn each_thing_that_stands_in_the_way_is_found() {
        type Change = fn(&mut SeenRepo);
        let rows: [(Change, &str); 9] = [
            (|it| it.us.scopes = Scopes::Classic(vec!["workflow".to_owned()]), "not the scope `repo`"),
            (|it| it.repository.push = Some(false), "may not push"),
            (|it| it.repository.methods = Some(vec![MergeMethod::Rebase]), "allows rebase"),
            (|it| it.labels.retain(|label| label != "State/Ready"), "no label \"State/Ready\""),
            (|it| it.requirements = Ok(Requirements { merge_queue: true, ..Requirements::default() }), "merge queue"),
            (|it| it.requirements = Ok(Requirements { hidden: true, ..Requirements::default() }), "is not told"),
            (|it| it.requirements = Err("404".to_owned()), "cannot be read: 404"),
            (|it| it.claims = Err("403".to_owned()), "claims cannot be read"),
            (|it| it.checks = Err("403".to_owned()), "checks cannot be read"),
        ];
        for (change, words) in rows {
            let mut bad = seen();
            change(&mut bad);
            let (wrong, _, says) = levels(&bad, &config());
            assert!(wrong == 1 && says.contains(words), "{words}: {wrong}: {says}");
        }
    }

    #[test]
    fn what_works_and_may_not_be_meant_is_a_note() {
        let mut odd = seen();
        odd.us.scopes = Scopes::Untold;
        odd.labels.retain(|label| label == "State/Ready");
        odd.requirements = Ok(Requirements { approvals: 2, ..Requirements::default() });
        let (wrong, notes, says) = levels(&odd, &config());
        assert_eq!((wrong, notes), (0, 5), "{says}");
        let mut endless = config();
        endless.limits.run.wall = None;
        let (wrong, notes, says) = levels(&seen(), &endless);
        assert!((wrong, notes) == (0, 1) && says.contains("never ends"), "{says}");
    }
}
