//! A way through the model, in words.

use crate::check::{Check, Purpose, Step};
use crate::protocol::Protocol;
use crate::state::{Act, Answer, Daemon, Job, SignalModel, State};
use crate::world::{AGENT, Kind, Owner, Who};

/// The first of our numbers: people are used to some that are larger than 1.
const FIRST: usize = 700;

/// The steps of a path.
pub(super) fn steps(model: SignalModel, path: Vec<(State, Option<Act>)>) -> Vec<String> {
    let pairs = path.windows(2).filter_map(|pair| {
        let [(before, Some(act)), (after, _)] = pair else { return None };
        Some(step(model, before, *act, after))
    });
    pairs.collect()
}

fn number(index: usize) -> usize {
    FIRST + index
}

fn who(state: &State, who: Who) -> &'static str {
    match (who, state.world.of(who).map(|process| process.owner)) {
        (AGENT, _) => "the agent",
        (_, Some(Owner::Run)) => "another process of the run",
        (_, Some(Owner::OtherRun)) => "a process of another run",
        (_, Some(Owner::Stranger)) => "the stranger",
        (_, None) => "one that has gone",
    }
}

fn at(state: &State, index: usize) -> &'static str {
    state.world.at(index).map_or("nobody", |process| who(state, process.who))
}

fn step(model: SignalModel, before: &State, act: Act, after: &State) -> String {
    let (_, answer) = model.after(before, act);
    let text = match act {
        Act::Exit(index) => format!("{} ends; it is a zombie with number {}", at(before, index), number(index)),
        Act::Reap(index) => format!("{} is reaped: number {} is free", at(before, index), number(index)),
        Act::Fork(index, kind) => {
            let born = match kind {
                Kind::Sibling => "another process of the run",
                Kind::OtherRun => "a process of another run",
                Kind::Stranger => "a stranger",
                Kind::StrangerInside => "a stranger, in the cgroup that somebody else made,",
            };
            format!("{born} is born with number {}", number(index))
        }
        Act::Leave(index) => format!("{} is moved out of the run's cgroup", at(before, index)),
        Act::Tick => "the clock of /proc goes on by one tick".to_owned(),
        Act::RemoveCgroup => "the run's cgroup is empty and is removed".to_owned(),
        Act::RemakeCgroup => {
            let id = after.world.named.unwrap_or_default();
            format!("somebody else makes a cgroup of the same name, which has id {id}")
        }
        Act::Detach => "the hooks are detached: the pinned live set stays as it is".to_owned(),
        Act::Reboot => "the host starts again: numbers, start times, inodes and ids of cgroups begin anew".to_owned(),
        Act::CrashDaemon => "the daemon is killed".to_owned(),
        Act::StartDaemon => match after.daemon {
            Daemon::GaveUp => "a daemon starts: the record is of another boot, the run is given up".to_owned(),
            Daemon::GoesOn | Daemon::Down => "a daemon starts, and goes on with what it remembers".to_owned(),
        },
        Act::CrashKeeper => "the keeper is killed".to_owned(),
        Act::StartKeeper => "a keeper starts; it holds nothing".to_owned(),
        Act::Forge(index) => format!("the record is forged: it names {}, exactly", at(before, index)),
        Act::AskAdopt => format!("the keeper is asked to adopt the run{}", outcome(answer)),
        Act::AskSignal if matches!(model.protocol, Protocol::Ours(_)) => {
            format!("the keeper is asked to signal the recorded process, number {}", number(before.record.number))
        }
        Act::AskSignal => {
            format!("it is time to end the agent, which is remembered as {}", number(before.record.number))
        }
        Act::AskMember(index) => {
            format!("the keeper is asked to signal whoever has number {} in the run's cgroup", number(index))
        }
        Act::AskKill => "the keeper kills the cgroup whose directory it holds".to_owned(),
        Act::Proceed => proceed(model, before, after, answer),
        Act::Notice => "the keeper sees that its main process has ended".to_owned(),
    };
    match after.bad {
        Some(bad) => format!("{text}   <- {bad:?}"),
        None => text,
    }
}

fn proceed(model: SignalModel, before: &State, after: &State, answer: Option<Answer>) -> String {
    let index = before.record.number;
    let pid = number(index);
    match before.job {
        Job::Idle => "nothing".to_owned(),
        Job::Looks => {
            let look = match model.protocol {
                Protocol::Stopgap => format!("name and start of /proc/{pid}/stat are compared"),
                Protocol::ByNumber | Protocol::Ours(_) => format!("kill({pid}, 0)"),
            };
            let passed = matches!(after.job, Job::Kills(_));
            format!("{look}: it is {}, which {}", at(before, index), if passed { "passes" } else { "does not pass" })
        }
        Job::Kills(_) => format!("kill({pid}, 9): {} is hit", at(before, index)),
        Job::Checks(check) => format!("the keeper {}{}", look(before, check), outcome(answer)),
    }
}

fn outcome(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Gone) => ": it has gone".to_owned(),
        Some(Answer::Refused(why)) => format!(": refused, {why}"),
        Some(Answer::Done) | None => String::new(),
    }
}

fn look(before: &State, check: Check) -> String {
    let index = check.asked.number;
    let pid = number(index);
    let subject = match check.fd {
        Some(fd) => who(before, fd),
        None => at(before, index),
    };
    match check.step {
        Step::Open => format!("opens a descriptor on number {pid}, which is {}", at(before, index)),
        Step::StillThere => format!("asks whether {subject} still lives"),
        Step::Inode => format!("looks at the inode of {subject}"),
        Step::Attached => "asks whether the hooks are attached".to_owned(),
        Step::Lookup => format!("asks the live set about number {pid}"),
        Step::Agree => format!("compares who has number {pid} with the answer: {}", at(before, index)),
        Step::Belong => format!("asks whether {subject} is in the run's cgroup"),
        Step::NameHolds => "asks whether that cgroup is still the one it holds".to_owned(),
        Step::Act => match check.purpose {
            Purpose::Hold => format!("holds {subject} as the main process"),
            Purpose::Signal => format!("sends the signal to {subject}"),
        },
    }
}
