use std::time::Duration;

use serde_json::json;
use tokio::{
    sync::mpsc::unbounded_channel,
    time::{Instant, sleep},
};
use vdbi_core::memory::kubernetes::{Fault, Verb};

use crate::cluster::{Cluster, SECOND, of};

#[tokio::test(start_paused = true)]
async fn a_black_holed_leader_stops_before_its_successor_begins() {
    let mut cluster = Cluster::new();
    let (dropped, mut was_dropped) = unbounded_channel::<()>();
    // Work that takes no notice of its term.
    let candidate = cluster.candidate("a");
    let mut a = cluster.run(candidate, move |term, terms| {
        let dropped = dropped.clone();
        async move {
            terms.send(term)?;
            let _dropped = dropped.clone();
            std::future::pending().await
        }
    });
    let before = a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;

    a.link.cut();
    let start = Instant::now();
    while before.check().is_ok() {
        sleep(SECOND / 100).await;
    }
    assert!(start.elapsed() <= 10 * SECOND && b.terms.is_empty(), "{:?}", start.elapsed());
    b.leads().await;
    assert!(start.elapsed() < 17 * SECOND, "{:?}", start.elapsed());
    assert!(!a.status.borrow().leading);
    a.run.abort();
    assert!(was_dropped.recv().await.is_none(), "the work was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_comes_back_stands_by_and_leads_again_later() {
    let mut cluster = Cluster::new();
    let (mut a, _, mut b) = cluster.pair().await;
    a.link.cut();
    b.leads().await;
    sleep(100 * SECOND).await;
    a.link.heal();
    a.stands_by().await;
    b.shutdown.cancel();
    a.leads().await;
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lease_ends_the_term_at_once() {
    let mut cluster = Cluster::new();
    let (_a, term, _b) = cluster.pair().await;
    cluster.change(|spec| spec.holder_identity = Some("thief".to_owned())).await;
    let start = Instant::now();
    term.over().await;
    assert!(start.elapsed() < SECOND / 100, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lease_ends_the_term_with_the_next_renewal_where_nothing_is_watched() {
    let mut cluster = Cluster::new();
    let (a, term, _b) = cluster.pair().await;
    a.link.pause_watches(true);
    cluster.change(|spec| spec.holder_identity = Some("thief".to_owned())).await;
    let start = Instant::now();
    term.over().await;
    assert!(start.elapsed() <= 3 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_recreated_under_the_same_term() {
    let mut cluster = Cluster::new();
    let (_a, term, b) = cluster.pair().await;
    cluster.delete().await;
    sleep(60 * SECOND).await;
    assert_eq!(term.check(), Ok(()));
    assert_eq!(cluster.holder().await, term.identity());
    assert!(b.terms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_after_the_commit_costs_nothing() {
    for lost in [Fault::silence(), Fault::reset(), Fault::status(504)] {
        let mut cluster = Cluster::new();
        cluster.api.fail_next(of("a", Verb::Create), lost.clone().after_commit());
        let mut a = cluster.replica("a");
        let term = a.leads().await;
        cluster.api.fail_next(of("a", Verb::Update), lost.clone().after_commit());
        sleep(60 * SECOND).await;
        assert_eq!(term.check(), Ok(()), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_that_comes_after_the_deadline_is_thrown_away() {
    let mut cluster = Cluster::new();
    let write = cluster.api.hold(of("a", Verb::Create));
    let mut a = cluster.replica("a");
    sleep(SECOND / 10).await;
    // The machine sleeps while the write is under way.
    a.clock.suspend(11 * SECOND);
    write.release();
    sleep(SECOND / 10).await;
    let term = a.leads().await;
    assert!(term.remaining() > 9 * SECOND, "the term counts from a write sent later: {:?}", term.remaining());
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_has_lost_its_term_when_it_wakes() {
    let mut cluster = Cluster::new();
    let (mut a, term, _b) = cluster.pair().await;
    a.clock.suspend(10 * SECOND);
    assert!(term.check().is_err(), "before anything else runs");
    let start = Instant::now();
    term.over().await;
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    a.leads().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_the_right_to_watch_polls() {
    let mut cluster = Cluster::new();
    let _forbidden = cluster.api.fail_while(|call| call.verb == Verb::Watch, Fault::status(403));
    let (a, _, mut b) = cluster.pair().await;
    sleep(60 * SECOND).await;
    assert_eq!(b.link.calls(Verb::Watch, "leases"), 1, "it does not ask again and again");
    assert!((15..45).contains(&b.link.calls(Verb::Get, "leases")), "{}", b.link.calls(Verb::Get, "leases"));
    let start = Instant::now();
    a.shutdown.cancel();
    b.leads().await;
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_version_is_gone_starts_again() {
    let mut cluster = Cluster::new();
    let (a, _, mut b) = cluster.pair().await;
    for _ in 0..3 {
        sleep(100 * SECOND).await;
        cluster.api.compact();
        cluster.api.close_watches();
    }
    sleep(10 * SECOND).await;
    let start = Instant::now();
    a.shutdown.cancel();
    b.leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_behind_makes_no_second_leader() {
    let mut cluster = Cluster::new();
    let (_a, term, b) = cluster.pair().await;
    b.link.pause_watches(true);
    for _ in 0..600 {
        sleep(SECOND / 10).await;
        assert!(b.terms.is_empty() && term.check().is_ok());
    }
    b.link.pause_watches(false);
    sleep(60 * SECOND).await;
    assert!(b.terms.is_empty() && term.check().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_server_is_left_alone_for_as_long_as_it_asks() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let term = a.leads().await;
    let overloaded = Fault::status(429).retry_after(4 * SECOND);
    cluster.api.fail_next(of("a", Verb::Update), overloaded);
    sleep(Duration::from_millis(3_100)).await;
    assert_eq!(a.link.calls(Verb::Update, "leases"), 1);
    sleep(Duration::from_millis(3_700)).await;
    assert_eq!(
        a.link.calls(Verb::Update, "leases"),
        1,
        "it waits, though a retry would be due after a second"
    );
    sleep(SECOND / 2).await;
    assert_eq!(a.link.calls(Verb::Update, "leases"), 2);
    assert_eq!(term.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_at_the_start_is_waited_for() {
    let mut cluster = Cluster::new();
    let candidate = cluster.candidate("a");
    candidate.link.refuse();
    let mut a = cluster.run(candidate, |term, terms| async move {
        terms.send(term.clone())?;
        term.over().await;
        Ok(())
    });
    sleep(100 * SECOND).await;
    assert!(!a.status.borrow().initialized);
    a.link.heal();
    let start = Instant::now();
    a.leads().await;
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_written_by_a_stranger_is_waited_for_and_taken() {
    for spec in [
        json!({"holderIdentity": "somebody", "leaseDurationSeconds": null, "leaseTransitions": null}),
        json!({"holderIdentity": "somebody", "leaseDurationSeconds": 15, "leaseTransitions": i32::MAX}),
    ] {
        let mut cluster = Cluster::new();
        cluster.create(spec.clone()).await;
        let start = Instant::now();
        cluster.replica("a").leads().await;
        assert!(
            start.elapsed() >= 15 * SECOND && start.elapsed() < 16 * SECOND,
            "{spec}: {:?}",
            start.elapsed()
        );
    }
}
