//! What a plugin does.

use std::sync::Arc;

use thiserror::Error;
use tokio::time::Instant;

use super::{Adjustment, Container, Pod, Runtime};

/// A plugin: what to do to a container before it is created.
///
/// ```
/// use vdbi_nri::stub::{Adjustment, ContainerInjector, Creation, Refused};
///
/// /// Has every container of a namespace know which one it is.
/// struct Named(&'static str);
///
/// impl ContainerInjector for Named {
///     async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
///         let mut adjustment = Adjustment::default();
///         if creation.pod.namespace == self.0 {
///             adjustment.set_env("CONTAINER", creation.container.name.clone())?;
///         }
///         Ok(adjustment)
///     }
/// }
/// ```
///
/// # Expectations
///
/// - `create` is quick: while it runs, containerd creates no other container and starts no pod on this node.
/// - No future blocks its thread.
/// - Every future may be dropped at any await: at its deadline, and when the connection ends.
///
/// # What to expect
///
/// - Calls may overlap, and may come from an earlier connection and a later one at once.
/// - `synchronize` comes first on every connection, so again after each reconnection, and then tells everything that was missed:
///   a pod that is not in it is gone.
/// - A container whose creation failed is reported as removed.
/// - A panic is an error for containerd, and nothing else comes of it.
///
/// The suite `vdbi_nri::testing::container_injector` (feature `testing`) checks this over any implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not decide about containers",
    note = "implement `vdbi_nri::stub::ContainerInjector`: `create` alone is required"
)]
pub trait ContainerInjector: Send + Sync + 'static {
    /// Decides about a container that is about to be created. With a refusal it is not, and kubelet tries again later.
    ///
    /// It has until [`Creation::deadline`]; a little later its future is dropped and the creation refused.
    fn create(&self, creation: Creation<'_>) -> impl Future<Output = Result<Adjustment, Refused>> + Send;

    /// Takes note of the pods and containers that containerd has; those that have ended may be missing. Containers are as they were
    /// created: what a plugin set in their environment is in it.
    ///
    /// The plugin is not synchronized before this ends, and its future is dropped when containerd would not wait for it.
    fn synchronize(
        &self,
        pods: Vec<Pod>,
        containers: Vec<Container>,
        runtime: &Runtime,
    ) -> impl Future<Output = ()> + Send {
        let _ = (pods, containers, runtime);
        async {}
    }

    /// Takes note that a pod's sandbox is gone. The pod itself may live on in another one.
    fn pod_removed(&self, pod: &Pod) -> impl Future<Output = ()> + Send {
        let _ = pod;
        async {}
    }

    /// Takes note that a container is gone.
    fn container_removed(&self, pod: &Pod, container: &Container) -> impl Future<Output = ()> + Send {
        let _ = (pod, container);
        async {}
    }
}

/// A container that is about to be created.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Creation<'a> {
    /// The pod it is for.
    pub pod: &'a Pod,
    /// What it would be.
    pub container: &'a Container,
    /// Who asks.
    pub runtime: &'a Runtime,
    /// When to have decided, at 80 % of the time that containerd waits: soon enough to say why there is no decision.
    pub deadline: Instant,
}

impl<'a> Creation<'a> {
    /// What a runtime would ask, for a plugin that is tested without one.
    pub fn new(pod: &'a Pod, container: &'a Container, runtime: &'a Runtime, deadline: Instant) -> Self {
        Self { pod, container, runtime, deadline }
    }
}

/// Why a container is not to be created. kubelet shows the message in an event of the pod, cut after about 1000 characters: no
/// secrets in it, and what the pod's author can do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    /// With a message for the pod's author.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// So that its owner can keep the injector.
impl<I: ContainerInjector> ContainerInjector for Arc<I> {
    fn create(&self, creation: Creation<'_>) -> impl Future<Output = Result<Adjustment, Refused>> + Send {
        I::create(self, creation)
    }

    fn synchronize(
        &self,
        pods: Vec<Pod>,
        containers: Vec<Container>,
        runtime: &Runtime,
    ) -> impl Future<Output = ()> + Send {
        I::synchronize(self, pods, containers, runtime)
    }

    fn pod_removed(&self, pod: &Pod) -> impl Future<Output = ()> + Send {
        I::pod_removed(self, pod)
    }

    fn container_removed(&self, pod: &Pod, container: &Container) -> impl Future<Output = ()> + Send {
        I::container_removed(self, pod, container)
    }
}
