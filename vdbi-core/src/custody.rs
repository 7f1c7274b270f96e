//! A credential between its issue and its delivery: entered into the ledger, and revoked when nobody delivers it.
//!
//! Webhook and node plugin issue through the same [`Custody`], so that what one promises the other does: no credential is seen
//! before its ledger entry is written, and none is left behind by whoever gave up waiting.
//!
#![cfg_attr(feature = "memory", doc = "```")]
#![cfg_attr(not(feature = "memory"), doc = "```ignore")]
//! # use vdbi_core::{
//! #     credential::CredentialRequest, custody::Custody, ledger::{EntryId, Owner}, memory::{MemoryLedger, MemorySource},
//! #     metrics::Registry, pod::PodRef,
//! # };
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
//! # source.allow("app", "shop", "web");
//! # let pod = PodRef { namespace: "shop".into(), service_account: "web".into(), ..PodRef::default() };
//! # let request = CredentialRequest { pod, database: "main".into(), engine: "database".into(), role: "app".into() };
//! let owner = Owner { cluster: "my-cluster".into(), release: "my-release".into() };
//! let custody = Custody::new(source.clone(), ledger.clone(), owner, &Registry::disabled());
//! let undelivered = custody.issue(EntryId::random(), request.clone()).await?;
//! assert_eq!(ledger.entries().len(), 1);
//! let issued = undelivered.deliver().expect("it is delivered once");
//! assert!(source.can_login(&issued.username, &issued.password));
//!
//! // Nobody delivers this one: it is revoked.
//! drop(custody.issue(EntryId::random(), request).await?);
//! custody.finish().await;
//! assert_eq!(source.leases(), [issued.lease.id]);
//! # Ok(())
//! # }
//! ```

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::{
    credential::{Advice, CredentialRequest, CredentialSource, Issued, Lease, SourceError},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner},
    metrics::Registry,
};

pub mod metrics;

use metrics::Metrics;

/// Waits between attempts to revoke.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];

/// Issues credentials and answers for them until they are delivered. Clones share everything.
pub struct Custody<S, L> {
    source: Arc<S>,
    ledger: Arc<L>,
    owner: Owner,
    tracker: TaskTracker,
    metrics: Metrics,
}

/// Why there is no credential. Nothing of the attempt remains, or what remains is being revoked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The source did not issue it.
    #[error(transparent)]
    Source(SourceError),
    /// It could not be entered into the ledger.
    #[error("its credential could not be entered into the ledger and is revoked: {0}")]
    Ledger(LedgerError),
    /// The work ended with a panic, which the log shows.
    #[error("an issuing task ended unexpectedly")]
    Internal,
}

/// Revokes its credential when dropped before [`Undelivered::deliver`]: after another database of the pod failed, at a deadline, or
/// when whoever asked went away. [`Custody::finish`] waits for the revocation.
pub struct Undelivered<S: CredentialSource> {
    id: EntryId,
    issued: Option<Issued>,
    source: Arc<S>,
    tracker: TaskTracker,
    metrics: Metrics,
    runtime: Handle,
}

impl<S: CredentialSource, L: Ledger> Custody<S, L> {
    /// `owner` signs the ledger entries.
    pub fn new(source: S, ledger: L, owner: Owner, registry: &Registry) -> Self {
        let (source, ledger) = (Arc::new(source), Arc::new(ledger));
        Self { source, ledger, owner, tracker: TaskTracker::new(), metrics: Metrics::new(registry) }
    }

    /// The source of the credentials.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The ledger of the credentials.
    pub fn ledger(&self) -> &L {
        &self.ledger
    }

    /// Issues one credential and enters it into the ledger under this id.
    ///
    /// It runs in a task of its own to its very end, since a request for a credential that is given up half-way may leave one that
    /// nobody knows. Whoever stops waiting drops the result, which revokes it. Needs a running tokio runtime.
    ///
    /// # Errors
    ///
    /// See [`IssueError`].
    pub async fn issue(&self, id: EntryId, request: CredentialRequest) -> Result<Undelivered<S>, IssueError> {
        let issue = self.tracker.spawn(self.clone().issue_to_the_end(id, request));
        issue.await.unwrap_or(Err(IssueError::Internal))
    }

    async fn issue_to_the_end(
        self,
        id: EntryId,
        request: CredentialRequest,
    ) -> Result<Undelivered<S>, IssueError> {
        let issued = self.source.issue(&request).await.map_err(IssueError::Source)?;
        let entry = Entry {
            lease: issued.lease.clone(),
            owner: Some(self.owner),
            pod: request.pod,
            database: request.database,
            role: request.role,
            issued_at: Some(Timestamp::now()),
            ttl: Some(issued.ttl),
            raw_token: issued.token.clone(),
        };
        let Self { source, tracker, metrics, .. } = self;
        let undelivered =
            Undelivered { id, issued: Some(issued), source, tracker, metrics, runtime: Handle::current() };
        match self.ledger.record(id, &entry).await {
            Ok(()) => {
                undelivered.metrics.stored.increment(1);
                Ok(undelivered)
            }
            Err(error) => {
                undelivered.metrics.store_error.increment(1);
                Err(IssueError::Ledger(error))
            }
        }
    }

    /// Waits for the issues and revocations that are still under way. Call it once nothing more is issued: it does not keep anybody
    /// from issuing.
    pub async fn finish(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl<S: CredentialSource> Undelivered<S> {
    /// Its ledger entry.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// What renews and revokes it; `None` once it is delivered.
    pub fn lease(&self) -> Option<&Lease> {
        self.issued.as_ref().map(|issued| &issued.lease)
    }

    /// Hands the credential over; from here on it is the revoker's to end. Since it takes itself along, what is delivered can neither be
    /// delivered twice nor be revoked here; the answer is always there.
    pub fn deliver(mut self) -> Option<Issued> {
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

impl<S, L> Clone for Custody<S, L> {
    fn clone(&self) -> Self {
        let Self { source, ledger, owner, tracker, metrics } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            owner: owner.clone(),
            tracker: tracker.clone(),
            metrics: metrics.clone(),
        }
    }
}

impl<S, L> fmt::Debug for Custody<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custody").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<S: CredentialSource> fmt::Debug for Undelivered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered").field("id", &self.id).finish_non_exhaustive()
    }
}
