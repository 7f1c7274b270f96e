//! What is measured about the server and the rights of pods.

use std::time::Duration;

use jiff::Timestamp;
use metrics::{Counter, Gauge, Unit};

use super::error::Failure;
use crate::{
    identity::IdentityError,
    metrics::{Definition, Kind, Registry},
};

const REQUESTS: Definition = Definition {
    name: "vdbi_vault_requests_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["operation", "outcome"],
    help: "Requests to OpenBao or Vault, by outcome: ok, refused (an error of its), unanswered.",
};

const REQUEST_SECONDS: Definition = Definition {
    name: "vdbi_vault_request_duration_seconds",
    kind: Kind::Histogram,
    unit: Some(Unit::Seconds),
    labels: &["operation"],
    help: "Time of a request to OpenBao or Vault.",
};

const UP: Definition = Definition {
    name: "vdbi_vault_up",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "1 when OpenBao or Vault served the last request or refused it for a reason of the request's, 0 when it gave no answer, or is sealed, without an active node, busy or limited by a quota.",
};

const LAST_SUCCESS: Definition = Definition {
    name: "vdbi_vault_last_success",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    help: "When a request to OpenBao or Vault last succeeded, in seconds since 1970.",
};

const CONNECTED: Definition = Definition {
    name: "vdbi_connect_vault_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Logins of this component.",
};

const CONNECT_ERROR: Definition = Definition {
    name: "vdbi_connect_vault_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Logins of this component that failed.",
};

const LOGIN_ERRORS: Definition = Definition {
    name: "vdbi_vault_login_errors_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["reason", "auth_mode"],
    help: "Logins that failed, of this component (legacy) or as a pod (projected), by reason: audience_mismatch, sa_not_bound, role_not_found, vault_sealed, permission_denied, other.",
};

const AUTHORIZED: Definition = Definition {
    name: "vdbi_service_account_authorized_count",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Databases of pods whose auth role permits them; legacy mode.",
};

const DENIED: Definition = Definition {
    name: "vdbi_service_account_denied_count",
    kind: Kind::Counter,
    unit: None,
    labels: &["namespace", "cause"],
    help: "Databases of pods whose auth role does not permit them, by the pod's namespace and cause: RoleNotInAssumeRole, ServiceAccountNameNotInRole, NamespaceNotInRole; legacy mode.",
};

const TOKEN_CREATED: Definition = Definition {
    name: "vdbi_orphan_ticket_created_count_success",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Tokens created for pods; legacy mode.",
};

const TOKEN_ERROR: Definition = Definition {
    name: "vdbi_orphan_ticket_created_count_error",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    help: "Tokens for pods that could not be created; legacy mode.",
};

const TOKEN_REQUEST_ERRORS: Definition = Definition {
    name: "vdbi_token_request_errors_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["reason"],
    help: "Tokens of service accounts that the API server did not give, by reason: rbac_denied, sa_not_found, other; projected mode.",
};

const MISCONFIGURED_ROLE: Definition = Definition {
    name: "vdbi_projected_role_misconfigured_total",
    kind: Kind::Counter,
    unit: None,
    labels: &["role"],
    help: "Findings that an auth role has no token_period, so that its pods lose their credentials when its maximum is reached; projected mode.",
};

/// Every metric of this module.
pub const ALL: &[Definition] = &[
    REQUESTS,
    REQUEST_SECONDS,
    UP,
    LAST_SUCCESS,
    CONNECTED,
    CONNECT_ERROR,
    LOGIN_ERRORS,
    AUTHORIZED,
    DENIED,
    TOKEN_CREATED,
    TOKEN_ERROR,
    TOKEN_REQUEST_ERRORS,
    MISCONFIGURED_ROLE,
];

/// Whose login failed; the values are the Go product's.
#[derive(Clone, Copy)]
pub(super) enum AuthMode {
    /// This component's own.
    Legacy,
    /// A pod's.
    Projected,
}

/// The metrics, registered.
pub(super) struct Metrics {
    registry: Registry,
    up: Gauge,
    last_success: Gauge,
    pub(super) connected: Counter,
    pub(super) connect_error: Counter,
    pub(super) authorized: Counter,
    pub(super) token_created: Counter,
    pub(super) token_error: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            up: registry.gauge(&UP, &[]),
            last_success: registry.gauge(&LAST_SUCCESS, &[]),
            connected: registry.counter(&CONNECTED, &[]),
            connect_error: registry.counter(&CONNECT_ERROR, &[]),
            authorized: registry.counter(&AUTHORIZED, &[]),
            token_created: registry.counter(&TOKEN_CREATED, &[]),
            token_error: registry.counter(&TOKEN_ERROR, &[]),
            registry: registry.clone(),
        }
    }

    pub(super) fn requested<T>(&self, operation: &'static str, outcome: &Result<T, Failure>, took: Duration) {
        match outcome {
            Ok(_) => {
                self.up.set(1.0);
                self.last_success.set(Timestamp::now().as_second() as f64);
            }
            Err(Failure::Refused(refusal)) => self.up.set(f64::from(u8::from(!refusal.is_an_outage()))),
            Err(Failure::Unanswered(_)) => self.up.set(0.0),
            Err(Failure::Unsendable(_) | Failure::NoSession(_)) => {}
        }
        let outcome = match outcome {
            Ok(_) => "ok",
            Err(Failure::Refused(_)) => "refused",
            Err(_) => "unanswered",
        };
        let labels = [("operation", operation), ("outcome", outcome)];
        self.registry.counter(&REQUESTS, &labels).increment(1);
        self.registry.histogram(&REQUEST_SECONDS, &labels[..1]).record(took);
    }

    pub(super) fn login_failed(&self, failure: &Failure, mode: AuthMode) {
        let mode = match mode {
            AuthMode::Legacy => "legacy",
            AuthMode::Projected => "projected",
        };
        let labels = [("reason", failure.login_reason()), ("auth_mode", mode)];
        self.registry.counter(&LOGIN_ERRORS, &labels).increment(1);
    }

    pub(super) fn denied(&self, namespace: &str, cause: &'static str) {
        self.registry.counter(&DENIED, &[("namespace", namespace), ("cause", cause)]).increment(1);
    }

    pub(super) fn no_token(&self, error: &IdentityError) {
        let reason = match error {
            IdentityError::UnknownServiceAccount { .. } => "sa_not_found",
            IdentityError::Denied(_) => "rbac_denied",
            IdentityError::Unavailable(_) => "other",
        };
        self.registry.counter(&TOKEN_REQUEST_ERRORS, &[("reason", reason)]).increment(1);
    }

    pub(super) fn misconfigured_role(&self, role: &str) {
        self.registry.counter(&MISCONFIGURED_ROLE, &[("role", role)]).increment(1);
    }
}
