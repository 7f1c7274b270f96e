//! Does what the plan says, while the term lasts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior},
};
use vdbi_core::{
    credential::{Advice, CredentialSource, SourceError},
    leadership::{Term, WorkError},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner, Stored},
    metrics::Registry,
};

use super::{
    metrics::{Metrics, Works},
    plan::{Attempt, Life, Plan, Step, Task},
};
use crate::{
    budget::{Budget, SLOW},
    events::{News, PodEvents},
    rotation::{Rotating, Rotation},
    shard::Shard,
};

/// Pause before a ledger that could not be listed is listed again.
const SCAN_RETRY: Duration = Duration::from_secs(5);

/// How long after the end of a lease its entry may still be in the ledger: the revoker removes it last.
const REVOCATION: Duration = Duration::from_secs(1);

/// How often the metrics are brought up to date.
const SUMMARY: Duration = Duration::from_secs(5);

/// How a renewer works: made by [`Settings::new`], and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Which entries are ours.
    pub owner: Owner,
    /// The fraction of a credential's time to live after which it is renewed, between 0 and 1: 0.5.
    pub renew_at: f64,
    /// How often the ledger is listed for new entries: 300 s.
    pub scan_interval: Duration,
    /// Requests per second to the backend, at most: 30.
    pub rate: f64,
    /// Renewals under way at once, at most: 16.
    pub max_in_flight: usize,
    /// Whether each credential has metrics of its own, with the label uuid: not by default.
    pub per_pod_metrics: bool,
}

impl Settings {
    /// The defaults of the configuration, which the fields tell.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            renew_at: 0.5,
            scan_interval: Duration::from_secs(300),
            rate: 30.0,
            max_in_flight: 16,
            per_pod_metrics: false,
        }
    }
}

/// Renews the credentials in a ledger. Clones share it; each term gets one [`Renewer::run`]. It never revokes.
///
/// ```
/// # use std::time::Duration;
/// # use tokio_util::sync::CancellationToken;
/// # use vdbi_core::{
/// #     credential::{CredentialRequest, CredentialSource}, ledger::{Entry, EntryId, Ledger, Owner},
/// #     leadership::{AlwaysLeader, Leadership}, memory::{Lifetimes, MemoryLedger, MemorySource}, metrics::Registry, pod::PodRef,
/// # };
/// use vdbi_lifecycle::renewer::{Renewer, Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (source, ledger, shutdown) = (MemorySource::new(), MemoryLedger::new(), CancellationToken::new());
/// # let owner = Owner { cluster: "c".into(), release: "r".into() };
/// # source.allow("app", "shop", "web");
/// # let lifetimes = |seconds| Lifetimes { ttl: Duration::from_secs(seconds), max_ttl: Duration::from_secs(86400) };
/// # source.set_lifetimes(lifetimes(60));
/// # let pod = PodRef { namespace: "shop".into(), service_account: "web".into(), ..PodRef::default() };
/// # let request = CredentialRequest { pod: pod.clone(), database: "main".into(), engine: "db".into(), role: "app".into() };
/// # let lease = source.issue(&request).await?.lease;
/// # let entry = Entry {
/// #     lease: lease.clone(), owner: Some(owner.clone()), pod, database: "main".into(), role: "app".into(), issued_at: None,
/// #     ttl: None, raw_token: None,
/// # };
/// # ledger.record(EntryId::random(), &entry).await?;
/// let mut settings = Settings::new(owner);
/// settings.renew_at = 0.3;
/// let renewer = Renewer::new(source.clone(), ledger, settings, &Registry::disabled());
/// let leadership = AlwaysLeader::new("my-operator-0");
/// # let renewed = async {
/// #     while source.calls(vdbi_core::memory::SourceOperation::Renew) == 0 {
/// #         tokio::time::sleep(Duration::from_millis(5)).await;
/// #     }
/// #     shutdown.cancel();
/// # };
/// # let work = async {
/// leadership.run(move |term| renewer.clone().run(term), shutdown.clone()).await
/// # };
/// # tokio::join!(work, renewed).0?;
/// # Ok(())
/// # }
/// ```
pub struct Renewer<S, L> {
    source: Arc<S>,
    ledger: Arc<L>,
    settings: Settings,
    shard: Shard,
    metrics: Arc<Metrics>,
    events: Option<PodEvents>,
    rotation: Option<Rotation>,
}

impl<S, L> Clone for Renewer<S, L> {
    fn clone(&self) -> Self {
        let Self { source, ledger, settings, shard, metrics, events, rotation } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            settings: settings.clone(),
            shard: *shard,
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
        let mut metrics = Metrics::new(registry);
        if settings.per_pod_metrics {
            metrics = metrics.per_pod(registry);
        }
        let metrics = Arc::new(metrics);
        let (source, ledger) = (Arc::new(source), Arc::new(ledger));
        Self { source, ledger, settings, shard: Shard::WHOLE, metrics, events: None, rotation: None }
    }

    /// What the leader of one shard runs, of a renewer of the whole ledger: it renews the entries of that shard, with an even share
    /// of the rate and of the renewals under way.
    #[must_use]
    pub fn for_shard(mut self, shard: Shard) -> Self {
        self.settings.rate /= f64::from(shard.count());
        self.settings.max_in_flight = shard.share_of(self.settings.max_in_flight);
        Self { shard, ..self }
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
    /// When a part of it panicked, which starts the work again; failures are retried by themselves.
    pub async fn run(self, term: Term) -> Result<(), WorkError> {
        let started = Instant::now();
        let _counted = self.metrics.count(self.shard);
        let mut work = Work {
            plan: Plan::new(self.settings.renew_at),
            budget: Budget::new(self.settings.rate),
            entries: HashMap::new(),
            in_flight: JoinSet::new(),
            telling: JoinSet::new(),
            rotating: self.rotation.as_ref().map(|rotation| rotation.begin(term.clone(), self.shard)),
            requests: 0,
        };
        let mut scan = tokio::time::interval(self.settings.scan_interval);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut summary = tokio::time::interval(SUMMARY);
        let mut surveyed = false;

        while term.check().is_ok() {
            let now = started.elapsed();
            let due = work.plan.next_due(now).map(|due| due.max(work.budget.ready_at(now)));
            let room = work.in_flight.len() < self.settings.max_in_flight;
            tokio::select! {
                () = term.over() => break,
                _ = summary.tick() => {
                    let limit = self.settings.rate * f64::from(self.shard.count());
                    let used = f64::from(work.requests) / (limit * SUMMARY.as_secs_f64());
                    work.requests = 0;
                    let (summary, rate) = (work.plan.summary(now), work.budget.rate());
                    self.metrics.terms.tell(self.shard, |works| *works = Works { summary, rate, used });
                }
                _ = scan.tick() => match self.scan(&term, surveyed).await {
                    Some(listed) => {
                        surveyed = true;
                        self.take_over(&mut work, listed, started.elapsed());
                    }
                    None => scan.reset_after(SCAN_RETRY),
                },
                Some(finished) = work.in_flight.join_next() => self.settle(&mut work, finished?, started.elapsed()),
                Some(_) = work.telling.join_next() => {}
                error = broken(&mut work.rotating) => return Err(error.into()),
                () = tokio::time::sleep_until(started + due.unwrap_or_default()), if due.is_some() && room => {
                    let now = started.elapsed();
                    if let Some(task) = work.plan.take_due(now) {
                        work.budget.spend(now, 1);
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
        Ok(())
    }

    /// What the ledger lists; once in a term with what it tells of each entry.
    async fn scan(&self, term: &Term, surveyed: bool) -> Option<Vec<(EntryId, Option<Stored>)>> {
        let begun = Instant::now();
        let listed = async {
            if surveyed {
                return Ok(self.ledger.list().await?.into_iter().map(|id| (id, None)).collect());
            }
            self.ledger.survey().await
        };
        match term.wait(listed).await.ok()? {
            Ok(listed) => {
                self.metrics.scans.increment(1);
                self.metrics.scan_duration.record(begun.elapsed());
                self.metrics.last_scan.set(Timestamp::now().as_second() as f64);
                Some(listed.into_iter().filter(|(id, _)| self.shard.covers(*id)).collect())
            }
            Err(error) => {
                self.metrics.scan_error.increment(1);
                tracing::warn!(%error, "could not list the ledger for new entries: {error}");
                None
            }
        }
    }

    /// Takes over what the ledger lists now, and what it told of entries that are new.
    fn take_over(&self, work: &mut Work, listed: Vec<(EntryId, Option<Stored>)>, now: Duration) {
        let ids = listed.iter().map(|(id, _)| *id).collect();
        work.plan.reconcile(now, &ids);
        self.metrics.listed(self.shard, &ids);
        work.entries.retain(|id, _| ids.contains(id));
        for (id, stored) in listed {
            let Some(Stored { entry, .. }) = stored else { continue };
            let attempt = self.look(&entry);
            if matches!(attempt, Attempt::Found(_)) {
                work.entries.insert(id, Arc::new(entry));
            }
            work.plan.told(id, now, &attempt, rand::random());
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
            Err(_over) => return (retry, None, unanswered(term)),
        };
        (self.look(&entry), Some(Arc::new(entry)), Some(false))
    }

    /// What an entry tells.
    fn look(&self, entry: &Entry) -> Attempt {
        // An entry of the Go product names no owner. Keeping it alive harms nobody.
        if entry.owner.as_ref().is_some_and(|owner| *owner != self.settings.owner) {
            return Attempt::NotOurs;
        }
        let age = entry.issued_at.map(|issued_at| Timestamp::now().duration_since(issued_at));
        Attempt::Found(Life { age: age.and_then(|age| age.try_into().ok()), ttl: entry.ttl })
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
                self.metrics.renewed(id, step, namespace, renewed.map(|renewed| renewed.ttl));
                tracing::debug!(%id, %pod, ?step, ?renewed, "renewed the credential of pod {pod}");
                (renewed.map_or(Attempt::Endless, Attempt::Renewed), Some(false))
            }
            Ok(Err(error)) => {
                let attempt = Attempt::from(&error);
                if matches!(attempt, Attempt::Lost) && self.is_not_missed(term, id, entry).await {
                    tracing::debug!(%id, %pod, "the credential of pod {pod} was revoked or replaced since the ledger was listed");
                    return (Attempt::NotOurs, Some(false));
                }
                self.metrics.failed(id, step, namespace, error.label());
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
            Err(_over) => (Attempt::Failed(Advice::Retry), unanswered(term)),
        }
    }

    /// Whether a credential that is gone is missed by nobody: it has lost its entry too, or the node plugin, which alone knows the node
    /// when it writes an entry, has issued another one.
    async fn is_not_missed(&self, term: &Term, id: EntryId, entry: &Entry) -> bool {
        let read = async {
            tokio::time::sleep(REVOCATION).await;
            self.ledger.read(id).await
        };
        match term.wait(read).await {
            Ok(Ok(None)) => true,
            Ok(Ok(Some(_))) if entry.pod.node.is_some() => {
                let successor = term.wait(self.ledger.read(id.successor())).await;
                matches!(successor, Ok(Ok(Some(Stored { entry: other, .. }))) if other.pod.uid == entry.pod.uid)
            }
            _ => false,
        }
    }
}

async fn broken(rotating: &mut Option<Rotating>) -> JoinError {
    match rotating {
        Some(rotating) => rotating.broken().await,
        None => std::future::pending().await,
    }
}

/// Whether a call that ended with what the term had left is a sign of the backend's: the term was prolonged meanwhile.
fn unanswered(term: &Term) -> Option<bool> {
    term.check().is_ok().then_some(true)
}

impl<S, L> std::fmt::Debug for Renewer<S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewer").field("settings", &self.settings).finish_non_exhaustive()
    }
}
