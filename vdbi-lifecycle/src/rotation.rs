//! Another credential for a pod before its own reaches its maximum.
//!
//! A credential in the pod's environment is part of its specification, so only another pod gets another credential. A pod that
//! asks for it by annotation ([`Rotation`](vdbi_core::annotation::Rotation)) is evicted while its credential still works: its
//! controller makes a pod in its place, which the webhook gives a credential of its own, and the revoker ends the old one when
//! the old pod has ended.
//!
//! # Guarantees
//!
//! - Disruption budgets are respected, and so is the pod's grace period: it is the eviction API that is used.
//! - Of one owner (the controller of the pods) one pod is evicted at a time, the one first whose credential dies first. The next
//!   one's turn comes when all pods of the owner are ready and as many as before. That is waited for as long as the lives of those
//!   that wait allow, with a little time for each.
//! - Few at once in the whole cluster, and spread over some time; more only where some would otherwise be too late.
//! - Exactly the pod that holds the credential is evicted, by its uid. One without a controller is not, since nobody would make it
//!   anew, and one that ends already is left alone.
//! - Nothing is evicted after the [`Term`].
//!
//! # Assumptions
//!
//! - The client has no retries of its own (`kube::Config::default_retry = false`): a budget's refusal is an answer, not a failure.
//! - A leader that takes over knows nothing of what the one before it evicted, and one of a shard nothing of what the others evict,
//!   only what it sees: pods that end and pods that are not ready. Two shards that look within the same moment may evict a pod each.

use std::{fmt, sync::Arc};

use kube::Client;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::{JoinError, JoinSet},
};
use vdbi_core::{leadership::Term, ledger::Entry, metrics::Registry};

use crate::{
    events::PodEvents,
    renewer::plan::{Attempt, Task},
    shard::Shard,
};

pub mod metrics;
mod plan;

mod evict;
mod look;
mod run;

use metrics::Metrics;
use plan::{Fate, Note};

/// How pods are rotated: made by [`Settings::new`], and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The label, with the value `true`, of the pods that take part.
    pub label: String,
    /// Rotations under way at once, at most, while there is time: 5.
    pub max_in_flight: usize,
}

impl Settings {
    /// The pods that carry `label` with the value `true`, and the defaults of the configuration, which the fields tell.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), max_in_flight: 5 }
    }
}

/// Rotates the pods whose credentials a [`Renewer`](crate::renewer::Renewer) finds to end: see
/// [`Renewer::with_rotation`](crate::renewer::Renewer::with_rotation). Needs the verbs list on pods and create on
/// `pods/eviction`.
#[derive(Clone)]
pub struct Rotation {
    client: Client,
    events: PodEvents,
    settings: Settings,
    metrics: Arc<Metrics>,
}

impl Rotation {
    /// Evicts over `client`, and tells the pods by `events`.
    pub fn new(client: Client, events: PodEvents, settings: Settings, registry: &Registry) -> Self {
        Self { client, events, settings, metrics: Arc::new(Metrics::new(registry)) }
    }

    /// Rotates in this term what it is told of; the leader of a shard, with an even share of the rotations under way.
    pub(crate) fn begin(&self, term: Term, shard: Shard) -> Rotating {
        let (notes, received) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(self.clone().run(term, shard, received));
        Rotating { notes, task }
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The rotation of one term.
pub(crate) struct Rotating {
    notes: UnboundedSender<Note>,
    task: JoinSet<()>,
}

impl Rotating {
    /// Tells how a renewal ended.
    pub(crate) fn note(&self, task: Task, entry: &Arc<Entry>, attempt: &Attempt) {
        let fate = match attempt {
            Attempt::Renewed(renewed) if renewed.capped => Fate::EndsIn(renewed.ttl),
            Attempt::Renewed(_) | Attempt::Endless => Fate::GoesOn,
            Attempt::Lost => Fate::Lost,
            Attempt::Found(_) | Attempt::NotOurs | Attempt::Failed(_) => return,
        };
        // Whoever would read it is gone only when the term is over, or by a panic that `broken` tells.
        let _gone = self.notes.send(Note { task, entry: entry.clone(), fate });
    }

    /// Resolves when it has panicked.
    pub(crate) async fn broken(&mut self) -> JoinError {
        loop {
            match self.task.join_next().await {
                Some(Err(error)) => return error,
                // It has ended with the term.
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Finishes what has begun, as far as the term lets it.
    pub(crate) async fn finish(mut self) {
        drop(self.notes);
        while self.task.join_next().await.is_some() {}
    }
}
