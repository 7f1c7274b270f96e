//! The renewer's metrics.

use metrics::{Counter, Gauge};
use vdbi_core::metrics::{Definition, Kind, Registry};

const RENEWED: Definition = Definition {
    name: "vdbi_renew_lease_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace"],
    help: "Credentials renewed, lease and token, by the pod's namespace.",
};

const RENEW_ERROR: Definition = Definition {
    name: "vdbi_renew_lease_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace", "reason"],
    help: "Renewals that failed, by the pod's namespace and reason: denied, invalid, gone, misconfigured, unavailable.",
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

const ACTIVE: Definition = Definition {
    name: "vdbi_renewer_entries",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Ledger entries that this replica renews; 0 unless it leads.",
};

/// Every metric of the renewer.
pub const ALL: &[Definition] = &[RENEWED, RENEW_ERROR, LOST, SCANS, SCAN_ERROR, LAST_SCAN, ACTIVE];

/// The renewer's metrics, registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) scans: Counter,
    pub(crate) scan_error: Counter,
    pub(crate) last_scan: Gauge,
    pub(crate) active: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            scans: registry.counter(&SCANS, &[]),
            scan_error: registry.counter(&SCAN_ERROR, &[]),
            last_scan: registry.gauge(&LAST_SCAN, &[]),
            active: registry.gauge(&ACTIVE, &[]),
        }
    }

    pub(crate) fn renewed(&self, namespace: &str) {
        self.registry.counter(&RENEWED, &[("namespace", namespace)]).increment(1);
    }

    pub(crate) fn failed(&self, namespace: &str, reason: &str) {
        self.registry.counter(&RENEW_ERROR, &[("namespace", namespace), ("reason", reason)]).increment(1);
    }

    pub(crate) fn lost(&self, namespace: &str) {
        self.registry.counter(&LOST, &[("namespace", namespace)]).increment(1);
    }
}
