use super::*;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn renewed(seconds: u64) -> Attempt {
    Attempt::Renewed(Renewed { ttl: at(seconds), capped: false })
}

fn capped(seconds: u64) -> Attempt {
    Attempt::Renewed(Renewed { ttl: at(seconds), capped: true })
}

fn ids(count: usize) -> Vec<EntryId> {
    std::iter::repeat_with(EntryId::random).take(count).collect()
}

fn listed(ids: &[EntryId]) -> HashSet<EntryId> {
    ids.iter().copied().collect()
}

/// A plan with one entry that has been read, whose token lives for ever and whose lease is being renewed.
fn in_flight() -> (Plan, Task) {
    let id = EntryId::random();
    let mut plan = Plan::new(0.5);
    plan.reconcile(at(0), &listed(&[id]));
    read(&mut plan, at(0), Life::default());
    let mut lease = None;
    for _ in 0..2 {
        let task = plan.take_due(at(0)).unwrap();
        match task.step {
            Step::Token => plan.settle(task, at(0), &Attempt::Endless, 0.0),
            _ => lease.replace(task).is_some(),
        };
    }
    (plan, lease.unwrap())
}

/// Reads the entries that are due to be read.
fn read(plan: &mut Plan, now: Duration, life: Life) {
    let task = plan.take_due(now).unwrap();
    assert_eq!(task.step, Step::Read);
    plan.settle(task, now, &Attempt::Found(life), 0.0);
}

#[test]
fn a_new_entry_is_read_once_and_then_its_lease_and_its_token_are_due_at_once() {
    let id = EntryId::random();
    let mut plan = Plan::new(0.5);
    plan.reconcile(at(0), &listed(&[id]));
    read(&mut plan, at(0), Life::default());
    let steps: HashSet<Step> = std::iter::from_fn(|| plan.take_due(at(0))).map(|task| task.step).collect();
    assert_eq!(steps, HashSet::from([Step::Lease, Step::Token]));
    plan.reconcile(at(1), &listed(&[id]));
    assert_eq!(plan.take_due(at(100)), None);
}

#[test]
fn the_next_renewal_comes_at_the_fraction_of_the_time_to_live_or_a_little_earlier() {
    for (random, due) in [(0.0, 30.0), (1.0, 27.0)] {
        let (mut plan, lease) = in_flight();
        plan.settle(lease, at(10), &renewed(60), random);
        let next = plan.next_due(at(10)).unwrap().as_secs_f64();
        assert!((next - (10.0 + due)).abs() < 1e-6, "{next}");
    }
}

#[test]
fn lease_and_token_are_renewed_each_by_its_own_life() {
    let id = EntryId::random();
    let mut plan = Plan::new(0.5);
    plan.reconcile(at(0), &listed(&[id]));
    read(&mut plan, at(0), Life::default());
    let mut counts = HashMap::new();
    let mut now = at(0);
    while now < at(24 * 3600) {
        let task = plan.take_due(now).unwrap();
        *counts.entry(task.step).or_insert(0) += 1;
        let ttl = if task.step == Step::Lease { 3600 } else { 12 * 3600 };
        plan.settle(task, now, &renewed(ttl), 0.0);
        now = plan.next_due(now).unwrap();
    }
    assert_eq!(counts, HashMap::from([(Step::Lease, 48), (Step::Token, 4)]));
}

#[test]
fn a_young_credential_is_left_alone_until_it_is_due() {
    let plan = |age, ttl| {
        let mut plan = Plan::new(0.5);
        plan.reconcile(at(0), &listed(&ids(1)));
        read(&mut plan, at(0), Life { age, ttl });
        plan.next_due(at(0)).unwrap()
    };
    // A minute early, as the clocks of two machines may differ.
    assert_eq!(plan(Some(at(600)), Some(at(3600))), at(1800 - 600 - 60));
    assert_eq!(plan(Some(at(1800)), Some(at(3600))), at(0), "it is due");
    assert_eq!(plan(Some(at(7200)), Some(at(3600))), at(0), "an earlier term has renewed it");
    assert_eq!(plan(None, Some(at(3600))), at(0), "nobody knows its age");
    assert_eq!(plan(Some(at(1)), Some(at(60))), at(0), "too short a life to trust clocks with");
}

#[test]
fn a_maximum_in_sight_is_told_once_and_does_not_become_a_hot_loop() {
    let (mut plan, lease) = in_flight();
    assert!(plan.settle(lease, at(0), &capped(3600), 0.0));
    assert_eq!(plan.summary(at(0)).ending, 1);
    let (mut now, mut renewals) = (at(0), 0);
    while now < at(3600) {
        now = plan.next_due(now).unwrap();
        assert_eq!(plan.take_due(now), Some(lease));
        let left = at(3600).saturating_sub(now);
        assert!(!plan.settle(lease, now, &capped(left.as_secs()), 0.0));
        renewals += 1;
    }
    assert!(renewals <= 12, "{renewals}");
}

#[test]
fn a_shrinking_time_to_live_does_not_become_a_hot_loop() {
    let (mut plan, lease) = in_flight();
    plan.settle(lease, at(10), &renewed(0), 0.0);
    assert_eq!(plan.next_due(at(10)), Some(at(11)));
}

#[test]
fn failures_that_may_pass_back_off_and_a_success_starts_over() {
    let (mut plan, lease) = in_flight();
    let mut now = at(0);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        plan.settle(lease, now, &Attempt::Failed(Advice::Retry), 0.0);
        assert_eq!(plan.next_due(now), Some(now + at(pause)));
        now += at(pause);
        assert_eq!(plan.take_due(now), Some(lease));
    }
    plan.settle(lease, now, &renewed(60), 0.0);
    now += at(30);
    assert_eq!(plan.take_due(now), Some(lease));
    plan.settle(lease, now, &Attempt::Failed(Advice::Retry), 0.0);
    assert_eq!(plan.next_due(now), Some(now + at(1)));
}

#[test]
fn no_pause_after_a_failure_is_longer_than_half_of_what_is_left_of_the_credential() {
    for advice in [Advice::Retry, Advice::Deny] {
        let (mut plan, lease) = in_flight();
        plan.settle(lease, at(0), &renewed(600), 0.0);
        let mut now = at(300);
        while now < at(600) {
            assert_eq!(plan.take_due(now), Some(lease));
            plan.settle(lease, now, &Attempt::Failed(advice), 0.0);
            let next = plan.next_due(now).unwrap();
            assert!(next - now <= ((at(600) - now) / 2).max(at(1)), "{advice:?}: {now:?} to {next:?}");
            now = next;
        }
        // Dead, as far as is known here: it is still asked for, with the pauses of any failure.
        assert_eq!(plan.take_due(now), Some(lease));
        plan.settle(lease, now, &Attempt::Failed(advice), 0.0);
        let pause = if matches!(advice, Advice::Deny) { at(300) } else { at(60) };
        assert_eq!(plan.next_due(now), Some(now + pause));
    }
}

#[test]
fn a_lost_or_foreign_entry_is_not_tried_again_until_it_left_the_ledger() {
    for attempt in [Attempt::Lost, Attempt::NotOurs] {
        let (mut plan, lease) = in_flight();
        plan.settle(lease, at(0), &attempt, 0.0);
        plan.reconcile(at(1), &listed(&[lease.id]));
        assert_eq!((plan.next_due(at(1)), plan.summary(at(1)).active), (None, 0));
        plan.reconcile(at(2), &listed(&[]));
        plan.reconcile(at(3), &listed(&[lease.id]));
        assert_eq!(plan.take_due(at(3)), Some(Task { step: Step::Read, ..lease }));
    }
}

#[test]
fn an_entry_that_left_the_ledger_is_not_renewed() {
    let (mut plan, lease) = in_flight();
    plan.reconcile(at(2), &listed(&[]));
    plan.settle(lease, at(3), &renewed(60), 0.0);
    assert_eq!(plan.next_due(at(3)), None);
}

/// A plan whose leases end after so many seconds, all of them due, and the ids in that order.
fn overdue(lives: &[u64]) -> (Plan, Vec<EntryId>) {
    let ids = ids(lives.len());
    let mut plan = Plan::new(0.5);
    plan.reconcile(at(0), &listed(&ids));
    while let Some(task) = plan.take_due(at(0)) {
        let life = lives[ids.iter().position(|id| *id == task.id).unwrap()];
        let attempt = match task.step {
            Step::Read => Attempt::Found(Life::default()),
            Step::Lease => renewed(life),
            Step::Token => Attempt::Endless,
        };
        plan.settle(task, at(0), &attempt, 0.0);
    }
    (plan, ids)
}

#[test]
fn of_what_is_due_the_earliest_expiry_comes_first() {
    let (mut plan, ids) = overdue(&[900, 300, 700, 500]);
    let order: Vec<EntryId> = std::iter::from_fn(|| plan.take_due(at(450))).map(|task| task.id).collect();
    assert_eq!(order, [ids[1], ids[3], ids[2], ids[0]]);
}

#[test]
fn many_new_entries_do_not_keep_a_credential_waiting_that_is_about_to_end() {
    let (mut plan, mut known) = overdue(&[20]);
    let urgent = known[0];
    known.extend(ids(1000));
    plan.reconcile(at(10), &listed(&known));
    assert_eq!(plan.take_due(at(10)), Some(Task { id: urgent, step: Step::Lease }));
    assert_eq!(plan.take_due(at(10)).unwrap().step, Step::Read);
}

#[test]
fn the_summary_tells_what_is_due_and_what_ends_first() {
    let (mut plan, _) = overdue(&[900, 300, 700]);
    let summary = plan.summary(at(200));
    assert_eq!(summary, Summary { active: 3, due: 1, earliest_expiry: Some(at(100)), ending: 0 });
}
