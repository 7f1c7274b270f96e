//! Who asks: a token that proves which pod's service account it is.

use std::future::Future;

use thiserror::Error;

use crate::{pod::PodRef, secret::Secret};

/// Obtains a token of a pod's service account, which Vault's Kubernetes auth method verifies.
///
/// `kubernetes::TokenRequestIdentity` (feature `kubernetes`) is one, by the API server's TokenRequest (`authentication.k8s.io/v1`).
///
/// ```
/// use vdbi_core::{identity::{IdentityError, PodIdentity}, pod::PodRef, secret::Secret};
///
/// /// Reads tokens that something else keeps in files, `<namespace>_<service account>`.
/// struct Files(std::path::PathBuf);
///
/// impl PodIdentity for Files {
///     async fn token(&self, pod: &PodRef) -> Result<Secret, IdentityError> {
///         let file = self.0.join(format!("{}_{}", pod.namespace, pod.service_account));
///         let unavailable = |error: std::io::Error| IdentityError::Unavailable(error.to_string());
///         Ok(Secret::new(std::fs::read_to_string(file).map_err(unavailable)?))
///     }
/// }
/// ```
///
/// # Guarantees
///
/// - The token is one of the service account that [`PodRef`] names, in that namespace, and of nobody else.
/// - It is fit for the configured audiences, and valid for at least the time that a login takes.
/// - No error text contains a token.
///
/// # Assumptions
///
/// - The future may be dropped and the token asked for again.
///
/// The suite `vdbi_core::testing::pod_identity` checks this contract over any implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot prove a pod's identity",
    note = "use `vdbi_core::kubernetes::TokenRequestIdentity`, or implement `vdbi_core::identity::PodIdentity`"
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
