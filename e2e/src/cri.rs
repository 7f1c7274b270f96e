//! A client of the Container Runtime Interface: what a kubelet asks of containerd, in the words of a test.

mod log;
mod spec;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Instant};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::image::IMAGE;
use messages::{
    NamespaceMode, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};

/// The messages, as `proto/cri.proto` has them.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "it is generated; the interface's own documentation says what they mean"
)]
pub mod messages {
    tonic::include_proto!("runtime.v1");
}

pub use messages::{ContainerState, ContainerStatus};
pub use spec::{ContainerSpec, PodSpec};

const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any request takes: containerd answers late when a plugin does.
const REQUEST: Duration = Duration::from_secs(60);

/// A client of one containerd.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    logs: PathBuf,
    cgroup: String,
}

/// A pod that was made.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The id of its sandbox.
    pub id: String,
    config: messages::PodSandboxConfig,
}

/// A container that was made.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    log: PathBuf,
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What it ended with.
    pub code: i32,
    /// What it has written.
    pub stdout: String,
    /// What it has complained about.
    pub stderr: String,
}

impl Cri {
    /// A client at a socket; the logs of the containers are written below `logs`, and their cgroups are in `cgroup`.
    ///
    /// # Errors
    ///
    /// When containerd does not know the pods' image, or nothing, yet.
    pub(crate) async fn connect(socket: &Path, logs: &Path, cgroup: &str) -> Result<Self> {
        let socket = socket.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is never resolved.
        let endpoint = Endpoint::from_static("http://containerd").timeout(REQUEST);
        let channel = endpoint.connect_with_connector_lazy(connect);
        let request =
            messages::ImageStatusRequest { image: Some(messages::ImageSpec { image: IMAGE.into() }) };
        let status = ImageServiceClient::new(channel.clone()).image_status(request).await?;
        ensure!(status.into_inner().image.is_some(), "it does not know {IMAGE}");
        Ok(Self { channel, logs: logs.to_owned(), cgroup: format!("/{cgroup}") })
    }

    /// Makes a pod and waits until it is ready (RunPodSandbox).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn run_pod(&self, spec: &PodSpec) -> Result<Pod, Status> {
        let mut config = spec.0.clone();
        let metadata = config.metadata.get_or_insert_default();
        config.log_directory = self.logs.join(&metadata.uid).display().to_string();
        config.linux = Some(messages::LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup.clone(),
            security_context: Some(messages::LinuxSandboxSecurityContext {
                namespace_options: Some(messages::NamespaceOption {
                    network: NamespaceMode::Node.into(),
                    pid: NamespaceMode::Container.into(),
                    ipc: NamespaceMode::Pod.into(),
                }),
            }),
        });
        let request = messages::RunPodSandboxRequest { config: Some(config.clone()) };
        let id = self.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        Ok(Pod { id, config })
    }

    /// Ends a pod with its containers (StopPodSandbox).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn stop_pod(&self, pod: &Pod) -> Result<(), Status> {
        let request = messages::PodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.runtime().stop_pod_sandbox(request).await.map(drop)
    }

    /// Removes a pod with its containers (RemovePodSandbox).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn remove_pod(&self, pod: &Pod) -> Result<(), Status> {
        let request = messages::PodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.runtime().remove_pod_sandbox(request).await.map(drop)
    }

    /// The ids of all pods (ListPodSandbox).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn pods(&self) -> Result<Vec<String>, Status> {
        let answer = self.runtime().list_pod_sandbox(messages::Empty {}).await?.into_inner();
        Ok(answer.items.into_iter().map(|pod| pod.id).collect())
    }

    /// Makes a container, which does not run yet (CreateContainer): here NRI plugins change or refuse it.
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn create(&self, pod: &Pod, spec: &ContainerSpec) -> Result<Container, Status> {
        let mut config = spec.0.clone();
        let metadata = config.metadata.get_or_insert_default();
        config.log_path = format!("{}-{}.log", metadata.name, metadata.attempt);
        let log = Path::new(&pod.config.log_directory).join(&config.log_path);
        let request = messages::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.runtime().create_container(request).await?.into_inner().container_id;
        Ok(Container { id, log })
    }

    /// Runs what was made (StartContainer).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn start(&self, container: &Container) -> Result<(), Status> {
        let request = messages::ContainerRequest { container_id: container.id.clone() };
        self.runtime().start_container(request).await.map(drop)
    }

    /// Makes a container and runs it.
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn run(&self, pod: &Pod, spec: &ContainerSpec) -> Result<Container, Status> {
        let container = self.create(pod, spec).await?;
        self.start(&container).await?;
        Ok(container)
    }

    /// Asks a container to end, and ends it after this time (StopContainer).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn stop(&self, container: &Container, within: Duration) -> Result<(), Status> {
        let timeout = within.as_secs().cast_signed();
        let request = messages::StopContainerRequest { container_id: container.id.clone(), timeout };
        self.runtime().stop_container(request).await.map(drop)
    }

    /// Removes a container, which is ended for that (RemoveContainer).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn remove(&self, container: &Container) -> Result<(), Status> {
        let request = messages::ContainerRequest { container_id: container.id.clone() };
        self.runtime().remove_container(request).await.map(drop)
    }

    /// What containerd says of a container (ContainerStatus).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn status(&self, container: &Container) -> Result<ContainerStatus, Status> {
        let request = messages::ContainerRequest { container_id: container.id.clone() };
        let answer = self.runtime().container_status(request).await?.into_inner();
        answer.status.ok_or_else(|| Status::internal("an answer without a status"))
    }

    /// All containers (ListContainers).
    ///
    /// # Errors
    ///
    /// containerd's refusal.
    pub async fn containers(&self) -> Result<Vec<messages::Container>, Status> {
        Ok(self.runtime().list_containers(messages::Empty {}).await?.into_inner().containers)
    }

    /// Runs a command in a container (ExecSync).
    ///
    /// # Errors
    ///
    /// containerd's refusal; not that the command failed.
    pub async fn exec(&self, container: &Container, command: &[&str]) -> Result<Output, Status> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let timeout = PATIENCE.as_secs().cast_signed();
        let request = messages::ExecSyncRequest { container_id: container.id.clone(), cmd, timeout };
        let answer = self.runtime().exec_sync(request).await?.into_inner();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { code: answer.exit_code, stdout: text(answer.stdout), stderr: text(answer.stderr) })
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }
}

impl Container {
    /// What it has written so far.
    ///
    /// # Errors
    ///
    /// When it has no log: it never ran.
    pub fn log(&self) -> Result<String> {
        log::read(&self.log)
    }

    /// Waits until it has written this.
    ///
    /// # Errors
    ///
    /// When it does not; the error has what it wrote instead.
    pub async fn logged(&self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            match log {
                Ok(log) if log.contains(text) => return Ok(log),
                _ if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                log => return log.with_context(|| format!("it has not written: {text}")),
            }
        }
    }

    /// A variable of its environment, as a container shows it that was given no other command.
    ///
    /// # Errors
    ///
    /// When it does not show its environment.
    pub async fn variable(&self, name: &str) -> Result<Option<String>> {
        let log = self.logged("\nshown\n").await?;
        let assignments = log.lines().filter_map(|line| line.split_once('='));
        Ok(assignments.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next())
    }
}
