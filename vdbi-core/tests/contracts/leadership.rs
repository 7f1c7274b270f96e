//! Leaderships.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    clock::{Clock, TokioClock},
    leadership::{AlwaysLeader, Leadership, LeadershipError, Status, Term, TermControl, TermId, WorkError},
    testing::{
        Broken,
        leadership::{self as suite, Fixture},
    },
};

use crate::wrong;

/// How long a lock is held without a renewal.
const LEASE: Duration = Duration::from_secs(15);

/// How long a term stands without one.
const TERM: Duration = Duration::from_secs(10);

/// From one renewal to the next.
const RENEWAL: Duration = Duration::from_secs(3);

/// How long the work may take to return.
const DRAIN: Duration = Duration::from_secs(20);

/// A leadership without rivals, which may say so.
struct Alone {
    claims_rivals: bool,
}

impl Fixture for Alone {
    type Leadership = AlwaysLeader;

    fn contender(&self, _: &str, identity: &str) -> AlwaysLeader {
        AlwaysLeader::new(identity)
    }

    fn has_rivals(&self) -> bool {
        self.claims_rivals
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_always_leads_keeps_what_one_contender_can_show() {
    suite::run(&Alone { claims_rivals: false }).await;
}

#[tokio::test(start_paused = true)]
async fn two_that_always_lead_are_noticed() {
    let fixture = Alone { claims_rivals: true };
    let clause = "one_at_a_time_is_active";
    let broken = Broken::by(clause, suite::one_at_a_time_is_active(&fixture)).await.unwrap();
    assert!(broken.message.contains("terms stand at the same time"), "{broken}");
}

/// What an election does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    HidesThatItLeads,
    RepeatsTheFence,
    StillSaysThatItLeads,
    DropsTheWorkTooSoon,
    EndsTheTermAtOnce,
    WaitsForever,
    WorksBeforeItLooks,
    GivesUpAfterWork,
    GivesUpAfterAFailure,
    PanicsWithItsWork,
    KeepsTheTermAfterItsWork,
    HandsOnEarly,
    NeverTakesOver,
    TakesOverEarly,
    GivesUpOnceLost,
    HidesTheHolder,
}

const FLAWS: [(Flaw, &str); 16] = [
    (Flaw::HidesThatItLeads, "work_begins_with_a_term_that_stands"),
    (Flaw::RepeatsTheFence, "every_term_has_its_own_fence"),
    (Flaw::StillSaysThatItLeads, "a_shutdown_ends_the_term_and_the_run"),
    (Flaw::DropsTheWorkTooSoon, "a_shutdown_waits_for_the_work"),
    (Flaw::EndsTheTermAtOnce, "a_shutdown_lets_an_effect_finish"),
    (Flaw::WaitsForever, "work_that_does_not_return_is_dropped"),
    (Flaw::WorksBeforeItLooks, "a_shutdown_before_the_start_prevents_the_work"),
    (Flaw::GivesUpAfterWork, "work_that_returns_begins_again"),
    (Flaw::GivesUpAfterAFailure, "work_that_fails_begins_again"),
    (Flaw::PanicsWithItsWork, "work_that_panics_begins_again"),
    (Flaw::KeepsTheTermAfterItsWork, "one_at_a_time_is_active"),
    (Flaw::HandsOnEarly, "leadership_is_handed_on_once_the_work_returned"),
    (Flaw::NeverTakesOver, "a_standby_takes_over_from_one_that_vanished"),
    (Flaw::TakesOverEarly, "a_leader_that_stands_still_is_not_overlapped"),
    (Flaw::GivesUpOnceLost, "whoever_lost_leadership_competes_again"),
    (Flaw::HidesTheHolder, "standbys_know_who_leads"),
];

/// An election by a lease among the contenders of one process.
struct Local {
    locks: Mutex<HashMap<String, watch::Sender<Lock>>>,
    flaw: Option<Flaw>,
}

#[derive(Clone, Default)]
struct Lock {
    holder: String,
    fence: u64,
    /// When it was taken or renewed the last time.
    renewed: Option<Instant>,
}

struct Contender {
    lock: watch::Sender<Lock>,
    identity: String,
    status: watch::Sender<Status>,
    flaw: Option<Flaw>,
}

/// How a reign ended.
enum End {
    Work(Result<(), WorkError>),
    Panic,
    Lost,
    DrainTimeout,
}

impl Local {
    fn new(flaw: Option<Flaw>) -> Self {
        Self { locks: Mutex::default(), flaw }
    }
}

impl Fixture for Local {
    type Leadership = Contender;

    fn contender(&self, lock: &str, identity: &str) -> Contender {
        let lock = self.locks.lock().unwrap().entry(lock.to_owned()).or_default().clone();
        Contender { lock, identity: identity.to_owned(), status: watch::Sender::default(), flaw: self.flaw }
    }

    /// Longer than the lease and than the drain.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

impl Contender {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Waits until the lock is free and takes it; returns the fence.
    async fn compete(&self) -> u64 {
        let mut changes = self.lock.subscribe();
        let patience = if self.is(Flaw::TakesOverEarly) { TERM / 2 } else { LEASE };
        loop {
            let Lock { holder, renewed, .. } = changes.borrow_and_update().clone();
            let holder = if self.is(Flaw::HidesTheHolder) { String::new() } else { holder };
            self.status.send_replace(Status::seen(holder));
            let mut taken = None;
            self.lock.send_if_modified(|lock| {
                let is_stale = lock.renewed.is_some_and(|at| at + patience <= Instant::now());
                if lock.renewed.is_none() || (is_stale && !self.is(Flaw::NeverTakesOver)) {
                    let (holder, fence) = (self.identity.clone(), lock.fence + 1);
                    *lock = Lock { holder, fence, renewed: Some(Instant::now()) };
                    taken = Some(fence);
                }
                taken.is_some()
            });
            if let Some(fence) = taken {
                return if self.is(Flaw::RepeatsTheFence) { 1 } else { fence };
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(renewed.map_or_else(Instant::now, |at| at + patience)) => {}
            }
            if self.is(Flaw::NeverTakesOver) {
                sleep(RENEWAL).await;
            }
        }
    }

    /// Whether the lock was still this contender's to change.
    fn change(&self, change: impl FnOnce(&mut Lock)) -> bool {
        self.lock.send_if_modified(|lock| {
            let is_ours = lock.holder == self.identity && lock.renewed.is_some();
            if is_ours {
                change(lock);
            }
            is_ours
        })
    }

    fn release(&self) {
        self.change(|lock| *lock = Lock { holder: String::new(), renewed: None, fence: lock.fence });
    }

    async fn reign<F>(
        &self,
        work: F,
        clock: &TokioClock,
        control: &TermControl,
        shutdown: &CancellationToken,
    ) -> End
    where
        F: Future<Output = Result<(), WorkError>>,
    {
        let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
        let drain = if self.is(Flaw::DropsTheWorkTooSoon) { DRAIN / 100 } else { DRAIN };
        let mut drained = None;
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return match outcome {
                    Ok(outcome) => End::Work(outcome),
                    Err(panic) if self.is(Flaw::PanicsWithItsWork) => std::panic::resume_unwind(panic),
                    Err(_) => End::Panic,
                },
                () = shutdown.cancelled(), if drained.is_none() => {
                    drained = Some(Instant::now() + drain);
                    match self.flaw {
                        Some(Flaw::EndsTheTermAtOnce) => control.end(),
                        _ => control.wind_down(),
                    }
                    if self.is(Flaw::HandsOnEarly) {
                        self.release();
                    }
                }
                () = sleep_until(drained.unwrap_or_else(Instant::now)),
                    if drained.is_some() && !self.is(Flaw::WaitsForever) => return End::DrainTimeout,
                () = sleep(RENEWAL) => {
                    let now = clock.now();
                    if !self.change(|lock| lock.renewed = Some(Instant::now())) {
                        control.end();
                        // Whatever the work still does it does in vain.
                        let _ = timeout(RENEWAL, &mut work).await;
                        return End::Lost;
                    }
                    control.extend(now + TERM);
                }
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
        let clock = TokioClock::new();
        let mut is_first = true;
        while !shutdown.is_cancelled() || (is_first && self.is(Flaw::WorksBeforeItLooks)) {
            is_first = false;
            let fence = tokio::select! {
                biased;
                fence = self.compete() => fence,
                () = shutdown.cancelled() => break,
            };
            let seen = Status::seen(&self.identity);
            self.status.send_replace(if self.is(Flaw::HidesThatItLeads) { seen } else { seen.leading() });
            let (identity, fence) = (self.identity.clone(), fence.to_string());
            let id = TermId { lease: "local".into(), identity, fence };
            let (term, control) = Term::new(id, Arc::new(clock), clock.now() + TERM);
            let end = self.reign(work(term), &clock, &control, &shutdown).await;
            self.release();
            if self.is(Flaw::KeepsTheTermAfterItsWork) {
                sleep(Duration::from_secs(1)).await;
            }
            drop(control);
            if !(self.is(Flaw::StillSaysThatItLeads) && shutdown.is_cancelled()) {
                self.status.send_modify(|status| status.leading = false);
            }
            match end {
                End::DrainTimeout if self.is(Flaw::DropsTheWorkTooSoon) => {}
                End::DrainTimeout => return Err(LeadershipError::DrainTimeout(DRAIN)),
                End::Lost if self.is(Flaw::GivesUpOnceLost) => return Ok(()),
                End::Work(Ok(())) if self.is(Flaw::GivesUpAfterWork) => return Ok(()),
                End::Work(Err(_)) if self.is(Flaw::GivesUpAfterAFailure) => return Ok(()),
                End::Work(_) | End::Panic | End::Lost => {}
            }
            tokio::select! {
                () = sleep(Duration::from_secs(1)) => {}
                () = shutdown.cancelled() => {}
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
    suite::run(&Local::new(None)).await;
}

#[tokio::test(start_paused = true)]
async fn each_wrong_election_breaks_the_clause_meant() {
    for (flaw, clause) in FLAWS {
        let run = Broken::by("run", suite::run(&Local::new(Some(flaw)))).await;
        let broken = suite::broken(&Local::new(Some(flaw))).await;
        wrong::expect_one_broken(flaw, clause, &broken, run);
    }
}

#[test]
fn every_clause_of_the_suite_has_a_wrong_election() {
    wrong::expect_complete("vdbi_core::testing::leadership", suite::CLAUSES, &FLAWS);
}
