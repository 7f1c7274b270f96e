//! When a pod counts as ended, beyond its deletion.

use vdbi_core::memory::kubernetes::Verb;

use super::*;

#[tokio::test]
async fn a_pod_that_was_removed_is_not_looked_up_and_its_credential_is_revoked_once() {
    let mut world = World::new();
    let connection = world.kubernetes.connect("revoker");
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    world.revoke_with(|settings, pods| {
        settings.interval = Duration::from_secs(24 * 3600);
        *pods = Pods::new(connection.client(), LABEL);
    });
    let bound = || world.ledger.entries().values().all(|entry| entry.pod.uid.is_some());
    world.eventually("the binding", bound).await;
    let lists = connection.calls(Verb::List, "pods");
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the revocation", || !world.works(&issued) && world.ledger.entries().is_empty()).await;
    assert_eq!(connection.calls(Verb::List, "pods"), lists);
    assert_eq!(world.source.calls(SourceOperation::Revoke), 1);
}

#[tokio::test]
async fn a_pod_that_loses_its_label_within_its_grace_period_keeps_its_credential() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    assert!(world.kubernetes.bind_pod("shop", "web", "node-1"));
    world.revoke();
    world.after_two_sweeps().await;
    world.pods().delete("web", &DeleteParams::default().grace_period(60)).await.unwrap();
    world.change_pod("web", json!({ "labels": { LABEL: null } })).await;
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
}

#[tokio::test]
async fn a_deleted_pod_that_a_finalizer_holds_keeps_its_credential_also_without_its_label() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    world.change_pod("web", json!({ "finalizers": ["example.com/held"] })).await;
    world.revoke();
    world.after_two_sweeps().await;
    world.pods().delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.after_two_sweeps().await;
    assert!(world.works(&issued), "its containers may run");
    world.change_pod("web", json!({ "labels": { LABEL: null } })).await;
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
    world.change_pod("web", json!({ "finalizers": null })).await;
    world.eventually("the revocation", || !world.works(&issued)).await;
}

#[tokio::test]
async fn a_pod_whose_node_does_not_confirm_its_end_loses_its_credential_after_the_grace() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    assert!(world.kubernetes.bind_pod("shop", "web", "node-1"));
    let overdue = Duration::from_secs(2);
    let mut end = End::default();
    end.overdue = overdue;
    world.revoke_with(|_, pods| *pods = pods.clone().with_end(end));
    // Nobody runs the node, so that the object stays.
    world.pods().delete("web", &DeleteParams::default().grace_period(1)).await.unwrap();
    let asked = tokio::time::Instant::now();
    world.eventually("the revocation", || !world.works(&issued)).await;
    assert!(asked.elapsed() >= Duration::from_secs(2), "revoked after {:?}", asked.elapsed());
    assert!(world.pods().get_opt("web").await.unwrap().is_some(), "its object is still there");
}

#[tokio::test]
async fn a_pod_that_is_being_deleted_keeps_its_credential_within_the_grace() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    assert!(world.kubernetes.bind_pod("shop", "web", "node-1"));
    world.revoke();
    world.pods().delete("web", &DeleteParams::default().grace_period(1)).await.unwrap();
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
}

#[tokio::test]
async fn a_pod_that_lost_its_label_loses_its_credential_where_that_is_asked_for() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    let mut end = End::default();
    end.without_label = true;
    world.revoke_with(|_, pods| *pods = pods.clone().with_end(end));
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
    world.change_pod("web", json!({ "labels": { LABEL: null } })).await;
    world.eventually("the revocation", || !world.works(&issued)).await;
}

#[tokio::test]
async fn an_override_lets_a_sweep_pass_the_brake() {
    let mut world = World::new();
    for index in 0..4 {
        world.credential(&format!("web-{index}"), OLD, |_| {}).await;
    }
    let until = Timestamp::now() + SignedDuration::from_secs(600);
    world.revoke_with(|settings, _| settings.rules.brake_override_until = Some(until));
    world.eventually("the revocations", || world.source.leases().is_empty()).await;
}
