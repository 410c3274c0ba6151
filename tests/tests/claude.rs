//! The real `claude` command under `exec`: what its tools do is seen, and nothing of it stays.

use std::collections::HashMap;
use std::fs;

use agent_loop_tests::harness::{Claude, Event, Exec, Outcome, Proc};
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::stand_in::{StandIn, Turn};

fn bash(command: &str) -> Turn {
    Turn::Bash(command.to_owned())
}

fn text(text: &str) -> Turn {
    Turn::Text(text.to_owned())
}

/// A daemon as a tool leaves it: a session of its own, no terminal, deaf to all that asks politely.
const DAEMON: &str = r#"setsid sh -c 'trap "" INT TERM HUP; echo $$ > daemon; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &
until test -s daemon; do sleep 0.01; done"#;

/// Each process's forker, by identity.
fn parents(outcome: &Outcome) -> HashMap<&str, &Proc> {
    outcome.births().filter_map(|birth| Some((birth.who().id.as_str(), birth.parent.as_ref()?))).collect()
}

/// The line of forkers from a process up to the main process, by their numbers.
fn ancestry(outcome: &Outcome, of: &Proc) -> Vec<i32> {
    let parents = parents(outcome);
    let mut line = vec![of.pid];
    let mut at = of;
    while at.id != outcome.main().id {
        at = parents.get(at.id.as_str()).unwrap_or_else(|| panic!("{at:?} was born by nobody; {line:?}"));
        line.push(at.pid);
        assert!(line.len() < 100, "a circle: {line:?}");
    }
    line
}

/// The one exec of the tree with this argv.
fn the_exec<'a>(outcome: &'a Outcome, argv: &[&str]) -> &'a Event {
    let found: Vec<_> = outcome.of_kind("proc.exec").filter(|exec| exec.argv() == argv).collect();
    let [exec] = found[..] else { panic!("{} execs of {argv:?}\n{}", found.len(), outcome.stderr) };
    exec
}

/// The process that executed `argv` died with `code`, and descends from claude by a shell of its tool.
fn ran(outcome: &Outcome, argv: &[&str], code: i32) {
    let proc = the_exec(outcome, argv).who();
    assert_eq!(outcome.death_of(proc).status, Some(Status::exited(code)), "{argv:?}");
    let line = ancestry(outcome, proc);
    assert!(line.len() >= 3, "claude, its shell, then {argv:?}: {line:?}");
}

fn number_in(outcome: &Outcome, file: &str) -> i32 {
    let text = fs::read_to_string(outcome.path("work").join(file))
        .unwrap_or_else(|err| panic!("the tool wrote no {file}: {err}\n{}\n{}", outcome.stdout, outcome.stderr));
    text.trim().parse().expect("a number")
}

#[test]
fn the_tools_of_claude_are_seen_as_births_and_deaths() {
    needs!(bpf, cgroup, claude);
    let stand_in = StandIn::start([
        bash("git init -q repository && sh -c 'exit 3'; echo status $?; env true"),
        bash("sh -c 'kill -KILL $$'; cat repository/.git/HEAD"),
        text("all is done"),
    ]);
    let outcome = Claude::new(&stand_in).under(Exec::new()).run();
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "all is done"), "{}", outcome.stderr);
    stand_in.assert_played();
    let results = stand_in.heard().results;
    assert!(results[0].text.contains("status 3") && !results[0].is_error, "{results:?}");
    assert!(results[1].text.contains("refs/heads"), "{results:?}");

    outcome.assert_no_gap();
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
    ran(&outcome, &["git", "init", "-q", "repository"], 0);
    ran(&outcome, &["sh", "-c", "exit 3"], 3);
    ran(&outcome, &["true"], 0);
    let killed = the_exec(&outcome, &["sh", "-c", "kill -KILL $$"]).who();
    assert_eq!(outcome.death_of(killed).status, Some(Status::signaled(libc::SIGKILL, false)));
    assert_eq!(outcome.run_exit().value["outcome"], "ended", "its tool's death is not its own");
    // All of them, not only those looked for: every birth's line of forkers ends at the main process.
    for birth in outcome.births() {
        ancestry(&outcome, birth.who());
    }
    eprintln!(
        "claude: {} births, {} execs, {} deaths",
        outcome.births().count(),
        outcome.of_kind("proc.exec").count(),
        outcome.deaths().count()
    );
}

#[test]
fn a_failure_of_claude_is_the_exit_code() {
    needs!(bpf, cgroup, claude);
    let stand_in = StandIn::start([bash("true")]);
    let outcome = Claude::new(&stand_in).arg("--max-turns").arg("1").under(Exec::new()).run();
    assert_eq!(outcome.code, 1, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("max turns"), "{}", outcome.stdout);
    assert_eq!(outcome.death_of(outcome.main()).status, Some(Status::exited(1)));
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn a_deadline_in_the_middle_of_a_tool_leaves_nothing() {
    needs!(bpf, cgroup, claude);
    let command = format!("{DAEMON}\ntrap '' INT TERM HUP\necho $$ > tool\nwhile :; do sleep 1; done");
    let stand_in = StandIn::start([bash(&command)]);
    let outcome = Claude::new(&stand_in).under(Exec::new().limit("8s").grace("300ms")).run();
    let (tool, daemon) = (number_in(&outcome, "tool"), number_in(&outcome, "daemon"));
    stand_in.assert_played();

    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    outcome.assert_no_gap();
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
    let killed: Vec<_> = outcome.of_kind("run.killed").collect();
    let [killed] = killed[..] else { panic!("{} run.killed\n{}", killed.len(), outcome.stderr) };
    assert_eq!((&killed.value["reason"], &killed.value["survivors"]), (&"deadline".into(), &0.into()));
    assert_eq!(outcome.run_exit().value["outcome"], "deadline");
    for pid in [tool, daemon] {
        let birth = outcome.births().find(|birth| birth.who().pid == pid).expect("it is in the tree");
        assert!(ancestry(&outcome, birth.who()).len() >= 2, "it descends from claude");
        let status = outcome.death_of(birth.who()).status;
        assert_eq!(status, Some(Status::signaled(libc::SIGKILL, false)), "only the kill ended {pid}");
    }
}

#[test]
fn a_daemon_that_a_tool_started_is_stopped_after_claude_ends() {
    needs!(bpf, cgroup, claude);
    let stand_in = StandIn::start([bash(DAEMON), text("it runs")]);
    let outcome = Claude::new(&stand_in).under(Exec::new().grace("300ms")).run();
    let daemon = number_in(&outcome, "daemon");
    stand_in.assert_played();

    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "it runs"), "{}", outcome.stderr);
    outcome.assert_nothing_left();
    outcome.assert_no_gap();
    outcome.assert_tree_accounted();
    let exit = outcome.run_exit();
    assert_eq!(exit.value["outcome"], "ended");
    assert!(exit.value["leftovers"].as_u64() >= Some(1), "{}", exit.value);
    let birth = outcome.births().find(|birth| birth.who().pid == daemon).expect("it is in the tree");
    let death = outcome.death_of(birth.who());
    assert_eq!(death.status, Some(Status::signaled(libc::SIGKILL, false)), "TERM it ignores");
    assert!(death.seq > outcome.death_of(outcome.main()).seq, "it outlived claude");
    let summary: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("left behind")).collect();
    assert!(summary.iter().any(|line| line.contains(&daemon.to_string())), "{daemon} in {summary:?}");
    assert!(
        summary.last().is_some_and(|line| line.starts_with("agent-loop: ") && line.contains(&daemon.to_string())),
        "{summary:?}"
    );
}

#[test]
fn claude_under_another_user() {
    needs!(bpf, cgroup, claude);
    let stand_in = StandIn::start([bash("id -u > uid; cat /proc/self/status > status"), text("I am nobody")]);
    let outcome = Claude::unasked(&stand_in).under(Exec::new().arg("--user").arg("nobody")).run();
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "I am nobody"), "{}", outcome.stderr);
    stand_in.assert_played();
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();

    let nobody = nix::unistd::User::from_name("nobody").expect("a user database").expect("nobody");
    assert_eq!(number_in(&outcome, "uid"), nobody.uid.as_raw().cast_signed());
    let status = fs::read_to_string(outcome.path("work").join("status")).expect("the tool wrote it");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>()
    };
    let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
    assert_eq!((field("Uid"), field("Gid")), (vec![uid.as_str(); 4], vec![gid.as_str(); 4]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
}
