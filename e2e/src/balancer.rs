//! What a Service is to its clients: connections go to replicas that are ready.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// How long it takes until a replica's readiness shows: the probe's period and the way of the endpoints in a real cluster.
const PROPAGATION: Duration = Duration::from_millis(300);

/// A loopback port in place of a Service, as kube-proxy makes it: each new connection goes to the next ready replica, and one
/// that is open stays where it is.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<Endpoint>>>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Endpoint {
    address: SocketAddr,
    readiness: String,
    ready: bool,
}

impl Balancer {
    /// One without replicas.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let replicas = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, replicas.clone()));
        tasks.spawn(probe(replicas.clone()));
        Ok(Self { address, replicas, _tasks: tasks })
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a replica that answers at an address, and whose readiness is at a URL. It gets nothing before it is ready.
    pub fn add(&self, address: SocketAddr, readiness: String) {
        let endpoint = Endpoint { address, readiness, ready: false };
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner).push(endpoint);
    }

    /// How many replicas get connections.
    #[must_use]
    pub fn ready(&self) -> usize {
        let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.iter().filter(|replica| replica.ready).count()
    }
}

async fn accept(listener: TcpListener, replicas: Arc<Mutex<Vec<Endpoint>>>) {
    let next = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let ready: Vec<SocketAddr> = {
            let replicas = replicas.lock().unwrap_or_else(PoisonError::into_inner);
            replicas.iter().filter(|replica| replica.ready).map(|replica| replica.address).collect()
        };
        if ready.is_empty() {
            continue;
        }
        let replica = ready[next.fetch_add(1, Ordering::Relaxed) % ready.len()];
        connections.spawn(async move {
            if let Ok(mut replica) = TcpStream::connect(replica).await {
                // The end of either side is the end of the connection.
                let _ = copy_bidirectional(&mut client, &mut replica).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn probe(replicas: Arc<Mutex<Vec<Endpoint>>>) {
    let http = reqwest::Client::new();
    loop {
        let probes: Vec<String> = {
            let replicas = replicas.lock().unwrap_or_else(PoisonError::into_inner);
            replicas.iter().map(|replica| replica.readiness.clone()).collect()
        };
        for url in probes {
            let ready = http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
            let mut replicas = replicas.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(replica) = replicas.iter_mut().find(|replica| replica.readiness == url) {
                replica.ready = ready;
            }
        }
        tokio::time::sleep(PROPAGATION).await;
    }
}
