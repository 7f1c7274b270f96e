//! The election as a state machine without I/O: events in, actions out, time and chance given.
//!
//! # Safety
//!
//! A term counts from the moment its last acknowledged write was *sent*, and ends after the hard deadline. Whoever takes
//! the lease over has watched one resourceVersion stand for the whole lease duration, and its write succeeds only if it
//! still stands. So the write that the leader counts from came before the taker began to count, whatever the network
//! delays and whatever the wall clocks say; only clocks that run at rates more than `lease_duration / hard_deadline` apart
//! could make two terms overlap.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Settings,
    record::{Record, Write},
};

mod answers;
mod message;
mod observed;

pub(crate) use message::{Action, Cause, Event, Failure, Reason, WatchEnd};
use observed::{Observed, Seen};

/// Releases that meet a conflict are tried again so many times.
const RELEASES: u32 = 3;

/// How much later a replica takes a free lease for each other one that it has, in seconds at a lease duration of 15 s; in proportion at
/// others. It is longer than the jitter and the way to the API server and back.
const LOAD_STEP: f64 = 0.2;

/// A term that lasted so many lease durations proves that all is well: the next loss waits shortly again.
const SETTLED: u32 = 4;

#[derive(Debug)]
enum State {
    Init,
    Standby,
    Acquiring(Cause),
    Leading(Tenure),
    Draining(Tenure, Reason, Draining),
    /// The tries so far.
    Releasing(u32),
    Stopped,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    since: Duration,
    /// When the last acknowledged write was sent.
    sent: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Draining {
    /// When the term ended.
    since: Duration,
    work: bool,
    dropped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: u64,
    sent: Duration,
}

/// One replica's view of one election.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Arc<Settings>,
    random: StdRng,
    state: State,
    observed: Observed,
    /// The request under way.
    pending: Option<Pending>,
    last_id: u64,
    /// When the next request of the kind that the state calls for is due.
    request_at: Option<Duration>,
    /// When to take the lease, unless something changes, and apart from what [`load`](Self::load) adds.
    take_at: Option<Duration>,
    /// How many other leases this replica has. `None`: this is its only election.
    load: Option<u32>,
    /// Whether the work was told to return so that another replica may lead.
    yielding: bool,
    /// When it is dropped where it has not.
    yielded_by: Option<Duration>,
    /// When to compete again after a loss or a failure.
    compete_at: Duration,
    backoff: Duration,
    /// Since when there is a watch.
    watch: Option<Duration>,
    watch_at: Duration,
    shutdown: Option<Duration>,
    #[cfg(test)]
    fault: Option<Fault>,
}

/// A defect that the simulation plants, to show that its properties would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests plant faults"))]
enum Fault {
    DeadlineFromAnswer,
    UncheckedRelease,
    /// Of the API: any version is overwritten.
    NoCompareAndSwap,
    /// Of the work: it goes on without looking at its term.
    UncheckedEffect,
}

impl Machine {
    pub(crate) fn new(settings: Arc<Settings>, seed: u64) -> Self {
        Self {
            settings,
            random: StdRng::seed_from_u64(seed),
            state: State::Init,
            observed: Observed::default(),
            pending: None,
            last_id: 0,
            request_at: Some(Duration::ZERO),
            take_at: None,
            load: None,
            yielding: false,
            yielded_by: None,
            compete_at: Duration::ZERO,
            backoff: Duration::ZERO,
            watch: None,
            watch_at: Duration::ZERO,
            shutdown: None,
            #[cfg(test)]
            fault: None,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        #[cfg(test)]
        return self.fault == Some(fault);
        #[cfg(not(test))]
        {
            let _ = fault;
            false
        }
    }

    /// Who holds the lease, as last seen; `None` before anything was seen.
    pub(crate) fn holder(&self) -> Option<&str> {
        match &self.observed.seen {
            Seen::Nothing => None,
            Seen::Missing { .. } => Some(""),
            Seen::Present { record, .. } => Some(record.holder()),
        }
    }

    /// When the lease was last seen to change, by a write or its deletion.
    pub(crate) fn unchanged_since(&self) -> Option<Duration> {
        match &self.observed.seen {
            Seen::Nothing => None,
            Seen::Missing { since, .. } | Seen::Present { since, .. } => Some(*since),
        }
    }

    /// How often the lease has changed hands, by its own count, as last seen.
    pub(crate) fn transitions(&self) -> Option<i64> {
        match &self.observed.seen {
            Seen::Present { record, .. } => Some(record.transitions()),
            Seen::Nothing | Seen::Missing { .. } => None,
        }
    }

    /// Whether the term stands.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.state, State::Leading(_))
    }

    /// Whether the lease is this replica's, or soon may be.
    pub(crate) fn is_engaged(&self) -> bool {
        !matches!(self.state, State::Init | State::Standby | State::Stopped)
    }

    /// Whether the work was told to return.
    pub(crate) fn is_yielding(&self) -> bool {
        self.yielding
    }

    /// How many other leases this replica has: whoever has fewer takes a free one first.
    pub(crate) fn set_load(&mut self, now: Duration, load: u32) {
        let before = self.take_due();
        self.load = Some(load);
        // What comes nearer is due now at the earliest: nobody has slept over it.
        if let (Some(before), Some(at), Some(due)) = (before, self.take_at, self.take_due()) {
            self.take_at = Some(at + before.min(now).saturating_sub(due));
        }
    }

    /// When to take the lease.
    fn take_due(&self) -> Option<Duration> {
        let cause = self.observed.free(&self.settings).map(|(_, cause, _)| cause);
        let load = self.load.filter(|_| cause != Some(Cause::SamePod)).unwrap_or_default();
        let step = self.settings.lease_duration.mul_f64(LOAD_STEP / 15.0);
        Some(self.take_at? + step.saturating_mul(load))
    }

    /// When to call [`step`](Self::step) with a tick, unless something happens before.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let request = self.request_at.filter(|_| self.pending.is_none());
        let take = self.take_due().filter(|_| self.pending.is_none());
        match &self.state {
            State::Init => request,
            State::Standby => [request, take].into_iter().flatten().min(),
            State::Acquiring(_) | State::Releasing(_) | State::Stopped => None,
            State::Leading(tenure) => {
                request.into_iter().chain(self.yielded_by).chain([self.deadline(tenure)]).min()
            }
            State::Draining(tenure, reason, draining) => {
                if !draining.work {
                    return Some(self.deadline(tenure));
                }
                let renewal = request.filter(|_| *reason == Reason::Shutdown);
                let drop = (!draining.dropped).then(|| self.drop_at(tenure, *reason, draining));
                let give_up = self.shutdown.map(|since| since + self.settings.drain_timeout);
                [renewal, drop, give_up].into_iter().flatten().min()
            }
        }
    }

    /// Takes note of one event, and says what to do. The time never goes back from call to call.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        // Before anything else: an answer that comes too late must not save a term that is over.
        if let State::Leading(tenure) = &self.state
            && now >= self.deadline(tenure)
        {
            self.end(now, Reason::Deadline, &mut actions);
        }
        match event {
            Event::Tick => {}
            Event::Read(id, result) => {
                if let Some(pending) = self.answered(id) {
                    self.read(now, pending, result, &mut actions);
                }
            }
            Event::Written(id, result) => {
                if let Some(pending) = self.answered(id) {
                    self.written(now, pending, result, &mut actions);
                }
            }
            Event::Changed(record) => {
                if self.observed.change(now, record) {
                    self.changed(now, &mut actions);
                }
            }
            Event::Deleted(record) => {
                if self.observed.delete(now, record) {
                    self.changed(now, &mut actions);
                }
            }
            Event::WatchEnded(end) => self.watch_ended(now, end, &mut actions),
            Event::WorkEnded => self.work_ended(now, &mut actions),
            Event::Yield if self.leads() && !self.yielding => {
                self.yielding = true;
                self.yielded_by = Some(now + self.settings.drain_timeout);
                actions.push(Action::WindDown);
            }
            Event::Yield => {}
            Event::Shutdown => self.shut_down(now, &mut actions),
        }
        self.due(now, &mut actions);
        actions
    }

    fn answered(&mut self, id: u64) -> Option<Pending> {
        self.pending.take_if(|pending| pending.id == id)
    }

    fn end(&mut self, now: Duration, reason: Reason, actions: &mut Vec<Action>) {
        let State::Leading(tenure) = &self.state else { return };
        let tenure = *tenure;
        if now.saturating_sub(tenure.since) >= self.settings.lease_duration * SETTLED {
            self.backoff = Duration::ZERO;
        }
        self.state = State::Draining(tenure, reason, Draining { since: now, work: true, dropped: false });
        if reason != Reason::Shutdown {
            self.pending = None;
            self.request_at = None;
        }
        actions.push(Action::End(reason));
    }

    fn work_ended(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.leads() {
            let reason = if self.yielding { Reason::Yielded } else { Reason::WorkFailed };
            self.end(now, reason, actions);
        }
        if let State::Draining(_, _, draining) = &mut self.state {
            draining.work = false;
        }
    }

    fn shut_down(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.shutdown.get_or_insert(now);
        self.end(now, Reason::Shutdown, actions);
    }

    fn watch_ended(&mut self, now: Duration, end: WatchEnd, actions: &mut Vec<Action>) {
        let lasted = self.watch.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        // What was seen last is where the next one begins.
        if end == WatchEnd::Closed && lasted >= self.settings.retry && self.shutdown.is_none() {
            self.watch = Some(now);
            return actions.push(Action::Watch(self.observed.watch_from().to_owned()));
        }
        if end == WatchEnd::Failed {
            self.observed.lose_sight(now);
        }
        let poll = self.poll();
        let read_in = match end {
            // At once, but never in a tight loop.
            WatchEnd::Expired if lasted >= self.settings.retry => Duration::ZERO,
            WatchEnd::Closed | WatchEnd::Expired | WatchEnd::Failed => poll,
            WatchEnd::Forbidden => {
                self.watch_at = now + self.settings.lease_duration * 20;
                poll
            }
        };
        // A leader reads nothing: its next renewal gives the version to watch from.
        if matches!(self.state, State::Standby) {
            self.request_at = Some(now + read_in);
        }
        self.watch_at = self.watch_at.max(now + read_in);
    }

    /// Starts what is due by now.
    fn due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let idle = self.pending.is_none();
        let requested = idle && self.request_at.is_some_and(|at| at <= now);
        match &self.state {
            State::Init | State::Standby if self.shutdown.is_some() => self.stop(Ok(()), actions),
            State::Init if requested => self.get(now, actions),
            State::Standby if idle && self.take_due().is_some_and(|at| at <= now) => {
                // Whoever slept over it has not seen what happened meanwhile; a version is compared, an absence cannot be.
                let overslept = self.take_due().is_some_and(|at| at + self.settings.retry < now);
                if overslept && self.observed.lose_sight(now) {
                    self.take_at = None;
                    return self.get(now, actions);
                }
                self.take(now, actions);
            }
            State::Standby if requested => self.get(now, actions),
            State::Leading(_) if self.yielded_by.is_some_and(|at| at <= now) => {
                self.yielded_by = None;
                actions.push(Action::Drop);
            }
            State::Leading(_) if requested => self.renew(now, actions),
            State::Draining(tenure, reason, draining) => {
                let (tenure, reason, draining) = (*tenure, *reason, *draining);
                let stands = now < self.deadline(&tenure);
                if !draining.work {
                    return self.drained(now, reason, stands, actions);
                }
                if self.shutdown.is_some_and(|since| now >= since + self.settings.drain_timeout) {
                    actions.push(Action::Drop);
                    return self.stop(Err(self.settings.drain_timeout), actions);
                }
                if !draining.dropped && now >= self.drop_at(&tenure, reason, &draining) {
                    actions.push(Action::Drop);
                    if let State::Draining(_, _, draining) = &mut self.state {
                        draining.dropped = true;
                    }
                }
                if reason == Reason::Shutdown && requested && stands {
                    self.renew(now, actions);
                } else if requested {
                    self.request_at = None;
                }
            }
            _ => {}
        }
    }

    /// The work is over. What is still ours is handed on.
    fn drained(&mut self, now: Duration, reason: Reason, stands: bool, actions: &mut Vec<Action>) {
        match reason {
            _ if self.has(Fault::UncheckedRelease) => self.release(now, 1, actions),
            Reason::Shutdown | Reason::WorkFailed | Reason::Yielded if stands => {
                // The answer of a renewal under way tells the version to release.
                if self.pending.is_none() {
                    self.release(now, 1, actions);
                }
            }
            _ => self.released(now, actions),
        }
    }

    fn release(&mut self, now: Duration, tries: u32, actions: &mut Vec<Action>) {
        let Seen::Present { record, .. } = &self.observed.seen else {
            return self.released(now, actions);
        };
        let write = Write::Release(record.clone());
        self.state = State::Releasing(tries);
        self.write(now, write, self.settings.request_timeout, actions);
    }

    /// Nothing is held any more.
    fn released(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.pending = None;
        if self.shutdown.is_some() {
            return self.stop(Ok(()), actions);
        }
        self.backoff = (self.backoff * 2).clamp(Duration::from_secs(1), Duration::from_secs(30));
        self.compete_at = now + self.backoff;
        self.stand_by(now);
        // What was seen while working may be old.
        self.get(now, actions);
    }

    fn stop(&mut self, result: Result<(), Duration>, actions: &mut Vec<Action>) {
        self.state = State::Stopped;
        self.pending = None;
        actions.push(Action::Stop(result));
    }

    fn stand_by(&mut self, now: Duration) {
        self.state = State::Standby;
        self.request_at = self.watch.is_none().then(|| now + self.poll());
        self.plan(now);
    }

    /// When to take the lease, by what is known now.
    fn plan(&mut self, now: Duration) {
        let Some((free_at, cause, alone)) = self.observed.free(&self.settings) else {
            self.take_at = None;
            return;
        };
        // Replicas that start together begin with different leases.
        let alone = alone && (self.load.is_none() || cause == Cause::SamePod);
        let jitter = if alone { Duration::ZERO } else { self.between(0.0, 0.1) };
        self.take_at = Some(free_at.max(self.compete_at).max(now) + jitter);
    }

    fn take(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.take_at = None;
        let Some((_, cause, _)) = self.observed.free(&self.settings) else { return };
        let write = match &self.observed.seen {
            Seen::Present { record, .. } => Write::Take(record.clone()),
            Seen::Nothing | Seen::Missing { .. } => Write::Create(None),
        };
        self.state = State::Acquiring(cause);
        self.write(now, write, self.settings.request_timeout, actions);
    }

    fn renew(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let write = match &self.observed.seen {
            Seen::Present { record, .. } => Write::Renew(record.clone()),
            Seen::Missing { last, .. } => Write::Create(last.clone()),
            Seen::Nothing => Write::Create(None),
        };
        self.write(now, write, self.timeout(now), actions);
    }

    fn get(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (id, timeout) = (self.next_id(), self.timeout(now));
        self.pending = Some(Pending { id, sent: now });
        self.request_at = None;
        actions.push(Action::Get { id, timeout });
    }

    fn write(&mut self, now: Duration, write: Write, timeout: Duration, actions: &mut Vec<Action>) {
        let id = self.next_id();
        self.pending = Some(Pending { id, sent: now });
        self.request_at = None;
        actions.push(Action::Write { id, write, timeout });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// No request outlives the term that it is for.
    fn timeout(&self, now: Duration) -> Duration {
        let limit = self.settings.request_timeout;
        match &self.state {
            State::Leading(tenure) | State::Draining(tenure, ..) => {
                limit.min(self.deadline(tenure).saturating_sub(now))
            }
            _ => limit,
        }
    }

    fn deadline(&self, tenure: &Tenure) -> Duration {
        tenure.sent + self.settings.hard_deadline
    }

    /// When work that has not returned is dropped. A shutdown leaves it the term's rest.
    fn drop_at(&self, tenure: &Tenure, reason: Reason, draining: &Draining) -> Duration {
        let over = if reason == Reason::Shutdown { self.deadline(tenure) } else { draining.since };
        over + self.settings.grace()
    }

    fn is_ours(&self, record: &Record) -> bool {
        record.holder() == self.settings.identity.as_str()
    }

    fn retry(&mut self) -> Duration {
        self.settings.retry.mul_f64(self.random.random_range(0.8..=1.2))
    }

    fn poll(&mut self) -> Duration {
        self.between(2.0, 4.4)
    }

    /// Uniform between so many seconds, at a lease duration of 15 s; in proportion at others.
    fn between(&mut self, from: f64, to: f64) -> Duration {
        self.settings.lease_duration.mul_f64(self.random.random_range(from..=to) / 15.0)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
