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
//! | `plugin` | vdbi's own plugin: everything but `stub`, with Kubernetes' client | yes |
//! | `testing` | a container runtime's side of NRI, to drive a plugin in tests | no |
//!
//! Without `plugin` it is the connection to containerd alone, and nothing of Kubernetes is compiled. With it the version of
//! `k8s-openapi`'s Kubernetes API is left to whoever builds a binary: one of its features `v1_*` has to be enabled.
//!
//! # The other crates
//!
//! `vdbi-core` has the traits and the backends, `vdbi-webhook` writes the placeholders, and `vdbi-lifecycle` renews and revokes the
//! credentials.

#[cfg(feature = "plugin")]
pub mod cache;
#[cfg(feature = "plugin")]
mod deliver;
#[cfg(feature = "plugin")]
mod demand;
#[cfg(feature = "plugin")]
pub mod leaks;
#[cfg(feature = "plugin")]
pub mod metrics;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(feature = "plugin")]
pub mod pods;
#[cfg(feature = "plugin")]
mod prewarm;
mod proto;
pub mod stub;
#[cfg(feature = "plugin")]
mod substitute;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "plugin")]
mod tripwire;
mod wire;

#[cfg(feature = "plugin")]
pub use plugin::NodePlugin;
#[cfg(feature = "plugin")]
pub use substitute::{Refusal, substitute};
