//! How the connection is.

use super::Runtime;

/// How a plugin's connection to containerd is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is none, and containers are created without the plugin.
    Disconnected {
        /// Why, and what to do.
        reason: String,
    },
    /// containerd has accepted the connection, and has not synchronized the plugin yet: containers are still created without it.
    Connected,
    /// containerd asks the plugin about every container.
    Synchronized {
        /// Who asks.
        runtime: Runtime,
    },
}

impl Status {
    pub(super) fn starting() -> Self {
        Self::Disconnected { reason: "the plugin has not connected to containerd yet".to_owned() }
    }

    /// For a ready check: whether the plugin is asked about every container.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn ready(&self) -> Result<(), String> {
        match self {
            Self::Disconnected { reason } => Err(reason.clone()),
            Self::Connected => Err("containerd has not synchronized the plugin yet".to_owned()),
            Self::Synchronized { .. } => Ok(()),
        }
    }
}
