//! Credentials from a database secrets engine.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use moka::future::Cache;
use tokio::time::sleep;
use tracing::warn;

use super::{
    access::Access,
    client::Auth,
    database,
    endpoint::RevokeSelf,
    login::Login,
    path::{Configured, InvalidPath, Path},
    roles::{MOST_ROLES, Roles},
    token,
};
use crate::{
    credential::{CredentialRequest, CredentialSource, Issued, Lease, Renewed, SourceError, TokenHandle},
    identity::{IdentityError, PodIdentity},
    pod::PodRef,
    secret::Secret,
};

#[cfg(test)]
mod tests;

/// The pauses before each attempt to revoke the token of a credential that could not be issued.
const DISCARD_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)];

/// Whose authority a credential is issued by.
#[derive(Clone, Debug)]
pub enum Authentication<I> {
    /// This component compares the pod with its auth role and creates the pod's token itself.
    Legacy {
        /// The token role that bounds what may be created, `tokenRole`; its `token_period` is the token's. Without one this
        /// component needs sudo on `auth/token/create-orphan`, and may then create tokens with any policy but root.
        token_role: Option<String>,
    },
    /// This component logs in as the pod, with a token of the pod's service account, and Vault compares.
    Projected(I),
}

/// OpenBao or Vault as a source of credentials.
///
/// Each credential has a token of its own, which carries the pod's policy: its lease dies with it, and it is revoked when
/// the credential cannot be issued. A role name is three things at once: the auth role, the policy, and the database role.
///
/// With [`Authentication::Projected`] there is nothing to ask before the login, so that
/// [`authorize`](CredentialSource::authorize) only looks at the names; Vault denies in
/// [`issue`](CredentialSource::issue).
///
/// A component whose policy lacks `sys/leases/revoke` (webhook and node plugin, by least privilege) revokes the token alone.
/// Vault then ends the lease by itself: milliseconds later, or when its database can be reached again.
pub struct VaultSource<I> {
    access: Access,
    auth_path: Configured,
    token_role: Option<Configured>,
    identity: Option<I>,
    token_period: Duration,
    store_raw_token: bool,
    lease_revocation_reported: AtomicBool,
    roles: Roles,
    /// Whether the tokens of an auth role are periodic, as a login lately showed; projected mode.
    periodic: Cache<String, bool>,
}

/// How credentials are issued, beside their authentication: made by `Issuing::default()`, and changed field by field.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Issuing {
    /// How long a token lives that nobody renews, where no token role says so: `tokenTTL`; by default 768 hours.
    pub token_period: Duration,
    /// Whether the raw token is handed out for the ledger: `ledger.storeRawToken`; by default not.
    pub store_raw_token: bool,
    /// How long an auth role is taken for unchanged: `roleCacheTTL`; by default 30 s. Zero reads it each time.
    pub role_cache_ttl: Duration,
}

impl Default for Issuing {
    fn default() -> Self {
        let (token_period, role_cache_ttl) = (Duration::from_secs(768 * 3600), Duration::from_secs(30));
        Self { token_period, store_raw_token: false, role_cache_ttl }
    }
}

impl<I: PodIdentity> VaultSource<I> {
    /// A source over the session's server, whose pods authenticate at the Kubernetes auth method at `auth_path`. Nothing is sent yet; an
    /// auth path or a token role that cannot be one is an error of each issue.
    pub fn new(login: Login, auth_path: &str, authentication: Authentication<I>, issuing: Issuing) -> Self {
        let Issuing { token_period, store_raw_token, role_cache_ttl } = issuing;
        let (token_role, identity) = match authentication {
            Authentication::Legacy { token_role } => (token_role, None),
            Authentication::Projected(identity) => (None, Some(identity)),
        };
        Self {
            access: login.into(),
            auth_path: Configured::mount("vaultAuthPath", auth_path),
            token_role: token_role.map(|role| Configured::name("tokenRole", &role)),
            identity,
            token_period,
            store_raw_token,
            lease_revocation_reported: AtomicBool::new(false),
            roles: Roles::new(role_cache_ttl),
            periodic: Cache::builder().max_capacity(MOST_ROLES).time_to_live(role_cache_ttl).build(),
        }
    }

    /// The token under which the credential is going to live.
    async fn token(&self, request: &CredentialRequest, role: &Path) -> Result<Auth, SourceError> {
        let Some(identity) = &self.identity else {
            let token_role = self.token_role.as_ref().map(Configured::get).transpose()?;
            return token::create(&self.access, token_role, role, &request.pod, self.token_period).await;
        };
        let jwt = identity.token(&request.pod).await.map_err(|error| {
            self.access.client.metrics().no_token(&error);
            match error {
                IdentityError::UnknownServiceAccount { .. } => SourceError::Invalid(error.to_string()),
                IdentityError::Denied(text) => SourceError::Misconfigured(text),
                IdentityError::Unavailable(text) => SourceError::Unavailable(text),
            }
        })?;
        token::log_in_as(&self.access.client, self.auth_path.get()?, role, &jwt).await.map_err(|error| {
            match error {
                SourceError::Denied(text) => {
                    let PodRef { namespace, service_account, .. } = &request.pod;
                    SourceError::Denied(format!("service account {namespace}/{service_account}: {text}"))
                }
                error => error,
            }
        })
    }

    /// Whether a credential under this token can be renewed and revoked, and outlives this component's own token.
    fn check(&self, token: &Auth) -> Result<(), SourceError> {
        let misconfigured = |text: &str| Err(SourceError::Misconfigured(text.to_owned()));
        if token.accessor.is_empty() {
            return misconfigured(
                "the pod's token has no accessor: its auth role or token role must issue service tokens \
                 (token_type=service)",
            );
        }
        if self.identity.is_none() && !token.orphan {
            return misconfigured(
                "the pod's token would end with this component's own: set orphan=true in the token role",
            );
        }
        Ok(())
    }

    async fn complete(&self, token: &Auth, engine: &Path, role: &Path) -> Result<Issued, SourceError> {
        self.check(token)?;
        let (user, periodic) = tokio::join!(
            database::create_user(&self.access.client, &token.client_token, engine, role),
            self.is_periodic(token, role),
        );
        let user = user?;
        let warnings = if periodic { Vec::new() } else { vec![no_period(role)] };
        Ok(Issued {
            warnings,
            username: user.name,
            password: user.password,
            lease: Lease { id: user.lease_id, token: TokenHandle::Accessor(token.accessor.clone()) },
            token: self.store_raw_token.then(|| token.client_token.clone()),
            ttl: shorter(user.ttl, Duration::from_secs(token.lease_duration)),
        })
    }

    /// Whether the credential can live for as long as its pod. In legacy mode this component chose so; in projected mode the
    /// auth role says so, which is looked up once in a while, beside the request for the credential.
    async fn is_periodic(&self, token: &Auth, role: &Path) -> bool {
        if self.identity.is_none() {
            return true;
        }
        if let Some(known) = self.periodic.get(role.as_str()).await {
            return known;
        }
        let Some(periodic) = token::is_periodic(&self.access.client, &token.client_token).await else {
            return true;
        };
        self.periodic.insert(role.as_str().to_owned(), periodic).await;
        if !periodic {
            self.access.client.metrics().misconfigured_role(role.as_str());
        }
        periodic
    }

    /// Ends the token of a credential that could not be issued, and whatever was created under it meanwhile.
    async fn discard(&self, token: Auth, request: &CredentialRequest) {
        let accessor = TokenHandle::Accessor(token.accessor);
        for pause in DISCARD_PAUSES {
            sleep(pause).await;
            match token::revoke(&self.access, &accessor).await {
                Ok(()) => return,
                Err(SourceError::Unavailable(_)) => {}
                Err(_) => break,
            }
        }
        // Its own right suffices where this component has none over tokens.
        if self.access.client.call(&RevokeSelf {}, Some(&token.client_token)).await.is_err() {
            warn!(
                namespace = request.pod.namespace,
                role = request.role,
                "a token for pod {} could not be revoked after a failure; it ends by itself within its period",
                request.pod
            );
        }
    }

    /// Ends the lease. `false` where this component has no right to.
    async fn end_lease(&self, lease: &Lease) -> Result<bool, SourceError> {
        match database::revoke(&self.access, &lease.id).await {
            Ok(()) => Ok(true),
            Err(error @ SourceError::Misconfigured(_)) => {
                self.report_lease_revocation(&error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The token's revocation ends the lease too, only later.
    fn report_lease_revocation(&self, error: &SourceError) {
        if !self.lease_revocation_reported.swap(true, Ordering::Relaxed) {
            warn!(%error, "leases are revoked through their tokens, not synchronously: {error}");
        }
    }
}

impl<I: PodIdentity> CredentialSource for VaultSource<I> {
    async fn authorize(&self, request: &CredentialRequest) -> Result<(), SourceError> {
        let (_, role) = names(request)?;
        if self.identity.is_some() {
            return Ok(());
        }
        let mount = self.auth_path.get()?;
        self.roles.authorize(&self.access, mount, &role, request).await
    }

    async fn issue(&self, request: &CredentialRequest) -> Result<Issued, SourceError> {
        let (engine, role) = names(request)?;
        let token = self.token(request, &role).await?;
        match self.complete(&token, &engine, &role).await {
            Ok(issued) => Ok(issued),
            Err(error) => {
                self.discard(token, request).await;
                Err(error)
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        database::renew(&self.access, &lease.id).await
    }

    async fn renew_token(&self, lease: &Lease) -> Result<Option<Renewed>, SourceError> {
        token::renew(&self.access, &lease.token).await
    }

    async fn accessor(&self, token: &Secret) -> Result<Option<String>, SourceError> {
        token::accessor(&self.access.client, token).await
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        self.end_lease(lease).await?;
        self.clear(lease).await
    }

    async fn cut_off(&self, lease: &Lease) -> Result<(), SourceError> {
        if self.end_lease(lease).await? { Ok(()) } else { self.clear(lease).await }
    }

    async fn clear(&self, lease: &Lease) -> Result<(), SourceError> {
        token::revoke(&self.access, &lease.token).await
    }
}

impl<I> fmt::Debug for VaultSource<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultSource")
            .field("access", &self.access)
            .field("auth_path", &self.auth_path)
            .field("token_role", &self.token_role)
            .field("projected", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

/// The engine and the role of a request, fit for a path.
fn names(request: &CredentialRequest) -> Result<(Path, Path), SourceError> {
    let invalid = |what: &str, text: &str, reason: InvalidPath| {
        SourceError::Invalid(format!(
            "the {what} {text:?} of database {} cannot be used: {reason}",
            request.database
        ))
    };
    let engine = Path::mount(&request.engine).map_err(|reason| invalid("engine", &request.engine, reason))?;
    let role = Path::name(&request.role).map_err(|reason| invalid("role", &request.role, reason))?;
    Ok((engine, role))
}

fn no_period(role: &Path) -> String {
    format!(
        "auth role {role} has no token_period: the credential ends with the token's maximum, not with the pod"
    )
}

/// What is left of a credential: its lease ends with its token. A token without an end has zero.
fn shorter(lease: Duration, token: Duration) -> Duration {
    if token.is_zero() { lease } else { lease.min(token) }
}
