//! What renewer and revoker ask of a backend that fails, and of one that is back, in each second of virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/credential.rs"]
mod credential;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use vdbi_core::{
    admin::{self, PrometheusPage},
    clock::Clock,
    credential::CredentialSource,
    leadership::{Term, TermControl, TermId},
    ledger::{EntryId, Ledger, Owner},
    memory::{
        LedgerOperation, Lifetimes, MemoryLedger, MemorySource, SourceOperation,
        kubernetes::{Connection, KubernetesApi},
    },
    metrics::Registry,
    testing::SuspendableClock,
};
use vdbi_lifecycle::{
    pods::Pods,
    renewer::{self, Renewer},
    revoker::{self, Revoker},
};

use credential::issue;

/// Longer than any test.
const TERM: Duration = Duration::from_secs(24 * 3600);

/// What one answer of the backend takes.
const LATENCY: Duration = Duration::from_millis(3);

struct World {
    source: MemorySource,
    ledger: MemoryLedger,
    kubernetes: Connection,
    registry: Registry,
    page: PrometheusPage,
    term: Term,
    control: TermControl,
    work: JoinSet<()>,
}

impl World {
    /// Credentials whose pods are gone, or have never been.
    async fn with(credentials: usize, ttl: Duration, age: Duration) -> Self {
        let (term, control) = Term::new(
            TermId { lease: "lease".into(), identity: "me".into(), fence: "1".into() },
            Arc::new(SuspendableClock::new()),
            TERM,
        );
        let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
        source.allow("app", "*", "*");
        source.set_lifetimes(Lifetimes { ttl, max_ttl: 1000 * ttl });
        for _ in 0..credentials {
            let (_, mut entry) = issue(&source, Self::owner(), None, age).await;
            entry.ttl = Some(ttl);
            ledger.record(EntryId::random(), &entry).await.unwrap();
        }
        let kubernetes = KubernetesApi::new().connect("revoker");
        let (registry, page) = admin::prometheus().unwrap();
        Self { source, ledger, kubernetes, registry, page, term, control, work: JoinSet::new() }
    }

    fn owner() -> Owner {
        Owner { cluster: "c".into(), release: "prod".into() }
    }

    fn revoke(&mut self, rate: f64) {
        let mut settings = revoker::Settings::new(Self::owner());
        settings.rules.brake_share = 1.0;
        settings.rate = rate;
        let pods = Pods::new(self.kubernetes.client(), "vault-db-injector");
        let (source, ledger) = (self.source.clone(), self.ledger.clone());
        let revoker = Revoker::new(source, ledger, pods, settings, &self.registry);
        let term = self.term.clone();
        self.work.spawn(async move { revoker.run(term).await.unwrap() });
    }

    fn renew(&mut self, rate: f64) {
        let mut settings = renewer::Settings::new(Self::owner());
        settings.rate = rate;
        let renewer = Renewer::new(self.source.clone(), self.ledger.clone(), settings, &self.registry);
        let term = self.term.clone();
        self.work.spawn(async move { renewer.run(term).await.unwrap() });
    }

    /// Waits until the metrics page has this line.
    async fn shows(&self, line: &str) {
        let shown = async {
            while !self.page.render().lines().any(|shown| shown == line) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), shown).await;
        waited.unwrap_or_else(|_| panic!("{line} in\n{}", self.page.render()));
    }

    /// Attempts at revocations so far.
    fn revocations(&self) -> usize {
        self.source.calls(SourceOperation::Revoke)
    }

    /// Requests of the renewer so far.
    fn renewals(&self) -> usize {
        self.source.calls(SourceOperation::Renew) + self.ledger.calls(LedgerOperation::Read)
    }

    /// How much a count grows in each of so many seconds.
    async fn per_second(&self, seconds: usize, count: impl Fn(&Self) -> usize) -> Vec<usize> {
        let (mut grown, mut before, mut at) = (Vec::new(), count(self), Instant::now());
        for _ in 0..seconds {
            at += Duration::from_secs(1);
            tokio::time::sleep_until(at).await;
            let now = count(self);
            grown.push(now - before);
            before = now;
        }
        grown
    }
}

/// No second has more than the most, and none in which the rate recovers much more than the ones before it led to expect.
fn does_not_stampede(seconds: &[usize], floor: usize, most: usize) {
    for (second, &count) in seconds.iter().enumerate() {
        let grown = floor as f64 * ((second + 1) as f64 / 10.0).exp();
        let bound = (grown.min(most as f64) * 1.1).ceil() as usize + 1;
        assert!(count <= bound, "second {second}: {count} of at most {bound} in {seconds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_revocations_leave_a_sick_backend_alone_and_do_not_stampede_when_it_is_back() {
    const RATE: f64 = 1000.0;
    let mut world = World::with(5000, Duration::from_secs(7200), Duration::from_secs(600)).await;
    world.source.set_latency(LATENCY);
    world.source.set_available(false);
    world.revoke(RATE);
    let outage = world.per_second(300, World::revocations).await;
    eprintln!("attempts in each second of the outage: {:?} ..", &outage[..30]);
    let late = outage[60..].iter().max().unwrap();
    assert!(*late <= 11, "{late} attempts in a second, of a hundredth of the rate");
    assert!(outage[30..].iter().all(|count| *count > 0), "recovery is noticed by asking");

    world.source.set_available(true);
    let recovery = world.per_second(60, World::revocations).await;
    eprintln!("revocations in each second after it: {recovery:?}");
    does_not_stampede(&recovery, 10, 1000);
    assert!(world.source.leases().is_empty(), "{} are left a minute later", world.source.leases().len());
    assert!(world.ledger.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_slow_is_asked_less_and_less() {
    let mut world = World::with(2000, Duration::from_secs(7200), Duration::from_secs(600)).await;
    world.source.set_latency(Duration::from_secs(4));
    world.revoke(1000.0);
    let seconds = world.per_second(120, World::revocations).await;
    let (first, last) = (seconds[..20].iter().sum::<usize>(), seconds[100..].iter().sum::<usize>());
    eprintln!("{first} revocations in the first 20 seconds, {last} in the last 20: {seconds:?}");
    assert!(last <= 70, "a hundredth of the rate, three requests each: {last}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_asked_less_though_every_call_ends_with_what_the_term_has_left() {
    let clock = Arc::new(SuspendableClock::new());
    let mut world = World::with(500, Duration::from_secs(7200), Duration::from_secs(600)).await;
    let (term, control) = Term::new(
        TermId { lease: "lease".into(), identity: "me".into(), fence: "2".into() },
        clock.clone(),
        Duration::from_secs(10),
    );
    (world.term, world.control) = (term, control);
    let _hold = world.source.hold(SourceOperation::Revoke);
    world.revoke(1000.0);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.control.extend(clock.now() + Duration::from_secs(10));
    }
    world.shows("vdbi_revoker_budget_requests_per_second 10").await;
}

#[tokio::test(start_paused = true)]
async fn a_single_revocation_waits_for_no_budget_and_a_failed_one_not_long_after_the_outage() {
    let mut world = World::with(1, Duration::from_secs(7200), Duration::from_secs(600)).await;
    world.source.set_available(false);
    world.revoke(1000.0);
    world.per_second(1200, World::revocations).await;
    world.source.set_available(true);
    let begun = Instant::now();
    while !world.ledger.entries().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_is_told_from_one_that_has_nothing_to_say() {
    let mut world = World::with(0, Duration::from_secs(7200), Duration::ZERO).await;
    world.revoke(1000.0);
    world.shows("vdbi_revoker_watch_connected 1").await;
    world.shows("vdbi_revoker_budget_requests_per_second 1000").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    world.shows("vdbi_revoker_watch_connected 1").await;
    world.kubernetes.refuse();
    world.shows("vdbi_revoker_watch_connected 0").await;
    world.kubernetes.heal();
    world.shows("vdbi_revoker_watch_connected 1").await;
    world.control.end();
    world.work.join_next().await.unwrap().unwrap();
    world.shows("vdbi_revoker_watch_connected 0").await;
    world.shows("vdbi_revoker_budget_requests_per_second 0").await;
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_was_revoked_since_the_last_scan_is_not_called_lost() {
    let ttl = Duration::from_secs(3600);
    let mut world = World::with(10, ttl, Duration::ZERO).await;
    world.renew(1000.0);
    tokio::time::sleep(ttl / 2 - Duration::from_secs(250)).await;
    let entries = world.ledger.entries();
    let (lost, revoked) = (entries.keys().next().unwrap(), entries.keys().nth(1).unwrap());
    for id in [lost, revoked] {
        world.source.revoke(&entries[id].lease).await.unwrap();
    }
    world.ledger.forget(*revoked).await.unwrap();
    tokio::time::sleep(Duration::from_secs(250)).await;
    world.shows(r#"vdbi_lost_credentials_total{namespace="shop"} 1"#).await;
}

#[tokio::test(start_paused = true)]
async fn two_thousand_renewals_survive_an_outage_and_do_not_stampede_when_it_is_over() {
    const RATE: f64 = 200.0;
    let ttl = Duration::from_secs(3600);
    let mut world = World::with(2000, ttl, Duration::ZERO).await;
    world.source.set_latency(LATENCY);
    world.renew(RATE);
    tokio::time::sleep(Duration::from_secs(1500)).await;
    world.source.set_available(false);
    let outage = world.per_second(1500, World::renewals).await;
    let late = outage[1000..].iter().max().unwrap();
    assert!(*late <= 3, "{late} requests in a second of the outage");

    world.source.set_available(true);
    let recovery = world.per_second(60, World::renewals).await;
    eprintln!("requests in each second after the outage: {recovery:?}");
    does_not_stampede(&recovery, 3, 200);
    // All were due half-way through their life, in the middle of the outage.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let leases = world.source.leases();
    let least = leases.iter().map(|lease| world.source.remaining(lease).unwrap()).min().unwrap();
    assert_eq!(leases.len(), 2000);
    assert!(least > Duration::from_secs(3000), "every lease was renewed: {least:?}");
}
