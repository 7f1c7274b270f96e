//! The example, over a socket. No container runtime is needed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, time::Duration};

use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use vdbi_nri::{
    stub::{Container, Pod},
    testing::{FakeRuntime, PluginConnection},
};

#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
#[path = "../examples/hello.rs"]
mod hello;

async fn creates(connection: &PluginConnection) {
    let (mut pod, mut container) = (Pod::default(), Container::default());
    pod.name = "web".to_owned();
    container.env = vec!["PATH=/bin".to_owned()];
    let created = connection.create(&pod, &container).await.unwrap();
    assert_eq!(created.apply(&container).env, ["PATH=/bin", "GREETING=hello web"]);
}

#[tokio::test]
async fn the_example_adjusts_containers_across_restarts_of_the_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nri.sock");
    let stub = hello::stub(socket.clone()).unwrap();
    let mut status = stub.status();
    let (shutdown, told) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    running.spawn(stub.run(async move {
        let _ = told.await;
    }));

    // There is no socket at first; after a kill the old one is left, at which nobody listens; after a stop there is none again.
    for leave in [true, false, false] {
        let runtime = FakeRuntime::bind(&socket).unwrap();
        let mut connection = timeout(Duration::from_secs(10), runtime.accept()).await.unwrap().unwrap();
        let registration = connection.start("2.2.9").await.unwrap();
        assert_eq!((registration.name.as_str(), registration.index.as_str()), ("hello", "20"));
        creates(&connection).await;
        drop((runtime, connection));
        if leave {
            status
                .wait_for(|status| status.ready().is_err_and(|reason| reason.contains("nobody")))
                .await
                .unwrap();
        }
        fs::remove_file(&socket).unwrap();
    }

    shutdown.send(()).unwrap();
    timeout(Duration::from_secs(10), running.join_next()).await.unwrap().unwrap().unwrap();
}
