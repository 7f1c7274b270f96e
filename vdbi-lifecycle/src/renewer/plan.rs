//! When to renew what: decisions without a clock, a server or a task.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use vdbi_core::{
    credential::{Advice, SourceError},
    ledger::EntryId,
};

/// Pause after the first failure of an entry; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause after a failure that may pass by itself.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Pause after a failure that needs somebody to change something.
const GIVE_UP_RETRY: Duration = Duration::from_secs(300);

/// The shortest pause between two renewals of one entry: with `max_ttl` in sight its time to live shrinks to nothing.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How far a due time is spread, so that credentials issued together are not renewed together.
const JITTER: f64 = 0.1;

/// The queue of renewals. Times are on any clock that never goes back.
#[derive(Debug)]
pub struct Plan {
    renew_at: f64,
    entries: HashMap<EntryId, State>,
    due: BinaryHeap<Reverse<(Duration, EntryId)>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Scheduled {
        at: Duration,
        past: Past,
    },
    InFlight {
        past: Past,
    },
    /// Nothing to do about it until it leaves the ledger: it is somebody else's, or it is lost.
    Settled,
}

/// What is known of an entry from earlier attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Past {
    /// In a row, up to now.
    failures: u32,
    /// When the credential dies unless it is renewed; `None` before the first renewal.
    expires: Option<Duration>,
}

/// How one attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// Renewed for this long.
    Renewed(Duration),
    /// The credential no longer exists.
    Lost,
    /// The entry belongs to another cluster or release, or left the ledger.
    NotOurs,
    /// Not renewed.
    Failed(Advice),
}

impl From<&SourceError> for Attempt {
    fn from(error: &SourceError) -> Self {
        match error {
            SourceError::Gone(_) => Self::Lost,
            error => Self::Failed(error.advice()),
        }
    }
}

impl Plan {
    /// Renews when `renew_at` (a fraction) of a credential's time to live has passed.
    pub fn new(renew_at: f64) -> Self {
        Self { renew_at, entries: HashMap::new(), due: BinaryHeap::new() }
    }

    /// Takes over what the ledger lists now: what is new is due at once, since nobody knows how much is left of it; what is
    /// gone is dropped.
    pub fn reconcile(&mut self, now: Duration, listed: &HashSet<EntryId>) {
        self.entries.retain(|id, _| listed.contains(id));
        for &id in listed {
            if !self.entries.contains_key(&id) {
                self.schedule(id, now, Past::default());
            }
        }
    }

    /// The time at which something is due.
    pub fn next_due(&mut self) -> Option<Duration> {
        while let Some(&Reverse((at, id))) = self.due.peek() {
            if matches!(self.entries.get(&id), Some(State::Scheduled { at: current, .. }) if *current == at) {
                return Some(at);
            }
            self.due.pop();
        }
        None
    }

    /// Takes the entry that has been due longest.
    pub fn take_due(&mut self, now: Duration) -> Option<EntryId> {
        self.next_due().filter(|&at| at <= now)?;
        let Reverse((_, id)) = self.due.pop()?;
        if let Some(state) = self.entries.get_mut(&id) {
            let past = match *state {
                State::Scheduled { past, .. } | State::InFlight { past } => past,
                State::Settled => Past::default(),
            };
            *state = State::InFlight { past };
        }
        Some(id)
    }

    /// Enters the outcome of an attempt. `random` is in `0.0..1.0`.
    pub fn settle(&mut self, id: EntryId, now: Duration, attempt: &Attempt, random: f64) {
        let Some(&State::InFlight { past }) = self.entries.get(&id) else { return };
        let spread = |pause: Duration| pause.mul_f64(1.0 - JITTER * random);
        match attempt {
            Attempt::Renewed(ttl) => {
                let pause = spread(ttl.mul_f64(self.renew_at)).max(SHORTEST_PAUSE);
                self.schedule(id, now + pause, Past { failures: 0, expires: Some(now + *ttl) });
            }
            Attempt::Failed(advice) => {
                let pause = match advice {
                    Advice::Retry => {
                        FIRST_RETRY.saturating_mul(1 << past.failures.min(10)).min(LONGEST_RETRY)
                    }
                    Advice::GiveUp | Advice::Deny => GIVE_UP_RETRY,
                };
                // Half of what is left at most: whatever passes in time is not slept over.
                let left = past.expires.map(|at| at.saturating_sub(now)).filter(|left| !left.is_zero());
                let longest = left.map_or(pause, |left| (left / 2).max(FIRST_RETRY));
                let past = Past { failures: past.failures + 1, ..past };
                self.schedule(id, now + spread(pause.min(longest)), past);
            }
            Attempt::Lost | Attempt::NotOurs => {
                self.entries.insert(id, State::Settled);
            }
        }
    }

    /// How many entries are renewed.
    pub fn active(&self) -> usize {
        self.entries.values().filter(|state| **state != State::Settled).count()
    }

    fn schedule(&mut self, id: EntryId, at: Duration, past: Past) {
        self.entries.insert(id, State::Scheduled { at, past });
        self.due.push(Reverse((at, id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ids(count: usize) -> Vec<EntryId> {
        std::iter::repeat_with(EntryId::random).take(count).collect()
    }

    fn listed(ids: &[EntryId]) -> HashSet<EntryId> {
        ids.iter().copied().collect()
    }

    /// A plan with one entry in flight.
    fn in_flight() -> (Plan, EntryId) {
        let id = EntryId::random();
        let mut plan = Plan::new(0.5);
        plan.reconcile(at(0), &listed(&[id]));
        assert_eq!(plan.take_due(at(0)), Some(id));
        (plan, id)
    }

    #[test]
    fn a_new_entry_is_due_at_once_and_only_once() {
        let (mut plan, id) = in_flight();
        assert_eq!(plan.take_due(at(100)), None);
        plan.reconcile(at(1), &listed(&[id]));
        assert_eq!(plan.take_due(at(100)), None);
    }

    #[test]
    fn the_next_renewal_comes_at_the_fraction_of_the_time_to_live_or_a_little_earlier() {
        for (random, due) in [(0.0, 30.0), (1.0, 27.0)] {
            let (mut plan, id) = in_flight();
            plan.settle(id, at(10), &Attempt::Renewed(at(60)), random);
            let next = plan.next_due().unwrap().as_secs_f64();
            assert!((next - (10.0 + due)).abs() < 1e-6, "{next}");
        }
    }

    #[test]
    fn a_shrinking_time_to_live_does_not_become_a_hot_loop() {
        let (mut plan, id) = in_flight();
        plan.settle(id, at(10), &Attempt::Renewed(Duration::ZERO), 0.0);
        assert_eq!(plan.next_due(), Some(at(11)));
    }

    #[test]
    fn failures_that_may_pass_back_off_and_a_success_starts_over() {
        let (mut plan, id) = in_flight();
        let mut now = at(0);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            plan.settle(id, now, &Attempt::Failed(Advice::Retry), 0.0);
            assert_eq!(plan.next_due(), Some(now + at(pause)));
            now += at(pause);
            assert_eq!(plan.take_due(now), Some(id));
        }
        plan.settle(id, now, &Attempt::Renewed(at(60)), 0.0);
        now += at(30);
        assert_eq!(plan.take_due(now), Some(id));
        plan.settle(id, now, &Attempt::Failed(Advice::Retry), 0.0);
        assert_eq!(plan.next_due(), Some(now + at(1)));
    }

    #[test]
    fn no_pause_after_a_failure_is_longer_than_half_of_what_is_left_of_the_credential() {
        for advice in [Advice::Retry, Advice::Deny] {
            let (mut plan, id) = in_flight();
            plan.settle(id, at(0), &Attempt::Renewed(at(600)), 0.0);
            let mut now = at(300);
            while now < at(600) {
                assert_eq!(plan.take_due(now), Some(id));
                plan.settle(id, now, &Attempt::Failed(advice), 0.0);
                let next = plan.next_due().unwrap();
                assert!(next - now <= ((at(600) - now) / 2).max(at(1)), "{advice:?}: {now:?} to {next:?}");
                now = next;
            }
            // Dead, as far as is known here: it is still asked for, with the pauses of any failure.
            assert_eq!(plan.take_due(now), Some(id));
            plan.settle(id, now, &Attempt::Failed(advice), 0.0);
            let pause = if matches!(advice, Advice::Deny) { at(300) } else { at(60) };
            assert_eq!(plan.next_due(), Some(now + pause));
        }
    }

    #[test]
    fn a_lost_or_foreign_entry_is_not_tried_again_until_it_left_the_ledger() {
        for attempt in [Attempt::Lost, Attempt::NotOurs] {
            let (mut plan, id) = in_flight();
            plan.settle(id, at(0), &attempt, 0.0);
            plan.reconcile(at(1), &listed(&[id]));
            assert_eq!((plan.next_due(), plan.active()), (None, 0));
            plan.reconcile(at(2), &listed(&[]));
            plan.reconcile(at(3), &listed(&[id]));
            assert_eq!(plan.next_due(), Some(at(3)));
        }
    }

    #[test]
    fn an_entry_that_left_the_ledger_is_not_renewed() {
        let [a, b] = ids(2)[..] else { unreachable!() };
        let mut plan = Plan::new(0.5);
        plan.reconcile(at(0), &listed(&[a, b]));
        plan.reconcile(at(1), &listed(&[b]));
        assert_eq!(plan.take_due(at(1)), Some(b));
        assert_eq!(plan.take_due(at(1)), None);
        plan.reconcile(at(2), &listed(&[]));
        plan.settle(b, at(3), &Attempt::Renewed(at(60)), 0.0);
        assert_eq!(plan.next_due(), None);
    }

    #[test]
    fn the_earliest_comes_first() {
        let ids = ids(20);
        let mut plan = Plan::new(0.5);
        plan.reconcile(at(0), &listed(&ids));
        let mut ttl = 20;
        while let Some(id) = plan.take_due(at(0)) {
            plan.settle(id, at(0), &Attempt::Renewed(at(ttl)), 0.0);
            ttl += 2;
        }
        let mut previous = at(0);
        for _ in &ids {
            let due = plan.next_due().unwrap();
            assert!(due >= previous);
            previous = due;
            plan.take_due(due).unwrap();
        }
    }
}
