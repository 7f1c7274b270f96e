//! Domain types and traits of vdbi, which gives every Kubernetes pod its own dynamic database credential and takes it
//! back when the pod is done.
//!
//! The traits are the product; webhook, renewer, revoker and node plugin are built from them alone:
//!
//! | trait | what it promises | implementations here |
//! |---|---|---|
//! | [`CredentialSource`](credential::CredentialSource) | authorizes, issues, renews and revokes; its errors say whether to retry, give up or deny | `vault::VaultSource`, `memory::MemorySource` |
//! | [`Ledger`](ledger::Ledger) | remembers what was issued and to whom, from before the delivery until after the revocation | `vault::VaultLedger`, `memory::MemoryLedger` |
//! | [`PodIdentity`](identity::PodIdentity) | proves which pod asks | `kubernetes::TokenRequestIdentity` |
//! | [`Leadership`](leadership::Leadership) | lets one replica act, for a [`Term`](leadership::Term) | [`AlwaysLeader`](leadership::AlwaysLeader) |
//!
//! A credential's way, over the embedded backend:
//!
#![cfg_attr(feature = "memory", doc = "```")]
#![cfg_attr(not(feature = "memory"), doc = "```ignore")]
//! use vdbi_core::{
//!     annotation::{self, Outcome},
//!     credential::{CredentialRequest, CredentialSource},
//!     custody::Custody,
//!     ledger::{EntryId, Ledger, Owner},
//!     memory::{MemoryLedger, MemorySource},
//!     metrics::Registry,
//!     pod::PodRef,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
//! source.allow("app", "shop", "web");
//!
//! // What the pod asks for.
//! let annotations = [("db-creds-injector.numberly.io/main.role".to_owned(), "app".to_owned())].into();
//! let Outcome::Inject(asked) = annotation::parse(&annotations, "database")? else { unreachable!() };
//! let database = &asked.databases[0];
//! let request = CredentialRequest {
//!     pod: PodRef { namespace: "shop".into(), service_account: "web".into(), ..PodRef::default() },
//!     database: database.name.clone(),
//!     engine: database.engine.clone(),
//!     role: database.role.clone(),
//! };
//!
//! // Whether it may have that; then the credential, which is in the ledger before anybody sees it.
//! source.authorize(&request).await?;
//! let owner = Owner { cluster: "my-cluster".into(), release: "my-release".into() };
//! let custody = Custody::new(source.clone(), ledger.clone(), owner, &Registry::disabled());
//! let id = EntryId::random();
//! let issued = custody.issue(id, request).await?.deliver().expect("it is delivered once");
//! assert!(source.can_login(&issued.username, &issued.password));
//!
//! // While the pod lives, and when it is done.
//! source.renew(&issued.lease).await?;
//! source.revoke(&issued.lease).await?;
//! ledger.forget(id).await?;
//! assert!(!source.can_login(&issued.username, &issued.password));
//! # Ok(())
//! # }
//! ```
//!
//! Whoever implements a trait runs its contract as a test suite: see `testing`, with the feature of that name.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `vault` | OpenBao and Vault as `CredentialSource` and `Ledger` | yes |
//! | `kubernetes` | `PodIdentity` through TokenRequest, and the cluster's identity | yes |
//! | `admin` | health and metrics endpoints, and log output | yes |
//! | `memory` | an embedded `CredentialSource` and `Ledger`; with `kubernetes` also an embedded Kubernetes API | no |
//! | `testing` | the contract suites for implementations of the traits | no |
//!
//! Without features nothing here performs I/O. With `kubernetes` the version of `k8s-openapi`'s Kubernetes API is left to whoever builds a
//! binary: one of its features `v1_*` has to be enabled.
//!
//! # The other crates
//!
//! `vdbi-webhook` gives pods their credentials, `vdbi-lifecycle` renews and revokes them and has the election over a Kubernetes Lease, and
//! `vdbi-nri` is the node plugin for the mode in which no secret reaches the Kubernetes API.

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
