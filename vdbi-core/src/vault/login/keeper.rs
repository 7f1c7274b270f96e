//! Keeps a session alive.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{Login, Session};
use crate::{
    credential::SourceError,
    vault::{endpoint::RenewSelf, error::Operation},
};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How far in the future a session without an end is looked at again.
const RARELY: Duration = Duration::from_secs(3600);

pub(super) struct Keeper {
    login: Login,
    backoff: Duration,
    /// The failure that was logged last, until something succeeded.
    reported: Option<String>,
    /// Why the token cannot be renewed, as logged last.
    unrenewable: Option<String>,
}

impl Keeper {
    pub(super) fn new(login: Login) -> Self {
        Self { login, backoff: FIRST_BACKOFF, reported: None, unrenewable: None }
    }

    pub(super) async fn run(mut self) {
        loop {
            let wake = self.step().await;
            let mut status = self.login.status();
            tokio::select! {
                () = sleep_until(wake) => {}
                // Somebody else logged in, or found the token gone.
                _ = status.changed() => {}
            }
        }
    }

    /// Does what is due now, and says when to look again.
    pub(super) async fn step(&mut self) -> Instant {
        match self.tend().await {
            Ok(due) => {
                if self.reported.take().is_some() {
                    info!("the session at Vault is in order again");
                }
                self.backoff = FIRST_BACKOFF;
                due.unwrap_or_else(|| Instant::now() + RARELY)
            }
            Err(error) => {
                self.login.note_failure(&error);
                self.report(&error);
                let again = Instant::now() + self.pause();
                // The end of the token is noticed when it comes.
                let expires = self.login.live().and_then(|session| session.expires);
                expires.map_or(again, |expires| expires.min(again))
            }
        }
    }

    /// Does what is due. Says when the next thing is.
    async fn tend(&mut self) -> Result<Option<Instant>, SourceError> {
        let Some(session) = self.login.live() else {
            return self.login.log_in(None).await.map(|session| session.due);
        };
        if session.due.is_none_or(|due| Instant::now() < due) {
            return Ok(session.due);
        }
        if session.renewable {
            match self.renew(&session).await {
                Ok(Some(due)) => return Ok(Some(due)),
                // Its maximum is near: replace it while it is valid.
                Ok(None) | Err(SourceError::Gone(_)) => {}
                Err(error @ SourceError::Unavailable(_)) => return Err(error),
                Err(error) => self.report_unrenewable(&error),
            }
        }
        let next = self.login.log_in(Some(&session)).await?;
        self.login.dispose(&session).await;
        Ok(next.due)
    }

    /// Prolongs the token. `None` when that no longer gives it the life that it had at first.
    async fn renew(&mut self, session: &Session) -> Result<Option<Instant>, SourceError> {
        let began = Instant::now();
        let outcome = self.login.0.client.call(&RenewSelf {}, Some(&session.token)).await;
        let reply = outcome.map_err(|failure| failure.meaning(Operation::RenewSession))?;
        let ttl = Duration::from_secs(reply.auth.map_or(0, |auth| auth.lease_duration));
        if session.granted.is_some_and(|granted| ttl < granted / 2) {
            return Ok(None);
        }
        self.unrenewable = None;
        let due = began + ttl * 2 / 3;
        let mut current = self.login.lock();
        if let Some(current) = current.as_mut().filter(|current| current.is(session)) {
            current.expires = Some(began + ttl);
            current.due = Some(due);
        }
        Ok(Some(due))
    }

    fn report(&mut self, error: &SourceError) {
        let text = error.to_string();
        if self.reported.as_ref() != Some(&text) {
            warn!(error = text, "cannot keep the session at Vault, trying again: {text}");
            self.reported = Some(text);
        }
    }

    fn report_unrenewable(&mut self, error: &SourceError) {
        let text = error.to_string();
        if self.unrenewable.as_ref() != Some(&text) {
            warn!(error = text, "logging in again instead of renewing the session at Vault: {text}");
            self.unrenewable = Some(text);
        }
    }

    /// The pause before the next attempt, with jitter so that replicas do not come together.
    fn pause(&mut self) -> Duration {
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
        pause.mul_f64(rand::rng().random_range(1.0..1.25))
    }
}
