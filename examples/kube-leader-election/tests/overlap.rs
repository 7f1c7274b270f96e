//! What the adapter can do, and the two leaders that it lets be. In real time, since the crate compares wall clocks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::PostParams};
use kube_leader_election_example::KubeLeaderElection;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    clock::TokioClock,
    leadership::{Leadership, Term},
    memory::kubernetes::{KubernetesApi, Verb},
    metrics::Registry,
};
use vdbi_lifecycle::election::{Identity, LeaseElection, LeaseRef, Settings};

const TTL: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(10);

/// Candidates, each with the terms that it won.
#[derive(Default)]
struct Candidates(JoinSet<()>);

impl Candidates {
    fn run(&mut self, leadership: impl Leadership) -> (UnboundedReceiver<Term>, CancellationToken) {
        let (sender, terms) = unbounded_channel();
        let shutdown = CancellationToken::new();
        let work = move |term: Term| {
            let sender = sender.clone();
            async move {
                sender.send(term.clone())?;
                term.over().await;
                Ok(())
            }
        };
        let run = leadership.run(work, shutdown.clone());
        self.0.spawn(async move { run.await.unwrap() });
        (terms, shutdown)
    }
}

fn adapter(api: &KubernetesApi, identity: &str) -> KubeLeaderElection {
    KubeLeaderElection::new(api.client(), "vdbi", "lease", identity, TTL, Arc::new(TokioClock::new()))
}

fn ours(api: &KubernetesApi, pod: &str) -> LeaseElection {
    let settings = Settings::new(
        LeaseRef { namespace: "vdbi".into(), name: "lease".into() },
        Identity::new(pod).with_uid(pod),
    )
    .scaled_to(TTL);
    LeaseElection::new(api.client(), settings, Arc::new(TokioClock::new()), &Registry::disabled()).unwrap()
}

/// An API with a lease that both candidates find free, and will both have read before either writes.
async fn with_free_lease() -> KubernetesApi {
    let api = KubernetesApi::new();
    let lease = serde_json::json!({
        "metadata": { "name": "lease" },
        "spec": { "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 0,
            "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:00.000000Z" },
    });
    let leases: Api<Lease> = Api::namespaced(api.client(), "vdbi");
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    api
}

#[tokio::test]
async fn two_candidates_that_both_saw_a_free_lease_both_lead() {
    let api = with_free_lease().await;
    let mut writes = api.hold(|call| call.verb == Verb::Patch);
    let mut candidates = Candidates::default();
    let (mut a, _) = candidates.run(adapter(&api, "a"));
    let (mut b, _) = candidates.run(adapter(&api, "b"));
    writes.arrived(2).await;
    writes.release();
    let (a, b) = tokio::join!(a.recv(), b.recv());
    assert!(a.unwrap().check().is_ok() && b.unwrap().check().is_ok(), "both may act");
}

#[tokio::test]
async fn of_two_candidates_of_ours_that_both_saw_a_free_lease_one_leads() {
    let api = with_free_lease().await;
    let mut writes = api.hold(|call| call.verb == Verb::Update);
    let mut candidates = Candidates::default();
    let (mut a, _) = candidates.run(ours(&api, "a"));
    let (mut b, _) = candidates.run(ours(&api, "b"));
    writes.arrived(2).await;
    writes.release();
    let mut leading = Vec::new();
    for _ in 0..20 {
        tokio::time::sleep(TTL / 10).await;
        leading.extend([a.try_recv().ok(), b.try_recv().ok()].into_iter().flatten());
        assert_eq!(leading.len(), 1, "one has won, for good");
    }
    assert!(leading[0].check().is_ok());
}

#[tokio::test]
async fn one_leads_and_hands_over_when_it_is_shut_down() {
    let api = KubernetesApi::new();
    let mut candidates = Candidates::default();
    let (mut a, shutdown) = candidates.run(adapter(&api, "a"));
    let term = timeout(PATIENCE, a.recv()).await.unwrap().unwrap();
    let (mut b, _) = candidates.run(adapter(&api, "b"));
    tokio::time::sleep(2 * TTL).await;
    assert!(term.check().is_ok(), "it was renewed");
    assert!(b.is_empty());
    shutdown.cancel();
    let next = timeout(PATIENCE, b.recv()).await.unwrap().unwrap();
    assert!(term.check().is_err() && next.check().is_ok());
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_by_itself() {
    let api = KubernetesApi::new();
    let link = api.connect("a");
    let clock = Arc::new(TokioClock::new());
    let mut candidates = Candidates::default();
    let (mut a, _) = candidates.run(KubeLeaderElection::new(link.client(), "vdbi", "lease", "a", TTL, clock));
    let term = timeout(PATIENCE, a.recv()).await.unwrap().unwrap();
    link.cut();
    tokio::time::sleep(TTL).await;
    assert!(term.check().is_err());
}
