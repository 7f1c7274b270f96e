//! What a process tells about itself over HTTP: its health on one port, its metrics on another.
//!
//! Both ports have a thread and a runtime of their own, so that a component that is stuck can still be asked. No answer waits
//! for anything: checks are cached, metrics are counted in memory.
//!
//! | port | path | answer |
//! |---|---|---|
//! | admin | `/livez`, `/healthz`, `/live` | 200 while the process works, otherwise 503 |
//! | admin | `/readyz` | 200 while it is of use, otherwise 503 |
//! | admin | `/livez/NAME`, `/readyz/NAME` | one check; 404 when there is none of this name |
//! | metrics | any | Prometheus text, version 0.0.4 |
//!
//! Health is JSON, with what [`Health::describe`] added; with `?verbose` the text that the API server's own endpoints write, which withholds the reasons.
//! `?exclude=NAME`, which may be repeated, leaves a check out.
//!
//! ```
//! use vdbi_core::{admin::{self, Addresses, AdminServer}, health::Health};
//!
//! let (registry, page) = admin::prometheus()?;
//! let any = ([127, 0, 0, 1], 0).into();
//! let server = AdminServer::bind(Addresses { admin: any, metrics: any }, Health::new(), page)?;
//! assert_ne!(server.admin_addr(), server.metrics_addr());
//! server.stop();
//! # drop(registry);
//! # Ok::<(), admin::AdminError>(())
//! ```

mod answer;
mod page;
mod routes;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::Router;
use metrics_exporter_prometheus::BuildError;
use thiserror::Error;
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::health::Health;

pub use page::{PrometheusPage, prometheus};

/// How often recorded durations are folded into their buckets when nobody scrapes; they take up memory until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long answers that are under way may still take after the end.
const DRAIN: Duration = Duration::from_millis(250);

/// Serves health and metrics until [`stop`](Self::stop), or until it is dropped.
pub struct AdminServer {
    admin: SocketAddr,
    metrics: SocketAddr,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where to serve what. Port 0 takes any free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Health, for the kubelet and for people: `adminAddress`.
    pub admin: SocketAddr,
    /// Metrics, for Prometheus: `metricsAddress`.
    pub metrics: SocketAddr,
}

/// Why the endpoints cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Somebody else has the port, or the address is not ours.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// The configuration key of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no thread or no runtime to serve on.
    #[error("cannot start the thread of the health and metrics endpoints")]
    Start(#[source] io::Error),
    /// The histograms' buckets were refused.
    #[error("cannot set up the metrics")]
    Metrics(#[source] BuildError),
}

impl AdminServer {
    /// Binds both ports, now, and serves them on a thread of its own.
    ///
    /// # Errors
    ///
    /// [`AdminError::Bind`] names the address and its configuration key.
    pub fn bind(addresses: Addresses, health: Health, page: PrometheusPage) -> Result<Self, AdminError> {
        let Addresses { admin, metrics } = addresses;
        let (admin_listener, admin) = listen("adminAddress", admin)?;
        let (metrics_listener, metrics) = listen("metricsAddress", metrics)?;
        let stop = CancellationToken::new();
        let (started, outcome) = mpsc::channel();
        let thread = {
            let stop = stop.clone();
            let servers =
                [(admin_listener, routes::health(health)), (metrics_listener, routes::metrics(page.clone()))];
            let run = move || match start(servers) {
                Ok((runtime, servers)) => {
                    // The receiver waits for this.
                    let _ = started.send(Ok(()));
                    serve(&runtime, servers, &page, &stop);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            };
            thread::Builder::new().name("vdbi-admin".to_owned()).spawn(run).map_err(AdminError::Start)?
        };
        let outcome = outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")));
        outcome.map_err(AdminError::Start)?;
        Ok(Self { admin, metrics, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Where health is served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Where metrics are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics
    }

    /// Closes both ports and returns when they are closed, which takes a quarter of a second at most. Doing it twice does no
    /// harm.
    pub fn stop(&self) {
        self.stop.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the health and metrics endpoints had panicked");
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminServer")
            .field("admin", &self.admin)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

type Servers = Vec<(tokio::net::TcpListener, Router)>;

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AdminError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| AdminError::Bind { key, address, source })
}

/// On the server's own thread, since a runtime must not be dropped on one that drives another.
fn start(servers: [(TcpListener, Router); 2]) -> io::Result<(Runtime, Servers)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let servers = {
        let _entered = runtime.enter();
        let register = |(listener, router)| Ok((tokio::net::TcpListener::from_std(listener)?, router));
        servers.into_iter().map(register).collect::<io::Result<_>>()?
    };
    Ok((runtime, servers))
}

fn serve(runtime: &Runtime, servers: Servers, page: &PrometheusPage, stop: &CancellationToken) {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (listener, router) in servers {
            let stopped = stop.clone().cancelled_owned();
            tasks.spawn(axum::serve(listener, router).with_graceful_shutdown(stopped).into_future());
        }
        let mut upkeep = tokio::time::interval(UPKEEP);
        while stop.run_until_cancelled(upkeep.tick()).await.is_some() {
            page.upkeep();
        }
        // Whoever holds a connection open without a word is cut off.
        let _ = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    });
}

#[cfg(test)]
mod tests;
