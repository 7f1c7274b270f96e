//! What a failed request means.

use std::fmt;

use crate::credential::SourceError;

mod classify;
mod excerpt;
#[cfg(test)]
mod tests;

use classify::{classify, server_trouble};
pub(super) use excerpt::excerpt;

/// Why a request has no good answer.
pub(super) enum Failure {
    /// The server answered with an error.
    Refused(Refusal),
    /// There is no answer, or none of a Vault. The request may have been carried out.
    Unanswered(String),
    /// The request was not sent.
    Unsendable(String),
    /// This component has no session to send it in.
    NoSession(SourceError),
}

/// A server's error.
pub(super) struct Refusal {
    pub(super) status: u16,
    /// May quote what a database said, connection strings included: only [`excerpt`] may repeat it.
    pub(super) errors: Vec<String>,
    /// The line of a policy that would have allowed the request.
    pub(super) policy: String,
}

/// What was tried. The texts are names, for messages.
#[derive(Clone, Copy)]
pub(super) enum Operation<'a> {
    /// This component's login.
    Login { auth_path: &'a str, role: &'a str },
    /// A renewal of this component's session.
    RenewSession,
    /// The end of a session, with its own token.
    EndSession,
    /// What a pod's auth role binds.
    ReadAuthRole { auth_path: &'a str, role: &'a str },
    /// A login as a pod.
    PodLogin { auth_path: &'a str, role: &'a str },
    /// A token for a pod.
    CreateToken { token_role: Option<&'a str>, policy: &'a str },
    /// A new database user, with the pod's token.
    ReadCredentials { engine: &'a str, role: &'a str },
    /// A renewal of a pod's token.
    RenewToken,
    /// A revocation of a pod's token.
    RevokeToken,
    /// A renewal of a lease.
    RenewLease,
    /// A revocation of a lease.
    RevokeLease,
    /// Anything with the ledger.
    Ledger { mount: &'a str },
}

impl Failure {
    /// What the caller is told.
    pub(super) fn meaning(self, operation: Operation<'_>) -> SourceError {
        match self {
            Self::Refused(refusal) => classify(operation, &refusal),
            Self::Unanswered(text) => SourceError::Unavailable(text),
            Self::Unsendable(text) => SourceError::Misconfigured(text),
            Self::NoSession(error) => error,
        }
    }
}

impl Failure {
    /// Why a login failed, as the Go product's metric calls it.
    pub(super) fn login_reason(&self) -> &'static str {
        let Self::Refused(refusal) = self else { return "other" };
        if refusal.says("is sealed") {
            "vault_sealed"
        } else if refusal.says("audience") {
            "audience_mismatch"
        } else if refusal.says_any(&["service account name not authorized", "namespace not authorized"]) {
            "sa_not_bound"
        } else if refusal.says("invalid role name") {
            "role_not_found"
        } else if refusal.status == 403 {
            "permission_denied"
        } else {
            "other"
        }
    }
}

impl Refusal {
    /// The token of the request does not exist (any more); the request was not looked at.
    pub(super) fn token_is_gone(&self) -> bool {
        self.status == 403
            && (self.says("invalid token")
                || self.errors.iter().any(|error| error.trim() == "permission denied"))
    }

    /// The token exists, and its policies do not allow the request.
    pub(super) fn is_denied_by_policy(&self) -> bool {
        self.status == 403 && self.says("permission denied") && !self.token_is_gone()
    }

    /// The server as a whole cannot serve, whatever is asked.
    pub(super) fn is_an_outage(&self) -> bool {
        server_trouble(self).is_some()
    }

    pub(super) fn says(&self, text: &str) -> bool {
        self.errors.iter().any(|error| error.contains(text))
    }

    /// The status, and what may be repeated of the texts.
    fn excerpt(&self) -> String {
        match excerpt(&self.errors) {
            text if text.is_empty() => format!("status {}", self.status),
            text => format!("status {}, {text}", self.status),
        }
    }

    fn says_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.says(text))
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("answer", &self.excerpt()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unanswered(text) | Self::Unsendable(text) => f.write_str(text),
            Self::NoSession(error) => error.fmt(f),
        }
    }
}

/// The same error again, for those who waited for the same attempt.
pub(super) fn again(error: &SourceError) -> SourceError {
    match error {
        SourceError::Denied(text) => SourceError::Denied(text.clone()),
        SourceError::Invalid(text) => SourceError::Invalid(text.clone()),
        SourceError::Gone(text) => SourceError::Gone(text.clone()),
        SourceError::Misconfigured(text) => SourceError::Misconfigured(text.clone()),
        SourceError::Unavailable(text) => SourceError::Unavailable(text.clone()),
    }
}
