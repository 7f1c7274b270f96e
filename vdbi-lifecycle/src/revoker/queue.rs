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

/// How long the second step waits while other credentials still work: nothing that a pod can use depends on it, and it would hold them
/// up when there is more to do than the backend can.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of the two steps of a revocation, each of which is tried until it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The credential stops working.
    CutOff,
    /// What is left of it goes: its token, and then its entry.
    Clear,
}

/// The credentials that are to be revoked. Times are on any clock that never goes back.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Not tried yet. They go first: a database that is down holds up nobody but its own pods.
    fresh: BTreeSet<(Duration, EntryId)>,
    /// They work no longer. They go next, or first once they have waited for long.
    cut_off: BTreeSet<(Duration, EntryId)>,
    /// Failed before.
    waiting: BTreeSet<(Duration, EntryId)>,
    states: HashMap<EntryId, State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    step: Step,
    failures: u32,
    /// `None` while it is under way.
    at: Option<Duration>,
}

impl Step {
    /// How many requests it costs.
    pub(crate) fn requests(self) -> u32 {
        match self {
            Self::CutOff => 1,
            Self::Clear => 2,
        }
    }
}

impl Queue {
    /// Adds what is to be revoked now. What is there already keeps its pause.
    pub(crate) fn add(&mut self, id: EntryId, now: Duration) {
        self.states.entry(id).or_insert_with(|| {
            self.fresh.insert((now, id));
            State { step: Step::CutOff, failures: 0, at: Some(now) }
        });
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let firsts = [&self.fresh, &self.cut_off, &self.waiting].map(BTreeSet::first);
        firsts.into_iter().flatten().map(|&(at, _)| at).min()
    }

    /// Takes the one that has been due longest: of those that have not been tried if there are any.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(EntryId, Step)> {
        let due = |queue: &BTreeSet<(Duration, EntryId)>, patience: Duration| {
            queue.first().is_some_and(|&(at, _)| at + patience <= now)
        };
        let queue = if due(&self.cut_off, PATIENCE) {
            &mut self.cut_off
        } else {
            let mut queues = [&mut self.fresh, &mut self.cut_off, &mut self.waiting].into_iter();
            queues.find(|queue| due(queue, Duration::ZERO))?
        };
        let (_, id) = queue.pop_first()?;
        let state = self.states.get_mut(&id)?;
        state.at = None;
        Some((id, state.step))
    }

    /// It works no longer, and the second step is due.
    pub(crate) fn cut_off(&mut self, id: EntryId, now: Duration) {
        if let Some(state @ State { at: None, .. }) = self.states.get_mut(&id) {
            *state = State { step: Step::Clear, failures: 0, at: Some(now) };
            self.cut_off.insert((now, id));
        }
    }

    /// It is revoked, or is not to be revoked after all.
    pub(crate) fn done(&mut self, id: EntryId) {
        if let Some(State { at: Some(at), .. }) = self.states.remove(&id) {
            for queue in [&mut self.fresh, &mut self.cut_off, &mut self.waiting] {
                queue.remove(&(at, id));
            }
        }
    }

    /// The step is to be tried again. `random` is in `0.0..1.0`.
    pub(crate) fn failed(&mut self, id: EntryId, now: Duration, random: f64) {
        let Some(state @ State { at: None, .. }) = self.states.get_mut(&id) else { return };
        let pause = FIRST_RETRY.saturating_mul(1 << state.failures.min(10)).min(LONGEST_RETRY);
        let at = now + pause.mul_f64(1.0 - JITTER * random);
        *state = State { failures: state.failures + 1, at: Some(at), ..*state };
        self.waiting.insert((at, id));
    }

    /// Whether it is to be revoked, or under way.
    pub(crate) fn contains(&self, id: EntryId) -> bool {
        self.states.contains_key(&id)
    }

    /// How many there are, those under way included.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cut(id: EntryId) -> Option<(EntryId, Step)> {
        Some((id, Step::CutOff))
    }

    fn clear(id: EntryId) -> Option<(EntryId, Step)> {
        Some((id, Step::Clear))
    }

    #[test]
    fn what_is_added_is_due_at_once_and_taken_once() {
        let (mut queue, id) = (Queue::default(), EntryId::random());
        queue.add(id, at(5));
        queue.add(id, at(6));
        assert_eq!(queue.take_due(at(4)), None);
        assert_eq!(queue.take_due(at(5)), cut(id));
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
            assert_eq!(queue.take_due(now), cut(id));
            queue.failed(id, now, 0.0);
            assert_eq!(queue.next_due(), Some(now + at(pause)));
            now += at(pause);
        }
    }

    #[test]
    fn another_comparison_does_not_cut_a_pause_short() {
        let (mut queue, id) = (Queue::default(), EntryId::random());
        queue.add(id, at(0));
        assert_eq!(queue.take_due(at(0)), cut(id));
        queue.failed(id, at(0), 0.0);
        queue.add(id, at(0));
        assert_eq!((queue.take_due(at(0)), queue.next_due()), (None, Some(at(1))));
    }

    #[test]
    fn one_that_fails_does_not_hold_up_the_others() {
        let (mut queue, first, second) = (Queue::default(), EntryId::random(), EntryId::random());
        queue.add(first, at(0));
        assert_eq!(queue.take_due(at(0)), cut(first));
        queue.failed(first, at(0), 0.0);
        queue.add(second, at(0));
        assert_eq!(queue.take_due(at(0)), cut(second));
    }

    #[test]
    fn what_has_not_been_tried_goes_before_what_has_failed() {
        let (mut queue, failed, fresh) = (Queue::default(), EntryId::random(), EntryId::random());
        queue.add(failed, at(0));
        assert_eq!(queue.take_due(at(0)), cut(failed));
        queue.failed(failed, at(0), 0.0);
        queue.add(fresh, at(9));
        assert_eq!(queue.next_due(), Some(at(1)));
        assert_eq!([queue.take_due(at(9)), queue.take_due(at(9))], [cut(fresh), cut(failed)]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn what_still_works_goes_before_the_rest_of_what_does_not() {
        let (mut queue, first, second) = (Queue::default(), EntryId::random(), EntryId::random());
        queue.add(first, at(0));
        assert_eq!(queue.take_due(at(0)), cut(first));
        queue.cut_off(first, at(0));
        queue.add(second, at(1));
        assert_eq!((queue.next_due(), queue.len()), (Some(at(0)), 2));
        assert_eq!([queue.take_due(at(1)), queue.take_due(at(1))], [cut(second), clear(first)]);
        queue.done(first);
        assert_eq!((queue.next_due(), queue.len()), (None, 1));
    }

    #[test]
    fn the_rest_of_one_does_not_wait_for_ever() {
        let (mut queue, first, second) = (Queue::default(), EntryId::random(), EntryId::random());
        queue.add(first, at(0));
        assert_eq!(queue.take_due(at(0)), cut(first));
        queue.cut_off(first, at(0));
        queue.add(second, at(1));
        assert_eq!(queue.take_due(at(0) + PATIENCE), clear(first));
    }

    #[test]
    fn what_is_cut_off_is_not_cut_off_again_when_its_rest_fails() {
        let (mut queue, id) = (Queue::default(), EntryId::random());
        queue.add(id, at(0));
        assert_eq!(queue.take_due(at(0)), cut(id));
        queue.cut_off(id, at(0));
        assert_eq!(queue.take_due(at(0)), clear(id));
        queue.failed(id, at(0), 0.0);
        queue.add(id, at(0));
        assert_eq!([queue.take_due(at(0)), queue.take_due(at(1))], [None, clear(id)]);
    }
}
