//! Several elections in each replica.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::ListParams};
use serde_json::json;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    admin::{self, PrometheusPage},
    health::{Health, Probe},
    leadership::{LeadershipError, Term},
    memory::kubernetes::{Call, Connection, Fault, KubernetesApi, Verb},
    testing::SuspendableClock,
};
use vdbi_lifecycle::{
    election::{Elections, Identity, LeaseRef, Settings},
    shard::Shard,
};

use crate::cluster::{SECOND, metric};

const SHARDS: u16 = 8;

struct Replicas {
    api: KubernetesApi,
    runs: JoinSet<Result<(), LeadershipError>>,
}

struct Replica {
    link: Connection,
    health: Health,
    page: PrometheusPage,
    shutdown: CancellationToken,
    run: AbortHandle,
    /// The terms that its work has got, and that stand.
    terms: Arc<Mutex<BTreeMap<Shard, Term>>>,
}

impl Replicas {
    fn new() -> Self {
        Self { api: KubernetesApi::new(), runs: JoinSet::new() }
    }

    fn start(&mut self, pod: &str, shards: u16) -> Replica {
        let link = self.api.connect(pod);
        let clock = Arc::new(SuspendableClock::new());
        let (registry, page) = admin::prometheus().unwrap();
        let settings = Settings::new(
            LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
            Identity::new(pod).with_uid(pod),
        );
        let health = Health::with_clock(clock.clone());
        let elections = Elections::new(link.client(), settings, shards, clock, &registry).unwrap();
        elections.report(&health);
        let (shutdown, terms) = (CancellationToken::new(), Arc::new(Mutex::new(BTreeMap::new())));
        let told = terms.clone();
        let work = move |shard, term: Term| {
            told.lock().unwrap().insert(shard, term.clone());
            async move {
                term.over().await;
                Ok(())
            }
        };
        let run = self.runs.spawn(elections.run(work, shutdown.clone()));
        Replica { link, health, page, shutdown, run, terms }
    }

    async fn three(&mut self) -> [Replica; 3] {
        let replicas = ["a", "b", "c"].map(|pod| self.start(pod, SHARDS));
        sleep(2 * SECOND).await;
        replicas
    }

    /// The leases' names, without the one where wishes are written.
    async fn leases(&self) -> Vec<String> {
        let leases: Api<Lease> = Api::namespaced(self.api.client(), "vdbi");
        let leases = leases.list(&ListParams::default()).await.unwrap().items;
        leases.into_iter().filter_map(|lease| lease.metadata.name).collect()
    }
}

impl Replica {
    fn leads(&self) -> Vec<u16> {
        let terms = self.terms.lock().unwrap();
        terms.iter().filter(|(_, term)| term.check().is_ok()).map(|(shard, _)| shard.index()).collect()
    }
}

/// Every shard has one leader, and each replica so many shards.
fn spread(replicas: &[&Replica], each: RangeInclusive<usize>) -> Result<(), String> {
    let leads: Vec<_> = replicas.iter().map(|replica| replica.leads()).collect();
    let mut all: Vec<_> = leads.iter().flatten().copied().collect();
    all.sort_unstable();
    let even = leads.iter().all(|leads| each.contains(&leads.len()));
    if even && all == Vec::from_iter(0..SHARDS) { Ok(()) } else { Err(format!("{leads:?}")) }
}

async fn eventually_spread(replicas: &[&Replica], each: RangeInclusive<usize>, within: u32) {
    let start = Instant::now();
    while let Err(leads) = spread(replicas, each.clone()) {
        assert!(start.elapsed() < within * SECOND, "{leads}");
        sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_that_start_together_share_the_shards_within_two_seconds() {
    for _ in 0..5 {
        let mut cluster = Replicas::new();
        let [a, b, c] = cluster.three().await;
        spread(&[&a, &b, &c], 2..=3).unwrap();
        sleep(300 * SECOND).await;
        spread(&[&a, &b, &c], 2..=3).unwrap();
        let lost =
            metric(&a.page, r#"vdbi_leader_election_lost_total{lease_name="renewer-0",reason="yielded"}"#);
        assert_eq!(lost, Some(0.0), "what is even is left alone");
        let names: Vec<_> = (0..SHARDS).map(|index| format!("renewer-{index}")).collect();
        assert_eq!(cluster.leases().await, names);
    }
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_replica_that_dies_are_shared_by_the_others() {
    for _ in 0..5 {
        let mut cluster = Replicas::new();
        let [a, b, c] = cluster.three().await;
        let lost = a.leads();
        a.run.abort();
        let start = Instant::now();
        eventually_spread(&[&b, &c], 4..=4, 17).await;
        assert!(start.elapsed() > 11 * SECOND, "a term ends by itself before another one begins");
        assert!(lost.iter().all(|shard| b.leads().contains(shard) || c.leads().contains(shard)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_leaves_the_shards_even() {
    let mut cluster = Replicas::new();
    let mut old = Vec::from(cluster.three().await);
    let mut new = Vec::new();
    for pod in ["d", "e", "f"] {
        // One comes, ready, before one goes.
        new.push(cluster.start(pod, SHARDS));
        sleep(5 * SECOND).await;
        old.remove(0).shutdown.cancel();
        sleep(2 * SECOND).await;
    }
    let new: Vec<_> = new.iter().collect();
    spread(&new, 2..=3).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_late_gets_shards_of_those_that_have_more() {
    let mut cluster = Replicas::new();
    let a = cluster.start("a", SHARDS);
    sleep(60 * SECOND).await;
    spread(&[&a], 8..=8).unwrap();
    let (b, c) = (cluster.start("b", SHARDS), cluster.start("c", SHARDS));
    eventually_spread(&[&a, &b, &c], 2..=3, 120).await;
    let moves: f64 = (0..SHARDS)
        .map(|index| {
            let series = format!(
                r#"vdbi_leader_election_lost_total{{lease_name="renewer-{index}",reason="yielded"}}"#
            );
            metric(&a.page, &series).unwrap()
        })
        .sum();
    assert!((5.0..=6.0).contains(&moves), "{moves} handed over");
    sleep(600 * SECOND).await;
    spread(&[&a, &b, &c], 2..=3).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_old_wish_is_not_taken_for_a_new_one() {
    let mut cluster = Replicas::new();
    let a = cluster.start("a", SHARDS);
    sleep(60 * SECOND).await;
    let b = cluster.start("b", SHARDS);
    eventually_spread(&[&a, &b], 4..=4, 120).await;
    b.run.abort();
    sleep(60 * SECOND).await;
    spread(&[&a], 8..=8).unwrap();
    let c = cluster.start("c", SHARDS);
    sleep(3 * SECOND).await;
    c.run.abort();
    a.shutdown.cancel();
    let d = cluster.start("d", SHARDS);
    sleep(120 * SECOND).await;
    spread(&[&d], 8..=8).unwrap();
    let attempts: f64 = (0..SHARDS)
        .map(|index| {
            metric(
                &d.page,
                &format!(r#"vdbi_leader_election_attempts_total{{lease_name="renewer-{index}"}}"#),
            )
            .unwrap()
        })
        .sum();
    assert_eq!(attempts, f64::from(SHARDS), "it keeps what it has won");
}

#[tokio::test(start_paused = true)]
async fn one_shard_is_a_plain_election() {
    let mut cluster = Replicas::new();
    let (a, b) = (cluster.start("a", 1), cluster.start("b", 1));
    sleep(60 * SECOND).await;
    assert_eq!(a.leads().len() + b.leads().len(), 1);
    assert_eq!(cluster.leases().await, ["renewer"]);
    let settings = Settings::new(
        LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
        Identity::new("a").with_uid("a"),
    );
    let none = Elections::new(
        cluster.api.client(),
        settings,
        0,
        Arc::new(SuspendableClock::new()),
        &vdbi_core::metrics::Registry::disabled(),
    );
    assert!(matches!(none, Err(LeadershipError::Misconfigured(_))));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_hands_all_shards_over_at_once() {
    let mut cluster = Replicas::new();
    let [a, b, c] = cluster.three().await;
    a.shutdown.cancel();
    timeout(SECOND, cluster.runs.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    sleep(2 * SECOND).await;
    spread(&[&b, &c], 4..=4).unwrap();
    assert!(a.leads().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_ready_when_it_has_seen_the_leases_of_all_shards() {
    let mut cluster = Replicas::new();
    let one = |call: &Call| call.name.as_deref() == Some("renewer-3") && call.verb == Verb::Get;
    let fault = cluster.api.fail_while(one, Fault::status(403));
    let a = cluster.start("a", SHARDS);
    sleep(10 * SECOND).await;
    assert_eq!(a.leads().len(), 7);
    let report = a.health.report(Probe::Ready, &[]);
    assert!(!report.passed());
    let detail = |name| report.details.iter().find(|(detail, _)| *detail == name).unwrap().1.clone();
    assert_eq!(detail("kubernetes")["status"], "failed");
    let leader = detail("leader");
    assert_eq!((&leader["is_leader"], &leader["leading"]), (&json!(true), &json!(7)));
    assert_eq!(
        (&leader["shards"][3]["lease"], &leader["shards"][3]["is_leader"]),
        (&json!("renewer-3"), &json!(false))
    );
    drop(fault);
    sleep(3 * SECOND).await;
    assert!(a.health.report(Probe::Ready, &[]).passed());
    assert!(a.health.report(Probe::Live, &[]).passed());
}

#[tokio::test(start_paused = true)]
async fn looking_after_the_balance_costs_the_api_server_little() {
    let mut cluster = Replicas::new();
    let [a, b, c] = cluster.three().await;
    let requests = |replica: &Replica| {
        [Verb::Get, Verb::Create, Verb::Update, Verb::Watch]
            .map(|verb| replica.link.calls(verb, "leases"))
            .iter()
            .sum::<usize>()
    };
    let before: usize = [&a, &b, &c].map(requests).iter().sum();
    sleep(600 * SECOND).await;
    let total = [&a, &b, &c].map(requests).iter().sum::<usize>() - before;
    // Eight leaders at one renewal in 3 s each, and three replicas that look every 5 s.
    assert!(total <= 8 * 205 + 3 * 130 + 24 * 4, "{total} requests in ten minutes");
}
