//! The signal protocol in every state, and the proof that the model can fail.

use agent_loop_model::{
    Bad, Found, Guards, HOSTS, Host, OTHERS, Outcome, Protocol, SignalModel, WITHOUT, counterexample, explore,
};

/// Less would be a model in which not much happens.
const MANY: usize = 1_000_000;

fn ours(host: Host) -> Outcome {
    explore(SignalModel { protocol: Protocol::Ours(Guards::ALL), host })
}

fn without(guards: Guards, host: Host) -> Found {
    counterexample(SignalModel { protocol: Protocol::Ours(guards), host }).expect("a way to a bad state")
}

#[test]
fn i02_no_state_of_the_signal_protocol_is_bad() {
    std::thread::scope(|scope| {
        for (name, host) in HOSTS {
            scope.spawn(move || {
                let outcome = ours(host);
                assert!(outcome.found.is_empty(), "{name}: {:#?}", outcome.found);
                assert!(outcome.lively, "{name}: nobody is ever signalled");
                assert!(outcome.states > MANY, "{name}: {} states", outcome.states);
            });
        }
    });
}

#[test]
fn by_number_strangers_are_hit_before_and_after_the_look() {
    for (name, protocol) in OTHERS {
        let outcome = explore(SignalModel { protocol, host: Host::OLD });
        let found = |bad| outcome.found.iter().find(|found| found.bad == bad).map(|found| found.steps.join("\n"));
        let raced = found(Bad::Raced).expect("a stranger that came after the look");
        assert!(raced.contains("kill(700, 9): the stranger is hit"), "{name}: {raced}");
        assert!(raced.contains("it is the agent, which passes"), "{name}: {raced}");
        let mistaken = found(Bad::Mistaken).expect("a stranger that was taken for the agent");
        assert!(mistaken.contains("it is the stranger, which passes"), "{name}: {mistaken}");
    }
}

#[test]
fn each_guard_is_needed() {
    for (name, guards, host) in WITHOUT {
        let found = without(guards, host);
        assert!(!found.steps.is_empty(), "{name}");
    }
}

#[test]
fn a_check_before_the_descriptor_is_opened_is_raced() {
    let found = without(Guards { open_first: false, ..Guards::ALL }, Host::NEW);
    let steps = found.steps.join("\n");
    let (free, opened) = (steps.find("is free"), steps.find("opens a descriptor"));
    assert!(free.is_some() && free < opened, "{steps}");
}

#[test]
fn without_inodes_compared_another_process_of_the_run_is_hit() {
    let found = without(Guards { inode: false, ..Guards::ALL }, Host::NEW);
    assert!(found.steps.last().is_some_and(|step| step.contains("another process of the run")), "{found:#?}");
}

#[test]
fn without_an_exact_hit_in_the_live_set_another_process_of_the_run_is_hit() {
    let found = without(Guards { live_set: false, ..Guards::ALL }, Host::OLD);
    assert!(found.steps.last().is_some_and(|step| step.contains("another process of the run")), "{found:#?}");
}

#[test]
fn i04_without_belonging_a_forged_record_hits_a_stranger() {
    let found = without(Guards { belonging: false, ..Guards::ALL }, Host::NEW);
    assert!(found.steps.iter().any(|step| step.contains("the record is forged")), "{found:#?}");
}

#[test]
fn i03_without_the_boot_id_a_stranger_of_the_next_boot_is_hit() {
    let found = without(Guards { boot_id: false, ..Guards::ALL }, Host::NEW);
    assert!(found.steps.iter().any(|step| step.contains("the host starts again")), "{found:#?}");
}

#[test]
fn without_the_id_of_the_cgroup_a_stranger_in_another_of_its_name_is_hit() {
    let found = without(Guards { cgroup_id: false, ..Guards::ALL }, Host::NEW);
    assert!(found.steps.iter().any(|step| step.contains("the same name, which has id 2")), "{found:#?}");
}

#[test]
fn before_6_13_the_name_of_a_removed_cgroup_must_not_be_believed() {
    let found = without(Guards { name_is_held: false, ..Guards::ALL }, Host::MIDDLE);
    assert!(found.steps.iter().any(|step| step.contains("the same name, which has id 2")), "{found:#?}");
}

#[test]
fn a_stale_entry_is_kept_out_by_the_inode_and_without_inodes_by_the_hooks_alone() {
    let all = Guards::ALL;
    let one = Guards { attached: false, ..all };
    let bad = |guards, host| counterexample(SignalModel { protocol: Protocol::Ours(guards), host });
    // With inodes the look at who has the number is enough.
    assert!(bad(one, Host::BY_START).is_none());
    assert!(bad(Guards { agrees: false, ..one }, Host::BY_START).is_some());
    // Without inodes only the hooks tell a stranger of the same tick apart.
    let found = without(one, Host::OLD);
    assert!(found.steps.iter().any(|step| step.contains("the hooks are detached")), "{found:#?}");
}
