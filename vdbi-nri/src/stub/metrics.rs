//! The connection's metrics.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use vdbi_core::metrics::{Definition, Kind, Registry};

use super::rpc::Rpc;

const RECONNECT: Definition = Definition {
    name: "vdbi_nri_reconnect_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["result"],
    help: "Attempts to connect to containerd again: attempted, and of these succeeded (containerd has synchronized the plugin) and failed.",
};

const CONNECTED: Definition = Definition {
    name: "vdbi_nri_connected",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 while containerd has synchronized the plugin and asks it about every container, else 0: containers are then created without it.",
};

const REQUEST_SECONDS: Definition = Definition {
    name: "vdbi_nri_request_duration_seconds",
    kind: Kind::Histogram,
    unit: Some(Unit::Seconds),
    labels: &["rpc"],
    help: "Time from the arrival of a request of containerd's to the answer, by the name it has in NRI.",
};

const REQUEST_ERRORS: Definition = Definition {
    name: "vdbi_nri_request_errors_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["rpc"],
    help: "Requests of containerd's that were answered with an error; of CreateContainer, containers that were not created.",
};

/// Every metric of the connection.
pub const ALL: &[Definition] = &[RECONNECT, CONNECTED, REQUEST_SECONDS, REQUEST_ERRORS];

/// The connection's metrics, registered.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) attempted: Counter,
    pub(super) succeeded: Counter,
    pub(super) failed: Counter,
    pub(super) connected: Gauge,
    requests: [(Histogram, Counter); Rpc::ALL.len()],
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let reconnect = |result| registry.counter(&RECONNECT, &[("result", result)]);
        let connected = registry.gauge(&CONNECTED, &[]);
        connected.set(0);
        Self {
            attempted: reconnect("attempted"),
            succeeded: reconnect("succeeded"),
            failed: reconnect("failed"),
            connected,
            requests: Rpc::ALL.map(|rpc| {
                let labels = [("rpc", rpc.name())];
                (registry.histogram(&REQUEST_SECONDS, &labels), registry.counter(&REQUEST_ERRORS, &labels))
            }),
        }
    }

    pub(super) fn answered(&self, rpc: Rpc, took: Duration, is_error: bool) {
        let (seconds, errors) = &self.requests[rpc as usize];
        seconds.record(took);
        if is_error {
            errors.increment(1);
        }
    }
}
