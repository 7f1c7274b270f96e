use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use vdbi_core::{
    memory::{
        SourceOperation,
        kubernetes::{Fault, Verb},
    },
    placeholder::Placeholder,
};

use crate::Node;

#[tokio::test(start_paused = true)]
async fn what_has_no_placeholder_or_no_label_is_left_alone() {
    let node = Node::with(None);
    let mut pod = node.pod("web-1").await;
    let mut container = pod.container();
    container.env = vec!["A=1".into()];
    assert!(node.adjusted(&pod, &container).await.unwrap().is_empty());
    pod.sandbox.labels.clear();
    assert!(node.adjusted(&pod, &pod.container()).await.unwrap().is_empty());
    assert_eq!(node.source.calls(SourceOperation::Issue), 0);
}

#[tokio::test(start_paused = true)]
async fn a_placeholder_in_the_command_line_is_refused_by_its_place() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let mut container = pod.container();
    container.args = vec!["serve".into(), format!("--password={}", Placeholder::random())];
    let refused = node.adjusted(&pod, &container).await.unwrap_err().to_string();
    assert!(refused.contains("word 2 of the container's command line"), "{refused}");
    assert!(!refused.contains("__VDBI_PH_"), "{refused}");
    assert_eq!(node.source.calls(SourceOperation::Issue), 0);
}

#[tokio::test(start_paused = true)]
async fn a_placeholder_that_is_not_the_pods_is_refused() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let mut container = pod.container();
    container.env.push(format!("OTHER={}", Placeholder::random()));
    let refused = node.adjusted(&pod, &container).await.unwrap_err().to_string();
    assert!(refused.contains("OTHER holds a placeholder that stands for no credential"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn another_pod_of_the_same_name_is_nobody() {
    let node = Node::with(None);
    let old = node.pod("web-1").await;
    let pods: Api<Pod> = Api::namespaced(node.kubernetes.client(), "shop");
    pods.delete("web-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    let new = node.pod("web-1").await;
    assert_ne!(old.sandbox.uid, new.sandbox.uid);
    let refused = node.create(&old).await.unwrap_err().to_string();
    assert!(refused.contains("knows no pod shop/web-1 with the uid of this one"), "{refused}");
    assert_eq!(node.source.calls(SourceOperation::Issue), 0);
    node.create(&new).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_account_without_the_role_is_refused_in_the_sources_words() {
    let node = Node::with(None);
    let pod = node.pod_of("web-1", "intruder").await;
    let refused = node.create(&pod).await.unwrap_err().to_string();
    assert!(refused.contains("database main: ") && refused.contains("intruder"), "{refused}");
    assert_eq!(node.source.calls(SourceOperation::Issue), 0);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_an_error_in_time() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    // A pod that is not known yet has to be asked for.
    let _hung = node.kubernetes.hold(|call| call.verb == Verb::Get);
    let mut elsewhere = node.pod("web-2").await;
    elsewhere.sandbox.name = "web-3".into();
    let asked = tokio::time::Instant::now();
    assert!(node.create(&elsewhere).await.unwrap_err().to_string().contains("no credential within"));
    assert!(asked.elapsed() <= crate::DEADLINE);
    drop(pod);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_is_an_error() {
    let node = Node::with(None);
    let mut pod = node.pod("web-1").await;
    pod.sandbox.name = "web-2".into();
    node.kubernetes.fail_next(|call| call.verb == Verb::Get, Fault::status(500));
    let refused = node.create(&pod).await.unwrap_err().to_string();
    assert!(refused.contains("could not look the pod up"), "{refused}");
}
