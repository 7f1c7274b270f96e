//! Contenders for one lock, driven by the test that looks at them.

use std::{
    any::Any,
    collections::VecDeque,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::Fixture;
use crate::{
    leadership::{Leadership, LeadershipError, Status, Term, WorkError},
    testing::{Clause, POLL},
};

/// How a test ends the work of a reign.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    Return,
    Fail,
    Panic,
}

/// One call of the work.
pub(super) struct Reign {
    pub(super) contender: usize,
    pub(super) term: Term,
    ending: oneshot::Sender<Ending>,
    returned: Arc<AtomicBool>,
}

impl Reign {
    pub(super) fn end(self, ending: Ending) {
        // Work that is over already cannot be told anything.
        let _ = self.ending.send(ending);
    }

    /// Whether the work came to its end, rather than being dropped on the way.
    pub(super) fn has_returned(&self) -> bool {
        self.returned.load(Ordering::Acquire)
    }
}

/// Some contenders for one lock. All that they do happens while the test waits for something, and whenever it waits, it is
/// checked that at most one term stands.
pub(super) struct Race {
    clause: Clause,
    patience: Duration,
    contenders: Vec<Contender>,
    calls: mpsc::UnboundedReceiver<Reign>,
    /// Those that the test has not asked for yet.
    reigns: VecDeque<Reign>,
    /// Of all reigns so far.
    terms: Vec<Term>,
}

type Run = BoxFuture<'static, Result<Result<(), LeadershipError>, Box<dyn Any + Send>>>;

struct Contender {
    shutdown: CancellationToken,
    status: watch::Receiver<Status>,
    /// Gone once it has ended or vanished.
    run: Option<Run>,
    ended: bool,
}

impl Race {
    /// Work takes `drain` to return once its term is over.
    pub(super) fn new<F: Fixture>(clause: Clause, fixture: &F, contenders: usize, drain: Duration) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        // Clauses do not meet each other's leftovers on a server that remembers.
        let lock = clause.name.replace('_', "-");
        let contenders = (0..contenders).map(|number| {
            let leadership = fixture.contender(&lock, &format!("contender-{number}"));
            let shutdown = CancellationToken::new();
            let status = leadership.status();
            let run = leadership.run(work(number, drain, sender.clone()), shutdown.clone());
            let run = AssertUnwindSafe(run).catch_unwind().boxed();
            Contender { shutdown, status, run: Some(run), ended: false }
        });
        let contenders = contenders.collect();
        Self {
            clause,
            patience: fixture.patience(),
            contenders,
            calls,
            reigns: VecDeque::new(),
            terms: Vec::new(),
        }
    }

    /// The next call of the work, by anybody.
    pub(super) async fn next_reign(&mut self) -> Reign {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(reign) = self.reigns.pop_front() {
                return reign;
            }
            self.tick(deadline, "nobody leads").await;
        }
    }

    /// Goes on until the condition holds.
    pub(super) async fn until(&mut self, how: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + self.patience;
        while !condition() {
            self.tick(deadline, how).await;
        }
    }

    /// Goes on until the run of a contender that was shut down has ended well.
    pub(super) async fn end_of_run(&mut self, contender: usize) {
        let deadline = Instant::now() + self.patience;
        while !self.contenders[contender].ended {
            self.tick(deadline, "run does not return after its shutdown").await;
        }
    }

    pub(super) fn shut_down(&self, contender: usize) {
        self.contenders[contender].shutdown.cancel();
    }

    /// Lets a contender end as if its process had been killed.
    pub(super) fn vanish(&mut self, contender: usize) {
        self.contenders[contender].run = None;
    }

    pub(super) fn status(&self, contender: usize) -> watch::Receiver<Status> {
        self.contenders[contender].status.clone()
    }

    /// How many calls of the work there were that nobody asked for yet.
    pub(super) fn reigns(&self) -> usize {
        self.reigns.len()
    }

    /// Lets everybody go on for a moment.
    async fn tick(&mut self, deadline: Instant, how: &str) {
        let clause = self.clause;
        if Instant::now() >= deadline {
            let patience = self.patience;
            clause.broken(format_args!("{how}, even after {patience:?}"));
        }
        let contenders = &mut self.contenders;
        let mut moment = pin!(tokio::time::sleep(POLL));
        poll_fn(|context| {
            let mut progress = false;
            for contender in contenders.iter_mut() {
                let Some(Poll::Ready(outcome)) = contender.run.as_mut().map(|run| run.as_mut().poll(context))
                else {
                    continue;
                };
                contender.run = None;
                contender.ended = true;
                progress = true;
                match outcome {
                    Err(_) => clause.broken("run panicked together with its work"),
                    Ok(Err(error)) => clause.broken(format_args!("run failed: {error}")),
                    Ok(Ok(())) if !contender.shutdown.is_cancelled() => {
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
        self.clause.holds(standing <= 1, format_args!("{standing} terms stand at the same time"));
    }
}

fn work(
    contender: usize,
    drain: Duration,
    reigns: mpsc::UnboundedSender<Reign>,
) -> impl FnMut(Term) -> BoxFuture<'static, Result<(), WorkError>> + Send + 'static {
    move |term| {
        let (sender, ending) = oneshot::channel();
        let returned = Arc::new(AtomicBool::new(false));
        let reign = Reign { contender, term: term.clone(), ending: sender, returned: returned.clone() };
        // A test that is over needs no more reigns.
        let _ = reigns.send(reign);
        Box::pin(async move {
            let ending = tokio::select! {
                Ok(ending) = ending => ending,
                () = term.over() => {
                    tokio::time::sleep(drain).await;
                    Ending::Return
                }
            };
            returned.store(true, Ordering::Release);
            match ending {
                Ending::Return => Ok(()),
                Ending::Fail => Err("the contract suite lets this work fail".into()),
                Ending::Panic => panic!("the contract suite lets this work panic"),
            }
        })
    }
}
