//! Candidates, and that no two of them lead.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Kubernetes, kubernetes::client};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    leadership::{Leadership, Term},
    metrics::Registry,
};
use vdbi_lifecycle::election::{BoottimeClock, Identity, LeaseElection, LeaseRef, Settings};

pub(crate) const NAMESPACE: &str = "default";

/// Of every lease here.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(3);

/// One election over one API server.
pub(crate) struct Election {
    name: String,
    admin: kube::Client,
    terms: Arc<Mutex<Vec<Term>>>,
    runs: JoinSet<()>,
}

pub(crate) struct Candidate {
    pub(crate) pod: String,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) async fn kubernetes() -> Result<Cluster> {
    Cluster::builder().kubernetes().start().await
}

impl Election {
    pub(crate) fn new(kubernetes: &Kubernetes, name: &str) -> Self {
        Self { name: name.into(), admin: kubernetes.admin(), terms: Arc::default(), runs: JoinSet::new() }
    }

    /// A candidate whose work lasts as long as its term.
    pub(crate) async fn candidate(&mut self, kubernetes: &Kubernetes, pod: &str) -> Result<Candidate> {
        let client = client(kubernetes.admin_kubeconfig()).await?;
        self.candidate_with(client, pod)
    }

    pub(crate) fn candidate_with(&mut self, client: kube::Client, pod: &str) -> Result<Candidate> {
        let settings = Settings::new(
            LeaseRef { namespace: NAMESPACE.into(), name: self.name.clone() },
            Identity::new(pod).with_uid(pod),
        )
        .scaled_to(LEASE_DURATION);
        let election = LeaseElection::new(client, settings, Arc::new(BoottimeClock), &Registry::disabled())?;
        let (terms, shutdown) = (self.terms.clone(), CancellationToken::new());
        let work = move |term: Term| {
            terms.lock().unwrap().push(term.clone());
            async move {
                term.over().await;
                Ok(())
            }
        };
        let stop = shutdown.clone();
        self.runs.spawn(async move { election.run(work, stop).await.unwrap() });
        Ok(Candidate { pod: pod.into(), shutdown })
    }

    /// How many terms were won so far.
    pub(crate) fn terms(&self) -> usize {
        self.terms.lock().unwrap().len()
    }

    /// Who leads.
    ///
    /// # Panics
    ///
    /// When two do, or a later term has not a greater fence.
    pub(crate) fn leader(&self) -> Option<Term> {
        let terms = self.terms.lock().unwrap();
        let fences: Vec<u64> = terms.iter().map(|term| term.fence().parse().unwrap()).collect();
        assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
        let mut leading: Vec<&Term> = terms.iter().filter(|term| term.check().is_ok()).collect();
        assert!(leading.len() < 2, "two lead at once: {leading:?}");
        leading.pop().cloned()
    }

    /// Looks at the leader again and again until it is as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(Option<&Term>) -> bool,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            if wanted(self.leader().as_ref()) {
                return Ok(start.elapsed());
            }
            ensure!(
                start.elapsed() < within,
                "not within {within:?}: {what}; the leader is {:?}",
                self.leader()
            );
            sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn somebody_leads(&self, within: Duration) -> Result<Term> {
        self.until("somebody leads", within, |leader| leader.is_some()).await?;
        self.leader().context("it led a moment ago")
    }

    /// For so long nothing changes.
    pub(crate) async fn stays(&self, term: &Term, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            let leader = self.leader().map(|leader| leader.fence().to_owned());
            ensure!(leader.as_deref() == Some(term.fence()), "after {:?} {leader:?} leads", start.elapsed());
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }

    pub(crate) async fn lease(&self) -> Result<LeaseSpec> {
        self.leases().get(&self.name).await?.spec.context("a lease has a spec")
    }

    /// Writes the Lease as another candidate would: compared and swapped, or created.
    pub(crate) async fn write(&self, spec: Value) -> Result<()> {
        let mut lease: Lease =
            serde_json::from_value(json!({ "metadata": { "name": self.name }, "spec": spec }))?;
        match self.leases().get_opt(&self.name).await? {
            None => self.leases().create(&PostParams::default(), &lease).await?,
            Some(before) => {
                lease.metadata = before.metadata;
                self.leases().replace(&self.name, &PostParams::default(), &lease).await?
            }
        };
        Ok(())
    }

    pub(crate) async fn delete(&self) -> Result<()> {
        self.leases().delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}
