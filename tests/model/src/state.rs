//! Daemon, keeper, record and kernel together: all that can happen in a state, and what becomes of it.

use crate::check::{After, Asked, Check, Purpose};
use crate::protocol::{Guards, Host, Protocol};
use crate::world::{AGENT, Kind, NUMBERS, Owner, Who, World};

/// What is on disk about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The boot it was written in.
    pub boot: u8,
    /// The number of the main process.
    pub number: usize,
    /// Its start and inode.
    pub mark: u8,
    /// Its start in ticks.
    pub tick: u8,
    /// The id of the run's cgroup.
    pub cgroup: u8,
    /// Who it is in truth.
    pub who: Who,
    /// Whether somebody has changed it.
    pub forged: bool,
}

/// A daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// None runs.
    Down,
    /// It goes on with the run that it read of.
    GoesOn,
    /// It has given the run up.
    GaveUp,
}

/// A keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keeper {
    /// None runs.
    Down,
    /// It holds nothing.
    Empty,
    /// It holds the run.
    Holds {
        /// The id of the cgroup whose directory it holds.
        cgroup: u8,
        /// The main process.
        main: Option<Main>,
    },
}

impl Keeper {
    /// Whether this is its child and was not reaped.
    fn is_parent_of(self, who: Who) -> bool {
        let Self::Holds { main: Some(main), .. } = self else { return false };
        main.who == who && main.child && !main.exited
    }
}

/// A main process that is held by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Main {
    /// Whom the descriptor is of.
    pub who: Who,
    /// Whether it is our child.
    pub child: bool,
    /// Whether it was seen to have ended.
    pub exited: bool,
}

/// What is being done for the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Nothing.
    Idle,
    /// Our keeper checks.
    Checks(Check),
    /// By number: it was asked for, or looked at, and `kill` comes next.
    Looks,
    /// By number: the look was passed. Who it was of.
    Kills(Who),
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bad {
    /// A signal hit a stranger that came after the last look.
    Raced,
    /// A signal hit a stranger that was taken for the one who was meant.
    Mistaken,
    /// A signal was said to be sent, and who was meant had gone.
    Outlived,
    /// Who was meant was said to have gone, and lives.
    GoneAlive,
    /// The keeper holds another process as the main one.
    WrongMain,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The kernel.
    pub world: World,
    /// The record.
    pub record: Record,
    /// The daemon, or `agent_loop.py`.
    pub daemon: Daemon,
    /// The keeper; for what signals by number it is not there.
    pub keeper: Keeper,
    /// What is under way.
    pub job: Job,
    /// What has gone wrong.
    pub bad: Option<Bad>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The signal was sent, or the process is held.
    Done,
    /// It had gone.
    Gone,
    /// No proof.
    Refused(&'static str),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The process with this number ends and is a zombie.
    Exit(usize),
    /// Somebody reaps it, and the number is free.
    Reap(usize),
    /// Somebody is born with this number.
    Fork(usize, Kind),
    /// It is moved out of the run's cgroup.
    Leave(usize),
    /// The clock of /proc goes on.
    Tick,
    /// The empty cgroup is removed.
    RemoveCgroup,
    /// Somebody else makes a cgroup of the same name.
    RemakeCgroup,
    /// The hooks are detached.
    Detach,
    /// The host starts again.
    Reboot,
    /// The daemon is killed.
    CrashDaemon,
    /// A daemon starts.
    StartDaemon,
    /// The keeper is killed.
    CrashKeeper,
    /// A keeper starts.
    StartKeeper,
    /// While no daemon runs, the record is made to name whoever has this number, exactly.
    Forge(usize),
    /// The daemon asks the keeper to take up the run.
    AskAdopt,
    /// The daemon asks for a signal to the recorded process.
    AskSignal,
    /// The daemon asks for a signal to whoever has this number, if it is in the run's cgroup.
    AskMember(usize),
    /// The daemon asks to kill the run's cgroup.
    AskKill,
    /// The next step of what was asked.
    Proceed,
    /// The keeper finds the descriptor of the main process readable; it reaps its child.
    Notice,
}

/// A protocol on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalModel {
    /// How it is signalled.
    pub protocol: Protocol,
    /// On what.
    pub host: Host,
}

impl SignalModel {
    pub(super) fn first(self) -> State {
        let world = World::with_the_agent();
        let main = Main { who: AGENT, child: true, exited: false };
        let keeper = match self.protocol {
            Protocol::Ours(_) => Keeper::Holds { cgroup: 1, main: Some(main) },
            Protocol::ByNumber | Protocol::Stopgap => Keeper::Down,
        };
        let record = Record { boot: 0, number: 0, mark: 0, tick: 0, cgroup: 1, who: AGENT, forged: false };
        State { world, record, daemon: Daemon::GoesOn, keeper, job: Job::Idle, bad: None }
    }

    /// All that can happen.
    pub(super) fn acts(self, state: &State, acts: &mut Vec<Act>) {
        if state.bad.is_some() {
            return;
        }
        for number in 0..NUMBERS {
            if let Some(process) = state.world.at(number) {
                match process.dead {
                    false => acts.push(Act::Exit(number)),
                    // Nobody but the keeper waits for its child.
                    true if state.keeper.is_parent_of(process.who) => {}
                    true => acts.push(Act::Reap(number)),
                }
                if !process.dead && process.owner == Owner::Run && process.cgroup.is_some() {
                    acts.push(Act::Leave(number));
                }
                if !process.dead && self.may_forge(state) {
                    acts.push(Act::Forge(number));
                }
            }
            for kind in [Kind::Sibling, Kind::OtherRun, Kind::Stranger, Kind::StrangerInside] {
                if state.world.can_bear(number, kind) {
                    acts.push(Act::Fork(number, kind));
                }
            }
        }
        let mut may = |is: bool, act: Act| acts.extend(is.then_some(act));
        // Ours is explored within one tick, in which all starts look alike: that is the worst case.
        may(state.world.can_tick() && self.protocol == Protocol::Stopgap, Act::Tick);
        may(state.world.can_remove(), Act::RemoveCgroup);
        may(state.world.can_remake(), Act::RemakeCgroup);
        may(state.world.attached, Act::Detach);
        may(state.world.boot == 0, Act::Reboot);
        may(state.daemon != Daemon::Down, Act::CrashDaemon);
        may(state.daemon == Daemon::Down, Act::StartDaemon);
        let idle = state.job == Job::Idle;
        may(!idle, Act::Proceed);
        let goes_on = idle && state.daemon == Daemon::GoesOn;
        match (self.protocol, state.keeper) {
            (Protocol::ByNumber | Protocol::Stopgap, _) => may(goes_on, Act::AskSignal),
            (Protocol::Ours(_), Keeper::Down) => may(true, Act::StartKeeper),
            (Protocol::Ours(_), Keeper::Empty) => {
                may(true, Act::CrashKeeper);
                may(goes_on, Act::AskAdopt);
            }
            (Protocol::Ours(_), Keeper::Holds { main, .. }) => {
                may(true, Act::CrashKeeper);
                may(goes_on, Act::AskSignal);
                may(goes_on, Act::AskKill);
                (0..NUMBERS).for_each(|number| may(goes_on, Act::AskMember(number)));
                let ended = |main: Main| !main.exited && !state.world.lives(main.who);
                may(idle && main.is_some_and(ended), Act::Notice);
            }
        }
    }

    /// What becomes of a state.
    pub(super) fn after(self, last: &State, act: Act) -> (State, Option<Answer>) {
        let mut state = last.clone();
        let mut answer = None;
        let world = &mut state.world;
        match act {
            Act::Exit(number) => world.exit(number),
            Act::Reap(number) => world.reap(number),
            Act::Fork(number, kind) => world.fork(number, kind),
            Act::Leave(number) => world.leave(number),
            Act::Tick => world.tick(),
            Act::RemoveCgroup => world.remove(),
            Act::RemakeCgroup => world.remake(),
            Act::Detach => world.attached = false,
            Act::Reboot => {
                world.reboot();
                (state.daemon, state.keeper, state.job) = (Daemon::Down, Keeper::Down, Job::Idle);
            }
            Act::CrashDaemon => {
                state.daemon = Daemon::Down;
                // What was asked of a keeper is carried out; what a script does itself is not.
                if !matches!(self.protocol, Protocol::Ours(_)) {
                    state.job = Job::Idle;
                }
            }
            Act::StartDaemon => {
                let other_boot = state.record.boot != state.world.boot;
                let gives_up = matches!(self.protocol, Protocol::Ours(guards) if guards.boot_id) && other_boot;
                state.daemon = if gives_up { Daemon::GaveUp } else { Daemon::GoesOn };
            }
            Act::CrashKeeper => (state.keeper, state.job) = (Keeper::Down, Job::Idle),
            Act::StartKeeper => state.keeper = Keeper::Empty,
            Act::Forge(number) => {
                if let Some(process) = state.world.at(number) {
                    let (mark, tick, who) = (process.mark, process.tick, process.who);
                    let boot = state.world.boot;
                    state.record = Record { boot, number, mark, tick, who, forged: true, ..state.record };
                }
            }
            Act::AskAdopt => answer = self.adopt(&mut state),
            Act::AskSignal => self.signal(&mut state),
            Act::AskMember(number) => {
                let asked = Asked { number, mark: None, meant: None };
                state.job = Job::Checks(Check::of_number(asked, Purpose::Signal, self.guards()));
            }
            Act::AskKill => kill_cgroup(&mut state),
            Act::Proceed => answer = self.proceed(&mut state),
            Act::Notice => notice(&mut state),
        }
        (state, answer)
    }

    /// In the boot that the record is of: in another, its cgroup would have to be forged too, which root alone can.
    fn may_forge(self, state: &State) -> bool {
        state.daemon == Daemon::Down && !state.record.forged && state.record.boot == state.world.boot
    }

    fn guards(self) -> Guards {
        match self.protocol {
            Protocol::Ours(guards) => guards,
            Protocol::ByNumber | Protocol::Stopgap => Guards::ALL,
        }
    }

    fn adopt(self, state: &mut State) -> Option<Answer> {
        let Some(named) = state.world.named else { return Some(Answer::Refused("no such cgroup")) };
        if self.guards().cgroup_id && named != state.record.cgroup {
            return Some(Answer::Refused("another cgroup"));
        }
        state.keeper = Keeper::Holds { cgroup: named, main: None };
        state.job = Job::Checks(Check::of_number(asked(&state.record), Purpose::Hold, self.guards()));
        None
    }

    fn signal(self, state: &mut State) {
        state.job = match (self.protocol, state.keeper) {
            (Protocol::ByNumber | Protocol::Stopgap, _) => Job::Looks,
            (Protocol::Ours(guards), keeper) => {
                let asked = asked(&state.record);
                let child = match keeper {
                    Keeper::Holds { main: Some(main), .. } if main.child && !main.exited => Some(main.who),
                    Keeper::Holds { .. } | Keeper::Empty | Keeper::Down => None,
                };
                // The keeper compares number and, where it is told one, inode with those of its child.
                let meant = child.filter(|_| asked.number == 0 && (!self.host.recorded || asked.mark == Some(0)));
                Job::Checks(match meant {
                    Some(who) => Check::of_child(asked, who),
                    None => Check::of_number(asked, Purpose::Signal, guards),
                })
            }
        };
    }

    fn proceed(self, state: &mut State) -> Option<Answer> {
        let number = state.record.number;
        match state.job {
            Job::Idle => None,
            Job::Looks => {
                // A zombie has its number and its line in /proc.
                let passed = state.world.at(number).filter(|process| match self.protocol {
                    Protocol::Stopgap => process.tick == state.record.tick,
                    Protocol::ByNumber | Protocol::Ours(_) => true,
                });
                match passed.map(|process| process.who) {
                    Some(who) => {
                        state.job = Job::Kills(who);
                        None
                    }
                    None => Some(gone(state, Some(state.record.who))),
                }
            }
            Job::Kills(looked_at) => Some(match state.world.at(number).map(|process| process.who) {
                Some(target) => send(state, Check::by_number(asked(&state.record), looked_at), target),
                None => gone(state, Some(state.record.who)),
            }),
            Job::Checks(check) => self.check(state, check),
        }
    }

    fn check(self, state: &mut State, check: Check) -> Option<Answer> {
        state.job = Job::Idle;
        let Keeper::Holds { cgroup, main } = &mut state.keeper else { return None };
        let target = match check.step(&state.world, self.host, self.guards(), *cgroup) {
            After::Next(next) => {
                state.job = Job::Checks(next);
                return None;
            }
            After::Gone => return Some(gone(state, check.asked.meant)),
            After::Refused(why) => return Some(Answer::Refused(why)),
            After::Proven(target) => target,
        };
        Some(match check.purpose {
            Purpose::Hold => {
                *main = Some(Main { who: target, child: false, exited: false });
                let other_owner = state.world.of(target).is_some_and(|it| it.owner != Owner::Run);
                if check.asked.meant != Some(target) || other_owner {
                    state.bad = Some(Bad::WrongMain);
                }
                Answer::Done
            }
            Purpose::Signal if state.world.of(target).is_some() => send(state, check, target),
            Purpose::Signal => gone(state, check.asked.meant),
        })
    }
}

fn asked(record: &Record) -> Asked {
    Asked { number: record.number, mark: Some(record.mark), meant: Some(record.who) }
}

/// "Gone" is told.
fn gone(state: &mut State, meant: Option<Who>) -> Answer {
    state.job = Job::Idle;
    let lives = |who: Who| state.world.of(who).is_some_and(|it| !it.dead && it.owner == Owner::Run);
    if meant.is_some_and(lives) {
        state.bad = Some(Bad::GoneAlive);
    }
    Answer::Gone
}

/// A signal reaches a process that was not reaped yet; "sent" is told.
fn send(state: &mut State, check: Check, target: Who) -> Answer {
    state.job = Job::Idle;
    let process = state.world.of(target).copied();
    if let Some(process) = process.filter(|process| !check.may_hit(process.owner, target)) {
        state.bad = Some(match (process.dead, check.looked_at.is_none_or(|who| who == target)) {
            (true, _) => Bad::Outlived,
            (false, true) => Bad::Mistaken,
            (false, false) => Bad::Raced,
        });
    }
    Answer::Done
}

/// cgroup.kill of the directory that is held: everybody in it, at once.
fn kill_cgroup(state: &mut State) {
    let Keeper::Holds { cgroup, .. } = state.keeper else { return };
    for number in 0..NUMBERS {
        let Some(process) = state.world.at(number).copied() else { continue };
        if process.dead || process.cgroup != Some(cgroup) {
            continue;
        }
        if process.owner == Owner::Run {
            state.world.exit(number);
        } else {
            state.bad = Some(Bad::Mistaken);
        }
    }
}

/// The end of the main process is seen, and our child is reaped.
fn notice(state: &mut State) {
    let Keeper::Holds { main: Some(main), .. } = &mut state.keeper else { return };
    main.exited = true;
    let (who, child) = (main.who, main.child);
    if child && let Some(number) = state.world.number_of(who) {
        state.world.reap(number);
    }
}
