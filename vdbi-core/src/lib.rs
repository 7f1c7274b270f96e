//! Domain types and traits of vdbi, which gives every Kubernetes pod its own dynamic database credential and takes it
//! back when the pod is done.
//!
//! The traits are the product: [`CredentialSource`](credential::CredentialSource) issues, renews and revokes,
//! [`Ledger`](ledger::Ledger) remembers what was issued and to whom, [`PodIdentity`](identity::PodIdentity) proves which pod
//! asks, and [`Leadership`](leadership::Leadership) lets one replica act. Webhook, renewer, revoker and node plugin are built
//! from them alone.
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `vault` | OpenBao and Vault as `CredentialSource` and `Ledger` | yes |
//! | `kubernetes` | `PodIdentity` through TokenRequest, the cluster's identity | yes |
//! | `admin` | health and metrics endpoints, log output | yes |
//! | `memory` | embedded source and ledger, with `kubernetes` an embedded Kubernetes API | no |
//! | `testing` | the contract suites for implementations of the traits | no |
//!
//! Without features nothing here performs I/O.

pub mod annotation;
pub mod clock;
pub mod config;
pub mod credential;
pub mod custody;
pub mod health;
pub mod identity;
pub mod leadership;
pub mod ledger;
pub mod metrics;
pub mod placeholder;
pub mod pod;
pub mod secret;
pub mod tripwire;

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "admin")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "vault")]
pub mod vault;
