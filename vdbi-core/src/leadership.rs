//! The right to act alone.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::FutureExt;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, TokioClock};

/// Why a unit of work ended early. It is logged; the next term starts it again.
pub type WorkError = Box<dyn std::error::Error + Send + Sync>;

/// Lets one replica at a time do some work.
///
/// # Flow
///
/// [`run`](Self::run) competes until `shutdown` is cancelled. Each time leadership is won it calls `work` with a new [`Term`]
/// and drives the future. When the term is over, [`Term::over`] resolves and [`Term::check`] fails: the work has to return
/// soon, and is dropped when it does not. At a shutdown it may finish what it has begun; after a loss it may not.
///
/// # Guarantees
///
/// - At most one replica's `Term::check` succeeds at any time, as far as clocks run at rates within the implementation's
///   stated bound of each other.
/// - Leadership is not handed on before the work has returned, except where the process is cut off: then its term's deadline
///   passes before anybody else's begins.
/// - Lost leadership, and work that fails or panics, lead back to competing: `run` returns only after `shutdown`.
///
/// # Assumptions
///
/// - The work checks its term right before every effect, and bounds each effect by [`Term::remaining`]; [`Term::run`] does
///   both. It returns only when none of its effects is under way any more.
///
/// The suite `vdbi_core::testing::leadership` checks this contract over any implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement leadership",
    note = "use `vdbi_lifecycle::election::LeaseElection`, `AlwaysLeader`, or implement `vdbi_core::leadership::Leadership`"
)]
pub trait Leadership: Send + 'static {
    /// Competes, and works whenever leading, until `shutdown`.
    ///
    /// # Errors
    ///
    /// Only what competing again cannot cure.
    fn run<W, F>(
        self,
        work: W,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Result<(), LeadershipError>> + Send
    where
        W: FnMut(Term) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static;

    /// What the election knows, as it changes.
    fn status(&self) -> watch::Receiver<Status>;
}

/// Why [`Leadership::run`] ended other than by its shutdown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LeadershipError {
    /// The settings contradict each other.
    #[error("{0}")]
    Misconfigured(String),
    /// The work did not return within the drain timeout after a shutdown; the lease was left to expire.
    #[error("the work did not stop within {0:?}; leadership was not released, it expires by itself")]
    DrainTimeout(Duration),
}

/// What an election knows. The default is what is known before anything was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether the lock has been seen at all: the elector works.
    pub initialized: bool,
    /// Whether this replica leads.
    pub leading: bool,
    /// Who holds the lock, as last seen; empty when nobody does.
    pub holder: String,
}

impl Status {
    /// The lock has been seen, and `holder` has it; nobody has where that is empty.
    pub fn seen(holder: impl Into<String>) -> Self {
        Self { initialized: true, leading: false, holder: holder.into() }
    }

    /// The same, and the holder is this replica.
    #[must_use]
    pub fn leading(self) -> Self {
        Self { leading: true, ..self }
    }
}

/// The right to act, until its deadline. Clones share it.
#[derive(Clone)]
pub struct Term(Arc<Shared>);

struct Shared {
    id: TermId,
    clock: Arc<dyn Clock>,
    /// Nanoseconds on `clock`; moved forward by each acknowledged renewal.
    deadline: AtomicU64,
    /// Nothing begins any more.
    over: CancellationToken,
    /// Nothing goes on any more.
    lost: CancellationToken,
}

/// The elector's side of a [`Term`]: it prolongs and ends it. Dropping it ends the term.
#[derive(Debug)]
pub struct TermControl(Term);

/// What tells a term from every other, in logs and metrics.
///
/// It is written as a literal, on purpose: a constructor would take three texts that could be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermId {
    /// The lease's name: what is led.
    pub lease: String,
    /// This replica's identity in the lease: who leads.
    pub identity: String,
    /// Which of the lease's terms it is. It grows with every term; of a Kubernetes Lease it is the resourceVersion of the write that
    /// won it.
    pub fence: String,
}

/// The term is over: whatever was about to happen must not.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("leadership of {lease} is over")]
#[non_exhaustive]
pub struct TermOver {
    /// The lease whose term it was.
    pub lease: String,
}

impl Term {
    /// A term for implementors of [`Leadership`]. It stands until `deadline`, which is a time on `clock`, not one from now.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use vdbi_core::{clock::{Clock, TokioClock}, leadership::{Term, TermId}};
    ///
    /// let clock = Arc::new(TokioClock::new());
    /// let id = TermId { lease: "renewer".into(), identity: "renewer-0".into(), fence: "1".into() };
    /// let (term, control) = Term::new(id, clock.clone(), clock.now() + Duration::from_secs(10));
    /// assert!(term.check().is_ok());
    /// control.end();
    /// assert!(term.check().is_err());
    /// ```
    pub fn new(id: TermId, clock: Arc<dyn Clock>, deadline: Duration) -> (Self, TermControl) {
        let term = Self(Arc::new(Shared {
            id,
            clock,
            deadline: AtomicU64::new(nanoseconds(deadline)),
            over: CancellationToken::new(),
            lost: CancellationToken::new(),
        }));
        (term.clone(), TermControl(term))
    }

    /// The lease's name.
    pub fn lease(&self) -> &str {
        &self.0.id.lease
    }

    /// This replica's identity in the lease.
    pub fn identity(&self) -> &str {
        &self.0.id.identity
    }

    /// What tells this term from every other of its lease: see [`TermId::fence`].
    pub fn fence(&self) -> &str {
        &self.0.id.fence
    }

    /// Whether the right to act still stands. Call it right before each effect.
    ///
    /// # Errors
    ///
    /// [`TermOver`]: stop.
    pub fn check(&self) -> Result<(), TermOver> {
        if self.0.over.is_cancelled() || self.remaining().is_zero() {
            return Err(TermOver { lease: self.0.id.lease.clone() });
        }
        Ok(())
    }

    /// How long the right to act stands without another renewal: the longest that an effect started now may take.
    pub fn remaining(&self) -> Duration {
        let deadline = Duration::from_nanos(self.0.deadline.load(Ordering::Acquire));
        deadline.saturating_sub(self.0.clock.now())
    }

    /// Resolves when the term has been ended.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// Performs one effect: not at all when the term is over, no longer than [`Term::remaining`], and not one step further once
    /// the right to act is lost. Steps are what lies between two awaits: a machine that wakes up from a suspension in the middle
    /// of an effect does not go on with it, though no timer has rung. In a term that winds down the effect is finished.
    ///
    /// # Errors
    ///
    /// [`TermOver`] when the term was over before, or was lost meanwhile and the effect was dropped. It may have happened.
    pub async fn run<T>(&self, effect: impl Future<Output = T>) -> Result<T, TermOver> {
        self.until(&self.0.lost, effect).await
    }

    /// Waits for what has no effect, a read or a pause: like [`Term::run`], but a term that winds down does not wait for it.
    ///
    /// # Errors
    ///
    /// [`TermOver`] when the term was over before, or ended meanwhile.
    pub async fn wait<T>(&self, event: impl Future<Output = T>) -> Result<T, TermOver> {
        self.until(&self.0.over, event).await
    }

    async fn until<T>(
        &self,
        end: &CancellationToken,
        future: impl Future<Output = T>,
    ) -> Result<T, TermOver> {
        self.check()?;
        let (mut future, mut ended) = (pin!(future), pin!(end.cancelled()));
        let mut deadline = pin!(tokio::time::sleep(self.remaining()));
        poll_fn(|context| {
            let ended = ended.as_mut().poll(context).is_ready() || deadline.as_mut().poll(context).is_ready();
            if ended || self.remaining().is_zero() {
                return Poll::Ready(Err(TermOver { lease: self.0.id.lease.clone() }));
            }
            future.as_mut().poll(context).map(Ok)
        })
        .await
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("lease", &self.0.id.lease)
            .field("identity", &self.0.id.identity)
            .field("fence", &self.0.id.fence)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

impl TermControl {
    /// Moves the deadline, never back.
    pub fn extend(&self, deadline: Duration) {
        self.0.0.deadline.fetch_max(nanoseconds(deadline), Ordering::AcqRel);
    }

    /// Ends the term, though the right to act still stands: nothing begins any more, and what is under way goes on to its end.
    pub fn wind_down(&self) {
        self.0.0.over.cancel();
    }

    /// Ends the term at once: the right to act is lost.
    pub fn end(&self) {
        self.0.0.over.cancel();
        self.0.0.lost.cancel();
    }
}

impl Drop for TermControl {
    fn drop(&mut self) {
        self.end();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the work may take to return after a shutdown where nobody waits for the lock.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Leads from the first moment to the shutdown: for a single replica, and for tests. After the shutdown the work has 20 s to return.
///
/// ```
/// use tokio_util::sync::CancellationToken;
/// use vdbi_core::leadership::{AlwaysLeader, Leadership};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let shutdown = CancellationToken::new();
/// let done = shutdown.clone();
/// let work = move |term: vdbi_core::leadership::Term| {
///     let done = done.clone();
///     async move {
///         term.run(async { /* one effect */ }).await?;
///         done.cancel();
///         Ok(())
///     }
/// };
/// AlwaysLeader::new("operator-0").run(work, shutdown).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AlwaysLeader {
    identity: String,
    status: watch::Sender<Status>,
}

impl AlwaysLeader {
    /// A leadership without rivals.
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), status: watch::Sender::default() }
    }
}

impl Leadership for AlwaysLeader {
    async fn run<W, F>(self, mut work: W, shutdown: CancellationToken) -> Result<(), LeadershipError>
    where
        W: FnMut(Term) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let holder = self.identity.clone();
        self.status.send_replace(Status::seen(holder).leading());
        let mut fence = 0_u64;
        while !shutdown.is_cancelled() {
            fence += 1;
            let clock = Arc::new(TokioClock::new());
            let identity = self.identity.clone();
            let id = TermId { lease: "always".to_owned(), identity, fence: fence.to_string() };
            let (term, control) = Term::new(id, clock, Duration::MAX);
            let work = work(term);
            let work = AssertUnwindSafe(work)
                .catch_unwind()
                .map(|outcome| outcome.unwrap_or_else(|_| Err("the work panicked".into())));
            tokio::pin!(work);
            let outcome = tokio::select! {
                outcome = &mut work => outcome,
                () = shutdown.cancelled() => {
                    control.wind_down();
                    match tokio::time::timeout(DRAIN_TIMEOUT, work).await {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            self.status.send_modify(|status| status.leading = false);
                            return Err(LeadershipError::DrainTimeout(DRAIN_TIMEOUT));
                        }
                    }
                }
            };
            if let Err(error) = outcome
                && !shutdown.is_cancelled()
            {
                tracing::error!(%error, "the work failed and starts again in a second: {error}");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        }
        self.status.send_modify(|status| status.leading = false);
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(deadline: Duration) -> (Term, TermControl) {
        let id = TermId { lease: "renewer".into(), identity: "me".into(), fence: "7".into() };
        Term::new(id, Arc::new(TokioClock::new()), deadline)
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_is_over_at_its_deadline() {
        let (term, control) = term(Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(term.remaining(), Duration::from_secs(1));
        control.extend(Duration::from_secs(12));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(term.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(term.check().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_never_outlasts_its_term() {
        let (term, _control) = term(Duration::from_secs(10));
        let started = tokio::time::Instant::now();
        assert!(term.run(std::future::pending::<()>()).await.is_err());
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    /// The outcomes of an effect and of a wait that take five seconds, and when they were known; after a second this happens.
    async fn under_way(
        deadline: Duration,
        happens: impl FnOnce(&TermControl),
    ) -> [(Result<(), TermOver>, Duration); 2] {
        const SECOND: Duration = Duration::from_secs(1);
        let (term, control) = term(deadline);
        let started = tokio::time::Instant::now();
        let effect = async { (term.run(tokio::time::sleep(5 * SECOND)).await, started.elapsed()) };
        let wait = async { (term.wait(tokio::time::sleep(5 * SECOND)).await, started.elapsed()) };
        let happens = async {
            tokio::time::sleep(SECOND).await;
            happens(&control);
        };
        let (effect, wait, ()) = tokio::join!(effect, wait, happens);
        assert!(term.run(async {}).await.is_err() && term.wait(async {}).await.is_err(), "nothing begins");
        [effect, wait]
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_dropped_when_the_term_is_lost() {
        let over = Err(TermOver { lease: "renewer".into() });
        let at = (over, Duration::from_secs(1));
        assert_eq!(under_way(Duration::from_secs(10), TermControl::end).await, [at.clone(), at]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_under_way_is_finished_while_the_term_winds_down_and_a_wait_is_not() {
        let over = Err(TermOver { lease: "renewer".into() });
        let outcomes = under_way(Duration::from_secs(10), TermControl::wind_down).await;
        assert_eq!(outcomes, [(Ok(()), Duration::from_secs(5)), (over, Duration::from_secs(1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn winding_down_does_not_outlast_the_deadline_or_a_loss() {
        let over = Err(TermOver { lease: "renewer".into() });
        let [effect, _] = under_way(Duration::from_secs(3), TermControl::wind_down).await;
        assert_eq!(effect, (over.clone(), Duration::from_secs(3)));
        let wind_down_and_lose = |control: &TermControl| {
            control.wind_down();
            control.end();
        };
        let [effect, _] = under_way(Duration::from_secs(10), wind_down_and_lose).await;
        assert_eq!(effect, (over, Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn nothing_happens_after_the_end() {
        let (term, control) = term(Duration::from_secs(10));
        drop(control);
        let mut happened = false;
        assert!(term.run(async { happened = true }).await.is_err());
        assert!(!happened);
        term.over().await;
    }
}
