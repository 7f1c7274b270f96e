//! Does what the plan says, while the term lasts.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior},
};
use vdbi_core::{
    credential::{Advice, CredentialSource, SourceError},
    leadership::{Term, WorkError},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner},
    metrics::Registry,
};

use super::{
    budget::Budget,
    metrics::Metrics,
    plan::{Attempt, Life, Plan, Step, Task},
};
use crate::{
    events::{News, PodEvents},
    rotation::{Rotating, Rotation},
};

/// A request that takes longer is a sign of overload.
const SLOW: Duration = Duration::from_secs(2);

/// How often the metrics are brought up to date.
const SUMMARY: Duration = Duration::from_secs(5);

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

/// Renews the credentials in a ledger. Clones share it; each term gets one [`Renewer::run`]. It never revokes.
pub struct Renewer<S, L> {
    source: Arc<S>,
    ledger: Arc<L>,
    settings: Settings,
    metrics: Arc<Metrics>,
    events: Option<PodEvents>,
    rotation: Option<Rotation>,
}

impl<S, L> Clone for Renewer<S, L> {
    fn clone(&self) -> Self {
        let Self { source, ledger, settings, metrics, events, rotation } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            settings: settings.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
            rotation: rotation.clone(),
        }
    }
}

/// What came of one task.
struct Outcome {
    task: Task,
    attempt: Attempt,
    /// The entry, once it was read: it is read once in a term.
    entry: Option<Arc<Entry>>,
    /// Whether the backend failed or was slow; `None` when it was not asked.
    bad: Option<bool>,
}

/// What one term knows.
struct Work {
    plan: Plan,
    budget: Budget,
    entries: HashMap<EntryId, Arc<Entry>>,
    in_flight: JoinSet<Outcome>,
    /// Events under way.
    telling: JoinSet<()>,
    rotating: Option<Rotating>,
    /// Requests since the last summary.
    requests: u32,
}

impl<S: CredentialSource, L: Ledger> Renewer<S, L> {
    /// A renewer that has yet to be run.
    pub fn new(source: S, ledger: L, settings: Settings, registry: &Registry) -> Self {
        let metrics = Arc::new(Metrics::new(registry));
        let (source, ledger) = (Arc::new(source), Arc::new(ledger));
        Self { source, ledger, settings, metrics, events: None, rotation: None }
    }

    /// Also tells the pods concerned when a credential is lost, or ends at its maximum.
    #[must_use]
    pub fn with_events(self, events: PodEvents) -> Self {
        Self { events: Some(events), ..self }
    }

    /// Also has pods that ask for it replaced before their credential ends at its maximum.
    #[must_use]
    pub fn with_rotation(self, rotation: Rotation) -> Self {
        Self { rotation: Some(rotation), ..self }
    }

    /// Renews until the term is over: the work for [`Leadership::run`](vdbi_core::leadership::Leadership::run).
    ///
    /// # Errors
    ///
    /// None at present; failures are retried by themselves.
    pub async fn run(self, term: Term) -> Result<(), WorkError> {
        let started = Instant::now();
        let mut work = Work {
            plan: Plan::new(self.settings.renew_at),
            budget: Budget::new(self.settings.rate),
            entries: HashMap::new(),
            in_flight: JoinSet::new(),
            telling: JoinSet::new(),
            rotating: self.rotation.as_ref().map(|rotation| rotation.begin(term.clone())),
            requests: 0,
        };
        let mut scan = tokio::time::interval(self.settings.scan_interval);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut summary = tokio::time::interval(SUMMARY);

        while term.check().is_ok() {
            let now = started.elapsed();
            let due = work.plan.next_due(now).map(|due| due.max(work.budget.ready_at(now)));
            let room = work.in_flight.len() < self.settings.max_in_flight;
            tokio::select! {
                () = term.over() => break,
                _ = summary.tick() => {
                    let used = f64::from(work.requests) / (self.settings.rate * SUMMARY.as_secs_f64());
                    work.requests = 0;
                    self.metrics.works(work.plan.summary(now), work.budget.rate(), used);
                }
                _ = scan.tick() => {
                    if let Some(listed) = self.scan(&term).await {
                        work.entries.retain(|id, _| listed.contains(id));
                        work.plan.reconcile(started.elapsed(), &listed);
                    }
                }
                Some(finished) = work.in_flight.join_next() => self.settle(&mut work, finished?, started.elapsed()),
                Some(_) = work.telling.join_next() => {}
                error = broken(&mut work.rotating) => return Err(error.into()),
                () = tokio::time::sleep_until(started + due.unwrap_or_default()), if due.is_some() && room => {
                    let now = started.elapsed();
                    if let Some(task) = work.plan.take_due(now) {
                        work.budget.spend(now);
                        work.requests += 1;
                        let known = work.entries.get(&task.id).cloned();
                        work.in_flight.spawn(self.clone().perform(term.clone(), task, known));
                    }
                }
            }
        }
        // What has begun is finished, as far as the term lets it.
        while work.in_flight.join_next().await.is_some() {}
        if let Some(rotating) = work.rotating {
            rotating.finish().await;
        }
        self.metrics.idle();
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

    /// Enters what came of a task, and tells whom it concerns.
    fn settle(&self, work: &mut Work, outcome: Outcome, now: Duration) {
        let Outcome { task, attempt, entry, bad } = outcome;
        if let Some(bad) = bad {
            work.budget.answered(now, bad);
        }
        if let (Some(entry), Attempt::Found(_)) = (&entry, &attempt) {
            work.entries.insert(task.id, entry.clone());
        }
        let ending = work.plan.settle(task, now, &attempt, rand::random());
        let Some(entry) = entry else { return };
        if let Some(rotating) = &work.rotating {
            rotating.note(task, &entry, &attempt);
        }
        let news = match attempt {
            Attempt::Renewed(renewed) if ending => News::Ending(renewed.ttl),
            Attempt::Lost => News::Lost,
            _ => return,
        };
        let (pod, database) = (&entry.pod, &entry.database);
        match news {
            News::Ending(left) => {
                self.metrics.ending(&pod.namespace);
                tracing::warn!(
                    id = %task.id, %pod, %database, ?left,
                    "the credential of pod {pod} for database {database} ends in {left:.0?} at its max_ttl, and no renewal takes \
                     it further: restart the pod before, or raise max_ttl of the database role"
                );
            }
            News::Lost => self.metrics.lost(&pod.namespace),
        }
        if let Some(events) = self.events.clone() {
            work.telling.spawn(async move { events.tell(task.id, &entry, news).await });
        }
    }

    async fn perform(self, term: Term, task: Task, known: Option<Arc<Entry>>) -> Outcome {
        let begun = Instant::now();
        let (attempt, entry, failed) = match (task.step, known) {
            (Step::Read, _) | (_, None) => self.read(&term, task.id).await,
            (step, Some(entry)) => {
                let (attempt, failed) = self.renew(&term, task.id, step, &entry).await;
                (attempt, Some(entry), failed)
            }
        };
        Outcome { task, attempt, entry, bad: failed.map(|failed| failed || begun.elapsed() > SLOW) }
    }

    async fn read(&self, term: &Term, id: EntryId) -> (Attempt, Option<Arc<Entry>>, Option<bool>) {
        let retry = Attempt::Failed(Advice::Retry);
        let entry = match term.wait(self.ledger.read(id)).await {
            Ok(Ok(Some(stored))) => stored.entry,
            // A standby may lag behind: the next scan knows whether the entry is gone.
            Ok(Ok(None)) => return (retry, None, Some(false)),
            Ok(Err(error)) => {
                tracing::warn!(%id, %error, "could not read ledger entry {id}: {error}");
                let corrupt = matches!(error, LedgerError::Corrupt { .. });
                let attempt = if corrupt { Attempt::NotOurs } else { retry };
                return (attempt, None, Some(matches!(error, LedgerError::Unavailable(_))));
            }
            Err(_over) => return (retry, None, None),
        };
        // An entry of the Go product names no owner. Keeping it alive harms nobody.
        if entry.owner.as_ref().is_some_and(|owner| *owner != self.settings.owner) {
            return (Attempt::NotOurs, None, Some(false));
        }
        let age = entry.issued_at.map(|issued_at| Timestamp::now().duration_since(issued_at));
        let life = Life { age: age.and_then(|age| age.try_into().ok()), ttl: entry.ttl };
        (Attempt::Found(life), Some(Arc::new(entry)), Some(false))
    }

    /// Renews lease or token. Answers also whether the backend failed, if it was asked.
    async fn renew(&self, term: &Term, id: EntryId, step: Step, entry: &Entry) -> (Attempt, Option<bool>) {
        let (pod, namespace) = (&entry.pod, &entry.pod.namespace);
        let outcome = match step {
            Step::Token => term.run(self.source.renew_token(&entry.lease)).await,
            Step::Lease | Step::Read => {
                term.run(self.source.renew(&entry.lease)).await.map(|outcome| outcome.map(Some))
            }
        };
        match outcome {
            Ok(Ok(renewed)) => {
                self.metrics.renewed(step, namespace);
                tracing::debug!(%id, %pod, ?step, ?renewed, "renewed the credential of pod {pod}");
                (renewed.map_or(Attempt::Endless, Attempt::Renewed), Some(false))
            }
            Ok(Err(error)) => {
                self.metrics.failed(step, namespace, error.label());
                let attempt = Attempt::from(&error);
                if matches!(attempt, Attempt::Lost) {
                    tracing::error!(
                        %id, %pod, database = entry.database, %error,
                        "pod {pod} has lost its credential for database {}: restart the pod: {error}", entry.database
                    );
                } else {
                    tracing::warn!(%id, %pod, %error, "could not renew the credential of pod {pod}: {error}");
                }
                (attempt, Some(matches!(error, SourceError::Unavailable(_))))
            }
            Err(_over) => (Attempt::Failed(Advice::Retry), None),
        }
    }
}

async fn broken(rotating: &mut Option<Rotating>) -> JoinError {
    match rotating {
        Some(rotating) => rotating.broken().await,
        None => std::future::pending().await,
    }
}

impl<S, L> std::fmt::Debug for Renewer<S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewer").field("settings", &self.settings).finish_non_exhaustive()
    }
}
