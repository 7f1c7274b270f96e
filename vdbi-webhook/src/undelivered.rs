//! A credential between its issue and its delivery.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use vdbi_core::{
    credential::{Advice, CredentialSource, Issued},
    ledger::EntryId,
};

use crate::metrics::Metrics;

/// Waits between attempts to revoke.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];

/// Revokes its credential when dropped before [`Undelivered::deliver`]: after another database of the pod failed, at the
/// deadline, or when the client went away. The revocation runs in `tracker`, for which a shutdown waits.
pub(crate) struct Undelivered<S: CredentialSource> {
    pub(crate) id: EntryId,
    issued: Option<Issued>,
    source: Arc<S>,
    tracker: TaskTracker,
    metrics: Metrics,
    runtime: Handle,
}

impl<S: CredentialSource> Undelivered<S> {
    /// Takes responsibility for the credential. Needs a running tokio runtime.
    pub(crate) fn new(
        id: EntryId,
        issued: Issued,
        source: Arc<S>,
        tracker: TaskTracker,
        metrics: Metrics,
    ) -> Self {
        Self { id, issued: Some(issued), source, tracker, metrics, runtime: Handle::current() }
    }

    /// Hands the credential over; from here on it is the revoker's to end.
    pub(crate) fn deliver(mut self) -> Option<Issued> {
        self.issued.take()
    }
}

impl<S: CredentialSource> Drop for Undelivered<S> {
    fn drop(&mut self) {
        let Some(issued) = self.issued.take() else { return };
        let revocation = revoke(self.id, issued, self.source.clone(), self.metrics.clone());
        self.tracker.spawn_on(revocation, &self.runtime);
    }
}

async fn revoke<S: CredentialSource>(id: EntryId, issued: Issued, source: Arc<S>, metrics: Metrics) {
    let mut backoff = BACKOFF.into_iter();
    loop {
        let error = match source.revoke(&issued.lease).await {
            Ok(()) => {
                tracing::info!(%id, lease = issued.lease.id, "revoked a credential that was not delivered");
                metrics.revoked.increment(1);
                return;
            }
            Err(error) => error,
        };
        match backoff.next() {
            Some(pause) if error.advice() == Advice::Retry => tokio::time::sleep(pause).await,
            _ => {
                tracing::error!(
                    %id, lease = issued.lease.id, %error,
                    "could not revoke a credential that was not delivered: the revoker finds it by its ledger entry, \
                     and without an entry it dies when its token's period is over"
                );
                metrics.revocation_failed.increment(1);
                return;
            }
        }
    }
}
