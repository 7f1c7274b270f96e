//! The election's metrics.

use metrics::{Counter, Gauge};
use vdbi_core::metrics::{Definition, Kind, Registry};

use super::state::{Cause, Reason};

const IS_LEADER: Definition = Definition {
    name: "vdbi_is_leader",
    kind: Kind::Gauge,
    unit: None,
    labels: &["lease_name"],
    help: "1 while this replica leads, else 0.",
};

const ATTEMPTS: Definition = Definition {
    name: "vdbi_leader_election_attempts_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["lease_name"],
    help: "Writes sent to acquire the lease.",
};

const ACQUIRED: Definition = Definition {
    name: "vdbi_leader_election_acquired_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["lease_name", "cause"],
    help: "Terms won, by why the lease was free: created, released, expired, same_pod.",
};

const LOST: Definition = Definition {
    name: "vdbi_leader_election_lost_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["lease_name", "reason"],
    help: "Terms that ended, by reason: deadline, superseded, deleted, work_failed (it failed or returned), shutdown.",
};

/// Every metric of an election.
pub const ALL: &[Definition] = &[IS_LEADER, ATTEMPTS, ACQUIRED, LOST];

/// The election's metrics, registered.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    lease: String,
    pub(crate) is_leader: Gauge,
    pub(crate) attempts: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, lease: &str) -> Self {
        let labels = [("lease_name", lease)];
        let is_leader = registry.gauge(&IS_LEADER, &labels);
        is_leader.set(0.0);
        let attempts = registry.counter(&ATTEMPTS, &labels);
        Self { registry: registry.clone(), lease: lease.to_owned(), is_leader, attempts }
    }

    pub(crate) fn acquired(&self, cause: Cause) {
        let labels = [("lease_name", self.lease.as_str()), ("cause", cause.as_str())];
        self.registry.counter(&ACQUIRED, &labels).increment(1);
    }

    pub(crate) fn lost(&self, reason: Reason) {
        let labels = [("lease_name", self.lease.as_str()), ("reason", reason.as_str())];
        self.registry.counter(&LOST, &labels).increment(1);
    }
}
