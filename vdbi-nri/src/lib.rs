//! The node plugin: placeholders in, credentials out, and no secret in the Kubernetes API.
//!
//! In this mode the webhook writes no credential into the pod, only a [placeholder](vdbi_core::placeholder) for each. The plugin,
//! called by containerd through NRI (the Node Resource Interface) right before a container is created, puts the credential in its
//! place: the Kubernetes API never sees it.
//!
//! [`substitute()`] decides, without I/O. Any doubt is a [`Refusal`], with which the container is not created: **no placeholder
//! ever reaches an application**. [`demand`] reads from the pod what it needs, [`deliver`] fetches that once for each pod and
//! keeps it in the [`cache`], and [`plugin`] puts these together.
//!
//! [`stub`] is the connection to containerd. It knows nothing of placeholders: any plugin that adjusts containers can be
//! written with it.

pub mod cache;
pub mod deliver;
pub mod demand;
pub mod leaks;
pub mod metrics;
pub mod plugin;
pub mod pods;
mod prewarm;
mod proto;
pub mod stub;
pub mod substitute;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tripwire;
mod wire;

pub use plugin::NodePlugin;
pub use substitute::{Refusal, substitute};
