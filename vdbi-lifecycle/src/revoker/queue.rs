//! Which revocations are to be tried when: decisions without a clock, a server or a task.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use vdbi_core::ledger::EntryId;

/// Pause after the first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause. How many are tried in all is the budget's affair.
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// How far a pause is spread, so that what failed together is not tried together.
const JITTER: f64 = 0.1;

/// The credentials that are to be revoked. Times are on any clock that never goes back.
#[derive(Debug, Default)]
pub struct Queue {
    /// Not tried yet. They go first: a database that is down holds up nobody but its own pods.
    fresh: BTreeSet<(Duration, EntryId)>,
    /// Failed before.
    waiting: BTreeSet<(Duration, EntryId)>,
    states: HashMap<EntryId, State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    failures: u32,
    /// `None` while it is under way.
    at: Option<Duration>,
}

impl Queue {
    /// Adds what is to be revoked now. What is there already keeps its pause.
    pub fn add(&mut self, id: EntryId, now: Duration) {
        self.states.entry(id).or_insert_with(|| {
            self.fresh.insert((now, id));
            State { failures: 0, at: Some(now) }
        });
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.fresh.first().into_iter().chain(self.waiting.first()).map(|&(at, _)| at).min()
    }

    /// Takes the one that has been due longest, of those that have not been tried if there are any.
    pub fn take_due(&mut self, now: Duration) -> Option<EntryId> {
        let is_due =
            |queue: &&mut BTreeSet<(Duration, EntryId)>| queue.first().is_some_and(|(at, _)| *at <= now);
        let (_, id) = [&mut self.fresh, &mut self.waiting].into_iter().find(is_due)?.pop_first()?;
        if let Some(state) = self.states.get_mut(&id) {
            state.at = None;
        }
        Some(id)
    }

    /// It is revoked, or is not to be revoked after all.
    pub fn done(&mut self, id: EntryId) {
        if let Some(State { at: Some(at), .. }) = self.states.remove(&id) {
            self.fresh.remove(&(at, id));
            self.waiting.remove(&(at, id));
        }
    }

    /// It is to be tried again. `random` is in `0.0..1.0`.
    pub fn failed(&mut self, id: EntryId, now: Duration, random: f64) {
        let Some(state @ State { at: None, .. }) = self.states.get_mut(&id) else { return };
        let pause = FIRST_RETRY.saturating_mul(1 << state.failures.min(10)).min(LONGEST_RETRY);
        let at = now + pause.mul_f64(1.0 - JITTER * random);
        *state = State { failures: state.failures + 1, at: Some(at) };
        self.waiting.insert((at, id));
    }

    /// How many there are, those under way included.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_added_is_due_at_once_and_taken_once() {
        let (mut queue, id) = (Queue::default(), EntryId::random());
        queue.add(id, at(5));
        queue.add(id, at(6));
        assert_eq!(queue.take_due(at(4)), None);
        assert_eq!(queue.take_due(at(5)), Some(id));
        queue.add(id, at(7));
        assert_eq!((queue.take_due(at(9)), queue.len()), (None, 1), "it is under way");
        queue.done(id);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_fails_is_tried_again_with_growing_pauses_for_ever() {
        let (mut queue, id) = (Queue::default(), EntryId::random());
        let mut now = at(0);
        queue.add(id, now);
        for pause in [1, 2, 4, 8, 15, 15, 15] {
            assert_eq!(queue.take_due(now), Some(id));
            queue.failed(id, now, 0.0);
            assert_eq!(queue.next_due(), Some(now + at(pause)));
            now += at(pause);
        }
    }

    #[test]
    fn another_comparison_does_not_cut_a_pause_short() {
        let (mut queue, id) = (Queue::default(), EntryId::random());
        queue.add(id, at(0));
        assert_eq!(queue.take_due(at(0)), Some(id));
        queue.failed(id, at(0), 0.0);
        queue.add(id, at(0));
        assert_eq!((queue.take_due(at(0)), queue.next_due()), (None, Some(at(1))));
    }

    #[test]
    fn one_that_fails_does_not_hold_up_the_others() {
        let (mut queue, first, second) = (Queue::default(), EntryId::random(), EntryId::random());
        queue.add(first, at(0));
        assert_eq!(queue.take_due(at(0)), Some(first));
        queue.failed(first, at(0), 0.0);
        queue.add(second, at(0));
        assert_eq!(queue.take_due(at(0)), Some(second));
    }

    #[test]
    fn what_has_not_been_tried_goes_before_what_has_failed() {
        let (mut queue, failed, fresh) = (Queue::default(), EntryId::random(), EntryId::random());
        queue.add(failed, at(0));
        assert_eq!(queue.take_due(at(0)), Some(failed));
        queue.failed(failed, at(0), 0.0);
        queue.add(fresh, at(9));
        assert_eq!(queue.next_due(), Some(at(1)));
        assert_eq!([queue.take_due(at(9)), queue.take_due(at(9))], [Some(fresh), Some(failed)]);
        assert_eq!(queue.next_due(), None);
    }
}
