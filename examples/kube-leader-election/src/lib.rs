//! [`Leadership`] over the crate [kube-leader-election]: how another implementation plugs in.
//!
//! # When not to use it
//!
//! Wherever two leaders at once do harm: to renew or revoke credentials, for instance. This adapter keeps its own deadline, counted
//! from sending, but what it counts on does not hold:
//!
//! - The crate writes merge patches without a resourceVersion. Two candidates that both saw an expired lease both win, and a
//!   release can empty the lease of a successor. `tests/overlap.rs` shows it.
//! - It compares the wall clocks of two machines, so that skew alone makes two leaders.
//! - A renewal does not say whose it is, and so can prolong the lease of somebody else.
//! - There is no watch: a follower learns of a release when it asks again. Losing the race to create the lease is an error, and
//!   a lease with null fields stays one for ever.
//!
//! `vdbi_lifecycle::election::LeaseElection` has none of these limits.
//!
//! [kube-leader-election]: https://docs.rs/kube-leader-election

use std::{
    fmt,
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    clock::Clock,
    leadership::{Leadership, LeadershipError, Status, Term, TermControl, TermId, WorkError},
};

/// How long after a loss, or after work that failed, this replica competes again.
const BACKOFF: Duration = Duration::from_secs(1);

/// One candidate for a Lease. See the crate's documentation for its limits.
pub struct KubeLeaderElection {
    lock: LeaseLock,
    lease: String,
    identity: String,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    status: watch::Sender<Status>,
}

/// A lease that was acquired or renewed.
struct Held {
    /// When the request was sent, by the clock.
    sent: Duration,
    fence: String,
}

impl KubeLeaderElection {
    /// A candidate for `lease` in `namespace`, which followers let stand for `ttl` (whole seconds) by their wall clocks. A term
    /// lasts two thirds of it from sending the last renewal.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        lease: impl Into<String>,
        identity: impl Into<String>,
        ttl: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (lease, identity) = (lease.into(), identity.into());
        let params =
            LeaseLockParams { lease_name: lease.clone(), holder_id: identity.clone(), lease_ttl: ttl };
        let lock = LeaseLock::new(client, namespace, params);
        Self { lock, lease, identity, ttl, clock, status: watch::Sender::default() }
    }

    /// Acquires or renews; `None` when somebody else holds it, or nobody knows.
    async fn attempt(&self) -> Option<Held> {
        let sent = self.clock.now();
        let lease = match timeout(self.interval(), self.lock.try_acquire_or_renew()).await {
            Ok(Ok(LeaseLockResult::Acquired(lease))) => lease,
            Ok(Ok(LeaseLockResult::NotAcquired(lease))) => {
                let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
                self.status.send_replace(Status::seen(holder));
                return None;
            }
            Ok(Err(error)) => {
                tracing::warn!(lease = self.lease, %error, "cannot acquire or renew the lease: {error}");
                return None;
            }
            Err(_) => return None,
        };
        Some(Held { sent, fence: lease.metadata.resource_version.unwrap_or_default() })
    }

    async fn lead<W, F>(&self, held: Held, work: &mut W, shutdown: &CancellationToken)
    where
        W: FnMut(Term) -> F,
        F: Future<Output = Result<(), WorkError>>,
    {
        let deadline = held.sent + self.deadline();
        let id = TermId { lease: self.lease.clone(), identity: self.identity.clone(), fence: held.fence };
        let (term, control) = Term::new(id, self.clock.clone(), deadline);
        self.status.send_replace(Status::seen(&self.identity).leading());
        let mut work = pin!(AssertUnwindSafe(work(term.clone())).catch_unwind());
        let wind_down = async {
            shutdown.cancelled().await;
            control.wind_down();
            // The lease is kept until the work has returned.
            pending::<()>().await;
        };
        tokio::select! {
            outcome = &mut work => {
                match outcome {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(lease = self.lease, %error, "the work failed: {error}"),
                    Err(_) => tracing::error!(lease = self.lease, "the work panicked"),
                }
                control.end();
                if let Err(error) = self.lock.step_down().await {
                    tracing::warn!(lease = self.lease, %error, "cannot release the lease: {error}");
                }
            }
            () = self.keep(&term, &control) => tracing::warn!(lease = self.lease, "leadership lost"),
            () = wind_down => {}
        }
        self.status.send_modify(|status| status.leading = false);
    }

    /// Renews until the term is over or somebody else holds the lease.
    async fn keep(&self, term: &Term, control: &TermControl) {
        while !term.remaining().is_zero() {
            sleep(self.interval().min(term.remaining())).await;
            if let Some(Held { sent, .. }) = self.attempt().await {
                control.extend(sent + self.deadline());
            } else if self.status.borrow().holder != self.identity {
                return;
            }
        }
    }

    fn interval(&self) -> Duration {
        self.ttl / 5
    }

    fn deadline(&self) -> Duration {
        self.ttl * 2 / 3
    }
}

impl Leadership for KubeLeaderElection {
    async fn run<W, F>(self, mut work: W, shutdown: CancellationToken) -> Result<(), LeadershipError>
    where
        W: FnMut(Term) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        while let Some(held) = shutdown.run_until_cancelled(self.attempt()).await {
            let pause = match held {
                Some(held) => {
                    self.lead(held, &mut work, &shutdown).await;
                    BACKOFF
                }
                None => self.interval(),
            };
            shutdown.run_until_cancelled(sleep(pause)).await;
        }
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

impl fmt::Debug for KubeLeaderElection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeLeaderElection")
            .field("lease", &self.lease)
            .field("identity", &self.identity)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
