//! Fetches credentials when a pod is bound to the node: its containers then find them in the cache.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use vdbi_core::{credential::CredentialSource, ledger::Ledger};

use crate::{
    deliver::{Deliverer, Occasion},
    demand::Demand,
    metrics::Metrics,
};

/// The pauses after attempts that failed; the last one is repeated while the pod waits. The kubelet tries as seldom.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// Why a pod's credentials were not fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Skipped {
    TerminatingPod,
    Annotations,
    VaultFetch,
}

impl Skipped {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::TerminatingPod => "terminating_pod",
            Self::Annotations => "annotations",
            Self::VaultFetch => "vault_fetch",
        }
    }
}

/// Pods whose credentials are being fetched, each by a task of its own.
pub(crate) struct Prewarmer<S, L> {
    deliverer: Deliverer<S, L>,
    default_engine: String,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    tasks: JoinSet<String>,
    /// By the pod's uid.
    waiting: HashMap<String, AbortHandle>,
}

impl<S: CredentialSource, L: Ledger> Prewarmer<S, L> {
    /// At most `most` at once; the others wait for their turn.
    pub(crate) fn new(
        deliverer: Deliverer<S, L>,
        default_engine: &str,
        most: usize,
        metrics: Metrics,
    ) -> Self {
        Self {
            deliverer,
            default_engine: default_engine.to_owned(),
            permits: Arc::new(Semaphore::new(most)),
            metrics,
            tasks: JoinSet::new(),
            waiting: HashMap::new(),
        }
    }

    /// Begins to fetch what the pod is going to need, if it is on its way to its first container.
    pub(crate) fn seen(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        if self.waiting.contains_key(&uid) || !is_starting(pod) || self.deliverer.cached(&uid).is_some() {
            return;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.metrics.not_prewarmed(Skipped::TerminatingPod);
            return;
        }
        let demand = match Demand::of(pod, &self.default_engine) {
            Ok(Some(demand)) => demand,
            Ok(None) => return,
            Err(error) => {
                self.metrics.not_prewarmed(Skipped::Annotations);
                let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                tracing::warn!(namespace, name, %error, "pod {namespace}/{name} gets no credentials: {error}");
                return;
            }
        };
        let (deliverer, permits, metrics) =
            (self.deliverer.clone(), self.permits.clone(), self.metrics.clone());
        let task = self.tasks.spawn(async move {
            let uid = demand.uid().to_owned();
            fetch(deliverer, demand, &permits, &metrics).await;
            uid
        });
        self.waiting.insert(uid, task);
    }

    /// The pod no longer waits for anything. What is under way at the backend is finished by the deliverer.
    pub(crate) fn gone(&mut self, uid: &str) {
        if let Some(task) = self.waiting.remove(uid) {
            task.abort();
        }
    }

    /// Takes note of what is done. Never ends; may be dropped.
    pub(crate) async fn progress(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(uid)) => drop(self.waiting.remove(&uid)),
                Some(Err(error)) if error.is_panic() => tracing::error!("a prewarming task panicked"),
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn fetch<S: CredentialSource, L: Ledger>(
    deliverer: Deliverer<S, L>,
    demand: Demand,
    permits: &Semaphore,
    metrics: &Metrics,
) {
    let mut pauses = PAUSES.into_iter();
    let mut pause = Duration::ZERO;
    loop {
        let outcome = {
            // Never closed.
            let Ok(_permit) = permits.acquire().await else { return };
            let _counted = Counted::new(metrics);
            deliverer.credentials(demand.clone(), Occasion::Prewarm).await
        };
        let Err(error) = outcome else {
            metrics.prewarmed.increment(1);
            return;
        };
        metrics.not_prewarmed(Skipped::VaultFetch);
        pause = pauses.next().unwrap_or(pause);
        tracing::warn!(
            pod = %demand.pod, %error, retry = ?pause,
            "no credentials for pod {} yet, and again in {pause:?}: {error}", demand.pod
        );
        sleep(pause).await;
    }
}

/// Whether the pod's containers are still to come: one that runs has what it needs, or never had a placeholder.
fn is_starting(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return true };
    let states = status.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref());
    let pending = status.phase.as_deref().is_none_or(|phase| phase == "Pending");
    pending && states.into_iter().all(|state| state.running.is_none() && state.terminated.is_none())
}

/// Counts what is under way, however it ends.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.prewarming.increment(1.0);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.prewarming.decrement(1.0);
    }
}
