//! The node plugin: placeholders in, credentials out, and no secret in the Kubernetes API.
//!
//! In this mode the webhook writes no credential into the pod, only a [placeholder](vdbi_core::placeholder) for each. The plugin,
//! called by containerd through NRI (the Node Resource Interface) right before a container is created, puts the credential in its
//! place: the Kubernetes API never sees it.
//!
//! - [`stub`] is the connection to containerd, for any plugin that adjusts containers: it knows nothing of placeholders.
//!   [`stub::ContainerInjector`] is the trait to implement.
//! - [`NodePlugin`] is the plugin of vdbi, over any [`CredentialSource`](vdbi_core::credential::CredentialSource) and any
//!   [`Ledger`](vdbi_core::ledger::Ledger). It fetches what a pod needs once, when the pod is bound to the node or a container is about to
//!   be created, and keeps it in the [`cache`](cache::Cache).
//! - [`substitute()`] decides about a container's environment, without I/O. Any doubt is a [`Refusal`], with which the container is not
//!   created: **no placeholder ever reaches an application**.
//!
//! A whole plugin, which sets a variable in every container of the node:
//!
//! ```
//! use std::{error::Error, path::PathBuf};
//!
//! use vdbi_core::metrics::Registry;
//! use vdbi_nri::stub::{Adjustment, ContainerInjector, Creation, Refused, Settings, Stub};
//!
//! struct Hello;
//!
//! impl ContainerInjector for Hello {
//!     async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
//!         let mut adjustment = Adjustment::default();
//!         adjustment.set_env("GREETING", format!("hello {}", creation.pod.name))?;
//!         Ok(adjustment)
//!     }
//! }
//!
//! async fn serve(socket: PathBuf, shutdown: impl Future<Output = ()> + Send) -> Result<(), Box<dyn Error>> {
//!     // The name, and the index by which containerd sorts its plugins.
//!     let mut settings = Settings::new("hello", "20")?;
//!     settings.socket = socket;
//!     Stub::new(settings, Hello, &Registry::disabled()).run(shutdown).await;
//!     Ok(())
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! #     serve("/nobody/listens/here".into(), std::future::ready(())).await
//! # }
//! ```
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `testing` | a container runtime's side of NRI, to drive a plugin in tests | no |
//!
//! The version of `k8s-openapi`'s Kubernetes API is left to whoever builds a binary: one of its features `v1_*` has to be enabled.
//!
//! # The other crates
//!
//! `vdbi-core` has the traits and the backends, `vdbi-webhook` writes the placeholders, and `vdbi-lifecycle` renews and revokes the
//! credentials.

pub mod cache;
mod deliver;
mod demand;
pub mod leaks;
pub mod metrics;
pub mod plugin;
pub mod pods;
mod prewarm;
mod proto;
pub mod stub;
mod substitute;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tripwire;
mod wire;

pub use plugin::NodePlugin;
pub use substitute::{Refusal, substitute};
