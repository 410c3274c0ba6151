//! The begin of a daemon: everything is opened in an order that lets a second daemon refuse before it changes anything.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use anyhow::Context as _;

use super::Setup;
use super::feed::Feed;
use super::keeper::Keeper;
use super::look_up::LookUp;
use super::remember::{Beside, Files, Remember};
use super::shell::{Daemon, unix_ns};
use crate::audit::OwnLines;
use crate::audit::log::{self, AuditLog, OpenError, Place, Settings};
use crate::audit::redact::{self, Redactor};
use crate::kernel::pins::Found;
use crate::store::{LogDir, SqliteStore, StateDir};
use crate::supervise::fleet::{Fleet, FleetSettings};

impl Daemon {
    /// Opens everything and takes stock of what earlier daemons left.
    pub(super) async fn start(setup: Setup) -> anyhow::Result<Self> {
        let state = StateDir::open(&setup.config.host.state_dir)?;
        let lock = state.lock()?;
        let key = log::tag_key(&Place::below(state.path()).keys)?;
        redact::settle(Redactor::new(setup.config.audit.policy(), key));
        let log = LogDir::open(&setup.config.host.log_dir)?;
        let store = SqliteStore::open(&state)?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
        let boot_id = boot_id.trim().to_owned();
        let keeper = Keeper::new(&setup, boot_id.clone());
        let claim = super::stock::claim(&setup)?;
        super::stock::refuse_strange_agents(&setup, &store)?;
        let (audit, troubles) = open_audit(&state, &log, &setup.config.audit.log(), &boot_id)?;
        let (tracing, found) = super::stock::tracing(&setup)?;
        let fleet = Fleet::new(FleetSettings { max_agents: setup.config.host.max_agents });
        let mut daemon = Self {
            setup,
            fleet,
            queue: VecDeque::new(),
            store: Remember::start("store", "the disk of the state", store)
                .context("starting the thread of the store")?,
            outputs: log.path().to_owned(),
            files: Beside::start("files", "a disk of the files of runs", Files { state, log })
                .context("starting the thread of the files of runs")?,
            launching: BTreeMap::new(),
            _lock: lock,
            _claim: claim,
            keeper,
            had_keeper: false,
            tracing,
            degraded: Vec::new(),
            unpinned: None,
            fresh: HashSet::new(),
            written: HashMap::new(),
            root: None,
            runs: HashMap::new(),
            tags: HashMap::new(),
            discards: Vec::new(),
            unproven: BTreeMap::new(),
            intents: BTreeMap::new(),
            frozen: BTreeMap::new(),
            unread: BTreeMap::new(),
            unheard: HashSet::new(),
            pipes: HashMap::new(),
            feed: Feed::new(),
            own_lines: OwnLines::new(&boot_id),
            audit,
            audit_trouble: None,
            past: BTreeMap::new(),
            unsaved: HashMap::new(),
            withheld: HashMap::new(),
            boot_id,
            since: unix_ns(),
            wake: None,
            armed: None,
            more: false,
            owes_round: false,
            trial: None,
            unseen: None,
            ready: None,
            serves: false,
            questions: None,
            deferred: VecDeque::new(),
            accepting: HashMap::new(),
            acknowledged: Vec::new(),
            awaited: HashMap::new(),
            issues: None,
            finished: false,
            accounts: LookUp::start().context("starting the thread that looks users up")?,
            ids: ulid::Generator::new(),
        };
        match found {
            Found::Adopted => {}
            Found::Fresh { why } => daemon.say(&format!("the kernel side is loaded anew: {why}")),
        }
        troubles.iter().for_each(|trouble| daemon.trouble(trouble));
        daemon.host_starts();
        daemon.first_stock().await?;
        daemon.serves = true;
        Ok(daemon)
    }

    fn host_starts(&mut self) {
        let kernel = nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
        let host = crate::audit::Host {
            version: env!("CARGO_PKG_VERSION"),
            schema: crate::audit::SCHEMA,
            kernel,
            backend: "ebpf",
            degraded: Vec::new(),
        };
        self.note(|lines, clock| lines.host(host, clock));
    }
}

/// Opens the audit log of the host; what is to be told of it beside. One that is not as it was left ends the start, one
/// that cannot be written now does not: agents may live, and are supervised without it.
fn open_audit(
    state: &StateDir,
    log: &LogDir,
    settings: &Settings,
    boot_id: &str,
) -> Result<(AuditLog, Vec<String>), OpenError> {
    let place = Place { audit: log.path().join("audit"), keys: state.path().join("audit-key") };
    match AuditLog::open(&place, settings.clone(), boot_id) {
        Ok((audit, opened)) => {
            let torn = opened.torn.into_iter().map(|torn| {
                let path = torn.path.display();
                format!("the last line of the audit log was torn; its {} bytes are in {path}, and declared", torn.bytes)
            });
            let mended = (opened.mended > 0).then(|| {
                let files = opened.mended;
                format!("{files} files of hashes of the audit log were not as they should be, as a power cut leaves them; they were made again from its lines, and that is declared")
            });
            Ok((audit, torn.chain(mended).collect()))
        }
        Err(error @ (OpenError::Failed { .. } | OpenError::Store(crate::store::StoreError::Failed { .. }))) => {
            let why = error.to_string();
            let told = format!("{why}; until the next start of agent-loop nothing is kept in the audit log");
            Ok((AuditLog::nowhere(&place, settings.clone(), boot_id, why), vec![told]))
        }
        Err(error) => Err(error),
    }
}
