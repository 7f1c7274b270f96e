//! What a comparison of ledger and pods finds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use thiserror::Error;
use vdbi_core::{
    credential::CredentialSource,
    leadership::{Term, TermOver},
    ledger::{EntryId, Ledger, LedgerError},
};

use super::{Ended, Entries, Revoker};
use crate::{
    pods::{Claimant, Claims},
    revoker::compare::{Finding, Occasion},
};

/// How long a list of pods may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Pods of one namespace that are looked up one by one, at most; of more, one list of the namespace costs less.
const FEW: usize = 4;

/// Entries that follow one, at most, that are looked for before the next comparison of the whole ledger.
const MOST_SUCCESSORS: usize = 16;

/// Why there was no comparison.
#[derive(Debug, Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Over(#[from] TermOver),
    #[error("could not list the ledger: {0}")]
    Ledger(#[from] LedgerError),
    #[error("could not list pods: {0}")]
    Pods(#[from] kube::Error),
    #[error("could not list pods within {LIST_TIMEOUT:?}")]
    PodsTimeout,
}

/// What a comparison found.
pub(super) struct Findings {
    /// The entries that were read for it.
    pub(super) entries: Entries,
    pub(super) gone: Vec<EntryId>,
    /// Entries that are not bound, with the one pod that can be theirs.
    pub(super) unbound: Vec<(EntryId, Claimant)>,
    /// Whether all could be read.
    pub(super) complete: bool,
}

/// The one pod that can hold an entry, as far as it is known.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Holder<'a> {
    name: Option<&'a str>,
    /// Where it is the very pod that has ended: as of which resourceVersion.
    since: Option<&'a str>,
}

impl<S: CredentialSource, L: Ledger> Revoker<S, L> {
    /// Looks at the entries of pods that were seen to end.
    pub(super) async fn check(
        &self,
        term: &Term,
        ended: &[Ended],
        mut entries: Entries,
    ) -> Result<Findings, SweepError> {
        let ids: HashSet<EntryId> = ended.iter().flat_map(|ended| ended.ids.iter().copied()).collect();
        let mut complete = self.read(term, ids.iter().copied(), &mut entries).await;
        let mut successors = HashMap::new();
        for id in ids {
            complete &= self.read_successors(term, id, &mut entries, &mut successors).await;
        }
        let mut certain = BTreeSet::new();
        // By namespace, and in it by the one pod that can hold the entry, where that is known.
        let mut candidates: BTreeMap<&str, BTreeMap<Holder<'_>, BTreeSet<EntryId>>> = BTreeMap::new();
        for Ended { namespace, claimant, removed, version, ids, .. } in ended {
            for id in
                ids.iter().flat_map(|id| std::iter::once(id).chain(successors.get(id).into_iter().flatten()))
            {
                // The annotation is a hint: it says nothing about an entry of another namespace.
                if let Some(entry) = entries.get(id).filter(|entry| entry.pod.namespace == *namespace) {
                    let itself = claimant.is_bound_to(entry);
                    if itself && *removed {
                        certain.insert(*id);
                        continue;
                    }
                    let since = version.as_deref().filter(|_| itself);
                    let holder = Holder { name: entry.pod.name.as_deref(), since };
                    candidates.entry(namespace).or_default().entry(holder).or_default().insert(*id);
                }
            }
        }
        let mut gone = self.judge(certain, &entries, &Claims::default(), Occasion::PodEnded);
        for (namespace, mut holders) in candidates {
            if holders.len() > FEW || holders.keys().any(|holder| holder.name.is_none()) {
                holders = [(Holder::default(), holders.into_values().flatten().collect())].into();
            }
            for (Holder { name, since }, ids) in holders {
                let claims = self.list(term, self.pods.claims_of(namespace, name, since)).await?;
                gone.extend(self.judge(ids, &entries, &claims, Occasion::PodEnded));
            }
        }
        Ok(Findings { entries, gone, unbound: Vec::new(), complete })
    }

    /// Compares the whole ledger with the live pods.
    pub(super) async fn sweep(&self, term: &Term, mut entries: Entries) -> Result<Findings, SweepError> {
        let mine = |id: &EntryId| self.shard.covers(*id);
        let listed: HashSet<EntryId> = if entries.is_empty() {
            let mut surveyed = term.wait(self.ledger.survey()).await??;
            surveyed.retain(|(id, _)| mine(id));
            let ids = surveyed.iter().map(|(id, _)| *id).collect();
            let told = surveyed.into_iter().filter_map(|(id, stored)| Some((id, Arc::new(stored?.entry))));
            entries.extend(told);
            ids
        } else {
            term.wait(self.ledger.list()).await??.into_iter().filter(mine).collect()
        };
        entries.retain(|id, _| listed.contains(id));
        let complete = self.read(term, listed.iter().copied(), &mut entries).await;
        // After the ledger was read: an admission that is under way has its entry before its pod exists.
        let claims = self.list(term, self.pods.labelled_claims()).await?;

        let mut findings: HashMap<Finding, Vec<EntryId>> = HashMap::new();
        let now = Timestamp::now();
        for (&id, entry) in &entries {
            let finding = self.settings.rules.judge(id, entry, &claims, Occasion::Sweep, now);
            findings.entry(finding).or_default().push(id);
        }
        let count = |finding| findings.get(&finding).map_or(0, Vec::len);
        let ours = entries.len() - count(Finding::Foreign);
        let unbound = self.unbound(&entries, &claims);
        let braked = self.settings.rules.brake(count(Finding::Gone), ours, now);
        self.metrics.terms.tell(self.shard, |found| found.compared(braked, count));
        if braked {
            tracing::error!(
                gone = count(Finding::Gone),
                ours,
                "{} of {ours} credentials seem to have lost their pods: nothing is revoked. Check that the pods carry the \
                 label of injectorLabel; where they really are gone, set revoker.brakeOverrideUntil to a time soon",
                count(Finding::Gone)
            );
            return Ok(Findings { entries, gone: Vec::new(), unbound, complete: true });
        }

        let mut candidates: BTreeMap<String, Vec<EntryId>> = BTreeMap::new();
        for id in findings.remove(&Finding::Gone).unwrap_or_default() {
            candidates.entry(entries[&id].pod.namespace.clone()).or_default().push(id);
        }
        let mut gone = Vec::new();
        for (namespace, ids) in candidates {
            // A pod that lives without its label keeps its credential.
            let claims = self.list(term, self.pods.claims_in(&namespace)).await?;
            gone.extend(self.judge(ids, &entries, &claims, Occasion::Sweep));
        }
        Ok(Findings { entries, gone, unbound, complete })
    }

    fn judge(
        &self,
        ids: impl IntoIterator<Item = EntryId>,
        entries: &Entries,
        claims: &Claims,
        occasion: Occasion,
    ) -> Vec<EntryId> {
        let now = Timestamp::now();
        let rules = &self.settings.rules;
        let gone = |id: &EntryId| {
            entries
                .get(id)
                .is_some_and(|entry| rules.judge(*id, entry, claims, occasion, now) == Finding::Gone)
        };
        ids.into_iter().filter(gone).collect()
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

    /// Reads the entries that follow one that the node plugin wrote: a pod of its may have had several. Returns whether all could be
    /// read.
    async fn read_successors(
        &self,
        term: &Term,
        id: EntryId,
        entries: &mut Entries,
        successors: &mut HashMap<EntryId, Vec<EntryId>>,
    ) -> bool {
        let (mut last, mut found) = (id, Vec::new());
        let complete = loop {
            if found.len() > MOST_SUCCESSORS
                || entries.get(&last).is_none_or(|entry| entry.pod.node.is_none())
            {
                break true;
            }
            last = last.successor();
            if !self.read(term, std::iter::once(last), entries).await {
                break false;
            }
            if entries.contains_key(&last) {
                found.push(last);
            }
        };
        if !found.is_empty() {
            successors.insert(id, found);
        }
        complete
    }

    async fn list(
        &self,
        term: &Term,
        claims: impl Future<Output = Result<Claims, kube::Error>>,
    ) -> Result<Claims, SweepError> {
        let listed = term.wait(tokio::time::timeout(LIST_TIMEOUT, claims)).await?;
        let claims = listed.map_err(|_| SweepError::PodsTimeout).and_then(|claims| Ok(claims?));
        self.metrics.fetched(claims.is_ok());
        claims
    }
}
