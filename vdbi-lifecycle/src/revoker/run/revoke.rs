//! Revokes one credential, in two steps.

use tokio::time::Instant;
use vdbi_core::{
    credential::{CredentialSource, SourceError},
    leadership::{Term, TermOver},
    ledger::{Entry, EntryId, Ledger, LedgerError},
};

use super::Revoker;

/// Why a revocation is to be tried again.
pub(super) enum Unrevoked {
    /// The backend failed.
    Unavailable,
    /// It answered with no.
    Refused,
    /// The term was over.
    Over,
}

impl Unrevoked {
    /// A call ended with what the term had left. Where it was prolonged meanwhile, the backend has not answered.
    fn in_time(term: &Term) -> Self {
        if term.check().is_ok() { Self::Unavailable } else { Self::Over }
    }
}

impl<S: CredentialSource, L: Ledger> Revoker<S, L> {
    /// The credential first, so that no pod's waits for what is left of another's.
    pub(super) async fn cut_off(
        &self,
        term: &Term,
        id: EntryId,
        entry: &Entry,
        since: Instant,
    ) -> Result<(), Unrevoked> {
        self.of_source(id, entry, term, term.run(self.source.cut_off(&entry.lease)).await)?;
        self.metrics.duration.record(since.elapsed());
        Ok(())
    }

    /// The entry goes last, so that whatever fails is found again.
    pub(super) async fn clear(&self, term: &Term, id: EntryId, entry: &Entry) -> Result<(), Unrevoked> {
        let (pod, namespace) = (&entry.pod, &entry.pod.namespace);
        self.of_source(id, entry, term, term.run(self.source.clear(&entry.lease)).await)?;
        self.metrics.revoked(namespace, true);
        match term.run(self.ledger.forget(id)).await {
            Ok(Ok(())) => self.metrics.forgotten(namespace, true),
            Ok(Err(error)) => {
                self.metrics.forgotten(namespace, false);
                tracing::warn!(%id, %pod, %error, "could not remove ledger entry {id}: {error}");
                let unavailable = matches!(error, LedgerError::Unavailable(_));
                return Err(if unavailable { Unrevoked::Unavailable } else { Unrevoked::Refused });
            }
            Err(_over) => return Err(Unrevoked::in_time(term)),
        }
        tracing::info!(
            %id, %pod, database = entry.database,
            "revoked the credential of pod {pod} for database {}", entry.database
        );
        Ok(())
    }

    /// What an answer of the source means.
    fn of_source(
        &self,
        id: EntryId,
        entry: &Entry,
        term: &Term,
        answer: Result<Result<(), SourceError>, TermOver>,
    ) -> Result<(), Unrevoked> {
        let Ok(outcome) = answer else { return Err(Unrevoked::in_time(term)) };
        outcome.map_err(|error| {
            let pod = &entry.pod;
            self.metrics.revoked(&pod.namespace, false);
            tracing::warn!(%id, %pod, %error, "could not revoke the credential of pod {pod}: {error}");
            let unavailable = matches!(error, SourceError::Unavailable(_));
            if unavailable { Unrevoked::Unavailable } else { Unrevoked::Refused }
        })
    }
}
