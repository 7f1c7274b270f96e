//! Events on pods: what whoever looks after a pod has to know about its credential.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use thiserror::Error;
use vdbi_core::ledger::{Entry, EntryId};

use crate::pods::{Claimant, Pods};

/// The reason of the event on a pod whose credential ends at its maximum.
pub const ENDING: &str = "CredentialEnding";

/// The reason of the event on a pod whose credential no longer exists.
pub const LOST: &str = "CredentialLost";

/// The reason of the event on a pod that was evicted, so that another gets another credential.
pub const ROTATION: &str = "CredentialRotation";

/// The reason of the event on a pod that asks for rotation and cannot be evicted.
pub const ROTATION_BLOCKED: &str = "CredentialRotationBlocked";

/// Writes events on pods. Needs the verbs create and patch on events of `events.k8s.io`, and list on pods.
#[derive(Clone)]
pub struct PodEvents {
    pods: Pods,
    recorder: Recorder,
}

/// What happened to a pod's credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It ends after this time, whatever is renewed: a maximum is in sight.
    Ending(Duration),
    /// It no longer exists.
    Lost,
}

#[derive(Debug, Error)]
enum Failure {
    #[error("could not find the pod: {0}")]
    Pods(kube::Error),
    #[error("the API server refuses it: {0}")]
    Refused(kube::Error),
}

impl PodEvents {
    /// Events in the name of `component`, for instance `vdbi-renewer`, on pods that `pods` finds.
    pub fn new(client: Client, pods: Pods, component: &str) -> Self {
        let reporter =
            Reporter { controller: component.to_owned(), instance: std::env::var("POD_NAME").ok() };
        Self { pods, recorder: Recorder::new(client, reporter) }
    }

    /// Tells the pod to which the entry belongs, if it is there. A failure is logged: nothing depends on events.
    pub(crate) async fn tell(&self, id: EntryId, entry: &Entry, news: News) {
        if let Err(error) = self.try_tell(id, entry, news).await {
            tracing::warn!(%id, %error, "could not write an event for the pod of ledger entry {id}: {error}");
        }
    }

    async fn try_tell(&self, id: EntryId, entry: &Entry, news: News) -> Result<(), Failure> {
        let namespace = &entry.pod.namespace;
        let claims = self.pods.claims_in(namespace).await.map_err(Failure::Pods)?;
        let Some(Claimant { name, uid }) = claims.holder(id, entry) else { return Ok(()) };
        self.publish(namespace, name, uid, &news.event(&entry.database)).await.map_err(Failure::Refused)
    }

    /// Writes an event on a pod that is known.
    pub(crate) async fn publish(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        event: &Event,
    ) -> Result<(), kube::Error> {
        let pod = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.recorder.publish(event, &pod).await
    }
}

impl News {
    fn event(self, database: &str) -> Event {
        let (reason, note) = match self {
            Self::Ending(left) => (
                ENDING,
                format!(
                    "vault-db-injector: the credential for database {database} ends in {left:.0?} at its max_ttl, and no renewal \
                     takes it further: restart the pod before, or raise max_ttl of the database role"
                ),
            ),
            Self::Lost => (
                LOST,
                format!(
                    "vault-db-injector: the credential for database {database} no longer exists; restart the pod to get another"
                ),
            ),
        };
        Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(note),
            action: "Renew".into(),
            secondary: None,
        }
    }
}

impl std::fmt::Debug for PodEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodEvents").field("pods", &self.pods).finish_non_exhaustive()
    }
}
