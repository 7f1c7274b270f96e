//! Entries and the pods that are theirs.

use std::collections::BTreeMap;

use vdbi_core::{credential::TokenHandle, secret::Secret};

use super::*;

/// As the Go product writes them: version 1.
const GO_UUID: &str = "8a6e0804-2bd0-11f0-9cd2-0242ac120002";

impl World {
    fn uid_in_entry(&self, id: EntryId) -> Option<String> {
        self.ledger.entries().remove(&id)?.pod.uid
    }

    /// A credential as the Go product enters it: with the raw token, without an owner and without a pod's name.
    async fn credential_of_the_go_product(&self, key: &str) -> (EntryId, Issued) {
        self.source.set_raw_tokens(true);
        let (id, issued) = self.credential("web", OLD, |_| {}).await;
        self.ledger.forget(id).await.unwrap();
        let token = issued.token.as_ref().unwrap().expose();
        let fields: BTreeMap<String, Secret> = [
            ("LeaseId", issued.lease.id.as_str()),
            ("TokenId", token),
            ("Namespace", "shop"),
            ("ServiceAccountName", "app1"),
            ("PodName", ""),
            ("NodeName", ""),
        ]
        .map(|(field, value)| (field.to_owned(), Secret::new(value)))
        .into();
        self.ledger.insert_fields(key, fields);
        (key.parse().unwrap(), issued)
    }
}

#[tokio::test]
async fn an_entry_is_bound_to_its_pod_and_another_that_lists_it_later_keeps_nothing_alive() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", Duration::ZERO, |entry| entry.pod.name = None).await;
    world.revoke();
    world.after_two_sweeps().await;
    world.create_pod("web", id).await;
    world.eventually("the binding", || world.uid_in_entry(id).is_some()).await;
    let pod = world.pods().get("web").await.unwrap();
    assert_eq!(world.uid_in_entry(id), pod.metadata.uid);
    world.create_pod("thief", id).await;
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the revocation", || !world.works(&issued) && world.ledger.entries().is_empty()).await;
}

#[tokio::test]
async fn a_pod_that_was_there_before_is_bound_by_the_comparison_unless_another_lists_its_entry_too() {
    let mut world = World::new();
    let (sole, _) = world.credential("web", OLD, |entry| entry.pod.name = None).await;
    let (disputed, issued) = world.credential("web", OLD, |entry| entry.pod.name = None).await;
    world.create_pod("web", sole).await;
    world.create_pod("api", disputed).await;
    world.create_pod("thief", disputed).await;
    world.revoke();
    world.eventually("the binding", || world.uid_in_entry(sole).is_some()).await;
    world.after_two_sweeps().await;
    assert_eq!(world.uid_in_entry(disputed), None);
    assert!(world.works(&issued));
}

#[tokio::test]
async fn a_binding_that_fails_is_tried_again_and_costs_no_credential() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.ledger.fail_next(LedgerOperation::Update, LedgerError::Unavailable("sealed".into()));
    world.create_pod("web", id).await;
    world.revoke();
    world.eventually("the binding", || world.uid_in_entry(id).is_some()).await;
    assert!(world.ledger.calls(LedgerOperation::Update) >= 2);
    assert!(world.works(&issued));
}

#[tokio::test]
async fn an_entry_of_the_go_product_is_taken_over_by_its_accessor_and_revoked_with_its_pod() {
    for keep in [false, true] {
        let mut world = World::new();
        let (id, issued) = world.credential_of_the_go_product(GO_UUID).await;
        world.create_pod("web", id).await;
        world.revoke_with(|settings, _| settings.keep_raw_tokens = keep);
        world.eventually("the binding", || world.uid_in_entry(id).is_some()).await;
        let entry = world.ledger.entries().remove(&id).unwrap();
        assert_eq!(entry.owner, Some(World::owner()));
        assert!(matches!(entry.lease.token, TokenHandle::Accessor(_)));
        assert_eq!(entry.raw_token.is_some(), keep, "the way back is kept where it is asked for");
        assert!(world.works(&issued));
        world.pods().delete("web", &DeleteParams::default()).await.unwrap();
        world.eventually("the revocation", || !world.works(&issued)).await;
    }
}

#[tokio::test]
async fn an_entry_of_the_go_product_under_its_pods_uid_is_taken_over_too() {
    let mut world = World::new();
    let pod = json!({
        "metadata": { "name": "web", "labels": { LABEL: "true" } },
        "spec": { "containers": [{ "name": "web", "image": "web" }] },
    });
    let pod =
        world.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let (id, issued) = world.credential_of_the_go_product(&pod.metadata.uid.unwrap()).await;
    world.revoke();
    world.eventually("the binding", || world.uid_in_entry(id).is_some()).await;
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the revocation", || !world.works(&issued)).await;
}

#[tokio::test]
async fn an_entry_of_the_go_product_whose_pod_is_never_seen_is_left_alone() {
    let mut world = World::new();
    let (_, issued) = world.credential_of_the_go_product(GO_UUID).await;
    world.revoke();
    world.after_two_sweeps().await;
    assert!(world.works(&issued), "nobody knows whose it is");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_listed_at_first_is_listed_again_within_seconds() {
    let mut world = World::new();
    world
        .source
        .set_lifetimes(Lifetimes { ttl: Duration::from_secs(30), max_ttl: Duration::from_secs(3600) });
    let (_, issued) = world.credential("web", Duration::ZERO, |_| {}).await;
    world.ledger.fail_next(LedgerOperation::List, LedgerError::Unavailable("sealed".into()));
    world.renew();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.source.calls(SourceOperation::Renew), 1);
    assert!(world.works(&issued));
}
