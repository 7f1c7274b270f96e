//! One connection, from its registration to its end.

use std::{pin::Pin, sync::Arc, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    ContainerInjector, Runtime, Settings,
    metrics::Metrics,
    service::{PluginService, Progress},
};
use crate::{
    proto::nri::RegisterPluginRequest,
    wire::{
        link::{Link, Role},
        ttrpc::{Client, Failure},
    },
};

/// The runtime's service in the protocol.
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// The version of NRI whose messages these are. It goes without saying before NRI 0.12.
const NRI_VERSION: &str = "v0.12.3";

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As asked.
    Shutdown,
    /// With the reason.
    Lost(String),
    /// The runtime did not get to the plugin in this time, or has forgotten it.
    Unheard(Duration),
}

/// A plugin on a connection.
pub(super) struct Session<I, IO> {
    service: Arc<PluginService<I>>,
    progress: mpsc::UnboundedReceiver<Progress>,
    link: Link<IO, PluginService<I>>,
    /// By how much more than its timeouts the runtime is given.
    leniency: u32,
}

impl<I, IO> Session<I, IO>
where
    I: ContainerInjector,
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    pub(super) fn new(
        io: IO,
        injector: Arc<I>,
        metrics: Metrics,
        settings: &Settings,
        leniency: u32,
    ) -> Self {
        let (sender, progress) = mpsc::unbounded_channel();
        let service = Arc::new(PluginService::new(injector, metrics, sender));
        let link = Link::new(io, Role::Plugin, service.clone(), settings.request_timeout);
        Self { service, progress, link, leniency }
    }

    /// Registers the plugin and serves until the end, which may be that of `shutdown`. `synchronized` is called once, when the plugin
    /// is in the runtime's list.
    pub(super) async fn run<F: Future<Output = ()>>(
        mut self,
        settings: &Settings,
        mut shutdown: Pin<&mut F>,
        mut synchronized: impl FnMut(&Runtime),
    ) -> End {
        let mut register = Box::pin(register(self.link.client(), settings.clone(), self.patience(settings)));
        let mut is_registered = false;
        let mut is_synchronized = false;
        let mut patience = self.patience(settings);
        let mut give_up = Instant::now() + patience;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(progress) = self.progress.recv() => match progress {
                    Progress::Failed(reason) => return End::Lost(reason),
                    Progress::Advanced => {
                        patience = self.patience(settings);
                        give_up = Instant::now() + patience;
                    }
                    Progress::Synchronized if is_synchronized => {}
                    Progress::Synchronized => {
                        is_synchronized = true;
                        synchronized(&self.service.runtime());
                    }
                },
                answer = &mut register, if !is_registered => match answer {
                    Ok(()) => is_registered = true,
                    // containerd keeps the connection.
                    Err(failure) => {
                        return End::Lost(format!("the plugin was not registered: {}", failure.message));
                    }
                },
                turned = self.link.turn() => if let Err(error) = turned {
                    return End::Lost(error.to_string());
                },
                () = sleep_until(give_up), if !is_synchronized => return End::Unheard(patience),
            }
        }
        if let Err(error) = self.link.finish().await {
            tracing::warn!(%error, "the connection to the container runtime ended before its last answers");
        }
        End::Shutdown
    }

    /// How long the next step of the registration may take.
    fn patience(&self, settings: &Settings) -> Duration {
        let (registration, request) =
            self.service.timeouts().unwrap_or((settings.registration_timeout, settings.request_timeout));
        (registration + request) * self.leniency
    }
}

async fn register(client: Client, settings: Settings, patience: Duration) -> Result<(), Failure> {
    let request = RegisterPluginRequest {
        plugin_name: settings.name().to_owned(),
        plugin_idx: settings.index().to_owned(),
        nri_version: NRI_VERSION.to_owned(),
    };
    let payload = request.encode_to_vec();
    client.call(RUNTIME_SERVICE, "RegisterPlugin", payload, patience).await.map(|_| ())
}
