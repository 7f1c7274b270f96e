use super::*;
use crate::{
    stub::rpc::Rpc,
    wire::ttrpc::{Code, MAX_SENT},
};

#[tokio::test(start_paused = true)]
async fn a_container_is_created_as_the_injector_says() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let created = connection.create(&pod("web"), &container("app")).await.unwrap();
    assert_eq!(created.env, [("GREETING".to_owned(), "hello web".to_owned())]);
    assert_eq!(created.removed_mounts, ["/proc/uptime"]);
    assert_eq!(created.mounts, []);
}

/// With any error, containerd does not create the container, and keeps the plugin.
#[tokio::test(start_paused = true)]
async fn any_doubt_is_an_error_and_the_plugin_serves_on() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    for (name, code, message) in [
        ("refuse", Code::FailedPrecondition, "no credential for this pod"),
        ("panic", Code::Internal, "the plugin failed unexpectedly"),
        ("never", Code::DeadlineExceeded, "the plugin had no answer in time"),
        ("deadline", Code::FailedPrecondition, "OpenBao does not answer"),
        ("invalid", Code::FailedPrecondition, "the environment variable \"-PATH\" cannot be set through NRI"),
    ] {
        let start = Instant::now();
        let error = connection.create(&pod("web"), &container(name)).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code as i32, message));
        assert!(start.elapsed() < connection.timeout * 9 / 10, "{name} took {:?}", start.elapsed());
    }
    connection.create(&pod("web"), &container("app")).await.unwrap();
    assert_eq!(world.metrics.of("vdbi_nri_request_errors_total CreateContainer"), 5);
    assert!(world.connections.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_adjustment_over_4_mib_is_an_error() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let error = connection.create(&pod("web"), &container("long")).await.unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted as i32);
    assert!(error.message.len() < 200 && MAX_SENT < 5_000_000, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_creation_without_pod_or_container_is_an_error() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    for (pod, container) in [(None, None), (Some(pod("web")), None), (None, Some(container("app")))] {
        let error = connection.call("CreateContainer", pod.as_ref(), container.as_ref()).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument as i32);
    }
}

/// containerd up to 2.2 tells of both in one method, later ones in two.
#[tokio::test(start_paused = true)]
async fn removals_are_told_to_the_injector_in_either_form() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let (pod, container) = (pod("web"), container("app"));
    connection.remove_container(&pod, &container).await.unwrap();
    connection.remove_pod(&pod).await.unwrap();
    connection.call("RemoveContainer", Some(&pod), Some(&container)).await.unwrap();
    connection.call("RemovePodSandbox", Some(&pod), None).await.unwrap();
    let told = world.plugin.removed.lock().unwrap().clone();
    assert_eq!(told, ["web-sandbox/app-id", "web-sandbox", "web-sandbox/app-id", "web-sandbox"]);
}

/// An error would make containerd 2.3 fail whatever it is about; of a validation it would be a rejection.
#[tokio::test(start_paused = true)]
async fn every_method_of_nri_is_answered() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    for rpc in Rpc::ALL {
        if !matches!(rpc, Rpc::Unknown | Rpc::Configure | Rpc::Synchronize) {
            let (pod, container) = (pod("web"), container("app"));
            // What a pod and a container are as an event does not matter.
            if rpc != Rpc::StateChange {
                connection.call(rpc.name(), Some(&pod), Some(&container)).await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_method_is_unimplemented() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let error = connection.call("unknown", None, None).await.unwrap_err();
    assert_eq!(error.code, Code::Unimplemented as i32);
    assert_eq!(world.metrics.of("vdbi_nri_request_errors_total unknown"), 1);
}
