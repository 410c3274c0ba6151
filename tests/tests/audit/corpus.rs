//! A line of every kind, and of every shape that a kind has: what the schema and the exports are tried on.

use std::time::Duration;

use agent_loop::audit::{Clock, Counts, Host, Line, OwnLines, Recorder, SCHEMA, SegmentHead, Stats};
use agent_loop::event::{
    Cause, Fact, Gap, GapCause, GapId, LaunchFailure, Launched, Outcome, SignalResult, Signalled, Summary,
};
use agent_loop::model::{
    Birth, BootNs, Death, Discovery, Exec, PidfsIno, ProcessKey, ProofKind, RunTag, Source, StopReason, WaitStatus,
};

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";
const TAG: RunTag = RunTag(9);

/// The clocks, so many milliseconds after the first line.
fn clock(ms: u64) -> Clock {
    let boot = BootNs(5_000_000_000 + ms * 1_000_000);
    // 2026-11-22T14:00:00Z.
    Clock { boot, real_ns: 1_795_356_000_000_000_000 + i128::from(ms) * 1_000_000 }
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey::new(pid, u64::from(pid) * 1_000)
}

fn birth(pid: u32, ms: u64, discovery: Discovery) -> Birth {
    let known = discovery == Discovery::Fork;
    Birth {
        key: key(pid),
        ino: known.then_some(PidfsIno(u64::from(pid) + 7)),
        run: TAG,
        forker: known.then(|| key(70)),
        parent_tgid: known.then_some(70),
        uid: known.then_some(1_000),
        at: clock(ms).boot,
        discovery,
    }
}

fn exec(pid: u32, ms: u64, argv: &[&str]) -> Exec {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    Exec {
        filename: format!("/usr/bin/{}", argv.first().map_or("", String::as_str)),
        argc: u32::try_from(argv.len()).expect("few"),
        argv_total: argv.iter().map(|word| u32::try_from(word.len()).expect("few") + 1).sum(),
        argv,
        cwd: Some("/srv/w/42".to_owned()),
        file: Some((64_769, 4_711)),
        uid: Some(1_000),
        ..Exec::empty(key(pid), TAG, clock(ms).boot)
    }
}

fn death(pid: u32, ms: u64, status: Option<WaitStatus>) -> Death {
    let source = if status.is_some() { Source::Kernel } else { Source::LiveSet };
    Death { key: key(pid), ino: None, run: TAG, forker: Some(key(70)), status, at: clock(ms).boot, source }
}

fn gap(cause: GapCause) -> Gap {
    Gap {
        id: GapId(1),
        cause,
        lost_fork: 0,
        lost_exec: 12,
        lost_exit: 3,
        untracked: 0,
        missed: 0,
        from: BootNs(1),
        to: clock(60).boot,
        inferred_births: 1,
        inferred_deaths: 1,
        repaired: true,
    }
}

fn summary(outcome: Outcome, status: Option<WaitStatus>) -> Summary {
    Summary {
        outcome,
        status,
        status_source: Source::Waitid,
        births: 4,
        deaths: 4,
        leftovers: 1,
        gaps: 1,
        proven: true,
        unseen: 0,
        elapsed: Duration::from_millis(91),
    }
}

/// Every fact of a run that has each, with its milliseconds.
fn facts() -> Vec<(u64, Fact)> {
    let launched = Launched { key: key(70), ino: Some(PidfsIno(77)), run: TAG, at: clock(3).boot, traced: true };
    let exit = |ms, pid, status, cause| (ms, Fact::Exit { death: death(pid, ms, status), cause, inferred: None });
    let signalled = |pid, result| Fact::SignalResult(Signalled { pid, key: Some(key(pid)), signal: 15, result });
    let intent = |pid: u32, cgroup: bool| Fact::SignalIntent {
        pid,
        key: (!cgroup).then(|| key(pid)),
        signal: if cgroup { 9 } else { 15 },
        cgroup,
        reason: StopReason::Deadline,
    };
    vec![
        (3, Fact::RunBorn(launched)),
        (4, Fact::Exec(exec(70, 4, &["sh", "-c", "make; sleep 300"]))),
        (10, Fact::Fork { birth: birth(71, 10, Discovery::Fork), inferred: None }),
        (11, Fact::Exec(exec(71, 11, &["make", "-j2"]))),
        (12, Fact::Fork { birth: birth(72, 12, Discovery::Snapshot), inferred: Some(GapId(1)) }),
        (13, Fact::Exec(Exec::empty(key(72), TAG, clock(13).boot))),
        exit(20, 71, Some(WaitStatus::Exited(2)), Cause::Exited),
        (21, Fact::Fork { birth: birth(73, 21, Discovery::Fork), inferred: None }),
        exit(22, 73, Some(WaitStatus::Signaled { signal: 11, core: true }), Cause::Signal),
        (60, Fact::Gap(gap(GapCause::RingFull))),
        (61, Fact::Gap(gap(GapCause::Restart))),
        (70, intent(72, false)),
        (71, signalled(72, SignalResult::Sent(ProofKind::PidfsIno))),
        (72, signalled(74, SignalResult::Gone)),
        (73, signalled(1, SignalResult::Refused("it is not of this run".to_owned()))),
        (74, intent(70, true)),
        exit(80, 72, Some(WaitStatus::Signaled { signal: 15, core: false }), Cause::StoppedByUs),
        (81, Fact::Exit { death: death(70, 81, None), cause: Cause::Unknown, inferred: Some(GapId(1)) }),
        (
            90,
            Fact::RunKilled {
                reason: StopReason::Deadline,
                survivors: 0,
                proven: true,
                elapsed: Duration::from_millis(20),
            },
        ),
        (91, Fact::RunExit(summary(Outcome::Stopped(StopReason::Deadline), None))),
        (92, Fact::RunExit(summary(Outcome::Ended, Some(WaitStatus::Exited(0))))),
        (
            93,
            Fact::RunExit(summary(
                Outcome::NotEmpty { reason: StopReason::Idle, survivors: 2 },
                Some(WaitStatus::Signaled { signal: 9, core: false }),
            )),
        ),
        (
            94,
            Fact::RunExit(summary(
                Outcome::LaunchFailed(LaunchFailure { step: "finding the command".to_owned(), errno: Some(2) }),
                None,
            )),
        ),
    ]
}

/// The lines of a run, a run of each kind in it.
fn of_a_run(recorder: &mut Recorder) -> Vec<Line> {
    let word = |word: &str| word.to_owned();
    let host = Host {
        version: "0.1.0",
        schema: SCHEMA,
        kernel: word("6.12.0"),
        backend: "ebpf",
        degraded: vec![word("no cgroup")],
    };
    recorder.set_clock(-250);
    let mut lines = vec![recorder.host(host, clock(0)), recorder.intent(clock(1))];
    recorder.set_cgroup(812, word("/sys/fs/cgroup/agent-loop/r"));
    lines.extend(facts().iter().filter_map(|(ms, fact)| recorder.fact(fact, clock(*ms))));
    let intent = Fact::SignalIntent {
        pid: 72,
        key: Some(key(72)),
        signal: 9,
        cgroup: false,
        reason: StopReason::Operator { signal: 2 },
    };
    lines.extend(recorder.fact(&intent, clock(95)).map(|line| Recorder::with_proof(line, ProofKind::LiveSet)));
    let counts = Counts { fork: 4, exec: 3, exit: 4 };
    let stats = Stats { seen: counts, written: counts, ..Stats::default() };
    lines.extend([
        recorder.stats(stats, clock(96)),
        recorder.adopted(word("another daemon goes on with it"), clock(97)),
        recorder.stop_asked(word("asked by user 0: enough"), clock(98)),
        recorder.output_unheard(word("the end of its output may be missing"), clock(99)),
        recorder.torn(clock(100)),
        recorder.dropped(3, clock(101)),
    ]);
    lines
}

/// The lines of a log about itself.
fn of_the_log() -> Vec<Line> {
    let own = OwnLines::new(BOOT);
    let head = SegmentHead::new("agent-loop/01KAWXJ7000000000000000000");
    let mut signed = head.clone();
    signed.schema_sha256 = Some("ab".repeat(32));
    signed.redaction_sha256 = Some("cd".repeat(32));
    signed.mended = Some(2);
    let host =
        Host { version: "0.1.0", schema: SCHEMA, kernel: "6.12.0".to_owned(), backend: "ebpf", degraded: Vec::new() };
    let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    vec![
        own.segment(&head, 0, None, clock(0)),
        own.segment(&signed, 90, Some(0), clock(0)),
        own.key(1, "agent-loop/01KAWXJ7+00000000+AQ==", 0, clock(0)),
        own.torn(17, &"ef".repeat(32), clock(0)),
        own.lost(4, true, clock(0)),
        own.lost(4, false, clock(0)),
        own.host(host, clock(0)),
        own.told("host.stop", "the daemon was asked to stop".to_owned(), clock(0)),
        own.told("config", "limits.wall: nothing becomes \"1h\"".to_owned(), clock(0)),
        own.admin(1_000, "kill of a run".to_owned(), clock(0)),
        own.anchor("file", 81_920, root, &Ok("/mnt/anchors/x/81920.checkpoint".to_owned()), clock(0)),
        own.anchor("journal", 81_920, root, &Err("no such file or directory".to_owned()), clock(0)),
        own.retention(0, 90, "size", clock(0)),
    ]
}

/// The texts of all of them, numbered from 0.
pub(crate) fn texts() -> Vec<String> {
    let argv = ["sh", "-c", "make; sleep 300"].map(str::to_owned).to_vec();
    let mut recorder = Recorder::new(BOOT.to_owned(), "01KAWXJ7RVN".to_owned(), argv, "agent".to_owned());
    let long = vec!["x".repeat(20_000); 4];
    let mut longer = Recorder::new(BOOT.to_owned(), "01KAWXJ7LNG".to_owned(), long, "agent".to_owned());
    let mut lines = of_a_run(&mut recorder);
    lines.extend(of_the_log());
    lines.push(longer.intent(clock(110)));
    let text = |(seq, line): (u64, Line)| {
        let mut bytes = Vec::new();
        line.numbered(seq).write(&mut bytes);
        String::from_utf8(bytes).expect("text")
    };
    (0..).zip(lines).map(text).collect()
}
