//! The file as it is written, and the way from there to the domain's types. [pure]

mod forge;
mod read;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use self::forge::{BudgetsSection, CiSection, ClaimSection, MergeSection, RepoSection};
use self::read::{Context, Written, at_least, known_name, some_time, span, word};
use super::{Agent, AgentKind, Audit, Command, Config, ConfigError, Host, Keeper, Kernel, Limits, OnFull};
use crate::audit::redact::{UserName, UserPattern};
use crate::run;
use crate::supervise::Leftovers;

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
}
