//! Tells of containers that run with a placeholder: the plugin was not there when they were created.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio_util::task::TaskTracker;

use crate::{
    metrics::Metrics,
    stub::{Container, ContainerState, Pod},
};

/// The reason of the event on a pod whose container runs with a placeholder.
pub const LEAKED: &str = "PlaceholderLeaked";

/// Writes an event for each. Needs the verbs create and patch on events of `events.k8s.io`.
#[derive(Clone)]
pub struct Leaks {
    recorder: Recorder,
    tracker: TaskTracker,
    /// The ids of containers that were told of: each reconnection shows them again.
    reported: Arc<Mutex<HashSet<String>>>,
}

impl Leaks {
    /// Events in the name of `component`, for instance `vdbi-nri`.
    pub fn new(client: Client, component: &str) -> Self {
        let reporter =
            Reporter { controller: component.to_owned(), instance: std::env::var("POD_NAME").ok() };
        Self {
            recorder: Recorder::new(client, reporter),
            tracker: TaskTracker::new(),
            reported: Arc::default(),
        }
    }

    /// Reports those that run. It does not wait for the API server.
    pub(crate) fn report<'a>(
        &self,
        leaking: impl Iterator<Item = (&'a Pod, &'a Container)>,
        metrics: &Metrics,
    ) {
        for (pod, container) in leaking.filter(|(_, container)| container.state == ContainerState::Running) {
            if !self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(container.id.clone()) {
                continue;
            }
            let Pod { namespace, name, uid, .. } = pod;
            tracing::error!(
                namespace,
                pod = name,
                container = container.name,
                "container {} of pod {namespace}/{name} runs with a placeholder instead of its credential: restart the pod, and see \
                 that the node plugin runs before it and that nri.tripwire is on",
                container.name
            );
            metrics.leaked.increment(1);
            let reference = ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            };
            let (recorder, event) = (self.recorder.clone(), event(&container.name));
            self.tracker.spawn(async move {
                if let Err(error) = recorder.publish(&event, &reference).await {
                    tracing::warn!(%error, "could not write an event for a pod with a placeholder: {error}");
                }
            });
        }
    }
}

fn event(container: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: LEAKED.into(),
        note: Some(format!(
            "vault-db-injector: container {container} runs with a placeholder instead of its credential, since the node plugin was \
             not there when it was created: restart the pod"
        )),
        action: "Create".into(),
        secondary: None,
    }
}

impl std::fmt::Debug for Leaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaks")
    }
}
