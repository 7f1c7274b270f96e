//! The node's pods, as the API server knows them: the only authority on who a pod is.

use std::{collections::HashMap, sync::Arc};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use thiserror::Error;

/// Which pods take part.
///
/// It is written as a literal, on purpose: a constructor would take two texts that could be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The label that they carry, with the value `true`: `nri.podLabel`.
    pub label: String,
    /// The node that they are bound to: `nri.nodeName`.
    pub node: String,
}

/// Finds pods and follows those of one node. Needs the verbs get, list and watch on pods.
#[derive(Clone)]
pub struct NodePods {
    client: Client,
    selection: Selection,
    store: Store<Pod>,
}

/// The other end of [`NodePods`], for the one task that follows the pods.
#[derive(Debug)]
pub struct Follower {
    writer: Writer<Pod>,
}

/// What happens to the node's pods.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A pod was bound to the node, or changed.
    Seen(Arc<Pod>),
    /// A pod is no longer there.
    Gone {
        /// Its uid.
        uid: String,
    },
    /// All pods are known now.
    Complete,
}

/// Why a pod is not found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum FindError {
    /// The API server knows another pod of this name, or none.
    #[error("the API server knows no pod {namespace}/{name} with the uid of this one")]
    Unknown {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The API server did not answer.
    #[error("could not look the pod up at the API server: {0}")]
    Unavailable(kube::Error),
}

impl NodePods {
    /// These pods, and what [`NodePlugin::follow`](crate::NodePlugin::follow) keeps them known by. Nothing is asked yet.
    pub fn new(client: Client, selection: Selection) -> (Self, Follower) {
        let (store, writer) = reflector::store();
        (Self { client, selection, store }, Follower { writer })
    }

    /// Whether a pod with these labels takes part.
    pub(crate) fn select(&self, labels: &HashMap<String, String>) -> bool {
        labels.get(&self.selection.label).is_some_and(|value| value == "true")
    }

    /// The pod, with exactly this uid: from memory, or from the API server where it is not known yet.
    ///
    /// # Errors
    ///
    /// See [`FindError`].
    pub(crate) async fn find(&self, namespace: &str, name: &str, uid: &str) -> Result<Arc<Pod>, FindError> {
        let is_it = |pod: &Pod| pod.metadata.uid.as_deref() == Some(uid);
        let known = self.store.get(&ObjectRef::new(name).within(namespace));
        if let Some(pod) = known.filter(|pod| is_it(pod)) {
            return Ok(pod);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match api.get_opt(name).await.map_err(FindError::Unavailable)? {
            Some(pod) if is_it(&pod) => Ok(Arc::new(pod)),
            _ => Err(FindError::Unknown { namespace: namespace.to_owned(), name: name.to_owned() }),
        }
    }

    /// The uids of the node's pods, as far as they are known.
    pub(crate) fn uids(&self) -> impl Iterator<Item = String> {
        self.store.state().into_iter().filter_map(|pod| pod.uid())
    }

    /// What happens to the node's pods, for as long as it is polled. Failures are logged, and the watch is started again with backoff.
    pub(crate) fn follow(&self, follower: Follower) -> impl Stream<Item = Change> + Send + use<> {
        let Selection { label, node } = &self.selection;
        let configuration = watcher::Config::default()
            .labels(&format!("{label}=true"))
            .fields(&format!("spec.nodeName={node}"));
        let api: Api<Pod> = Api::all(self.client.clone());
        let changes = watcher(api, configuration).default_backoff().modify(trim);
        reflector(follower.writer, changes)
            .filter_map(async |event| match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    Some(Change::Seen(Arc::new(pod)))
                }
                Ok(watcher::Event::Delete(pod)) => Some(Change::Gone { uid: pod.uid()? }),
                Ok(watcher::Event::InitDone) => Some(Change::Complete),
                Ok(watcher::Event::Init) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch on the node's pods failed and starts again: {error}");
                    None
                }
            })
            .boxed()
    }
}

/// What nobody reads here, and what is larger than all the rest.
fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    if let Some(status) = &mut pod.status {
        status.conditions = None;
    }
}

impl std::fmt::Debug for NodePods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodePods").field("selection", &self.selection).finish_non_exhaustive()
    }
}
