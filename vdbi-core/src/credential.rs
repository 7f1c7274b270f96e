//! Where credentials come from.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{pod::PodRef, secret::Secret};

/// What one pod asks for: one database of it.
///
/// It is written as a literal, on purpose: all of it is needed, and a constructor would take three texts that could be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRequest {
    /// The pod, with the service account that has to be authorized.
    pub pod: PodRef,
    /// The name that the pod's annotations give to this database.
    pub database: String,
    /// The mount of the database secrets engine.
    pub engine: String,
    /// Three things at once in Vault: the Kubernetes auth role, the policy, and the database role.
    pub role: String,
}

/// How a lease's token is addressed. Whoever keeps leases has to keep either kind, so that this list is complete: another kind is
/// a breaking change.
#[derive(Clone, Debug)]
pub enum TokenHandle {
    /// The accessor: it can renew and revoke the token, but not use it.
    Accessor(String),
    /// The token itself, as the Go product stores it; only in entries that were taken over from it.
    Raw(Secret),
    /// There is none: nothing but the credential itself can end. For sources without tokens.
    None,
}

/// What renews and revokes one credential. Both fields are the source's own: nobody else reads a meaning into them.
///
/// It is written as a literal, and taken apart without `..`, on purpose: a ledger that left out a field could not give it back.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The lease's id, for instance `databases/creds/app/Y1k..`.
    pub id: String,
    /// The token under which it was issued, and with which it dies.
    pub token: TokenHandle,
}

/// A credential that exists now. Whoever holds it has to record it in the [`Ledger`](crate::ledger::Ledger) and deliver it,
/// or revoke it.
///
/// ```
/// use std::time::Duration;
/// use vdbi_core::{credential::{Issued, Lease, TokenHandle}, secret::Secret};
///
/// let lease = Lease { id: "app/1".into(), token: TokenHandle::None };
/// let mut issued = Issued::new("app_1", Secret::new("hunter2"), lease, Duration::from_secs(3600));
/// issued.warnings.push("the database is about to be moved".into());
/// assert!(!format!("{issued:?}").contains("hunter2"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Issued {
    /// The database user's name.
    pub username: String,
    /// The database user's password.
    pub password: Secret,
    /// What renews and revokes it.
    pub lease: Lease,
    /// The raw token, where the ledger has to store it for a way back to the Go product; `None` otherwise, as from
    /// [`Issued::new`].
    pub token: Option<Secret>,
    /// How long the credential lives without a renewal: the shorter of lease and token.
    pub ttl: Duration,
    /// What whoever looks after the pod should know, each fit for one line of kubectl (120 characters). None from
    /// [`Issued::new`].
    pub warnings: Vec<String>,
}

impl Issued {
    /// A credential that lives for `ttl` without a renewal.
    pub fn new(username: impl Into<String>, password: Secret, lease: Lease, ttl: Duration) -> Self {
        Self { username: username.into(), password, lease, token: None, ttl, warnings: Vec::new() }
    }
}

/// The outcome of a renewal.
///
/// It is written as a literal, on purpose: a source has to say both, or pods lose their credentials without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// How long what was renewed lives from now on.
    pub ttl: Duration,
    /// Whether that is less than a renewal usually gives, since a maximum is in sight (Vault's `max_ttl`): no later renewal will
    /// take it further, unless somebody raises the maximum.
    pub capped: bool,
}

/// Issues, renews and revokes the credentials of pods.
///
/// # Flow
///
/// [`authorize`](Self::authorize) every database of a pod, then [`issue`](Self::issue) each; record the result in the ledger;
/// hand it to the pod; [`renew`](Self::renew) it before its time to live is over, and its token
/// ([`renew_token`](Self::renew_token)) before that one's is; [`revoke`](Self::revoke) it when the pod is done.
///
/// # Guarantees
///
/// - `authorize` creates nothing, so that it may be called and abandoned at will.
/// - When `issue` fails, nothing of its attempt remains, or what remains dies by itself within one token period.
/// - `renew` and `renew_token` never shorten a life and never revive what was revoked.
/// - `revoke` is idempotent: revoking what is gone succeeds. After it returned `Ok` the credential no longer opens a new
///   session. Its two parts, [`cut_off`](Self::cut_off) and [`clear`](Self::clear), are idempotent too, and both together are as good.
/// - No error text contains a secret.
///
/// # Assumptions
///
/// - The future of `issue` is driven to its end: dropped half-way it may leave a credential that nobody knows. Run it in an
///   owned task and revoke a result that came too late.
/// - `renew`, `renew_token`, `revoke`, its parts and `authorize` may be dropped and called again.
///
/// The suite `vdbi_core::testing::credential_source` checks this contract over any implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of credentials",
    note = "implement `vdbi_core::credential::CredentialSource`: authorize, issue, renew and revoke"
)]
pub trait CredentialSource: Send + Sync + 'static {
    /// Whether this pod may have this credential.
    ///
    /// # Errors
    ///
    /// [`SourceError::Denied`] names the binding that is missing.
    fn authorize(&self, request: &CredentialRequest) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Creates the credential.
    ///
    /// # Errors
    ///
    /// Any; nothing usable remains then.
    fn issue(&self, request: &CredentialRequest) -> impl Future<Output = Result<Issued, SourceError>> + Send;

    /// Prolongs the credential.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] when there is nothing left to renew: the pod has lost its credential.
    fn renew(&self, lease: &Lease) -> impl Future<Output = Result<Renewed, SourceError>> + Send;

    /// Prolongs the token under which the credential was issued, and with which it dies. `None` where nothing but the
    /// credential itself can end, which is the default.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] when the token no longer exists: the pod has lost its credential.
    fn renew_token(
        &self,
        lease: &Lease,
    ) -> impl Future<Output = Result<Option<Renewed>, SourceError>> + Send {
        let _ = lease;
        std::future::ready(Ok(None))
    }

    /// The accessor of a token that an entry of the Go product holds itself, so that it need not be held any longer. `None`, which is
    /// the default, where tokens have none.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] when the token no longer exists.
    fn accessor(&self, token: &Secret) -> impl Future<Output = Result<Option<String>, SourceError>> + Send {
        let _ = token;
        std::future::ready(Ok(None))
    }

    /// Ends the credential and its token.
    ///
    /// # Errors
    ///
    /// Any but [`SourceError::Gone`], which counts as success; the credential may still work then, so call again.
    fn revoke(&self, lease: &Lease) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// The part of [`revoke`](Self::revoke) that cannot wait: after it returned `Ok` the credential opens no new session.
    /// [`clear`](Self::clear) has to follow. Of many credentials all are cut off before the first is cleared. By default all of `revoke`.
    ///
    /// # Errors
    ///
    /// As those of `revoke`.
    fn cut_off(&self, lease: &Lease) -> impl Future<Output = Result<(), SourceError>> + Send {
        self.revoke(lease)
    }

    /// Ends what is left of a credential that is cut off: its token. By default nothing is.
    ///
    /// # Errors
    ///
    /// As those of `revoke`; what is left may still be there then, so call again.
    fn clear(&self, lease: &Lease) -> impl Future<Output = Result<(), SourceError>> + Send {
        let _ = lease;
        std::future::ready(Ok(()))
    }
}

/// So that several components of one process share a source.
impl<S: CredentialSource> CredentialSource for Arc<S> {
    fn authorize(&self, request: &CredentialRequest) -> impl Future<Output = Result<(), SourceError>> + Send {
        S::authorize(self, request)
    }

    fn issue(&self, request: &CredentialRequest) -> impl Future<Output = Result<Issued, SourceError>> + Send {
        S::issue(self, request)
    }

    fn renew(&self, lease: &Lease) -> impl Future<Output = Result<Renewed, SourceError>> + Send {
        S::renew(self, lease)
    }

    fn renew_token(
        &self,
        lease: &Lease,
    ) -> impl Future<Output = Result<Option<Renewed>, SourceError>> + Send {
        S::renew_token(self, lease)
    }

    fn accessor(&self, token: &Secret) -> impl Future<Output = Result<Option<String>, SourceError>> + Send {
        S::accessor(self, token)
    }

    fn revoke(&self, lease: &Lease) -> impl Future<Output = Result<(), SourceError>> + Send {
        S::revoke(self, lease)
    }

    fn cut_off(&self, lease: &Lease) -> impl Future<Output = Result<(), SourceError>> + Send {
        S::cut_off(self, lease)
    }

    fn clear(&self, lease: &Lease) -> impl Future<Output = Result<(), SourceError>> + Send {
        S::clear(self, lease)
    }
}

/// What to do about a failure. Whoever asks decides without a wildcard arm, so that this list is complete: another advice is a
/// breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The same call may succeed later.
    Retry,
    /// It will not succeed until somebody changes something.
    GiveUp,
    /// The answer to the pod is no.
    Deny,
}

/// Why a [`CredentialSource`] did not do what it was asked. Messages say what is missing and what to do, and never contain a
/// secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The pod's service account may not have this credential.
    #[error("{0}")]
    Denied(String),
    /// The request can never be served as it stands: an unknown role, an unknown engine.
    #[error("{0}")]
    Invalid(String),
    /// The lease or its token no longer exists.
    #[error("{0}")]
    Gone(String),
    /// This component's own set-up lacks something: its policy, its auth role.
    #[error("{0}")]
    Misconfigured(String),
    /// Sealed, overloaded, unreachable, a database that is down: worth another try.
    #[error("{0}")]
    Unavailable(String),
}

impl SourceError {
    /// Whether to retry, give up or deny.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Denied(_) => Advice::Deny,
            Self::Invalid(_) | Self::Gone(_) | Self::Misconfigured(_) => Advice::GiveUp,
            Self::Unavailable(_) => Advice::Retry,
        }
    }

    /// The error's kind as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Invalid(_) => "invalid",
            Self::Gone(_) => "gone",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl fmt::Display for CredentialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {} (role {} of {}) for pod {}", self.database, self.role, self.engine, self.pod)
    }
}
