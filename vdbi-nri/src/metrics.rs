//! What the node plugin measures of its work on containers.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use vdbi_core::metrics::{Definition, Kind, Registry};

use crate::{cache::Source, plugin::Reason, prewarm::Skipped};

const SUBSTITUTIONS: Definition = Definition {
    name: "vdbi_nri_substitutions_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Containers whose placeholders were replaced.",
};

const FAILURES: Definition = Definition {
    name: "vdbi_nri_unwrap_failures_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["reason"],
    help: "Containers that were not created since a placeholder would have stayed: arguments, identity, fetch_error, deadline, empty_mapping, residual_placeholder.",
};

const CREATE_SECONDS: Definition = Definition {
    name: "vdbi_nri_create_duration_seconds",
    kind: Kind::Histogram,
    unit: Some(Unit::Seconds),
    labels: &["phase"],
    help: "Time in the plugin for each container with placeholders, by phase: identity (the pod at the API server; only without a cached credential), credential, substitute, total.",
};

const DUPLICATES: Definition = Definition {
    name: "vdbi_nri_resolve_duplicate_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Containers that waited for credentials which somebody else had begun to fetch.",
};

const CACHE_HITS: Definition = Definition {
    name: "vdbi_nri_cache_hit_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["source"],
    help: "Containers whose credentials were there already, by how they got there: prewarm, sync (for another container), unknown (before the plugin's last start).",
};

const CACHED_PODS: Definition = Definition {
    name: "vdbi_nri_cached_pods",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Pods whose credentials are in the plugin's cache.",
};

const REISSUED: Definition = Definition {
    name: "vdbi_nri_reissued_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Credentials that were dead when a container started again, and were replaced.",
};

const PREWARM_SUCCESS: Definition = Definition {
    name: "vdbi_nri_prewarm_success_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Pods whose credentials were fetched before a container needed them.",
};

const PREWARM_ERROR: Definition = Definition {
    name: "vdbi_nri_prewarm_error_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["reason"],
    help: "Attempts to do so that came to nothing: terminating_pod, annotations, vault_fetch. They are repeated while the pod waits.",
};

const PREWARM_IN_FLIGHT: Definition = Definition {
    name: "vdbi_nri_prewarm_inflight",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Pods whose credentials are being fetched before a container needs them.",
};

const LEAKED: Definition = Definition {
    name: "vdbi_nri_leaked_placeholders_total",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Containers that were found running with a placeholder in their environment: the plugin was not there when they were created, and no tripwire was set.",
};

/// Every metric of the plugin's work. Those of its session with the runtime are in [`crate::stub`].
pub const ALL: &[Definition] = &[
    SUBSTITUTIONS,
    FAILURES,
    CREATE_SECONDS,
    DUPLICATES,
    CACHE_HITS,
    CACHED_PODS,
    REISSUED,
    PREWARM_SUCCESS,
    PREWARM_ERROR,
    PREWARM_IN_FLIGHT,
    LEAKED,
];

/// A part of the way from a placeholder to its credential.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Identity,
    Credential,
    Substitute,
    Total,
}

/// These, registered.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) substitutions: Counter,
    identity: Histogram,
    credential: Histogram,
    substitute: Histogram,
    total: Histogram,
    pub(crate) duplicates: Counter,
    pub(crate) cached_pods: Gauge,
    pub(crate) reissued: Counter,
    pub(crate) prewarmed: Counter,
    pub(crate) prewarming: Gauge,
    pub(crate) leaked: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let phase = |phase| registry.histogram(&CREATE_SECONDS, &[("phase", phase)]);
        Self {
            substitutions: registry.counter(&SUBSTITUTIONS, &[]),
            identity: phase("identity"),
            credential: phase("credential"),
            substitute: phase("substitute"),
            total: phase("total"),
            duplicates: registry.counter(&DUPLICATES, &[]),
            cached_pods: registry.gauge(&CACHED_PODS, &[]),
            reissued: registry.counter(&REISSUED, &[]),
            prewarmed: registry.counter(&PREWARM_SUCCESS, &[]),
            prewarming: registry.gauge(&PREWARM_IN_FLIGHT, &[]),
            leaked: registry.counter(&LEAKED, &[]),
            registry: registry.clone(),
        }
    }

    pub(crate) fn took(&self, phase: Phase, time: Duration) {
        match phase {
            Phase::Identity => &self.identity,
            Phase::Credential => &self.credential,
            Phase::Substitute => &self.substitute,
            Phase::Total => &self.total,
        }
        .record(time);
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.registry.counter(&FAILURES, &[("reason", reason.label())]).increment(1);
    }

    pub(crate) fn hit(&self, source: Source) {
        self.registry.counter(&CACHE_HITS, &[("source", source.label())]).increment(1);
    }

    pub(crate) fn not_prewarmed(&self, reason: Skipped) {
        self.registry.counter(&PREWARM_ERROR, &[("reason", reason.label())]).increment(1);
    }
}
