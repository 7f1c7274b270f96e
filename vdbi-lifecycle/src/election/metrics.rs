//! The election's metrics.

use std::time::Duration;

use metrics::{Counter, Histogram, Unit};
use vdbi_core::metrics::{Definition, Kind, Registry};

use super::state::{Cause, Reason};

pub(super) const IS_LEADER: Definition = gauge(
    "vdbi_is_leader",
    None,
    &["lease_name"],
    "1 while this replica's term stands, else 0; judged by the clock when it is asked for.",
);

const ATTEMPTS: Definition =
    counter("vdbi_leader_election_attempts_total", &["lease_name"], "Writes sent to acquire the lease.");

pub(super) const DURATION: Definition = gauge(
    "vdbi_leader_election_duration_seconds",
    Some(Unit::Seconds),
    &["lease_name", "leader_name", "mode"],
    "How long the current leader has held the lease; only the leader has this series.",
);

const ACQUIRED: Definition = counter(
    "vdbi_leader_election_acquired_total",
    &["lease_name", "cause"],
    "Terms won, by why the lease was free: created, released, expired, same_pod.",
);

const LOST: Definition = counter(
    "vdbi_leader_election_lost_total",
    &["lease_name", "reason"],
    "Terms that ended, by reason: deadline, superseded, deleted, work_failed (it failed or returned), yielded (to a \
     replica with fewer shards), shutdown.",
);

const REQUESTS: Definition = counter(
    "vdbi_leader_election_requests_total",
    &["lease_name", "verb", "code"],
    "Requests to the API server, by verb (get, create, update, watch) and HTTP status, or timeout or error without one.",
);

const RENEWED: Definition = histogram(
    "vdbi_leader_election_renew_duration_seconds",
    &["lease_name"],
    "Time from sending a renewal to its acknowledgment.",
);

const FAILOVER: Definition = histogram(
    "vdbi_leader_election_failover_seconds",
    &["lease_name", "cause"],
    "Time from the last sign of the previous leader (a renewal, a release, the deletion), as this replica saw it, to its own \
     term, by cause as in vdbi_leader_election_acquired_total.",
);

pub(super) const REMAINING: Definition = gauge(
    "vdbi_leader_election_deadline_remaining_seconds",
    Some(Unit::Seconds),
    &["lease_name"],
    "How long the term stands without another renewal; only the leader has this series.",
);

pub(super) const TRANSITIONS: Definition = gauge(
    "vdbi_leader_election_lease_transitions",
    None,
    &["lease_name"],
    "How often the lease has changed hands, by its own count; none before it was seen.",
);

pub(super) const WATCHING: Definition = gauge(
    "vdbi_leader_election_watch_connected",
    None,
    &["lease_name"],
    "1 while the lease is watched, 0 while it is polled.",
);

/// Every metric of an election.
pub const ALL: &[Definition] = &[
    IS_LEADER,
    ATTEMPTS,
    DURATION,
    ACQUIRED,
    LOST,
    REQUESTS,
    RENEWED,
    FAILOVER,
    REMAINING,
    TRANSITIONS,
    WATCHING,
];

/// The metrics that are counted as things happen; the others are computed by [`View`](super::view::View).
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    lease: String,
    pub(super) attempts: Counter,
    renewed: Histogram,
    acquired: [(Counter, Histogram); Cause::ALL.len()],
    lost: [Counter; Reason::ALL.len()],
}

impl Metrics {
    pub(super) fn new(registry: &Registry, lease: &str) -> Self {
        let name = ("lease_name", lease);
        let acquired = Cause::ALL.map(|cause| {
            let labels = [name, ("cause", cause.as_str())];
            (registry.counter(&ACQUIRED, &labels), registry.histogram(&FAILOVER, &labels))
        });
        let lost = Reason::ALL.map(|reason| registry.counter(&LOST, &[name, ("reason", reason.as_str())]));
        Self {
            registry: registry.clone(),
            lease: lease.to_owned(),
            attempts: registry.counter(&ATTEMPTS, &[name]),
            renewed: registry.histogram(&RENEWED, &[name]),
            acquired,
            lost,
        }
    }

    pub(super) fn acquired(&self, cause: Cause, failover: Duration) {
        let (counter, histogram) = &self.acquired[cause as usize];
        counter.increment(1);
        histogram.record(failover);
    }

    pub(super) fn lost(&self, reason: Reason) {
        self.lost[reason as usize].increment(1);
    }

    pub(super) fn renewed(&self, took: Duration) {
        self.renewed.record(took);
    }

    pub(super) fn requested(&self, verb: &str, code: &str) {
        let labels = [("lease_name", self.lease.as_str()), ("verb", verb), ("code", code)];
        self.registry.counter(&REQUESTS, &labels).increment(1);
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, kind: Kind::Counter, unit: None, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, kind: Kind::Histogram, unit: Some(Unit::Seconds), labels, help }
}

const fn gauge(
    name: &'static str,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Gauge, unit, labels, help }
}
