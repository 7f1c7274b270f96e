//! Contenders for one lock, driven by the test that looks at them.

use std::{
    any::Any,
    collections::VecDeque,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::Fixture;
use crate::{
    leadership::{Leadership, LeadershipError, Status, Term},
    testing::{Clause, POLL},
};

mod work;

pub(super) use work::{Ending, Reign, Work};

/// Some contenders for one lock. All that they do happens while the test waits for something, and whenever it waits, it is
/// checked that at most one term stands and that nobody ends without a shutdown.
pub(super) struct Race {
    clause: Clause,
    patience: Duration,
    work: Work,
    contenders: Vec<Contender>,
    calls: mpsc::UnboundedReceiver<Reign>,
    /// Those that the test has not asked for yet.
    reigns: VecDeque<Reign>,
    /// Of all reigns so far.
    terms: Vec<Term>,
    may_overlap: bool,
    may_give_up: bool,
}

type Run = BoxFuture<'static, Result<Result<(), LeadershipError>, Box<dyn Any + Send>>>;

struct Contender {
    shutdown: CancellationToken,
    status: watch::Receiver<Status>,
    /// Gone once it has ended or vanished.
    run: Option<Run>,
    suspended: bool,
    ended: bool,
}

impl Race {
    pub(super) fn new<F: Fixture>(clause: Clause, fixture: &F, contenders: usize, work: Work) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        // Clauses do not meet each other's leftovers on a server that remembers.
        let lock = clause.name().replace('_', "-");
        let contenders = (0..contenders).map(|number| {
            let leadership = fixture.contender(&lock, &format!("contender-{number}"));
            let shutdown = CancellationToken::new();
            let status = leadership.status();
            let run = leadership.run(work.of(number, sender.clone()), shutdown.clone());
            let run = AssertUnwindSafe(run).catch_unwind().boxed();
            Contender { shutdown, status, run: Some(run), suspended: false, ended: false }
        });
        let contenders = contenders.collect();
        Self {
            clause,
            patience: fixture.patience(),
            work,
            contenders,
            calls,
            reigns: VecDeque::new(),
            terms: Vec::new(),
            may_overlap: false,
            may_give_up: false,
        }
    }

    /// Leaves it to other clauses that at most one term stands.
    pub(super) fn though_terms_overlap(self) -> Self {
        Self { may_overlap: true, ..self }
    }

    /// Leaves it to other clauses that nobody ends without a shutdown.
    pub(super) fn though_contenders_give_up(self) -> Self {
        Self { may_give_up: true, ..self }
    }

    /// The next call of the work, by anybody.
    pub(super) async fn next_reign(&mut self) -> Reign {
        match self.reign_in_time().await {
            Some(reign) => reign,
            None => self.out_of_patience("nobody leads"),
        }
    }

    /// The next call of the work, by anybody, if there is one within the patience.
    pub(super) async fn reign_in_time(&mut self) -> Option<Reign> {
        let deadline = Instant::now() + self.patience;
        while self.reigns.is_empty() && Instant::now() < deadline {
            self.tick().await;
        }
        self.reigns.pop_front()
    }

    /// Goes on until the condition holds.
    pub(super) async fn until(&mut self, how: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + self.patience;
        while !condition() {
            if Instant::now() >= deadline {
                self.out_of_patience(how);
            }
            self.tick().await;
        }
    }

    /// Goes on until the run of a contender that was shut down has ended well.
    pub(super) async fn end_of_run(&mut self, contender: usize) {
        let deadline = Instant::now() + self.patience;
        while !self.contenders[contender].ended {
            if Instant::now() >= deadline {
                self.out_of_patience("run does not return after its shutdown");
            }
            self.tick().await;
        }
    }

    pub(super) fn shut_down(&self, contender: usize) {
        self.contenders[contender].shutdown.cancel();
    }

    /// Lets a contender end as if its process had been killed.
    pub(super) fn vanish(&mut self, contender: usize) {
        self.contenders[contender].run = None;
    }

    /// Lets a contender stand still as if its process had been stopped, until it is resumed.
    pub(super) fn suspend(&mut self, contender: usize) {
        self.contenders[contender].suspended = true;
    }

    pub(super) fn resume(&mut self, contender: usize) {
        self.contenders[contender].suspended = false;
    }

    pub(super) fn status(&self, contender: usize) -> watch::Receiver<Status> {
        self.contenders[contender].status.clone()
    }

    /// How many calls of the work there were that nobody asked for yet.
    pub(super) fn reigns(&self) -> usize {
        self.reigns.len()
    }

    fn out_of_patience(&self, how: &str) -> ! {
        let patience = self.patience;
        self.clause.broken(format_args!("{how}, even after {patience:?}"))
    }

    /// Lets everybody go on for a moment.
    async fn tick(&mut self) {
        let Self { clause, work, contenders, may_give_up, .. } = self;
        let mut moment = pin!(tokio::time::sleep(POLL));
        poll_fn(|context| {
            let mut progress = false;
            for contender in contenders.iter_mut().filter(|contender| !contender.suspended) {
                let Some(Poll::Ready(outcome)) = contender.run.as_mut().map(|run| run.as_mut().poll(context))
                else {
                    continue;
                };
                contender.run = None;
                contender.ended = true;
                progress = true;
                let is_shut_down = contender.shutdown.is_cancelled();
                match outcome {
                    Err(_) => clause.broken("run panicked together with its work"),
                    Ok(Err(LeadershipError::DrainTimeout(_))) if is_shut_down && *work == Work::Endless => {}
                    Ok(Err(error)) => clause.broken(format_args!("run failed: {error}")),
                    Ok(Ok(())) if !is_shut_down && !*may_give_up => {
                        clause.broken("run returned without a shutdown");
                    }
                    Ok(Ok(())) => {}
                }
            }
            if progress { Poll::Ready(()) } else { moment.as_mut().poll(context) }
        })
        .await;
        while let Ok(reign) = self.calls.try_recv() {
            self.terms.push(reign.term.clone());
            self.reigns.push_back(reign);
        }
        let standing = self.terms.iter().filter(|term| term.check().is_ok()).count();
        let holds = standing <= 1 || self.may_overlap;
        self.clause.holds(holds, format_args!("{standing} terms stand at the same time"));
    }
}
