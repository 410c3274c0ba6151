//! A host in trouble: what a daemon cannot open, take up or prove ends no agent, loses none, and holds nobody up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agent_loop::keeper::process::client::Client;
use agent_loop::keeper::process::protocol::{Descriptors, Reply, Request};
use agent_loop_tests::harness::{Host, agent_loop, eventually};
use agent_loop_tests::{needs, sys};

use super::shell;

fn end(host: &Host, id: &str) {
    let killed = host.ask(["kill", id, "--reason", "the test is over"]);
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    assert_eq!(host.ended(id)["outcome"], "operator");
}

/// Makes the configuration that of a daemon with directories of its own; `shared` is what it has in common.
fn configure_another(host: &Host, first: &str, shared: &str) {
    let other = |line: &str| match line.split_once(" = ") {
        Some((key, value)) if key != "user" && key != shared => format!("{key} = {}-2\"", value.trim_end_matches('"')),
        _ => line.to_owned(),
    };
    let text: Vec<String> = first.lines().map(other).collect();
    fs::write(host.path("config.toml"), text.join("\n")).expect("a scratch file");
}

#[test]
fn a_daemon_with_a_state_of_its_own_is_refused_where_another_has_its_runs_or_pins() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _first = host.serving();
    let id = host.start(&["--grace", "100ms"], shell("sleep 60"));
    host.in_state(&id, "running");
    let text = fs::read_to_string(host.path("config.toml")).expect("the configuration");
    // The cgroups there are of nobody that the other state remembers; the rings have one reader.
    for shared in ["cgroup_root", "pins"] {
        configure_another(&host, &text, shared);
        let mut second = host.serve();
        let refused = !second.ready_or_ended();
        assert!(refused && second.wait().code() == Some(8), "{shared}: {}", second.log());
        assert_eq!(host.run(&id)["state"], "running", "{shared}: {}", second.log());
    }
    end(&host, &id);
}

#[test]
fn an_audit_log_that_was_changed_ends_the_start_and_leaves_agents_alone() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&["--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    host.in_state(&id, "running");
    // What is signed cannot be changed unseen.
    let born = host.events(&id).iter().find(|event| event["kind"] == "run.born").and_then(|born| born["seq"].as_u64());
    let born = born.expect("its birth");
    eventually("the birth to be signed", || (verified(&host).signed > born).then_some(()));
    daemon.kill();
    let segment = host.path("log/audit/seg/000000000000.jsonl");
    let text = fs::read_to_string(&segment).expect("a segment");
    fs::write(&segment, text.replacen("run.born", "run.bOrn", 1)).expect("written");
    let mut second = host.serve();
    assert!(!second.ready_or_ended());
    assert_eq!(second.wait().code(), Some(5), "{}", second.log());
    assert!(second.log().contains("audit verify"), "{}", second.log());
    assert!(!fs::read_to_string(host.runs().join(format!("run-{id}/cgroup.procs"))).expect("its cgroup").is_empty());

    // Moved away as it says, the run goes on, and what the log said of it is declared lost.
    fs::rename(host.path("log/audit"), host.path("log/audit.kept")).expect("renamed");
    let daemon = host.serving();
    assert_eq!(host.run(&id)["state"], "running", "{}", daemon.log());
    end(&host, &id);
    host.ended(&id);
    let gaps = host.events(&id).iter().filter(|event| event["kind"] == "gap").count();
    assert!(gaps > 0, "{:?}", host.events(&id));
}

#[test]
fn the_audit_log_of_a_daemon_verifies_and_its_sums_add_up() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let ids: Vec<String> = (0..3).map(|code| host.start(&[], shell(&format!("/bin/true; exit {code}")))).collect();
    ids.iter().for_each(|id| drop(host.ended(id)));
    let long = host.start(&["--grace", "100ms"], shell("sleep 300"));
    host.in_state(&long, "running");
    assert!(daemon.terminate().success());
    let report = verified(&host);
    assert_eq!((report.verdict().code(), report.lines, report.runs), (1, report.signed, 3), "{report:?}");
    let _daemon = host.serving();
    host.ask(["kill", &long, "--reason", "the test is over"]);
    host.ended(&long);
    let report = verified(&host);
    assert!(report.damage.is_empty() && report.sums.as_ref().is_some_and(Vec::is_empty), "{report:?}");
    let text = fs::read_to_string(host.path("log/audit/seg/000000000000.jsonl")).expect("a segment");
    for kind in
        ["host.start", "host.stop", "admin", "run.intent", "run.born", "run.adopted", "run.stop_asked", "run.exit"]
    {
        assert!(text.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }
}

/// The host's audit log, judged.
fn verified(host: &Host) -> agent_loop::audit::verify::Report {
    let options = agent_loop::audit::verify::Options { account: true, ..Default::default() };
    agent_loop::audit::verify::verify(&host.path("log/audit"), &options, &mut |_| {}).expect("a log")
}

#[test]
fn a_run_whose_empty_cgroup_was_removed_while_no_daemon_ran_is_over_with_its_true_status() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let id = host.start(&[], shell(&format!("until [ -e {0} ]; do sleep 0.02; done; exit 41", go.display())));
    host.in_state(&id, "running");
    daemon.kill();
    fs::write(&go, "").expect("a scratch file");
    eventually("its cgroup to be removed", || fs::remove_dir(host.runs().join(format!("run-{id}"))).ok());
    let daemon = host.serving();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &41.into()), "{run}\n{}", daemon.log());
}

/// A keeper that no daemon started, in the host's cgroup: stopped, it stays so when its daemon ends, where the kernel
/// would let a child of that go on with a SIGHUP.
pub(crate) struct Keeper(Child);

impl Keeper {
    /// Starts one that may have this many files open.
    pub(crate) fn start(host: &Host, files: u64) -> Self {
        Self::start_with(host, files, || Ok(()))
    }

    /// As [`Keeper::start`], with something that it does before it is the keeper.
    pub(crate) fn start_with(
        host: &Host,
        files: u64,
        hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(host, &host.path("run/keeper"), files, hook)
    }

    /// As [`Keeper::start_with`], with its socket in this directory.
    pub(crate) fn start_at(
        host: &Host,
        place: &Path,
        files: u64,
        mut hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        fs::create_dir_all(place).expect("a directory");
        fs::set_permissions(place, fs::Permissions::from_mode(0o700)).expect("our directory");
        let mut command = Command::new(agent_loop());
        command.args(["keeper", "--socket"]).arg(place.join("socket")).arg("--runs").arg(host.runs());
        command.arg("--pins").arg(host.pins()).args(["--user", "nobody"]).stdin(Stdio::null());
        let procs = host.runs().parent().expect("the host's cgroup").join("cgroup.procs");
        sys::before_exec(&mut command, move || {
            sys::default_signals();
            fs::write(&procs, "0")?;
            hook()
        });
        let child = command.spawn().expect("a keeper");
        eventually("the keeper to listen", || socket_listens(&place.join("socket")));
        limit_files(child.id(), files);
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn socket_listens(path: &Path) -> Option<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let address = UnixAddr::new(path).expect("a path");
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address).ok()
}

fn limit_files(pid: u32, files: u64) {
    let status = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={files}:")).status();
    assert!(status.expect("prlimit").success());
}

fn without_daemon_and_keeper(host: &Host, daemon: &mut agent_loop_tests::harness::Daemon) {
    daemon.kill();
    for pid in host.processes() {
        let pidfd = sys::pidfd_open(pid.cast_signed()).expect("a pidfd");
        sys::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL).expect("ours: it is in our cgroup");
        assert!(sys::pidfd_ended(std::os::fd::AsFd::as_fd(&pidfd), agent_loop_tests::harness::PATIENCE));
    }
}

#[test]
fn a_run_that_a_keeper_could_not_take_up_is_taken_up_once_it_can() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&["--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    host.in_state(&id, "running");
    without_daemon_and_keeper(&host, &mut daemon);
    let count =
        |keeper: &Keeper| fs::read_dir(format!("/proc/{}/fd", keeper.0.id())).expect("its files").count() as u64;
    let keeper = Keeper::start(&host, 1024);
    // Room for its client, not for what comes with an adoption.
    let threads = |keeper: &Keeper| fs::read_dir(format!("/proc/{}/task", keeper.0.id())).expect("its threads").count();
    let idle = eventually("a keeper with all that it has", || (threads(&keeper) == 2).then(|| count(&keeper)));
    limit_files(keeper.0.id(), idle + 1);
    let daemon = host.serving();
    assert!(daemon.log().contains("does not adopt"), "{}", daemon.log());
    limit_files(keeper.0.id(), 1024);
    end(&host, &id);
}

#[test]
fn a_main_process_that_a_keeper_cannot_prove_is_not_taken_for_dead() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {0} ]; do sleep 0.02; done; exit 9", go.display());
    let id = host.start(&[], shell(&script));
    host.in_state(&id, "running");
    without_daemon_and_keeper(&host, &mut daemon);
    let _keeper = Keeper::start(&host, 1024);
    adopt_without_main(&host, &id);
    let daemon = host.serving();
    // As many looks as a leftover would outlive not one of.
    let state = host.run(&id)["state"].clone();
    assert_eq!(state, "running", "{}", daemon.log());
    fs::write(&go, "").expect("a scratch file");
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &9.into()), "{run}\n{}", daemon.log());
    assert_eq!(run["leftovers"], 0, "{run}");
}

/// Has the keeper hold a run without its main process, as one does that could not prove it.
fn adopt_without_main(host: &Host, id: &str) {
    use std::os::unix::fs::MetadataExt;
    let run = format!("run-{id}");
    let cgroup = fs::metadata(host.runs().join(&run)).expect("its cgroup").ino();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, ..) = Client::connect(&host.path("run/keeper/socket")).await.expect("the keeper");
        let request = Request::Adopt { run, cgroup, main: None, fds: Descriptors::default(), output_bytes: None };
        let answer = client.ask(request, &[]).await.expect("an answer").reply;
        assert_eq!(answer, Reply::Adopted { main_alive: false });
    });
}

#[test]
fn a_cgroup_that_was_to_be_discarded_and_is_gone_is_not_discarded_for_ever() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("keeper = \"expect\"", "user = \"nobody\"\n", "");
    let unknown = host.runs().join("run-00000000010000000000000002");
    fs::create_dir_all(&unknown).expect("a cgroup");
    let _daemon = host.serving();
    let waits = || host.asked(["status"])["degraded"].to_string().contains("still being discarded");
    assert!(waits(), "there is no keeper yet");
    fs::remove_dir(&unknown).expect("empty");
    let _keeper = Keeper::start(&host, 1024);
    eventually("the keeper to be found", || host.has_keeper());
    eventually("the end of the discarding", || (!waits()).then_some(()));
}

#[test]
fn standard_input_is_not_read_through_a_symbolic_link() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let secret = host.path("secret");
    fs::write(&secret, "a secret of root's").expect("a scratch file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("our file");
    // Whoever may write to that directory chooses what the link leads to: an agent, here.
    let link = host.path("agents/prompt");
    std::os::unix::fs::symlink(&secret, &link).expect("a link");
    let id = host.start(&["--stdin", &link.display().to_string()], ["cat"]);
    let run = host.ended(&id);
    assert_eq!((run["outcome"].as_str(), host.output(&id).as_str()), (Some("launch_failed"), ""), "{run}");
    let id = host.start(&["--stdin", &secret.display().to_string()], ["cat"]);
    host.ended(&id);
    assert_eq!(host.output(&id), "a secret of root's", "root names what it likes");
}

#[test]
fn i12_an_agent_that_executes_without_end_does_not_keep_the_daemon_from_answering() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    // More than is read and written in the same time: there are always records to be read. Bounded, should all else fail.
    let storm = r#"perl -e 'for (1..6000) { system { "/bin/true" } "true", "\x01" x 6000 }' & "#;
    let id = host.start(&["--grace", "100ms"], shell(&format!("{} wait", storm.repeat(4))));
    host.in_state(&id, "running");
    eventually("the storm", || (host.run(&id)["alive"].as_u64()? >= 4).then_some(()));
    for _ in 0..10 {
        // One answer at the end of the storm is none.
        let run = host.run(&id);
        assert_eq!(run["state"], "running", "{run}");
    }
    // So has a stop, and what it does next when that is due: it goes before the records that wait.
    let asked = host.ask(["kill", &id, "--reason", "the test is over"]);
    assert!(asked.status.success(), "{asked:?}");
    assert_eq!(host.ended(&id)["outcome"], "operator", "stopped as asked, not at the end of the storm");
}

#[test]
fn a_submission_that_was_refused_since_it_could_not_be_remembered_is_not_told_of_for_ever() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let state = host.path("state");
    fs::create_dir(&state).expect("a directory");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("our directory");
    // In the mount namespace of this thread, which ends with it.
    let small = Some("size=1m,mode=0700");
    nix::mount::mount(Some("tmpfs"), &state, Some("tmpfs"), nix::mount::MsFlags::empty(), small).expect("a small disk");
    let _daemon = host.serving();
    let filler = state.join("filler");
    fs::write(&filler, vec![0; 2 << 20]).expect_err("the disk to be full");
    let refused = host.ask(["start", "--cwd", "/", "--", "true"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot be remembered"), "{refused:?}");
    fs::remove_file(&filler).expect("the file");
    assert_eq!(host.asked(["status"])["degraded"], serde_json::json!([]));
    let id = host.start(&[], ["true"]);
    assert_eq!(host.ended(&id)["code"], 0);
}
