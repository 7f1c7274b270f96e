use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use e2e::nodes::HOST;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::world::PATIENCE;

/// A point at which a container waits for the test.
pub(crate) struct Gate(TcpListener);

/// A container at its gate; it goes on when this is dropped.
#[must_use]
pub(crate) struct Held(#[expect(dead_code, reason = "only to be dropped")] TcpStream);

impl Gate {
    pub(crate) async fn new() -> Result<Self> {
        let host: Ipv4Addr = HOST.parse()?;
        Ok(Self(TcpListener::bind((host, 0)).await?))
    }

    /// What the container runs to wait here.
    pub(crate) fn wait(&self) -> Result<String> {
        Ok(format!("nc {HOST} {} </dev/null", self.0.local_addr()?.port()))
    }

    /// Waits until a container is there.
    pub(crate) async fn arrival(&self) -> Result<Held> {
        let (connection, _) =
            timeout(PATIENCE, self.0.accept()).await.context("no container came to the gate")??;
        Ok(Held(connection))
    }
}
