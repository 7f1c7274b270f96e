//! The webhook's metrics.

use std::time::Duration;

use metrics::{Counter, Histogram, Unit};
use vdbi_core::{
    credential::SourceError,
    metrics::{Definition, Kind, Registry},
};

const MUTATED_SUCCESS: Definition = Definition {
    name: "vdbi_mutated_pods_success_count",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Pods that were given their credentials.",
};

const MUTATED_ERROR: Definition = Definition {
    name: "vdbi_mutated_pods_error_count",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Pods that were denied, for whatever reason.",
};

const ADMISSIONS: Definition = Definition {
    name: "vdbi_admissions_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["outcome"],
    help: "Admissions by outcome: injected, untouched, dry_run, bad_request, denied, invalid, misconfigured, unavailable, ledger, deadline.",
};

const ADMISSION_SECONDS: Definition = Definition {
    name: "vdbi_admission_duration_seconds",
    kind: Kind::Histogram,
    unit: Some(Unit::Seconds),
    labels: &[],
    help: "Time from an admission's arrival to its answer.",
};

const STORED: Definition = Definition {
    name: "vdbi_store_data_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Ledger entries written.",
};

const STORE_ERROR: Definition = Definition {
    name: "vdbi_store_data_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Ledger entries that could not be written; their credentials were revoked.",
};

const UNDELIVERED: Definition = Definition {
    name: "vdbi_undelivered_credentials_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["result"],
    help: "Credentials that were issued for an admission that then failed, by what became of them: revoked, failed.",
};

/// Every metric of the webhook.
pub const ALL: &[Definition] =
    &[MUTATED_SUCCESS, MUTATED_ERROR, ADMISSIONS, ADMISSION_SECONDS, STORED, STORE_ERROR, UNDELIVERED];

/// How an admission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Injected,
    Untouched,
    DryRun,
    BadRequest,
    Source(&'static str),
    Ledger,
    Deadline,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Untouched => "untouched",
            Self::DryRun => "dry_run",
            Self::BadRequest => "bad_request",
            Self::Source(label) => label,
            Self::Ledger => "ledger",
            Self::Deadline => "deadline",
        }
    }
}

impl From<&SourceError> for Outcome {
    fn from(error: &SourceError) -> Self {
        Self::Source(error.label())
    }
}

/// The webhook's metrics, registered.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    success: Counter,
    error: Counter,
    seconds: Histogram,
    pub(crate) stored: Counter,
    pub(crate) store_error: Counter,
    pub(crate) revoked: Counter,
    pub(crate) revocation_failed: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            success: registry.counter(&MUTATED_SUCCESS, &[]),
            error: registry.counter(&MUTATED_ERROR, &[]),
            seconds: registry.histogram(&ADMISSION_SECONDS, &[]),
            stored: registry.counter(&STORED, &[]),
            store_error: registry.counter(&STORE_ERROR, &[]),
            revoked: registry.counter(&UNDELIVERED, &[("result", "revoked")]),
            revocation_failed: registry.counter(&UNDELIVERED, &[("result", "failed")]),
            registry: registry.clone(),
        }
    }

    pub(crate) fn answered(&self, outcome: Outcome, took: Duration) {
        self.registry.counter(&ADMISSIONS, &[("outcome", outcome.label())]).increment(1);
        self.seconds.record(took);
        match outcome {
            Outcome::Injected => self.success.increment(1),
            Outcome::Untouched | Outcome::DryRun => {}
            Outcome::BadRequest | Outcome::Source(_) | Outcome::Ledger | Outcome::Deadline => {
                self.error.increment(1);
            }
        }
    }
}
