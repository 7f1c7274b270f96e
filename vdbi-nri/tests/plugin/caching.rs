use k8s_openapi::api::{core::v1::Pod as PodObject, events::v1::Event};
use kube::{Api, api::DeleteParams};
use vdbi_core::{credential::CredentialSource, memory::SourceOperation};
use vdbi_nri::stub::{ContainerInjector, ContainerState, Pod, Runtime};

use crate::{Node, Placed, eventually};

fn files(node: &Node) -> usize {
    std::fs::read_dir(node.cache.path()).unwrap().count()
}

async fn delete(node: &Node, name: &str) {
    let pods: Api<PodObject> = Api::namespaced(node.kubernetes.client(), "shop");
    pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
}

async fn synchronize(node: &Node, pods: &[&Placed]) {
    let sandboxes: Vec<Pod> = pods.iter().map(|pod| pod.sandbox.clone()).collect();
    node.plugin.synchronize(sandboxes, Vec::new(), &Runtime::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_restarts_still_has_the_credentials_and_looks_at_them_once() {
    let mut node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    node.restart_plugin();
    assert_eq!(node.create(&pod).await.unwrap().0, before.0);
    let calls = (node.source.calls(SourceOperation::Issue), node.source.calls(SourceOperation::Renew));
    assert_eq!(calls, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_died_while_the_plugin_was_away_is_replaced() {
    let mut node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    node.source.revoke(&node.ledger.entries()[&pod.id].lease).await.unwrap();
    node.restart_plugin();
    let after = node.create(&pod).await.unwrap();
    assert!(after.0 != before.0 && node.works(&after).await);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_lost_costs_a_credential_and_no_entry() {
    let mut node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    for file in std::fs::read_dir(node.cache.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    node.restart_plugin();
    let after = node.create(&pod).await.unwrap();
    assert!(node.works(&before).await, "a container that runs may have it");
    assert!(after.0 != before.0 && node.works(&after).await);
    let entries = node.ledger.entries();
    assert!(entries.contains_key(&pod.id) && entries.contains_key(&pod.id.successor()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_forgotten_once_both_api_server_and_runtime_have_lost_it() {
    let node = Node::with(None);
    let (first, second) = (node.pod("web-1").await, node.pod("web-2").await);
    synchronize(&node, &[&first, &second]).await;
    node.create(&first).await.unwrap();
    node.create(&second).await.unwrap();
    assert_eq!(files(&node), 2);

    // A sandbox that is made anew is not the pod's end.
    node.plugin.pod_removed(&first.sandbox).await;
    assert_eq!(files(&node), 2);
    delete(&node, "web-1").await;
    eventually("the first is forgotten", async || files(&node) == 1).await;

    // Nor is a pod that is deleted while its containers end.
    delete(&node, "web-2").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(files(&node), 1);
    node.plugin.pod_removed(&second.sandbox).await;
    eventually("the second is forgotten", async || files(&node) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_vanished_while_the_plugin_was_away_is_forgotten() {
    let mut node = Node::with(None);
    let (gone, stays) = (node.pod("web-1").await, node.pod("web-2").await);
    node.create(&gone).await.unwrap();
    node.create(&stays).await.unwrap();
    delete(&node, "web-1").await;
    node.restart_plugin();
    assert_eq!(files(&node), 2, "until the runtime has told what it has");
    synchronize(&node, &[&stays]).await;
    eventually("it is forgotten", async || files(&node) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_before_its_credential_is_there_gets_none() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    synchronize(&node, &[]).await;
    let mut hold = node.source.hold(SourceOperation::Issue);
    let creation = node.create(&pod);
    let ending = async {
        hold.arrived(1).await;
        node.plugin.pod_removed(&pod.sandbox).await;
        delete(&node, "web-1").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        hold.release();
    };
    let (refused, ()) = tokio::join!(creation, ending);
    assert!(refused.unwrap_err().to_string().contains("the pod has ended"));
    eventually("it is revoked", async || node.source.leases().is_empty()).await;
    assert_eq!(files(&node), 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_runs_with_a_placeholder_is_told_once() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let (mut running, mut created) = (pod.container(), pod.container());
    running.state = ContainerState::Running;
    (created.id, created.state) = ("c2".into(), ContainerState::Created);
    for _ in 0..2 {
        let containers = vec![running.clone(), created.clone()];
        node.plugin.synchronize(vec![pod.sandbox.clone()], containers, &Runtime::default()).await;
    }
    let events: Api<Event> = Api::namespaced(node.kubernetes.client(), "shop");
    let told = async || events.list(&Default::default()).await.unwrap().items;
    eventually("there is an event", async || !told().await.is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let [event] = &told().await[..] else { panic!("one event") };
    assert_eq!(event.reason.as_deref(), Some("PlaceholderLeaked"));
    assert_eq!(event.regarding.as_ref().unwrap().uid.as_deref(), Some(pod.sandbox.uid.as_str()));
    assert!(!event.note.as_ref().unwrap().contains("__VDBI_PH_"));
}
