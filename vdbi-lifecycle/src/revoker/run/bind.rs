//! Binds entries to the pods that are theirs.

use std::sync::{Arc, atomic::Ordering};

use vdbi_core::{
    credential::{CredentialSource, TokenHandle},
    leadership::Term,
    ledger::{Entry, EntryId, Ledger, LedgerError},
};

use super::{Entries, Revoker};
use crate::{
    pods::{Claimant, Claims},
    revoker::metrics::Binding,
};

impl<S: CredentialSource, L: Ledger> Revoker<S, L> {
    /// Entries that are not bound though their pod is there.
    pub(super) fn unbound(&self, entries: &Entries, claims: &Claims) -> Vec<(EntryId, Claimant)> {
        let claimed = |(id, entry): (&EntryId, &Arc<Entry>)| {
            let claimant = claims.sole_holder(*id, entry)?;
            self.settings.rules.bind(entry, &entry.pod.namespace, claimant)?;
            Some((*id, claimant.clone()))
        };
        entries.iter().filter_map(claimed).collect()
    }

    /// Writes into an entry whose pod has appeared which pod that is. `None` when that could not be done, or is not to be done.
    pub(super) async fn bind(
        &self,
        term: &Term,
        id: EntryId,
        namespace: &str,
        claimant: &Claimant,
    ) -> Option<Arc<Entry>> {
        let stored = match term.wait(self.ledger.read(id)).await.ok()? {
            Ok(stored) => stored?,
            Err(error) => {
                self.metrics.bound(Binding::Failed);
                tracing::debug!(%id, %error, "could not read ledger entry {id}: {error}");
                return None;
            }
        };
        let rules = &self.settings.rules;
        let Some(mut bound) = rules.bind(&stored.entry, namespace, claimant) else {
            let ours = stored.entry.owner.as_ref() == Some(&rules.owner);
            return (ours && claimant.may_be(&stored.entry.pod)).then(|| Arc::new(stored.entry));
        };
        if let TokenHandle::Raw(token) = &stored.entry.lease.token {
            match term.run(self.source.accessor(token)).await.ok()? {
                Ok(Some(accessor)) => {
                    bound.raw_token = self.settings.keep_raw_tokens.then(|| token.clone());
                    bound.lease.token = TokenHandle::Accessor(accessor);
                }
                Ok(None) => {}
                Err(error) => {
                    self.metrics.bound(Binding::Failed);
                    tracing::warn!(%id, %error, "could not take over ledger entry {id}: {error}");
                    return None;
                }
            }
        }
        let pod = &bound.pod;
        match term.run(self.ledger.update(id, &bound, stored.version)).await.ok()? {
            Ok(()) => {
                let taken_over = stored.entry.owner.is_none();
                self.metrics.bound(if taken_over { Binding::TakenOver } else { Binding::Bound });
                tracing::debug!(%id, %pod, taken_over, "bound ledger entry {id} to pod {pod}");
                Some(Arc::new(bound))
            }
            // Somebody else wrote it, or it is gone: the next sweep sees what it is now.
            Err(LedgerError::Conflict(_)) => None,
            // What is gone since cannot be told from what is denied: without it, this would be a creation.
            Err(LedgerError::Denied(_)) if matches!(term.wait(self.ledger.read(id)).await, Ok(Ok(None))) => {
                None
            }
            Err(error) => {
                self.metrics.bound(Binding::Failed);
                if !self.binding_reported.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %id, %pod, %error,
                        "could not write into ledger entry {id} that it is pod {pod}'s, and will try again at each comparison: {error}"
                    );
                }
                None
            }
        }
    }
}
