//! Renewer and revoker over the embedded backends and the embedded Kubernetes API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};
use vdbi_core::{
    credential::{Issued, SourceError},
    leadership::{Term, TermControl, TermId},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner},
    memory::{
        LedgerOperation, Lifetimes, MemoryLedger, MemorySource, SourceOperation, kubernetes::KubernetesApi,
    },
    metrics::Registry,
    pod::UUID_ANNOTATION,
    testing::SuspendableClock,
};
use vdbi_lifecycle::{
    events::{self, PodEvents},
    pods::{End, Pods},
    renewer::{self, Renewer},
    revoker::{self, Revoker},
};

#[path = "../support/credential.rs"]
mod credential;

use credential::issue;

mod binding;
mod endings;
mod neighbours;
mod steps;
mod successors;
mod watching;

const LABEL: &str = "vault-db-injector";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than any test.
const TERM: Duration = Duration::from_secs(3600);

struct World {
    kubernetes: KubernetesApi,
    source: MemorySource,
    ledger: MemoryLedger,
    clock: Arc<SuspendableClock>,
    control: TermControl,
    term: Term,
    /// What a leader does; it ends with the world.
    work: JoinSet<()>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SuspendableClock::new());
        let (term, control) = Term::new(
            TermId { lease: "lease".into(), identity: "me".into(), fence: "1".into() },
            clock.clone(),
            TERM,
        );
        let source = MemorySource::new();
        source.allow("app", "*", "*");
        let (kubernetes, ledger) = (KubernetesApi::new(), MemoryLedger::new());
        Self { kubernetes, source, ledger, clock, control, term, work: JoinSet::new() }
    }

    fn owner() -> Owner {
        Owner { cluster: "c".into(), release: "prod".into() }
    }

    fn renew(&mut self) {
        self.renew_as(Self::owner());
    }

    fn renew_as(&mut self, owner: Owner) {
        let mut settings = renewer::Settings::new(owner);
        settings.scan_interval = Duration::from_secs(10);
        settings.rate = 1000.0;
        settings.max_in_flight = 8;
        let pods = Pods::new(self.kubernetes.client(), LABEL);
        let events = PodEvents::new(self.kubernetes.client(), pods, "vdbi-renewer");
        let renewer = Renewer::new(self.source.clone(), self.ledger.clone(), settings, &Registry::disabled())
            .with_events(events);
        let term = self.term.clone();
        self.work.spawn(async move { renewer.run(term).await.unwrap() });
    }

    fn revoke(&mut self) {
        self.revoke_with(|_, _| {});
    }

    fn revoke_with(&mut self, change: impl FnOnce(&mut revoker::Settings, &mut Pods)) {
        let mut settings = revoker::Settings::new(Self::owner());
        settings.rules.brake_minimum = 3;
        settings.interval = Duration::from_millis(100);
        settings.rate = 100_000.0;
        settings.max_in_flight = 8;
        let mut pods = Pods::new(self.kubernetes.client(), LABEL);
        change(&mut settings, &mut pods);
        let (source, ledger) = (self.source.clone(), self.ledger.clone());
        let revoker = Revoker::new(source, ledger, pods, settings, &Registry::disabled());
        let term = self.term.clone();
        self.work.spawn(async move { revoker.run(term).await.unwrap() });
    }

    /// A credential with its entry, issued this long ago.
    async fn credential(
        &self,
        name: &str,
        age: Duration,
        change: impl FnOnce(&mut Entry),
    ) -> (EntryId, Issued) {
        let (issued, mut entry) = issue(&self.source, Self::owner(), Some(name), age).await;
        change(&mut entry);
        let id = EntryId::random();
        self.ledger.record(id, &entry).await.unwrap();
        (id, issued)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kubernetes.client(), "shop")
    }

    async fn create_pod(&self, name: &str, id: EntryId) {
        let pod = json!({
            "metadata": {
                "name": name,
                "labels": { LABEL: "true" },
                "annotations": { UUID_ANNOTATION: id.to_string() },
            },
            "spec": { "containers": [{ "name": "web", "image": "web" }] },
        });
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn change_pod(&self, name: &str, metadata: serde_json::Value) {
        let change = Patch::Merge(json!({ "metadata": metadata }));
        self.pods().patch(name, &PatchParams::default(), &change).await.unwrap();
    }

    /// Of the events on pods, in the order in which they were written.
    async fn reasons_of_events(&self) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.kubernetes.client(), "shop");
        let mut events = events.list(&ListParams::default()).await.unwrap().items;
        assert!(events.iter().all(|event| event.regarding.as_ref().unwrap().name.as_deref() == Some("web")));
        events.sort_by_key(|event| event.event_time.clone());
        events.into_iter().filter_map(|event| event.reason).collect()
    }

    fn works(&self, issued: &Issued) -> bool {
        self.source.can_login(&issued.username, &issued.password)
    }

    async fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }

    /// Waits until the revoker has looked at everything again, from now on.
    async fn after_two_sweeps(&self) {
        let before = self.ledger.calls(LedgerOperation::List);
        self.eventually("two sweeps", || self.ledger.calls(LedgerOperation::List) >= before + 3).await;
    }
}

const OLD: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_credential_of_a_deleted_pod_is_revoked_however_young() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", Duration::ZERO, |_| {}).await;
    world.create_pod("web", id).await;
    world.revoke();
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the revocation", || !world.works(&issued) && world.ledger.entries().is_empty()).await;
}

#[tokio::test]
async fn finished_and_evicted_pods_lose_their_credentials() {
    for phase in ["Succeeded", "Failed"] {
        let mut world = World::new();
        let (id, issued) = world.credential("job", Duration::ZERO, |_| {}).await;
        world.create_pod("job", id).await;
        world.revoke();
        world.after_two_sweeps().await;
        world.kubernetes.set_pod_phase("shop", "job", phase);
        world.eventually("the revocation", || !world.works(&issued)).await;
    }
}

#[tokio::test]
async fn what_ended_while_nobody_watched_is_found_by_the_sweep_also_when_no_pod_is_left() {
    let mut world = World::new();
    let (_, old) = world.credential("gone", OLD, |_| {}).await;
    let (_, young) = world.credential("on-its-way", Duration::ZERO, |_| {}).await;
    world.revoke();
    world.eventually("the revocation", || !world.works(&old)).await;
    world.after_two_sweeps().await;
    assert!(world.works(&young), "its pod may be on its way through admission");
}

#[tokio::test]
async fn a_live_pod_that_lost_its_label_keeps_its_credential() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    world.revoke();
    world.after_two_sweeps().await;
    world.change_pod("web", json!({ "labels": { LABEL: null } })).await;
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
}

#[tokio::test]
async fn a_pod_cannot_revoke_what_another_namespace_or_release_owns() {
    let mut world = World::new();
    let (theirs, victim) = world.credential("web", OLD, |entry| entry.pod.namespace = "bank".into()).await;
    let (foreign, other) = world
        .credential("web", OLD, |entry| entry.owner = Some(Owner { cluster: "d".into(), ..World::owner() }))
        .await;
    let pods: Api<Pod> = Api::namespaced(world.kubernetes.client(), "bank");
    let pod = json!({
        "metadata": { "name": "web", "labels": { LABEL: "true" }, "annotations": { UUID_ANNOTATION: theirs.to_string() } },
        "spec": { "containers": [{ "name": "web", "image": "web" }] },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    world.revoke();
    for id in [theirs, foreign] {
        world.create_pod("thief", id).await;
        world.after_two_sweeps().await;
        world.pods().delete("thief", &DeleteParams::default()).await.unwrap();
        world.after_two_sweeps().await;
    }
    assert!(world.works(&victim) && world.works(&other));
}

#[tokio::test]
async fn the_brake_holds_when_most_pods_seem_gone() {
    let mut world = World::new();
    let mut issued = Vec::new();
    for index in 0..4 {
        issued.push(world.credential(&format!("web-{index}"), OLD, |_| {}).await.1);
    }
    world.revoke();
    world.after_two_sweeps().await;
    assert!(issued.iter().all(|issued| world.works(issued)));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_the_entry_goes_last() {
    let mut world = World::new();
    let (_, issued) = world.credential("gone", OLD, |_| {}).await;
    world.source.fail_next(SourceOperation::Revoke, SourceError::Unavailable("x".into()));
    world.ledger.fail_next(LedgerOperation::Forget, LedgerError::Unavailable("x".into()));
    world.revoke();
    world.eventually("everything done", || world.ledger.entries().is_empty()).await;
    assert!(!world.works(&issued));
    assert_eq!(world.source.calls(SourceOperation::Revoke), 2, "what has succeeded is not done again");
}

#[tokio::test]
async fn a_revocation_that_hangs_does_not_hold_up_that_of_another_pod() {
    let mut world = World::new();
    let mut issued = Vec::new();
    for name in ["first", "second"] {
        let (id, credential) = world.credential(name, OLD, |_| {}).await;
        world.create_pod(name, id).await;
        issued.push(credential);
    }
    world.revoke();
    world.after_two_sweeps().await;
    let mut hold = world.source.hold(SourceOperation::Revoke);
    world.pods().delete("first", &DeleteParams::default()).await.unwrap();
    hold.arrived(1).await;
    world.pods().delete("second", &DeleteParams::default()).await.unwrap();
    hold.arrived(2).await;
    hold.release();
    world.eventually("both revocations", || issued.iter().all(|issued| !world.works(issued))).await;
}

#[tokio::test]
async fn five_thousand_pods_that_are_deleted_at_once_all_lose_their_credentials() {
    const PODS: usize = 5000;
    let mut world = World::new();
    for index in 0..PODS {
        let (id, _) = world.credential(&format!("web-{index}"), OLD, |_| {}).await;
        world.create_pod(&format!("web-{index}"), id).await;
    }
    world.revoke();
    world.after_two_sweeps().await;
    world.pods().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    let begun = std::time::Instant::now();
    while !world.source.leases().is_empty() || !world.ledger.entries().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} are left", world.source.leases().len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.source.calls(SourceOperation::Revoke), PODS, "each once");
}

#[tokio::test]
async fn nothing_is_revoked_after_the_term() {
    let mut world = World::new();
    let mut hold = world.ledger.hold(LedgerOperation::List);
    let (_, issued) = world.credential("gone", OLD, |_| {}).await;
    world.revoke();
    hold.arrived(1).await;
    world.control.end();
    hold.release();
    world.work.join_next().await.unwrap().unwrap();
    assert!(world.works(&issued));
    assert_eq!(world.source.calls(SourceOperation::Revoke), 0);
}

#[tokio::test]
async fn a_revocation_under_way_at_a_shutdown_is_finished_and_none_begins() {
    let mut world = World::new();
    // Sixteen would go at once of these, so that eight wait.
    for index in 0..16 {
        world.credential(&format!("gone-{index}"), OLD, |_| {}).await;
        let (id, _) = world.credential(&format!("web-{index}"), OLD, |_| {}).await;
        world.create_pod(&format!("web-{index}"), id).await;
    }
    let mut hold = world.source.hold(SourceOperation::Revoke);
    world.revoke();
    hold.arrived(8).await;
    world.control.wind_down();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.work.try_join_next().is_none(), "it waits for what it has begun");
    hold.release();
    world.work.join_next().await.unwrap().unwrap();
    assert_eq!(world.source.calls(SourceOperation::Revoke), 8);
    assert_eq!(world.source.leases().len(), 32 - 8, "and those were revoked");
    assert_eq!(world.ledger.entries().len(), 32, "their entries are for the next term");
}

#[tokio::test]
async fn a_revoker_that_was_suspended_in_the_middle_of_a_pass_revokes_nothing_more() {
    let mut world = World::new();
    let mut issued = Vec::new();
    for index in 0..12 {
        let (id, credential) = world.credential(&format!("web-{index}"), OLD, |_| {}).await;
        world.create_pod(&format!("web-{index}"), id).await;
        issued.push(credential);
    }
    world.revoke();
    world.after_two_sweeps().await;
    let mut hold = world.source.hold(SourceOperation::Revoke);
    for index in 0..12 {
        world.pods().delete(&format!("web-{index}"), &DeleteParams::default()).await.unwrap();
    }
    hold.arrived(1).await;
    // Whatever was under way goes on when the machine wakes up, before any timer and before the elector has noticed.
    world.clock.suspend(TERM);
    let before = world.source.calls(SourceOperation::Revoke);
    hold.release();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(issued.iter().all(|issued| world.works(issued)));
    assert_eq!(world.source.calls(SourceOperation::Revoke), before);
    assert_eq!(world.ledger.entries().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_renewed_well_before_they_die_and_only_then() {
    let mut world = World::new();
    world
        .source
        .set_lifetimes(Lifetimes { ttl: Duration::from_secs(60), max_ttl: Duration::from_secs(36_000) });
    let (_, issued) = world.credential("web", Duration::ZERO, |_| {}).await;
    world.renew();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(world.works(&issued));
    }
    let renewals = world.source.calls(SourceOperation::Renew);
    assert!((20..=24).contains(&renewals), "600 s at 27 to 30 s each: {renewals}");
    let reads = world.ledger.calls(LedgerOperation::Read);
    assert_eq!(reads, 1, "an entry is read once in a term");
}

#[tokio::test(start_paused = true)]
async fn a_new_entry_is_found_by_the_next_scan_and_foreign_ones_are_not_renewed() {
    let mut world = World::new();
    world.renew();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.credential("web", Duration::ZERO, |_| {}).await;
    world
        .credential("dev", Duration::ZERO, |entry| entry.owner.as_mut().unwrap().release = "dev".into())
        .await;
    world.credential("go", Duration::ZERO, |entry| entry.owner = None).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.source.calls(SourceOperation::Renew), 2, "ours, and the Go product's");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_before_the_credential_dies() {
    let mut world = World::new();
    world
        .source
        .set_lifetimes(Lifetimes { ttl: Duration::from_secs(60), max_ttl: Duration::from_secs(36_000) });
    let (_, issued) = world.credential("web", Duration::ZERO, |_| {}).await;
    world.renew();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.source.set_available(false);
    tokio::time::sleep(Duration::from_secs(40)).await;
    world.source.set_available(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.works(&issued));
}

#[tokio::test(start_paused = true)]
async fn the_pod_is_told_when_its_credential_nears_its_maximum_and_when_it_is_lost() {
    let mut world = World::new();
    world.source.set_lifetimes(Lifetimes { ttl: Duration::from_secs(60), max_ttl: Duration::from_secs(100) });
    let (id, issued) = world.credential("web", Duration::ZERO, |_| {}).await;
    world.create_pod("web", id).await;
    world.renew();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(world.works(&issued));
    assert_eq!(world.reasons_of_events().await, [events::ENDING], "told once, while the credential works");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!world.works(&issued), "no renewal goes beyond the maximum");
    assert_eq!(world.reasons_of_events().await, [events::ENDING, events::LOST]);
    let renewals = world.source.calls(SourceOperation::Renew);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.source.calls(SourceOperation::Renew), renewals, "what is lost is not asked for again");
    assert_eq!(world.source.calls(SourceOperation::Revoke), 0, "the renewer never revokes");
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_away_for_a_while_costs_no_pod_its_credential() {
    let mut world = World::new();
    world
        .source
        .set_lifetimes(Lifetimes { ttl: Duration::from_secs(600), max_ttl: Duration::from_secs(36_000) });
    let (_, issued) = world.credential("web", Duration::ZERO, |_| {}).await;
    for _ in 0..3 {
        let gone = SourceError::Misconfigured("could not find role with name \"app\"".into());
        world.source.fail_next(SourceOperation::Renew, gone);
    }
    world.renew();
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert!(world.works(&issued));
    assert_eq!(world.source.calls(SourceOperation::Revoke), 0);
    assert_eq!(world.ledger.entries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_is_read_and_then_left_alone_until_it_is_due() {
    let mut world = World::new();
    let ttl = Duration::from_secs(3600);
    world.source.set_lifetimes(Lifetimes { ttl, max_ttl: 24 * ttl });
    world.credential("web", Duration::ZERO, |entry| entry.ttl = Some(ttl)).await;
    world.renew();
    tokio::time::sleep(Duration::from_secs(1500)).await;
    assert_eq!(world.ledger.calls(LedgerOperation::Read), 1);
    assert_eq!(world.source.calls(SourceOperation::Renew), 0);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.source.calls(SourceOperation::Renew), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_renewed_after_the_term() {
    let mut world = World::new();
    world.credential("web", Duration::ZERO, |_| {}).await;
    world.renew();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.control.end();
    world.work.join_next().await.unwrap().unwrap();
    assert_eq!(world.source.calls(SourceOperation::Renew), 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_under_way_at_a_shutdown_are_finished_and_none_begins() {
    let mut world = World::new();
    for index in 0..12 {
        world.credential(&format!("web-{index}"), Duration::ZERO, |_| {}).await;
    }
    let mut hold = world.source.hold(SourceOperation::Renew);
    world.renew();
    hold.arrived(8).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let leases = world.source.leases();
    let before: Vec<_> = leases.iter().map(|lease| world.source.remaining(lease).unwrap()).collect();
    world.control.wind_down();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.work.try_join_next().is_none(), "it waits for what it has begun");
    hold.release();
    world.work.join_next().await.unwrap().unwrap();
    assert_eq!(world.source.calls(SourceOperation::Renew), 8);
    let renewed =
        leases.iter().zip(before).filter(|(lease, before)| world.source.remaining(lease).unwrap() > *before);
    assert_eq!(renewed.count(), 8, "and those were renewed");
}

#[tokio::test(start_paused = true)]
async fn a_renewer_that_was_suspended_in_the_middle_of_a_pass_renews_nothing_more() {
    let mut world = World::new();
    world
        .source
        .set_lifetimes(Lifetimes { ttl: Duration::from_secs(60), max_ttl: Duration::from_secs(36_000) });
    let mut issued = Vec::new();
    for index in 0..12 {
        issued.push(world.credential(&format!("web-{index}"), Duration::ZERO, |_| {}).await.1);
    }
    let mut hold = world.source.hold(SourceOperation::Renew);
    world.renew();
    hold.arrived(8).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(issued.iter().all(|issued| world.works(issued)));
    world.clock.suspend(TERM);
    hold.release();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(issued.iter().all(|issued| !world.works(issued)), "none was renewed");
    assert_eq!(world.source.calls(SourceOperation::Renew), 8);
}
