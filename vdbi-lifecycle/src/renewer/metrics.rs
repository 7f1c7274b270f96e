//! The renewer's metrics.

use std::{collections::HashSet, sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Unit};
use vdbi_core::{
    ledger::EntryId,
    metrics::{Definition, Kind, Registry},
};

use super::plan::{Step, Summary};
use crate::{
    shard::Shard,
    tally::{Figures, Tally},
};

pub mod per_pod;

use per_pod::PerPod;

const LEASE_RENEWED: Definition = Definition {
    name: "vdbi_renew_lease_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Leases renewed, by the pod's namespace.",
};

const LEASE_ERROR: Definition = Definition {
    name: "vdbi_renew_lease_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace", "reason"],
    help: "Renewals of leases that failed, by the pod's namespace and reason: denied, invalid, gone, misconfigured, unavailable.",
};

const TOKEN_RENEWED: Definition = Definition {
    name: "vdbi_renew_token_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Tokens renewed, by the pod's namespace.",
};

const TOKEN_ERROR: Definition = Definition {
    name: "vdbi_renew_token_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace", "reason"],
    help: "Renewals of tokens that failed, by the pod's namespace and reason, as those of leases.",
};

const ENDING: Definition = Definition {
    name: "vdbi_ending_credentials_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Credentials found to end at their maximum (max_ttl), whatever is renewed: these pods have to be restarted.",
};

const ENDING_NOW: Definition = Definition {
    name: "vdbi_renewer_ending_entries",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Ledger entries whose credentials end at their maximum, as far as this replica knows.",
};

const DUE: Definition = Definition {
    name: "vdbi_renewer_due_steps",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Reads and renewals that are due and wait for the budget.",
};

const EARLIEST: Definition = Definition {
    name: "vdbi_renewer_earliest_expiry_seconds",
    kind: Kind::Gauge,
    unit: Some(Unit::Seconds),
    labels: &[],
    help: "How long the credential lives that ends first; NaN when none is known.",
};

const RATE: Definition = Definition {
    name: "vdbi_renewer_budget_requests_per_second",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Requests per second that this replica allows itself: vaultRateLimit, of several shards its part for each that it leads, or less while Vault fails or is slow.",
};

const USED: Definition = Definition {
    name: "vdbi_renewer_budget_used_ratio",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "The share of vaultRateLimit that was used in the last five seconds, by all shards that this replica leads.",
};

const LOST: Definition = Definition {
    name: "vdbi_lost_credentials_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Credentials found dead while their entry was in the ledger: these pods have no access.",
};

const SCANS: Definition = Definition {
    name: "vdbi_synchronization_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Times that the ledger was listed for new entries.",
};

const SCAN_ERROR: Definition = Definition {
    name: "vdbi_synchronization_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Times that the ledger could not be listed.",
};

const LAST_SCAN: Definition = Definition {
    name: "vdbi_last_synchronization_success",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "When the ledger was last listed, in seconds since 1970.",
};

const SCAN_DURATION: Definition = Definition {
    name: "vdbi_last_synchronization_duration",
    kind: Kind::Histogram,
    unit: None,
    labels: &[],
    help: "How long listing the ledger took, in seconds.",
};

const ACTIVE: Definition = Definition {
    name: "vdbi_renewer_entries",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Ledger entries that this replica renews; 0 unless it leads.",
};

/// Every metric of the renewer.
pub const ALL: &[Definition] = &[
    LEASE_RENEWED,
    LEASE_ERROR,
    TOKEN_RENEWED,
    TOKEN_ERROR,
    LOST,
    ENDING,
    ENDING_NOW,
    DUE,
    EARLIEST,
    RATE,
    USED,
    SCANS,
    SCAN_ERROR,
    LAST_SCAN,
    SCAN_DURATION,
    ACTIVE,
];

/// The renewer's metrics, registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Where every credential has series of its own.
    per_pod: Option<Arc<PerPod>>,
    pub(crate) scans: Counter,
    pub(crate) scan_error: Counter,
    pub(crate) last_scan: Gauge,
    pub(crate) scan_duration: Histogram,
    /// What the plans hold.
    pub(crate) terms: Tally<Works>,
}

/// What one term tells.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Works {
    /// What its plan holds.
    pub(crate) summary: Summary,
    /// Requests per second that it allows itself.
    pub(crate) rate: f64,
    /// The share of the whole job's limit that it used.
    pub(crate) used: f64,
}

impl Figures for Works {
    fn add(&mut self, other: &Self) {
        let Summary { active, due, earliest_expiry, ending } = &mut self.summary;
        *active += other.summary.active;
        *due += other.summary.due;
        *ending += other.summary.ending;
        *earliest_expiry = [*earliest_expiry, other.summary.earliest_expiry].into_iter().flatten().min();
        self.rate += other.rate;
        self.used += other.used;
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge = |definition| registry.gauge(definition, &[]);
        let (active, ending, due) = (gauge(&ACTIVE), gauge(&ENDING_NOW), gauge(&DUE));
        let (earliest, rate, used) = (gauge(&EARLIEST), gauge(&RATE), gauge(&USED));
        let terms = Tally::new(move |total: &Works| {
            active.set(total.summary.active as f64);
            ending.set(total.summary.ending as f64);
            due.set(total.summary.due as f64);
            earliest.set(total.summary.earliest_expiry.map_or(f64::NAN, |left| left.as_secs_f64()));
            rate.set(total.rate);
            used.set(total.used);
        });
        Self {
            registry: registry.clone(),
            per_pod: None,
            scans: registry.counter(&SCANS, &[]),
            scan_error: registry.counter(&SCAN_ERROR, &[]),
            last_scan: registry.gauge(&LAST_SCAN, &[]),
            scan_duration: registry.histogram(&SCAN_DURATION, &[]),
            terms,
        }
    }

    /// With series of its own for each credential.
    pub(crate) fn per_pod(self, registry: &Registry) -> Self {
        let per_pod = Arc::new(PerPod::default());
        registry.collect_from(&per_pod);
        Self { per_pod: Some(per_pod), ..self }
    }

    /// These entries of the shard are in the ledger, and no other.
    pub(crate) fn listed(&self, shard: Shard, ids: &HashSet<EntryId>) {
        if let Some(per_pod) = &self.per_pod {
            per_pod.retain(|id| ids.contains(id) || !shard.covers(*id));
        }
    }

    /// A lease or token that lives for `ttl` from now on, if it ends at all.
    pub(crate) fn renewed(&self, id: EntryId, step: Step, namespace: &str, ttl: Option<Duration>) {
        if let Some(per_pod) = &self.per_pod {
            return per_pod.renewed(id, step, namespace, ttl);
        }
        let definition = if step == Step::Token { &TOKEN_RENEWED } else { &LEASE_RENEWED };
        self.registry.counter(definition, &[("namespace", namespace)]).increment(1);
    }

    pub(crate) fn failed(&self, id: EntryId, step: Step, namespace: &str, reason: &'static str) {
        if let Some(per_pod) = &self.per_pod {
            return per_pod.failed(id, step, namespace, reason);
        }
        let definition = if step == Step::Token { &TOKEN_ERROR } else { &LEASE_ERROR };
        self.registry.counter(definition, &[("namespace", namespace), ("reason", reason)]).increment(1);
    }

    pub(crate) fn lost(&self, namespace: &str) {
        self.registry.counter(&LOST, &[("namespace", namespace)]).increment(1);
    }

    pub(crate) fn ending(&self, namespace: &str) {
        self.registry.counter(&ENDING, &[("namespace", namespace)]).increment(1);
    }
}
