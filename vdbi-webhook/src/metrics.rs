//! The webhook's metrics.

use std::time::Duration;

use metrics::{Counter, Gauge, Unit};
use vdbi_core::{
    credential::SourceError,
    metrics::{Definition, Kind, Registry},
};

const MUTATED_SUCCESS: Definition = Definition {
    name: "vdbi_mutated_pods_success_count",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Pods that were given their credentials or placeholders.",
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
    help: "Admissions by outcome: injected, reserved (placeholders), untouched, dry_run, malformed, bad_request, denied, invalid, gone, misconfigured, unavailable, ledger, deadline, queue_full, abandoned (the client went away).",
};

const ADMISSION_SECONDS: Definition = Definition {
    name: "vdbi_admission_duration_seconds",
    kind: Kind::Histogram,
    unit: Some(Unit::Seconds),
    labels: &["outcome"],
    help: "Time from an admission's arrival to its answer, by outcome.",
};

const IN_FLIGHT: Definition = Definition {
    name: "vdbi_admissions_in_flight",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Admissions that are being worked on.",
};

const QUEUED: Definition = Definition {
    name: "vdbi_admissions_queued",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "Admissions that wait for their turn.",
};

const CALLERS_VERIFIED: Definition = Definition {
    name: "vdbi_webhook_caller_authentication",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 when callers have to show a client certificate, else 0; with 0 in plaintext mode anybody who reaches the port can ask for credentials.",
};

const CERTIFICATE_EXPIRY: Definition = Definition {
    name: "vdbi_webhook_certificate_expiry",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "When the webhook's certificate expires, in seconds since 1970.",
};

const CERTIFICATE_LOADS: Definition = Definition {
    name: "vdbi_webhook_certificate_loads_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["result"],
    help: "Certificates and client authorities that were loaded or found unusable: success, error.",
};

/// Every metric of the webhook.
pub const ALL: &[Definition] = &[
    MUTATED_SUCCESS,
    MUTATED_ERROR,
    ADMISSIONS,
    ADMISSION_SECONDS,
    IN_FLIGHT,
    QUEUED,
    CALLERS_VERIFIED,
    CERTIFICATE_EXPIRY,
    CERTIFICATE_LOADS,
];

/// How an admission ended. Each is counted once, as one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The pod was given its credentials.
    Injected,
    /// The pod was given placeholders.
    Reserved,
    /// The pod was admitted as it is.
    Untouched,
    /// The pod was given stand-ins, as nothing may be created.
    DryRun,
    /// The request was no review.
    Malformed,
    /// The pod asks for something that does not exist.
    BadRequest,
    /// The backend refused or failed; the label of its error.
    Source(&'static str),
    /// The credential could not be entered into the ledger.
    Ledger,
    /// There was no credential in time.
    Deadline,
    /// Too many were waiting.
    QueueFull,
    /// The client went away before the answer.
    Abandoned,
}

impl Outcome {
    /// Its name in metrics and audit annotations.
    pub fn label(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Reserved => "reserved",
            Self::Malformed => "malformed",
            Self::QueueFull => "queue_full",
            Self::Abandoned => "abandoned",
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
    pub(crate) in_flight: Gauge,
    pub(crate) queued: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            success: registry.counter(&MUTATED_SUCCESS, &[]),
            error: registry.counter(&MUTATED_ERROR, &[]),
            in_flight: registry.gauge(&IN_FLIGHT, &[]),
            queued: registry.gauge(&QUEUED, &[]),
            registry: registry.clone(),
        }
    }

    pub(crate) fn answered(&self, outcome: Outcome, took: Duration) {
        let labels = [("outcome", outcome.label())];
        self.registry.counter(&ADMISSIONS, &labels).increment(1);
        self.registry.histogram(&ADMISSION_SECONDS, &labels).record(took);
        match outcome {
            Outcome::Injected | Outcome::Reserved => self.success.increment(1),
            Outcome::Untouched | Outcome::DryRun | Outcome::Malformed | Outcome::Abandoned => {}
            Outcome::BadRequest
            | Outcome::Source(_)
            | Outcome::Ledger
            | Outcome::Deadline
            | Outcome::QueueFull => self.error.increment(1),
        }
    }
}

/// What is measured about the server's certificates.
#[derive(Clone, Debug)]
pub(crate) struct TlsMetrics {
    pub(crate) callers_verified: Gauge,
    pub(crate) expiry: Gauge,
    pub(crate) loaded: Counter,
    pub(crate) unusable: Counter,
}

impl TlsMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            callers_verified: registry.gauge(&CALLERS_VERIFIED, &[]),
            expiry: registry.gauge(&CERTIFICATE_EXPIRY, &[]),
            loaded: registry.counter(&CERTIFICATE_LOADS, &[("result", "success")]),
            unusable: registry.counter(&CERTIFICATE_LOADS, &[("result", "error")]),
        }
    }
}
