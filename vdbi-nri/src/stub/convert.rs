//! Between the protocol's messages and what plugins see.

use super::{Adjustment, Container, ContainerState, Mount, Pod};
use crate::proto::nri;

/// Marks a mount's destination for removal.
pub(crate) const REMOVAL: char = '-';

impl From<nri::PodSandbox> for Pod {
    fn from(pod: nri::PodSandbox) -> Self {
        let nri::PodSandbox { id, name, uid, namespace, labels, annotations } = pod;
        Self { id, name, namespace, uid, labels, annotations }
    }
}

impl From<nri::Container> for Container {
    fn from(container: nri::Container) -> Self {
        let state = container.state().into();
        let nri::Container { id, pod_sandbox_id, name, labels, annotations, args, env, mounts, .. } =
            container;
        let mounts = mounts.into_iter().map(Mount::from).collect();
        Self { id, pod_id: pod_sandbox_id, name, args, env, mounts, labels, annotations, state }
    }
}

impl From<nri::ContainerState> for ContainerState {
    fn from(state: nri::ContainerState) -> Self {
        match state {
            nri::ContainerState::ContainerUnknown => Self::Unknown,
            nri::ContainerState::ContainerCreated => Self::Created,
            nri::ContainerState::ContainerPaused => Self::Paused,
            nri::ContainerState::ContainerRunning => Self::Running,
            nri::ContainerState::ContainerStopped => Self::Stopped,
        }
    }
}

impl From<nri::Mount> for Mount {
    fn from(mount: nri::Mount) -> Self {
        let nri::Mount { destination, r#type, source, options } = mount;
        Self { destination, kind: r#type, source, options }
    }
}

impl From<&Mount> for nri::Mount {
    fn from(mount: &Mount) -> Self {
        let Mount { destination, kind, source, options } = mount.clone();
        Self { destination, r#type: kind, source, options }
    }
}

impl From<&Adjustment> for nri::ContainerAdjustment {
    fn from(adjustment: &Adjustment) -> Self {
        let removed = adjustment.removed_mounts().iter().map(|destination| nri::Mount {
            destination: format!("{REMOVAL}{destination}"),
            ..nri::Mount::default()
        });
        let mounts = removed.chain(adjustment.mounts().iter().map(nri::Mount::from)).collect();
        let env = adjustment
            .env()
            .map(|(key, value)| nri::KeyValue { key: key.to_owned(), value: value.expose().to_owned() })
            .collect();
        Self { mounts, env }
    }
}
