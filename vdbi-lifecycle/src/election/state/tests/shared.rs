//! Of several elections in one process.

use super::*;

/// A follower that has these other leases, of a holder whose lease it saw released now.
fn free_with_load(load: u32) -> Bench {
    let mut bench = Bench::following(15);
    bench.machine.set_load(bench.now, load);
    let released = bench.record("", 1);
    assert!(find_write(&bench.tell(Event::Changed(released))).is_none(), "there is jitter");
    bench
}

#[test]
fn a_free_lease_is_taken_the_later_the_more_others_the_replica_has() {
    for load in [0, 1, 3] {
        let mut bench = free_with_load(load);
        let delay = SECOND / 5 * load;
        assert!(load == 0 || find_write(&bench.pass(delay)).is_none(), "{load}");
        let rest = if load == 0 { delay + SECOND / 10 } else { SECOND / 10 };
        assert!(find_write(&bench.pass(rest)).is_some(), "{load}");
    }
}

#[test]
fn a_replica_that_loses_another_lease_takes_this_one_earlier_and_one_that_wins_it_later() {
    let mut bench = free_with_load(3);
    bench.pass(SECOND * 3 / 10);
    bench.machine.set_load(bench.now, 0);
    assert!(find_write(&bench.tell(Event::Tick)).is_some(), "it would have taken it by now");

    let mut bench = free_with_load(0);
    bench.machine.set_load(bench.now, 2);
    assert!(find_write(&bench.pass(SECOND * 4 / 10)).is_none());
    assert!(find_write(&bench.pass(SECOND / 10)).is_some());
}

#[test]
fn an_absence_is_not_overslept_because_less_load_makes_it_due_in_the_past() {
    let mut bench = Bench::following(15);
    bench.machine.set_load(bench.now, 50);
    let deleted = bench.record("other", 15);
    bench.tell(Event::Deleted(deleted));
    assert!(find_write(&bench.pass(20 * SECOND)).is_none());
    bench.machine.set_load(bench.now, 0);
    assert!(matches!(find_write(&bench.tell(Event::Tick)), Some((_, Write::Create(_)))));
}

#[test]
fn replicas_that_start_together_begin_with_different_leases() {
    let mut bench = Bench::new();
    bench.machine.set_load(bench.now, 0);
    let get = bench.tell(Event::Tick);
    assert!(
        find_write(&bench.answer(&get, Ok(None))).is_none(),
        "without other shards it would create it at once"
    );
    assert!(matches!(find_write(&bench.pass(SECOND / 10)), Some((_, Write::Create(None)))));
}

#[test]
fn a_restart_in_the_same_pod_takes_all_its_leases_at_once() {
    let mut bench = Bench::new();
    bench.machine.set_load(bench.now, 7);
    let get = bench.tell(Event::Tick);
    let earlier = Identity::new("me").with_uid("u1").to_string();
    let record = bench.record(&earlier, 15);
    assert!(find_write(&bench.answer(&get, Ok(Some(record)))).is_some());
}

#[test]
fn a_leader_that_yields_renews_until_the_work_has_returned_then_releases_and_lets_others_go_first() {
    let mut bench = Bench::leading();
    assert_eq!(bench.tell(Event::Yield), [Action::WindDown]);
    assert_eq!(bench.tell(Event::Yield), [], "it is told once");
    for _ in 0..3 {
        let renew = bench.pass(3 * SECOND);
        assert!(matches!(write(&renew).1, Write::Renew(_)));
        bench.commit(&renew);
    }
    let release = bench.tell(Event::WorkEnded);
    assert_eq!(ended(&release), Some(Reason::Yielded));
    assert!(matches!(write(&release).1, Write::Release(_)));
    let get = bench.commit(&release);
    assert!(!bench.machine.is_engaged());
    let released = bench.record("", 1);
    bench.answer(&get, Ok(Some(released)));
    assert!(find_write(&bench.pass(SECOND - SECOND / 100)).is_none());
    let take = bench.pass(SECOND / 5);
    assert_eq!(cause(&bench.commit(&take)), Some(Cause::Released), "nobody else wanted it");
    assert!(!bench.machine.is_yielding());
}

#[test]
fn work_that_does_not_return_when_it_is_to_yield_is_dropped_after_the_drain_timeout() {
    let mut bench = Bench::leading();
    bench.tell(Event::Yield);
    let mut dropped = Vec::new();
    while bench.now < Duration::from_secs(100) + bench.settings.drain_timeout + 3 * SECOND {
        let actions = bench.pass(SECOND);
        dropped.extend(actions.iter().filter(|action| **action == Action::Drop).map(|_| bench.now));
        if find_write(&actions).is_some() {
            bench.commit(&actions);
        }
    }
    assert_eq!(dropped, [Duration::from_secs(100) + bench.settings.drain_timeout]);
    assert!(bench.machine.leads());
    assert_eq!(ended(&bench.tell(Event::WorkEnded)), Some(Reason::Yielded));
}

#[test]
fn a_follower_has_nothing_to_yield() {
    let mut bench = Bench::following(15);
    assert_eq!(bench.tell(Event::Yield), []);
    let taken = bench.pass(16 * SECOND);
    bench.commit(&taken);
    assert!(bench.machine.leads() && !bench.machine.is_yielding());
}
