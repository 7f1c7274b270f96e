use std::path::Path;

use uuid::Uuid;

use super::messages::{self, NamespaceMode};
use crate::image::IMAGE;

/// What a container does unless it is told otherwise: it shows its environment, and ends when it is asked to.
const SHOW: &str = "env; echo shown; trap 'exit 0' TERM; sleep 2147483647 & wait $!";

/// A pod to be: it has the network of the containerd's process and nothing in it.
#[derive(Debug, Clone)]
pub struct PodSpec(pub(super) messages::PodSandboxConfig);

/// A container to be, of the image [`IMAGE`]. Unless it is told otherwise it shows its environment and waits.
#[derive(Debug, Clone)]
pub struct ContainerSpec(pub(super) messages::ContainerConfig);

impl PodSpec {
    /// A pod in the namespace `default`, with a new uid.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let uid = Uuid::new_v4().to_string();
        Self(messages::PodSandboxConfig {
            metadata: Some(messages::PodSandboxMetadata {
                name: name.to_owned(),
                uid,
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            ..Default::default()
        })
    }

    /// With this uid.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.0.metadata.get_or_insert_default().uid = uid.to_owned();
        self
    }

    /// In this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0.metadata.get_or_insert_default().namespace = namespace.to_owned();
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl ContainerSpec {
    /// A container without environment variables but for the image's.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let namespaces = messages::NamespaceOption {
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Pod.into(),
        };
        let spec = Self(messages::ContainerConfig {
            metadata: Some(messages::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(messages::ImageSpec { image: IMAGE.to_owned() }),
            linux: Some(messages::LinuxContainerConfig {
                security_context: Some(messages::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces),
                }),
            }),
            ..Default::default()
        });
        spec.command(&["sh", "-c", SHOW])
    }

    /// With an environment variable; one more of the same name is one more.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.0.envs.push(messages::KeyValue { key: key.to_owned(), value: value.to_owned() });
        self
    }

    /// Running this.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.0.command = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With arguments after the command.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args = arguments.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With a path of the host at a path of the container.
    #[must_use]
    pub fn mount(mut self, host: &Path, container: &str) -> Self {
        self.0.mounts.push(messages::Mount {
            container_path: container.to_owned(),
            host_path: host.display().to_string(),
            readonly: false,
        });
        self
    }

    /// As the kubelet's next attempt to run the same container.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.0.metadata.get_or_insert_default().attempt = attempt;
        self
    }
}
