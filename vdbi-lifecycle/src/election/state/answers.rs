//! What answers and watch events mean in each state.

use std::time::Duration;

use super::{
    Action, Failure, Fault, Machine, Pending, RELEASES, Reason, Record, State, Tenure, observed::Seen,
};

impl Machine {
    pub(super) fn read(
        &mut self,
        now: Duration,
        pending: Pending,
        result: Result<Option<Record>, Failure>,
        actions: &mut Vec<Action>,
    ) {
        let found = match result {
            Ok(found) => found,
            Err(failure) => return self.failed(now, failure, actions),
        };
        let changed = self.observed.read(now, pending.sent, found);
        // A watch that has not told what the read found is stale.
        if (changed || self.watch.is_none()) && now >= self.watch_at && self.shutdown.is_none() {
            self.watch = Some(now);
            actions.push(Action::Watch(self.observed.watch_from().to_owned()));
        }
        match &self.state {
            State::Init => self.stand_by(now),
            State::Standby => {
                self.plan(now);
                self.request_at = self.watch.is_none().then(|| now + self.poll());
            }
            State::Leading(_) | State::Draining(_, Reason::Shutdown, _) => {
                self.request_at = Some(now);
                self.contested(now, actions);
            }
            State::Releasing(tries) => match &self.observed.seen {
                Seen::Present { record, .. }
                    if (self.is_ours(record) || self.has(Fault::UncheckedRelease)) && *tries < RELEASES =>
                {
                    self.release(now, *tries + 1, actions);
                }
                _ => self.released(now, actions),
            },
            State::Acquiring(_) | State::Draining(..) | State::Stopped => {}
        }
    }

    pub(super) fn written(
        &mut self,
        now: Duration,
        pending: Pending,
        result: Result<Record, Failure>,
        actions: &mut Vec<Action>,
    ) {
        let record = match result {
            Ok(record) => record,
            Err(Failure::Conflict) => {
                if matches!(self.state, State::Acquiring(_)) {
                    self.state = State::Standby;
                    self.take_at = None;
                }
                return self.get(now, actions);
            }
            Err(failure) => return self.failed(now, failure, actions),
        };
        let fence = record.resource_version().to_owned();
        let sent = if self.has(Fault::DeadlineFromAnswer) { now } else { pending.sent };
        // Another version that is already known to have followed makes this success history.
        let current = self.observed.wrote(now, record);
        let in_time = now < pending.sent + self.settings.hard_deadline;
        if current && self.watch.is_none() && now >= self.watch_at {
            self.watch = Some(now);
            actions.push(Action::Watch(fence.clone()));
        }
        match &mut self.state {
            State::Acquiring(cause) => {
                let cause = *cause;
                if !current || !in_time {
                    self.state = State::Standby;
                    self.take_at = None;
                    return self.get(now, actions);
                }
                if self.shutdown.is_some() {
                    return self.release(now, 1, actions);
                }
                self.state = State::Leading(Tenure { since: now, sent });
                (self.yielding, self.yielded_by) = (false, None);
                self.request_at = Some(sent + self.settings.renew_interval);
                actions.push(Action::Start { cause, fence, sent });
            }
            State::Leading(tenure) | State::Draining(tenure, Reason::Shutdown, _) => {
                if current {
                    tenure.sent = sent;
                    self.request_at = Some(sent + self.settings.renew_interval);
                    actions.push(Action::Extend { sent });
                } else {
                    self.request_at = Some(now);
                }
            }
            State::Releasing(_) => self.released(now, actions),
            State::Init | State::Standby | State::Draining(..) | State::Stopped => {}
        }
    }

    /// A request failed otherwise than by a conflict.
    fn failed(&mut self, now: Duration, failure: Failure, actions: &mut Vec<Action>) {
        let asked = match failure {
            Failure::Unavailable(asked) => asked.unwrap_or_default(),
            Failure::Conflict => Duration::ZERO,
        };
        let wait = self.retry();
        match &self.state {
            State::Leading(tenure) | State::Draining(tenure, Reason::Shutdown, _) => {
                // The server's wish is granted as far as one more try fits into the term.
                let last = self.deadline(tenure).saturating_sub(self.settings.request_timeout);
                self.request_at = Some((now + asked).min(last).max(now + wait));
            }
            State::Init => self.request_at = Some(now + wait.max(asked.min(self.settings.lease_duration))),
            State::Standby | State::Acquiring(_) => {
                self.observed.lose_sight(now);
                let wait = wait.max(asked.min(self.settings.lease_duration));
                self.state = State::Standby;
                self.compete_at = self.compete_at.max(now + wait);
                self.take_at = None;
                self.request_at = Some(now + wait);
            }
            State::Releasing(_) => self.released(now, actions),
            State::Draining(..) | State::Stopped => {}
        }
    }

    /// The watch told something new.
    pub(super) fn changed(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match &self.state {
            State::Standby => self.plan(now),
            State::Leading(_) | State::Draining(_, Reason::Shutdown, _) => {
                if matches!(self.observed.seen, Seen::Missing { .. }) {
                    self.request_at = Some(now);
                }
                self.contested(now, actions);
            }
            _ => {}
        }
    }

    /// Ends the term when the lease is known to be somebody else's, or nobody's.
    fn contested(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Seen::Present { record, after_deletion, .. } = &self.observed.seen else { return };
        if self.is_ours(record) {
            return;
        }
        let reason = if *after_deletion { Reason::Deleted } else { Reason::Superseded };
        match &mut self.state {
            State::Leading(_) => self.end(now, reason, actions),
            // The term is over already; there is nothing left to renew or to release.
            State::Draining(_, why, draining) => {
                *why = reason;
                draining.since = now;
                self.pending = None;
                actions.push(Action::Cut);
            }
            _ => {}
        }
    }
}
