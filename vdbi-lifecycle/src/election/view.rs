//! What an election shows of itself while it runs: to the metrics page, to the probes, to whoever asks for its status.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;
use vdbi_core::{
    clock::Clock,
    health::{self, Health, Probe},
    leadership::{Status, Term},
    metrics::{Collect, Definition, Registry, Sample},
};

use super::{
    Settings,
    metrics::{DURATION, IS_LEADER, Metrics, REMAINING, TRANSITIONS, WATCHING},
};

/// How long the elector's loop may be silent beyond a lease duration: it turns every few seconds in any role.
const SILENCE: Duration = Duration::from_secs(20);

/// Kept up to date by the driver, read by everybody else.
pub(super) struct View {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) status: watch::Sender<Status>,
    watching: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the elector's loop last turned; `None` while there is none.
    turned: Option<Duration>,
    /// The term that stands, and since when.
    term: Option<(Term, Duration)>,
    /// When work that runs now must have stopped.
    abort_at: Option<Duration>,
    transitions: Option<i64>,
    /// What came of the last request.
    answer: Option<Result<(), String>>,
}

/// The lease is watched while this exists.
pub(super) struct Watching(Arc<View>);

/// Registers the checks and the details of a process that takes part in these elections.
pub(super) fn report(views: Vec<Arc<View>>, health: &Health) {
    let views: Arc<[Arc<View>]> = views.into();
    let all = views.clone();
    health.register_with("leader-election", Probe::Live, move || all.iter().try_for_each(|view| view.live()));
    let all = views.clone();
    health
        .register_with("leader-election", Probe::Ready, move || all.iter().try_for_each(|view| view.ready()));
    let all = views.clone();
    health.describe("leader", move || match &all[..] {
        [view] => view.leader(),
        views => {
            let leading = views.iter().filter(|view| view.term().is_some()).count();
            let shards: Vec<Value> = views.iter().map(|view| view.leader()).collect();
            json!({ "is_leader": leading > 0, "leading": leading, "shards": shards })
        }
    });
    health.describe("kubernetes", move || {
        let answers: Vec<_> = views.iter().filter_map(|view| view.state().answer.clone()).collect();
        health::detail(answers.iter().find(|answer| answer.is_err()).or(answers.first()))
    });
}

impl View {
    pub(super) fn new(settings: Arc<Settings>, clock: Arc<dyn Clock>, registry: &Registry) -> Arc<Self> {
        let metrics = Metrics::new(registry, &settings.lease_name);
        let view = Arc::new(Self {
            settings,
            clock,
            metrics,
            status: watch::Sender::default(),
            watching: AtomicBool::new(false),
            state: Mutex::default(),
        });
        registry.collect_from(&view);
        view
    }

    /// The elector's loop turned; it knows this.
    pub(super) fn turned(&self, leading: bool, holder: Option<&str>, transitions: Option<i64>) {
        {
            let mut state = self.state();
            state.turned = Some(self.clock.now());
            state.transitions = transitions;
        }
        self.status.send_if_modified(|status| {
            let holder = holder.map(str::to_owned);
            let seen = holder.map_or_else(Status::default, Status::seen);
            let new = if leading { seen.leading() } else { seen };
            let changed = *status != new;
            *status = new;
            changed
        });
    }

    /// The election ended as it was told to.
    pub(super) fn stopped(&self) {
        self.state().turned = None;
    }

    pub(super) fn won(&self, term: Term) {
        self.state().term = Some((term, self.clock.now()));
    }

    pub(super) fn lost(&self) {
        self.state().term = None;
        self.status.send_modify(|status| status.leading = false);
    }

    /// Work runs that must have stopped by then; `None`: no work runs.
    pub(super) fn must_stop(&self, at: Option<Duration>) {
        self.state().abort_at = at;
    }

    /// A request was answered by this status, or not (`timeout`, `error`); an error says what is wrong.
    pub(super) fn answered(&self, verb: &str, code: &str, outcome: Result<(), String>) {
        self.metrics.requested(verb, code);
        let before = self.state().answer.replace(outcome.clone());
        let Settings { lease_name, namespace, .. } = &*self.settings;
        match outcome {
            Err(reason) if before != Some(Err(reason.clone())) => tracing::warn!(
                lease = lease_name,
                namespace,
                verb,
                code,
                reason,
                "cannot {verb} the lease {namespace}/{lease_name}, and will try again: {reason}"
            ),
            Ok(()) if before.is_some_and(|before| before.is_err()) => {
                tracing::info!(
                    lease = lease_name,
                    namespace,
                    "the lease {namespace}/{lease_name} is reachable again"
                );
            }
            _ => {}
        }
    }

    pub(super) fn watching(self: &Arc<Self>) -> Watching {
        self.watching.store(true, Ordering::Release);
        Watching(self.clone())
    }

    fn live(&self) -> Result<(), String> {
        let (state, now) = (self.state(), self.clock.now());
        let silence = state.turned.map_or(Duration::ZERO, |turned| now.saturating_sub(turned));
        if silence > self.settings.lease_duration + SILENCE {
            return Err(format!("the election has been stuck for {} s", silence.as_secs()));
        }
        if state.abort_at.is_some_and(|at| now >= at) {
            return Err("the work does not stop although its term is over".to_owned());
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.status.borrow().initialized {
            return Ok(());
        }
        let Settings { lease_name, namespace, .. } = &*self.settings;
        let reason = match &self.state().answer {
            Some(Err(reason)) => format!(": {reason}"),
            _ => String::new(),
        };
        Err(format!("the lease {namespace}/{lease_name} has not been read yet{reason}"))
    }

    fn leader(&self) -> Value {
        let term = self.term();
        json!({
            "lease": self.settings.lease_name,
            "is_leader": term.is_some(),
            "holder": self.status.borrow().holder,
            "remaining_s": term.map_or(0, |(remaining, _)| remaining.as_secs()),
        })
    }

    /// What remains of the term and how old it is, while it stands.
    fn term(&self) -> Option<(Duration, Duration)> {
        let state = self.state();
        let (term, since) = state.term.as_ref()?;
        term.check().ok()?;
        Some((term.remaining(), self.clock.now().saturating_sub(*since)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collect for View {
    fn collect(&self) -> Vec<Sample> {
        let Settings { lease_name, identity, mode, .. } = &*self.settings;
        let sample = |definition: &'static Definition, value| {
            let labels = vec![("lease_name", lease_name.clone())];
            Sample { definition, labels, value }
        };
        let term = self.term();
        let watching = self.watching.load(Ordering::Acquire);
        let mut samples = vec![
            sample(&IS_LEADER, f64::from(u8::from(term.is_some()))),
            sample(&WATCHING, f64::from(u8::from(watching))),
        ];
        samples.extend(self.state().transitions.map(|count| sample(&TRANSITIONS, count as f64)));
        if let Some((remaining, age)) = term {
            samples.push(sample(&REMAINING, remaining.as_secs_f64()));
            let mut duration = sample(&DURATION, age.as_secs_f64());
            duration.labels.extend([("leader_name", identity.to_string()), ("mode", mode.clone())]);
            samples.push(duration);
        }
        samples
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("state", &*self.state()).finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watching.store(false, Ordering::Release);
    }
}
