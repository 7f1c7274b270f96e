//! The mutating admission webhook of vdbi: a labelled pod comes in, its database credentials are issued, entered into the
//! ledger and patched into its containers.
//!
//! [`policy::MutationPolicy`] decides what a pod asks for and how it is delivered, and performs no I/O;
//! [`admit::Admission`] drives one admission from there to its answer within one deadline; [`server`] speaks
//! AdmissionReview v1 over TLS.
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
//! let review = Review {
//!     uid: "1".into(),
//!     namespace: "shop".into(),
//!     dry_run: false,
//!     timeout: None,
//!     pod: Some(json!({
//!         "metadata": { "annotations": { "db-creds-injector.numberly.io/main.role": "app" } },
//!         "spec": { "serviceAccountName": "app1", "containers": [{ "name": "web" }] },
//!     })),
//! };
//! assert_eq!(admission.admit(&review).await.outcome, Outcome::Injected);
//! # }
//! ```
//!
//! An admission that fails, that outlasts its deadline or whose client goes away leaves nothing behind: what was issued by
//! then is revoked.

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
