//! The node plugin keeps to the contract of plugins, whatever it does to a container.

use vdbi_core::credential::CredentialSource;
use vdbi_nri::testing::container_injector;

use crate::Node;

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_where_it_fills_in_credentials() {
    for prewarm in [None, Some(10)] {
        let node = Node::with(prewarm);
        let pod = node.pod("web-1").await;
        container_injector(node.plugin.clone(), &pod.sandbox, &pod.container()).await;
        assert_eq!(node.source.leases().len(), 1, "its containers share one credential");
    }
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_where_it_replaces_a_credential_that_has_ended() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    node.create(&pod).await.unwrap();
    node.source.revoke(&node.ledger.entries()[&pod.id].lease).await.unwrap();
    container_injector(node.plugin.clone(), &pod.sandbox, &pod.container()).await;
    assert_eq!(node.source.leases().len(), 1, "its containers share the other one");
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_where_it_refuses() {
    let node = Node::with(None);
    let pod = node.pod_of("web-1", "intruder").await;
    container_injector(node.plugin.clone(), &pod.sandbox, &pod.container()).await;
    assert!(node.source.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_over_a_pod_that_is_not_its_own() {
    let node = Node::with(None);
    let mut pod = node.pod("web-1").await;
    pod.sandbox.labels.clear();
    container_injector(node.plugin.clone(), &pod.sandbox, &pod.container()).await;
    assert!(node.source.leases().is_empty());
}
