//! Does what the machine says: requests, timers, the work.

use std::{future::pending, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use rand::RngCore;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    clock::Clock,
    leadership::{LeadershipError, Term, TermControl, TermId, TermOver, WorkError},
};

use super::{
    LeaseElection, Settings,
    api::LeaseApi,
    load::Engagement,
    overrun::Overrun,
    record::Write,
    state::{Action, Cause, Event, Machine, Reason, WatchEnd},
    view::View,
};

/// The longest sleep while there is work: timers stand still during a suspension, the clock of the election does not.
const LOOK: Duration = Duration::from_secs(1);

/// The longest sleep otherwise: so the probes know that the loop turns.
const TURN: Duration = Duration::from_secs(5);

/// One run of an election. Dropping it ends the term, the work, the watch and the thread, and releases nothing.
pub(super) struct Driver {
    api: LeaseApi,
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    view: Arc<View>,
    overrun: Overrun,
    machine: Machine,
    /// Since when the lease that is being acquired has not changed.
    unchanged_since: Duration,
    request: Option<BoxFuture<'static, Event>>,
    watch: Option<BoxStream<'static, Event>>,
    /// At most one task.
    work: JoinSet<Result<(), WorkError>>,
    leading: Option<Leading>,
    /// Where several elections run in this process.
    engagement: Option<Engagement>,
    yields: Arc<Notify>,
}

/// While it exists, this replica leads, or its work finishes after a shutdown.
struct Leading {
    control: TermControl,
    view: Arc<View>,
}

impl Driver {
    pub(super) fn new(election: LeaseElection) -> Result<Self, LeadershipError> {
        let LeaseElection { client, settings, clock, view, overrun, load, yields } = election;
        let overrun = Overrun::start(clock.clone(), overrun).map_err(|error| {
            LeadershipError::Misconfigured(format!("the thread that guards the term did not start: {error}"))
        })?;
        Ok(Self {
            api: LeaseApi::new(client, &settings, view.clone()),
            machine: Machine::new(settings.clone(), rand::rng().next_u64()),
            settings,
            clock,
            view,
            overrun,
            unchanged_since: Duration::ZERO,
            request: None,
            watch: None,
            work: JoinSet::new(),
            leading: None,
            engagement: load.map(|load| load.join()),
            yields,
        })
    }

    pub(super) async fn run<W, F>(
        mut self,
        mut work: W,
        shutdown: CancellationToken,
    ) -> Result<(), LeadershipError>
    where
        W: FnMut(Term) -> F + Send,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let mut event = Event::Tick;
        let mut told = false;
        loop {
            let now = self.clock.now();
            if let Some(engagement) = &mut self.engagement {
                self.machine.set_load(now, engagement.others());
            }
            let actions = self.machine.step(now, event);
            if let Some(engagement) = &mut self.engagement {
                engagement.set(self.machine.is_engaged());
            }
            for action in actions {
                if let Action::Stop(result) = action {
                    self.view.stopped();
                    return result.map_err(LeadershipError::DrainTimeout);
                }
                self.perform(action, &mut work);
            }
            let machine = &self.machine;
            let leads = machine.leads() && !machine.is_yielding();
            self.view.turned(leads, machine.holder(), machine.transitions());
            event = self.next(&shutdown, told).await;
            told |= matches!(event, Event::Shutdown);
        }
    }

    async fn next(&mut self, shutdown: &CancellationToken, told: bool) -> Event {
        let longest = if self.work.is_empty() { TURN } else { LOOK };
        let wait =
            self.machine.wake_at().map_or(longest, |at| at.saturating_sub(self.clock.now()).min(longest));
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if !told => Event::Shutdown,
            Some(ended) = self.work.join_next() => {
                self.overrun.disarm();
                self.view.must_stop(None);
                self.log_end(ended);
                Event::WorkEnded
            }
            event = answer(&mut self.request) => event,
            event = following(&mut self.watch) => event,
            () = changed(&mut self.engagement) => Event::Tick,
            () = self.yields.notified() => Event::Yield,
            () = sleep(wait) => Event::Tick,
        }
    }

    fn perform<W, F>(&mut self, action: Action, work: &mut W)
    where
        W: FnMut(Term) -> F,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        match action {
            Action::Get { id, timeout } => {
                let api = self.api.clone();
                self.request = Some(async move { Event::Read(id, api.get(timeout).await) }.boxed());
            }
            Action::Write { id, write, timeout } => {
                if self.work.is_empty() && matches!(write, Write::Take(_) | Write::Create(_)) {
                    self.view.metrics.attempts.increment(1);
                    self.unchanged_since = self.machine.unchanged_since().unwrap_or_default();
                }
                let object = write.object(&self.settings, Timestamp::now());
                let api = self.api.clone();
                let request = async move { Event::Written(id, api.write(&write, &object, timeout).await) };
                self.request = Some(request.boxed());
            }
            Action::Watch(version) => self.watch = Some(self.api.watch(&version)),
            Action::Start { cause, fence, sent } => self.start(cause, fence, sent, work),
            Action::Extend { sent } => {
                self.view.metrics.renewed(self.clock.now().saturating_sub(sent));
                if let Some(leading) = &self.leading {
                    leading.control.extend(sent + self.settings.hard_deadline);
                }
                if !self.work.is_empty() {
                    self.must_stop(sent + self.settings.abort_after);
                }
            }
            Action::End(reason) => self.end(reason),
            Action::WindDown => self.wind_down(),
            Action::Cut => self.leading = None,
            Action::Drop => self.work.abort_all(),
            Action::Stop(_) => {}
        }
    }

    fn start<W, F>(&mut self, cause: Cause, fence: String, sent: Duration, work: &mut W)
    where
        W: FnMut(Term) -> F,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let Settings { lease_name, identity, hard_deadline, abort_after, .. } = &*self.settings;
        tracing::info!(lease = lease_name, %identity, cause = cause.as_str(), fence, "leadership gained");
        self.view.metrics.acquired(cause, self.clock.now().saturating_sub(self.unchanged_since));
        let id = TermId { lease: lease_name.clone(), identity: identity.to_string(), fence };
        let (term, control) = Term::new(id, self.clock.clone(), sent + *hard_deadline);
        self.view.won(term.clone());
        self.leading = Some(Leading { control, view: self.view.clone() });
        self.must_stop(sent + *abort_after);
        self.work.spawn(work(term));
    }

    fn end(&mut self, reason: Reason) {
        let Settings { lease_name, identity, .. } = &*self.settings;
        tracing::info!(lease = lease_name, %identity, reason = reason.as_str(), "leadership lost");
        self.view.metrics.lost(reason);
        match reason {
            // The lease is ours until the work has returned.
            Reason::Shutdown => self.wind_down(),
            _ => self.leading = None,
        }
    }

    fn wind_down(&self) {
        if let Some(leading) = &self.leading {
            leading.control.wind_down();
            self.view.lost();
        }
    }

    fn must_stop(&self, at: Duration) {
        self.overrun.arm(at);
        self.view.must_stop(Some(at));
    }

    fn log_end(&self, ended: Result<Result<(), WorkError>, JoinError>) {
        let lease = &self.settings.lease_name;
        let over = !self.machine.leads() || self.machine.is_yielding();
        match ended {
            Ok(Ok(())) if over => {}
            Ok(Err(error)) if over && error.is::<TermOver>() => {}
            Ok(Ok(())) => tracing::warn!(%lease, "the work returned although its term was not over"),
            Ok(Err(error)) => tracing::error!(%lease, %error, "the work of lease {lease} failed: {error}"),
            Err(error) if error.is_panic() => {
                tracing::error!(%lease, %error, "the work of lease {lease} panicked: {error}");
            }
            Err(_) => tracing::warn!(%lease, "the work did not return after its term and was dropped"),
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.view.lost();
    }
}

async fn changed(engagement: &mut Option<Engagement>) {
    match engagement {
        Some(engagement) => engagement.changed().await,
        None => pending().await,
    }
}

async fn answer(request: &mut Option<BoxFuture<'static, Event>>) -> Event {
    let Some(exchange) = request else { return pending().await };
    let event = exchange.await;
    *request = None;
    event
}

async fn following(watch: &mut Option<BoxStream<'static, Event>>) -> Event {
    let Some(events) = watch else { return pending().await };
    let event = events.next().await.unwrap_or(Event::WatchEnded(WatchEnd::Closed));
    if matches!(event, Event::WatchEnded(_)) {
        *watch = None;
    }
    event
}
