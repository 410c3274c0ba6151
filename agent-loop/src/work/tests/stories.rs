//! Stories: a whole life, and each of the failures that this loop was made to end.

use super::shadow::{Fate, Host, Request, World, says};
use crate::work::*;

/// Steps a host until it waits; what it wrote, in words.
fn until_it_waits(world: &mut World, host: &mut Host) -> Vec<String> {
    let mut acts = Vec::new();
    loop {
        match world.step(host, false, Fate::Answered) {
            Act::Wait(_) | Act::Rest => return acts,
            Act::Read(_) | Act::Forget => {}
            Act::Write(write) => acts.push(format!("{:?}", write.kind())),
        }
    }
}

/// A host whose agent has pushed and whose pull request waits for its checks.
fn waiting() -> (World, Host, Sha) {
    let (mut world, mut host) = (World::new(), Host::new("one"));
    until_it_waits(&mut world, &mut host);
    assert_eq!(host.task.state.word(), "running");
    host.commit = Some(world.commit());
    host.runs.insert(1, Run::Over(RunEnd::Worked));
    until_it_waits(&mut world, &mut host);
    assert_eq!(host.task.state.word(), "ci_wait");
    let head = host.commit.clone().expect("a commit");
    (world, host, head)
}

fn judged(world: &mut World, head: &Sha, result: Says) {
    world.ci(head).checks = vec![says("test", result)];
}

fn count(world: &World, is: impl Fn(&Mark) -> bool) -> usize {
    world.made.iter().filter(|mark| is(mark)).count()
}

fn is_notice(mark: &Mark) -> bool {
    matches!(mark, Mark::Notice(_))
}

#[test]
fn one_issue_goes_all_the_way() {
    let (mut world, mut host) = (World::new(), Host::new("one"));
    let first = until_it_waits(&mut world, &mut host);
    assert_eq!(first, ["Claim", "Label", "Comment", "Prepare", "Launch", "Comment"]);
    host.commit = Some(world.commit());
    host.runs.insert(1, Run::Over(RunEnd::Worked));
    let second = until_it_waits(&mut world, &mut host);
    assert_eq!(second, ["Comment", "Comment", "TakeClaim", "Push", "Comment", "Open", "Comment"]);
    let head = host.commit.clone().expect("a commit");
    judged(&mut world, &head, Says::Success);
    let third = until_it_waits(&mut world, &mut host);
    assert_eq!(third, ["Comment", "Merge", "Close", "Label", "Comment", "Clean", "Release"]);
    assert_eq!(host.task.state, State::Cleaned);
    assert!(!world.open && world.claim.is_none() && world.merges.len() == 1 && world.closes == 1);
    assert_eq!(count(&world, |mark| *mark == Mark::Status), 1, "one status comment");
    assert_eq!(count(&world, is_notice), 0, "and nothing else is said");
    assert!(!world.labels.contains("State/InProgress"));
}

#[test]
fn the_same_comment_is_never_posted_again() {
    // A merge that keeps failing once posted the same words every five minutes.
    let (mut world, mut host, head) = waiting();
    judged(&mut world, &head, Says::Success);
    world.requests[0].mergeable = Mergeable::Blocked;
    for _ in 0..500 {
        until_it_waits(&mut world, &mut host);
    }
    assert_eq!((count(&world, |mark| *mark == Mark::Status), count(&world, is_notice)), (1, 0));
    assert!(world.merges.is_empty() && host.task.state.word() == "merge_gate");
}

#[test]
fn checks_that_never_start_are_told_once() {
    // It was told after 17, 328 and 392 minutes.
    let (mut world, mut host, head) = waiting();
    let ci = world.ci(&head);
    (ci.checks, ci.workflows) = (vec![], 0);
    for _ in 0..500 {
        until_it_waits(&mut world, &mut host);
    }
    assert_eq!(host.task.state.word(), "ci_missing");
    assert_eq!(count(&world, is_notice), 1);
    judged(&mut world, &head, Says::Success);
    until_it_waits(&mut world, &mut host);
    assert_eq!(host.task.state, State::Cleaned, "and when they start all goes on");
}

#[test]
fn only_explicit_success_is_merged() {
    // Cancelled, skipped and waiting once fell through to a merge.
    for result in [Says::Cancelled, Says::Skipped, Says::Neutral, Says::Stale, Says::Pending, Says::Unknown("x".into())]
    {
        let (mut world, mut host, head) = waiting();
        judged(&mut world, &head, result.clone());
        for _ in 0..300 {
            until_it_waits(&mut world, &mut host);
        }
        assert!(world.merges.is_empty(), "{result:?}");
        assert!(matches!(host.task.state, State::NeedsHuman(Why::ChecksStuck(_))), "{result:?}: {:?}", host.task.state);
    }
}

#[test]
fn an_answer_of_success_closes_nothing_that_is_not_merged() {
    // A tool that exited with 0 once had its issue closed, unmerged.
    let (mut world, mut host, head) = waiting();
    judged(&mut world, &head, Says::Success);
    let mut merges = 0;
    for _ in 0..400 {
        let Step { task, act } = decide(&host.task, &host.seen, world.now, &world.rules);
        if let Act::Write(write @ Write::Merge { .. }) = act {
            host.task = task;
            host.seen.written(write.kind(), host.task.step, Reply::Done);
            merges += 1;
        } else {
            world.step(&mut host, false, Fate::Answered);
        }
    }
    assert!(world.open && world.closes == 0, "nothing was merged");
    assert_eq!(merges, 3, "as often as it may be asked for");
    assert!(matches!(host.task.state, State::NeedsHuman(Why::MergeFailed(_))), "{:?}", host.task.state);
}

#[test]
fn a_merge_that_was_decided_and_never_sent_costs_nothing() {
    let (mut world, mut host, head) = waiting();
    judged(&mut world, &head, Says::Success);
    let mut crashes = 0;
    while crashes < 20 {
        let act = decide(&host.task, &host.seen, world.now, &world.rules).act;
        let merging = matches!(act, Act::Write(Write::Merge { .. }));
        world.step(&mut host, false, if merging { Fate::CrashBefore } else { Fate::Answered });
        crashes += u32::from(merging);
        assert!(!matches!(host.task.state, State::NeedsHuman(_)), "after {crashes} crashes: {:?}", host.task.state);
    }
    assert_eq!(host.task.spent.merges, 0);
    while host.task.state != State::Cleaned {
        world.step(&mut host, false, Fate::Answered);
    }
    assert_eq!((world.merges.len(), world.closes), (1, 1));
}

#[test]
fn a_merge_whose_answer_was_lost_is_found_by_reading() {
    for fate in [Fate::DoneUnheard, Fate::CrashAfter] {
        let (mut world, mut host, head) = waiting();
        judged(&mut world, &head, Says::Success);
        while host.task.state != State::Cleaned {
            let merging =
                matches!(decide(&host.task, &host.seen, world.now, &world.rules).act, Act::Write(Write::Merge { .. }));
            world.step(&mut host, false, if merging { fate } else { Fate::Answered });
        }
        assert_eq!((world.merges.len(), world.closes), (1, 1), "{fate:?}");
    }
}

#[test]
fn a_pull_request_that_the_task_did_not_make_is_never_merged() {
    // Any green pull request of a matching branch name once was, forks included.
    let (mut world, mut host, head) = waiting();
    let foreign = world.commit();
    judged(&mut world, &foreign, Says::Success);
    // Older than ours, as they are read: whoever takes the first one takes this.
    let request = Request { number: 99, open: true, head: foreign, merged: None, mergeable: Mergeable::Yes };
    world.requests.insert(0, request);
    judged(&mut world, &head, Says::Pending);
    for _ in 0..50 {
        until_it_waits(&mut world, &mut host);
    }
    assert!(world.merges.is_empty());
}

#[test]
fn a_push_by_somebody_else_is_judged_by_its_own_checks() {
    let (mut world, mut host, head) = waiting();
    judged(&mut world, &head, Says::Success);
    let theirs = world.commit();
    (world.requests[0].head, world.remote) = (theirs.clone(), Some(theirs.clone()));
    until_it_waits(&mut world, &mut host);
    assert!(world.merges.is_empty(), "their head is not green");
    assert_eq!(host.task.state.head(), Some(&theirs));
    judged(&mut world, &theirs, Says::Success);
    until_it_waits(&mut world, &mut host);
    assert_eq!(world.merges.iter().map(|(_, head)| head.clone()).collect::<Vec<_>>(), [theirs]);
}

#[test]
fn a_second_host_starts_no_second_agent() {
    let (mut world, mut one, mut two) = (World::new(), Host::new("one"), Host::new("two"));
    until_it_waits(&mut world, &mut one);
    let other = one.is_alive();
    for _ in 0..200 {
        world.step(&mut two, other, Fate::Answered);
    }
    assert_eq!(two.task.state, State::Cleaned);
    assert!(two.runs.is_empty() && world.claim.as_ref().is_some_and(|(_, holder, ..)| *holder == "one"));
}

#[test]
fn the_claim_of_a_host_that_died_is_taken_over_and_the_issue_is_not_lost() {
    let (mut world, mut one, mut two) = (World::new(), Host::new("one"), Host::new("two"));
    until_it_waits(&mut world, &mut one);
    one.runs.insert(1, Run::Over(RunEnd::Stopped("its host is gone".to_owned())));
    world.labels.insert("State/Ready".to_owned());
    world.now = world.now.after(world.rules.claim_stale + 1);
    until_it_waits(&mut world, &mut two);
    assert_eq!(two.task.state.word(), "running");
    // The first comes back, and finds its claim gone.
    one.runs.insert(1, Run::Alive);
    one.seen = Seen::default();
    let acts = until_it_waits(&mut world, &mut one);
    assert_eq!(acts, ["Stop", "Clean"], "it stops its agent and writes nothing to the forge any more");
}

#[test]
fn what_a_dead_host_had_begun_is_gone_on_with_and_what_a_living_one_has_is_not() {
    let (mut world, mut one, mut two) = (World::new(), Host::new("one"), Host::new("two"));
    until_it_waits(&mut world, &mut one);
    assert!(!world.labels.contains("State/Ready") && world.labels.contains("State/InProgress"));
    until_it_waits(&mut world, &mut two);
    assert_eq!(two.task.state, State::Cleaned, "its host lives");
    let mut heir = Host::new("heir");
    one.runs.insert(1, Run::Over(RunEnd::Stopped("its host is gone".to_owned())));
    world.now = world.now.after(world.rules.claim_stale + 1);
    until_it_waits(&mut world, &mut heir);
    assert_eq!(heir.task.state.word(), "running", "nobody has to label it anew");
    // Without the label of work in progress it is nobody's to go on with.
    let mut late = Host::new("late");
    world.labels.remove("State/InProgress");
    world.now = world.now.after(world.rules.claim_stale + 1);
    until_it_waits(&mut world, &mut late);
    assert_eq!(late.task.state, State::Cleaned);
}

/// The first host has died; another one goes on until it waits. No agent of it may be begun.
fn heir_of(world: &mut World) -> Host {
    let mut heir = Host::new("heir");
    world.now = world.now.after(world.rules.claim_stale + 1);
    until_it_waits(world, &mut heir);
    assert!(heir.runs.is_empty(), "{:?}", heir.task);
    heir
}

#[test]
fn what_a_dead_host_had_pushed_under_its_claim_is_gone_on_with() {
    // It waited for the checks.
    let (mut world, _, head) = waiting();
    let mut heir = heir_of(&mut world);
    assert_eq!((heir.task.state.word(), heir.task.state.head()), ("ci_wait", Some(&head)));
    judged(&mut world, &head, Says::Success);
    until_it_waits(&mut world, &mut heir);
    assert_eq!((heir.task.state, world.merges.len(), world.closes), (State::Cleaned, 1, 1));
    // It died between the push and the pull request, or before it had an answer to either.
    for (kind, fate) in
        [(Kind::Push, Fate::CrashAfter), (Kind::Open, Fate::CrashBefore), (Kind::Open, Fate::CrashAfter)]
    {
        let (mut world, mut host) = (World::new(), Host::new("one"));
        until_it_waits(&mut world, &mut host);
        host.commit = Some(world.commit());
        host.runs.insert(1, Run::Over(RunEnd::Worked));
        loop {
            let act = decide(&host.task, &host.seen, world.now, &world.rules).act;
            let last = matches!(&act, Act::Write(write) if write.kind() == kind);
            world.step(&mut host, false, if last { fate } else { Fate::Answered });
            if last {
                break;
            }
        }
        let heir = heir_of(&mut world);
        assert_eq!((heir.task.state.head(), world.requests.len()), (host.commit.as_ref(), 1), "{kind:?} {fate:?}");
    }
}

#[test]
fn what_a_dead_host_had_merged_is_closed_by_its_heir_on_proof() {
    for branch_goes in [false, true] {
        let (mut world, mut host, head) = waiting();
        judged(&mut world, &head, Says::Success);
        while world.merges.is_empty() {
            world.step(&mut host, false, Fate::Answered);
        }
        if branch_goes {
            world.remote = None;
        }
        let heir = heir_of(&mut world);
        assert_eq!((heir.task.state, world.merges.len(), world.closes), (State::Cleaned, 1, 1), "{branch_goes}");
    }
}

#[test]
fn a_branch_that_no_claim_accounts_for_is_a_persons_to_decide_on() {
    // Of a stranger, before anybody claimed it; and in the place of what a dead host had pushed, without a pull request.
    let mut world = World::new();
    world.remote = Some(world.commit());
    let mut host = Host::new("one");
    until_it_waits(&mut world, &mut host);
    assert!(matches!(host.task.state, State::NeedsHuman(Why::ForeignBranch(_))) && host.runs.is_empty());
    let (mut world, _, _) = waiting();
    world.requests.clear();
    world.remote = Some(world.commit());
    let heir = heir_of(&mut world);
    assert!(matches!(heir.task.state, State::NeedsHuman(Why::ForeignBranch(_))), "{:?}", heir.task.state);
    assert!(world.requests.is_empty() && world.merges.is_empty());
}

#[test]
fn an_earlier_life_of_an_issue_proves_nothing_for_a_later_one() {
    let (mut world, mut host, head) = waiting();
    judged(&mut world, &head, Says::Success);
    until_it_waits(&mut world, &mut host);
    assert_eq!((host.task.state.word(), world.claim.is_none()), ("cleaned", true));
    // A person opens it again: its merged pull request is still there.
    (world.open, world.remote) = (true, None);
    world.labels.insert("State/Ready".to_owned());
    let mut later = Host::new("later");
    until_it_waits(&mut world, &mut later);
    assert_eq!((later.task.state.word(), world.closes), ("running", 1));
}

#[test]
fn failing_checks_go_back_to_the_agent_within_a_budget() {
    let (mut world, mut host, mut head) = waiting();
    for fix in 1..=3 {
        judged(&mut world, &head, Says::Failed);
        until_it_waits(&mut world, &mut host);
        let State::Running { purpose: Purpose::FixChecks { head: of, failed }, .. } = &host.task.state else {
            panic!("{:?}", host.task.state)
        };
        assert_eq!((of, failed.as_slice()), (&head, ["test".to_owned()].as_slice()));
        head = world.commit();
        host.commit = Some(head.clone());
        host.runs.insert(1 + fix, Run::Over(RunEnd::Worked));
        until_it_waits(&mut world, &mut host);
    }
    judged(&mut world, &head, Says::Failed);
    until_it_waits(&mut world, &mut host);
    assert!(matches!(host.task.state, State::NeedsHuman(Why::ChecksFailed(_))));
    assert_eq!(count(&world, is_notice), 1);
}

#[test]
fn a_limit_of_the_agents_provider_is_waited_for_and_costs_no_attempt() {
    let (mut world, mut host) = (World::new(), Host::new("one"));
    until_it_waits(&mut world, &mut host);
    let until = world.now.after(7_000);
    host.runs.insert(1, Run::Over(RunEnd::WaitUntil(until)));
    while host.task.attempt == 1 {
        until_it_waits(&mut world, &mut host);
    }
    assert!(world.now >= until);
    assert_eq!(host.task.spent.failures, 0);
}

#[test]
fn a_tree_that_is_not_proven_empty_gets_no_second_agent() {
    let (mut world, mut host) = (World::new(), Host::new("one"));
    until_it_waits(&mut world, &mut host);
    host.runs.insert(1, Run::Unproven);
    until_it_waits(&mut world, &mut host);
    world.labels.insert("State/Ready".to_owned());
    host.task.retry = true;
    for _ in 0..50 {
        until_it_waits(&mut world, &mut host);
    }
    assert_eq!(host.task.state, State::NeedsHuman(Why::TreeNotProven));
    assert_eq!(host.task.attempt, 1);
}

#[test]
fn a_person_who_closes_the_issue_has_the_agent_stopped() {
    let (mut world, mut host) = (World::new(), Host::new("one"));
    until_it_waits(&mut world, &mut host);
    world.open = false;
    let mut acts = Vec::new();
    for _ in 0..20 {
        acts.extend(until_it_waits(&mut world, &mut host));
    }
    assert_eq!(host.task.state, State::Cleaned);
    assert_eq!(acts.first().map(String::as_str), Some("Stop"));
    assert!(world.claim.is_none() && !world.labels.contains("State/InProgress"));
}

/// A host whose agent works on what the checks of its pull request found.
fn mending() -> (World, Host, Sha) {
    let (mut world, mut host, head) = waiting();
    judged(&mut world, &head, Says::Failed);
    until_it_waits(&mut world, &mut host);
    assert_eq!((host.task.state.word(), host.task.attempt), ("running", 2));
    (world, host, head)
}

#[test]
fn what_a_person_does_to_a_pull_request_that_an_agent_mends_stops_the_agent() {
    let (mut world, mut host, _) = mending();
    let commit = world.commit();
    (world.requests[0].open, world.requests[0].merged) = (false, Some(commit));
    let mut acts = Vec::new();
    for _ in 0..20 {
        acts.extend(until_it_waits(&mut world, &mut host));
    }
    assert_eq!(acts.first().map(String::as_str), Some("Stop"));
    assert_eq!((host.task.state.clone(), host.task.attempt, world.closes), (State::Cleaned, 2, 1), "it was ours");
    assert!(world.merges.is_empty() && !acts.contains(&"Push".to_owned()), "{acts:?}");

    let (mut world, mut host, _) = mending();
    world.requests[0].open = false;
    let mut acts = Vec::new();
    for _ in 0..20 {
        acts.extend(until_it_waits(&mut world, &mut host));
    }
    assert_eq!(acts.first().map(String::as_str), Some("Stop"));
    assert_eq!((host.task.state.clone(), world.open, world.closes), (State::Cleaned, true, 0));
}

#[test]
fn what_a_person_merges_at_another_head_while_an_agent_mends_is_not_ours_to_close() {
    let (mut world, mut host, _) = mending();
    let (commit, theirs) = (world.commit(), world.commit());
    (world.requests[0].open, world.requests[0].merged, world.requests[0].head) = (false, Some(commit), theirs);
    for _ in 0..20 {
        until_it_waits(&mut world, &mut host);
    }
    assert_eq!((host.task.state.clone(), world.open, world.closes), (State::Cleaned, true, 0));
}

#[test]
fn what_a_person_pushes_while_an_agent_mends_is_judged_and_asks_nobody() {
    let (mut world, mut host, _) = mending();
    let theirs = world.commit();
    (world.requests[0].head, world.remote) = (theirs.clone(), Some(theirs.clone()));
    host.commit = Some(world.commit());
    host.runs.insert(2, Run::Over(RunEnd::Worked));
    for _ in 0..5 {
        until_it_waits(&mut world, &mut host);
    }
    assert_eq!((host.task.state.word(), host.task.state.head()), ("ci_wait", Some(&theirs)));
    assert_eq!((count(&world, is_notice), world.remote.as_ref()), (0, Some(&theirs)), "nothing of theirs is undone");
}

#[test]
fn what_a_person_did_while_the_claim_was_made_is_read_before_anything_is_written_and_no_claim_stays() {
    for crash in [Fate::CrashAfter, Fate::Answered] {
        for closes in [true, false] {
            let (mut world, mut host) = (World::new(), Host::new("one"));
            while world.claim.is_none() {
                world.step(&mut host, false, crash);
            }
            if closes {
                world.open = false;
            } else {
                world.labels.clear();
            }
            let mut acts = Vec::new();
            for _ in 0..5 {
                acts.extend(until_it_waits(&mut world, &mut host));
            }
            assert_eq!(acts, ["Clean", "Release"], "{crash:?}, closes: {closes}");
            assert!(host.task.state == State::Cleaned && world.claim.is_none() && world.labels.is_empty() != closes);
        }
    }
}
