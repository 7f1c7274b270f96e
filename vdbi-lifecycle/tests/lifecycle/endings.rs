//! When a pod counts as ended, beyond its deletion.

use super::*;

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
    let unlabelled = Patch::Merge(json!({ "metadata": { "labels": { LABEL: null } } }));
    world.pods().patch("web", &PatchParams::default(), &unlabelled).await.unwrap();
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
