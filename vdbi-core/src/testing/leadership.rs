//! The contract of [`Leadership`].

use std::{collections::BTreeSet, time::Duration};

use super::Clause;
use crate::{leadership::Leadership, suite};

mod race;

use race::{Ending, Race, Work};

/// How long the work takes to return once its term is over, in clauses about that.
const DRAIN: Duration = Duration::from_millis(500);

/// How long an effect that is under way at a shutdown goes on.
const EFFECT: Duration = Duration::from_millis(100);

/// Makes contenders.
pub trait Fixture {
    /// The leadership.
    type Leadership: Leadership;

    /// A contender for a lock. Contenders for the same lock are rivals; the suite uses each lock for one clause.
    fn contender(&self, lock: &str, identity: &str) -> Self::Leadership;

    /// The longest that it may take until somebody leads, also after a leader vanished without a word, and until a contender that
    /// was shut down has ended, whatever its work does.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Whether there may be more than one contender for a lock. The clauses about several are left out otherwise.
    fn has_rivals(&self) -> bool {
        true
    }
}

suite! {
    /// Runs every clause.
    pub async fn run(fixture: &impl Fixture) {
        work_begins_with_a_term_that_stands,
        every_term_has_its_own_fence,
        a_shutdown_ends_the_term_and_the_run,
        a_shutdown_waits_for_the_work,
        a_shutdown_lets_an_effect_finish,
        work_that_does_not_return_is_dropped,
        a_shutdown_before_the_start_prevents_the_work,
        work_that_returns_begins_again,
        work_that_fails_begins_again,
        work_that_panics_begins_again,
        one_at_a_time_is_active,
        leadership_is_handed_on_once_the_work_returned,
        a_standby_takes_over_from_one_that_vanished,
        a_leader_that_stands_still_is_not_overlapped,
        whoever_lost_leadership_competes_again,
        standbys_know_who_leads,
    }
}

/// Once leadership is won the work is called with a term that stands, and the status says so.
pub async fn work_begins_with_a_term_that_stands(fixture: &impl Fixture) {
    let clause = clause("work_begins_with_a_term_that_stands");
    let mut race = Race::new(clause, fixture, 1, Work::Draining(Duration::ZERO));
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

/// No two terms of a lock have the same fence, neither one contender's nor those of two.
pub async fn every_term_has_its_own_fence(fixture: &impl Fixture) {
    let clause = clause("every_term_has_its_own_fence");
    let rivals = if fixture.has_rivals() { 2 } else { 1 };
    let mut race = Race::new(clause, fixture, rivals, Work::Draining(Duration::ZERO));
    let mut fences = Vec::new();
    let first = race.next_reign().await;
    fences.push(first.term.fence().to_owned());
    if fixture.has_rivals() {
        race.shut_down(first.contender);
    } else {
        first.end(Ending::Fail);
    }
    fences.push(race.next_reign().await.term.fence().to_owned());
    let distinct: BTreeSet<_> = fences.iter().collect();
    clause.holds(distinct.len() == fences.len(), format_args!("the terms have the fences {fences:?}"));
}

/// After `shutdown` the term is over, the work has returned, and `run` returns `Ok`.
pub async fn a_shutdown_ends_the_term_and_the_run(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_ends_the_term_and_the_run");
    let mut race = Race::new(clause, fixture, 1, Work::Draining(Duration::ZERO));
    let reign = race.next_reign().await;
    race.shut_down(0);
    race.until("the term is not over", || reign.term.check().is_err()).await;
    race.end_of_run(0).await;
    clause.holds(!race.status(0).borrow().leading, "the status still says that it leads");
}

/// `run` does not return before the work has, when that returns soon.
pub async fn a_shutdown_waits_for_the_work(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_waits_for_the_work");
    let mut race = Race::new(clause, fixture, 1, Work::Draining(DRAIN));
    let reign = race.next_reign().await;
    race.shut_down(0);
    race.end_of_run(0).await;
    clause.holds(reign.has_returned(), format_args!("the work was dropped, it needed {DRAIN:?} to return"));
}

/// What the work does within its term when the shutdown comes, [`Term::run`](crate::leadership::Term::run) lets it do to its end: the
/// term winds down.
pub async fn a_shutdown_lets_an_effect_finish(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_lets_an_effect_finish");
    let mut race = Race::new(clause, fixture, 1, Work::Effect(EFFECT));
    let reign = race.next_reign().await;
    race.shut_down(0);
    race.end_of_run(0).await;
    clause.holds(!reign.was_cut_off(), format_args!("an effect was cut off that took {EFFECT:?} more"));
}

/// Work that does not return though its term is over is dropped, and `run` returns, saying so or not.
pub async fn work_that_does_not_return_is_dropped(fixture: &impl Fixture) {
    let clause = clause("work_that_does_not_return_is_dropped");
    let mut race = Race::new(clause, fixture, 1, Work::Endless);
    let reign = race.next_reign().await;
    race.shut_down(0);
    race.end_of_run(0).await;
    // A task that is told to end does so a moment later.
    race.until("run has returned, and its work is still there", || !reign.is_under_way()).await;
}

/// With a `shutdown` that has happened before, `run` returns without any work.
pub async fn a_shutdown_before_the_start_prevents_the_work(fixture: &impl Fixture) {
    let clause = clause("a_shutdown_before_the_start_prevents_the_work");
    let mut race = Race::new(clause, fixture, 1, Work::Draining(Duration::ZERO));
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
    if !fixture.has_rivals() {
        return;
    }
    let clause = clause("one_at_a_time_is_active");
    let mut race = Race::new(clause, fixture, 4, Work::Draining(Duration::ZERO)).though_contenders_give_up();
    for ending in [Ending::Return, Ending::Fail] {
        race.next_reign().await.end(ending);
    }
    let leader = race.next_reign().await.contender;
    race.shut_down(leader);
    race.end_of_run(leader).await;
    race.next_reign().await;
}

/// A leader that is shut down hands leadership on: within the patience, but not before its work has returned.
pub async fn leadership_is_handed_on_once_the_work_returned(fixture: &impl Fixture) {
    if !fixture.has_rivals() {
        return;
    }
    let clause = clause("leadership_is_handed_on_once_the_work_returned");
    let mut race = Race::new(clause, fixture, 2, Work::Draining(DRAIN));
    let first = race.next_reign().await;
    race.shut_down(first.contender);
    let second = race.next_reign().await;
    clause.holds(second.contender != first.contender, "a contender that was shut down leads again");
    clause.holds(!first.is_under_way(), "the next leader works while the work of the last one still runs");
}

/// A leader that vanishes without a word is replaced once its term is over.
pub async fn a_standby_takes_over_from_one_that_vanished(fixture: &impl Fixture) {
    if !fixture.has_rivals() {
        return;
    }
    let clause = clause("a_standby_takes_over_from_one_that_vanished");
    let mut race = Race::new(clause, fixture, 2, Work::Draining(Duration::ZERO));
    let first = race.next_reign().await;
    race.vanish(first.contender);
    let second = race.next_reign().await;
    clause.holds(second.contender != first.contender, "the one that vanished leads again");
}

/// A leader that stands still, as a process that is suspended, is replaced after the deadline of its term or not at all.
pub async fn a_leader_that_stands_still_is_not_overlapped(fixture: &impl Fixture) {
    if !fixture.has_rivals() {
        return;
    }
    let clause = clause("a_leader_that_stands_still_is_not_overlapped");
    let mut race = Race::new(clause, fixture, 2, Work::Draining(Duration::ZERO));
    let first = race.next_reign().await;
    race.suspend(first.contender);
    // Whether terms overlap is looked at meanwhile.
    race.reign_in_time().await;
}

/// Lost leadership leads back to competing: whoever was replaced while it stood still leads again once its successor has ended.
pub async fn whoever_lost_leadership_competes_again(fixture: &impl Fixture) {
    if !fixture.has_rivals() {
        return;
    }
    let clause = clause("whoever_lost_leadership_competes_again");
    let mut race = Race::new(clause, fixture, 2, Work::Draining(Duration::ZERO)).though_terms_overlap();
    let first = race.next_reign().await;
    race.suspend(first.contender);
    let Some(second) = race.reign_in_time().await else { return };
    race.resume(first.contender);
    let status = race.status(first.contender);
    race.until("the status still says that it leads", || !status.borrow().leading).await;
    race.shut_down(second.contender);
    let third = race.next_reign().await;
    clause.holds(third.contender == first.contender, "a contender that was shut down leads again");
}

/// The status of those that do not lead names who does.
pub async fn standbys_know_who_leads(fixture: &impl Fixture) {
    if !fixture.has_rivals() {
        return;
    }
    let clause = clause("standbys_know_who_leads");
    let mut race = Race::new(clause, fixture, 3, Work::Draining(Duration::ZERO));
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
    let mut race = Race::new(clause, fixture, 1, Work::Draining(Duration::ZERO));
    let first = race.next_reign().await;
    let term = first.term.clone();
    first.end(ending);
    race.next_reign().await;
    clause.holds(term.check().is_err(), "the term of work that ended still stands");
}

fn clause(name: &'static str) -> Clause {
    Clause::new("Leadership", name)
}
