//! The kernel as far as signals need it: numbers, processes, cgroups, the live set. It knows the truth.

/// How many numbers there are.
pub const NUMBERS: usize = 2;

/// The most processes that are born, the agent included.
const MOST_BORN: u8 = 3;

/// The most cgroups that get the run's name, the run's own included.
const MOST_CGROUPS: u8 = 2;

/// The cgroup of another run of ours.
const OTHER_RUN: u8 = 99;

/// Who a process is, which nobody in the model can ask for: the truth that answers are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who(pub u8);

/// The agent, whom the record names until somebody forges it.
pub const AGENT: Who = Who(0);

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The run that signals are asked for.
    Run,
    /// Another run of ours: a stranger to this one.
    OtherRun,
    /// Nobody of ours.
    Stranger,
}

/// A process, until it is reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// The truth.
    pub who: Who,
    /// The truth too.
    pub owner: Owner,
    /// Its exact start and the inode of its pidfd, each unique in a boot; both begin again with the next one.
    pub mark: u8,
    /// Its start in ticks, which is all that /proc tells.
    pub tick: u8,
    /// The id of its cgroup, where it is in one that matters.
    pub cgroup: Option<u8>,
    /// Whether it is a zombie.
    pub dead: bool,
}

/// What the live set says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Start and inode.
    pub mark: u8,
    /// The start in ticks.
    pub tick: u8,
    /// The id of the run's cgroup.
    pub tag: u8,
}

/// Who may be born beside the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Forked by a process of the run.
    Sibling,
    /// Of another run of ours.
    OtherRun,
    /// Nobody of ours, under the same name (`comm` is set by whoever likes to).
    Stranger,
    /// The same, in a cgroup that somebody else made under the run's name.
    StrangerInside,
}

/// The kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Which boot it is.
    pub boot: u8,
    /// Who has each number.
    pub table: [Option<Process>; NUMBERS],
    /// The live set, pinned.
    pub live: [Option<Entry>; NUMBERS],
    /// Whether the hooks keep the live set.
    pub attached: bool,
    /// The cgroup that bears the run's name.
    pub named: Option<u8>,
    /// Whether somebody else made it.
    pub remade: bool,
    ticks: u8,
    born: u8,
    born_here: u8,
    cgroups: u8,
}

impl World {
    /// A boot in which the agent was just born, with the first number, in the run's cgroup.
    pub fn with_the_agent() -> Self {
        let mut world = Self {
            boot: 0,
            table: [None; NUMBERS],
            live: [None; NUMBERS],
            attached: true,
            named: Some(1),
            remade: false,
            ticks: 0,
            born: 0,
            born_here: 0,
            cgroups: 1,
        };
        world.bear(0, Owner::Run, Some(1), Some(1));
        world
    }

    fn bear(&mut self, number: usize, owner: Owner, cgroup: Option<u8>, tag: Option<u8>) {
        let (mark, tick) = (self.born_here, self.ticks);
        self.table[number] = Some(Process { who: Who(self.born), owner, mark, tick, cgroup, dead: false });
        self.born += 1;
        self.born_here += 1;
        if self.attached
            && let Some(tag) = tag
        {
            self.live[number] = Some(Entry { mark, tick, tag });
        }
    }

    /// Whether such a process can be born with this number now.
    pub fn can_bear(&self, number: usize, kind: Kind) -> bool {
        self.table[number].is_none()
            && self.born < MOST_BORN
            && match kind {
                Kind::Sibling => self.living_of_the_run().is_some(),
                Kind::OtherRun | Kind::Stranger => true,
                Kind::StrangerInside => self.remade && self.named.is_some(),
            }
    }

    /// clone3 and the fork hook.
    pub fn fork(&mut self, number: usize, kind: Kind) {
        match kind {
            Kind::Sibling => {
                // The tag is inherited, whatever cgroup the forker is in.
                let cgroup = self.living_of_the_run().and_then(|forker| forker.cgroup);
                self.bear(number, Owner::Run, cgroup, Some(1));
            }
            Kind::OtherRun => self.bear(number, Owner::OtherRun, Some(OTHER_RUN), Some(OTHER_RUN)),
            Kind::Stranger => self.bear(number, Owner::Stranger, None, None),
            Kind::StrangerInside => self.bear(number, Owner::Stranger, self.named, None),
        }
    }

    fn living_of_the_run(&self) -> Option<&Process> {
        self.table.iter().flatten().find(|process| process.owner == Owner::Run && !process.dead)
    }

    /// The exit hook, then the zombie.
    pub fn exit(&mut self, number: usize) {
        if let Some(process) = &mut self.table[number] {
            process.dead = true;
        }
        if self.attached {
            self.live[number] = None;
        }
    }

    /// Whoever reaps it: its parent, pid 1, a foreign `waitpid(-1)`. From now on the number is free.
    pub fn reap(&mut self, number: usize) {
        self.table[number] = None;
    }

    /// Its process leaves the cgroup, and its tag stays.
    pub fn leave(&mut self, number: usize) {
        if let Some(process) = &mut self.table[number] {
            process.cgroup = None;
        }
    }

    /// Whether the next tick of the clock can come.
    pub fn can_tick(&self) -> bool {
        self.ticks == 0
    }

    /// The next tick.
    pub fn tick(&mut self) {
        self.ticks += 1;
    }

    /// Whether nobody alive is in the cgroup that bears the run's name.
    pub fn can_remove(&self) -> bool {
        let inside = |process: &Process| !process.dead && process.cgroup == self.named;
        self.named.is_some() && !self.table.iter().flatten().any(inside)
    }

    /// rmdir of it.
    pub fn remove(&mut self) {
        self.named = None;
        self.remade = false;
    }

    /// Whether somebody else can make a cgroup of the run's name.
    pub fn can_remake(&self) -> bool {
        self.named.is_none() && self.cgroups < MOST_CGROUPS
    }

    /// mkdir of it: no id is given twice in a boot, but each boot begins anew.
    pub fn remake(&mut self) {
        self.cgroups += 1;
        self.named = Some(self.cgroups);
        self.remade = true;
    }

    /// The host starts again: nobody lives, nothing is pinned, and each count begins anew.
    pub fn reboot(&mut self) {
        let (boot, born) = (self.boot + 1, self.born);
        let none = [None; NUMBERS];
        *self = Self { boot, born, table: none, live: [None; NUMBERS], named: None, remade: false, ..self.clone() };
        (self.attached, self.ticks, self.born_here, self.cgroups) = (true, 0, 0, 0);
    }

    /// Who has this number, dead or alive.
    pub fn at(&self, number: usize) -> Option<&Process> {
        self.table[number].as_ref()
    }

    /// The process, as a descriptor of it reaches it: until it is reaped.
    pub fn of(&self, who: Who) -> Option<&Process> {
        self.table.iter().flatten().find(|process| process.who == who)
    }

    /// Its number, until it is reaped.
    pub fn number_of(&self, who: Who) -> Option<usize> {
        self.table.iter().position(|it| it.is_some_and(|process| process.who == who))
    }

    /// Whether it lives.
    pub fn lives(&self, who: Who) -> bool {
        self.of(who).is_some_and(|process| !process.dead)
    }
}
