//! The pods that live now, as the API server lists them: metadata only.

use std::collections::HashMap;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use vdbi_core::{
    annotation::parse_uuids,
    ledger::{Entry, EntryId},
    pod::UUID_ANNOTATION,
};

/// A pod that has ended has no use for its credentials, though its object remains.
pub(crate) const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Lists and watches pods. Needs the verbs list and watch on pods.
#[derive(Clone)]
pub struct Pods {
    client: Client,
    label: String,
}

/// What happened to the labelled pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A pod was deleted, ended, or lost the label. These are the entries that it claimed.
    Ended {
        /// Its namespace.
        namespace: String,
        /// What its annotation listed: a hint, which anybody with edit rights may have changed.
        ids: Vec<EntryId>,
    },
    /// The watch started anew: what happened before it is unknown.
    Restarted,
}

/// Which ledger entries live pods claim, by namespace.
#[derive(Debug, Default)]
pub struct Claims(HashMap<(String, EntryId), Vec<Claimant>>);

/// A pod that claims an entry.
#[derive(Debug)]
pub struct Claimant {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Pods {
    /// The pods that carry `label` with the value `true`.
    pub fn new(client: Client, label: &str) -> Self {
        Self { client, label: format!("{label}=true") }
    }

    /// What the labelled pods of all namespaces claim now. The list is consistent, never from a cache.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub async fn labelled_claims(&self) -> Result<Claims, kube::Error> {
        self.claims(Api::all(self.client.clone()), ListParams::default().labels(&self.label)).await
    }

    /// What the pods of one namespace claim now, with or without the label.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub async fn claims_in(&self, namespace: &str) -> Result<Claims, kube::Error> {
        self.claims(Api::namespaced(self.client.clone(), namespace), ListParams::default()).await
    }

    async fn claims(
        &self,
        api: Api<PartialObjectMeta<Pod>>,
        parameters: ListParams,
    ) -> Result<Claims, kube::Error> {
        let mut parameters = parameters.fields(NOT_ENDED).limit(PAGE);
        let mut claims = Claims::default();
        loop {
            let page = api.list(&parameters).await?;
            let more = page.metadata.continue_.filter(|token| !token.is_empty());
            page.items.iter().for_each(|pod| claims.insert(pod));
            match more {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(claims),
            }
        }
    }

    /// What happens to labelled pods, for as long as it is polled. Failures are logged and the watch is started again with
    /// backoff.
    pub fn changes(&self) -> impl Stream<Item = Change> + Send + use<> {
        let configuration = watcher::Config::default().labels(&self.label).fields(NOT_ENDED);
        watcher(Api::<PartialObjectMeta<Pod>>::all(self.client.clone()), configuration)
            .default_backoff()
            .filter_map(async |event| match event {
                Ok(watcher::Event::Delete(pod)) => {
                    let namespace = pod.namespace().unwrap_or_default();
                    Some(Change::Ended { namespace, ids: claimed(&pod) })
                }
                Ok(watcher::Event::InitDone) => Some(Change::Restarted),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch on pods failed and starts again");
                    None
                }
            })
            .boxed()
    }
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Claims {
    /// Adds what one pod claims.
    pub fn insert(&mut self, pod: &PartialObjectMeta<Pod>) {
        for id in claimed(pod) {
            let claimant = Claimant { name: pod.name_any(), uid: pod.uid().unwrap_or_default() };
            self.0.entry((pod.namespace().unwrap_or_default(), id)).or_default().push(claimant);
        }
    }

    /// Whether the entry's own pod is among them.
    pub fn hold(&self, id: EntryId, entry: &Entry) -> bool {
        self.holder(id, entry).is_some()
    }

    /// The entry's own pod, if it is among them: in its namespace, and with its name and uid as far as the entry knows them.
    /// Another pod that lists the id keeps nothing alive.
    pub fn holder(&self, id: EntryId, entry: &Entry) -> Option<&Claimant> {
        let claimants = self.0.get(&(entry.pod.namespace.clone(), id));
        claimants.into_iter().flatten().find(|Claimant { name, uid }| {
            entry.pod.name.as_ref().is_none_or(|known| known == name)
                && entry.pod.uid.as_ref().is_none_or(|known| known == uid)
        })
    }
}

fn claimed(pod: &PartialObjectMeta<Pod>) -> Vec<EntryId> {
    pod.annotations().get(UUID_ANNOTATION).map(|ids| parse_uuids(ids)).unwrap_or_default()
}
