//! An embedded Kubernetes API: for tests that need what a cluster would answer, without a cluster.
//!
//! [`KubernetesApi`] keeps pods, leases, namespaces, service accounts, disruption budgets, nodes and events, and hands out real
//! [`kube::Client`]s, so that watchers, reflectors and electors run over it unchanged.
//!
//! ```
//! # use k8s_openapi::api::core::v1::Pod;
//! # use kube::{Api, api::PostParams};
//! # use vdbi_core::memory::kubernetes::KubernetesApi;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> kube::Result<()> {
//! let api = KubernetesApi::new();
//! let pods: Api<Pod> = Api::namespaced(api.client(), "shop");
//! let pod = serde_json::from_value(serde_json::json!({
//!     "metadata": {"generateName": "web-"},
//!     "spec": {"containers": [{"name": "app"}]},
//! }));
//! let pod = pods.create(&PostParams::default(), &pod.unwrap()).await?;
//! assert!(pod.metadata.name.unwrap().starts_with("web-"));
//! # Ok(())
//! # }
//! ```
//!
//! # What it does as a real API server
//!
//! - One resourceVersion for all objects; compare-and-swap on PUT and in merge patches; uid preconditions; refusals are `Status`
//!   objects with a real server's code, reason and wording.
//! - Leases are not updated without a resourceVersion, and created by a PUT where there is none.
//! - Watches start at a resourceVersion, send bookmarks, and end in 410 Gone once the history is gone. An object that stops
//!   matching the selector is deleted for the watch. A streaming list (`sendInitialEvents`) is refused, as by servers before 1.32.
//! - Lists can be paginated, and every read can ask for metadata alone.
//! - A pod gets its uid, name and status after admission. Deleting one that is bound to a node and not finished only marks it,
//!   until it is deleted again without a grace period, as the kubelet does. Its specification is immutable.
//! - An eviction is refused by a disruption budget that has none left; a test writes the budget's status.
//! - A mutating webhook is called over real HTTPS.
//!
//! # What it does not do
//!
//! It authenticates and authorizes nobody (a [`Fault`] can refuse), runs no controllers, knows no strategic merge patch and no
//! server-side apply (415), and creates a namespace, with its service account `default`, along with the first object in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

mod call;
mod connection;
mod defaults;
mod deletion;
mod eviction;
mod fault;
mod resource;
mod selector;
mod status;
mod store;
mod token;
mod validate;
mod verbs;
mod watching;
mod webhook;

pub use call::{Call, Verb};
pub use connection::{AnswerBody, Connection};
pub use fault::{Fault, FaultGuard};
pub use webhook::{Webhook, WebhookError};

use call::Request;
use fault::Faults;
use resource::{NAMESPACES, PODS};
use status::Refusal;
use store::Store;
use webhook::Caller;

use super::Hold;

/// An embedded Kubernetes API. Clones share its state.
#[derive(Clone, Debug)]
pub struct KubernetesApi(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Mutex<Store>,
    faults: Faults,
    webhook: Mutex<Option<Arc<Caller>>>,
}

impl KubernetesApi {
    /// An API with the namespaces `kube-system` and `default`.
    pub fn new() -> Self {
        let mut store = Store::new();
        for namespace in ["kube-system", "default"] {
            defaults::ensure_namespace(&mut store, namespace, true);
        }
        Self(Arc::new(Inner {
            store: Mutex::new(store),
            faults: Faults::default(),
            webhook: Mutex::default(),
        }))
    }

    /// A client over a connection of its own, as the user `kubernetes-admin`. See [`Connection::client`].
    pub fn client(&self) -> kube::Client {
        self.connect("kubernetes-admin").client()
    }

    /// A connection of its own, as `user`, for instance `system:serviceaccount:shop:web`.
    pub fn connect(&self, user: &str) -> Connection {
        Connection::new(self.clone(), user)
    }

    /// The uid of a namespace: that of `kube-system` identifies a cluster.
    pub fn namespace_uid(&self, namespace: &str) -> Option<String> {
        self.store().get(&NAMESPACES, "", namespace)?["metadata"]["uid"].as_str().map(str::to_owned)
    }

    /// Calls this webhook from now on when a pod with its label is created.
    ///
    /// rustls needs a default provider (`CryptoProvider::install_default`); the call is real I/O, so tokio's time must not be
    /// paused.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] when a certificate cannot be read or there is no default provider.
    pub fn set_mutating_webhook(&self, webhook: Webhook) -> Result<(), WebhookError> {
        *lock(&self.0.webhook) = Some(Arc::new(Caller::new(webhook)?));
        Ok(())
    }

    /// Calls no webhook any more.
    pub fn remove_mutating_webhook(&self) {
        *lock(&self.0.webhook) = None;
    }

    /// Lets the next request that matches meet this fault.
    pub fn fail_next(&self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static, fault: Fault) {
        self.0.faults.add_once(predicate, fault);
    }

    /// Lets every request that matches meet this fault, until the guard is dropped. Faults that were added earlier go first.
    #[must_use = "the fault ends when the guard is dropped"]
    pub fn fail_while(
        &self,
        predicate: impl Fn(&Call) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> FaultGuard {
        self.0.faults.add(predicate, fault)
    }

    /// Keeps requests that match waiting, before they have any effect, until the [`Hold`] is dropped.
    pub fn hold(&self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Hold {
        self.0.faults.hold(predicate)
    }

    /// Forgets the history, as etcd's compaction does: watches from before, and lists that were not read to their end, get
    /// 410 Gone.
    pub fn compact(&self) {
        self.store().compact();
    }

    /// Sends a bookmark to every watch that allows them. One comes every minute anyway.
    pub fn send_bookmarks(&self) {
        self.store().pulse().send_modify(|pulse| pulse.bookmarks += 1);
    }

    /// Ends every watch, as an API server does when it restarts.
    pub fn close_watches(&self) {
        self.store().pulse().send_modify(|pulse| pulse.closings += 1);
    }

    /// Writes a pod's phase, as its kubelet would; `false` when there is no such pod.
    pub fn set_pod_phase(&self, namespace: &str, name: &str, phase: &str) -> bool {
        self.change_pod(namespace, name, |pod| pod["status"]["phase"] = phase.into())
    }

    /// Binds a pod to a node, as the scheduler would; `false` when there is no such pod.
    pub fn bind_pod(&self, namespace: &str, name: &str, node: &str) -> bool {
        self.change_pod(namespace, name, |pod| pod["spec"]["nodeName"] = node.into())
    }

    fn change_pod(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> bool {
        let mut store = self.store();
        let Some(pod) = store.get(&PODS, namespace, name) else {
            return false;
        };
        let mut pod = Value::clone(&pod);
        change(&mut pod);
        store.put(&PODS, pod);
        true
    }

    /// Lets the webhook change a pod that is about to be created. Its warnings are returned.
    async fn mutate(&self, request: &Request, pod: &mut Value) -> Result<Vec<String>, Refusal> {
        let webhook = lock(&self.0.webhook).clone();
        match webhook {
            Some(webhook) if webhook.selects(pod) => webhook.mutate(request, pod).await,
            _ => Ok(Vec::new()),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.0.store)
    }

    fn faults(&self) -> &Faults {
        &self.0.faults
    }
}

impl Default for KubernetesApi {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
