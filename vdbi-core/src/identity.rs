//! Who asks: a token that proves which pod's service account it is.

use std::future::Future;

use thiserror::Error;

use crate::{pod::PodRef, secret::Secret};

/// Obtains a token of a pod's service account, which Vault's Kubernetes auth method verifies.
///
/// # Guarantees
///
/// - The token is one of the service account that [`PodRef`] names, in that namespace, and of nobody else.
/// - It is fit for the configured audiences, and valid for at least the time that a login takes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot prove a pod's identity",
    note = "implement `vdbi_core::identity::PodIdentity`"
)]
pub trait PodIdentity: Send + Sync + 'static {
    /// A token of the pod's service account.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    fn token(&self, pod: &PodRef) -> impl Future<Output = Result<Secret, IdentityError>> + Send;
}

/// Why there is no token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The service account does not exist.
    #[error(
        "service account {namespace}/{name} does not exist: create it, or name another one in spec.serviceAccountName"
    )]
    UnknownServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// This component may not request tokens.
    #[error("{0}")]
    Denied(String),
    /// Worth another try.
    #[error("{0}")]
    Unavailable(String),
}
