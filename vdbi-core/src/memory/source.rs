//! A source of credentials in memory, and the database that accepts them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use uuid::Uuid;

use super::{
    Hold,
    control::{Control, lock},
};
use crate::{
    clock::{Clock, TokioClock},
    credential::{CredentialRequest, CredentialSource, Issued, Lease, Renewed, SourceError, TokenHandle},
    secret::Secret,
};

/// An operation of a [`MemorySource`], to aim faults at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceOperation {
    /// [`CredentialSource::authorize`].
    Authorize,
    /// [`CredentialSource::issue`].
    Issue,
    /// [`CredentialSource::renew`].
    Renew,
    /// [`CredentialSource::accessor`].
    Accessor,
    /// [`CredentialSource::revoke`].
    Revoke,
}

/// How long the credentials of a role live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The time to live of a new or renewed credential.
    pub ttl: Duration,
    /// The age beyond which no renewal takes a credential.
    pub max_ttl: Duration,
}

impl Default for Lifetimes {
    /// One hour, and a day.
    fn default() -> Self {
        Self { ttl: Duration::from_secs(3600), max_ttl: Duration::from_secs(24 * 3600) }
    }
}

/// A [`CredentialSource`] with roles, bindings and leases that expire, and the database where its credentials log in.
///
/// It serves every engine, and every role that [`allow`](Self::allow) named. A role is bound to service accounts as in
/// Vault's Kubernetes auth method; `"*"` stands for any namespace or any service account.
///
/// ```
/// # use vdbi_core::{credential::{CredentialRequest, CredentialSource}, memory::MemorySource, pod::PodRef};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let source = MemorySource::new();
/// source.allow("app", "shop", "*");
/// let pod = PodRef { namespace: "shop".into(), service_account: "web".into(), ..PodRef::default() };
/// let request = CredentialRequest {
///     pod,
///     database: "main".into(),
///     engine: "databases".into(),
///     role: "app".into(),
/// };
/// let issued = source.issue(&request).await.unwrap();
/// assert!(source.can_login(&issued.username, &issued.password));
/// source.revoke(&issued.lease).await.unwrap();
/// assert!(!source.can_login(&issued.username, &issued.password));
/// # }
/// ```
#[derive(Clone)]
pub struct MemorySource {
    vault: Arc<Mutex<Vault>>,
    control: Arc<Control<SourceOperation, SourceError>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Vault {
    lifetimes: Lifetimes,
    roles: BTreeMap<String, Role>,
    raw_tokens: bool,
    /// By lease id.
    credentials: BTreeMap<String, Credential>,
}

#[derive(Default)]
struct Role {
    /// Those of the source, unless the role has its own.
    lifetimes: Option<Lifetimes>,
    bindings: Vec<Binding>,
}

struct Binding {
    namespace: String,
    service_account: String,
}

struct Credential {
    username: String,
    password: Secret,
    accessor: String,
    token: Secret,
    lifetimes: Lifetimes,
    /// On the source's clock, as `expires_at`.
    issued_at: Duration,
    expires_at: Duration,
}

impl MemorySource {
    /// A source without roles, on tokio's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(TokioClock::new()))
    }

    /// A source without roles, whose leases expire by `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { vault: Arc::default(), control: Arc::default(), clock }
    }

    /// Lets a service account have credentials of a role, which exists from then on. `"*"` stands for any.
    pub fn allow(
        &self,
        role: impl Into<String>,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) {
        let binding = Binding { namespace: namespace.into(), service_account: service_account.into() };
        self.vault().roles.entry(role.into()).or_default().bindings.push(binding);
    }

    /// Removes a role. What was issued for it lives on, as in Vault.
    pub fn remove_role(&self, role: &str) {
        self.vault().roles.remove(role);
    }

    /// Sets how long credentials live, of those roles that have no lifetimes of their own. It does not touch what was issued
    /// before.
    pub fn set_lifetimes(&self, lifetimes: Lifetimes) {
        self.vault().lifetimes = lifetimes;
    }

    /// Sets how long the credentials of one role live; the role exists from then on. It does not touch what was issued
    /// before.
    pub fn set_role_lifetimes(&self, role: impl Into<String>, lifetimes: Lifetimes) {
        self.vault().roles.entry(role.into()).or_default().lifetimes = Some(lifetimes);
    }

    /// Whether [`Issued::token`] is filled, as where a ledger stores raw tokens for a way back to the Go product.
    pub fn set_raw_tokens(&self, raw_tokens: bool) {
        self.vault().raw_tokens = raw_tokens;
    }

    /// Whether the database opens a session for this user now.
    pub fn can_login(&self, username: &str, password: &Secret) -> bool {
        let now = self.clock.now();
        self.vault().credentials.values().any(|credential| {
            credential.lives_at(now)
                && credential.username == username
                && credential.password.expose() == password.expose()
        })
    }

    /// The ids of the leases that live now.
    pub fn leases(&self) -> Vec<String> {
        let now = self.clock.now();
        let mut vault = self.vault();
        vault.credentials.retain(|_, credential| credential.lives_at(now));
        vault.credentials.keys().cloned().collect()
    }

    /// How long a lease lives without a renewal; `None` when it is gone.
    pub fn remaining(&self, lease_id: &str) -> Option<Duration> {
        let now = self.clock.now();
        let vault = self.vault();
        let credential = vault.credentials.get(lease_id).filter(|credential| credential.lives_at(now))?;
        Some(credential.expires_at.saturating_sub(now))
    }

    /// Fails the next such call with `error`, before it has any effect. Several faults for one operation come in order.
    pub fn fail_next(&self, operation: SourceOperation, error: SourceError) {
        self.control.refuse_next(operation, error);
    }

    /// Carries the next such call out and then answers with `error`: what a lost connection looks like.
    pub fn lose_next_answer(&self, operation: SourceOperation, error: SourceError) {
        self.control.lose_next_answer(operation, error);
    }

    /// While not available, every call fails with [`SourceError::Unavailable`]. The database goes on, and so does the
    /// expiry of leases.
    pub fn set_available(&self, available: bool) {
        self.control.set_available(available);
    }

    /// How long every call takes, on tokio's clock.
    pub fn set_latency(&self, latency: Duration) {
        self.control.set_latency(latency);
    }

    /// Keeps such calls waiting, before they have any effect, until the [`Hold`] is dropped.
    pub fn hold(&self, operation: SourceOperation) -> Hold {
        self.control.hold(operation)
    }

    /// How many such calls there were, failed ones included.
    pub fn calls(&self, operation: SourceOperation) -> usize {
        self.control.calls(operation)
    }

    async fn enter(&self, operation: SourceOperation) -> Result<(), SourceError> {
        let unavailable = || SourceError::Unavailable("the source of credentials is not available".into());
        self.control.enter(operation, unavailable).await
    }

    fn vault(&self) -> MutexGuard<'_, Vault> {
        lock(&self.vault)
    }
}

impl CredentialSource for MemorySource {
    async fn authorize(&self, request: &CredentialRequest) -> Result<(), SourceError> {
        self.enter(SourceOperation::Authorize).await?;
        self.vault().lifetimes_for(request)?;
        self.control.answer(SourceOperation::Authorize, ())
    }

    async fn issue(&self, request: &CredentialRequest) -> Result<Issued, SourceError> {
        self.enter(SourceOperation::Issue).await?;
        let now = self.clock.now();
        let mut vault = self.vault();
        let lifetimes = vault.lifetimes_for(request)?;
        let ttl = lifetimes.ttl.min(lifetimes.max_ttl);
        let unique = Uuid::new_v4().simple().to_string();
        let CredentialRequest { engine, role, .. } = request;
        let lease_id = format!("{engine}/creds/{role}/{unique}");
        let credential = Credential {
            username: format!("v-{role}-{unique}"),
            password: Secret::new(Uuid::new_v4().simple().to_string()),
            accessor: Uuid::new_v4().simple().to_string(),
            token: Secret::new(format!("s.{}", Uuid::new_v4().simple())),
            lifetimes,
            issued_at: now,
            expires_at: now + ttl,
        };
        let issued = Issued {
            warnings: Vec::new(),
            username: credential.username.clone(),
            password: credential.password.clone(),
            lease: Lease { id: lease_id.clone(), token: TokenHandle::Accessor(credential.accessor.clone()) },
            token: vault.raw_tokens.then(|| credential.token.clone()),
            ttl,
        };
        vault.credentials.insert(lease_id, credential);
        self.control.answer(SourceOperation::Issue, issued)
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        self.enter(SourceOperation::Renew).await?;
        let now = self.clock.now();
        let mut vault = self.vault();
        let credential = vault
            .credentials
            .get_mut(&lease.id)
            .filter(|credential| credential.lives_at(now) && credential.has_token(&lease.token))
            .ok_or_else(|| SourceError::Gone(format!("lease {} or its token no longer exists", lease.id)))?;
        let Lifetimes { ttl, max_ttl } = credential.lifetimes;
        let latest = credential.issued_at + max_ttl;
        credential.expires_at = credential.expires_at.max((now + ttl).min(latest));
        let renewed = Renewed {
            ttl: credential.expires_at.saturating_sub(now),
            capped: credential.expires_at < now + ttl,
        };
        self.control.answer(SourceOperation::Renew, renewed)
    }

    async fn accessor(&self, token: &Secret) -> Result<Option<String>, SourceError> {
        self.enter(SourceOperation::Accessor).await?;
        let now = self.clock.now();
        let handle = TokenHandle::Raw(token.clone());
        let vault = self.vault();
        let mut living = vault.credentials.values().filter(|credential| credential.lives_at(now));
        let credential = living.find(|credential| credential.has_token(&handle));
        let accessor = credential.map(|credential| credential.accessor.clone());
        let accessor = accessor.ok_or_else(|| SourceError::Gone("the token no longer exists".into()))?;
        self.control.answer(SourceOperation::Accessor, Some(accessor))
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        self.enter(SourceOperation::Revoke).await?;
        let mut vault = self.vault();
        let with_lease = vault.credentials.remove(&lease.id);
        // A credential dies with its token too; to look for another one is only needed where the lease names a foreign token.
        if !with_lease.is_some_and(|credential| credential.has_token(&lease.token)) {
            vault.credentials.retain(|_, credential| !credential.has_token(&lease.token));
        }
        self.control.answer(SourceOperation::Revoke, ())
    }
}

impl Vault {
    fn lifetimes_for(&self, request: &CredentialRequest) -> Result<Lifetimes, SourceError> {
        let CredentialRequest { pod, role: name, .. } = request;
        let role =
            self.roles.get(name).ok_or_else(|| SourceError::Invalid(format!("there is no role {name}")))?;
        if !role.bindings.iter().any(|binding| binding.covers(&pod.namespace, &pod.service_account)) {
            return Err(SourceError::Denied(format!(
                "role {name} is not bound to service account {}/{}",
                pod.namespace, pod.service_account
            )));
        }
        Ok(role.lifetimes.unwrap_or(self.lifetimes))
    }
}

impl Binding {
    fn covers(&self, namespace: &str, service_account: &str) -> bool {
        let matches = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        matches(&self.namespace, namespace) && matches(&self.service_account, service_account)
    }
}

impl Credential {
    fn lives_at(&self, now: Duration) -> bool {
        self.expires_at > now
    }

    fn has_token(&self, handle: &TokenHandle) -> bool {
        match handle {
            TokenHandle::Accessor(accessor) => self.accessor == *accessor,
            TokenHandle::Raw(token) => self.token.expose() == token.expose(),
            TokenHandle::None => false,
        }
    }
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vault = self.vault();
        f.debug_struct("MemorySource")
            .field("roles", &vault.roles.keys())
            .field("leases", &vault.credentials.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::pod::PodRef;

    const MINUTE: Duration = Duration::from_secs(60);

    fn request(namespace: &str, role: &str) -> CredentialRequest {
        CredentialRequest {
            pod: PodRef { namespace: namespace.into(), service_account: "web".into(), ..PodRef::default() },
            database: "main".into(),
            engine: "databases".into(),
            role: role.into(),
        }
    }

    fn source() -> MemorySource {
        let source = MemorySource::new();
        source.allow("app", "shop", "web");
        source.set_lifetimes(Lifetimes { ttl: 10 * MINUTE, max_ttl: 15 * MINUTE });
        source
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_with_its_login() {
        let source = source();
        let issued = source.issue(&request("shop", "app")).await.unwrap();
        advance(10 * MINUTE - Duration::from_secs(1)).await;
        assert!(source.can_login(&issued.username, &issued.password));
        advance(Duration::from_secs(1)).await;
        assert!(!source.can_login(&issued.username, &issued.password));
        assert!(matches!(source.renew(&issued.lease).await, Err(SourceError::Gone(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_never_passes_max_ttl() {
        let source = source();
        let issued = source.issue(&request("shop", "app")).await.unwrap();
        advance(3 * MINUTE).await;
        assert_eq!(source.renew(&issued.lease).await.unwrap().ttl, 10 * MINUTE);
        advance(9 * MINUTE).await;
        assert_eq!(source.renew(&issued.lease).await.unwrap().ttl, 3 * MINUTE);
        assert_eq!(source.remaining(&issued.lease.id), Some(3 * MINUTE));
        advance(3 * MINUTE).await;
        assert!(source.leases().is_empty());
    }

    #[tokio::test]
    async fn bindings_decide_who_is_served() {
        let source = source();
        assert!(matches!(source.authorize(&request("other", "app")).await, Err(SourceError::Denied(_))));
        assert!(matches!(source.issue(&request("other", "app")).await, Err(SourceError::Denied(_))));
        assert!(matches!(source.authorize(&request("shop", "nope")).await, Err(SourceError::Invalid(_))));
        source.allow("app", "*", "*");
        source.authorize(&request("other", "app")).await.unwrap();
        assert!(source.leases().is_empty());
    }

    #[tokio::test]
    async fn the_token_alone_revokes_and_renews_with_its_lease() {
        let source = source();
        source.set_raw_tokens(true);
        let issued = source.issue(&request("shop", "app")).await.unwrap();
        let token = TokenHandle::Raw(issued.token.unwrap());
        source.renew(&Lease { id: issued.lease.id.clone(), token: token.clone() }).await.unwrap();
        source.revoke(&Lease { id: "unknown".into(), token }).await.unwrap();
        assert!(!source.can_login(&issued.username, &issued.password));
    }

    #[tokio::test]
    async fn faults_come_in_order_and_then_end() {
        let source = source();
        source.fail_next(SourceOperation::Issue, SourceError::Unavailable("sealed".into()));
        source.fail_next(SourceOperation::Issue, SourceError::Misconfigured("no policy".into()));
        let request = request("shop", "app");
        assert!(matches!(source.issue(&request).await, Err(SourceError::Unavailable(_))));
        assert!(matches!(source.issue(&request).await, Err(SourceError::Misconfigured(_))));
        source.set_available(false);
        assert!(matches!(source.issue(&request).await, Err(SourceError::Unavailable(_))));
        assert!(source.leases().is_empty());
        source.set_available(true);
        source.issue(&request).await.unwrap();
        assert_eq!(source.calls(SourceOperation::Issue), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_leaves_the_credential_behind() {
        let source = source();
        source.set_latency(MINUTE);
        source.lose_next_answer(SourceOperation::Issue, SourceError::Unavailable("reset".into()));
        let started = tokio::time::Instant::now();
        assert!(source.issue(&request("shop", "app")).await.is_err());
        assert_eq!(started.elapsed(), MINUTE);
        assert_eq!(source.leases().len(), 1);
    }

    #[tokio::test]
    async fn debug_shows_no_credential() {
        let source = source();
        let issued = source.issue(&request("shop", "app")).await.unwrap();
        assert!(!format!("{source:?} {issued:?}").contains(issued.password.expose()));
    }
}
