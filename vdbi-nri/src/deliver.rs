//! From a pod's demand to its credentials: once for each pod, whoever asks, and kept.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use vdbi_core::{
    credential::{CredentialSource, SourceError},
    custody::{Custody, IssueError, Undelivered},
    ledger::{EntryId, Ledger, LedgerError},
};

use crate::{
    cache::{Cache, Credential, Held, Source},
    demand::{Demand, Wanted},
    metrics::Metrics,
};

/// Entries that a pod has had, at most: beyond that something else is wrong.
const MOST_SUCCESSORS: usize = 16;

/// How long a container that starts again waits to hear whether its credential lives: less than it waits for another one, so that a backend
/// that hangs does not keep it from what it had.
const CHECK: Duration = Duration::from_millis(500);

/// Fetches credentials and keeps them. Clones share everything.
pub(crate) struct Deliverer<S, L>(Arc<Inner<S, L>>);

struct Inner<S, L> {
    custody: Custody<S, L>,
    cache: Cache,
    /// By the pod's uid.
    flights: Mutex<HashMap<String, Flight>>,
    tracker: TaskTracker,
    metrics: Metrics,
}

/// Credentials that are being fetched, for whoever waits for them.
#[derive(Clone)]
struct Flight {
    outcome: Shared<BoxFuture<'static, Outcome>>,
    abandoned: Arc<AtomicBool>,
}

type Outcome = Result<Arc<Held>, Arc<DeliverError>>;

/// Why credentials are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Before a container needs them.
    Prewarm,
    /// A container needs them for the first time.
    Start,
    /// A container starts again: what it had may have ended since.
    Restart,
}

/// Why a pod has no credentials. What was fetched all the same is kept for the next time.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum DeliverError {
    /// One could not be issued.
    #[error("database {database}: {error}")]
    Issue {
        /// The name that the pod's annotations give to the database.
        database: String,
        /// Why.
        error: IssueError,
    },
    /// The pod has ended meanwhile.
    #[error("the pod has ended")]
    Ended,
    /// The work ended with a panic, which the log shows.
    #[error("a fetching task ended unexpectedly")]
    Internal,
}

/// What came of one database.
enum Fetched<S: CredentialSource> {
    Kept(Credential),
    Issued(Box<Undelivered<S>>, Wanted),
}

impl<S: CredentialSource, L: Ledger> Deliverer<S, L> {
    pub(crate) fn new(custody: Custody<S, L>, cache: Cache, metrics: Metrics) -> Self {
        metrics.cached_pods.set(cache.len() as f64);
        let (flights, tracker) = (Mutex::default(), TaskTracker::new());
        Self(Arc::new(Inner { custody, cache, flights, tracker, metrics }))
    }

    /// The pod's credentials as they are in the cache.
    pub(crate) fn cached(&self, uid: &str) -> Option<Arc<Held>> {
        self.0.cache.get(uid)
    }

    /// The uids of the pods in the cache.
    pub(crate) fn cached_uids(&self) -> Vec<String> {
        self.0.cache.uids()
    }

    /// The pod's credentials, all that it demands: from the cache, or fetched. Those who ask for the same pod wait together; who gives
    /// up waiting does not keep the work from its end, and finds its outcome in the cache the next time.
    ///
    /// # Errors
    ///
    /// See [`DeliverError`].
    pub(crate) fn credentials(
        &self,
        demand: Demand,
        occasion: Occasion,
    ) -> impl Future<Output = Outcome> + Send + use<S, L> {
        let mut flights = self.0.flights();
        let uid = demand.uid().to_owned();
        if let Some(flight) = flights.get(&uid) {
            if occasion != Occasion::Prewarm {
                self.0.metrics.duplicates.increment(1);
            }
            return flight.outcome.clone();
        }
        let abandoned = Arc::new(AtomicBool::new(false));
        let (this, flag) = (self.clone(), abandoned.clone());
        let work = self.0.tracker.spawn(async move {
            let uid = demand.uid().to_owned();
            // Also when it panics.
            let _landed = Landed(&this, &uid);
            this.fetch(&demand, occasion, &flag).await.map_err(Arc::new)
        });
        let outcome = work
            .map(|ended| ended.unwrap_or_else(|_| Err(Arc::new(DeliverError::Internal))))
            .boxed()
            .shared();
        flights.insert(uid, Flight { outcome: outcome.clone(), abandoned });
        outcome
    }

    /// The pod is gone: its credentials are the revoker's now, and what is on its way to it is revoked.
    pub(crate) fn forget(&self, uid: &str) {
        if let Some(flight) = self.0.flights().get(uid) {
            flight.abandoned.store(true, Ordering::Relaxed);
        }
        self.0.cache.remove(uid);
        self.0.metrics.cached_pods.set(self.0.cache.len() as f64);
    }

    /// Waits for what is under way. Call it once nobody asks any more.
    pub(crate) async fn finish(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
        self.0.custody.finish().await;
    }

    async fn fetch(
        &self,
        demand: &Demand,
        occasion: Occasion,
        abandoned: &AtomicBool,
    ) -> Result<Arc<Held>, DeliverError> {
        let uid = demand.uid();
        let cached = self.0.cache.get(uid).unwrap_or_default();
        // What an earlier process has left may have ended since.
        let fresh = cached.source != Source::Unknown;
        let fetched = demand.databases.iter().map(|wanted| {
            let cached = cached.credentials.iter().find(|credential| wanted.is_met_by(credential));
            self.one(wanted, cached, fresh, occasion)
        });
        let (mut credentials, mut failed, mut issued) = (Vec::new(), None, 0);
        for outcome in join_all(fetched).await {
            match outcome {
                // Dropped, it is revoked.
                Ok(Fetched::Issued(..)) if abandoned.load(Ordering::Relaxed) => {
                    failed = Some(DeliverError::Ended)
                }
                Ok(Fetched::Issued(undelivered, wanted)) => {
                    issued += 1;
                    credentials.extend(wanted.delivered(*undelivered));
                }
                Ok(Fetched::Kept(credential)) => credentials.push(credential),
                Err(error) => failed = Some(error),
            }
        }
        if abandoned.load(Ordering::Relaxed) {
            return Err(DeliverError::Ended);
        }
        let source = match occasion {
            Occasion::Prewarm => Source::Prewarm,
            Occasion::Start | Occasion::Restart => Source::Sync,
        };
        if issued > 0 {
            let ids: Vec<String> = credentials.iter().map(|credential| credential.id.to_string()).collect();
            tracing::info!(pod = %demand.pod, ids = ids.join(","), issued, "issued credentials for pod {}", demand.pod);
        }
        let held = Held { credentials, source };
        let held = self.0.cache.put(uid, held).unwrap_or_else(|error| {
            tracing::error!(
                pod = %demand.pod, %error,
                "the credentials of pod {} are kept in memory alone, and a plugin that starts again issues others: {error}",
                demand.pod
            );
            self.0.cache.get(uid).unwrap_or_default()
        });
        self.0.metrics.cached_pods.set(self.0.cache.len() as f64);
        failed.map_or(Ok(held), Err)
    }

    async fn one(
        &self,
        wanted: &Wanted,
        cached: Option<&Credential>,
        fresh: bool,
        occasion: Occasion,
    ) -> Result<Fetched<S>, DeliverError> {
        let mut id = wanted.id;
        if let Some(credential) = cached {
            if occasion != Occasion::Restart && fresh && !credential.may_have_ended(Timestamp::now()) {
                return Ok(Fetched::Kept(credential.clone()));
            }
            let renewal = timeout(CHECK, self.0.custody.source().renew(&credential.lease)).await;
            let silent = |_| Err(SourceError::Unavailable(format!("no answer within {CHECK:?}")));
            match renewal.unwrap_or_else(silent) {
                Ok(renewed) => {
                    let seen =
                        Credential { seen_at: Timestamp::now(), ttl: renewed.ttl, ..credential.clone() };
                    return Ok(Fetched::Kept(seen));
                }
                Err(SourceError::Gone(_)) => {
                    tracing::warn!(
                        pod = %wanted.request.pod, id = %credential.id,
                        "the credential of pod {} for database {} has ended: it gets another one",
                        wanted.request.pod, credential.database
                    );
                    self.0.metrics.reissued.increment(1);
                    id = credential.id.successor();
                    self.end(credential).await;
                }
                // It may well be alive: the application finds out sooner than a backend that does not answer.
                Err(error) => {
                    tracing::warn!(
                        pod = %wanted.request.pod, id = %credential.id, %error,
                        "could not tell whether the credential of pod {} lives, and deliver it as it is: {error}",
                        wanted.request.pod
                    );
                    return Ok(Fetched::Kept(credential.clone()));
                }
            }
        }
        match self.issue(id, wanted).await {
            Ok(undelivered) => Ok(Fetched::Issued(Box::new(undelivered), wanted.clone())),
            Err(error) => Err(DeliverError::Issue { database: wanted.request.database.clone(), error }),
        }
    }

    /// Ends what is left of a credential that has ended: its token.
    async fn end(&self, credential: &Credential) {
        if let Err(error) = self.0.custody.source().revoke(&credential.lease).await {
            tracing::warn!(
                id = %credential.id, %error,
                "the token of a credential that has ended could not be revoked, and ends with its pod: {error}"
            );
        }
    }

    /// Under the first id from `id` on that nobody has: an entry is never overwritten, whosever it is.
    async fn issue(&self, mut id: EntryId, wanted: &Wanted) -> Result<Undelivered<S>, IssueError> {
        let Inner { custody, .. } = &*self.0;
        custody.source().authorize(&wanted.request).await.map_err(IssueError::Source)?;
        let mut outcome = custody.issue(id, wanted.request.clone()).await;
        for _ in 0..MOST_SUCCESSORS {
            if !matches!(outcome, Err(IssueError::Ledger(LedgerError::Conflict(_)))) {
                break;
            }
            id = id.successor();
            outcome = custody.issue(id, wanted.request.clone()).await;
        }
        outcome
    }
}

impl Wanted {
    fn is_met_by(&self, credential: &Credential) -> bool {
        credential.database == self.request.database
            && credential.user_placeholders == self.user
            && credential.password_placeholders == self.password
    }

    fn delivered<S: CredentialSource>(self, undelivered: Undelivered<S>) -> Option<Credential> {
        let id = undelivered.id();
        let issued = undelivered.deliver()?;
        Some(Credential {
            id,
            database: self.request.database,
            username: issued.username,
            password: issued.password,
            lease: issued.lease,
            seen_at: Timestamp::now(),
            ttl: issued.ttl,
            user_placeholders: self.user,
            password_placeholders: self.password,
        })
    }
}

/// Takes a flight off the board when it ends.
struct Landed<'a, S, L>(&'a Deliverer<S, L>, &'a str);

impl<S, L> Drop for Landed<'_, S, L> {
    fn drop(&mut self) {
        let Self(deliverer, uid) = self;
        deliverer.0.flights().remove(*uid);
    }
}

impl<S, L> Inner<S, L> {
    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, L> Clone for Deliverer<S, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, L> fmt::Debug for Deliverer<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliverer").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}
