//! An NRI plugin's connection to containerd, for as long as the plugin runs.
//!
//! Implement [`ContainerInjector`], give it to a [`Stub`], run that until the process ends. `examples/hello.rs` is a whole plugin.
//!
//! # What happens
//!
//! 1. The stub connects to containerd's NRI socket and registers the plugin's name and index. containerd says what it is
//!    ([`Runtime`]) and then which pods and containers there are ([`ContainerInjector::synchronize`]). Only now is the plugin in
//!    its list: [`Status::Synchronized`].
//! 2. Before it creates a container, containerd asks the plugin ([`ContainerInjector::create`]), and creates it as adjusted, or
//!    not at all. It asks one plugin after the other, and about one container at a time for the whole node: **be quick**.
//! 3. Whenever the connection ends, whatever the reason, the stub makes a new one, after 0.1 s at first and 2 s at most, and never
//!    gives up. So it does when containerd keeps the connection and has dropped the plugin, as 1.7 may.
//!
//! # Guarantees
//!
//! - While the plugin is synchronized, a container is created only as the injector says. A refusal, a panic, an adjustment
//!   that cannot be sent and an injector that takes too long are errors, with which containerd does not create the container.
//! - The answer is sent before containerd stops waiting: the stub gives up at 85 % of its time. (A plugin that answers later is
//!   dropped, and the container is created without it.)
//! - When the stub is told to end, it first finishes the requests under way.
//!
//! # What it cannot guarantee
//!
//! containerd creates containers without a plugin that is not connected, or that dies while it is asked. From containerd 2.2
//! on the stub also subscribes to the validation of adjustments, with which the latter fails; against the former there are
//! containerd's required plugins.

mod adjustment;
mod backoff;
mod container;
pub(crate) mod convert;
mod injector;
pub mod metrics;
mod rpc;
mod runtime;
pub(crate) mod service;
pub(crate) mod session;
mod settings;
mod status;

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::watch,
    time::sleep,
};
use vdbi_core::metrics::Registry;

pub use adjustment::Adjustment;
pub use container::{Container, ContainerState, Mount, Pod};
pub use injector::{ContainerInjector, Creation, Refused};
pub use runtime::Runtime;
pub use settings::{InvalidSettings, Settings};
pub use status::{Status, why_not_connected};

use backoff::Backoff;
use metrics::Metrics;
use session::{End, Session};

/// How often the time that a registration may take is doubled.
const LENIENCIES: u32 = 4;

/// A plugin and its connection to containerd.
#[derive(Debug)]
pub struct Stub<I> {
    settings: Settings,
    injector: Arc<I>,
    metrics: Metrics,
    status: watch::Sender<Status>,
}

impl<I: ContainerInjector> Stub<I> {
    /// A plugin that is not connected yet.
    pub fn new(settings: Settings, injector: I, registry: &Registry) -> Self {
        Self {
            settings,
            injector: Arc::new(injector),
            metrics: Metrics::new(registry),
            status: watch::Sender::new(Status::starting()),
        }
    }

    /// How the connection is, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Serves containerd until `shutdown`. Then it refuses new requests, finishes those under way, which takes no longer than
    /// containerd would wait for them, closes the connection and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let socket = self.settings.socket.clone();
        self.run_over(|| UnixStream::connect(socket.clone()), shutdown).await;
    }

    /// Over whatever connects it.
    pub(crate) async fn run_over<C, IO>(
        self,
        mut connect: impl FnMut() -> C,
        shutdown: impl Future<Output = ()>,
    ) where
        C: Future<Output = io::Result<IO>>,
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut shutdown = pin!(shutdown);
        let mut backoff = Backoff::new();
        let mut unheard = 0;
        let mut is_first = true;
        let mut logged = None;
        loop {
            if !is_first {
                self.metrics.attempted.increment(1);
            }
            let mut is_synchronized = false;
            let synchronized = |runtime: &Runtime| {
                is_synchronized = true;
                self.synchronized(runtime, is_first);
            };
            let end = self.attempt(connect(), 1 << unheard, shutdown.as_mut(), synchronized).await;
            self.metrics.connected.set(0);
            if is_synchronized {
                backoff.reset();
                (unheard, logged) = (0, None);
            } else if !is_first && end != End::Shutdown {
                self.metrics.failed.increment(1);
            }
            let reason = match end {
                End::Shutdown => break,
                End::Lost(reason) => reason,
                End::Unheard(patience) => {
                    // It may be busy: whoever comes back too soon queues up behind all others again.
                    unheard = LENIENCIES.min(unheard + 1);
                    format!("containerd did not synchronize the plugin within {patience:?}")
                }
            };
            self.disconnected(reason, &mut logged);
            is_first = false;
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = sleep(backoff.wait()) => {}
            }
        }
        self.status.send_replace(Status::Disconnected { reason: "the plugin is shutting down".to_owned() });
    }

    /// One connection, from its making to its end.
    async fn attempt<IO, F: Future<Output = ()>>(
        &self,
        connect: impl Future<Output = io::Result<IO>>,
        leniency: u32,
        mut shutdown: Pin<&mut F>,
        synchronized: impl FnMut(&Runtime),
    ) -> End
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { settings, injector, metrics, status } = self;
        let connected = tokio::select! {
            biased;
            () = &mut shutdown => return End::Shutdown,
            connected = connect => connected,
        };
        match connected {
            Err(error) => End::Lost(why_not_connected(&error, &settings.socket)),
            Ok(io) => {
                status.send_replace(Status::Connected);
                let session = Session::new(io, injector.clone(), metrics.clone(), settings, leniency);
                session.run(settings, shutdown, synchronized).await
            }
        }
    }

    fn synchronized(&self, runtime: &Runtime, is_first: bool) {
        let Runtime { name, version } = runtime;
        tracing::info!(
            runtime = name,
            version,
            "the container runtime asks the plugin about every container"
        );
        if !is_first {
            self.metrics.succeeded.increment(1);
        }
        self.metrics.connected.set(1);
        self.status.send_replace(Status::Synchronized { runtime: runtime.clone() });
    }

    /// The same reason is logged once.
    fn disconnected(&self, reason: String, logged: &mut Option<String>) {
        if logged.as_ref() != Some(&reason) {
            tracing::warn!("the container runtime creates containers without the plugin: {reason}");
            *logged = Some(reason.clone());
        }
        self.status.send_replace(Status::Disconnected { reason });
    }
}

#[cfg(test)]
mod tests;
