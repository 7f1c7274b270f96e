//! What is measured about credentials until they are delivered.

use metrics::Counter;

use crate::metrics::{Definition, Kind, Registry};

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
    help: "Credentials that were issued for a pod that then did not get them, by what became of them: revoked, failed.",
};

/// Every metric of [`Custody`](super::Custody).
pub const ALL: &[Definition] = &[STORED, STORE_ERROR, UNDELIVERED];

/// These, registered.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) stored: Counter,
    pub(super) store_error: Counter,
    pub(super) revoked: Counter,
    pub(super) revocation_failed: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            stored: registry.counter(&STORED, &[]),
            store_error: registry.counter(&STORE_ERROR, &[]),
            revoked: registry.counter(&UNDELIVERED, &[("result", "revoked")]),
            revocation_failed: registry.counter(&UNDELIVERED, &[("result", "failed")]),
        }
    }
}
