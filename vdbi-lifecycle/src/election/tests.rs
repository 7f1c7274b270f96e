use std::{
    sync::{
        Mutex,
        atomic::Ordering,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use vdbi_core::{clock::TokioClock, leadership::TermOver};

use super::*;

mod server;

use server::{Link, Server};

const SECOND: Duration = Duration::from_secs(1);

/// Replicas over one server, with paused time.
struct Cluster {
    server: Arc<Server>,
    clock: Arc<TokioClock>,
    runs: JoinSet<Result<(), LeadershipError>>,
}

/// One replica: its work tells each term, and returns when the term is over.
struct Replica {
    link: Link,
    shutdown: CancellationToken,
    status: watch::Receiver<Status>,
    terms: UnboundedReceiver<Term>,
    run: AbortHandle,
}

impl Cluster {
    fn new() -> Self {
        Self { server: Arc::default(), clock: Arc::new(TokioClock::new()), runs: JoinSet::new() }
    }

    fn election(&self, pod: &str, link: &Link) -> LeaseElection {
        let settings = Settings::new("renewer", "vdbi", Identity::new(pod, pod));
        let client = self.server.client(link);
        LeaseElection::new(client, settings, self.clock.clone(), &Registry::disabled()).unwrap()
    }

    fn replica(&mut self, pod: &str) -> Replica {
        self.replica_with(pod, |term, terms| async move {
            terms.send(term.clone())?;
            term.over().await;
            Ok(())
        })
    }

    fn replica_with<W, F>(&mut self, pod: &str, work: W) -> Replica
    where
        W: Fn(Term, UnboundedSender<Term>) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let link = Link::default();
        let election = self.election(pod, &link);
        let (sender, terms) = unbounded_channel();
        let (status, shutdown) = (election.status(), CancellationToken::new());
        let run = self.runs.spawn(election.run(move |term| work(term, sender.clone()), shutdown.clone()));
        Replica { link, shutdown, status, terms, run }
    }
}

impl Replica {
    async fn leads(&mut self) -> Term {
        timeout(60 * SECOND, self.terms.recv()).await.expect("it leads within a minute").expect("it runs")
    }

    async fn stands_by(&mut self) {
        let behind = |status: &Status| status.initialized && !status.leading && !status.holder.is_empty();
        timeout(60 * SECOND, self.status.wait_for(behind)).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_leads_and_keeps_leading() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let term = a.leads().await;
    assert_eq!((term.lease(), term.fence()), ("renewer", "1"));
    assert!(a.status.borrow_and_update().leading);
    let lease = cluster.server.lease().unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], term.identity());
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(term.check(), Ok(()));
    assert!(!term.remaining().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_hands_over_within_a_second() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let before = a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    tokio::time::sleep(20 * SECOND).await;

    let start = Instant::now();
    a.shutdown.cancel();
    let after = b.leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());
    assert!(before.check().is_err());
    assert!(after.fence().parse::<u64>().unwrap() > before.fence().parse().unwrap());
    cluster.runs.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_is_succeeded_when_its_lease_has_expired() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let before = a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    tokio::time::sleep(20 * SECOND).await;

    let start = Instant::now();
    a.run.abort();
    assert!(cluster.runs.join_next().await.unwrap().is_err());
    assert!(before.check().is_err(), "the term ends with the run");
    assert!(!a.status.borrow().leading);
    let lease = cluster.server.lease().unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], before.identity(), "nothing was released");
    b.leads().await;
    let waited = start.elapsed();
    assert!(waited > 11 * SECOND && waited < 16 * SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn work_that_fails_or_panics_competes_again() {
    let mut cluster = Cluster::new();
    let tries = Arc::new(Mutex::new(0));
    let mut a = cluster.replica_with("a", move |term, terms| {
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
        let fence = a.leads().await.fence().parse::<u64>().unwrap();
        assert!(fence > last);
        last = fence;
    }
    a.shutdown.cancel();
    cluster.runs.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(cluster.server.lease().unwrap()["spec"]["holderIdentity"], "");
}

#[tokio::test(start_paused = true)]
async fn a_black_holed_leader_stops_before_its_successor_begins() {
    let mut cluster = Cluster::new();
    let (dropped, mut was_dropped) = unbounded_channel::<()>();
    // Work that takes no notice of its term.
    let mut a = cluster.replica_with("a", move |term, terms| {
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
    let after = b.leads().await;
    assert!(before.check().is_err());
    assert!(start.elapsed() < 17 * SECOND);
    // It competes again when it can, so nothing of it ended but the work.
    assert!(!a.status.borrow().leading);
    a.run.abort();
    drop(after);
    assert!(was_dropped.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_recreated_under_the_same_term() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let term = a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    cluster.server.delete();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(term.check(), Ok(()));
    assert_eq!(cluster.server.lease().unwrap()["spec"]["holderIdentity"], term.identity());
    assert!(b.terms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_costs_nothing() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let term = a.leads().await;
    cluster.server.lose_answer.store(true, Ordering::SeqCst);
    tokio::time::sleep(60 * SECOND).await;
    assert!(!cluster.server.lose_answer.load(Ordering::SeqCst));
    assert_eq!(term.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_the_right_to_watch_polls() {
    let mut cluster = Cluster::new();
    cluster.server.watch_forbidden.store(true, Ordering::SeqCst);
    let mut a = cluster.replica("a");
    a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(cluster.server.watches.load(Ordering::SeqCst), 2, "one try each");

    let start = Instant::now();
    a.shutdown.cancel();
    b.leads().await;
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_version_is_gone_starts_again() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    a.leads().await;
    let mut b = cluster.replica("b");
    b.stands_by().await;
    for _ in 0..3 {
        tokio::time::sleep(200 * SECOND).await;
        cluster.server.compact();
    }
    let start = Instant::now();
    a.shutdown.cancel();
    b.leads().await;
    assert!(start.elapsed() < SECOND / 5, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_follower_costs_almost_nothing() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    let term = a.leads().await;
    let alone = {
        let before = cluster.server.requests.load(Ordering::SeqCst);
        tokio::time::sleep(600 * SECOND).await;
        cluster.server.requests.load(Ordering::SeqCst) - before
    };
    let mut b = cluster.replica("b");
    b.stands_by().await;
    let before = cluster.server.requests.load(Ordering::SeqCst);
    tokio::time::sleep(600 * SECOND).await;
    let both = cluster.server.requests.load(Ordering::SeqCst) - before;
    assert!((195..=205).contains(&alone), "{alone}");
    assert!(both <= alone + 3, "{both}");
    assert_eq!(term.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn work_that_drains_too_long_leaves_the_lease_to_expire() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica_with("a", |term, terms| async move {
        terms.send(term)?;
        std::future::pending().await
    });
    let term = a.leads().await;
    let start = Instant::now();
    a.shutdown.cancel();
    let result = cluster.runs.join_next().await.unwrap().unwrap();
    assert!(matches!(result, Err(LeadershipError::DrainTimeout(limit)) if limit == 20 * SECOND));
    assert!(start.elapsed() >= 20 * SECOND && start.elapsed() < 21 * SECOND);
    assert_eq!(term.check(), Err(TermOver { lease: "renewer".into() }));
    assert_eq!(cluster.server.lease().unwrap()["spec"]["holderIdentity"], term.identity());
}

/// In real time: what blocks a thread cannot be paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_blocks_beyond_its_term_is_called_out() {
    let server = Arc::new(Server::default());
    let link = Link::default();
    let settings = Settings::new("renewer", "vdbi", Identity::new("a", "a")).scaled_to(SECOND);
    let clock = Arc::new(BoottimeClock);
    let (call, called) = channel();
    let election = LeaseElection::new(server.client(&link), settings, clock, &Registry::disabled())
        .unwrap()
        .on_overrun(move || call.send(()).unwrap_or_default());
    let called = Arc::new(Mutex::new(Some(called)));
    let (told, mut tell) = unbounded_channel();
    let mut runs = JoinSet::new();
    let work = move |term: Term| {
        let (link, called, told) = (link.clone(), called.clone(), told.clone());
        async move {
            let Some(called): Option<Receiver<()>> = called.lock().unwrap().take() else { return Ok(()) };
            link.cut();
            let overran = called.recv_timeout(20 * SECOND).is_ok();
            told.send((overran, term.check().is_err()))?;
            Ok(())
        }
    };
    runs.spawn(election.run(work, CancellationToken::new()));
    assert_eq!(tell.recv().await, Some((true, true)));
}
