//! Credentials that the node plugin issued in place of ones that had ended: their entries follow the first one's.

use vdbi_core::credential::CredentialSource;

use super::*;

impl World {
    /// A credential of a pod on a node, under an id of the caller's, as the node plugin enters it.
    async fn credential_on_the_node(&self, id: EntryId, pod: &Pod, age: Duration) -> Issued {
        let (issued, mut entry) = issue(&self.source, Self::owner(), None, age).await;
        entry.pod.name.clone_from(&pod.metadata.name);
        entry.pod.uid.clone_from(&pod.metadata.uid);
        entry.pod.node = Some("node-1".into());
        self.ledger.record(id, &entry).await.unwrap();
        issued
    }

    async fn pod(&self, name: &str, id: EntryId) -> Pod {
        self.create_pod(name, id).await;
        self.pods().get(name).await.unwrap()
    }
}

#[tokio::test]
async fn all_credentials_that_a_pod_has_had_end_with_it_before_the_next_comparison() {
    let mut world = World::new();
    let id = EntryId::random();
    let pod = world.pod("web", id).await;
    // The ledger is compared once, before there is anything.
    world.revoke_with(|settings, _| settings.interval = Duration::from_secs(3600));
    world.eventually("the comparison", || world.ledger.calls(LedgerOperation::List) > 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let first = world.credential_on_the_node(id, &pod, Duration::ZERO).await;
    let second = world.credential_on_the_node(id.successor(), &pod, Duration::ZERO).await;
    let third = world.credential_on_the_node(id.successor().successor(), &pod, Duration::ZERO).await;
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the revocations", || world.ledger.entries().is_empty()).await;
    assert!(![first, second, third].iter().any(|issued| world.works(issued)));
}

#[tokio::test]
async fn a_successor_that_no_annotation_lists_lives_as_long_as_its_pod() {
    let mut world = World::new();
    let id = EntryId::random();
    let pod = world.pod("web", id).await;
    let issued = world.credential_on_the_node(id.successor(), &pod, OLD).await;
    world.revoke();
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
    // Not even its own annotation can take a bound entry from its pod.
    world.change_pod("web", json!({ "annotations": { UUID_ANNOTATION: "" } })).await;
    world.after_two_sweeps().await;
    assert!(world.works(&issued));
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the revocation", || !world.works(&issued)).await;
}

#[tokio::test]
async fn the_successor_of_an_entry_that_another_pod_lists_is_not_revoked_with_that_pod() {
    let mut world = World::new();
    let id = EntryId::random();
    let pod = world.pod("web", id).await;
    let first = world.credential_on_the_node(id, &pod, OLD).await;
    let second = world.credential_on_the_node(id.successor(), &pod, OLD).await;
    world.revoke();
    world.create_pod("thief", id).await;
    world.after_two_sweeps().await;
    world.pods().delete("thief", &DeleteParams::default()).await.unwrap();
    world.after_two_sweeps().await;
    assert!(world.works(&first) && world.works(&second));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_the_node_plugin_has_replaced_is_not_called_lost() {
    let mut world = World::new();
    let ttl = Duration::from_secs(600);
    world.source.set_lifetimes(Lifetimes { ttl, ..Lifetimes::default() });
    let id = EntryId::random();
    let pod = world.pod("web", id).await;
    let first = world.credential_on_the_node(id, &pod, Duration::ZERO).await;
    let second = world.credential_on_the_node(id.successor(), &pod, Duration::ZERO).await;
    world.source.revoke(&first.lease).await.unwrap();
    world.renew();
    tokio::time::sleep(2 * ttl).await;
    assert!(world.works(&second), "it is renewed");
    assert_eq!(world.reasons_of_events().await, [""; 0]);

    // And one that nobody has replaced is.
    world.source.revoke(&second.lease).await.unwrap();
    tokio::time::sleep(2 * ttl).await;
    assert_eq!(world.reasons_of_events().await, [events::LOST]);
}
