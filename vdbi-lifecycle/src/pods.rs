//! The pods that live now, as the API server lists them: metadata only.

mod sighting;
mod watching;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, VersionMatch},
    runtime::{WatchStreamExt, watcher},
};
use vdbi_core::{
    annotation::parse_uuids,
    ledger::{Entry, EntryId},
    pod::{PodRef, UUID_ANNOTATION},
};

use crate::shard::Shard;

pub(crate) use sighting::Sighting;

/// A pod that has ended has no use for its credentials, though its object remains.
pub(crate) const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Objects in one page of a list: one page is held in memory as text.
const PAGE: u32 = 100;

/// Lists and watches pods. Needs the verbs list and watch on pods.
#[derive(Clone)]
pub struct Pods {
    client: Client,
    label: String,
    end: End,
}

/// When a pod counts as ended, beyond being deleted, `Succeeded` or `Failed`: made by `End::default()`, and changed field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// A pod that loses the label has ended, though it runs on: not by default.
    pub without_label: bool,
    /// A pod that should have been gone for so long has ended: its grace period is over, and no kubelet has confirmed that it is
    /// gone, since its node is away. `metadata.deletionTimestamp` says when it should be gone. By default 300 s.
    pub overdue: Duration,
}

/// What happened to the labelled pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A pod appeared or changed.
    Seen {
        /// Its namespace.
        namespace: String,
        /// The pod.
        claimant: Claimant,
        /// What its annotation lists.
        ids: Vec<EntryId>,
    },
    /// A pod was deleted, ended, or lost the label. These are the entries that it claimed.
    Ended {
        /// Its namespace.
        namespace: String,
        /// The pod.
        claimant: Claimant,
        /// How it ended.
        end: Ending,
        /// As of which resourceVersion it has ended.
        version: Option<String>,
        /// What its annotation listed: a hint, which anybody with edit rights may have changed.
        ids: Vec<EntryId>,
    },
    /// The watch started anew: what happened before it is unknown.
    Restarted,
}

/// How sure it is that a pod has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is being removed: [`Ending::Removed`] follows, a few milliseconds later.
    Removing,
    /// It was removed.
    Removed,
    /// The watch shows it no longer: it was deleted, has ended, or lost the label and runs on. Only the API server knows.
    OutOfSight,
}

/// The live pods, and which ledger entries they claim.
#[derive(Debug, Default)]
pub(crate) struct Claims(HashMap<String, Claimants>);

/// Those of one namespace.
#[derive(Debug, Default)]
struct Claimants {
    listed: HashMap<EntryId, Vec<Arc<Claimant>>>,
    by_uid: HashMap<String, Arc<Claimant>>,
}

/// A pod that claims an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
}

impl Default for End {
    /// A pod keeps its credentials without the label, and for five minutes after it should have been gone.
    fn default() -> Self {
        Self { without_label: false, overdue: Duration::from_secs(300) }
    }
}

impl Pods {
    /// The pods, of all namespaces, that carry `label` with the value `true`. Nothing is asked yet.
    pub fn new(client: Client, label: &str) -> Self {
        Self { client, label: format!("{label}=true"), end: End::default() }
    }

    /// Other rules for when a pod has ended.
    #[must_use]
    pub fn with_end(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// What the labelled pods of all namespaces claim now. The list is consistent, never from a cache.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub(crate) async fn labelled_claims(&self) -> Result<Claims, kube::Error> {
        self.claims(Api::all(self.client.clone()), ListParams::default().labels(&self.label), None).await
    }

    /// What the pods of one namespace claim now, with or without the label unless [`End::without_label`] says otherwise.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub(crate) async fn claims_in(&self, namespace: &str) -> Result<Claims, kube::Error> {
        self.claims_of(namespace, None, None).await
    }

    /// As [`Pods::claims_in`], of the one pod with this name where there is one: the API server looks up nothing else.
    ///
    /// With `since` as of this resourceVersion or later, which costs the API server less: it need not ask etcd what the latest is. That
    /// suffices for a pod that was there before and is asked for by its uid: at whatever later time it is absent, it has gone for good.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub(crate) async fn claims_of(
        &self,
        namespace: &str,
        name: Option<&str>,
        since: Option<&str>,
    ) -> Result<Claims, kube::Error> {
        let mut parameters = ListParams::default();
        if self.end.without_label {
            parameters = parameters.labels(&self.label);
        }
        if let Some(version) = since {
            parameters = parameters.at(version).matching(VersionMatch::NotOlderThan);
        }
        self.claims(Api::namespaced(self.client.clone(), namespace), parameters, name).await
    }

    async fn claims(
        &self,
        api: Api<Sighting>,
        parameters: ListParams,
        name: Option<&str>,
    ) -> Result<Claims, kube::Error> {
        let fields = match name {
            Some(name) => &format!("{NOT_ENDED},metadata.name={name}"),
            None => NOT_ENDED,
        };
        let mut parameters = parameters.fields(fields).limit(PAGE);
        let mut claims = Claims::default();
        loop {
            let page = api.list(&parameters).await?;
            let more = page.metadata.continue_.filter(|token| !token.is_empty());
            let now = Timestamp::now();
            page.items.iter().filter(|pod| !self.end.is_overdue(pod, now)).for_each(|pod| claims.insert(pod));
            match more {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(claims),
            }
        }
    }

    /// What happens to labelled pods, for as long as it is polled. Failures are logged and the watch is started again with
    /// backoff; `connected` is told when there is a watch and when there is none.
    pub(crate) fn changes<F: Fn(bool) + Clone + Send + Sync + 'static>(
        &self,
        connected: F,
    ) -> impl Stream<Item = Change> + Send + use<F> {
        let client = watching::reporting(&self.client, connected.clone());
        let configuration = watcher::Config::default().labels(&self.label).fields(NOT_ENDED).page_size(PAGE);
        watcher(Api::<Sighting>::all(client), configuration)
            .default_backoff()
            .inspect(move |event| {
                if event.is_err() {
                    connected(false);
                }
            })
            .filter_map(async |event| match event {
                Ok(watcher::Event::Delete(pod)) if is_being_removed(&pod) => {
                    Some(Change::ended(&pod, Ending::Removed))
                }
                Ok(watcher::Event::Delete(pod)) => Some(Change::ended(&pod, Ending::OutOfSight)),
                Ok(watcher::Event::Apply(pod)) if is_being_removed(&pod) => {
                    Some(Change::ended(&pod, Ending::Removing))
                }
                // A pod on its way out has no use for what follows.
                Ok(watcher::Event::Apply(pod)) if pod.meta().deletion_timestamp.is_none() => {
                    let namespace = pod.namespace().unwrap_or_default();
                    let ids = claimed(&pod);
                    Some(Change::Seen { namespace, claimant: Claimant::from(&pod), ids })
                }
                Ok(watcher::Event::InitDone) => Some(Change::Restarted),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch on pods failed and starts again: {error}");
                    None
                }
            })
            .boxed()
    }
}

impl Change {
    fn ended(pod: &Sighting, end: Ending) -> Self {
        Self::Ended {
            namespace: pod.namespace().unwrap_or_default(),
            claimant: Claimant::from(pod),
            end,
            version: pod.resource_version(),
            ids: claimed(pod),
        }
    }

    /// What of it concerns this shard.
    pub(crate) fn of(mut self, shard: Shard) -> Self {
        if let Self::Ended { ids, .. } | Self::Seen { ids, .. } = &mut self {
            ids.retain(|id| shard.covers(*id));
        }
        self
    }
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Claims {
    /// Adds a pod with what it claims.
    pub(crate) fn insert(&mut self, pod: &Sighting) {
        let claimant = Arc::new(Claimant::from(pod));
        let claimants = self.0.entry(pod.namespace().unwrap_or_default()).or_default();
        for id in claimed(pod) {
            // Nearly always there is one.
            let listed = claimants.listed.entry(id).or_insert_with(|| Vec::with_capacity(1));
            listed.push(claimant.clone());
        }
        claimants.by_uid.insert(claimant.uid.clone(), claimant);
    }

    /// Whether the entry's own pod is among them.
    pub(crate) fn hold(&self, id: EntryId, entry: &Entry) -> bool {
        self.holder(id, entry).is_some()
    }

    /// The entry's own pod, if it is among them: that with its uid, whatever its annotation says. While the uid is not known, one of its
    /// namespace that lists the id, and has its name as far as that is known. Another pod that lists the id keeps nothing alive.
    pub(crate) fn holder(&self, id: EntryId, entry: &Entry) -> Option<&Claimant> {
        self.holders(id, entry).next()
    }

    /// The entry's own pod, where only one can be it.
    pub(crate) fn sole_holder(&self, id: EntryId, entry: &Entry) -> Option<&Claimant> {
        let mut holders = self.holders(id, entry);
        holders.next().filter(|_| holders.next().is_none())
    }

    fn holders(&self, id: EntryId, entry: &Entry) -> impl Iterator<Item = &Claimant> {
        let claimants = self.0.get(&entry.pod.namespace);
        let bound = entry.pod.uid.as_ref().and_then(|uid| claimants?.by_uid.get(uid));
        let listed =
            claimants.filter(|_| entry.pod.uid.is_none()).and_then(|claimants| claimants.listed.get(&id));
        let holders = bound.into_iter().chain(listed.into_iter().flatten()).map(|claimant| &**claimant);
        holders.filter(|claimant| claimant.may_be(&entry.pod))
    }
}

impl Claimant {
    /// Whether an entry is known to be that of this very pod.
    pub(crate) fn is_bound_to(&self, entry: &Entry) -> bool {
        entry.pod.uid.as_ref() == Some(&self.uid)
    }

    /// Whether it is this pod, as far as name and uid are known.
    pub(crate) fn may_be(&self, pod: &PodRef) -> bool {
        pod.name.as_ref().is_none_or(|known| *known == self.name)
            && pod.uid.as_ref().is_none_or(|known| *known == self.uid)
    }
}

impl From<&Sighting> for Claimant {
    fn from(pod: &Sighting) -> Self {
        Self { name: pod.name_any(), uid: pod.uid().unwrap_or_default() }
    }
}

impl End {
    /// Whether a pod that is still there should have been gone for too long.
    fn is_overdue(&self, pod: &Sighting, now: Timestamp) -> bool {
        let patience = SignedDuration::try_from(self.overdue).unwrap_or(SignedDuration::MAX);
        let due = pod.meta().deletion_timestamp.as_ref().map(|time| time.0);
        due.is_some_and(|due| now.duration_since(due) > patience)
    }
}

/// Whether nothing is waited for any more: the kubelet has confirmed that its containers have ended, or nobody was to ask it. The API
/// server marks a pod so, and removes it next; no later write takes the mark back.
fn is_being_removed(pod: &Sighting) -> bool {
    let metadata = pod.meta();
    metadata.deletion_timestamp.is_some()
        && metadata.deletion_grace_period_seconds == Some(0)
        && pod.finalizers().is_empty()
}

/// The entries that a pod lists. The Go product's node plugin keeps the entry of a pod that lists none under the pod's uid.
fn claimed(pod: &Sighting) -> Vec<EntryId> {
    match pod.annotations().get(UUID_ANNOTATION) {
        Some(ids) => parse_uuids(ids),
        None => pod.uid().and_then(|uid| uid.parse().ok()).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use serde_json::json;
    use vdbi_core::memory::kubernetes::KubernetesApi;

    use super::*;

    const LABEL: &str = "vault-db-injector";

    /// The ends that the watch shows of a pod after this.
    async fn ends_after(
        act: impl AsyncFnOnce(&KubernetesApi, &Api<k8s_openapi::api::core::v1::Pod>),
    ) -> Vec<Ending> {
        let kubernetes = KubernetesApi::new();
        let pods = Api::namespaced(kubernetes.client(), "shop");
        let changes = Pods::new(kubernetes.client(), LABEL).changes(|_| {});
        let mut changes = pin!(changes);
        assert_eq!(changes.next().await, Some(Change::Restarted));
        for name in ["web", "last"] {
            let pod = json!({
                "metadata": { "name": name, "labels": { LABEL: "true" } },
                "spec": { "containers": [{ "name": "web", "image": "web" }] },
            });
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        }
        act(&kubernetes, &pods).await;
        assert!(kubernetes.set_pod_phase("shop", "last", "Succeeded"));
        let mut ends = Vec::new();
        loop {
            match changes.next().await {
                Some(Change::Ended { claimant, end, .. }) if claimant.name == "web" => ends.push(end),
                Some(Change::Ended { .. }) => return ends,
                change => assert!(matches!(change, Some(Change::Seen { .. })), "{change:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_removed_is_told_from_one_that_is_out_of_sight() {
        let removed = ends_after(async |_, pods| {
            pods.delete("web", &DeleteParams::default()).await.unwrap();
        });
        assert_eq!(removed.await, [Ending::Removing, Ending::Removed]);

        let confirmed_by_its_kubelet = ends_after(async |kubernetes, pods| {
            assert!(kubernetes.bind_pod("shop", "web", "node-1"));
            pods.delete("web", &DeleteParams::default().grace_period(30)).await.unwrap();
            pods.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
        });
        assert_eq!(confirmed_by_its_kubelet.await, [Ending::Removing, Ending::Removed]);

        let ended = ends_after(async |kubernetes, _| {
            assert!(kubernetes.set_pod_phase("shop", "web", "Failed"));
        });
        assert_eq!(ended.await, [Ending::OutOfSight]);

        let unlabelled_in_its_grace_period = ends_after(async |kubernetes, pods| {
            assert!(kubernetes.bind_pod("shop", "web", "node-1"));
            pods.delete("web", &DeleteParams::default().grace_period(30)).await.unwrap();
            let unlabelled = Patch::Merge(json!({ "metadata": { "labels": { LABEL: null } } }));
            pods.patch("web", &PatchParams::default(), &unlabelled).await.unwrap();
        });
        assert_eq!(unlabelled_in_its_grace_period.await, [Ending::OutOfSight]);
    }
}
