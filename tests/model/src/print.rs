//! What `cargo xtask model` prints.

use crate::explore::{Found, counterexample, explore};
use crate::protocol::{Guards, Host, Protocol};
use crate::state::SignalModel;

/// The hosts that our protocol is explored on.
pub const HOSTS: [(&str, Host); 4] = [
    ("Linux 6.13 and later", Host::NEW),
    ("Linux 6.9 to 6.12", Host::MIDDLE),
    ("before Linux 6.9", Host::OLD),
    ("recorded by start alone", Host::BY_START),
];

const ALL: Guards = Guards::ALL;

/// Ours, each time without one guard, on a host that needs it. With several ways to a proof, one guard may stand in for
/// another: [`Guards::agrees`] is for the moment that [`Guards::attached`] would miss.
pub const WITHOUT: [(&str, Guards, Host); 9] = [
    ("the descriptor opened after the check", Guards { open_first: false, ..ALL }, Host::NEW),
    ("inodes not compared", Guards { inode: false, ..ALL }, Host::NEW),
    ("starts in the live set not compared", Guards { live_set: false, ..ALL }, Host::OLD),
    ("belonging not asked", Guards { belonging: false, ..ALL }, Host::NEW),
    ("hooks not asked about, starts compared in ticks alone", Guards { attached: false, ..ALL }, Host::OLD),
    ("hooks not asked about, entries believed", Guards { attached: false, agrees: false, ..ALL }, Host::BY_START),
    ("boot ids not compared", Guards { boot_id: false, ..ALL }, Host::NEW),
    ("ids of cgroups not compared", Guards { cgroup_id: false, ..ALL }, Host::NEW),
    ("names of cgroups believed", Guards { name_is_held: false, ..ALL }, Host::MIDDLE),
];

/// What others do.
pub const OTHERS: [(&str, Protocol); 2] = [
    ("agent_loop.py: kill(pid, 0), then kill(pid, 9)", Protocol::ByNumber),
    ("the stopgap: name and start of /proc, then kill(pid, 9)", Protocol::Stopgap),
];

/// Explores all that there is, and prints the ways on which others, and ours without one of its guards, go wrong.
///
/// Whether ours has no bad state, and everything else one.
#[must_use]
pub fn print() -> bool {
    let mut as_it_should = true;
    println!("Ours, every state:");
    for (name, host) in HOSTS {
        let outcome = explore(SignalModel { protocol: Protocol::Ours(ALL), host });
        let bad = outcome.found.len();
        println!("  {name}: {} states, up to {} steps deep, {bad} ways to a bad one", outcome.states, outcome.depth);
        outcome.found.iter().for_each(tell);
        as_it_should &= bad == 0 && outcome.lively;
    }
    for (name, protocol) in OTHERS {
        println!("\n{name}");
        let outcome = explore(SignalModel { protocol, host: Host::OLD });
        println!("  {} states, {} ways to a bad one:", outcome.states, outcome.found.len());
        outcome.found.iter().for_each(tell);
        as_it_should &= !outcome.found.is_empty();
    }
    println!("\nOurs without one of its guards, the shortest way to a bad state:");
    for (name, guards, host) in WITHOUT {
        let found = counterexample(SignalModel { protocol: Protocol::Ours(guards), host });
        println!("\n{name}");
        match &found {
            Some(found) => tell(found),
            None => println!("  no way: this guard is for nothing"),
        }
        as_it_should &= found.is_some();
    }
    as_it_should
}

fn tell(found: &Found) {
    println!("  {}", found.what);
    for (index, step) in found.steps.iter().enumerate() {
        println!("    {:>2}. {step}", index + 1);
    }
}
