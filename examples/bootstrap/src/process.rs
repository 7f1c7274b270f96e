//! A running process: its configuration, its endpoints, and what runs beside its work.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use futures::TryFutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    admin::{self, Addresses, AdminServer},
    config::{Component, Config},
    health::{self, Health},
    kubernetes,
    ledger::Owner,
    metrics::Registry,
};
use vdbi_lifecycle::election::{BoottimeClock, Elections, Identity, LeaseElection, LeaseRef, Settings};

/// How often an API server that cannot be asked is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What came of asking, once somebody has asked.
type Reached = Option<Result<(), String>>;

/// What a component assembles itself from.
#[derive(Debug)]
pub struct Process {
    /// Which component this is.
    pub component: Component,
    /// Its configuration.
    pub config: Config,
    /// Where its metrics go.
    pub registry: Registry,
    /// Its health checks.
    pub health: Health,
    /// Cancelled when the process has to end.
    pub shutdown: CancellationToken,
    admin: AdminServer,
    kubernetes: Arc<Mutex<Reached>>,
    tasks: JoinSet<()>,
}

impl Process {
    pub(crate) fn start(component: Component, config: Config) -> anyhow::Result<Self> {
        let health = Health::new();
        let (registry, page) = admin::prometheus()?;
        let addresses = Addresses { admin: config.admin_address, metrics: config.metrics_address };
        let admin = AdminServer::bind(addresses, health.clone(), page)?;
        tracing::info!(
            component = component.name(), version = env!("CARGO_PKG_VERSION"),
            admin = %admin.admin_addr(), metrics = %admin.metrics_addr(),
            "vdbi-{} {} started", component.name(), env!("CARGO_PKG_VERSION")
        );
        let shutdown = CancellationToken::new();
        let heartbeat = health.heartbeat();
        let mut process = Self {
            component,
            config,
            registry,
            health,
            shutdown,
            admin,
            kubernetes: Arc::default(),
            tasks: JoinSet::new(),
        };
        process.spawn(heartbeat);
        Ok(process)
    }

    /// Runs something beside the work. Its end, also by a panic, is the end of the process.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.shutdown.clone().drop_guard();
        self.tasks.spawn(async move {
            let _end = end;
            task.await;
        });
    }

    /// A client of the API server, from `KUBECONFIG` or the pod's service account. What came of [`owner`](Self::owner) is
    /// the health detail `kubernetes`, until an election replaces it.
    ///
    /// # Errors
    ///
    /// When there is neither.
    pub async fn kubernetes(&self) -> anyhow::Result<kube::Client> {
        let reached = self.kubernetes.clone();
        self.health.describe("kubernetes", move || health::detail(lock(&reached).as_ref()));
        Ok(kube::Client::try_from(kubernetes_config().await?)?)
    }

    /// A client of its own that never repeats a request by itself: for whoever counts refusals, or time from sending.
    ///
    /// # Errors
    ///
    /// As [`kubernetes`](Self::kubernetes).
    pub async fn kubernetes_without_retries(&self) -> anyhow::Result<kube::Client> {
        let mut config = kubernetes_config().await?;
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }

    /// Who signs ledger entries: the configured cluster, or the one that the API server tells. While it cannot be asked this
    /// waits, and says why; `None` when the process has to end meanwhile.
    pub async fn owner(&self, client: &kube::Client) -> Option<Owner> {
        let release = self.config.release.clone();
        if !self.config.cluster_id.is_empty() {
            return Some(Owner { cluster: self.config.cluster_id.clone(), release });
        }
        let mut retry = tokio::time::interval(RETRY);
        loop {
            self.shutdown.run_until_cancelled(retry.tick()).await?;
            let asked = kubernetes::cluster_id(client.clone()).map_err(anyhow::Error::from);
            let reached = self.shutdown.run_until_cancelled(asked).await?;
            let told = reached.as_ref().map(drop).map_err(|error| format!("{error:#}"));
            let before = lock(&self.kubernetes).replace(told.clone());
            match reached {
                Ok(cluster) => return Some(Owner { cluster, release }),
                Err(error) if before != Some(told) => tracing::warn!(
                    "cannot read the uid of namespace kube-system, which identifies the cluster, and will try again: {error:#}. \
                     Check that the API server can be reached and that the verb get on that namespace is granted, or set \
                     clusterId"
                ),
                Err(_) => {}
            }
        }
    }

    /// The election of this component's only leader, with a client of its own.
    ///
    /// # Errors
    ///
    /// When its settings contradict each other.
    pub async fn election(&mut self) -> anyhow::Result<LeaseElection> {
        let (client, settings, clock) = self.candidacy().await?;
        let election =
            LeaseElection::new(client, settings, clock, &self.registry)?.on_overrun(|| std::process::abort());
        election.report(&self.health);
        Ok(election)
    }

    /// The elections of this component's leaders, one for each of the configured shards, with a client of their own.
    ///
    /// # Errors
    ///
    /// When their settings contradict each other.
    pub async fn elections(&mut self) -> anyhow::Result<Elections> {
        let (client, settings, clock) = self.candidacy().await?;
        let elections = Elections::new(client, settings, self.config.shards, clock, &self.registry)?
            .on_overrun(|| std::process::abort());
        elections.report(&self.health);
        Ok(elections)
    }

    async fn candidacy(&self) -> anyhow::Result<(kube::Client, Settings, Arc<BoottimeClock>)> {
        if std::env::var_os("POD_NAME").is_none() || std::env::var_os("POD_UID").is_none() {
            tracing::warn!(
                "POD_NAME or POD_UID is not set: after a restart of its container this replica cannot tell that the lease is its \
                 own, and waits for it to expire. Set both by the downward API"
            );
        }
        // A request that is repeated behind its back would outlive the deadlines that the election counts from sending it.
        let client = self.kubernetes_without_retries().await?;
        Ok((client, election_settings(self.component, &self.config), Arc::new(BoottimeClock)))
    }

    /// Ends what runs beside the work.
    pub(crate) async fn finish(&mut self) {
        self.shutdown.cancel();
        self.tasks.shutdown().await;
        self.admin.stop();
    }
}

/// How a component's replicas elect their leader.
pub(crate) fn election_settings(component: Component, config: &Config) -> Settings {
    let configured = &config.leader_election;
    let lease_name = match configured.lease_name.as_str() {
        "" => format!("{}-{}", config.release, component.name()),
        name => name.to_owned(),
    };
    let lease = LeaseRef { namespace: configured.lease_namespace.clone(), name: lease_name };
    let mut settings = Settings::new(lease, Identity::from_env());
    component.name().clone_into(&mut settings.mode);
    settings.lease_duration = configured.lease_duration;
    settings.hard_deadline = configured.hard_deadline;
    settings.abort_after = configured.abort_after;
    settings.renew_interval = configured.renew_interval;
    settings.retry = configured.retry;
    settings.request_timeout = configured.request_timeout;
    settings.drain_timeout = configured.drain_timeout;
    settings
}

async fn kubernetes_config() -> anyhow::Result<kube::Config> {
    kube::Config::infer().await.context(
        "no access to a Kubernetes API server: run in a pod with a service account, or set KUBECONFIG",
    )
}

fn lock(reached: &Mutex<Reached>) -> MutexGuard<'_, Reached> {
    reached.lock().unwrap_or_else(PoisonError::into_inner)
}
