//! How the connection is.

use std::{io, path::Path};

use super::Runtime;

/// How a plugin's connection to containerd is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

/// Why there is no connection to containerd's NRI socket, and what to do: for people.
pub fn why_not_connected(error: &io::Error, socket: &Path) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is no socket {socket}: does containerd run, is NRI enabled in its configuration (by default not before 2.0), and is \
             the socket's directory mounted here?"
        ),
        io::ErrorKind::ConnectionRefused => format!(
            "nobody listens at {socket}: containerd does not run, or NRI has been disabled in its configuration"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "{socket} may not be opened: the plugin has to run as root, and the node's policies have to permit it"
            )
        }
        _ => format!("{socket} cannot be opened: {error}"),
    }
}
