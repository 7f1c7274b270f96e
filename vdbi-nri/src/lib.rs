//! What the node plugin does to a container: placeholders in, credentials out.
//!
//! In this mode the webhook writes no credential into the pod, only a [placeholder](vdbi_core::placeholder) for each. The plugin, called by
//! containerd through NRI (the Node Resource Interface) right before a container is created, puts the credential in its place:
//! the Kubernetes API never sees it.
//!
//! [`substitute()`] decides, without I/O. Any doubt is a [`Refusal`], with which the container is not created: **no placeholder
//! ever reaches an application**.
//!
//! [`stub`] is the connection to containerd. It knows nothing of placeholders: any plugin that adjusts containers can be
//! written with it.

mod proto;
pub mod stub;
pub mod substitute;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wire;

pub use substitute::{Refusal, substitute};
