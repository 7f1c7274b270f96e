//! When to do what about which entry: decisions without a clock, a server or a task.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use vdbi_core::{
    credential::{Advice, Renewed, SourceError},
    ledger::EntryId,
};

/// Pause after the first failure of a step; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause after a failure that may pass by itself.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Pause after a failure that needs somebody to change something.
const GIVE_UP_RETRY: Duration = Duration::from_secs(300);

/// The shortest pause between two renewals of one thing.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The shortest pause once a maximum is in sight: what is left shrinks, and asking is only of use if somebody raises it.
const CAPPED_PAUSE: Duration = Duration::from_secs(10);

/// How far a due time is spread, so that credentials issued together are not renewed together.
const JITTER: f64 = 0.1;

/// How long reading a new entry may wait behind what is known to end sooner.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// How far clocks may be apart when the time that another component wrote down is compared with ours.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// One thing to do about one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Read it from the ledger.
    Read,
    /// Renew its lease.
    Lease,
    /// Renew its token, which has a life of its own.
    Token,
}

/// A step of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// The entry.
    pub id: EntryId,
    /// What to do about it.
    pub step: Step,
}

/// What an entry tells of its credential's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// How long it has existed; `None` when nobody wrote it down, or it lies in the future.
    pub age: Option<Duration>,
    /// How long it lived at first without a renewal.
    pub ttl: Option<Duration>,
}

/// How one step ended.
#[derive(Debug)]
pub enum Attempt {
    /// The entry was read, and is ours.
    Found(Life),
    /// Lease or token were renewed.
    Renewed(Renewed),
    /// There is nothing to renew: the token lives for ever.
    Endless,
    /// The credential no longer exists.
    Lost,
    /// The entry belongs to another cluster or release, or cannot be read.
    NotOurs,
    /// Not done.
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

/// The queue of renewals. Times are on any clock that never goes back.
#[derive(Debug)]
pub struct Plan {
    renew_at: f64,
    entries: HashMap<EntryId, Tracked>,
    /// By the time from which on something is to be done.
    waiting: BinaryHeap<Reverse<(Duration, Task)>>,
    /// What may be done now, by the time at which it is too late. The second time is that of `waiting`.
    ready: BinaryHeap<Reverse<(Duration, Duration, Task)>>,
}

#[derive(Clone, Copy, Debug)]
enum Tracked {
    Unread(Slot),
    Known {
        lease: Slot,
        token: Slot,
        ending: bool,
    },
    /// Nothing to do about it until it leaves the ledger: it is somebody else's, or it is lost.
    Settled,
}

/// What is known of one step.
#[derive(Clone, Copy, Debug)]
struct Slot {
    turn: Turn,
    /// In a row, up to now.
    failures: u32,
    /// When it is too late; `None` before anything is known about that.
    expires: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Turn {
    At(Duration),
    InFlight,
    Never,
}

/// What the plan holds, for whoever watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries whose credentials are kept alive.
    pub active: usize,
    /// Steps that are due and have not begun.
    pub due: usize,
    /// How long the credential lives that ends first, as far as that is known.
    pub earliest_expiry: Option<Duration>,
    /// Entries whose credentials end at a maximum that no renewal moves.
    pub ending: usize,
}

impl Plan {
    /// Renews when `renew_at` (a fraction) of a time to live has passed.
    pub fn new(renew_at: f64) -> Self {
        Self { renew_at, entries: HashMap::new(), waiting: BinaryHeap::new(), ready: BinaryHeap::new() }
    }

    /// Takes over what the ledger lists now: what is new is to be read, what is gone is dropped.
    pub fn reconcile(&mut self, now: Duration, listed: &HashSet<EntryId>) {
        self.entries.retain(|id, _| listed.contains(id));
        for &id in listed {
            self.entries.entry(id).or_insert_with(|| {
                self.waiting.push(Reverse((now, Task { id, step: Step::Read })));
                Tracked::Unread(Slot { turn: Turn::At(now), failures: 0, expires: Some(now + READ_WITHIN) })
            });
        }
    }

    /// Takes over what is known of an entry that has not been read yet, so that it need not be. `random` is in `0.0..1.0`.
    pub fn told(&mut self, id: EntryId, now: Duration, attempt: &Attempt, random: f64) {
        let task = Task { id, step: Step::Read };
        if let Some(slot) = self.slot(task) {
            slot.turn = Turn::InFlight;
            self.settle(task, now, attempt, random);
        }
    }

    /// When something is to be done.
    pub fn next_due(&mut self, now: Duration) -> Option<Duration> {
        self.advance(now);
        match (self.ready.peek(), self.waiting.peek()) {
            (Some(_), _) => Some(now),
            (None, Some(&Reverse((at, _)))) => Some(at),
            (None, None) => None,
        }
    }

    /// Takes, of all that is due, what would be too late first.
    pub fn take_due(&mut self, now: Duration) -> Option<Task> {
        self.advance(now);
        let Reverse((_, _, task)) = self.ready.pop()?;
        if let Some(slot) = self.slot(task) {
            slot.turn = Turn::InFlight;
        }
        Some(task)
    }

    /// Enters the outcome of a step. `random` is in `0.0..1.0`. Returns whether it is new that the credential ends at a
    /// maximum, whatever is done.
    pub fn settle(&mut self, task: Task, now: Duration, attempt: &Attempt, random: f64) -> bool {
        let spread = |pause: Duration| pause.mul_f64(1.0 - JITTER * random);
        let renew_at = self.renew_at;
        let Some(&mut slot) = self.slot(task) else { return false };
        if slot.turn != Turn::InFlight {
            return false;
        }
        match attempt {
            Attempt::Found(life) => self.know(task.id, now, *life, spread),
            Attempt::Renewed(Renewed { ttl, capped }) => {
                let shortest = if *capped { CAPPED_PAUSE } else { SHORTEST_PAUSE };
                let at = now + spread(ttl.mul_f64(renew_at)).max(shortest);
                self.schedule(task, Slot { turn: Turn::At(at), failures: 0, expires: Some(now + *ttl) });
                return *capped && self.ends(task.id);
            }
            Attempt::Endless => {
                if let Some(slot) = self.slot(task) {
                    *slot = Slot { turn: Turn::Never, failures: 0, expires: None };
                }
            }
            Attempt::Failed(advice) => {
                let pause = match advice {
                    Advice::Retry => {
                        FIRST_RETRY.saturating_mul(1 << slot.failures.min(10)).min(LONGEST_RETRY)
                    }
                    Advice::GiveUp | Advice::Deny => GIVE_UP_RETRY,
                };
                // Half of what is left at most: whatever passes in time is not slept over.
                let longest = match slot.expires {
                    None => LONGEST_RETRY,
                    Some(at) if at <= now => pause,
                    Some(at) => ((at - now) / 2).max(FIRST_RETRY),
                };
                let turn = Turn::At(now + spread(pause.min(longest)));
                self.schedule(task, Slot { turn, failures: slot.failures + 1, ..slot });
            }
            Attempt::Lost | Attempt::NotOurs => {
                self.entries.insert(task.id, Tracked::Settled);
            }
        }
        false
    }

    /// What the plan holds now.
    pub fn summary(&mut self, now: Duration) -> Summary {
        self.advance(now);
        let mut summary = Summary { due: self.ready.len(), ..Summary::default() };
        let mut earliest: Option<Duration> = None;
        for tracked in self.entries.values() {
            summary.active += usize::from(!matches!(tracked, Tracked::Settled));
            if let Tracked::Known { lease, token, ending } = tracked {
                summary.ending += usize::from(*ending);
                earliest = [earliest, lease.expires, token.expires].into_iter().flatten().min();
            }
        }
        summary.earliest_expiry = earliest.map(|at| at.saturating_sub(now));
        summary
    }

    /// Schedules lease and token of an entry that was read. Where its age shows that the first lease still stands, so does its
    /// token; otherwise nobody knows how much is left, and both are due at once.
    fn know(&mut self, id: EntryId, now: Duration, life: Life, spread: impl Fn(Duration) -> Duration) {
        let unknown = Slot { turn: Turn::At(now), failures: 0, expires: None };
        let slot = match life {
            Life { age: Some(age), ttl: Some(ttl) } if age + CLOCK_TOLERANCE < ttl => {
                let left = ttl - age - CLOCK_TOLERANCE;
                let pause = spread(ttl.mul_f64(self.renew_at)).saturating_sub(age + CLOCK_TOLERANCE);
                Slot { turn: Turn::At(now + pause), failures: 0, expires: Some(now + left) }
            }
            _ => unknown,
        };
        self.entries.insert(id, Tracked::Known { lease: slot, token: slot, ending: false });
        for step in [Step::Lease, Step::Token] {
            self.schedule(Task { id, step }, slot);
        }
    }

    /// Marks an entry as one that ends at a maximum; returns whether it was none before.
    fn ends(&mut self, id: EntryId) -> bool {
        match self.entries.get_mut(&id) {
            Some(Tracked::Known { ending, .. }) => !std::mem::replace(ending, true),
            _ => false,
        }
    }

    fn schedule(&mut self, task: Task, scheduled: Slot) {
        if let (Some(slot), Turn::At(at)) = (self.slot(task), scheduled.turn) {
            *slot = scheduled;
            self.waiting.push(Reverse((at, task)));
        }
    }

    /// Moves what has become due, and drops what no longer is at the top of either queue.
    fn advance(&mut self, now: Duration) {
        while let Some(&Reverse((at, task))) = self.waiting.peek() {
            let urgency = self.urgency(task, at);
            if urgency.is_some() && at > now {
                break;
            }
            self.waiting.pop();
            if let Some(urgency) = urgency {
                self.ready.push(Reverse((urgency, at, task)));
            }
        }
        while let Some(&Reverse((_, at, task))) = self.ready.peek() {
            if self.urgency(task, at).is_some() {
                break;
            }
            self.ready.pop();
        }
    }

    /// When a step that is scheduled for `at` is too late; `None` when it is not scheduled for then.
    fn urgency(&mut self, task: Task, at: Duration) -> Option<Duration> {
        let slot = self.slot(task).filter(|slot| slot.turn == Turn::At(at))?;
        Some(slot.expires.unwrap_or(at))
    }

    fn slot(&mut self, task: Task) -> Option<&mut Slot> {
        match (self.entries.get_mut(&task.id)?, task.step) {
            (Tracked::Unread(slot), Step::Read) => Some(slot),
            (Tracked::Known { lease, .. }, Step::Lease) => Some(lease),
            (Tracked::Known { token, .. }, Step::Token) => Some(token),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
