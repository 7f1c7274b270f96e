//! The contract of [`Leadership`].

use std::time::Duration;

use super::Clause;
use crate::leadership::Leadership;

mod race;

use race::{Ending, Race};

/// How long the work takes to return once its term is over, in clauses about that.
const DRAIN: Duration = Duration::from_millis(500);

/// Makes contenders.
pub trait Fixture {
    /// The leadership.
    type Leadership: Leadership;

    /// A contender for a lock. Contenders for the same lock are rivals; the suite uses each lock for one clause.
    fn contender(&self, lock: &str, identity: &str) -> Self::Leadership;

    /// The longest that it may take until somebody leads, also after a leader vanished without a word.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Runs every clause.
///
/// # Panics
///
/// When a clause is broken.
pub async fn run(fixture: &impl Fixture) {
    run_alone(fixture).await;
    one_at_a_time_is_active(fixture).await;
    leadership_is_handed_on_once_the_work_returned(fixture).await;
    a_standby_takes_over_from_one_that_vanished(fixture).await;
    standbys_know_who_leads(fixture).await;
}

/// Runs the clauses that need one contender only: for an implementation without rivals.
///
/// # Panics
///
/// When a clause is broken.
pub async fn run_alone(fixture: &impl Fixture) {
    work_begins_with_a_term_that_stands(fixture).await;
    a_shutdown_ends_the_term_and_the_run(fixture).await;
    a_shutdown_waits_for_the_work(fixture).await;
    a_shutdown_before_the_start_prevents_the_work(fixture).await;
    work_that_returns_begins_again(fixture).await;
    work_that_fails_begins_again(fixture).await;
    work_that_panics_begins_again(fixture).await;
}

/// Once leadership is won the work is called with a term that stands, and the status says so.
pub async fn work_begins_with_a_term_that_stands(fixture: &impl Fixture) {
    let clause = clause("work_begins_with_a_term_that_stands");
    let mut race = Race::new(clause, fixture, 1, Duration::ZERO);
    let reign = race.next_reign().await;
    clause.ok("check of a new term", reign.term.check());
    clause.holds(!reign.term.remaining().is_zero(), "no time remains of a new term");
    let holder = reign.term.identity().to_owned();
    let status = race.status(0);
    let known = || {
        let status = status.borrow();
        status.initialized && status.leading && status.holder == holder
    };
    race.until("the status does not say who leads", known).await;
}

/// After `shutdown` the term is over, the work has returned, and `run` returns `Ok`.
pub async fn a_shutdown_ends_the_term_and_the_run(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_ends_the_term_and_the_run");
    let mut race = Race::new(clause, fixture, 1, Duration::ZERO);
    let reign = race.next_reign().await;
    race.shut_down(0);
    race.until("the term is not over", || reign.term.check().is_err()).await;
    race.end_of_run(0).await;
    clause.holds(!race.status(0).borrow().leading, "the status still says that it leads");
}

/// `run` does not return before the work has, when that returns soon.
pub async fn a_shutdown_waits_for_the_work(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_waits_for_the_work");
    let mut race = Race::new(clause, fixture, 1, DRAIN);
    let reign = race.next_reign().await;
    race.shut_down(0);
    race.end_of_run(0).await;
    clause.holds(reign.has_returned(), format_args!("the work was dropped, it needed {DRAIN:?} to return"));
}

/// With a `shutdown` that has happened before, `run` returns without any work.
pub async fn a_shutdown_before_the_start_prevents_the_work(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_before_the_start_prevents_the_work");
    let mut race = Race::new(clause, fixture, 1, Duration::ZERO);
    race.shut_down(0);
    race.end_of_run(0).await;
    clause.holds(race.reigns() == 0, "the work was called");
}

/// Work that returns leads back to competing: it begins again, in another term.
pub async fn work_that_returns_begins_again(fixture: &impl Fixture) {
    begins_again_after(fixture, clause("work_that_returns_begins_again"), Ending::Return).await;
}

/// Work that fails leads back to competing: it begins again, in another term.
pub async fn work_that_fails_begins_again(fixture: &impl Fixture) {
    begins_again_after(fixture, clause("work_that_fails_begins_again"), Ending::Fail).await;
}

/// Work that panics leads back to competing: it begins again, in another term.
pub async fn work_that_panics_begins_again(fixture: &impl Fixture) {
    begins_again_after(fixture, clause("work_that_panics_begins_again"), Ending::Panic).await;
}

/// At most one term stands at any time, while leadership changes hands again and again.
pub async fn one_at_a_time_is_active(fixture: &impl Fixture) {
    let clause = clause("one_at_a_time_is_active");
    let mut race = Race::new(clause, fixture, 3, Duration::ZERO);
    for ending in [Ending::Fail, Ending::Return, Ending::Fail] {
        race.next_reign().await.end(ending);
    }
    for _ in 0..2 {
        let leader = race.next_reign().await.contender;
        race.shut_down(leader);
        race.end_of_run(leader).await;
    }
    race.next_reign().await;
}

/// A leader that is shut down hands leadership on: within the patience, but not before its work has returned.
pub async fn leadership_is_handed_on_once_the_work_returned(fixture: &impl Fixture) {
    let clause = clause("leadership_is_handed_on_once_the_work_returned");
    let mut race = Race::new(clause, fixture, 2, DRAIN);
    let first = race.next_reign().await;
    race.shut_down(first.contender);
    let second = race.next_reign().await;
    clause.holds(second.contender != first.contender, "a contender that was shut down leads again");
    clause.holds(first.has_returned(), "the next leader works while the work of the last one still runs");
}

/// A leader that vanishes without a word is replaced once its term is over.
pub async fn a_standby_takes_over_from_one_that_vanished(fixture: &impl Fixture) {
    let clause = clause("a_standby_takes_over_from_one_that_vanished");
    let mut race = Race::new(clause, fixture, 2, Duration::ZERO);
    let first = race.next_reign().await;
    race.vanish(first.contender);
    let second = race.next_reign().await;
    clause.holds(second.contender != first.contender, "the one that vanished leads again");
    clause.holds(second.term.fence() != first.term.fence(), "two terms have the same fence");
    clause.ok("check of the successor's term", second.term.check());
}

/// The status of those that do not lead names who does.
pub async fn standbys_know_who_leads(fixture: &impl Fixture) {
    let clause = clause("standbys_know_who_leads");
    let mut race = Race::new(clause, fixture, 3, Duration::ZERO);
    let reign = race.next_reign().await;
    let holder = reign.term.identity().to_owned();
    for contender in (0..3).filter(|contender| *contender != reign.contender) {
        let status = race.status(contender);
        let known = || {
            let status = status.borrow();
            status.initialized && !status.leading && status.holder == holder
        };
        race.until("the status of a standby does not name the leader", known).await;
    }
}

async fn begins_again_after(fixture: &impl Fixture, clause: Clause, ending: Ending) {
    let mut race = Race::new(clause, fixture, 1, Duration::ZERO);
    let first = race.next_reign().await;
    let (term, fence) = (first.term.clone(), first.term.fence().to_owned());
    first.end(ending);
    let second = race.next_reign().await;
    clause.holds(second.term.fence() != fence, "two terms have the same fence");
    clause.holds(term.check().is_err(), "the term of work that ended still stands");
    clause.ok("check of the next term", second.term.check());
}

fn clause(name: &'static str) -> Clause {
    Clause { contract: "Leadership", name }
}

#[cfg(test)]
mod tests;
