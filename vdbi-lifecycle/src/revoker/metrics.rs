//! The revoker's metrics.

use metrics::{Counter, Histogram, Unit};
use vdbi_core::metrics::{Definition, Kind, Registry};

use super::compare::Finding;
use crate::{
    shard::Shard,
    tally::{Figures, Tally},
};

const REVOKED: Definition = Definition {
    name: "vdbi_revoke_token_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Credentials revoked, lease and token, by the pod's namespace.",
};

const REVOKE_ERROR: Definition = Definition {
    name: "vdbi_revoke_token_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Revocations that failed and are tried again, by the pod's namespace.",
};

const FORGOTTEN: Definition = Definition {
    name: "vdbi_delete_data_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Ledger entries removed after their credential was revoked.",
};

const FORGET_ERROR: Definition = Definition {
    name: "vdbi_delete_data_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Ledger entries that could not be removed; this is tried again.",
};

const SWEEPS: Definition = Definition {
    name: "vdbi_pod_cleanup_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Comparisons of ledger and live pods that were completed.",
};

const SWEEP_ERROR: Definition = Definition {
    name: "vdbi_pod_cleanup_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Comparisons of ledger and live pods that failed.",
};

const FETCHED: Definition = Definition {
    name: "vdbi_fetch_pods_success_count",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Times that pods were listed.",
};

const FETCH_ERROR: Definition = Definition {
    name: "vdbi_fetch_pods_error_count",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Times that pods could not be listed; no pod at all is no error.",
};

const ENTRIES: Definition = Definition {
    name: "vdbi_ledger_entries",
    kind: Kind::Gauge,
    unit: None,
    labels: &["state"],
    help: "Ledger entries at the last comparison: live, young (too young to judge), foreign (another cluster or release), gone.",
};

const BRAKE: Definition = Definition {
    name: "vdbi_revoker_brake_engaged",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 while the last comparison would have revoked an implausible share of all credentials and was stopped.",
};

const QUEUED: Definition = Definition {
    name: "vdbi_revoker_queue_depth",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Credentials that are known to be without their pod and are not revoked yet.",
};

const RATE: Definition = Definition {
    name: "vdbi_revoker_budget_requests_per_second",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Requests per second that this replica allows itself for revocations: revoker.rateLimit, of several shards its part for each that it leads, or less while Vault fails or is slow.",
};

const WATCHING: Definition = Definition {
    name: "vdbi_revoker_watch_connected",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 while the pods are watched, so that the end of one is acted on at once; 0 while the watch fails.",
};

const DURATION: Definition = Definition {
    name: "vdbi_revocation_duration_seconds",
    kind: Kind::Histogram,
    unit: Some(Unit::Seconds),
    labels: &[],
    help: "From the end of a pod, as the watch or a comparison showed it, to the end of its credential.",
};

const BINDINGS: Definition = Definition {
    name: "vdbi_ledger_bindings_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["result"],
    help: "Ledger entries whose pod appeared, by what became of them: bound (to its name and uid), taken_over (from the Go product), failed.",
};

/// Every metric of the revoker.
pub const ALL: &[Definition] = &[
    REVOKED,
    REVOKE_ERROR,
    FORGOTTEN,
    FORGET_ERROR,
    SWEEPS,
    SWEEP_ERROR,
    FETCHED,
    FETCH_ERROR,
    ENTRIES,
    BRAKE,
    QUEUED,
    RATE,
    WATCHING,
    DURATION,
    BINDINGS,
];

/// What became of an entry whose pod appeared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Binding {
    Bound,
    TakenOver,
    Failed,
}

/// The revoker's metrics, registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) sweeps: Counter,
    pub(crate) sweep_error: Counter,
    fetched: Counter,
    fetch_error: Counter,
    pub(crate) duration: Histogram,
    /// What the terms that run have found and not done yet.
    pub(crate) terms: Tally<Found>,
}

/// What one term tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Revocations that are waited for.
    pub(crate) queued: usize,
    /// Requests per second that it allows itself.
    pub(crate) rate: f64,
    /// Whether its last comparison was stopped.
    pub(crate) braked: bool,
    /// Whether it watches the pods; `None` before it has begun to.
    watching: Option<bool>,
    /// What its last comparison said, as [`STATES`] has it.
    entries: [usize; STATES.len()],
}

const STATES: [(Finding, &str); 4] = [
    (Finding::Live, "live"),
    (Finding::Young, "young"),
    (Finding::Foreign, "foreign"),
    (Finding::Gone, "gone"),
];

impl Found {
    /// Takes over what a comparison said.
    pub(crate) fn compared(&mut self, braked: bool, count: impl Fn(Finding) -> usize) {
        self.braked = braked;
        self.entries = STATES.map(|(finding, _)| count(finding));
    }
}

impl Figures for Found {
    fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.rate += other.rate;
        self.braked |= other.braked;
        // One that does not watch is enough for alarm.
        self.watching = Some(self.watching.unwrap_or(true) && other.watching.unwrap_or(false));
        self.entries.iter_mut().zip(other.entries).for_each(|(sum, count)| *sum += count);
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge = |definition| registry.gauge(definition, &[]);
        let (queued, rate, brake, watching) = (gauge(&QUEUED), gauge(&RATE), gauge(&BRAKE), gauge(&WATCHING));
        let entries = STATES.map(|(_, state)| registry.gauge(&ENTRIES, &[("state", state)]));
        let terms = Tally::new(move |total: &Found| {
            queued.set(total.queued as f64);
            rate.set(total.rate);
            brake.set(f64::from(u8::from(total.braked)));
            watching.set(f64::from(u8::from(total.watching == Some(true))));
            entries.iter().zip(total.entries).for_each(|(gauge, count)| gauge.set(count as f64));
        });
        Self {
            registry: registry.clone(),
            sweeps: registry.counter(&SWEEPS, &[]),
            sweep_error: registry.counter(&SWEEP_ERROR, &[]),
            fetched: registry.counter(&FETCHED, &[]),
            fetch_error: registry.counter(&FETCH_ERROR, &[]),
            duration: registry.histogram(&DURATION, &[]),
            terms,
        }
    }

    /// Takes note of whether a shard's leader watches the pods.
    pub(crate) fn watching(&self, shard: Shard) -> impl Fn(bool) + Clone + Send + Sync + 'static {
        let terms = self.terms.clone();
        move |connected| terms.tell(shard, |found| found.watching = Some(connected))
    }

    /// Pods were listed, or could not be.
    pub(crate) fn fetched(&self, succeeded: bool) {
        if succeeded { &self.fetched } else { &self.fetch_error }.increment(1);
    }

    pub(crate) fn revoked(&self, namespace: &str, succeeded: bool) {
        let definition = if succeeded { &REVOKED } else { &REVOKE_ERROR };
        self.registry.counter(definition, &[("namespace", namespace)]).increment(1);
    }

    pub(crate) fn forgotten(&self, namespace: &str, succeeded: bool) {
        let definition = if succeeded { &FORGOTTEN } else { &FORGET_ERROR };
        self.registry.counter(definition, &[("namespace", namespace)]).increment(1);
    }

    pub(crate) fn bound(&self, binding: Binding) {
        let result = match binding {
            Binding::Bound => "bound",
            Binding::TakenOver => "taken_over",
            Binding::Failed => "failed",
        };
        self.registry.counter(&BINDINGS, &[("result", result)]).increment(1);
    }
}
