//! vdbi itself: the webhook, and the replicas of renewer and revoker.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use e2e::{Authority, Component, system::LABEL};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    admin::{self, PrometheusPage},
    kubernetes::cluster_id,
    leadership::{Leadership, Status, Term, WorkError},
    ledger::Owner,
    metrics::Registry,
};
use vdbi_lifecycle::{
    election::{BoottimeClock, Identity, LeaseElection, LeaseRef, Settings},
    pods::Pods,
    renewer::{self, Renewer},
    revoker::{self, Revoker},
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    policy::Plaintext,
    server::{AdmissionServer, Shutdown},
    tls::{Material, Tls},
};

use crate::stage::{SYSTEM_NAMESPACE, Stage};

/// The time to live of a credential that nobody renews.
pub(crate) const TTL: Duration = Duration::from_secs(4);

/// How long a lease outlives a leader that died.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// One replica of renewer or revoker.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) page: PrometheusPage,
    pub(crate) status: tokio::sync::watch::Receiver<Status>,
    task: AbortHandle,
}

impl Replica {
    pub(crate) fn leads(&self) -> bool {
        self.status.borrow().leading
    }

    /// Ends it as a crash does: at once, without handing over.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

/// Everything that runs; it ends when it is dropped.
pub(crate) struct Release {
    pub(crate) webhook: SocketAddr,
    pub(crate) webhook_page: PrometheusPage,
    pub(crate) renewers: Vec<Replica>,
    pub(crate) revokers: Vec<Replica>,
    tasks: JoinSet<Result<()>>,
    shutdown: CancellationToken,
}

impl Release {
    pub(crate) async fn start<S: Stage>(stage: &S) -> Result<Self> {
        let owner = Owner { cluster: cluster_id(stage.client()).await?, release: "quickstart".into() };
        let mut tasks = JoinSet::new();
        let shutdown = CancellationToken::new();

        let authority = Authority::new("quickstart")?;
        let identity = authority.server(&["127.0.0.1"])?;
        let (registry, webhook_page) = admin::prometheus()?;
        let material = Material { certificate: identity.certificate.into(), key: identity.key.into() };
        let tls = Tls::new(&material, None, &registry)?;
        let server = AdmissionServer::bind(([127, 0, 0, 1], 0).into(), tls)?;
        let webhook = server.local_addr();
        let (source, ledger) = (stage.source(Component::Injector), stage.ledger(Component::Injector));
        let policy = Plaintext::new("databases");
        let admission = Admission::new(source, ledger, policy, owner.clone(), Limits::default(), &registry);
        let stop = shutdown.clone().cancelled_owned();
        let mut end = Shutdown::default();
        (end.delay, end.grace) = (Duration::ZERO, Duration::from_secs(5));
        tasks.spawn(async move { Ok(server.serve(admission, end, stop).await?) });
        stage.install_webhook(webhook, &authority.pem()).await?;

        let mut release =
            Self { webhook, webhook_page, renewers: Vec::new(), revokers: Vec::new(), tasks, shutdown };
        for index in 0..2 {
            release.add_renewer(stage, &owner, index)?;
            release.add_revoker(stage, &owner, index)?;
        }
        Ok(release)
    }

    fn add_renewer<S: Stage>(&mut self, stage: &S, owner: &Owner, index: usize) -> Result<()> {
        let mut settings = renewer::Settings::new(owner.clone());
        settings.scan_interval = Duration::from_millis(500);
        let (registry, page) = admin::prometheus()?;
        let (source, ledger) = (stage.source(Component::Renewer), stage.ledger(Component::Renewer));
        let renewer = Renewer::new(source, ledger, settings, &registry);
        let name = format!("renewer-{index}");
        let election = election(stage, "vdbi-renewer", &name, &registry)?;
        let replica = self.elect(name, page, election, move |term| renewer.clone().run(term));
        self.renewers.push(replica);
        Ok(())
    }

    fn add_revoker<S: Stage>(&mut self, stage: &S, owner: &Owner, index: usize) -> Result<()> {
        let mut settings = revoker::Settings::new(owner.clone());
        settings.interval = Duration::from_secs(5);
        let (registry, page) = admin::prometheus()?;
        let (source, ledger) = (stage.source(Component::Revoker), stage.ledger(Component::Revoker));
        let pods = Pods::new(stage.client(), LABEL);
        let revoker = Revoker::new(source, ledger, pods, settings, &registry);
        let name = format!("revoker-{index}");
        let election = election(stage, "vdbi-revoker", &name, &registry)?;
        let replica = self.elect(name, page, election, move |term| revoker.clone().run(term));
        self.revokers.push(replica);
        Ok(())
    }

    /// Starts a replica that does its work whenever it leads.
    fn elect<W, F>(&mut self, name: String, page: PrometheusPage, election: LeaseElection, work: W) -> Replica
    where
        W: FnMut(Term) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let status = election.status();
        let shutdown = self.shutdown.clone();
        let task = self.tasks.spawn(async move { Ok(election.run(work, shutdown).await?) });
        Replica { name, page, status, task }
    }

    /// Each part's metrics page.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (&str, &PrometheusPage)> {
        let replicas = self.renewers.iter().chain(&self.revokers);
        let replicas = replicas.map(|replica| (replica.name.as_str(), &replica.page));
        [("injector", &self.webhook_page)].into_iter().chain(replicas)
    }

    /// Lets everything finish, as SIGTERM does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(outcome) => outcome.context("a component failed")?,
                Err(error) if error.is_cancelled() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn election<S: Stage>(stage: &S, lease: &str, name: &str, registry: &Registry) -> Result<LeaseElection> {
    let identity = Identity::new(name).with_uid(name);
    let settings =
        Settings::new(LeaseRef { namespace: SYSTEM_NAMESPACE.into(), name: lease.into() }, identity)
            .scaled_to(LEASE);
    Ok(LeaseElection::new(stage.client(), settings, Arc::new(BoottimeClock), registry)?)
}
