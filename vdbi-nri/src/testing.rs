//! A container runtime's side of NRI, to drive a plugin in tests without containerd.
//!
//! [`FakeRuntime`] listens on a socket, as containerd does; [`PluginConnection`] is one plugin on it, on which a test does what
//! containerd would: configure, synchronize, and ask about containers. It does nothing by itself. [`container_injector`] is the
//! contract of plugins as a test suite.

mod connection;
pub mod container_injector;
mod created;

use std::{io, path::Path};

use tokio::net::UnixListener;

pub use connection::{CallError, PluginConnection, Registration};
pub use created::Created;

/// Where plugins connect.
#[derive(Debug)]
pub struct FakeRuntime(UnixListener);

impl FakeRuntime {
    /// Listens on a socket that does not exist yet.
    ///
    /// # Errors
    ///
    /// The socket cannot be made.
    pub fn bind(socket: impl AsRef<Path>) -> io::Result<Self> {
        UnixListener::bind(socket).map(Self)
    }

    /// The next plugin that connects. It may register at once; nothing else happens to it.
    ///
    /// # Errors
    ///
    /// The socket fails.
    pub async fn accept(&self) -> io::Result<PluginConnection> {
        let (stream, _) = self.0.accept().await?;
        Ok(PluginConnection::over(stream))
    }
}
