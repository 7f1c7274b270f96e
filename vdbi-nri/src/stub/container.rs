//! Pods and containers, as containerd describes them.

use std::{collections::HashMap, fmt};

/// A pod, which containerd calls a sandbox (the message `PodSandbox` of NRI). Begin with `Pod::default()` where a test needs one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// The sandbox's id. A pod has a new one when its sandbox is made anew.
    pub id: String,
    /// The pod's name in Kubernetes.
    pub name: String,
    /// Its namespace in Kubernetes.
    pub namespace: String,
    /// Its uid in Kubernetes.
    pub uid: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its annotations.
    pub annotations: HashMap<String, String>,
}

/// A container (the message of the same name of NRI). `Debug` shows neither its arguments nor its environment: they may hold secrets.
/// Begin with `Container::default()` where a test needs one.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The [`Pod::id`] it belongs to.
    pub pod_id: String,
    /// Its name in the pod.
    pub name: String,
    /// What is run, with its arguments.
    pub args: Vec<String>,
    /// `NAME=value` each: the image's variables, then the pod's. A name may occur twice; the last one counts.
    pub env: Vec<String>,
    /// Its mounts.
    pub mounts: Vec<Mount>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its annotations.
    pub annotations: HashMap<String, String>,
    /// How far it is; of a container that is being created, unknown.
    pub state: ContainerState,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerState {
    /// containerd does not say.
    #[default]
    Unknown,
    /// Created, not started.
    Created,
    /// Paused.
    Paused,
    /// Running.
    Running,
    /// It has ended.
    Stopped,
}

/// A mount of a container, with all that NRI has of one: it is written as a literal, since a constructor would take texts that could
/// be swapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The absolute path in the container.
    pub destination: String,
    /// Its type, such as `bind`.
    pub kind: String,
    /// What is mounted: for `bind` a path on the node.
    pub source: String,
    /// Its options, such as `ro`.
    pub options: Vec<String>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("id", &self.id)
            .field("pod_id", &self.pod_id)
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_environment() {
        let container = Container {
            name: "app".to_owned(),
            args: vec!["--password=hunter2".to_owned()],
            env: vec!["PASSWORD=hunter2".to_owned()],
            ..Container::default()
        };
        let shown = format!("{container:?}");
        assert!(shown.contains("app") && !shown.contains("hunter2"), "{shown}");
    }
}
