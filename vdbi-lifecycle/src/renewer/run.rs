//! Does what the plan says, while the term lasts.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use vdbi_core::{
    credential::CredentialSource,
    leadership::{Term, WorkError},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner},
    metrics::Registry,
};

use super::{
    metrics::Metrics,
    plan::{Attempt, Plan},
};
use crate::budget::Budget;

/// Requests to the backend that one renewal costs: the token and the lease.
const COST: f64 = 2.0;

/// How a renewer works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which entries are ours.
    pub owner: Owner,
    /// The fraction of a credential's time to live after which it is renewed.
    pub renew_at: f64,
    /// How often the ledger is listed for new entries.
    pub scan_interval: Duration,
    /// Requests per second to the backend, at most.
    pub rate: f64,
    /// Renewals under way at once, at most.
    pub max_in_flight: usize,
}

/// Renews the credentials in a ledger. Clones share it; each term gets one [`Renewer::run`].
pub struct Renewer<S, L> {
    source: Arc<S>,
    ledger: Arc<L>,
    settings: Settings,
    metrics: Arc<Metrics>,
}

impl<S, L> Clone for Renewer<S, L> {
    fn clone(&self) -> Self {
        let Self { source, ledger, settings, metrics } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            settings: settings.clone(),
            metrics: metrics.clone(),
        }
    }
}

/// What came of one task.
struct Outcome {
    id: EntryId,
    attempt: Attempt,
    /// The entry, once it was read: it is read once in a term.
    entry: Option<Arc<Entry>>,
}

impl<S: CredentialSource, L: Ledger> Renewer<S, L> {
    /// A renewer that has yet to be run.
    pub fn new(source: S, ledger: L, settings: Settings, registry: &Registry) -> Self {
        let metrics = Arc::new(Metrics::new(registry));
        Self { source: Arc::new(source), ledger: Arc::new(ledger), settings, metrics }
    }

    /// Renews until the term is over: the work for [`Leadership::run`](vdbi_core::leadership::Leadership::run).
    ///
    /// # Errors
    ///
    /// None at present; failures are retried by themselves.
    pub async fn run(self, term: Term) -> Result<(), WorkError> {
        let started = Instant::now();
        let mut plan = Plan::new(self.settings.renew_at);
        let mut budget = Budget::new(self.settings.rate);
        let mut entries: HashMap<EntryId, Arc<Entry>> = HashMap::new();
        let mut in_flight = JoinSet::new();
        let mut scan = tokio::time::interval(self.settings.scan_interval);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);

        while term.check().is_ok() {
            let now = started.elapsed();
            let due = plan.next_due().map(|due| due.max(budget.ready_at(now)));
            let room = in_flight.len() < self.settings.max_in_flight;
            tokio::select! {
                () = term.over() => break,
                _ = scan.tick() => {
                    if let Some(listed) = self.scan(&term).await {
                        entries.retain(|id, _| listed.contains(id));
                        plan.reconcile(started.elapsed(), &listed);
                    }
                }
                Some(finished) = in_flight.join_next() => match finished {
                    Ok(Outcome { id, attempt, entry }) => {
                        if let Some(entry) = entry {
                            entries.insert(id, entry);
                        }
                        plan.settle(id, started.elapsed(), &attempt, rand::random());
                    }
                    Err(error) => return Err(error.into()),
                },
                () = tokio::time::sleep_until(started + due.unwrap_or_default()), if due.is_some() && room => {
                    let now = started.elapsed();
                    if let Some(id) = plan.take_due(now) {
                        let known = entries.get(&id).cloned();
                        budget.spend(now, COST + if known.is_some() { 0.0 } else { 1.0 });
                        in_flight.spawn(self.clone().renew(term.clone(), id, known));
                    }
                }
            }
            self.metrics.active.set(plan.active() as f64);
        }
        // What has begun is finished, as far as the term lets it.
        while in_flight.join_next().await.is_some() {}
        self.metrics.active.set(0.0);
        Ok(())
    }

    async fn scan(&self, term: &Term) -> Option<HashSet<EntryId>> {
        match term.wait(self.ledger.list()).await.ok()? {
            Ok(ids) => {
                self.metrics.scans.increment(1);
                self.metrics.last_scan.set(Timestamp::now().as_second() as f64);
                Some(ids.into_iter().collect())
            }
            Err(error) => {
                self.metrics.scan_error.increment(1);
                tracing::warn!(%error, "could not list the ledger for new entries: {error}");
                None
            }
        }
    }

    async fn renew(self, term: Term, id: EntryId, known: Option<Arc<Entry>>) -> Outcome {
        let outcome = |attempt, entry| Outcome { id, attempt, entry };
        let retry = Attempt::Failed(vdbi_core::credential::Advice::Retry);
        let entry = match known {
            Some(entry) => entry,
            None => match term.wait(self.ledger.read(id)).await {
                Ok(Ok(Some(stored))) => Arc::new(stored.entry),
                // A standby may lag behind: the next scan knows whether the entry is gone.
                Ok(Ok(None)) => return outcome(retry, None),
                Ok(Err(error)) => {
                    tracing::warn!(%id, %error, "could not read ledger entry {id}: {error}");
                    let corrupt = matches!(error, LedgerError::Corrupt { .. });
                    return outcome(if corrupt { Attempt::NotOurs } else { retry }, None);
                }
                Err(_over) => return outcome(retry, None),
            },
        };
        // An entry of the Go product names no owner. Keeping it alive harms nobody.
        if entry.owner.as_ref().is_some_and(|owner| *owner != self.settings.owner) {
            return outcome(Attempt::NotOurs, Some(entry));
        }
        let Ok(result) = term.run(self.source.renew(&entry.lease)).await else {
            return outcome(retry, Some(entry));
        };
        let (namespace, pod) = (&entry.pod.namespace, &entry.pod);
        let attempt = match result {
            Ok(renewed) => {
                self.metrics.renewed(namespace);
                tracing::debug!(%id, %pod, ttl = ?renewed.ttl, "renewed the credential of pod {pod}");
                Attempt::Renewed(renewed.ttl)
            }
            Err(error) => {
                self.metrics.failed(namespace, error.label());
                let attempt = Attempt::from(&error);
                if matches!(attempt, Attempt::Lost) {
                    self.metrics.lost(namespace);
                    tracing::error!(
                        %id, %pod, database = entry.database, %error,
                        "pod {pod} has lost its credential for database {}: restart the pod: {error}", entry.database
                    );
                } else {
                    tracing::warn!(%id, %pod, %error, "could not renew the credential of pod {pod}: {error}");
                }
                attempt
            }
        };
        outcome(attempt, Some(entry))
    }
}

impl<S, L> std::fmt::Debug for Renewer<S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewer").field("settings", &self.settings).finish_non_exhaustive()
    }
}
