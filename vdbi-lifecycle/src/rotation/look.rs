//! The pods of a namespace as the API server lists them, as far as rotation asks.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::ListParams, core::PartialObjectMeta};
use serde::de::DeserializeOwned;
use vdbi_core::{
    annotation::{self, parse_uuids},
    ledger::{Entry, EntryId},
    pod::UUID_ANNOTATION,
};

use super::plan::{PodFacts, Seen};
use crate::pods::NOT_ENDED;

/// By which the kubelet marks what stands for a static pod: it cannot be evicted.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// What is to be looked at: a namespace, and whose pods.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The namespace.
    pub(crate) namespace: String,
    /// The entries whose pods matter.
    pub(crate) entries: Vec<(EntryId, Arc<Entry>)>,
}

impl Look {
    /// Lists the labelled pods that have not ended. Their status is read only where one of them is to be rotated: it is most of
    /// an object, and most namespaces have none.
    pub(super) async fn at(self, client: &Client, label: &str) -> Result<Seen, kube::Error> {
        let parameters = ListParams::default().labels(&format!("{label}=true")).fields(NOT_ENDED).limit(PAGE);
        let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), &self.namespace);
        let mut pods = list(&api, &parameters, |pod| facts(&pod.metadata, false)).await?;
        let holds = |pod: &PodFacts| self.entries.iter().any(|(id, entry)| pod.holds(*id, entry));
        if pods.iter().any(|pod| pod.rotates && holds(pod)) {
            let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
            pods = list(&api, &parameters, |pod| facts(&pod.metadata, is_ready(&pod))).await?;
        }
        Ok(Seen { namespace: self.namespace, pods })
    }
}

/// All pages, of which no more than one is held at a time.
async fn list<K>(
    api: &Api<K>,
    parameters: &ListParams,
    digest: impl Fn(K) -> PodFacts,
) -> Result<Vec<PodFacts>, kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut parameters = parameters.clone();
    let mut facts = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        let more = page.metadata.continue_.filter(|token| !token.is_empty());
        facts.extend(page.items.into_iter().map(&digest));
        match more {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(facts),
        }
    }
}

fn facts(metadata: &ObjectMeta, ready: bool) -> PodFacts {
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true) && owner.kind != "Node");
    PodFacts {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        owner: owner.map(|owner| owner.uid.clone()).filter(|_| !annotations.contains_key(MIRROR)),
        // The webhook refuses what it does not know; whoever writes it later asks for nothing.
        rotates: annotation::rotation(&annotations).is_ok_and(|rotation| rotation.is_some()),
        terminating: metadata.deletion_timestamp.is_some(),
        ready,
        ids: annotations.get(UUID_ANNOTATION).map(|ids| parse_uuids(ids)).unwrap_or_default(),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> PodFacts {
        let mut pod = json!({
            "metadata": {
                "name": "web",
                "uid": "u",
                "annotations": { "db-creds-injector.numberly.io/rotation": "evict" },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Other", "name": "o", "uid": "other" },
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true },
                ],
            },
            "status": { "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "True" }] },
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        facts(&pod.metadata, is_ready(&pod))
    }

    #[test]
    fn the_owner_is_the_controller_and_nobody_else() {
        assert_eq!(pod(|_| {}).owner.as_deref(), Some("rs"));
        assert_eq!(pod(|pod| pod["metadata"]["ownerReferences"][1]["controller"] = false.into()).owner, None);
        assert_eq!(pod(|pod| pod["metadata"]["ownerReferences"] = json!(null)).owner, None);
    }

    #[test]
    fn what_stands_for_a_static_pod_has_no_controller() {
        assert_eq!(pod(|pod| pod["metadata"]["ownerReferences"][1]["kind"] = "Node".into()).owner, None);
        assert_eq!(pod(|pod| pod["metadata"]["annotations"][MIRROR] = "hash".into()).owner, None);
    }

    #[test]
    fn a_value_that_nobody_knows_asks_for_nothing() {
        let annotation = "db-creds-injector.numberly.io/rotation";
        assert!(pod(|_| {}).rotates);
        assert!(!pod(|pod| pod["metadata"]["annotations"][annotation] = "sometimes".into()).rotates);
    }

    #[test]
    fn a_pod_without_a_true_condition_is_not_ready() {
        assert!(pod(|_| {}).ready);
        assert!(!pod(|pod| pod["status"]["conditions"][1]["status"] = "False".into()).ready);
        assert!(!pod(|pod| pod["status"] = json!(null)).ready);
    }
}
