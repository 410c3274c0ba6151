//! The file as it is written, and the way from there to the domain's types. [pure]

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{
    Agent, AgentKind, Audit, Checks, Claims, Command, Config, ConfigError, Host, Keeper, Kernel, Limits, Merge, OnFull,
    Repo,
};
use crate::audit::redact::{UserName, UserPattern};
use crate::forge::MergeMethod;
use crate::forge::github::Login;
use crate::run;
use crate::supervise::Leftovers;
use crate::work::{Accept, Branch, Budgets, Labels, RepoName};

type Written<T> = Option<Spanned<T>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    host: HostSection,
    kernel: KernelSection,
    agent: AgentSection,
    limits: LimitsSection,
    audit: AuditSection,
    ci: CiSection,
    merge: MergeSection,
    claim: ClaimSection,
    budgets: BudgetsSection,
    repo: Vec<Spanned<RepoSection>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CiSection {
    required: Option<Vec<Spanned<String>>>,
    accept: Option<Vec<Spanned<String>>>,
    expect: Written<String>,
    start_grace: Written<String>,
    timeout: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MergeSection {
    enabled: Option<bool>,
    method: Written<String>,
    delete_branch: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClaimSection {
    renew: Written<String>,
    stale: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BudgetsSection {
    failures: Written<u32>,
    host_failures: Written<u32>,
    check_fixes: Written<u32>,
    conflict_fixes: Written<u32>,
    merges: Written<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RepoSection {
    name: Written<String>,
    api: Written<String>,
    token_file: Written<PathBuf>,
    app_id: Written<u64>,
    installation_id: Written<u64>,
    key_file: Written<PathBuf>,
    base: Written<String>,
    branch: Written<String>,
    ready: Written<String>,
    in_progress: Written<String>,
    question: Written<String>,
    priority: Option<Vec<Spanned<String>>>,
    allowed: Option<Vec<Spanned<String>>>,
    max_tasks: Written<u32>,
    poll: Written<String>,
    write_pause: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostSection {
    state_dir: Written<PathBuf>,
    log_dir: Written<PathBuf>,
    runtime_dir: Written<PathBuf>,
    work_dir: Written<PathBuf>,
    git: Written<PathBuf>,
    pins: Written<PathBuf>,
    cgroup_root: Written<PathBuf>,
    max_agents: Written<u32>,
    socket_group: Written<String>,
    owner: Written<String>,
    keeper: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KernelSection {
    ring_bytes: Written<u32>,
    execs_ring_bytes: Written<u32>,
    live_entries: Written<u32>,
    watch: Option<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentSection {
    user: Written<String>,
    allow_root: Option<bool>,
    env: Option<Vec<Spanned<String>>>,
    kind: Written<String>,
    command: Option<Vec<Spanned<String>>>,
    prompts: Written<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    wall: Written<String>,
    active: Written<String>,
    idle: Written<String>,
    grace: Written<String>,
    output_bytes: Written<u64>,
    memory_bytes: Written<u64>,
    tasks: Written<u64>,
    cpu_percent: Written<u32>,
    leftovers: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuditSection {
    redact_names: Option<Vec<Spanned<String>>>,
    redact_patterns: Option<Vec<Spanned<String>>>,
    segment_bytes: Written<u64>,
    segment_age: Written<String>,
    keep_bytes: Written<u64>,
    keep_age: Written<String>,
    on_full: Written<String>,
    anchor_dir: Written<PathBuf>,
    anchor_journal: Option<bool>,
    anchor_every: Written<String>,
}

/// The most runs at once: what a keeper holds.
const MOST_AGENTS: u32 = 1024;
/// A page, which no ring is smaller than; the largest ring.
const RINGS: std::ops::RangeInclusive<u32> = 4096..=1 << 30;
/// Fewer entries would be used up by one build; more are beyond any PID limit.
const ENTRIES: std::ops::RangeInclusive<u32> = 64..=1 << 22;
/// The kernel keeps this many bytes of a program's name.
const LONGEST_NAME: usize = 15;
/// The kernel side has room for 64 names, of which a trial needs one.
const MOST_WATCHED: usize = 60;
/// The API of GitHub itself.
const GITHUB: &str = "https://api.github.com";
/// The branch of an issue.
const BRANCH: &str = "issue-{number}-fix";
/// Smaller segments would be mostly heads; larger ones are slow to read from their middle.
const SEGMENTS: std::ops::RangeInclusive<u64> = 1 << 20..=4 << 30;
/// The shortest life of a segment, and the shortest time between two anchors.
const SHORTEST_AGE: Duration = Duration::from_secs(60);
const SHORTEST_ANCHORING: Duration = Duration::from_secs(10);
/// What is set from the user database.
const OURS: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];

/// Reads a text.
pub(super) fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
    let context = Context { text, name };
    let file: File = toml::from_str(text).map_err(|error| context.of_toml(&error))?;
    let config = Config {
        host: context.host(file.host)?,
        kernel: context.kernel(file.kernel)?,
        agent: context.agent(file.agent)?,
        limits: context.limits(file.limits)?,
        audit: context.audit(file.audit)?,
        ci: context.ci(file.ci)?,
        merge: context.merge(file.merge)?,
        claim: context.claim(file.claim)?,
        budgets: context.budgets(file.budgets)?,
        repos: context.repos(file.repo)?,
    };
    Ok(config)
}

struct Context<'a> {
    text: &'a str,
    name: &'a str,
}

impl Context<'_> {
    fn host(&self, it: HostSection) -> Result<Host, ConfigError> {
        let default = Host::default();
        let or = |key, written: Written<PathBuf>, default| Ok(self.directory(key, written)?.unwrap_or(default));
        Ok(Host {
            state_dir: or("host.state_dir", it.state_dir, default.state_dir)?,
            log_dir: or("host.log_dir", it.log_dir, default.log_dir)?,
            runtime_dir: or("host.runtime_dir", it.runtime_dir, default.runtime_dir)?,
            work_dir: or("host.work_dir", it.work_dir, default.work_dir)?,
            git: or("host.git", it.git, default.git)?,
            pins: or("host.pins", it.pins, default.pins)?,
            cgroup_root: self.directory("host.cgroup_root", it.cgroup_root)?,
            max_agents: self
                .checked("host.max_agents", it.max_agents, |agents| {
                    let fits = (1..=MOST_AGENTS).contains(agents);
                    if fits { Ok(()) } else { Err(format!("write a number from 1 to {MOST_AGENTS}")) }
                })?
                .unwrap_or(default.max_agents),
            socket_group: self.checked("host.socket_group", it.socket_group, |name| known_name(name))?,
            owner: self.checked("host.owner", it.owner, |name| known_name(name))?,
            keeper: self
                .read("host.keeper", it.keeper, |word| match word {
                    "start" => Ok(Keeper::Start),
                    "expect" => Ok(Keeper::Expect),
                    _ => Err("write \"start\" or \"expect\"".to_owned()),
                })?
                .unwrap_or(default.keeper),
        })
    }

    fn kernel(&self, it: KernelSection) -> Result<Kernel, ConfigError> {
        let default = Kernel::default();
        let ring = |bytes: &u32| {
            let good = bytes.is_power_of_two() && RINGS.contains(bytes);
            if good { Ok(()) } else { Err(format!("write a power of two from {} to {}", RINGS.start(), RINGS.end())) }
        };
        Ok(Kernel {
            ring_bytes: self.checked("kernel.ring_bytes", it.ring_bytes, ring)?.unwrap_or(default.ring_bytes),
            execs_ring_bytes: self
                .checked("kernel.execs_ring_bytes", it.execs_ring_bytes, ring)?
                .unwrap_or(default.execs_ring_bytes),
            live_entries: self
                .checked("kernel.live_entries", it.live_entries, |entries| {
                    let fits = ENTRIES.contains(entries);
                    let wanted = || format!("write a number from {} to {}", ENTRIES.start(), ENTRIES.end());
                    if fits { Ok(()) } else { Err(wanted()) }
                })?
                .unwrap_or(default.live_entries),
            watch: self.watch(it.watch)?.unwrap_or(default.watch),
        })
    }

    fn watch(&self, written: Option<Vec<Spanned<String>>>) -> Result<Option<Vec<String>>, ConfigError> {
        if let Some(one_more) = written.as_ref().and_then(|names| names.get(MOST_WATCHED)) {
            let why = format!("{:?}: write {MOST_WATCHED} names at most", one_more.get_ref());
            return Err(self.wrong("kernel.watch", &one_more.span(), why));
        }
        self.list("kernel.watch", written, |name| {
            let good = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(['/', '\0']);
            let wanted = "write the name of a program without its path, of 15 bytes at most";
            if good { Ok(()) } else { Err(wanted.to_owned()) }
        })
    }

    fn agent(&self, it: AgentSection) -> Result<Agent, ConfigError> {
        let default = Agent::default();
        let words = it.command.as_ref().and_then(|words| words.first()).map(Spanned::span);
        let kind = it.kind.as_ref().map(Spanned::span);
        let allow_root = it.allow_root.unwrap_or(default.allow_root);
        let agent = Agent {
            user: self.checked("agent.user", it.user, |user| {
                known_name(user)?;
                if user == "root" && !allow_root {
                    return Err("name a user of its own, or set `allow_root = true` below".to_owned());
                }
                Ok(())
            })?,
            allow_root,
            env: self
                .list("agent.env", it.env, |name| {
                    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    if OURS.contains(&name) {
                        return Err(format!("{name} is set from the user database; leave it out"));
                    }
                    let good =
                        !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_numeric());
                    if good { Ok(()) } else { Err("write the name of a variable, without a value".to_owned()) }
                })?
                .unwrap_or(default.env),
            command: Command {
                kind: self
                    .read("agent.kind", it.kind, |word| match word {
                        "claude" => Ok(AgentKind::Claude),
                        "command" => Ok(AgentKind::Command),
                        _ => Err("write \"claude\" or \"command\"".to_owned()),
                    })?
                    .unwrap_or_default(),
                command: self.list("agent.command", it.command, word)?.unwrap_or_default(),
                prompts: self.directory("agent.prompts", it.prompts)?,
            },
        };
        match (agent.command.agent(), words.or(kind)) {
            (Err(error), Some(place)) => Err(self.wrong("agent.command", &place, error.to_string())),
            // What is not written is what we wrote.
            (Ok(_), _) | (Err(_), None) => Ok(agent),
        }
    }

    fn limits(&self, it: LimitsSection) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let limit = |key, written| self.read(key, written, |text| span(text).and_then(some_time));
        let some = |number: &u64| {
            if *number > 0 { Ok(()) } else { Err("write more than 0, or leave it out for no limit".to_owned()) }
        };
        Ok(Limits {
            run: run::Limits {
                wall: limit("limits.wall", it.wall)?,
                active: limit("limits.active", it.active)?,
                idle: limit("limits.idle", it.idle)?,
                output_bytes: self.checked("limits.output_bytes", it.output_bytes, some)?,
                memory_bytes: self.checked("limits.memory_bytes", it.memory_bytes, some)?,
                tasks: self.checked("limits.tasks", it.tasks, some)?,
                cpu_percent: self
                    .checked("limits.cpu_percent", it.cpu_percent, |percent| some(&u64::from(*percent)))?,
            },
            grace: self.read("limits.grace", it.grace, span)?.unwrap_or(default.grace),
            leftovers: self
                .read("limits.leftovers", it.leftovers, |word| match word {
                    "kill" => Ok(Leftovers::Kill),
                    "wait" => Ok(Leftovers::Wait),
                    _ => Err("write \"kill\" or \"wait\"".to_owned()),
                })?
                .unwrap_or(default.leftovers),
        })
    }

    fn audit(&self, it: AuditSection) -> Result<Audit, ConfigError> {
        let name = |text: &str| UserName::parse(text).map(drop);
        let pattern = |text: &str| UserPattern::parse(text).map(drop);
        let default = Audit::default();
        let segment = |bytes: &u64| {
            let wanted = || format!("write a number of bytes from {} to {}", SEGMENTS.start(), SEGMENTS.end());
            if SEGMENTS.contains(bytes) { Ok(()) } else { Err(wanted()) }
        };
        let segment_bytes =
            self.checked("audit.segment_bytes", it.segment_bytes, segment)?.unwrap_or(default.segment_bytes);
        let segment_age = self
            .read("audit.segment_age", it.segment_age, |text| at_least(SHORTEST_AGE, text))?
            .unwrap_or(default.segment_age);
        Ok(Audit {
            segment_bytes,
            segment_age,
            keep_bytes: self.checked("audit.keep_bytes", it.keep_bytes, |bytes| {
                let wanted =
                    || format!("write at least the size of a segment, {segment_bytes}, or leave it out to keep all");
                if *bytes >= segment_bytes { Ok(()) } else { Err(wanted()) }
            })?,
            keep_age: self.read("audit.keep_age", it.keep_age, |text| at_least(segment_age, text))?,
            on_full: self
                .read("audit.on_full", it.on_full, |word| match word {
                    "stop-launching" => Ok(OnFull::StopLaunching),
                    "launch" => Ok(OnFull::Launch),
                    _ => Err("write \"stop-launching\" or \"launch\"".to_owned()),
                })?
                .unwrap_or(default.on_full),
            anchor_dir: self.directory("audit.anchor_dir", it.anchor_dir)?,
            anchor_journal: it.anchor_journal.unwrap_or(default.anchor_journal),
            anchor_every: self
                .read("audit.anchor_every", it.anchor_every, |text| at_least(SHORTEST_ANCHORING, text))?
                .unwrap_or(default.anchor_every),
            redact_names: self.list("audit.redact_names", it.redact_names, name)?.unwrap_or_default(),
            redact_patterns: self.list("audit.redact_patterns", it.redact_patterns, pattern)?.unwrap_or_default(),
        })
    }

    fn ci(&self, it: CiSection) -> Result<Checks, ConfigError> {
        let default = Checks::default();
        let accept = |text: &str| match text {
            "skipped" => Ok(Accept::Skipped),
            "neutral" => Ok(Accept::Neutral),
            _ => Err("write \"skipped\" or \"neutral\"; success is always accepted".to_owned()),
        };
        let accepted = self.list("ci.accept", it.accept, |text| accept(text).map(drop))?.unwrap_or_default();
        Ok(Checks {
            required: self.list("ci.required", it.required, word)?.unwrap_or_default(),
            accept: accepted.iter().filter_map(|text| accept(text).ok()).collect(),
            expect_none: self
                .read("ci.expect", it.expect, |text| match text {
                    "checks" => Ok(false),
                    "none" => Ok(true),
                    _ => Err("write \"checks\" or \"none\"".to_owned()),
                })?
                .unwrap_or(default.expect_none),
            start_grace: self.read("ci.start_grace", it.start_grace, seconds)?.unwrap_or(default.start_grace),
            timeout: self.read("ci.timeout", it.timeout, seconds)?.unwrap_or(default.timeout),
        })
    }

    fn merge(&self, it: MergeSection) -> Result<Merge, ConfigError> {
        let default = Merge::default();
        Ok(Merge {
            enabled: it.enabled.unwrap_or(default.enabled),
            method: self
                .read("merge.method", it.method, |text| match text {
                    "merge" => Ok(MergeMethod::Merge),
                    "squash" => Ok(MergeMethod::Squash),
                    "rebase" => Ok(MergeMethod::Rebase),
                    _ => Err("write \"squash\", \"merge\" or \"rebase\"".to_owned()),
                })?
                .unwrap_or(default.method),
            delete_branch: it.delete_branch.unwrap_or(default.delete_branch),
        })
    }

    fn claim(&self, it: ClaimSection) -> Result<Claims, ConfigError> {
        let default = Claims::default();
        let renew = self.read("claim.renew", it.renew, seconds)?.unwrap_or(default.renew);
        let place = it.stale.as_ref().map(Spanned::span).unwrap_or_default();
        let stale = self.read("claim.stale", it.stale, seconds)?.unwrap_or(default.stale);
        if stale < renew * 3 {
            let why = "write at least three times `renew`: a host that lives must never seem dead".to_owned();
            return Err(self.wrong("claim.stale", &place, why));
        }
        Ok(Claims { renew, stale })
    }

    fn budgets(&self, it: BudgetsSection) -> Result<Budgets, ConfigError> {
        let default = super::repo::budgets();
        let some = |key, written| {
            self.checked(key, written, |number: &u32| {
                if (1..=100).contains(number) { Ok(()) } else { Err("write a number from 1 to 100".to_owned()) }
            })
        };
        let any = |key, written| {
            self.checked(key, written, |number: &u32| {
                if *number <= 100 { Ok(()) } else { Err("write a number from 0 to 100".to_owned()) }
            })
        };
        Ok(Budgets {
            failures: some("budgets.failures", it.failures)?.unwrap_or(default.failures),
            host: some("budgets.host_failures", it.host_failures)?.unwrap_or(default.host),
            check_fixes: any("budgets.check_fixes", it.check_fixes)?.unwrap_or(default.check_fixes),
            conflict_fixes: any("budgets.conflict_fixes", it.conflict_fixes)?.unwrap_or(default.conflict_fixes),
            merges: some("budgets.merges", it.merges)?.unwrap_or(default.merges),
        })
    }

    fn repos(&self, written: Vec<Spanned<RepoSection>>) -> Result<Vec<Repo>, ConfigError> {
        let mut repos: Vec<Repo> = Vec::new();
        for section in written {
            let place = section.span();
            let repo = self.repo(section)?;
            if repos.iter().any(|known| known.name == repo.name && known.api == repo.api) {
                let why = format!("{} is there twice: leave one out", repo.name);
                return Err(self.wrong("repo.name", &place, why));
            }
            repos.push(repo);
        }
        Ok(repos)
    }

    fn repo(&self, section: Spanned<RepoSection>) -> Result<Repo, ConfigError> {
        let place = section.span();
        let it = section.into_inner();
        let missing = |key: &str, why: &str| self.wrong(key, &place, why.to_owned());
        let name =
            self.read("repo.name", it.name, |text| text.parse::<RepoName>().map_err(|error| error.to_string()))?;
        let name = name.ok_or_else(|| missing("repo.name", "write the repository's name, as \"owner/name\""))?;
        let file = |key, written| self.directory(key, written);
        let (token, key) = (file("repo.token_file", it.token_file)?, file("repo.key_file", it.key_file)?);
        let number = |key, written: Written<u64>| self.checked(key, written, |_| Ok(()));
        let (app, installation) =
            (number("repo.app_id", it.app_id)?, number("repo.installation_id", it.installation_id)?);
        let login = match (token, app, installation, key) {
            (Some(token), None, None, None) => Login::Token(token),
            (None, Some(app), Some(installation), Some(key)) => Login::App { app, installation, key },
            _ => {
                let why = "write either `token_file`, or `app_id`, `installation_id` and `key_file` together";
                return Err(missing("repo.token_file", why));
            }
        };
        let branch = self.checked("repo.branch", it.branch, |text: &String| {
            let safe = text.matches("{number}").count() == 1 && text.replace("{number}", "7").parse::<Branch>().is_ok();
            if safe {
                Ok(())
            } else {
                Err("write a branch with `{number}` in it, as \"issue-{number}-fix\"".to_owned())
            }
        })?;
        let default = Labels::default();
        let label = |key, written, default| {
            let found = self.read(key, written, |text| word(text).map(|()| text.to_owned()))?;
            Ok::<_, ConfigError>(found.unwrap_or(default))
        };
        let labels = Labels {
            ready: label("repo.ready", it.ready, default.ready)?,
            in_progress: label("repo.in_progress", it.in_progress, default.in_progress)?,
            question: label("repo.question", it.question, default.question)?,
        };
        if labels.ready == labels.in_progress
            || labels.ready == labels.question
            || labels.in_progress == labels.question
        {
            return Err(missing("repo.ready", "the three labels `ready`, `in_progress` and `question` must differ"));
        }
        let allowed = self.list("repo.allowed", it.allowed, word)?.unwrap_or_default();
        if allowed.is_empty() {
            let why = "write whose issues are taken: without a list nobody's are, and that is never meant";
            return Err(missing("repo.allowed", why));
        }
        Ok(Repo {
            name,
            api: self.checked("repo.api", it.api, |text| word(text))?.unwrap_or_else(|| GITHUB.to_owned()),
            login,
            base: self.read("repo.base", it.base, |text| text.parse::<Branch>().map_err(|error| error.to_string()))?,
            branch: branch.unwrap_or_else(|| BRANCH.to_owned()),
            labels,
            priority: self.list("repo.priority", it.priority, word)?.unwrap_or_default(),
            allowed,
            max_tasks: self
                .checked("repo.max_tasks", it.max_tasks, |number| {
                    if (1..=64).contains(number) { Ok(()) } else { Err("write a number from 1 to 64".to_owned()) }
                })?
                .unwrap_or(1),
            poll: self.read("repo.poll", it.poll, seconds)?.unwrap_or(Duration::from_secs(60)),
            write_pause: self.read("repo.write_pause", it.write_pause, span)?.unwrap_or(Duration::from_secs(1)),
        })
    }

    fn directory(&self, key: &str, written: Written<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
        self.checked(key, written, |path| {
            let wanted = "write an absolute path, without `..`";
            if is_plain(path) { Ok(()) } else { Err(wanted.to_owned()) }
        })
    }

    fn list(
        &self,
        key: &str,
        written: Option<Vec<Spanned<String>>>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(written) = written else { return Ok(None) };
        let one = |it: Spanned<String>| match check(it.get_ref()) {
            Ok(()) => Ok(it.into_inner()),
            Err(why) => Err(self.wrong(key, &it.span(), format!("{:?}: {why}", it.get_ref()))),
        };
        written.into_iter().map(one).collect::<Result<_, _>>().map(Some)
    }

    fn checked<T>(
        &self,
        key: &str,
        written: Written<T>,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(it) = written else { return Ok(None) };
        match check(it.get_ref()) {
            Ok(()) => Ok(Some(it.into_inner())),
            Err(why) => Err(self.wrong(key, &it.span(), why)),
        }
    }

    fn read<T>(
        &self,
        key: &str,
        written: Written<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(it) = written else { return Ok(None) };
        read(it.get_ref()).map(Some).map_err(|why| self.wrong(key, &it.span(), format!("{:?}: {why}", it.get_ref())))
    }

    fn wrong(&self, key: &str, span: &Range<usize>, why: String) -> ConfigError {
        ConfigError { file: self.name.to_owned(), line: Some(self.line(span.start)), key: Some(key.to_owned()), why }
    }

    /// What the TOML itself is wrong by: a key nobody knows, a value of the wrong type, the form.
    fn of_toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map(|span| span.start);
        // The library's own text draws a picture of several lines; its message is one.
        let why = error.message().replace('\n', "; ");
        ConfigError {
            file: self.name.to_owned(),
            line: start.map(|start| self.line(start)),
            key: start.and_then(|start| self.key_at(start)),
            why,
        }
    }

    /// The number of the line, from 1.
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// The key that the line at this place sets, with its section, as far as the text shows it.
    fn key_at(&self, at: usize) -> Option<String> {
        let number = self.line(at);
        let (key, _) = self.text.lines().nth(number - 1)?.split_once('=')?;
        let before: Vec<&str> = self.text.lines().take(number - 1).collect();
        let header = before.iter().rev().find(|line| line.trim_start().starts_with('['));
        let section = header.map(|line| line.trim().trim_matches(['[', ']']));
        let key = key.trim();
        Some(section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}")))
    }
}

fn is_plain(path: &Path) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(normal) && path.file_name().is_some() && !has_control(path)
}

fn has_control(path: &Path) -> bool {
    path.to_string_lossy().chars().any(char::is_control)
}

fn known_name(name: &str) -> Result<(), String> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/';
    if name.is_empty() || name.contains(odd) { Err("write the name of a user or group".to_owned()) } else { Ok(()) }
}

fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like \"90s\", \"10m\" or \"1h 30m\""))
}

/// At least a second.
fn seconds(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    if span.as_secs() > 0 { Ok(span) } else { Err("write at least \"1s\"".to_owned()) }
}

/// A name on a forge, or a word of a command: one line that says something.
fn word(text: &str) -> Result<(), String> {
    let good = !text.trim().is_empty() && text.len() <= 1000 && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err("write one line of text".to_owned()) }
}

fn at_least(shortest: Duration, text: &str) -> Result<Duration, String> {
    let wanted = || format!("write {} or more", humantime::format_duration(shortest));
    span(text).and_then(|span| if span >= shortest { Ok(span) } else { Err(wanted()) })
}

fn some_time(span: Duration) -> Result<Duration, String> {
    if span.is_zero() { Err("write more than 0, or leave it out for no limit".to_owned()) } else { Ok(span) }
}
