use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use vdbi_core::{credential::SourceError, memory::SourceOperation};

use crate::{Node, eventually};

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_bound_to_the_node_finds_its_credential_in_the_cache() {
    let node = Node::new();
    let pod = node.pod("web-1").await;
    eventually("it is issued", async || node.ledger.entries().contains_key(&pod.id)).await;
    // Nothing is asked any more.
    node.source.set_available(false);
    node.ledger.set_available(false);
    let login = node.create(&pod).await.unwrap();
    node.source.set_available(true);
    assert!(node.works(&login).await);
    assert_eq!(node.source.calls(SourceOperation::Issue), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_no_longer_than_its_own_time_for_a_slow_prewarm() {
    let node = Node::new();
    let mut hold = node.source.hold(SourceOperation::Issue);
    let pod = node.pod("web-1").await;
    hold.arrived(1).await;
    let asked = tokio::time::Instant::now();
    assert!(node.create(&pod).await.unwrap_err().to_string().contains("no credential within"));
    assert_eq!(asked.elapsed(), Duration::from_millis(1500));
    hold.release();
    node.create(&pod).await.unwrap();
    assert_eq!(node.source.calls(SourceOperation::Issue), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_beyond_the_limit_wait_for_their_turn_and_are_not_forgotten() {
    let node = Node::with(Some(2));
    let mut hold = node.source.hold(SourceOperation::Issue);
    let mut pods = Vec::new();
    for index in 0..6 {
        pods.push(node.pod(&format!("web-{index}")).await);
    }
    hold.arrived(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.source.calls(SourceOperation::Issue), 2);
    hold.release();
    eventually("all are issued", async || node.ledger.entries().len() == pods.len()).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_is_repeated_while_the_pod_waits() {
    let node = Node::new();
    node.source.fail_next(SourceOperation::Issue, SourceError::Unavailable("sealed".into()));
    let pod = node.pod("web-1").await;
    eventually("it is issued", async || node.ledger.entries().contains_key(&pod.id)).await;
    assert_eq!(node.source.calls(SourceOperation::Issue), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_runs_already_is_left_alone_when_the_plugin_starts() {
    let mut node = Node::with(None);
    let pod = node.pod("web-1").await;
    assert!(node.kubernetes.set_pod_phase("shop", "web-1", "Running"));
    let (plugin, work) =
        crate::start(&node.kubernetes, &node.source, &node.ledger, node.cache.path(), Some(10));
    (node.plugin, node.work) = (plugin, work);
    let waiting = node.pod("web-2").await;
    eventually("the other is issued", async || node.ledger.entries().contains_key(&waiting.id)).await;
    assert!(!node.ledger.entries().contains_key(&pod.id));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_while_it_waits_gets_nothing_any_more() {
    let node = Node::new();
    node.source.set_available(false);
    let pod = node.pod("web-1").await;
    eventually("it was tried", async || node.source.calls(SourceOperation::Authorize) > 0).await;
    let pods: Api<Pod> = Api::namespaced(node.kubernetes.client(), "shop");
    pods.delete("web-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.source.set_available(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!node.ledger.entries().contains_key(&pod.id));
}
