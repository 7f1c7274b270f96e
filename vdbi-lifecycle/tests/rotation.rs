//! Rotation by renewer and revoker over the embedded backends and the embedded Kubernetes API, in paused time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/credential.rs"]
mod credential;

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Pod, events::v1::Event, policy::v1::PodDisruptionBudget};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use vdbi_core::{
    admin::{self, PrometheusPage},
    clock::TokioClock,
    credential::{CredentialSource, Issued},
    leadership::{Term, TermControl, TermId},
    ledger::{EntryId, Ledger, Owner},
    memory::{
        Lifetimes, MemoryLedger, MemorySource,
        kubernetes::{Call, Connection, Fault, KubernetesApi, Verb},
    },
    metrics::Registry,
    pod::{ROTATION_ANNOTATION, UUID_ANNOTATION},
};
use vdbi_lifecycle::{
    events::{self, PodEvents},
    pods::Pods,
    renewer::{self, Renewer},
    revoker::{self, Revoker},
    rotation::{self, Rotation},
};

use credential::issue;

const LABEL: &str = "vault-db-injector";

/// Longer than any test.
const TERM: Duration = Duration::from_secs(100_000);

/// The renewal at half of the first learns that 400 s or so are left.
const LIFETIMES: Lifetimes = Lifetimes { ttl: Duration::from_secs(600), max_ttl: Duration::from_secs(700) };

struct World {
    kubernetes: KubernetesApi,
    /// That of the rotation alone.
    connection: Connection,
    source: MemorySource,
    ledger: MemoryLedger,
    control: TermControl,
    term: Term,
    registry: Registry,
    page: PrometheusPage,
    /// What a leader does; it ends with the world.
    work: JoinSet<()>,
}

impl World {
    fn new() -> Self {
        let (term, control) = Term::new(
            TermId { lease: "lease".into(), identity: "me".into(), fence: "1".into() },
            Arc::new(TokioClock::new()),
            TERM,
        );
        let source = MemorySource::new();
        source.allow("app", "*", "*");
        source.set_lifetimes(LIFETIMES);
        let kubernetes = KubernetesApi::new();
        let connection = kubernetes.connect("renewer");
        let (registry, page) = admin::prometheus().unwrap();
        let (ledger, work) = (MemoryLedger::new(), JoinSet::new());
        Self { kubernetes, connection, source, ledger, control, term, registry, page, work }
    }

    fn owner() -> Owner {
        Owner { cluster: "c".into(), release: "prod".into() }
    }

    fn renew(&mut self) {
        let mut settings = renewer::Settings::new(Self::owner());
        settings.scan_interval = Duration::from_secs(10);
        settings.rate = 1000.0;
        let pods = Pods::new(self.kubernetes.client(), LABEL);
        let events = PodEvents::new(self.kubernetes.client(), pods, "vdbi-renewer");
        let settings_of_rotation = rotation::Settings::new(LABEL);
        let client = self.connection.client();
        let rotation = Rotation::new(client, events, settings_of_rotation, &self.registry);
        let renewer = Renewer::new(self.source.clone(), self.ledger.clone(), settings, &Registry::disabled())
            .with_rotation(rotation);
        let term = self.term.clone();
        self.work.spawn(async move { renewer.run(term).await.unwrap() });
    }

    fn revoke(&mut self) {
        let mut settings = revoker::Settings::new(Self::owner());
        settings.interval = Duration::from_secs(5);
        let pods = Pods::new(self.kubernetes.client(), LABEL);
        let (source, ledger) = (self.source.clone(), self.ledger.clone());
        let revoker = Revoker::new(source, ledger, pods, settings, &Registry::disabled());
        let term = self.term.clone();
        self.work.spawn(async move { revoker.run(term).await.unwrap() });
    }

    fn next_leader(&mut self) {
        let (term, control) = Term::new(
            TermId { lease: "lease".into(), identity: "other".into(), fence: "2".into() },
            Arc::new(TokioClock::new()),
            TERM,
        );
        (self.term, self.control) = (term, control);
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kubernetes.client(), "shop")
    }

    /// A pod of the ReplicaSet `rs` that asks for rotation, runs and is ready, with its credential and its entry.
    async fn pod(&self, name: &str, change: impl FnOnce(&mut Value)) -> Issued {
        let (issued, entry) = issue(&self.source, Self::owner(), Some(name), Duration::ZERO).await;
        let id = EntryId::random();
        self.ledger.record(id, &entry).await.unwrap();
        let mut pod = json!({
            "metadata": {
                "name": name,
                "labels": { LABEL: "true", "app": "web" },
                "annotations": { UUID_ANNOTATION: id.to_string(), ROTATION_ANNOTATION: "evict" },
                "ownerReferences": [
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true },
                ],
            },
            "spec": { "nodeName": "n1", "containers": [{ "name": "web", "image": "web" }] },
        });
        change(&mut pod);
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        self.ready(name, "True").await;
        issued
    }

    async fn ready(&self, name: &str, ready: &str) {
        let condition = json!([{ "type": "Ready", "status": ready }]);
        let status = json!({ "status": { "phase": "Running", "conditions": condition } });
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// What the kubelet does when the containers of a pod have ended.
    async fn ended(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    async fn budget(&self, allowed: u32) {
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.kubernetes.client(), "shop");
        let budget = json!({
            "metadata": { "name": "web" },
            "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app": "web" } } },
        });
        // It may be there already.
        let _ = api.create(&PostParams::default(), &serde_json::from_value(budget).unwrap()).await;
        let status =
            json!({ "status": { "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2 } });
        api.patch_status("web", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    async fn is_marked(&self, name: &str) -> bool {
        let pod = self.pods().get_opt(name).await.unwrap();
        pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    }

    async fn marked(&self, names: &[&str]) -> Vec<String> {
        let mut marked = Vec::new();
        for name in names {
            if self.is_marked(name).await {
                marked.push((*name).to_owned());
            }
        }
        marked
    }

    fn works(&self, issued: &Issued) -> bool {
        self.source.can_login(&issued.username, &issued.password)
    }

    /// Of the events on a pod, without repetitions, in the order in which they were first written.
    async fn reasons(&self, pod: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.kubernetes.client(), "shop");
        let mut events = events.list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| event.regarding.as_ref().unwrap().name.as_deref() == Some(pod));
        events.sort_by_key(|event| event.event_time.clone());
        events.into_iter().filter_map(|event| event.reason).collect()
    }

    /// Attempts so far, by result.
    fn attempts(&self, result: &str) -> u32 {
        let page = self.page.render();
        let series = format!("vdbi_rotations_total{{result=\"{result}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }
}

fn annotations(pod: &mut Value) -> &mut Map<String, Value> {
    pod["metadata"]["annotations"].as_object_mut().unwrap()
}

fn is_eviction(call: &Call) -> bool {
    call.verb == Verb::Create && call.subresource.as_deref() == Some("eviction")
}

/// Waits until it is so, for as long as a credential lives.
async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..700 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("waited for {what}");
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_controller_get_new_credentials_one_after_the_other_and_the_old_ones_end_with_their_pods()
 {
    let mut world = World::new();
    let (first, second) = (world.pod("a", |_| {}).await, world.pod("b", |_| {}).await);
    world.renew();
    world.revoke();
    let both = ["a", "b"];
    eventually("an eviction", async || !world.marked(&both).await.is_empty()).await;
    let evicted = world.marked(&both).await;
    assert_eq!(evicted.len(), 1);
    let (old, other) = if evicted == ["a"] { (first, second) } else { (second, first) };
    let other_name = if evicted == ["a"] { "b" } else { "a" };

    seconds(20).await;
    assert!(world.works(&old), "its containers may still need it");
    assert_eq!(world.reasons(&evicted[0]).await, [events::ROTATION]);
    let new = world.pod("c", |_| {}).await;
    world.ended(&evicted[0]).await;
    world.ready("c", "False").await;
    seconds(20).await;
    assert!(!world.works(&old) && world.works(&new) && world.works(&other));
    assert!(!world.is_marked(other_name).await, "the one in its place is not ready");
    world.ready("c", "True").await;
    eventually("the second eviction", async || world.is_marked(other_name).await).await;
    assert!(world.works(&other), "in time");
    assert!(!world.is_marked("c").await);
    assert_eq!((world.attempts("evicted"), world.connection.calls(Verb::Create, "pods")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_ask_and_one_without_a_controller_stay() {
    let mut world = World::new();
    world.pod("silent", |pod| drop(annotations(pod).remove(ROTATION_ANNOTATION))).await;
    world.pod("bare", |pod| pod["metadata"]["ownerReferences"] = json!([])).await;
    let node = |pod: &mut Value| pod["metadata"]["ownerReferences"][0]["kind"] = "Node".into();
    world.pod("static", node).await;
    world.renew();
    seconds(2000).await;
    assert_eq!(world.marked(&["silent", "bare", "static"]).await, [""; 0]);
    assert_eq!(world.connection.calls(Verb::Create, "pods"), 0);
    assert_eq!(world.reasons("silent").await, [""; 0]);
    for pod in ["bare", "static"] {
        assert_eq!(world.reasons(pod).await, [events::ROTATION_BLOCKED], "{pod}");
    }
    assert_eq!(world.attempts("no_controller"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_refuses_is_asked_again_until_it_allows_and_the_pod_is_warned_near_the_end() {
    let mut world = World::new();
    let issued = world.pod("a", |_| {}).await;
    world.budget(0).await;
    world.renew();
    eventually("a refusal", async || world.attempts("blocked") > 0).await;
    assert_eq!(world.reasons("a").await, [""; 0], "there is time");
    eventually("a warning", async || !world.reasons("a").await.is_empty()).await;
    assert_eq!(world.reasons("a").await, [events::ROTATION_BLOCKED]);
    let attempts = world.attempts("blocked");
    assert!((5..20).contains(&attempts), "with growing pauses: {attempts}");
    world.budget(1).await;
    eventually("the eviction", async || world.is_marked("a").await).await;
    assert!(world.works(&issued), "in time");
}

#[tokio::test(start_paused = true)]
async fn another_pod_of_the_same_name_is_not_evicted_in_its_place() {
    let mut world = World::new();
    world.pod("web-0", |_| {}).await;
    let mut hold = world.kubernetes.hold(is_eviction);
    world.renew();
    hold.arrived(1).await;
    world.ended("web-0").await;
    world.pod("web-0", |_| {}).await;
    hold.release();
    seconds(60).await;
    assert!(!world.is_marked("web-0").await);
    assert_eq!(world.connection.calls(Verb::Create, "pods"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_lacks_the_right_goes_on_renewing_and_tells_the_pod() {
    let mut world = World::new();
    let issued = world.pod("a", |_| {}).await;
    let message = "pods \"a\" is forbidden: User \"renewer\" cannot create resource \"pods/eviction\"";
    let _forbidden = world.kubernetes.fail_while(is_eviction, Fault::status(403).message(message));
    world.renew();
    eventually("a refusal", async || world.attempts("refused") > 2).await;
    assert_eq!(world.reasons("a").await, [events::ROTATION_BLOCKED]);
    assert!(world.works(&issued) && world.work.try_join_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_while_delays_it_and_no_more() {
    let mut world = World::new();
    let issued = world.pod("a", |_| {}).await;
    world.connection.refuse();
    world.renew();
    seconds(500).await;
    world.connection.heal();
    eventually("the eviction", async || world.is_marked("a").await).await;
    assert!(world.works(&issued), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_credential_is_lost_is_replaced_too() {
    let mut world = World::new();
    let issued = world.pod("a", |_| {}).await;
    world.source.revoke(&issued.lease).await.unwrap();
    world.renew();
    seconds(30).await;
    assert!(world.is_marked("a").await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_evicted_after_the_term() {
    let mut world = World::new();
    world.pod("a", |_| {}).await;
    let mut hold = world.kubernetes.hold(is_eviction);
    world.renew();
    hold.arrived(1).await;
    world.control.end();
    hold.release();
    world.work.join_next().await.unwrap().unwrap();
    seconds(60).await;
    assert!(!world.is_marked("a").await);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_under_way_at_a_shutdown_is_finished() {
    let mut world = World::new();
    world.pod("a", |_| {}).await;
    let mut hold = world.kubernetes.hold(is_eviction);
    world.renew();
    hold.arrived(1).await;
    world.control.wind_down();
    seconds(1).await;
    assert!(world.work.try_join_next().is_none(), "it waits for what it has begun");
    hold.release();
    world.work.join_next().await.unwrap().unwrap();
    assert!(world.is_marked("a").await);
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_where_the_last_one_was_ended() {
    let mut world = World::new();
    for name in ["a", "b"] {
        world.pod(name, |_| {}).await;
    }
    world.renew();
    let both = ["a", "b"];
    eventually("an eviction", async || !world.marked(&both).await.is_empty()).await;
    world.control.end();
    world.work.join_next().await.unwrap().unwrap();
    world.next_leader();
    world.renew();
    seconds(120).await;
    let evicted = world.marked(&both).await;
    assert_eq!(evicted.len(), 1, "the first has not ended");
    world.pod("c", |_| {}).await;
    world.ended(&evicted[0]).await;
    eventually("the second eviction", async || world.marked(&both).await.len() == 2).await;
}
