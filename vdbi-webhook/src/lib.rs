//! The mutating admission webhook of vdbi: a labelled pod comes in, its database credentials are issued, entered into the
//! ledger and patched into its containers.
//!
//! - [`policy::MutationPolicy`] decides what a pod asks for and how it is delivered, and performs no I/O. It is the trait to
//!   implement for another dialect of annotations or another way of delivery.
//! - [`admit::Admission`] drives one admission from there to its answer within one deadline, over any
//!   [`CredentialSource`](vdbi_core::credential::CredentialSource) and any [`Ledger`](vdbi_core::ledger::Ledger).
//! - [`server::AdmissionServer`] speaks AdmissionReview (`admission.k8s.io/v1`) over HTTPS; [`tls`] keeps its certificate.
//!
//! In an operator of your own, over the embedded backend; a real one is `vdbi_core::vault::VaultSource`:
//!
//! ```
//! use serde_json::json;
//! use vdbi_core::{ledger::Owner, memory::{MemoryLedger, MemorySource}, metrics::Registry};
//! use vdbi_webhook::{admit::{Admission, Limits}, metrics::Outcome, policy::Plaintext, review::Review};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let source = MemorySource::new();
//! source.allow("app", "shop", "app1");
//! let admission = Admission::new(
//!     source,
//!     MemoryLedger::new(),
//!     Plaintext::new("database"),
//!     Owner { cluster: "my-cluster".into(), release: "my-release".into() },
//!     Limits::default(),
//!     &Registry::disabled(),
//! );
//! let review = Review::new("shop", json!({
//!     "metadata": { "annotations": { "db-creds-injector.numberly.io/main.role": "app" } },
//!     "spec": { "serviceAccountName": "app1", "containers": [{ "name": "web" }] },
//! }));
//! assert_eq!(admission.admit(&review).await.outcome, Outcome::Injected);
//! # }
//! ```
//!
//! An admission that fails, that outlasts its deadline or whose client goes away leaves nothing behind: what was issued by
//! then is revoked.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `testing` | the contract suite of mutation policies | no |
//!
//! The version of `k8s-openapi`'s Kubernetes API is left to whoever builds a binary: one of its features `v1_*` has to be enabled.
//!
//! # The other crates
//!
//! `vdbi-core` has the traits and the backends, `vdbi-lifecycle` what renews and revokes the credentials, `vdbi-nri` the node plugin for
//! the mode in which no secret reaches the Kubernetes API.

pub mod admit;
pub mod metrics;
pub mod patch;
pub mod policy;
pub mod review;
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;

mod queue;
