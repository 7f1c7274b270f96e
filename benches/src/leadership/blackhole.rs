use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A way to the API server that can be cut, so that nothing comes through in either direction and nothing is closed.
#[derive(Debug)]
pub(super) struct Blackhole {
    cut: CancellationToken,
    /// It forwards as long as this exists.
    _forwarding: JoinSet<()>,
    /// Of a client that goes this way.
    pub(super) kubeconfig: PathBuf,
}

impl Blackhole {
    /// In front of the server at `url`; `kubeconfig` is for going there directly.
    pub(super) async fn start(url: &str, kubeconfig: &Path, directory: &Path) -> Result<Self> {
        let address: SocketAddr =
            url.trim_start_matches("https://").parse().context("the address of the API server")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let through = format!("https://{}", listener.local_addr()?);
        let path = directory.join(format!("blackhole-{}.kubeconfig", listener.local_addr()?.port()));
        fs::write(&path, fs::read_to_string(kubeconfig)?.replace(url, &through))?;

        let cut = CancellationToken::new();
        let mut forwarding = JoinSet::new();
        forwarding.spawn(forward(listener, address, cut.clone()));
        Ok(Self { cut, _forwarding: forwarding, kubeconfig: path })
    }

    pub(super) fn cut(&self) {
        self.cut.cancel();
    }
}

async fn forward(listener: TcpListener, address: SocketAddr, cut: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let cut = cut.clone();
        connections.spawn(async move {
            let exchange = async {
                let mut server = TcpStream::connect(address).await.ok()?;
                copy_bidirectional(&mut client, &mut server).await.ok()
            };
            if cut.run_until_cancelled(exchange).await.is_none() {
                std::future::pending::<()>().await;
            }
        });
    }
}
