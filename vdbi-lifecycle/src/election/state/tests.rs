use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::election::{Identity, LeaseRef};

mod shared;

const SECOND: Duration = Duration::from_secs(1);

/// One machine, and what it last asked for.
struct Bench {
    machine: Machine,
    settings: Arc<Settings>,
    now: Duration,
    version: u64,
    log: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        let settings = Arc::new(Settings::new(
            LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
            Identity::new("me").with_uid("u1"),
        ));
        let now = Duration::from_secs(100);
        Self { machine: Machine::new(settings.clone(), 7), settings, now, version: 10, log: Vec::new() }
    }

    fn me(&self) -> String {
        self.settings.identity.to_string()
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = self.machine.step(self.now, event);
        self.log.extend(actions.clone());
        actions
    }

    /// Lets time pass up to that much, with a tick whenever the machine asked for one.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let until = self.now + time;
        let mut actions = Vec::new();
        while let Some(at) = self.machine.wake_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            actions.extend(self.tell(Event::Tick));
        }
        self.now = until;
        actions
    }

    fn record(&mut self, holder: &str, seconds: i32) -> Record {
        self.version += 1;
        record(self.version, json!({"holderIdentity": holder, "leaseDurationSeconds": seconds}))
    }

    fn answer(&mut self, actions: &[Action], result: Result<Option<Record>, Failure>) -> Vec<Action> {
        let id = actions.iter().rev().find_map(|action| match action {
            Action::Get { id, .. } => Some(*id),
            _ => None,
        });
        self.tell(Event::Read(id.expect("a GET"), result))
    }

    /// Commits the write that the actions contain, and answers.
    fn commit(&mut self, actions: &[Action]) -> Vec<Action> {
        let (id, _) = write(actions);
        let record = self.committed(actions);
        self.tell(Event::Written(id, Ok(record)))
    }

    fn committed(&mut self, actions: &[Action]) -> Record {
        let (_, write) = write(actions);
        let mut object = write.object(&self.settings, Timestamp::UNIX_EPOCH);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        Record::parse(object).unwrap()
    }

    fn refuse(&mut self, actions: &[Action], failure: Failure) -> Vec<Action> {
        let (id, _) = write(actions);
        self.tell(Event::Written(id, Err(failure)))
    }

    /// A machine that leads; its last write was sent now.
    fn leading() -> Self {
        let mut bench = Self::new();
        let get = bench.tell(Event::Tick);
        let create = bench.answer(&get, Ok(None));
        let won = bench.commit(&create);
        assert!(won.iter().any(|action| matches!(action, Action::Start { .. })), "{won:?}");
        bench
    }

    /// A follower of another holder, whom it saw now.
    fn following(seconds: i32) -> Self {
        let mut bench = Self::new();
        let get = bench.tell(Event::Tick);
        let record = bench.record("other", seconds);
        bench.answer(&get, Ok(Some(record)));
        bench
    }
}

fn record(version: u64, spec: Value) -> Record {
    let metadata = json!({"name": "renewer", "uid": "u", "resourceVersion": version.to_string()});
    Record::parse(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn write(actions: &[Action]) -> (u64, Write) {
    find_write(actions).expect("a write")
}

fn find_write(actions: &[Action]) -> Option<(u64, Write)> {
    actions.iter().rev().find_map(|action| match action {
        Action::Write { id, write, .. } => Some((*id, write.clone())),
        _ => None,
    })
}

fn ended(actions: &[Action]) -> Option<Reason> {
    actions.iter().find_map(|action| match action {
        Action::End(reason) => Some(*reason),
        _ => None,
    })
}

fn cause(actions: &[Action]) -> Option<Cause> {
    actions.iter().find_map(|action| match action {
        Action::Start { cause, .. } => Some(*cause),
        _ => None,
    })
}

fn gets(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Get { .. }))
}

#[test]
fn a_lease_that_never_was_is_created_at_once() {
    let mut bench = Bench::new();
    let get = bench.tell(Event::Tick);
    let create = bench.answer(&get, Ok(None));
    assert!(matches!(write(&create).1, Write::Create(None)));
    let won = bench.commit(&create);
    assert_eq!(cause(&won), Some(Cause::Created));
    assert!(bench.machine.leads());
    assert_eq!(bench.machine.holder(), Some(bench.me().as_str()));
}

#[test]
fn the_fence_is_the_version_of_the_write_that_won() {
    let mut bench = Bench::new();
    let get = bench.tell(Event::Tick);
    let create = bench.answer(&get, Ok(None));
    let sent = bench.now;
    bench.now += SECOND;
    let won = bench.commit(&create);
    let start = Action::Start { cause: Cause::Created, fence: bench.version.to_string(), sent };
    assert!(won.contains(&start), "{won:?}");
}

#[test]
fn losing_the_race_to_create_leads_to_standby() {
    let mut bench = Bench::new();
    let get = bench.tell(Event::Tick);
    let create = bench.answer(&get, Ok(None));
    let get = bench.refuse(&create, Failure::Conflict);
    let record = bench.record("other", 15);
    bench.answer(&get, Ok(Some(record)));
    assert!(find_write(&bench.pass(14 * SECOND)).is_none());
    assert_eq!(bench.machine.holder(), Some("other"));
}

#[test]
fn a_standby_takes_over_when_the_holder_is_empty() {
    let mut bench = Bench::following(15);
    let released = bench.record("", 1);
    bench.tell(Event::Changed(released.clone()));
    let take = bench.pass(SECOND / 10);
    assert_eq!(write(&take).1, Write::Take(released));
    let won = bench.commit(&take);
    assert_eq!(cause(&won), Some(Cause::Released));
}

#[test]
fn a_lease_with_null_fields_is_free() {
    let mut bench = Bench::new();
    let get = bench.tell(Event::Tick);
    bench.answer(&get, Ok(Some(record(11, Value::Null))));
    let take = bench.pass(SECOND / 10);
    assert_eq!(cause(&bench.commit(&take)), Some(Cause::Released));
}

#[test]
fn the_records_own_duration_decides_when_it_expires() {
    let mut bench = Bench::following(40);
    assert!(find_write(&bench.pass(40 * SECOND - SECOND / 100)).is_none());
    let take = bench.pass(SECOND);
    assert_eq!(cause(&bench.commit(&take)), Some(Cause::Expired));
}

#[test]
fn every_change_starts_the_count_anew() {
    let mut bench = Bench::following(15);
    for _ in 0..5 {
        assert!(find_write(&bench.pass(14 * SECOND)).is_none());
        let renewed = bench.record("other", 15);
        bench.tell(Event::Changed(renewed));
    }
    assert!(find_write(&bench.pass(16 * SECOND)).is_some());
}

#[test]
fn a_stale_watch_event_is_ignored() {
    let mut bench = Bench::following(15);
    let stale = record(9, json!({"holderIdentity": ""}));
    bench.tell(Event::Changed(stale));
    assert!(find_write(&bench.pass(14 * SECOND)).is_none());
}

#[test]
fn a_restart_in_the_same_pod_takes_over_at_once() {
    let mut bench = Bench::new();
    let get = bench.tell(Event::Tick);
    let before = Identity::new("me").with_uid("u1");
    let record = bench.record(before.as_str(), 15);
    let take = bench.answer(&get, Ok(Some(record)));
    assert_eq!(cause(&bench.commit(&take)), Some(Cause::SamePod));
}

#[test]
fn a_conflict_while_acquiring_is_followed_by_a_read() {
    let mut bench = Bench::following(15);
    let take = bench.pass(16 * SECOND);
    let get = bench.refuse(&take, Failure::Conflict);
    let record = bench.record("other", 15);
    let seen = bench.answer(&get, Ok(Some(record)));
    assert!(seen.iter().any(|action| matches!(action, Action::Watch(_))), "the watch was stale: {seen:?}");
    assert!(find_write(&bench.pass(14 * SECOND)).is_none());
}

#[test]
fn a_success_that_comes_too_late_is_discarded() {
    let mut bench = Bench::following(15);
    let take = bench.pass(16 * SECOND);
    bench.now += 10 * SECOND;
    let late = bench.commit(&take);
    assert_eq!(cause(&late), None);
    assert!(gets(&late));
}

#[test]
fn a_leader_renews_at_the_interval_from_sending() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    let sent = bench.now;
    assert!(matches!(write(&renew).1, Write::Renew(_)));
    bench.now += SECOND;
    let renewed = bench.commit(&renew);
    assert!(renewed.contains(&Action::Extend { sent }));
    assert!(find_write(&bench.pass(2 * SECOND)).is_some());
}

#[test]
fn a_black_holed_leader_ends_at_the_deadline_from_sending() {
    let mut bench = Bench::leading();
    for _ in 0..2 {
        let renew = bench.pass(3 * SECOND);
        bench.refuse(&renew, Failure::Unavailable(None));
        assert_eq!(ended(&renew), None);
    }
    let actions = bench.pass(4 * SECOND);
    assert_eq!(ended(&actions), Some(Reason::Deadline));
    assert!(!bench.machine.leads());
}

#[test]
fn an_answer_after_the_deadline_does_not_save_the_term() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    // The machine was suspended: no tick came.
    bench.now += 30 * SECOND;
    let actions = bench.commit(&renew);
    assert_eq!(ended(&actions), Some(Reason::Deadline));
    assert!(!actions.iter().any(|action| matches!(action, Action::Extend { .. })));
}

#[test]
fn a_renewal_whose_answer_was_lost_goes_on_after_a_read() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    let committed = bench.committed(&renew);
    bench.refuse(&renew, Failure::Unavailable(None));
    let again = bench.pass(2 * SECOND);
    let get = bench.refuse(&again, Failure::Conflict);
    let renew = bench.answer(&get, Ok(Some(committed.clone())));
    assert_eq!(write(&renew).1, Write::Renew(committed));
    bench.commit(&renew);
    assert!(bench.machine.leads());
}

#[test]
fn a_superseded_leader_drains_at_once_and_never_releases() {
    let mut bench = Bench::leading();
    let stolen = bench.record("other", 15);
    let actions = bench.tell(Event::Changed(stolen));
    assert_eq!(ended(&actions), Some(Reason::Superseded));
    bench.tell(Event::WorkEnded);
    let later = bench.pass(14 * SECOND);
    assert!(find_write(&bench.log[..]).is_some_and(|(_, write)| !matches!(write, Write::Release(_))));
    assert!(find_write(&later).is_none());
}

#[test]
fn a_leader_that_reads_another_holder_drains_at_once() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    let get = bench.refuse(&renew, Failure::Conflict);
    let stolen = bench.record("other", 15);
    let actions = bench.answer(&get, Ok(Some(stolen)));
    assert_eq!(ended(&actions), Some(Reason::Superseded));
}

#[test]
fn work_that_lingers_after_its_term_is_dropped_before_the_time_to_abort() {
    let mut bench = Bench::leading();
    let stolen = bench.record("other", 15);
    bench.tell(Event::Changed(stolen));
    let actions = bench.pass(bench.settings.grace());
    assert!(actions.contains(&Action::Drop));
    assert!(bench.settings.hard_deadline + bench.settings.grace() < bench.settings.abort_after);
}

#[test]
fn a_leader_recreates_a_deleted_lease_at_once() {
    let mut bench = Bench::leading();
    let deleted = bench.record("", 15);
    let create = bench.tell(Event::Deleted(deleted));
    assert!(matches!(write(&create).1, Write::Create(Some(_))));
    bench.commit(&create);
    assert!(bench.machine.leads());
}

#[test]
fn a_leader_whose_deleted_lease_is_recreated_by_another_drains() {
    let mut bench = Bench::leading();
    let deleted = bench.record("", 15);
    let create = bench.tell(Event::Deleted(deleted));
    let get = bench.refuse(&create, Failure::Conflict);
    let other = bench.record("other", 15);
    let actions = bench.answer(&get, Ok(Some(other)));
    assert_eq!(ended(&actions), Some(Reason::Deleted));
}

#[test]
fn a_follower_waits_a_lease_duration_after_a_deletion() {
    let mut bench = Bench::following(15);
    let deleted = bench.record("other", 15);
    bench.tell(Event::Deleted(deleted));
    assert!(find_write(&bench.pass(14 * SECOND + SECOND / 2)).is_none());
    let create = bench.pass(SECOND);
    assert_eq!(cause(&bench.commit(&create)), Some(Cause::Created));
}

#[test]
fn an_absence_that_was_not_watched_all_the_time_counts_anew() {
    let lose: [fn(&mut Bench); 2] = [
        |bench| {
            let get = bench.tell(Event::WatchEnded(WatchEnd::Failed));
            assert!(!gets(&get));
        },
        // Asleep beyond the time to create it.
        |bench| bench.now += 30 * SECOND,
    ];
    for lose_sight in lose {
        let mut bench = Bench::following(15);
        let deleted = bench.record("other", 15);
        bench.tell(Event::Deleted(deleted));
        bench.pass(10 * SECOND);
        lose_sight(&mut bench);
        let get = bench.pass(5 * SECOND);
        assert!(find_write(&get).is_none());
        bench.answer(&get, Ok(None));
        assert!(find_write(&bench.pass(9 * SECOND)).is_none());
        assert!(find_write(&bench.pass(7 * SECOND)).is_some());
    }
}

#[test]
fn a_shutdown_keeps_renewing_until_the_work_returned_and_then_releases() {
    let mut bench = Bench::leading();
    let actions = bench.tell(Event::Shutdown);
    assert_eq!(ended(&actions), Some(Reason::Shutdown));
    for _ in 0..5 {
        let renew = bench.pass(3 * SECOND);
        assert!(matches!(write(&renew).1, Write::Renew(_)));
        bench.commit(&renew);
    }
    let release = bench.tell(Event::WorkEnded);
    assert!(matches!(write(&release).1, Write::Release(_)));
    let stopped = bench.commit(&release);
    assert_eq!(stopped.last(), Some(&Action::Stop(Ok(()))));
}

#[test]
fn a_shutdown_during_a_renewal_releases_the_version_that_it_made() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    bench.tell(Event::Shutdown);
    assert!(find_write(&bench.tell(Event::WorkEnded)).is_none());
    let release = bench.commit(&renew);
    match write(&release).1 {
        Write::Release(record) => assert_eq!(record.resource_version(), bench.version.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_release_that_meets_a_successor_leaves_it_alone() {
    let mut bench = Bench::leading();
    bench.tell(Event::Shutdown);
    let release = bench.tell(Event::WorkEnded);
    let get = bench.refuse(&release, Failure::Conflict);
    let other = bench.record("other", 15);
    let actions = bench.answer(&get, Ok(Some(other)));
    assert_eq!(actions, [Action::Stop(Ok(()))]);
}

#[test]
fn a_release_that_meets_an_own_renewal_is_tried_again() {
    let mut bench = Bench::leading();
    bench.tell(Event::Shutdown);
    let release = bench.tell(Event::WorkEnded);
    let get = bench.refuse(&release, Failure::Conflict);
    let (me, seconds) = (bench.me(), 15);
    let own = bench.record(&me, seconds);
    let actions = bench.answer(&get, Ok(Some(own.clone())));
    assert_eq!(write(&actions).1, Write::Release(own));
}

#[test]
fn draining_that_overruns_ends_without_a_release() {
    let mut bench = Bench::leading();
    bench.tell(Event::Shutdown);
    let mut actions = Vec::new();
    for _ in 0..7 {
        actions = bench.pass(3 * SECOND);
        if find_write(&actions).is_some() {
            bench.commit(&actions);
        }
    }
    assert_eq!(actions, [Action::Drop, Action::Stop(Err(20 * SECOND))]);
}

#[test]
fn a_shutdown_while_acquiring_gives_the_lease_back() {
    let mut bench = Bench::following(15);
    let take = bench.pass(16 * SECOND);
    assert!(bench.tell(Event::Shutdown).is_empty());
    let release = bench.commit(&take);
    assert_eq!(cause(&release), None);
    assert!(matches!(write(&release).1, Write::Release(_)));
}

#[test]
fn a_shutdown_while_standing_by_ends_at_once() {
    let mut bench = Bench::following(15);
    assert_eq!(bench.tell(Event::Shutdown), [Action::Stop(Ok(()))]);
}

#[test]
fn work_that_fails_hands_on_and_competes_again_with_growing_backoff() {
    let mut bench = Bench::leading();
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let release = bench.tell(Event::WorkEnded);
        assert_eq!(ended(&release), Some(Reason::WorkFailed));
        let get = bench.commit(&release);
        let free = bench.record("", 1);
        bench.answer(&get, Ok(Some(free)));
        assert!(find_write(&bench.pass(seconds * SECOND - SECOND / 100)).is_none());
        let take = bench.pass(SECOND / 5);
        assert_eq!(cause(&bench.commit(&take)), Some(Cause::Released));
    }
}

#[test]
fn the_servers_wish_to_wait_is_granted_within_the_term() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    bench.refuse(&renew, Failure::Unavailable(Some(60 * SECOND)));
    assert!(find_write(&bench.pass(3 * SECOND)).is_none());
    // Three seconds, a request's length, are left.
    let renew = bench.pass(SECOND);
    bench.commit(&renew);
    assert!(bench.machine.leads());
}

#[test]
fn without_a_watch_the_lease_is_polled() {
    let mut bench = Bench::following(15);
    bench.tell(Event::WatchEnded(WatchEnd::Forbidden));
    for _ in 0..10 {
        assert!(!gets(&bench.pass(2 * SECOND - SECOND / 100)));
        let get = bench.pass(5 * SECOND / 2);
        let record = bench.record("other", 15);
        let seen = bench.answer(&get, Ok(Some(record)));
        assert!(seen.is_empty(), "it asks for a watch only now and then: {seen:?}");
    }
}

#[test]
fn a_watch_that_ended_in_its_time_goes_on_where_it_was() {
    let mut bench = Bench::following(15);
    bench.pass(10 * SECOND);
    let version = bench.version.to_string();
    assert_eq!(bench.tell(Event::WatchEnded(WatchEnd::Closed)), [Action::Watch(version)]);
    // It ends right away: no tight loop.
    assert_eq!(bench.tell(Event::WatchEnded(WatchEnd::Closed)), []);
    assert!(gets(&bench.pass(5 * SECOND)));
}

#[test]
fn an_expired_watch_is_started_again_from_a_read() {
    let mut bench = Bench::following(15);
    bench.pass(10 * SECOND);
    let get = bench.tell(Event::WatchEnded(WatchEnd::Expired));
    let record = bench.record("other", 15);
    let version = record.resource_version().to_owned();
    assert_eq!(bench.answer(&get, Ok(Some(record))), [Action::Watch(version)]);
    // It ends right away each time: no tight loop.
    assert!(!gets(&bench.tell(Event::WatchEnded(WatchEnd::Expired))));
}

#[test]
fn a_server_that_is_away_at_the_start_is_tried_again() {
    let mut bench = Bench::new();
    let mut actions = bench.tell(Event::Tick);
    for _ in 0..20 {
        bench.answer(&actions, Err(Failure::Unavailable(None)));
        actions = bench.pass(6 * SECOND / 5);
    }
    let create = bench.answer(&actions, Ok(None));
    assert_eq!(cause(&bench.commit(&create)), Some(Cause::Created));
}

#[test]
fn an_answer_to_a_request_given_up_is_ignored() {
    let mut bench = Bench::leading();
    let renew = bench.pass(3 * SECOND);
    let (id, _) = write(&renew);
    let committed = bench.committed(&renew);
    bench.refuse(&renew, Failure::Unavailable(None));
    assert!(bench.tell(Event::Written(id, Ok(committed))).is_empty());
}
