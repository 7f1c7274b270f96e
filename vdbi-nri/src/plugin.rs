//! The node plugin: for each container with placeholders their credentials, or no container.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};
use vdbi_core::{
    credential::CredentialSource, custody::Custody, ledger::Ledger, metrics::Registry, placeholder::PREFIX,
};

use crate::{
    cache::{Cache, Held},
    deliver::{Deliverer, Occasion},
    demand::Demand,
    leaks::Leaks,
    metrics::{Metrics, Phase},
    pods::{Change, Follower, NodePods},
    prewarm::Prewarmer,
    stub::{Adjustment, Container, ContainerInjector, Creation, Pod, Refused, Runtime},
    substitute::substitute,
    tripwire,
};

mod refusal;

pub(crate) use refusal::Reason;
use refusal::Refusal;

/// How the plugin works: made by [`Settings::new`], and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The mount of the database secrets engine of pods without the annotation `cluster`.
    pub default_engine: String,
    /// How long a container's creation may wait for a credential, at most: 1.5 s. It has to be below 80 % of containerd's
    /// `plugin_request_timeout`, after which the creation is refused without a credential.
    pub fetch_timeout: Duration,
    /// How many pods' credentials are fetched at once before a container needs them, 50; `None` for not at all.
    pub prewarm: Option<usize>,
}

impl Settings {
    /// The mount of the database secrets engine of pods without the annotation `cluster`, and the defaults of the configuration, which
    /// the fields tell.
    pub fn new(default_engine: impl Into<String>) -> Self {
        let fetch_timeout = Duration::from_millis(1500);
        Self { default_engine: default_engine.into(), fetch_timeout, prewarm: Some(50) }
    }
}

/// Puts credentials in the place of placeholders. Clones share everything.
///
/// It trusts the runtime for which container is created, and the API server alone for which pod that is: its uid, its service account and
/// its annotations. It keeps what it has fetched until the pod is gone from both.
pub struct NodePlugin<S, L>(Arc<Inner<S, L>>);

struct Inner<S, L> {
    settings: Settings,
    deliverer: Deliverer<S, L>,
    pods: NodePods,
    sandboxes: Mutex<Sandboxes>,
    leaks: Leaks,
    metrics: Metrics,
}

/// What the runtime has of the pods that take part.
#[derive(Default)]
struct Sandboxes {
    /// By the pod's uid.
    pods: HashMap<String, Present>,
    /// Whether the runtime has told all of them.
    complete: bool,
    /// Whether the API server has told all of its pods.
    listed: bool,
}

#[derive(Default)]
struct Present {
    sandboxes: HashSet<String>,
    /// The names of the containers that have been created once.
    containers: HashSet<String>,
}

impl<S: CredentialSource, L: Ledger> NodePlugin<S, L> {
    /// A plugin that has yet to be run: give it to a [`Stub`](crate::stub::Stub), and run [`follow`](Self::follow) beside that.
    pub fn new(
        custody: Custody<S, L>,
        cache: Cache,
        pods: NodePods,
        leaks: Leaks,
        settings: Settings,
        registry: &Registry,
    ) -> Self {
        let metrics = Metrics::new(registry);
        let deliverer = Deliverer::new(custody, cache, metrics.clone());
        Self(Arc::new(Inner { settings, deliverer, pods, sandboxes: Mutex::default(), leaks, metrics }))
    }

    /// Follows the node's pods: fetches credentials before they are needed, and forgets those of pods that are gone. Ends with
    /// `shutdown`.
    pub async fn follow(self, follower: Follower, shutdown: impl Future<Output = ()> + Send) {
        let Inner { settings, deliverer, pods, metrics, .. } = &*self.0;
        let mut prewarmer = settings
            .prewarm
            .map(|most| Prewarmer::new(deliverer.clone(), &settings.default_engine, most, metrics.clone()));
        let mut changes = pods.follow(follower);
        let mut shutdown = std::pin::pin!(shutdown.fuse());
        loop {
            let progress = async {
                match &mut prewarmer {
                    Some(prewarmer) => prewarmer.progress().await,
                    None => std::future::pending().await,
                }
            };
            let change = tokio::select! {
                () = &mut shutdown => return,
                () = progress => continue,
                change = changes.next() => change,
            };
            match change {
                Some(Change::Seen(pod)) => {
                    if let Some(prewarmer) = &mut prewarmer {
                        prewarmer.seen(&pod);
                    }
                }
                Some(Change::Gone { uid }) => {
                    if let Some(prewarmer) = &mut prewarmer {
                        prewarmer.gone(&uid);
                    }
                    self.pod_gone(&uid);
                }
                Some(Change::Complete) => {
                    self.0.sandboxes().listed = true;
                    self.forget_the_gone();
                }
                None => return,
            }
        }
    }

    /// Waits for what is under way. Call it once the stub has ended.
    pub async fn finish(&self) {
        self.0.deliverer.finish().await;
    }

    async fn fill_in(&self, creation: &Creation<'_>, arrived: Instant) -> Result<Adjustment, Refusal> {
        let Creation { pod, container, runtime, deadline } = creation;
        if let Some(word) = container.args.iter().position(|word| word.contains(PREFIX)) {
            return Err(Refusal::Arguments(word));
        }
        let occasion = self.0.sandboxes().begin(pod, &container.name);
        let until = (*deadline).min(arrived + self.0.settings.fetch_timeout);
        let begun = Instant::now();
        let held = match self.0.cached(container, &pod.uid, occasion) {
            Some(held) => {
                self.0.metrics.hit(held.source);
                held
            }
            None => {
                let fetched = timeout_at(until, self.fetch(pod, occasion)).await;
                fetched.map_err(|_| Refusal::Deadline(until - arrived))??
            }
        };
        let substituting = Instant::now();
        self.0.metrics.took(Phase::Credential, substituting - begun);
        let mut adjustment = Adjustment::default();
        for (name, value) in substitute(&container.env, &held.secrets())? {
            adjustment.set_env(name, value).map_err(Refusal::Unsettable)?;
        }
        tripwire::disarm(container, runtime, &mut adjustment);
        self.0.metrics.took(Phase::Substitute, substituting.elapsed());
        Ok(adjustment)
    }

    async fn fetch(&self, pod: &Pod, occasion: Occasion) -> Result<Arc<Held>, Refusal> {
        let Inner { pods, deliverer, settings, metrics, .. } = &*self.0;
        let begun = Instant::now();
        let known = pods.find(&pod.namespace, &pod.name, &pod.uid).await?;
        metrics.took(Phase::Identity, begun.elapsed());
        let demand = Demand::of(&known, &settings.default_engine)?.ok_or(Refusal::NoDemand)?;
        Ok(deliverer.credentials(demand, occasion).await?)
    }

    /// The API server no longer has the pod.
    fn pod_gone(&self, uid: &str) {
        let is_running =
            self.0.sandboxes().pods.get(uid).is_some_and(|present| !present.sandboxes.is_empty());
        if !is_running {
            self.forget(uid);
        }
    }

    /// Forgets the pods that neither the API server nor the runtime has, once both have told all of theirs.
    fn forget_the_gone(&self) {
        let (running, ended): (HashSet<String>, HashSet<String>) = {
            let sandboxes = self.0.sandboxes();
            if !(sandboxes.complete && sandboxes.listed) {
                return;
            }
            let (running, ended): (Vec<_>, Vec<_>) =
                sandboxes.pods.iter().partition(|(_, present)| !present.sandboxes.is_empty());
            let uids =
                |pods: Vec<(&String, &Present)>| pods.into_iter().map(|(uid, _)| uid.clone()).collect();
            (uids(running), uids(ended))
        };
        let living: HashSet<String> = self.0.pods.uids().collect();
        let cached = self.0.deliverer.cached_uids();
        for uid in ended.into_iter().chain(cached) {
            if !living.contains(&uid) && !running.contains(&uid) {
                self.forget(&uid);
            }
        }
    }

    fn forget(&self, uid: &str) {
        self.0.sandboxes().pods.remove(uid);
        self.0.deliverer.forget(uid);
    }

    fn takes_part(&self, pod: &Pod) -> bool {
        self.0.pods.select(&pod.labels)
    }
}

impl<S: CredentialSource, L: Ledger> ContainerInjector for NodePlugin<S, L> {
    async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
        let Creation { pod, container, .. } = &creation;
        let has_placeholders = container.env.iter().chain(&container.args).any(|text| text.contains(PREFIX));
        if !self.takes_part(pod) || !has_placeholders {
            return Ok(Adjustment::default());
        }
        let arrived = Instant::now();
        let outcome = self.fill_in(&creation, arrived).await;
        let took = arrived.elapsed();
        self.0.metrics.took(Phase::Total, took);
        let Pod { namespace, name, .. } = pod;
        match outcome {
            Ok(adjustment) => {
                self.0.metrics.substitutions.increment(1);
                tracing::info!(
                    namespace,
                    pod = name,
                    container = container.name,
                    ?took,
                    "container {} of pod {namespace}/{name} gets its credentials",
                    container.name
                );
                Ok(adjustment)
            }
            Err(refusal) => {
                self.0.metrics.refused(refusal.reason());
                tracing::warn!(
                    namespace, pod = name, container = container.name, ?took, %refusal,
                    "container {} of pod {namespace}/{name} is not created: {refusal}", container.name
                );
                Err(Refused::new(format!("vault-db-injector: {refusal}")))
            }
        }
    }

    async fn synchronize(&self, pods: Vec<Pod>, containers: Vec<Container>, _: &Runtime) {
        let ours: HashMap<&str, &Pod> =
            pods.iter().filter(|pod| self.takes_part(pod)).map(|pod| (pod.id.as_str(), pod)).collect();
        {
            let mut sandboxes = self.0.sandboxes();
            for present in sandboxes.pods.values_mut() {
                present.sandboxes.clear();
            }
            for pod in ours.values() {
                sandboxes.pods.entry(pod.uid.clone()).or_default().sandboxes.insert(pod.id.clone());
            }
            for container in &containers {
                if let Some(pod) = ours.get(container.pod_id.as_str()) {
                    sandboxes.begin(pod, &container.name);
                }
            }
            sandboxes.complete = true;
        }
        let leaking = containers.iter().filter_map(|container| {
            let leaks = container.env.iter().any(|line| line.contains(PREFIX));
            ours.get(container.pod_id.as_str()).filter(|_| leaks).map(|pod| (*pod, container))
        });
        self.0.leaks.report(leaking, &self.0.metrics);
        self.forget_the_gone();
    }

    async fn pod_removed(&self, pod: &Pod) {
        let was_last = self.0.sandboxes().pods.get_mut(&pod.uid).is_some_and(|present| {
            present.sandboxes.remove(&pod.id);
            present.sandboxes.is_empty()
        });
        if was_last {
            self.forget_the_gone();
        }
    }
}

impl<S: CredentialSource, L: Ledger> Inner<S, L> {
    /// What is in the cache, where nothing has to be asked for this container: it starts for the first time, and each of its placeholders
    /// is known and alive.
    fn cached(&self, container: &Container, uid: &str, occasion: Occasion) -> Option<Arc<Held>> {
        if occasion == Occasion::Restart {
            return None;
        }
        let held = self.deliverer.cached(uid)?;
        held.covers(&container.env, jiff::Timestamp::now()).then_some(held)
    }
}

impl<S, L> Inner<S, L> {
    fn sandboxes(&self) -> MutexGuard<'_, Sandboxes> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandboxes {
    /// Takes note of a container, and tells whether it has been there before.
    fn begin(&mut self, pod: &Pod, container: &str) -> Occasion {
        let present = self.pods.entry(pod.uid.clone()).or_default();
        present.sandboxes.insert(pod.id.clone());
        if present.containers.insert(container.to_owned()) { Occasion::Start } else { Occasion::Restart }
    }
}

impl<S, L> Clone for NodePlugin<S, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, L> std::fmt::Debug for NodePlugin<S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodePlugin").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}
