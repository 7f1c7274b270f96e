//! This component's own session.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    client::{Auth, VaultClient},
    endpoint::{KubernetesLogin, RevokeSelf},
    error::{Operation, again},
    metrics::AuthMode,
    path::Configured,
};
use crate::{credential::SourceError, secret::Secret};

mod keeper;
#[cfg(test)]
mod tests;

/// How long after a failed login the next one is not tried: whoever waited for it, or comes in the meantime, gets the same
/// error, so that a sick Vault is not asked by everybody in turn.
const COOLDOWN: Duration = Duration::from_secs(1);

/// How long a standby may not know a new token yet. A token that is refused within this time is not replaced.
pub(super) const SETTLING: Duration = Duration::from_secs(2);

/// The pause before a refused new token is tried again.
pub(super) const SETTLING_PAUSE: Duration = Duration::from_millis(250);

/// How long [`Login::end`] waits for the server.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A component's session: a token of its own, by a login with its service account. Clones share it.
///
/// Whoever needs the token logs in if necessary, one at a time; [`Login::keep_alive`] beside it keeps the session from ending.
#[derive(Clone)]
pub struct Login(Arc<Inner>);

struct Inner {
    client: VaultClient,
    auth_path: Configured,
    role: String,
    token_file: PathBuf,
    session: Mutex<Option<Session>>,
    /// Held during a login: one at a time. The last failure, if it was one.
    attempt: tokio::sync::Mutex<Option<(Instant, SourceError)>>,
    status: watch::Sender<LoginStatus>,
}

/// As what a component logs in.
///
/// It is written as a literal, on purpose: a constructor would take texts that could be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Where the Kubernetes auth method is mounted: `vaultAuthPath`.
    pub auth_path: String,
    /// The auth role: `kubeRole`.
    pub role: String,
    /// The file with the service account's token: `serviceAccountTokenFile`. It is read at each login, since the kubelet replaces
    /// its content.
    pub token_file: PathBuf,
}

/// Whether this component has a session.
///
/// It is latched: a request or a renewal that fails changes nothing. Only when our own token has expired, or the server says
/// that it is gone, and no new login has succeeded, is the component logged out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginStatus {
    /// There is no valid token.
    LoggedOut {
        /// Why, for whoever looks after this component.
        reason: String,
    },
    /// There is one.
    LoggedIn {
        /// How long it was valid when it was issued; zero when it never expires.
        ttl: Duration,
    },
}

/// One token of ours.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) token: Secret,
    pub(super) since: Instant,
    /// How long it was granted at the login; `None` for ever.
    granted: Option<Duration>,
    expires: Option<Instant>,
    /// When to renew or replace it.
    due: Option<Instant>,
    renewable: bool,
}

impl Login {
    /// A session at the client's server. Nothing is sent yet; an auth path that cannot be one is an error of each login.
    pub fn new(client: VaultClient, account: Account) -> Self {
        let Account { auth_path, role, token_file } = account;
        let reason = "has not logged in to Vault yet".to_owned();
        Self(Arc::new(Inner {
            client,
            auth_path: Configured::mount("vaultAuthPath", &auth_path),
            role,
            token_file,
            session: Mutex::new(None),
            attempt: tokio::sync::Mutex::new(None),
            status: watch::Sender::new(LoginStatus::LoggedOut { reason }),
        }))
    }

    /// The connections that the session is held over.
    pub(super) fn client(&self) -> &VaultClient {
        &self.0.client
    }

    /// The token of the session; logs in if there is none.
    ///
    /// # Errors
    ///
    /// The login's.
    pub async fn token(&self) -> Result<Secret, SourceError> {
        self.session().await.map(|session| session.token)
    }

    /// Logs in, and keeps the session until `shutdown`: renews the token after two thirds of its life, and replaces it when it
    /// is gone or has reached its maximum. Failures are retried for ever, after 1 to 30 seconds, and logged once per change.
    pub async fn keep_alive(&self, shutdown: CancellationToken) {
        let keeping = keeper::Keeper::new(self.clone()).run();
        if shutdown.run_until_cancelled(keeping).await.is_none() {
            debug!("no longer renewing the session at Vault");
        }
    }

    /// Whether there is a session, as it changes.
    pub fn status(&self) -> watch::Receiver<LoginStatus> {
        self.0.status.subscribe()
    }

    /// Revokes the token at a shutdown, within seconds. It expires by itself where the policy does not allow that.
    pub async fn end(&self) {
        let Some(session) = self.lock().take() else { return };
        self.set_status(LoginStatus::LoggedOut { reason: "the session was ended".into() });
        self.dispose(&session).await;
    }

    /// The session; logs in if there is none.
    pub(super) async fn session(&self) -> Result<Session, SourceError> {
        match self.live() {
            Some(session) => Ok(session),
            None => self.log_in(None).await,
        }
    }

    /// The session, unless it has expired.
    fn live(&self) -> Option<Session> {
        let now = Instant::now();
        self.lock().clone().filter(|session| session.expires.is_none_or(|expires| now < expires))
    }

    /// A new session. `instead_of` is one that may still be valid, and stays in use until there is the new one.
    async fn log_in(&self, instead_of: Option<&Session>) -> Result<Session, SourceError> {
        let mut last_failure = self.0.attempt.lock().await;
        if let Some(session) = self.live().filter(|session| instead_of.is_none_or(|old| !session.is(old))) {
            return Ok(session);
        }
        if let Some((at, error)) = &*last_failure
            && at.elapsed() < COOLDOWN
        {
            return Err(again(error));
        }
        match self.attempt().await {
            Ok(session) => {
                *last_failure = None;
                *self.lock() = Some(session.clone());
                self.set_status(session.status());
                Ok(session)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), again(&error)));
                self.note_failure(&error);
                Err(error)
            }
        }
    }

    async fn attempt(&self) -> Result<Session, SourceError> {
        let mount = self.0.auth_path.get()?;
        let jwt = self.read_token_file().await?;
        let began = Instant::now();
        let endpoint = KubernetesLogin { mount, role: &self.0.role, jwt: jwt.expose() };
        let operation = Operation::Login { auth_path: mount.as_str(), role: &self.0.role };
        let metrics = self.0.client.metrics();
        let reply = match self.0.client.call(&endpoint, None).await {
            Ok(reply) => reply,
            Err(failure) => {
                metrics.connect_error.increment(1);
                metrics.login_failed(&failure, AuthMode::Legacy);
                return Err(failure.meaning(operation));
            }
        };
        metrics.connected.increment(1);
        let auth = reply
            .auth
            .ok_or_else(|| SourceError::Unavailable("Vault answered a login without a token".into()))?;
        Ok(Session::new(auth, began))
    }

    async fn read_token_file(&self) -> Result<Secret, SourceError> {
        let path = self.0.token_file.display();
        let wrong =
            |reason: &str| SourceError::Misconfigured(format!("service account token {path}: {reason}"));
        let text =
            tokio::fs::read_to_string(&self.0.token_file).await.map_err(|error| wrong(&error.to_string()))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("the file is empty"));
        }
        if text.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(wrong("the file holds something other than one token"));
        }
        Ok(Secret::new(text))
    }

    /// The server says that this session's token is gone.
    pub(super) fn invalidate(&self, session: &Session) {
        self.lock().take_if(|current| current.is(session));
    }

    /// Latched: a failure counts only when no token is left.
    fn note_failure(&self, error: &SourceError) {
        if self.live().is_none() {
            self.set_status(LoginStatus::LoggedOut { reason: error.to_string() });
        }
    }

    /// Wakes watchers only for a change: the keeper is one of them.
    fn set_status(&self, status: LoginStatus) {
        self.0.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    async fn dispose(&self, session: &Session) {
        let revocation = async {
            let failure = self.0.client.call(&RevokeSelf {}, Some(&session.token)).await.err()?;
            Some(failure.meaning(Operation::EndSession).to_string())
        };
        match timeout(END_TIMEOUT, revocation).await {
            Ok(None) => debug!("revoked this component's own token"),
            Ok(Some(reason)) => debug!(reason, "this component's own token expires by itself: {reason}"),
            Err(_) => debug!("this component's own token expires by itself: no answer from Vault"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        // Nothing can panic while it is held.
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("role", &self.0.role)
            .field("token_file", &self.0.token_file)
            .field("status", &*self.0.status.borrow())
            .finish_non_exhaustive()
    }
}

impl Session {
    fn new(auth: Auth, since: Instant) -> Self {
        let granted = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
        Self {
            token: auth.client_token,
            since,
            granted,
            expires: granted.map(|ttl| since + ttl),
            due: granted.map(|ttl| since + ttl * 2 / 3),
            renewable: auth.renewable,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.since == other.since && self.token.expose() == other.token.expose()
    }

    fn status(&self) -> LoginStatus {
        LoginStatus::LoggedIn { ttl: self.granted.unwrap_or_default() }
    }
}
