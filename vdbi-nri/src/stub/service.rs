//! What a runtime's calls mean.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::sync::mpsc;

use super::{Container, ContainerInjector, Creation, Pod, Runtime, metrics::Metrics, rpc::Rpc};
use crate::{
    proto::nri::{self, Event},
    wire::ttrpc::{Answered, Call, Code, Failure, Service},
};

/// The service's name in the protocol.
pub(crate) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// What part of the time that the runtime waits is the injector's: it has to be able to say why it has no answer.
const INJECTORS_SHARE: f64 = 0.8;

/// A plugin on one connection.
#[derive(Debug)]
pub(super) struct PluginService<I> {
    injector: Arc<I>,
    metrics: Metrics,
    progress: mpsc::UnboundedSender<Progress>,
    state: Mutex<State>,
}

/// How the plugin's registration is getting on. It is told after the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The runtime does what comes next.
    Advanced,
    /// All has been synchronized: the plugin is in the runtime's list.
    Synchronized,
    /// Why the runtime will have nothing to do with the plugin, whether it says so or not.
    Failed(String),
}

#[derive(Debug, Default)]
struct State {
    runtime: Arc<Runtime>,
    /// How long the runtime waits for a registration and for a request, where it has told.
    timeouts: Option<(Duration, Duration)>,
    /// The parts of the synchronization so far.
    pods: Vec<Pod>,
    containers: Vec<Container>,
    /// The last part has come.
    complete: bool,
}

impl<I: ContainerInjector> PluginService<I> {
    pub(super) fn new(injector: Arc<I>, metrics: Metrics, progress: mpsc::UnboundedSender<Progress>) -> Self {
        Self { injector, metrics, progress, state: Mutex::default() }
    }

    /// Who is at the other end, once it has said so.
    pub(super) fn runtime(&self) -> Arc<Runtime> {
        self.state().runtime.clone()
    }

    /// How long it waits for a registration and for a request, where it has told.
    pub(super) fn timeouts(&self) -> Option<(Duration, Duration)> {
        self.state().timeouts
    }

    fn configure(&self, request: nri::ConfigureRequest) -> nri::ConfigureResponse {
        let runtime = Runtime { name: request.runtime_name, version: request.runtime_version };
        let mut events = vec![Event::CreateContainer, Event::RemovePodSandbox, Event::RemoveContainer];
        // With it, a creation fails when the plugin dies while it is asked. A runtime that does not know it refuses the plugin.
        if runtime.validates() {
            events.push(Event::ValidateContainerAdjustment);
        }
        let mut state = self.state();
        state.runtime = Arc::new(runtime);
        state.timeouts =
            milliseconds(request.registration_timeout).zip(milliseconds(request.request_timeout));
        nri::ConfigureResponse { events: mask(&events) }
    }

    /// Gathers the parts, and tells the injector when all are there.
    async fn synchronize(&self, request: nri::SynchronizeRequest) -> nri::SynchronizeResponse {
        let more = request.more;
        let (pods, containers, runtime) = {
            let mut state = self.state();
            state.pods.extend(request.pods.into_iter().map(Pod::from));
            state.containers.extend(request.containers.into_iter().map(Container::from));
            if more {
                return nri::SynchronizeResponse { more };
            }
            (mem::take(&mut state.pods), mem::take(&mut state.containers), state.runtime.clone())
        };
        self.injector.synchronize(pods, containers, &runtime).await;
        self.state().complete = true;
        nri::SynchronizeResponse { more }
    }

    async fn create(&self, call: &Call) -> Result<nri::CreateContainerResponse, Failure> {
        let request: nri::CreateContainerRequest = decode(call)?;
        let (Some(pod), Some(container)) = (request.pod, request.container) else {
            return Err(Failure::new(Code::InvalidArgument, "a container is created in a pod"));
        };
        let (pod, container, runtime) = (Pod::from(pod), Container::from(container), self.runtime());
        let deadline = call.arrived + call.timeout.mul_f64(INJECTORS_SHARE);
        let creation = Creation { pod: &pod, container: &container, runtime: &runtime, deadline };
        match self.injector.create(creation).await {
            Ok(adjustment) => Ok(nri::CreateContainerResponse { adjust: Some((&adjustment).into()) }),
            Err(refused) => Err(Failure::new(Code::FailedPrecondition, refused.to_string())),
        }
    }

    async fn event(&self, event: Event, pod: Option<nri::PodSandbox>, container: Option<nri::Container>) {
        let Some(pod) = pod.map(Pod::from) else { return };
        match (event, container) {
            (Event::RemovePodSandbox, _) => self.injector.pod_removed(&pod).await,
            (Event::RemoveContainer, Some(container)) => {
                self.injector.container_removed(&pod, &container.into()).await;
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: ContainerInjector> Service for PluginService<I> {
    async fn call(&self, call: Call) -> Result<Vec<u8>, Failure> {
        let rpc = if call.service == PLUGIN_SERVICE { Rpc::of(&call.method) } else { Rpc::Unknown };
        match rpc {
            Rpc::Configure => Ok(self.configure(decode(&call)?).encode_to_vec()),
            Rpc::Synchronize => Ok(self.synchronize(decode(&call)?).await.encode_to_vec()),
            Rpc::CreateContainer => Ok(self.create(&call).await?.encode_to_vec()),
            Rpc::StateChange => {
                let request: nri::StateChangeEvent = decode(&call)?;
                self.event(request.event(), request.pod, request.container).await;
                Ok(empty())
            }
            Rpc::RemovePodSandbox => {
                let request: nri::LifecycleRequest = decode(&call)?;
                self.event(Event::RemovePodSandbox, request.pod, None).await;
                Ok(empty())
            }
            Rpc::RemoveContainer => {
                let request: nri::LifecycleRequest = decode(&call)?;
                self.event(Event::RemoveContainer, request.pod, request.container).await;
                Ok(empty())
            }
            Rpc::ValidateContainerAdjustment => {
                let accepted =
                    nri::ValidateContainerAdjustmentResponse { reject: false, reason: String::new() };
                Ok(accepted.encode_to_vec())
            }
            // Not subscribed to. Whatever asks all the same is not to fail.
            Rpc::Shutdown
            | Rpc::UpdateContainer
            | Rpc::StopContainer
            | Rpc::RunPodSandbox
            | Rpc::UpdatePodSandbox
            | Rpc::PostUpdatePodSandbox
            | Rpc::StopPodSandbox
            | Rpc::PostCreateContainer
            | Rpc::StartContainer
            | Rpc::PostStartContainer
            | Rpc::PostUpdateContainer => Ok(empty()),
            // With any other code containerd would not go on to a method that is known here.
            Rpc::Unknown => Err(Failure::new(
                Code::Unimplemented,
                format!("{}/{} is not implemented", call.service, call.method),
            )),
        }
    }

    fn answered(&self, answered: Answered<'_>) {
        let rpc = Rpc::of(answered.method);
        self.metrics.answered(rpc, answered.took, answered.failure.is_some());
        // What the injector says itself is its own to log.
        if let Some(failure) =
            answered.failure.filter(|failure| failure.code != Code::FailedPrecondition as i32)
        {
            tracing::warn!(
                rpc = rpc.name(), took = ?answered.took, reason = failure.message,
                "a request of the container runtime failed: {}", failure.message
            );
        }
        let progress = match rpc {
            Rpc::Configure | Rpc::Synchronize => match answered.failure {
                Some(failure) => Progress::Failed(format!("{} failed: {}", rpc.name(), failure.message)),
                None if answered.late => Progress::Failed(format!("{} was answered too late", rpc.name())),
                None if self.state().complete => Progress::Synchronized,
                None => Progress::Advanced,
            },
            // A request that could not be read, as it is too long, may have been one of these.
            Rpc::Unknown if answered.method.is_empty() && !self.state().complete => {
                Progress::Failed("a request could not be read".to_owned())
            }
            _ => return,
        };
        // Where nobody listens, the session is over.
        let _ = self.progress.send(progress);
    }
}

fn decode<M: Message + Default>(call: &Call) -> Result<M, Failure> {
    M::decode(call.payload.clone()).map_err(|_| {
        Failure::new(Code::InvalidArgument, format!("the request is no {} request", call.method))
    })
}

/// Any answer without fields.
fn empty() -> Vec<u8> {
    nri::Empty {}.encode_to_vec()
}

fn mask(events: &[Event]) -> i32 {
    events.iter().fold(0, |mask, event| mask | 1 << (*event as i32 - 1))
}

fn milliseconds(number: i64) -> Option<Duration> {
    u64::try_from(number).ok().filter(|number| *number > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use vdbi_core::metrics::Registry;

    use super::*;
    use crate::stub::{Adjustment, Refused};

    struct Idle;

    impl ContainerInjector for Idle {
        async fn create(&self, _: Creation<'_>) -> Result<Adjustment, Refused> {
            Ok(Adjustment::default())
        }
    }

    #[test]
    fn timeouts_are_the_runtimes_where_it_tells_them() {
        let metrics = Metrics::new(&Registry::disabled());
        let service = PluginService::new(Arc::new(Idle), metrics, mpsc::unbounded_channel().0);
        let mut request = nri::ConfigureRequest::default();
        service.configure(request.clone());
        assert_eq!(service.timeouts(), None);
        (request.registration_timeout, request.request_timeout) = (8000, 2500);
        service.configure(request);
        assert_eq!(service.timeouts(), Some((Duration::from_secs(8), Duration::from_millis(2500))));
    }

    #[test]
    fn events_are_bits_from_1_on() {
        let events = [
            Event::CreateContainer,
            Event::RemovePodSandbox,
            Event::RemoveContainer,
            Event::ValidateContainerAdjustment,
        ];
        assert_eq!(events.map(|event| mask(&[event])), [0x8, 0x4, 0x400, 0x2000]);
        assert_eq!(mask(&events), 0x240c);
    }
}
