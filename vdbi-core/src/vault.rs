//! OpenBao and Vault as [`CredentialSource`](crate::credential::CredentialSource) and [`Ledger`](crate::ledger::Ledger).
//!
//! One [`VaultClient`] holds the connections; one [`Login`] is this component's own session over it, which
//! [`VaultSource`] and [`VaultLedger`] share. Everything is configured explicitly: no `VAULT_*` variable is read.
//!
//! | step | request | whose token |
//! |---|---|---|
//! | session | `POST auth/<path>/login`, `auth/token/renew-self` | ours |
//! | authorize, legacy, once in a while | `GET auth/<path>/role/<role>` | ours |
//! | a pod's token, legacy | `POST auth/token/create/<token role>` or `create-orphan` | ours |
//! | a pod's token, projected | `POST auth/<path>/login` with the pod's own JWT | none |
//! | issue | `GET <engine>/creds/<role>` | the pod's |
//! | beside it, projected, once in a while | `GET auth/token/lookup-self` | the pod's |
//! | renew | `auth/token/renew-accessor`, `sys/leases/renew`, both without an increment | ours |
//! | revoke | `sys/leases/revoke`, then `auth/token/revoke-accessor` | ours |
//! | ledger | `<mount>/data/<prefix>/<id>`, `<mount>/metadata/<prefix>` (KV version 2) | ours |
//!
//! A request whose token is dead is repeated once after a new login, since the server has not carried it out. Nothing
//! else is repeated here: whoever calls knows whether it is worth it, from [`SourceError::advice`].
//!
//! Source and ledger are made without a request, so that a component can be assembled while the server is away:
//!
//! ```
//! use vdbi_core::{
//!     metrics::Registry,
//!     vault::{Account, Authentication, Issuing, KvFolder, Login, Settings, VaultClient, VaultLedger, VaultSource},
//! };
//! # use vdbi_core::{identity::{IdentityError, PodIdentity}, pod::PodRef, secret::Secret};
//! # struct Nobody;
//! # impl PodIdentity for Nobody {
//! #     async fn token(&self, _: &PodRef) -> Result<Secret, IdentityError> {
//! #         Err(IdentityError::Denied("no".into()))
//! #     }
//! # }
//!
//! let client = VaultClient::new(&Settings::new("http://openbao.vault:8200"), &Registry::disabled())?;
//! let account = Account {
//!     auth_path: "kubernetes".into(),
//!     role: "injector".into(),
//!     token_file: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
//! };
//! let login = Login::new(client, account);
//! let token_role = Some("dbi-pod".to_owned());
//! let authentication: Authentication<Nobody> = Authentication::Legacy { token_role };
//! let source = VaultSource::new(login.clone(), "kubernetes", authentication, Issuing::default());
//! let folder = KvFolder { mount: "dbi".into(), prefix: "my-release".into() };
//! let ledger = VaultLedger::new(login, folder);
//! # drop((source, ledger));
//! # Ok::<(), vdbi_core::vault::SetupError>(())
//! ```
//!
//! The types for pods' identities are in [`identity`](crate::identity), and in `kubernetes` with the feature of that name.
//!
//! [`SourceError::advice`]: crate::credential::SourceError::advice

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

mod access;
mod authorize;
mod client;
mod database;
mod endpoint;
mod error;
mod kv;
mod ledger;
mod login;
pub mod metrics;
mod path;
mod roles;
mod source;
#[cfg(test)]
mod testing;
mod token;

pub use client::VaultClient;
pub use ledger::{KvFolder, VaultLedger};
pub use login::{Account, Login, LoginStatus};
pub use source::{Authentication, Issuing, VaultSource};

/// How to reach the server: made by [`Settings::new`], and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Its URL, `vaultAddress`; behind a gateway also with a path.
    pub address: String,
    /// The namespace that every request is made in, `vaultNamespace`; by default none.
    pub namespace: Option<String>,
    /// PEM certificates of the authorities to trust for the server, instead of the system's, `vaultCaCert`; by
    /// default the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take, `vaultRequestTimeout`; by default 10 s. Reading a credential has a limit of its own, 90 seconds,
    /// because giving up on it may leave a database user that nobody knows.
    pub request_timeout: Duration,
}

impl Settings {
    /// A server at this URL, `http` or `https`.
    pub fn new(address: impl Into<String>) -> Self {
        let (address, request_timeout) = (address.into(), Duration::from_secs(10));
        Self { address, namespace: None, ca_file: None, request_timeout }
    }
}

/// Why no client could be made: which configuration key to change.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The address is no URL that a server can be reached under.
    #[error("vaultAddress: {0}")]
    Address(String),
    /// The namespace cannot be sent.
    #[error("vaultNamespace: it contains a character that no HTTP header may contain")]
    Namespace,
    /// The authorities' file cannot be used.
    #[error("vaultCaCert: {}: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client cannot be set up, for instance because the system has no trusted authorities.
    #[error("cannot set up TLS for vaultAddress: {0}; without system certificates set vaultCaCert")]
    Tls(String),
}
