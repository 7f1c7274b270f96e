//! Renewers and revokers that share a ledger: three replicas, eight shards, over the embedded backends and Kubernetes API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/credential.rs"]
mod credential;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    admin::{self, PrometheusPage},
    credential::{CredentialRequest, CredentialSource, Issued, Lease, Renewed, SourceError},
    leadership::{LeadershipError, Term, WorkError},
    ledger::{EntryId, Ledger, Owner},
    memory::{Lifetimes, MemoryLedger, MemorySource, kubernetes::KubernetesApi},
    metrics::Registry,
    pod::UUID_ANNOTATION,
    testing::SuspendableClock,
};
use vdbi_lifecycle::{
    election::{Elections, Identity, LeaseRef, Settings},
    pods::Pods,
    renewer::{self, Renewer},
    revoker::{self, Revoker},
    shard::Shard,
};

use credential::issue;

const LABEL: &str = "vault-db-injector";
const SHARDS: u16 = 8;
const ENTRIES: usize = 160;
const SECOND: Duration = Duration::from_secs(1);

/// What a credential lives without a renewal.
const TTL: Duration = Duration::from_secs(600);

/// A renewal or a revocation.
#[derive(Clone, Debug)]
struct Effect {
    id: EntryId,
    /// The Lease of the entry's shard, and the fence of the term in which this happened.
    term: (String, u64),
    replica: String,
    at: Instant,
}

type Log = Arc<Mutex<Vec<Effect>>>;
type Terms = Arc<Mutex<BTreeMap<Shard, Term>>>;

/// One replica's source, which notes what it does, by the right of which term.
struct Noted {
    source: MemorySource,
    /// By lease.
    entries: Arc<HashMap<String, EntryId>>,
    /// The replica's latest, by shard.
    terms: Terms,
    log: Log,
}

impl Noted {
    fn note(&self, lease: &Lease) {
        let id = self.entries[&lease.id];
        let shard = Shard::all(SHARDS).find(|shard| shard.covers(id)).unwrap();
        let terms = self.terms.lock().unwrap();
        let term = terms.get(&shard).expect("only whoever leads its shard handles an entry");
        term.check().expect("nothing happens without the right to act");
        let (replica, at) = (term.identity().to_owned(), Instant::now());
        let term = (term.lease().to_owned(), term.fence().parse().unwrap());
        self.log.lock().unwrap().push(Effect { id, term, replica, at });
    }
}

impl CredentialSource for Noted {
    async fn authorize(&self, request: &CredentialRequest) -> Result<(), SourceError> {
        self.source.authorize(request).await
    }

    async fn issue(&self, request: &CredentialRequest) -> Result<Issued, SourceError> {
        self.source.issue(request).await
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        self.note(lease);
        self.source.renew(lease).await
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        self.note(lease);
        self.source.revoke(lease).await
    }
}

struct World {
    kubernetes: KubernetesApi,
    source: MemorySource,
    ledger: MemoryLedger,
    entries: Arc<HashMap<String, EntryId>>,
    log: Log,
    runs: JoinSet<Result<(), LeadershipError>>,
}

struct Replica {
    page: PrometheusPage,
    identity: String,
    run: AbortHandle,
    terms: Terms,
}

impl World {
    /// Pods with credentials that are older than the grace period, and of which no leader knows how long they live.
    async fn new() -> Self {
        let source = MemorySource::new();
        source.allow("app", "*", "*");
        source.set_lifetimes(Lifetimes { ttl: TTL, max_ttl: 1000 * TTL });
        let mut world = Self {
            kubernetes: KubernetesApi::new(),
            source,
            ledger: MemoryLedger::new(),
            entries: Arc::default(),
            log: Log::default(),
            runs: JoinSet::new(),
        };
        let mut entries = HashMap::new();
        for index in 0..ENTRIES {
            let (lease, id) = world.credential(&format!("web-{index}")).await;
            entries.insert(lease, id);
        }
        world.entries = Arc::new(entries);
        world
    }

    fn owner() -> Owner {
        Owner { cluster: "c".into(), release: "prod".into() }
    }

    async fn credential(&self, name: &str) -> (String, EntryId) {
        let (issued, entry) = issue(&self.source, Self::owner(), Some(name), 3600 * SECOND).await;
        let id = EntryId::random();
        self.ledger.record(id, &entry).await.unwrap();
        let pod = json!({
            "metadata": {
                "name": name,
                "labels": { LABEL: "true" },
                "annotations": { UUID_ANNOTATION: id.to_string() },
            },
            "spec": { "containers": [{ "name": "web", "image": "web" }] },
        });
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        (issued.lease.id, id)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kubernetes.client(), "shop")
    }

    async fn delete_pods(&self, indices: std::ops::Range<usize>) {
        for index in indices {
            self.pods().delete(&format!("web-{index}"), &DeleteParams::default()).await.unwrap();
        }
    }

    fn renewer(&mut self, pod: &str) -> Replica {
        let mut settings = renewer::Settings::new(Self::owner());
        settings.scan_interval = 30 * SECOND;
        settings.rate = 80.0;
        let (terms, (registry, page)) = (Terms::default(), admin::prometheus().unwrap());
        let renewer = Renewer::new(self.noted(&terms), self.ledger.clone(), settings, &registry);
        let work = move |shard, term| renewer.clone().for_shard(shard).run(term);
        self.start(pod, "prod-renewer", work, terms, &registry, page)
    }

    fn revoker(&mut self, pod: &str) -> Replica {
        let mut settings = revoker::Settings::new(Self::owner());
        // Here they are really gone.
        settings.rules.brake_minimum = 8 * ENTRIES;
        let (terms, (registry, page)) = (Terms::default(), admin::prometheus().unwrap());
        let pods = Pods::new(self.kubernetes.client(), LABEL);
        let revoker = Revoker::new(self.noted(&terms), self.ledger.clone(), pods, settings, &registry);
        let work = move |shard, term| revoker.clone().for_shard(shard).run(term);
        self.start(pod, "prod-revoker", work, terms, &registry, page)
    }

    fn noted(&self, terms: &Terms) -> Noted {
        let (source, entries) = (self.source.clone(), self.entries.clone());
        Noted { source, entries, terms: terms.clone(), log: self.log.clone() }
    }

    fn start<W, F>(
        &mut self,
        pod: &str,
        lease: &str,
        mut work: W,
        terms: Terms,
        registry: &Registry,
        page: PrometheusPage,
    ) -> Replica
    where
        W: FnMut(Shard, Term) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let lease = LeaseRef { namespace: "vdbi".into(), name: lease.into() };
        let settings = Settings::new(lease, Identity::new(pod).with_uid(pod));
        let identity = settings.identity.to_string();
        let clock = Arc::new(SuspendableClock::new());
        let elections = Elections::new(self.kubernetes.client(), settings, SHARDS, clock, registry).unwrap();
        let held = terms.clone();
        let work = move |shard, term: Term| {
            held.lock().unwrap().insert(shard, term.clone());
            work(shard, term)
        };
        let run = self.runs.spawn(elections.run(work, CancellationToken::new()));
        Replica { page, identity, run, terms }
    }

    fn effects(&self) -> Vec<Effect> {
        self.log.lock().unwrap().clone()
    }

    /// How often each entry was handled.
    fn handled(&self) -> HashMap<EntryId, usize> {
        let mut handled: HashMap<_, _> = self.entries.values().map(|id| (*id, 0)).collect();
        self.effects().iter().for_each(|effect| *handled.entry(effect.id).or_default() += 1);
        handled
    }

    /// A term of a shard does nothing any more once the next one has begun.
    fn assert_terms_follow_each_other(&self) {
        let mut latest: HashMap<String, u64> = HashMap::new();
        for Effect { term: (lease, fence), .. } in self.effects() {
            let before = latest.insert(lease.clone(), fence).unwrap_or_default();
            assert!(before <= fence, "{lease}: {before} acted before {fence}");
        }
    }
}

impl Replica {
    fn leads(&self) -> Vec<Shard> {
        let terms = self.terms.lock().unwrap();
        terms.iter().filter(|(_, term)| term.check().is_ok()).map(|(shard, _)| *shard).collect()
    }

    fn metric(&self, series: &str) -> f64 {
        let page = self.page.render();
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).expect(series);
        value.parse().unwrap()
    }
}

fn total(replicas: &[&Replica], series: &str) -> f64 {
    replicas.iter().map(|replica| replica.metric(series)).sum()
}

/// How many shards each replica leads; together all of them.
fn spread(replicas: &[&Replica]) -> Vec<usize> {
    let leads: Vec<_> = replicas.iter().map(|replica| replica.leads()).collect();
    let mut all: Vec<_> = leads.iter().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all, Vec::from_iter(Shard::all(SHARDS)));
    let mut sizes: Vec<_> = leads.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    sizes
}

#[tokio::test(start_paused = true)]
async fn renewers_share_the_shards_and_no_entry_is_renewed_twice_in_a_term() {
    let mut world = World::new().await;
    let [a, b, c] = ["a", "b", "c"].map(|pod| world.renewer(pod));
    sleep(30 * SECOND).await;
    assert_eq!(spread(&[&a, &b, &c]), [2, 3, 3]);
    assert!(world.handled().values().all(|times| *times == 1), "each by one: {:?}", world.handled());
    assert_eq!(total(&[&a, &b, &c], "vdbi_renewer_entries"), ENTRIES as f64, "their gauges add up");
    assert_eq!(total(&[&a, &b, &c], "vdbi_renewer_budget_requests_per_second").round(), 80.0);
    assert!(a.metric("vdbi_renewer_earliest_expiry_seconds") > 500.0);

    let lost = a.leads();
    let is_lost = |id: EntryId| lost.iter().any(|shard| shard.covers(id));
    let before = a.identity.clone();
    a.run.abort();
    sleep(60 * SECOND).await;
    assert_eq!(spread(&[&b, &c]), [4, 4]);
    for (id, times) in world.handled() {
        assert_eq!(
            times,
            if is_lost(id) { 2 } else { 1 },
            "the new leader knows nothing of what it took over"
        );
    }
    assert_eq!(total(&[&b, &c], "vdbi_renewer_entries"), ENTRIES as f64);
    assert_eq!(a.metric("vdbi_renewer_entries"), 0.0);

    let killed = Instant::now() - 60 * SECOND;
    sleep(6 * TTL).await;
    assert_eq!(world.source.leases().len(), ENTRIES, "all of them live");
    world.assert_terms_follow_each_other();
    let mut last: HashMap<_, Instant> = HashMap::new();
    for Effect { id, term, at, replica } in world.effects() {
        assert!(replica != before || at <= killed);
        if let Some(before) = last.insert((id, term), at) {
            assert!(at - before >= TTL.mul_f64(0.44), "{id} was renewed twice within {:?}", at - before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn revokers_share_the_shards_and_each_credential_is_revoked_once() {
    let mut world = World::new().await;
    let [a, b, c] = ["a", "b", "c"].map(|pod| world.revoker(pod));
    sleep(10 * SECOND).await;
    assert_eq!(spread(&[&a, &b, &c]), [2, 3, 3]);
    assert_eq!(world.effects().len(), 0);
    let live = r#"vdbi_ledger_entries{state="live"}"#;
    assert_eq!(total(&[&a, &b, &c], live), ENTRIES as f64);

    let half = ENTRIES / 2;
    world.delete_pods(0..half).await;
    sleep(5 * SECOND).await;
    assert_eq!((world.effects().len(), world.ledger.entries().len()), (half, half));

    let lost = a.leads();
    a.run.abort();
    world.delete_pods(half..ENTRIES).await;
    sleep(5 * SECOND).await;
    let left: Vec<_> = world.ledger.entries().into_keys().collect();
    assert!(!left.is_empty(), "some are in the shards of the one that died");
    assert!(left.iter().all(|id| lost.iter().any(|shard| shard.covers(*id))));
    sleep(20 * SECOND).await;
    assert_eq!(spread(&[&b, &c]), [4, 4]);
    assert_eq!((world.ledger.entries().len(), world.source.leases().len()), (0, 0));
    assert!(world.handled().values().all(|times| *times == 1), "each once: {:?}", world.handled());
    world.assert_terms_follow_each_other();
    assert_eq!(total(&[&b, &c], "vdbi_revoker_queue_depth"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_handed_over_is_never_handled_by_two() {
    let mut world = World::new().await;
    let a = world.renewer("a");
    sleep(60 * SECOND).await;
    assert_eq!(spread(&[&a]), [8]);
    world.source.set_latency(SECOND / 2);
    let b = world.renewer("b");
    sleep(200 * SECOND).await;
    assert_eq!(spread(&[&a, &b]), [4, 4]);
    let moved = b.leads();
    for (id, times) in world.handled() {
        assert_eq!(times, 1 + usize::from(moved.iter().any(|shard| shard.covers(id))), "{id}");
    }
    sleep(4 * TTL).await;
    assert_eq!(world.source.leases().len(), ENTRIES);
    world.assert_terms_follow_each_other();
}
