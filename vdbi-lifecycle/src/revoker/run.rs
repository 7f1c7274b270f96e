//! Compares, and revokes what the comparison found, while the term lasts.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tokio::{task::JoinSet, time::Instant};
use vdbi_core::{
    credential::CredentialSource,
    leadership::{Term, WorkError},
    ledger::{Entry, EntryId, Ledger, Owner},
    metrics::Registry,
};

use super::{
    compare::Rules,
    metrics::Metrics,
    queue::{Queue, Step},
};
use crate::{
    budget::{Budget, SLOW},
    pods::{Change, Claimant, Ending, Pods},
    shard::Shard,
};

mod bind;
mod findings;
mod revoke;

use findings::{Findings, SweepError};
use revoke::Unrevoked;

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Look-ups of pods that were seen to end, at once.
const CHECKS: usize = 4;

/// So many that wait for their look-up are looked at together: lists cost less then.
const MANY: usize = 16;

/// Entries that are bound to their pods at once.
const BINDINGS: usize = 2;

/// The requests of one: the entry is read, written and noted.
const BINDING_REQUESTS: u32 = 3;

/// From one to the next while there is something to revoke, at least. Otherwise as long as the last one took: nobody waits for it, and
/// a backend that is busy with something else takes longer.
const BINDING_PAUSE: Duration = Duration::from_millis(20);

/// Longer than any term.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a revoker works: made by [`Settings::new`], and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// When a pod counts as done.
    pub rules: Rules,
    /// How often the whole ledger is compared with the live pods: 300 s.
    pub interval: Duration,
    /// Requests per second to the backend for revocations, at most: 1,000.
    pub rate: f64,
    /// Requests under way at once, at most: 16.
    pub max_in_flight: usize,
    /// Whether an entry that is taken over from the Go product keeps the raw token beside its accessor, for a way back:
    /// not by default.
    pub keep_raw_tokens: bool,
}

impl Settings {
    /// The defaults of the configuration, which the fields tell.
    pub fn new(owner: Owner) -> Self {
        Self {
            rules: Rules::new(owner),
            interval: Duration::from_secs(300),
            rate: 1000.0,
            max_in_flight: 16,
            keep_raw_tokens: false,
        }
    }
}

/// Revokes the credentials of pods that are done. Clones share it; each term gets one [`Revoker::run`].
///
/// ```
/// # use std::time::Duration;
/// # use tokio_util::sync::CancellationToken;
/// # use vdbi_core::{
/// #     credential::{CredentialRequest, CredentialSource}, ledger::{Entry, EntryId, Ledger, Owner},
/// #     leadership::{AlwaysLeader, Leadership}, memory::{MemoryLedger, MemorySource, kubernetes::KubernetesApi},
/// #     metrics::Registry, pod::PodRef,
/// # };
/// use vdbi_lifecycle::{pods::Pods, revoker::{Revoker, Settings}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (source, ledger, shutdown) = (MemorySource::new(), MemoryLedger::new(), CancellationToken::new());
/// # let owner = Owner { cluster: "c".into(), release: "r".into() };
/// # let client = KubernetesApi::new().client();
/// # source.allow("app", "shop", "web");
/// # let pod = PodRef { namespace: "shop".into(), service_account: "web".into(), ..PodRef::default() };
/// # let request = CredentialRequest { pod: pod.clone(), database: "main".into(), engine: "db".into(), role: "app".into() };
/// # let lease = source.issue(&request).await?.lease;
/// # let entry = Entry {
/// #     lease, owner: Some(owner.clone()), pod, database: "main".into(), role: "app".into(),
/// #     issued_at: Some("2026-01-01T00:00:00Z".parse()?), ttl: None, raw_token: None,
/// # };
/// # ledger.record(EntryId::random(), &entry).await?;
/// let mut settings = Settings::new(owner);
/// settings.rules.grace_period = Duration::from_secs(30);
/// // The pods that carry the label `vault-db-injector: "true"`.
/// let pods = Pods::new(client, "vault-db-injector");
/// let revoker = Revoker::new(source.clone(), ledger.clone(), pods, settings, &Registry::disabled());
/// let leadership = AlwaysLeader::new("my-operator-0");
/// # let revoked = async {
/// #     while !ledger.entries().is_empty() {
/// #         tokio::time::sleep(Duration::from_millis(5)).await;
/// #     }
/// #     shutdown.cancel();
/// # };
/// # let work = async {
/// leadership.run(move |term| revoker.clone().run(term), shutdown.clone()).await
/// # };
/// # tokio::join!(work, revoked).0?;
/// # assert!(source.leases().is_empty());
/// # Ok(())
/// # }
/// ```
pub struct Revoker<S, L> {
    source: Arc<S>,
    ledger: Arc<L>,
    pods: Pods,
    settings: Settings,
    shard: Shard,
    metrics: Arc<Metrics>,
    binding_reported: Arc<AtomicBool>,
}

impl<S, L> Clone for Revoker<S, L> {
    fn clone(&self) -> Self {
        let Self { source, ledger, pods, settings, shard, metrics, binding_reported } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            pods: pods.clone(),
            settings: settings.clone(),
            shard: *shard,
            metrics: metrics.clone(),
            binding_reported: binding_reported.clone(),
        }
    }
}

/// A pod that was seen to end, and the entries that it listed.
#[derive(Clone)]
struct Ended {
    namespace: String,
    claimant: Claimant,
    /// Whether it has been removed for certain: its own entries need no look-up of it.
    removed: bool,
    /// As of which resourceVersion.
    version: Option<String>,
    ids: Vec<EntryId>,
    /// When it was seen.
    at: Instant,
}

type Entries = HashMap<EntryId, Arc<Entry>>;

/// What one term knows.
struct Work {
    started: Instant,
    entries: Entries,
    queue: Queue,
    budget: Budget,
    /// Since when each credential in the queue has been known to be without its pod.
    since: HashMap<EntryId, Instant>,
    /// Pods that were seen to end and have not been looked at.
    ended: VecDeque<Ended>,
    /// When they are looked at again after a failure.
    retry_at: Instant,
    sweep_at: Instant,
    sweeping: bool,
    /// Pods that list entries which are not known to be bound.
    unbound: BTreeMap<EntryId, (String, Claimant)>,
    binding: HashSet<EntryId>,
    /// When the next one is bound.
    bind_at: Instant,
    /// Not to be bound before the next sweep: it failed, or the entry is not that of the pod that lists it.
    unbindable: HashSet<EntryId>,
    /// Revoked since the sweep under way began: it may still know them.
    revoked: HashSet<EntryId>,
    checking: usize,
    revoking: usize,
    tasks: JoinSet<Done>,
}

/// What came of one task.
enum Done {
    Checked {
        ended: Vec<Ended>,
        outcome: Result<Findings, SweepError>,
    },
    Swept(Result<Findings, SweepError>),
    /// With the entry as it is now, if it is bound.
    Bound {
        id: EntryId,
        entry: Option<Arc<Entry>>,
        took: Duration,
    },
    /// What came of one step.
    Revoked {
        id: EntryId,
        step: Step,
        outcome: Result<(), Unrevoked>,
        took: Duration,
    },
}

impl<S: CredentialSource, L: Ledger> Revoker<S, L> {
    /// A revoker that has yet to be run.
    pub fn new(source: S, ledger: L, pods: Pods, settings: Settings, registry: &Registry) -> Self {
        let metrics = Arc::new(Metrics::new(registry));
        let (source, ledger) = (Arc::new(source), Arc::new(ledger));
        let shard = Shard::WHOLE;
        Self { source, ledger, pods, settings, shard, metrics, binding_reported: Arc::default() }
    }

    /// What the leader of one shard runs, of a revoker of the whole ledger: it revokes the entries of that shard, with an even share
    /// of the rate, of the revocations under way and of what the brake lets pass.
    #[must_use]
    pub fn for_shard(mut self, shard: Shard) -> Self {
        self.settings.rate /= f64::from(shard.count());
        self.settings.max_in_flight = shard.share_of(self.settings.max_in_flight);
        self.settings.rules.brake_minimum = shard.share_of(self.settings.rules.brake_minimum);
        Self { shard, ..self }
    }

    /// Revokes until the term is over: the work for [`Leadership::run`](vdbi_core::leadership::Leadership::run).
    ///
    /// # Errors
    ///
    /// When the watch on pods ends for good, which starts the work again.
    pub async fn run(self, term: Term) -> Result<(), WorkError> {
        let shard = self.shard;
        let _counted = self.metrics.terms.count(shard);
        let changes = self.pods.changes(self.metrics.watching(shard));
        let mut changes = changes.map(move |change| change.of(shard));
        let now = Instant::now();
        let mut work = Work {
            started: now,
            entries: Entries::new(),
            queue: Queue::default(),
            budget: Budget::new(self.settings.rate),
            since: HashMap::new(),
            ended: VecDeque::new(),
            retry_at: now,
            sweep_at: now,
            sweeping: false,
            unbound: BTreeMap::new(),
            binding: HashSet::new(),
            bind_at: now,
            unbindable: HashSet::new(),
            revoked: HashSet::new(),
            checking: 0,
            revoking: 0,
            tasks: JoinSet::new(),
        };
        let outcome = loop {
            if term.check().is_err() {
                break Ok(());
            }
            self.begin(&mut work, &term);
            let next = work.next(&self.settings);
            tokio::select! {
                () = term.over() => break Ok(()),
                change = changes.next() => match change {
                    Some(change) => {
                        work.note(change);
                        // Those that have arrived with it are looked at together.
                        while let Some(Some(change)) = changes.next().now_or_never() {
                            work.note(change);
                        }
                    }
                    None => break Err("the watch on pods ended".into()),
                },
                Some(finished) = work.tasks.join_next() => self.finish(&mut work, finished?),
                () = tokio::time::sleep_until(next) => {}
            }
        };
        // What has begun is finished, as far as the term lets it.
        while work.tasks.join_next().await.is_some() {}
        outcome
    }

    /// Begins what is due.
    fn begin(&self, work: &mut Work, term: &Term) {
        let now = Instant::now();
        while !work.ended.is_empty() && work.checking < CHECKS && work.retry_at <= now {
            // Each by itself, so that none waits for another.
            let together = if work.ended.len() < MANY { 1 } else { work.ended.len() };
            let ended: Vec<Ended> = work.ended.drain(..together).collect();
            let ids = ended.iter().flat_map(|ended| &ended.ids);
            let known = ids.filter_map(|id| Some((*id, work.entries.get(id)?.clone()))).collect();
            let (revoker, term) = (self.clone(), term.clone());
            work.checking += 1;
            work.tasks.spawn(async move {
                let outcome = revoker.check(&term, &ended, known).await;
                Done::Checked { ended, outcome }
            });
        }
        if !work.sweeping && work.sweep_at <= now {
            let (revoker, term, known) = (self.clone(), term.clone(), work.entries.clone());
            work.sweeping = true;
            work.sweep_at = now + self.settings.interval;
            work.revoked.clear();
            work.unbindable.clear();
            work.tasks.spawn(async move { Done::Swept(revoker.sweep(&term, known).await) });
        }
        let at = now - work.started;
        while work.revoking < self.settings.max_in_flight
            && work.budget.ready_at(at) <= at
            && let Some((id, step)) = work.queue.take_due(at)
        {
            let Some(entry) = work.entries.get(&id).cloned() else {
                work.queue.done(id);
                continue;
            };
            let since = work.since.get(&id).copied().unwrap_or(now);
            let (revoker, term) = (self.clone(), term.clone());
            work.revoking += 1;
            work.budget.spend(at, step.requests());
            work.tasks.spawn(async move {
                let outcome = match step {
                    Step::CutOff => revoker.cut_off(&term, id, &entry, since).await,
                    Step::Clear => revoker.clear(&term, id, &entry).await,
                };
                Done::Revoked { id, step, outcome, took: now.elapsed() }
            });
        }
        if work.binding.len() < BINDINGS
            && work.bind_at <= now
            && work.budget.ready_at(at) <= at
            && let Some((id, (namespace, claimant))) = work.unbound.pop_first()
        {
            let (revoker, term) = (self.clone(), term.clone());
            work.binding.insert(id);
            work.budget.spend(at, BINDING_REQUESTS);
            work.tasks.spawn(async move {
                let entry = revoker.bind(&term, id, &namespace, &claimant).await;
                Done::Bound { id, entry, took: now.elapsed() }
            });
        }
        let (queued, rate) = (work.queue.len(), work.budget.rate());
        self.metrics.terms.tell(self.shard, |found| (found.queued, found.rate) = (queued, rate));
    }

    /// Enters what came of a task.
    fn finish(&self, work: &mut Work, done: Done) {
        let now = Instant::now();
        match done {
            Done::Checked { ended, outcome } => {
                work.checking -= 1;
                match outcome {
                    Ok(findings) => {
                        if !findings.complete {
                            work.again(ended.clone(), now);
                        }
                        let seen = ended.iter().map(|ended| ended.at).min().unwrap_or(now);
                        work.take(findings, seen);
                    }
                    Err(error) => {
                        self.failed(&error);
                        work.again(ended, now);
                    }
                }
            }
            Done::Swept(outcome) => {
                work.sweeping = false;
                match outcome {
                    Ok(findings) => {
                        self.metrics.sweeps.increment(1);
                        if !findings.complete {
                            work.sweep_at = work.sweep_at.min(now + RETRY);
                        }
                        work.entries.retain(|id, _| findings.entries.contains_key(id));
                        work.take(findings, now);
                    }
                    Err(error) => {
                        self.failed(&error);
                        work.sweep_at = work.sweep_at.min(now + RETRY);
                    }
                }
            }
            Done::Bound { id, entry, took } => {
                work.binding.remove(&id);
                let busy = work.checking > 0 || !work.queue.is_empty();
                work.bind_at = now + if busy { took.max(BINDING_PAUSE) } else { took };
                match entry {
                    Some(_) if work.revoked.contains(&id) => {}
                    Some(entry) => drop(work.entries.insert(id, entry)),
                    None => drop(work.unbindable.insert(id)),
                }
            }
            Done::Revoked { id, step, outcome, took } => {
                work.revoking -= 1;
                let failed = match outcome {
                    Ok(()) | Err(Unrevoked::Refused) => Some(false),
                    Err(Unrevoked::Unavailable) => Some(true),
                    Err(Unrevoked::Over) => None,
                };
                if let Some(failed) = failed {
                    work.budget.answered(now - work.started, failed || took > SLOW);
                }
                if outcome.is_err() {
                    work.queue.failed(id, now - work.started, rand::random());
                } else if step == Step::CutOff {
                    work.queue.cut_off(id, now - work.started);
                } else {
                    work.queue.done(id);
                    work.since.remove(&id);
                    work.entries.remove(&id);
                    work.revoked.insert(id);
                }
            }
        }
    }

    fn failed(&self, error: &SweepError) {
        if !matches!(error, SweepError::Over(_)) {
            self.metrics.sweep_error.increment(1);
            tracing::warn!(%error, "could not compare ledger and pods, and will try again: {error}");
        }
    }
}

impl Work {
    fn note(&mut self, change: Change) {
        match change {
            Change::Seen { namespace, claimant, ids } => {
                for id in ids {
                    let known = self.entries.get(&id).is_some_and(|entry| entry.pod.uid.is_some());
                    if !(known || self.binding.contains(&id) || self.unbindable.contains(&id)) {
                        self.unbound.entry(id).or_insert_with(|| (namespace.clone(), claimant.clone()));
                    }
                }
            }
            Change::Ended { namespace, claimant, end, version, mut ids } => {
                ids.iter().for_each(|id| drop(self.unbound.remove(id)));
                ids.retain(|id| !self.revoked.contains(id) && !self.queue.contains(*id));
                if end == Ending::Removing {
                    // Of others it takes requests to know whose they are, and the pod will have been removed by then.
                    let known = |entry: &Arc<Entry>| claimant.is_bound_to(entry) && entry.pod.node.is_none();
                    ids.retain(|id| self.entries.get(id).is_some_and(known));
                }
                if ids.is_empty() {
                    return;
                }
                let (removed, at) = (end != Ending::OutOfSight, Instant::now());
                self.ended.push_back(Ended { namespace, claimant, removed, version, ids, at });
            }
            // What ended while nobody watched is found by comparing everything.
            Change::Restarted => self.sweep_at = Instant::now(),
        }
    }

    /// When the next thing is due that is not an answer or a change.
    fn next(&self, settings: &Settings) -> Instant {
        let mut next = if self.sweeping { self.started + FAR } else { self.sweep_at };
        if !self.ended.is_empty() && self.checking < CHECKS {
            next = next.min(self.retry_at);
        }
        if self.revoking < settings.max_in_flight
            && let Some(due) = self.queue.next_due()
        {
            let due = due.max(self.budget.ready_at(self.started.elapsed()));
            next = next.min(self.started + due);
        }
        if self.binding.len() < BINDINGS && !self.unbound.is_empty() {
            let paced = self.started + self.budget.ready_at(self.started.elapsed());
            next = next.min(self.bind_at.max(paced));
        }
        next
    }

    /// Takes over what a comparison found; `since` is when it was seen.
    fn take(&mut self, findings: Findings, since: Instant) {
        let Findings { entries, gone, unbound, complete: _ } = findings;
        for (id, claimant) in unbound {
            let namespace = entries[&id].pod.namespace.clone();
            self.unbound.entry(id).or_insert((namespace, claimant));
        }
        self.entries.extend(entries.into_iter().filter(|(id, _)| !self.revoked.contains(id)));
        for id in gone.into_iter().filter(|id| !self.revoked.contains(id)) {
            self.since.entry(id).or_insert(since);
            self.queue.add(id, self.started.elapsed());
        }
    }

    /// Pods that have to be looked at again, after a pause.
    fn again(&mut self, ended: Vec<Ended>, now: Instant) {
        self.ended.extend(ended);
        self.retry_at = now + RETRY;
    }
}

impl<S, L> std::fmt::Debug for Revoker<S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revoker").field("settings", &self.settings).finish_non_exhaustive()
    }
}
