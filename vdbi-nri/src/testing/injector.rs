//! The contract of [`ContainerInjector`] as a test suite, for plugins of your own.

use std::{io, time::Duration};

use futures::future::join_all;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use vdbi_core::metrics::Registry;

use super::{Created, PluginConnection};
use crate::{
    stub::{Container, ContainerInjector, Pod, Settings, Stub},
    wire::ttrpc::Code,
};

/// How many creations are asked about at once.
const OVERLAPPING: usize = 8;

/// Checks what a plugin has to keep to, over a pod and a container of yours: one for each thing that the plugin can do.
///
/// # Panics
///
/// Where it does not; the message says which expectation it is.
pub async fn container_injector(injector: impl ContainerInjector, pod: &Pod, container: &Container) {
    let settings = Settings::new("contract", "00");
    let Ok(settings) = settings else { panic!("settings of this suite are invalid: {settings:?}") };
    let stub = Stub::new(settings, injector, &Registry::disabled());
    let (sender, mut connections) = mpsc::unbounded_channel();
    let connect = || {
        let (near, far) = duplex(1 << 16);
        // Where nobody waits for it, the suite is at its end.
        let _ = sender.send(PluginConnection::over(far));
        async { Ok::<DuplexStream, io::Error>(near) }
    };
    tokio::select! {
        () = stub.run_over(connect, std::future::pending()) => {}
        () = check(&mut connections, pod, container) => {}
    }
}

async fn check(
    connections: &mut mpsc::UnboundedReceiver<PluginConnection>,
    pod: &Pod,
    container: &Container,
) {
    let mut connection = synchronized(connections, &[], &[]).await;
    let (stranger, its) = (Pod::default(), Container::default());
    for _ in 0..2 {
        let told = connection.remove_container(&stranger, &its).await;
        assert_eq!(told, Ok(()), "it takes note of the removal of a container that it never saw");
        let told = connection.remove_pod(&stranger).await;
        assert_eq!(told, Ok(()), "it takes note of the removal of a pod that it never saw");
    }

    let created = create(&connection, pod, container).await;
    let overlapping = join_all((0..OVERLAPPING).map(|_| create(&connection, pod, container))).await;
    let alike = overlapping.iter().all(|other| other.is_some() == created.is_some());
    assert!(alike, "it decides alike about one container when it is asked {OVERLAPPING} times at once");

    // Too soon for most to have decided: their futures are dropped.
    let patience = std::mem::replace(&mut connection.timeout, Duration::from_millis(1));
    let _ = connection.create(pod, container).await;
    connection.timeout = patience;
    create(&connection, pod, container).await;

    drop(connection);
    let now = created.map_or_else(|| container.clone(), |created| created.apply(container));
    let connection = synchronized(connections, std::slice::from_ref(pod), std::slice::from_ref(&now)).await;
    create(&connection, pod, container).await;
    for _ in 0..2 {
        let told = connection.remove_container(pod, &now).await;
        assert_eq!(told, Ok(()), "it takes note of the removal of a container");
        let told = connection.remove_pod(pod).await;
        assert_eq!(told, Ok(()), "it takes note of the removal of a pod");
    }
}

async fn synchronized(
    connections: &mut mpsc::UnboundedReceiver<PluginConnection>,
    pods: &[Pod],
    containers: &[Container],
) -> PluginConnection {
    let Some(mut connection) = connections.recv().await else { panic!("the stub has ended") };
    assert!(connection.registered().await.is_some(), "the stub registers");
    let told = connection.configure("2.2.9").await;
    assert!(told.is_ok(), "the stub is configured: {told:?}");
    let told = connection.synchronize(pods, containers, false).await;
    assert_eq!(told, Ok(false), "it synchronizes in time, on each connection");
    connection
}

/// `None` is a refusal.
async fn create(connection: &PluginConnection, pod: &Pod, container: &Container) -> Option<Created> {
    match connection.create(pod, container).await {
        Ok(created) => Some(created),
        Err(error) if error.code == Code::FailedPrecondition as i32 => None,
        Err(error) => panic!("it decides about a container by its deadline, without a panic: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use vdbi_core::secret::Secret;

    use super::*;
    use crate::stub::{Adjustment, Creation, Refused};

    /// Keeps to everything, or breaks what its name says.
    struct Example(&'static str);

    impl ContainerInjector for Example {
        async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
            match self.0 {
                "late" => tokio::time::sleep_until(creation.deadline + Duration::from_secs(1)).await,
                "panics" => panic!("as asked"),
                "refuses" => return Err(Refused::new("as asked")),
                _ => {}
            }
            let mut adjustment = Adjustment::default();
            adjustment.set_env("A", Secret::new("b"))?;
            Ok(adjustment)
        }

        async fn pod_removed(&self, pod: &Pod) {
            assert!(self.0 != "wants to know pods" || !pod.id.is_empty(), "an unknown pod");
        }
    }

    async fn run(example: Example) {
        let pod = Pod { id: "sandbox".to_owned(), ..Pod::default() };
        container_injector(example, &pod, &Container::default()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_adjusts_and_one_that_refuses_keep_the_contract() {
        run(Example("adjusts")).await;
        run(Example("refuses")).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "by its deadline")]
    async fn a_plugin_that_is_late_breaks_the_contract() {
        run(Example("late")).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "without a panic")]
    async fn a_plugin_that_panics_breaks_the_contract() {
        run(Example("panics")).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "the removal of a pod that it never saw")]
    async fn a_plugin_that_wants_to_know_every_pod_breaks_the_contract() {
        run(Example("wants to know pods")).await;
    }
}
