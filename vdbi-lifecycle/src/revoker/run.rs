//! Compares, and revokes what the comparison found, while the term lasts.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::pending,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use vdbi_core::{
    credential::CredentialSource,
    leadership::{Term, TermOver, WorkError},
    ledger::{Entry, EntryId, Ledger, LedgerError},
    metrics::Registry,
};

use super::{
    compare::{Finding, Occasion, Rules},
    metrics::Metrics,
};
use crate::pods::{Change, Claims, Pods};

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a list of pods may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// How a revoker works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When a pod counts as done.
    pub rules: Rules,
    /// How often the whole ledger is compared with the live pods.
    pub interval: Duration,
    /// Requests under way at once, at most.
    pub max_in_flight: usize,
}

/// Revokes the credentials of pods that are done. Clones share it; each term gets one [`Revoker::run`].
pub struct Revoker<S, L> {
    source: Arc<S>,
    ledger: Arc<L>,
    pods: Pods,
    settings: Settings,
    metrics: Arc<Metrics>,
}

impl<S, L> Clone for Revoker<S, L> {
    fn clone(&self) -> Self {
        let Self { source, ledger, pods, settings, metrics } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            pods: pods.clone(),
            settings: settings.clone(),
            metrics: metrics.clone(),
        }
    }
}

#[derive(Debug, Error)]
enum SweepError {
    #[error(transparent)]
    Over(#[from] TermOver),
    #[error("could not list the ledger: {0}")]
    Ledger(#[from] LedgerError),
    #[error("could not list pods: {0}")]
    Pods(#[from] kube::Error),
    #[error("could not list pods within {LIST_TIMEOUT:?}")]
    PodsTimeout,
}

/// What the next round looks at.
#[derive(Default)]
struct Agenda {
    everything: bool,
    ended: HashSet<(String, EntryId)>,
}

impl Agenda {
    fn is_empty(&self) -> bool {
        !self.everything && self.ended.is_empty()
    }

    fn add(&mut self, change: Change) {
        match change {
            Change::Ended { namespace, ids } => {
                self.ended.extend(ids.into_iter().map(|id| (namespace.clone(), id)));
            }
            // What ended while nobody watched is found by comparing everything.
            Change::Restarted => self.everything = true,
        }
    }

    fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.ended.extend(other.ended);
    }
}

type Entries = HashMap<EntryId, Arc<Entry>>;

impl<S: CredentialSource, L: Ledger> Revoker<S, L> {
    /// A revoker that has yet to be run.
    pub fn new(source: S, ledger: L, pods: Pods, settings: Settings, registry: &Registry) -> Self {
        let metrics = Arc::new(Metrics::new(registry));
        Self { source: Arc::new(source), ledger: Arc::new(ledger), pods, settings, metrics }
    }

    /// Revokes until the term is over: the work for [`Leadership::run`](vdbi_core::leadership::Leadership::run).
    ///
    /// # Errors
    ///
    /// When the watch on pods ends for good, which starts the work again.
    pub async fn run(self, term: Term) -> Result<(), WorkError> {
        let (sender, mut changes) = mpsc::unbounded_channel();
        let watch = self.pods.changes().for_each(move |change| {
            // The receiver outlives this future.
            let _ = sender.send(change);
            std::future::ready(())
        });
        let rounds = async {
            let mut entries = Entries::new();
            let mut interval = tokio::time::interval(self.settings.interval);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut unfinished = Agenda::default();
            let mut retry_at = Instant::now();
            loop {
                let mut agenda = Agenda::default();
                tokio::select! {
                    () = term.over() => return Ok(()),
                    _ = interval.tick() => agenda.everything = true,
                    change = changes.recv() => match change {
                        Some(change) => agenda.add(change),
                        None => return Err("the watch on pods ended".into()),
                    },
                    () = tokio::time::sleep_until(retry_at), if !unfinished.is_empty() => {
                        agenda = std::mem::take(&mut unfinished);
                    }
                }
                while let Ok(change) = changes.try_recv() {
                    agenda.add(change);
                }
                let left = self.round(&term, agenda, &mut entries).await;
                if !left.is_empty() {
                    retry_at = Instant::now() + RETRY;
                    unfinished.merge(left);
                }
            }
        };
        // Rounds end by themselves, so that no revocation is dropped under way.
        tokio::select! {
            outcome = rounds => outcome,
            never = watch.then(|()| pending()) => never,
        }
    }

    /// One round; returns what has to be done again.
    async fn round(&self, term: &Term, agenda: Agenda, entries: &mut Entries) -> Agenda {
        let mut left = Agenda::default();
        if !agenda.ended.is_empty() {
            match self.follow(term, &agenda.ended, entries).await {
                Ok(failed) => left.ended.extend(failed),
                Err(error) => {
                    self.failed(&error);
                    left.ended = agenda.ended;
                }
            }
        }
        if agenda.everything {
            match self.sweep(term, entries).await {
                Ok(complete) => {
                    self.metrics.sweeps.increment(1);
                    left.everything = !complete;
                }
                Err(error) => {
                    self.failed(&error);
                    left.everything = true;
                }
            }
        }
        left
    }

    fn failed(&self, error: &SweepError) {
        if !matches!(error, SweepError::Over(_)) {
            self.metrics.sweep_error.increment(1);
            tracing::warn!(%error, "could not compare ledger and pods, and will try again: {error}");
        }
    }

    /// Looks at the entries of pods that were seen to end. Returns those that have to be looked at again.
    async fn follow(
        &self,
        term: &Term,
        ended: &HashSet<(String, EntryId)>,
        entries: &mut Entries,
    ) -> Result<Vec<(String, EntryId)>, SweepError> {
        self.read(term, ended.iter().map(|&(_, id)| id), entries).await;
        let mut candidates: BTreeMap<&str, Vec<EntryId>> = BTreeMap::new();
        for (namespace, id) in ended {
            // The annotation is a hint: it says nothing about an entry of another namespace.
            if entries.get(id).is_some_and(|entry| entry.pod.namespace == *namespace) {
                candidates.entry(namespace).or_default().push(*id);
            }
        }
        let mut failed = Vec::new();
        for (namespace, ids) in candidates {
            let claims = list(term, self.pods.claims_in(namespace)).await?;
            let gone = self.judge(&ids, entries, &claims, Occasion::PodEnded);
            let left = self.revoke_all(term, &gone, entries).await;
            failed.extend(left.into_iter().map(|id| (namespace.to_owned(), id)));
        }
        Ok(failed)
    }

    /// Compares the whole ledger with the live pods. Returns whether everything that was found is done.
    async fn sweep(&self, term: &Term, entries: &mut Entries) -> Result<bool, SweepError> {
        let listed: HashSet<EntryId> = term.wait(self.ledger.list()).await??.into_iter().collect();
        entries.retain(|id, _| listed.contains(id));
        let complete = self.read(term, listed.iter().copied(), entries).await;
        // After the ledger was read: an admission that is under way has its entry before its pod exists.
        let claims = list(term, self.pods.labelled_claims()).await?;

        let ids: Vec<EntryId> = entries.keys().copied().collect();
        let mut findings: HashMap<Finding, Vec<EntryId>> = HashMap::new();
        let now = Timestamp::now();
        for &id in &ids {
            let finding = self.settings.rules.judge(id, &entries[&id], &claims, Occasion::Sweep, now);
            findings.entry(finding).or_default().push(id);
        }
        let count = |finding| findings.get(&finding).map_or(0, Vec::len);
        self.metrics.entries(count);
        let ours = ids.len() - count(Finding::Foreign);
        let braked = self.settings.rules.brake(count(Finding::Gone), ours);
        self.metrics.brake.set(if braked { 1.0 } else { 0.0 });
        if braked {
            tracing::error!(
                gone = count(Finding::Gone),
                ours,
                "{} of {ours} credentials seem to have lost their pods: nothing is revoked. Check that the pods carry the \
                 label of injectorLabel; where they really are gone, raise revoker.brakeShare for one sweep",
                count(Finding::Gone)
            );
            return Ok(true);
        }

        let mut candidates: BTreeMap<String, Vec<EntryId>> = BTreeMap::new();
        for id in findings.remove(&Finding::Gone).unwrap_or_default() {
            candidates.entry(entries[&id].pod.namespace.clone()).or_default().push(id);
        }
        let mut done = complete;
        for (namespace, ids) in candidates {
            // A pod that lives without its label keeps its credential.
            let claims = list(term, self.pods.claims_in(&namespace)).await?;
            let gone = self.judge(&ids, entries, &claims, Occasion::Sweep);
            done &= self.revoke_all(term, &gone, entries).await.is_empty();
        }
        Ok(done)
    }

    fn judge(&self, ids: &[EntryId], entries: &Entries, claims: &Claims, occasion: Occasion) -> Vec<EntryId> {
        let now = Timestamp::now();
        let rules = &self.settings.rules;
        let gone = |id: &EntryId| {
            entries
                .get(id)
                .is_some_and(|entry| rules.judge(*id, entry, claims, occasion, now) == Finding::Gone)
        };
        ids.iter().copied().filter(gone).collect()
    }

    /// Reads the entries that are not known yet. Returns whether all could be read.
    async fn read(&self, term: &Term, ids: impl Iterator<Item = EntryId>, entries: &mut Entries) -> bool {
        let unknown: Vec<EntryId> = ids.filter(|id| !entries.contains_key(id)).collect();
        let read = stream::iter(unknown)
            .map(async |id| (id, term.wait(self.ledger.read(id)).await))
            .buffer_unordered(self.settings.max_in_flight);
        let mut complete = true;
        let mut read = pin!(read);
        while let Some((id, result)) = read.next().await {
            match result {
                Ok(Ok(Some(stored))) => {
                    entries.insert(id, Arc::new(stored.entry));
                }
                Ok(Ok(None)) => {}
                Ok(Err(error @ LedgerError::Corrupt { .. })) => {
                    tracing::warn!(%id, %error, "skipping ledger entry {id}: {error}");
                }
                Ok(Err(error)) => {
                    complete = false;
                    tracing::warn!(%id, %error, "could not read ledger entry {id}: {error}");
                }
                Err(_over) => complete = false,
            }
        }
        complete
    }

    /// Returns those that have to be tried again.
    async fn revoke_all(&self, term: &Term, ids: &[EntryId], entries: &mut Entries) -> Vec<EntryId> {
        let gone: Vec<_> = ids.iter().filter_map(|id| Some((*id, entries.get(id)?.clone()))).collect();
        let outcomes: Vec<(EntryId, bool)> = stream::iter(gone)
            .map(async |(id, entry)| (id, self.revoke(term, id, &entry).await))
            .buffer_unordered(self.settings.max_in_flight)
            .collect()
            .await;
        let mut failed = Vec::new();
        for (id, done) in outcomes {
            if done {
                entries.remove(&id);
            } else {
                failed.push(id);
            }
        }
        failed
    }

    /// The entry goes last, so that whatever fails is found again.
    async fn revoke(&self, term: &Term, id: EntryId, entry: &Entry) -> bool {
        let (pod, namespace) = (&entry.pod, &entry.pod.namespace);
        match term.run(self.source.revoke(&entry.lease)).await {
            Ok(Ok(())) => self.metrics.revoked(namespace, true),
            Ok(Err(error)) => {
                self.metrics.revoked(namespace, false);
                tracing::warn!(%id, %pod, %error, "could not revoke the credential of pod {pod}: {error}");
                return false;
            }
            Err(_over) => return false,
        }
        match term.run(self.ledger.forget(id)).await {
            Ok(Ok(())) => self.metrics.forgotten(namespace, true),
            Ok(Err(error)) => {
                self.metrics.forgotten(namespace, false);
                tracing::warn!(%id, %pod, %error, "could not remove ledger entry {id}: {error}");
                return false;
            }
            Err(_over) => return false,
        }
        tracing::info!(
            %id, %pod, database = entry.database,
            "revoked the credential of pod {pod} for database {}", entry.database
        );
        true
    }
}

async fn list(
    term: &Term,
    claims: impl Future<Output = Result<Claims, kube::Error>>,
) -> Result<Claims, SweepError> {
    let listed = term.wait(tokio::time::timeout(LIST_TIMEOUT, claims)).await?;
    Ok(listed.map_err(|_| SweepError::PodsTimeout)??)
}

impl<S, L> std::fmt::Debug for Revoker<S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revoker").field("settings", &self.settings).finish_non_exhaustive()
    }
}
