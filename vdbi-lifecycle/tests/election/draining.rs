use std::time::Duration;

use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, sleep},
};
use vdbi_core::{
    leadership::{LeadershipError, TermOver},
    memory::kubernetes::{Fault, Verb},
};

use crate::cluster::{Cluster, Replica, SECOND, of};

#[tokio::test(start_paused = true)]
async fn slow_draining_holds_the_lease_until_the_work_has_returned() {
    let mut cluster = Cluster::new();
    let candidate = cluster.candidate("a");
    let mut a = cluster.run(candidate, |term, terms| async move {
        terms.send(term.clone())?;
        term.over().await;
        sleep(18 * SECOND).await;
        Ok(())
    });
    let term = a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    let start = Instant::now();
    a.shutdown.cancel();
    sleep(17 * SECOND).await;
    assert!(term.check().is_err(), "no effect begins any more");
    assert_eq!(cluster.holder().await, term.identity(), "it is still renewed");
    b.leads().await;
    assert!(start.elapsed() >= 18 * SECOND && start.elapsed() < 19 * SECOND, "{:?}", start.elapsed());
}

/// A leader with an effect of six seconds under way, and what comes of it.
async fn with_an_effect(cluster: &mut Cluster) -> (Replica, UnboundedReceiver<Result<(), TermOver>>) {
    let (outcomes, outcome) = unbounded_channel();
    let candidate = cluster.candidate("a");
    let mut a = cluster.run(candidate, move |term, terms| {
        let outcomes = outcomes.clone();
        async move {
            terms.send(term.clone())?;
            outcomes.send(term.run(sleep(6 * SECOND)).await)?;
            term.wait(std::future::pending::<()>()).await?;
            Ok(())
        }
    });
    a.leads().await;
    sleep(SECOND).await;
    (a, outcome)
}

#[tokio::test(start_paused = true)]
async fn an_effect_under_way_at_a_shutdown_is_finished_before_the_lease_is_handed_on() {
    let mut cluster = Cluster::new();
    let (a, mut outcome) = with_an_effect(&mut cluster).await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    a.shutdown.cancel();
    b.leads().await;
    assert_eq!(outcome.try_recv().unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_a_shutdown_lets_finish_ends_when_the_lease_is_taken_from_it() {
    let mut cluster = Cluster::new();
    let (a, mut outcome) = with_an_effect(&mut cluster).await;
    a.shutdown.cancel();
    sleep(SECOND).await;
    assert!(outcome.is_empty(), "it goes on");
    let start = Instant::now();
    cluster.change(|spec| spec.holder_identity = Some("thief".to_owned())).await;
    assert!(outcome.recv().await.unwrap().is_err());
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    cluster.ended().await.unwrap();
    assert_eq!(cluster.holder().await, "thief");
}

#[tokio::test(start_paused = true)]
async fn draining_that_overruns_leaves_the_lease_to_expire() {
    let mut cluster = Cluster::new();
    let candidate = cluster.candidate("a");
    let mut a = cluster.run(candidate, |term, terms| async move {
        terms.send(term)?;
        std::future::pending().await
    });
    let term = a.leads().await;
    let start = Instant::now();
    a.shutdown.cancel();
    assert!(
        matches!(cluster.ended().await, Err(LeadershipError::DrainTimeout(limit)) if limit == 20 * SECOND)
    );
    assert!(start.elapsed() >= 20 * SECOND && start.elapsed() < 21 * SECOND);
    assert_eq!(term.check().unwrap_err().lease, "renewer");
    assert_eq!(cluster.holder().await, term.identity());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_a_renewal_releases_what_the_renewal_wrote() {
    let mut cluster = Cluster::new();
    let (a, _, mut b) = cluster.pair().await;
    let renewal = cluster.api.hold(of("a", Verb::Update));
    sleep(4 * SECOND).await;
    a.shutdown.cancel();
    sleep(SECOND / 10).await;
    assert!(b.terms.is_empty());
    let start = Instant::now();
    renewal.release();
    b.leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());
    cluster.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_the_first_read_ends_the_run() {
    let mut cluster = Cluster::new();
    let _read = cluster.api.hold(of("a", Verb::Get));
    let a = cluster.replica("a");
    sleep(SECOND).await;
    a.shutdown.cancel();
    let start = Instant::now();
    cluster.ended().await.unwrap();
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_acquiring_gives_the_lease_back() {
    let mut cluster = Cluster::new();
    let write = cluster.api.hold(of("a", Verb::Create));
    let a = cluster.replica("a");
    sleep(SECOND).await;
    a.shutdown.cancel();
    sleep(SECOND / 10).await;
    write.release();
    cluster.ended().await.unwrap();
    assert!(a.terms.is_empty());
    assert_eq!(cluster.holder().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_comes_too_late_leaves_the_successor_alone() {
    let mut cluster = Cluster::new();
    let (a, term, _b) = cluster.pair().await;
    // Somebody takes the lease by force, and the watch of its leader has not told it yet.
    a.link.pause_watches(true);
    cluster.change(|spec| spec.holder_identity = Some("thief".to_owned())).await;
    assert_eq!(term.check(), Ok(()));
    a.shutdown.cancel();
    cluster.ended().await.unwrap();
    assert_eq!(cluster.holder().await, "thief");
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_has_happened() {
    let mut cluster = Cluster::new();
    let (a, _, mut b) = cluster.pair().await;
    cluster.api.fail_next(of("a", Verb::Update), Fault::silence().after_commit());
    let start = Instant::now();
    a.shutdown.cancel();
    b.leads().await;
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    cluster.ended().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
