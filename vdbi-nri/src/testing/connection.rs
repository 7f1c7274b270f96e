//! One plugin, as a runtime has it.

use std::{sync::Arc, time::Duration};

use prost::Message;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::Created;
use crate::{
    proto::nri::{self, Event},
    stub::{Container, ContainerState, Pod, service::PLUGIN_SERVICE, session::RUNTIME_SERVICE},
    wire::{
        link::{Link, Role},
        ttrpc::{Answered, Call, Client, Code, Failure, Service},
    },
};

/// A plugin that has connected. Dropping it closes the connection, as a runtime does that ends.
#[derive(Debug)]
pub struct PluginConnection {
    /// How long the plugin's answers are waited for, and how long it is told they are; 2 s, as containerd does by default.
    pub timeout: Duration,
    client: Client,
    registrations: mpsc::UnboundedReceiver<Registration>,
    answers: watch::Sender<bool>,
    link: JoinSet<()>,
}

/// What a plugin registers as.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: String,
}

/// A plugin's error, or none of its answers in time.
#[non_exhaustive]
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message} (code {code})")]
pub struct CallError {
    /// The code of gRPC.
    pub code: i32,
    /// The message, which ends up in an event of the pod.
    pub message: String,
}

impl PluginConnection {
    /// Over any stream to a plugin.
    pub fn over<IO: AsyncRead + AsyncWrite + Send + 'static>(io: IO) -> Self {
        let timeout = Duration::from_secs(2);
        let (sender, registrations) = mpsc::unbounded_channel();
        let answers = watch::Sender::new(true);
        let service = Arc::new(RuntimeService { registrations: sender, answers: answers.subscribe() });
        let mut turning = Link::new(io, Role::Runtime, service, timeout);
        let client = turning.client();
        let mut link = JoinSet::new();
        link.spawn(async move { while turning.turn().await.is_ok() {} });
        Self { timeout, client, registrations, answers, link }
    }

    /// Whether registrations are answered, which they are at first.
    pub fn answer_registrations(&self, answer: bool) {
        self.answers.send_replace(answer);
    }

    /// What the plugin registers as; `None` when it disconnects before.
    pub async fn registered(&mut self) -> Option<Registration> {
        self.registrations.recv().await
    }

    /// Introduces the runtime; returns the mask of the events that the plugin subscribes to.
    ///
    /// # Errors
    ///
    /// The plugin answered with one or did not answer.
    pub async fn configure(&self, version: &str) -> Result<i32, CallError> {
        let request = nri::ConfigureRequest {
            runtime_name: "containerd".to_owned(),
            runtime_version: version.to_owned(),
            ..nri::ConfigureRequest::default()
        };
        let response: nri::ConfigureResponse = self.ask("Configure", &request).await?;
        Ok(response.events)
    }

    /// Tells the plugin about pods and containers, all or a part of them; returns whether it waits for more.
    ///
    /// # Errors
    ///
    /// The plugin answered with one or did not answer.
    pub async fn synchronize(
        &self,
        pods: &[Pod],
        containers: &[Container],
        more: bool,
    ) -> Result<bool, CallError> {
        let request = nri::SynchronizeRequest {
            pods: pods.iter().map(pod_message).collect(),
            containers: containers.iter().map(container_message).collect(),
            more,
        };
        let response: nri::SynchronizeResponse = self.ask("Synchronize", &request).await?;
        Ok(response.more)
    }

    /// Waits for the registration, and does with it what containerd does, on a node without pods.
    ///
    /// # Errors
    ///
    /// The plugin did not register, answered with an error or did not answer.
    pub async fn start(&mut self, version: &str) -> Result<Registration, CallError> {
        let registration = self.registered().await.ok_or_else(|| CallError {
            code: Code::Unavailable as i32,
            message: "the plugin has disconnected".to_owned(),
        })?;
        self.configure(version).await?;
        self.synchronize(&[], &[], false).await?;
        Ok(registration)
    }

    /// Asks about a container, and where the plugin has subscribed to it (from 2.2 on) leaves the validation out.
    ///
    /// # Errors
    ///
    /// The plugin refuses, or did not answer: the latter with the code 4 or 14, where containerd would create the container without it.
    pub async fn create(&self, pod: &Pod, container: &Container) -> Result<Created, CallError> {
        let request = nri::CreateContainerRequest {
            pod: Some(pod_message(pod)),
            container: Some(container_message(container)),
        };
        let response: nri::CreateContainerResponse = self.ask("CreateContainer", &request).await?;
        Ok(response.adjust.map(Created::from).unwrap_or_default())
    }

    /// Tells that a pod's sandbox is gone, as containerd up to 2.2 does.
    ///
    /// # Errors
    ///
    /// The plugin answered with one or did not answer.
    pub async fn remove_pod(&self, pod: &Pod) -> Result<(), CallError> {
        self.state_change(Event::RemovePodSandbox, pod, None).await
    }

    /// Tells that a container is gone, as containerd up to 2.2 does.
    ///
    /// # Errors
    ///
    /// The plugin answered with one or did not answer.
    pub async fn remove_container(&self, pod: &Pod, container: &Container) -> Result<(), CallError> {
        self.state_change(Event::RemoveContainer, pod, Some(container)).await
    }

    /// Calls any method of the plugin with a pod and a container, if there are any, as containerd from 2.3 on does for each event.
    ///
    /// # Errors
    ///
    /// The plugin answered with one or did not answer.
    pub async fn call(
        &self,
        method: &str,
        pod: Option<&Pod>,
        container: Option<&Container>,
    ) -> Result<(), CallError> {
        let request =
            nri::LifecycleRequest { pod: pod.map(pod_message), container: container.map(container_message) };
        let _: nri::Empty = self.ask(method, &request).await?;
        Ok(())
    }

    /// Waits until the plugin closes the connection.
    pub async fn closed(&mut self) {
        while self.link.join_next().await.is_some() {}
    }

    async fn state_change(
        &self,
        event: Event,
        pod: &Pod,
        container: Option<&Container>,
    ) -> Result<(), CallError> {
        let request = nri::StateChangeEvent {
            event: event.into(),
            pod: Some(pod_message(pod)),
            container: container.map(container_message),
        };
        let _: nri::Empty = self.ask("StateChange", &request).await?;
        Ok(())
    }

    async fn ask<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, CallError> {
        let payload = request.encode_to_vec();
        let answer = self.client.call(PLUGIN_SERVICE, method, payload, self.timeout).await?;
        A::decode(answer).map_err(|_| CallError {
            code: Code::Internal as i32,
            message: format!("the answer to {method} is none"),
        })
    }
}

impl From<Failure> for CallError {
    fn from(Failure { code, message }: Failure) -> Self {
        Self { code, message }
    }
}

/// What plugins call.
#[derive(Debug)]
struct RuntimeService {
    registrations: mpsc::UnboundedSender<Registration>,
    answers: watch::Receiver<bool>,
}

impl Service for RuntimeService {
    async fn call(&self, call: Call) -> Result<Vec<u8>, Failure> {
        if (call.service.as_str(), call.method.as_str()) != (RUNTIME_SERVICE, "RegisterPlugin") {
            return Err(Failure::new(Code::Unimplemented, "plugins only register here"));
        }
        let request = nri::RegisterPluginRequest::decode(call.payload)
            .map_err(|_| Failure::new(Code::InvalidArgument, "the registration is none"))?;
        let registration = Registration { name: request.plugin_name, index: request.plugin_idx };
        // A test that does not look has no receiver.
        let _ = self.registrations.send(registration);
        let _ = self.answers.clone().wait_for(|answer| *answer).await;
        Ok(Vec::new())
    }

    fn answered(&self, _: Answered<'_>) {}
}

fn pod_message(pod: &Pod) -> nri::PodSandbox {
    let Pod { id, name, namespace, uid, labels, annotations } = pod.clone();
    nri::PodSandbox { id, name, uid, namespace, labels, annotations }
}

fn container_message(container: &Container) -> nri::Container {
    let Container { id, pod_id, name, args, env, mounts, labels, annotations, state } = container.clone();
    let state = match state {
        ContainerState::Unknown => nri::ContainerState::ContainerUnknown,
        ContainerState::Created => nri::ContainerState::ContainerCreated,
        ContainerState::Paused => nri::ContainerState::ContainerPaused,
        ContainerState::Running => nri::ContainerState::ContainerRunning,
        ContainerState::Stopped => nri::ContainerState::ContainerStopped,
    };
    nri::Container {
        id,
        pod_sandbox_id: pod_id,
        name,
        state: state.into(),
        labels,
        annotations,
        args,
        env,
        mounts: mounts.iter().map(nri::Mount::from).collect(),
    }
}
