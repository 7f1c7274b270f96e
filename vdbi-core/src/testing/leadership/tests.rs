use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    clock::TokioClock,
    leadership::{AlwaysLeader, LeadershipError, Status, Term, TermId, WorkError},
    testing::message_of_the_broken_clause,
};

struct Alone;

impl Fixture for Alone {
    type Leadership = AlwaysLeader;

    fn contender(&self, _: &str, identity: &str) -> AlwaysLeader {
        AlwaysLeader::new(identity)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_always_leads_keeps_what_one_contender_can_show() {
    run_alone(&Alone).await;
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_that_two_always_lead() {
    let message = message_of_the_broken_clause(one_at_a_time_is_active(&Alone)).await;
    assert!(message.contains("terms stand at the same time"), "{message}");
}

/// What a broken election does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    GivesUpAfterWork,
    PanicsWithItsWork,
    DropsTheWork,
    HandsOnEarly,
    IgnoresTheShutdown,
    HidesTheHolder,
    RepeatsTheFence,
}

/// An election among the contenders of one process.
struct Local {
    locks: Mutex<HashMap<String, Arc<Lock>>>,
    flaw: Flaw,
}

#[derive(Default)]
struct Lock {
    mutex: Arc<tokio::sync::Mutex<()>>,
    holder: watch::Sender<String>,
    fence: AtomicU64,
}

struct Contender {
    lock: Arc<Lock>,
    identity: String,
    status: watch::Sender<Status>,
    flaw: Flaw,
}

impl Local {
    fn new(flaw: Flaw) -> Self {
        Self { locks: Mutex::default(), flaw }
    }
}

impl Fixture for Local {
    type Leadership = Contender;

    fn contender(&self, lock: &str, identity: &str) -> Contender {
        let lock = self.locks.lock().unwrap().entry(lock.to_owned()).or_default().clone();
        Contender { lock, identity: identity.to_owned(), status: watch::Sender::default(), flaw: self.flaw }
    }
}

impl Contender {
    /// Waits for the lock, and keeps the status up to date meanwhile.
    async fn compete(&self) -> tokio::sync::OwnedMutexGuard<()> {
        let mut holders = self.lock.holder.subscribe();
        let lock = self.lock.mutex.clone().lock_owned();
        tokio::pin!(lock);
        loop {
            let holder = holders.borrow_and_update().clone();
            let holder = if self.flaw == Flaw::HidesTheHolder { String::new() } else { holder };
            self.status.send_replace(Status { initialized: true, leading: false, holder });
            tokio::select! {
                guard = &mut lock => return guard,
                _ = holders.changed() => {}
            }
        }
    }
}

impl Leadership for Contender {
    async fn run<W, F>(self, mut work: W, shutdown: CancellationToken) -> Result<(), LeadershipError>
    where
        W: FnMut(Term) -> F + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        while !shutdown.is_cancelled() {
            let mut guard = tokio::select! {
                guard = self.compete() => Some(guard),
                () = shutdown.cancelled() => break,
            };
            let holder = self.identity.clone();
            self.lock.holder.send_replace(holder.clone());
            self.status.send_replace(Status { initialized: true, leading: true, holder });
            let fence = match self.flaw {
                Flaw::RepeatsTheFence => 1,
                _ => self.lock.fence.fetch_add(1, Ordering::AcqRel),
            };
            let clock = Arc::new(TokioClock::new());
            let identity = self.identity.clone();
            let id = TermId { lease: "local".to_owned(), identity, fence: fence.to_string() };
            let (term, control) = Term::new(id, clock, Duration::MAX);
            let work = AssertUnwindSafe(work(term)).catch_unwind();
            tokio::pin!(work);
            let outcome = tokio::select! {
                outcome = &mut work => Some(outcome),
                () = shutdown.cancelled(), if self.flaw != Flaw::IgnoresTheShutdown => {
                    control.end();
                    if self.flaw == Flaw::HandsOnEarly {
                        guard = None;
                    }
                    if self.flaw == Flaw::DropsTheWork { None } else { Some(work.await) }
                }
            };
            drop(control);
            self.status.send_modify(|status| status.leading = false);
            drop(guard);
            match (self.flaw, outcome) {
                (Flaw::GivesUpAfterWork, _) => return Ok(()),
                (Flaw::PanicsWithItsWork, Some(Err(panic))) => std::panic::resume_unwind(panic),
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn an_election_in_one_process_keeps_the_contract() {
    run(&Local::new(Flaw::None)).await;
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_what_is_broken() {
    let flaws = [
        (Flaw::IgnoresTheShutdown, "a_shutdown_ends_the_term_and_the_run"),
        (Flaw::DropsTheWork, "a_shutdown_waits_for_the_work"),
        (Flaw::GivesUpAfterWork, "work_that_returns_begins_again"),
        (Flaw::RepeatsTheFence, "work_that_returns_begins_again"),
        (Flaw::PanicsWithItsWork, "work_that_panics_begins_again"),
        (Flaw::HandsOnEarly, "leadership_is_handed_on_once_the_work_returned"),
        (Flaw::HidesTheHolder, "standbys_know_who_leads"),
    ];
    for (flaw, clause) in flaws {
        let message = message_of_the_broken_clause(run(&Local::new(flaw))).await;
        assert!(message.contains(&format!("clause {clause}:")), "{flaw:?}: {message}");
    }
}
