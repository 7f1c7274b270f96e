//! The metrics of rotation.

use metrics::Counter;
use vdbi_core::metrics::{Definition, Kind, Registry};

use crate::tally::Tally;

const ROTATIONS: Definition = Definition {
    name: "vdbi_rotations_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["result"],
    help: "Attempts to evict a pod that asks for it before its credential ends, by result: evicted, blocked (by a disruption budget), refused (the right is missing), no_controller (nobody would make the pod anew), failed.",
};

const WAITING: Definition = Definition {
    name: "vdbi_rotation_waiting_pods",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Pods whose credential ends and that wait to be evicted, as they ask for.",
};

/// Every metric of rotation.
pub const ALL: &[Definition] = &[ROTATIONS, WAITING];

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Evicted,
    Blocked,
    Refused,
    NoController,
    Failed,
}

impl Counted {
    const ALL: [Self; 5] = [Self::Evicted, Self::Blocked, Self::Refused, Self::NoController, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::NoController => "no_controller",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of rotation, registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Pods that wait, of the terms that run.
    pub(crate) waiting: Tally<usize>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge = registry.gauge(&WAITING, &[]);
        let waiting = Tally::new(move |total: &usize| gauge.set(*total as f64));
        let metrics = Self { registry: registry.clone(), waiting };
        // A series that begins with its first count has no increase yet.
        Counted::ALL.iter().for_each(|result| drop(metrics.counter(*result)));
        metrics
    }

    pub(crate) fn count(&self, result: Counted) {
        self.counter(result).increment(1);
    }

    fn counter(&self, result: Counted) -> Counter {
        self.registry.counter(&ROTATIONS, &[("result", result.label())])
    }
}
