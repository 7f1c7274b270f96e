use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, SECOND, shared};

fn fence(term: &vdbi_core::leadership::Term) -> u64 {
    term.fence().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_creates_the_lease_and_keeps_leading() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let term = a.leads().await;
    assert_eq!(term.lease(), "renewer");
    assert!(a.status.borrow_and_update().leading);
    let lease = cluster.lease().await;
    assert_eq!(lease.holder_identity.as_deref(), Some(term.identity()));
    assert_eq!((lease.lease_duration_seconds, lease.lease_transitions), (Some(15), Some(0)));
    sleep(600 * SECOND).await;
    assert_eq!(term.check(), Ok(()));
    let renewed = cluster.lease().await;
    assert_eq!(renewed.acquire_time, lease.acquire_time);
    assert_eq!(renewed.lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_nobody_is_taken_at_once() {
    for spec in [
        Value::Null,
        json!({}),
        json!({"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 4}),
    ] {
        let mut cluster = Cluster::new();
        cluster.create(spec.clone()).await;
        let start = Instant::now();
        cluster.replica("a").leads().await;
        assert!(start.elapsed() < SECOND / 5, "{spec}: {:?}", start.elapsed());
        let before = spec["leaseTransitions"].as_i64().unwrap_or_default();
        assert_eq!(cluster.lease().await.lease_transitions.map(i64::from), Some(before + 1), "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_another_is_taken_when_it_has_stood_for_its_own_duration() {
    // A client-go candidate that died long ago, by its wall clock: nobody knows how that clock goes.
    let mut cluster = Cluster::new();
    let long_ago = "2020-01-01T00:00:00.000000Z";
    cluster
        .create(json!({"holderIdentity": "someone", "leaseDurationSeconds": 40, "acquireTime": long_ago,
            "renewTime": long_ago, "leaseTransitions": 2}))
        .await;
    let start = Instant::now();
    cluster.replica("a").leads().await;
    assert!(start.elapsed() >= 40 * SECOND && start.elapsed() < 41 * SECOND, "{:?}", start.elapsed());
    assert_eq!(cluster.lease().await.lease_transitions, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_client_go_keeps_the_lease_while_it_renews_and_hands_it_over() {
    let mut cluster = Cluster::new();
    cluster.create(json!({"holderIdentity": "peer", "leaseDurationSeconds": 15})).await;
    let mut a = cluster.replica("a");
    for _ in 0..20 {
        sleep(2 * SECOND).await;
        cluster.change(|spec| spec.renew_time = Some(MicroTime(Timestamp::now()))).await;
    }
    assert!(a.terms.is_empty());
    // As its ReleaseOnCancel writes it.
    cluster
        .change(|spec| {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        })
        .await;
    let start = Instant::now();
    a.leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());

    a.shutdown.cancel();
    cluster.ended().await.unwrap();
    let released = cluster.lease().await;
    assert_eq!(released.holder_identity.as_deref(), Some(""));
    assert_eq!(released.lease_duration_seconds, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_hands_over_at_once() {
    let mut cluster = Cluster::new();
    let (a, before, mut b) = cluster.pair().await;
    let start = Instant::now();
    a.shutdown.cancel();
    let after = b.leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());
    assert!(before.check().is_err());
    assert!(fence(&after) > fence(&before));
    cluster.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crashed_leader_is_succeeded_when_its_lease_has_run_out() {
    let mut cluster = Cluster::new();
    let (a, before, mut b) = cluster.pair().await;
    let start = Instant::now();
    a.run.abort();
    assert!(cluster.runs.join_next().await.unwrap().is_err());
    assert!(before.check().is_err(), "the term ends with the run");
    assert!(!a.status.borrow().leading);
    assert_eq!(cluster.holder().await, before.identity(), "nothing was released");
    b.leads().await;
    let waited = start.elapsed();
    assert!(waited > 11 * SECOND && waited < 16 * SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_restarts_in_the_same_pod_leads_again_at_once() {
    let mut cluster = Cluster::new();
    let (a, before, b) = cluster.pair().await;
    a.run.abort();
    assert!(cluster.runs.join_next().await.unwrap().is_err());
    let start = Instant::now();
    let after = cluster.replica("a").leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());
    assert!(fence(&after) > fence(&before) && after.identity() != before.identity());
    sleep(60 * SECOND).await;
    assert!(b.terms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn work_that_fails_panics_or_returns_competes_again() {
    let mut cluster = Cluster::new();
    let tries = shared(0);
    let candidate = cluster.candidate("a");
    let mut a = cluster.run(candidate, move |term, terms| {
        let tries = tries.clone();
        async move {
            terms.send(term.clone())?;
            let this = {
                let mut tries = tries.lock().unwrap();
                *tries += 1;
                *tries
            };
            match this {
                1 => Err("no database".into()),
                2 => panic!("a bug"),
                3 => Ok(()),
                _ => {
                    term.over().await;
                    Ok(())
                }
            }
        }
    });
    let mut last = 0;
    for _ in 0..4 {
        let term = a.leads().await;
        assert!(fence(&term) > last);
        last = fence(&term);
    }
    a.shutdown.cancel();
    cluster.ended().await.unwrap();
    assert_eq!(cluster.holder().await, "");
}

#[tokio::test(start_paused = true)]
async fn an_idle_follower_costs_the_api_server_almost_nothing() {
    let mut cluster = Cluster::new();
    let (a, term, b) = cluster.pair().await;
    let before = (a.requests(), b.requests());
    sleep(3600 * SECOND).await;
    let (leader, follower) = (a.requests() - before.0, b.requests() - before.1);
    assert_eq!(term.check(), Ok(()));
    assert!((1200..=1230).contains(&leader), "{leader} requests in an hour");
    assert!(follower <= 18, "{follower} requests in an hour are more than 0.005 per second");
}
