//! The node plugin keeps to the contract of plugins, whatever it does to a container.

use vdbi_core::credential::CredentialSource;
use vdbi_nri::{
    stub::{Container, Pod},
    testing::container_injector::{self as suite, Fixture},
};

use crate::{Node, Placed, Plugin};

/// The plugin, asked about the container of a pod.
struct Asked<'a>(&'a Node, &'a Placed);

impl Fixture for Asked<'_> {
    type Injector = Plugin;

    fn injector(&self) -> Plugin {
        self.0.plugin.clone()
    }

    fn pod(&self) -> Pod {
        self.1.sandbox.clone()
    }

    fn container(&self) -> Container {
        self.1.container()
    }
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_where_it_fills_in_credentials() {
    for prewarm in [None, Some(10)] {
        let node = Node::with(prewarm);
        let pod = node.pod("web-1").await;
        suite::run(&Asked(&node, &pod)).await;
        assert_eq!(node.source.leases().len(), 1, "its containers share one credential");
    }
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_where_it_replaces_a_credential_that_has_ended() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    node.create(&pod).await.unwrap();
    node.source.revoke(&node.ledger.entries()[&pod.id].lease).await.unwrap();
    suite::run(&Asked(&node, &pod)).await;
    assert_eq!(node.source.leases().len(), 1, "its containers share the other one");
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_where_it_refuses() {
    let node = Node::with(None);
    let pod = node.pod_of("web-1", "intruder").await;
    suite::run(&Asked(&node, &pod)).await;
    assert!(node.source.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_plugin_keeps_the_contract_over_a_pod_that_is_not_its_own() {
    let node = Node::with(None);
    let mut pod = node.pod("web-1").await;
    pod.sandbox.labels.clear();
    suite::run(&Asked(&node, &pod)).await;
    assert!(node.source.leases().is_empty());
}
