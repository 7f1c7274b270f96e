//! The life of a credential after its delivery: renewed while its pod lives, revoked when the pod is done, each by one
//! elected leader. The election stands alone, for any operator that must not act twice.
//!
//! - [`election::LeaseElection`] implements [`Leadership`](vdbi_core::leadership::Leadership) over a Kubernetes Lease.
//! - [`renewer::Renewer`] and [`revoker::Revoker`] are the work that a leader does, over any
//!   [`CredentialSource`](vdbi_core::credential::CredentialSource) and any [`Ledger`](vdbi_core::ledger::Ledger); both act under the
//!   [`Term`](vdbi_core::leadership::Term) they are given, and any leadership may give it.
//! - [`rotation`] is the renewer's: it has pods replaced whose credential no renewal takes further.
//! - A large ledger is divided into [`shard`]s, each with a leader of its own ([`election::Elections`]).
//!
//! # A leader in your operator
//!
//! ```
//! use std::{error::Error, sync::Arc, time::Duration};
//!
//! use tokio_util::sync::CancellationToken;
//! use vdbi_core::{leadership::{Leadership, Term, WorkError}, metrics::Registry};
//! use vdbi_lifecycle::election::{BoottimeClock, Identity, LeaseElection, LeaseRef, Settings};
//!
//! /// Runs on one replica at a time, and returns when its term is over.
//! async fn reconcile(term: Term) -> Result<(), WorkError> {
//!     loop {
//!         // Not at all when the term is over, and not beyond it.
//!         term.run(act()).await?;
//!         term.wait(tokio::time::sleep(Duration::from_secs(10))).await?;
//!     }
//! }
//!
//! async fn operate(client: kube::Client, shutdown: CancellationToken) -> Result<(), Box<dyn Error>> {
//!     let lease = LeaseRef { namespace: "my-namespace".into(), name: "my-operator".into() };
//!     // POD_NAME and POD_UID, by the downward API.
//!     let settings = Settings::new(lease, Identity::from_env());
//!     let election = LeaseElection::new(client, settings, Arc::new(BoottimeClock), &Registry::disabled())?
//!         .on_overrun(|| std::process::abort());
//!     // Competes until the shutdown, and hands over at once.
//!     election.run(reconcile, shutdown).await?;
//!     Ok(())
//! }
//! # async fn act() {}
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! #     use k8s_openapi::api::coordination::v1::Lease;
//! #     let api = vdbi_core::memory::kubernetes::KubernetesApi::new();
//! #     let shutdown = CancellationToken::new();
//! #     let leases: kube::Api<Lease> = kube::Api::namespaced(api.client(), "my-namespace");
//! #     let leads = async {
//! #         while leases.get("my-operator").await.is_err() {
//! #             tokio::time::sleep(Duration::from_millis(10)).await;
//! #         }
//! #         shutdown.cancel();
//! #     };
//! #     tokio::join!(operate(api.client(), shutdown.clone()), leads).0?;
//! #     assert_eq!(leases.get("my-operator").await?.spec.unwrap().holder_identity.as_deref(), Some(""));
//! #     Ok(())
//! # }
//! ```
//!
//! It needs the verbs get, create, update and watch on leases in that namespace. Give it a client of its own without retries
//! (`kube::Config::default_retry = false`), since it counts its deadlines from sending. [`report`](election::LeaseElection::report) adds
//! the check `leader-election` and the details to [`Health`](vdbi_core::health::Health); a
//! [`Registry`](vdbi_core::metrics::Registry) that is not disabled gets the metrics of [`election::metrics`].
//!
//! [`election::Elections`] is the same for work that is divided, with an election for each part and replicas that share the parts evenly:
//!
//! ```
//! # use std::{error::Error, sync::Arc};
//! # use tokio_util::sync::CancellationToken;
//! # use vdbi_core::{credential::CredentialSource, ledger::Ledger, metrics::Registry};
//! # use vdbi_lifecycle::{election::{BoottimeClock, Elections, Settings}, renewer::Renewer};
//! # async fn renew<S: CredentialSource, L: Ledger>(
//! #     client: kube::Client, settings: Settings, renewer: Renewer<S, L>, shutdown: CancellationToken,
//! # ) -> Result<(), Box<dyn Error>> {
//! let elections = Elections::new(client, settings, 8, Arc::new(BoottimeClock), &Registry::disabled())?
//!     .on_overrun(|| std::process::abort());
//! elections.run(move |shard, term| renewer.clone().for_shard(shard).run(term), shutdown).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What an election guarantees: at most one replica's [`Term::check`](vdbi_core::leadership::Term::check) succeeds at any time, also while
//! its leader is cut off, suspended or blocked, as far as clocks run at rates within a factor of 1.5 of each other and nobody deletes its
//! Lease time and again.
//!
//! # Features
//!
//! It has no features. The version of `k8s-openapi`'s Kubernetes API is left to whoever builds a binary: one of its features `v1_*` has to be
//! enabled.
//!
//! # The other crates
//!
//! `vdbi-core` has the traits and the backends, `vdbi-webhook` gives pods their credentials, and `vdbi-nri` is the node plugin for the mode
//! in which no secret reaches the Kubernetes API.

pub mod budget;
pub mod election;
pub mod events;
pub mod pods;
pub mod renewer;
pub mod revoker;
pub mod rotation;
pub mod shard;

mod tally;
