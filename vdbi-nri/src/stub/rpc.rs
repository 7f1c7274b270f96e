//! What a runtime asks of a plugin.

/// A method of NRI's plugin service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rpc {
    Configure,
    Synchronize,
    Shutdown,
    CreateContainer,
    ValidateContainerAdjustment,
    UpdateContainer,
    StopContainer,
    StateChange,
    RunPodSandbox,
    UpdatePodSandbox,
    PostUpdatePodSandbox,
    StopPodSandbox,
    RemovePodSandbox,
    PostCreateContainer,
    StartContainer,
    PostStartContainer,
    PostUpdateContainer,
    RemoveContainer,
    /// None that is known here.
    Unknown,
}

impl Rpc {
    pub(super) const ALL: [Self; 19] = [
        Self::Configure,
        Self::Synchronize,
        Self::Shutdown,
        Self::CreateContainer,
        Self::ValidateContainerAdjustment,
        Self::UpdateContainer,
        Self::StopContainer,
        Self::StateChange,
        Self::RunPodSandbox,
        Self::UpdatePodSandbox,
        Self::PostUpdatePodSandbox,
        Self::StopPodSandbox,
        Self::RemovePodSandbox,
        Self::PostCreateContainer,
        Self::StartContainer,
        Self::PostStartContainer,
        Self::PostUpdateContainer,
        Self::RemoveContainer,
        Self::Unknown,
    ];

    /// By its name in NRI.
    pub(super) fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|rpc| rpc.name() == name).unwrap_or(Self::Unknown)
    }

    /// Its name in NRI, and in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Configure => "Configure",
            Self::Synchronize => "Synchronize",
            Self::Shutdown => "Shutdown",
            Self::CreateContainer => "CreateContainer",
            Self::ValidateContainerAdjustment => "ValidateContainerAdjustment",
            Self::UpdateContainer => "UpdateContainer",
            Self::StopContainer => "StopContainer",
            Self::StateChange => "StateChange",
            Self::RunPodSandbox => "RunPodSandbox",
            Self::UpdatePodSandbox => "UpdatePodSandbox",
            Self::PostUpdatePodSandbox => "PostUpdatePodSandbox",
            Self::StopPodSandbox => "StopPodSandbox",
            Self::RemovePodSandbox => "RemovePodSandbox",
            Self::PostCreateContainer => "PostCreateContainer",
            Self::StartContainer => "StartContainer",
            Self::PostStartContainer => "PostStartContainer",
            Self::PostUpdateContainer => "PostUpdateContainer",
            Self::RemoveContainer => "RemoveContainer",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for (position, rpc) in Rpc::ALL.into_iter().enumerate() {
            assert_eq!(rpc as usize, position);
            assert_eq!(Rpc::of(rpc.name()), rpc);
        }
        assert_eq!(Rpc::of("MakeCoffee"), Rpc::Unknown);
    }
}
