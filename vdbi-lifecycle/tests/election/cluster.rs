//! Replicas over one API, with paused time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    admin::{self, PrometheusPage},
    health::{Health, Probe, State},
    leadership::{Leadership, LeadershipError, Status, Term, WorkError},
    memory::kubernetes::{Call, Connection, KubernetesApi, Verb},
    testing::SuspendableClock,
};
use vdbi_lifecycle::election::{Identity, LeaseElection, LeaseRef, Settings};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Cluster {
    pub(crate) api: KubernetesApi,
    pub(crate) runs: JoinSet<Result<(), LeadershipError>>,
}

/// One replica: its work tells each term, and returns when the term is over.
pub(crate) struct Replica {
    pub(crate) link: Connection,
    pub(crate) clock: Arc<SuspendableClock>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) terms: UnboundedReceiver<Term>,
    pub(crate) run: AbortHandle,
    pub(crate) health: Health,
    pub(crate) page: PrometheusPage,
}

/// What a replica is made of before it runs.
pub(crate) struct Candidate {
    pub(crate) election: LeaseElection,
    pub(crate) link: Connection,
    pub(crate) clock: Arc<SuspendableClock>,
    pub(crate) health: Health,
    pub(crate) page: PrometheusPage,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { api: KubernetesApi::new(), runs: JoinSet::new() }
    }

    pub(crate) fn candidate(&self, pod: &str) -> Candidate {
        let link = self.api.connect(pod);
        let clock = Arc::new(SuspendableClock::new());
        let (registry, page) = admin::prometheus().unwrap();
        let settings = Settings::new(
            LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
            Identity::new(pod).with_uid(pod),
        );
        let election = LeaseElection::new(link.client(), settings, clock.clone(), &registry).unwrap();
        let health = Health::with_clock(clock.clone());
        election.report(&health);
        Candidate { election, link, clock, health, page }
    }

    pub(crate) fn replica(&mut self, pod: &str) -> Replica {
        let candidate = self.candidate(pod);
        self.run(candidate, |term, terms| async move {
            terms.send(term.clone())?;
            term.over().await;
            Ok(())
        })
    }

    pub(crate) fn run<W, F>(&mut self, candidate: Candidate, work: W) -> Replica
    where
        W: Fn(Term, UnboundedSender<Term>) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let Candidate { election, link, clock, health, page } = candidate;
        let (sender, terms) = unbounded_channel();
        let (status, shutdown) = (election.status(), CancellationToken::new());
        let run = self.runs.spawn(election.run(move |term| work(term, sender.clone()), shutdown.clone()));
        Replica { link, clock, shutdown, status, terms, run, health, page }
    }

    /// A leader and a follower that has seen it lead.
    pub(crate) async fn pair(&mut self) -> (Replica, Term, Replica) {
        let mut a = self.replica("a");
        let term = a.leads().await;
        let mut b = self.replica("b");
        b.stands_by().await;
        tokio::time::sleep(20 * SECOND).await;
        (a, term, b)
    }

    /// The first run that ends.
    pub(crate) async fn ended(&mut self) -> Result<(), LeadershipError> {
        timeout(60 * SECOND, self.runs.join_next()).await.expect("a run ends").unwrap().unwrap()
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.api.client(), "vdbi")
    }

    pub(crate) async fn lease(&self) -> LeaseSpec {
        self.leases().get("renewer").await.unwrap().spec.unwrap()
    }

    pub(crate) async fn holder(&self) -> String {
        self.lease().await.holder_identity.unwrap_or_default()
    }

    pub(crate) async fn delete(&self) {
        self.leases().delete("renewer", &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn create(&self, spec: Value) {
        let lease = json!({"metadata": {"name": "renewer"}, "spec": spec});
        self.leases().create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    }

    /// Writes the Lease as another candidate would: compared and swapped.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut LeaseSpec)) {
        let mut lease = self.leases().get("renewer").await.unwrap();
        change(lease.spec.get_or_insert_default());
        self.leases().replace("renewer", &PostParams::default(), &lease).await.unwrap();
    }
}

impl Replica {
    pub(crate) async fn leads(&mut self) -> Term {
        timeout(60 * SECOND, self.terms.recv()).await.expect("it leads within a minute").expect("it runs")
    }

    pub(crate) async fn stands_by(&mut self) {
        let behind = |status: &Status| status.initialized && !status.leading && !status.holder.is_empty();
        timeout(60 * SECOND, self.status.wait_for(behind)).await.unwrap().unwrap();
    }

    pub(crate) fn probe(&self, probe: Probe) -> Result<(), String> {
        let report = self.health.report_one(probe, "leader-election").expect("it is registered");
        match report.checks.into_iter().next().unwrap().state {
            State::Failed(reason) => Err(reason),
            State::Passed | State::Excluded => Ok(()),
        }
    }

    /// The value of the series with this name and these labels, as the page has it.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        metric(&self.page, series)
    }

    pub(crate) fn requests(&self) -> usize {
        [Verb::Get, Verb::Create, Verb::Update, Verb::Watch]
            .iter()
            .map(|verb| self.link.calls(*verb, "leases"))
            .sum()
    }
}

pub(crate) fn metric(page: &PrometheusPage, series: &str) -> Option<f64> {
    let page = page.render();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

/// Which requests a fault is for.
pub(crate) fn of(user: &str, verb: Verb) -> impl Fn(&Call) -> bool + Send + Sync + 'static {
    let user = user.to_owned();
    move |call: &Call| call.user == user && call.verb == verb && call.resource == "leases"
}

/// A cell that a test's work and the test share.
pub(crate) fn shared<T>(value: T) -> Arc<Mutex<T>> {
    Arc::new(Mutex::new(value))
}
