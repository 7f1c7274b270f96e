//! Leadership over a Kubernetes Lease.

use std::{fmt, future::Future, sync::Arc};

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    clock::Clock,
    health::Health,
    leadership::{Leadership, LeadershipError, Status, Term, WorkError},
    metrics::Registry,
};

mod api;
mod balance;
mod board;
mod clock;
mod driver;
mod elections;
mod identity;
mod load;
pub mod metrics;
mod overrun;
mod record;
mod settings;
mod state;
mod view;

pub use clock::BoottimeClock;
pub use elections::Elections;
pub use identity::Identity;
pub use settings::{LeaseRef, Settings};

/// Elects one leader by a Lease of `coordination.k8s.io/v1`. Needs the verbs get, create, update and watch on leases in its
/// namespace; without watch it polls.
///
/// # Flow
///
/// Every replica watches the Lease. Whoever finds it free writes itself into it, the leader renews it, and one that is shut
/// down first lets its work return and then empties it, which the others see at once. A leader that died is succeeded when
/// the Lease has stood unchanged for its duration.
///
/// # Guarantees
///
/// - Every write compares and swaps the resourceVersion that was observed, on the whole object: what other versions and
///   tools have put into it is kept. A write that is superseded ends the term at once.
/// - The term ends at the hard deadline, counted from sending the last acknowledged write.
/// - client-go's candidates can take part in the same election, in both directions.
/// - Dropping the future of [`run`](Leadership::run) stops everything and releases nothing, as a crash would.
///
/// # Assumptions
///
/// - The replicas' clocks run at rates within `lease_duration / hard_deadline` of each other; what they show does not
///   matter.
/// - Nobody deletes the Lease twice, within a lease duration or while a replica is cut off: a deletion takes away what a write is
///   compared with.
pub struct LeaseElection {
    client: Client,
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    view: Arc<view::View>,
    overrun: overrun::Callback,
    /// Shared with the other elections of this process, if it takes part in several.
    load: Option<load::Load>,
    /// Asks the leader to let another replica lead.
    yields: Arc<Notify>,
}

impl LeaseElection {
    /// For production the clock is [`BoottimeClock`]. The client should be one without retries of its own, or a request
    /// takes longer to fail.
    ///
    /// # Errors
    ///
    /// See [`Settings::validate`].
    pub fn new(
        client: Client,
        settings: Settings,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self, LeadershipError> {
        settings.validate()?;
        let settings = Arc::new(settings);
        let view = view::View::new(settings.clone(), clock.clone(), registry);
        let lease = settings.lease_name.clone();
        let overrun =
            Arc::new(move || tracing::error!(%lease, "the work does not stop although its term is over"));
        Ok(Self { client, settings, clock, view, overrun, load: None, yields: Arc::default() })
    }

    /// Registers the check `leader-election` for both probes, and the details `leader` and `kubernetes`.
    ///
    /// It is live while the elector's loop turns, in any role, and no work outlives [`Settings::abort_after`]; it is ready once
    /// the Lease, or that there is none, has been seen. Leading or not makes no difference.
    pub fn report(&self, health: &Health) {
        view::report(vec![self.view.clone()], health);
    }

    /// What to do when work has not stopped at [`Settings::abort_after`]: another replica is about to lead. A process of its
    /// own should abort. It is called on a thread of its own, since the work may block the runtime; by default an error is
    /// logged.
    pub fn on_overrun(self, callback: impl Fn() + Send + Sync + 'static) -> Self {
        Self { overrun: Arc::new(callback), ..self }
    }

    fn sharing(self, load: load::Load) -> Self {
        Self { load: Some(load), ..self }
    }
}

impl Leadership for LeaseElection {
    async fn run<W, F>(self, work: W, shutdown: CancellationToken) -> Result<(), LeadershipError>
    where
        W: FnMut(Term) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        driver::Driver::new(self)?.run(work, shutdown).await
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.view.status.subscribe()
    }
}

impl fmt::Debug for LeaseElection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseElection").field("settings", &self.settings).finish_non_exhaustive()
    }
}
