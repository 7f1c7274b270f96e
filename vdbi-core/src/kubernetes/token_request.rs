//! Tokens of pods' service accounts, from the API server.

use std::time::Duration;

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};

use crate::{
    identity::{IdentityError, PodIdentity},
    pod::PodRef,
    secret::Secret,
};

/// Requests a short-lived token for each pod, by TokenRequest (`authentication.k8s.io/v1`). Needs the verb create on
/// `serviceaccounts/token`.
///
#[cfg_attr(feature = "memory", doc = "```")]
#[cfg_attr(not(feature = "memory"), doc = "```ignore")]
/// # use std::time::Duration;
/// # use vdbi_core::{identity::PodIdentity, kubernetes::TokenRequestIdentity, pod::PodRef};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let api = vdbi_core::memory::kubernetes::KubernetesApi::new();
/// let identity = TokenRequestIdentity::new(api.client(), vec!["vault".into()], Duration::from_secs(600));
/// let pod = PodRef {
///     namespace: "default".into(),
///     service_account: "default".into(),
///     ..PodRef::default()
/// };
/// assert!(!identity.token(&pod).await?.expose().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenRequestIdentity {
    client: Client,
    audiences: Vec<String>,
    expiration: Duration,
}

impl TokenRequestIdentity {
    /// Tokens for these audiences (`tokenRequestAudiences`), valid for `expiration`, at least ten minutes: the API server
    /// refuses less.
    pub fn new(client: Client, audiences: Vec<String>, expiration: Duration) -> Self {
        Self { client, audiences, expiration }
    }
}

impl std::fmt::Debug for TokenRequestIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRequestIdentity").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

impl PodIdentity for TokenRequestIdentity {
    async fn token(&self, pod: &PodRef) -> Result<Secret, IdentityError> {
        let spec = TokenRequestSpec {
            audiences: Some(self.audiences.clone()),
            expiration_seconds: i64::try_from(self.expiration.as_secs()).ok(),
            bound_object_ref: None,
        };
        let request = TokenRequest { metadata: ObjectMeta::default(), spec: Some(spec), status: None };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &pod.namespace);
        let answer = accounts
            .create_token_request(&pod.service_account, &PostParams::default(), &request)
            .await
            .map_err(|error| classify(pod, &error))?;
        let token = answer.status.and_then(|status| status.token).ok_or_else(|| {
            IdentityError::Unavailable("the API server answered a TokenRequest without a token".into())
        })?;
        Ok(Secret::new(token))
    }
}

fn classify(pod: &PodRef, error: &kube::Error) -> IdentityError {
    let PodRef { namespace, service_account: name, .. } = pod;
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            IdentityError::UnknownServiceAccount { namespace: namespace.clone(), name: name.clone() }
        }
        kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
            IdentityError::Denied(format!(
                "this component may not request tokens of service account {namespace}/{name}: grant it the verb create on \
             serviceaccounts/token there: {}",
                status.message
            ))
        }
        error => IdentityError::Unavailable(format!(
            "the API server gave no token of service account {namespace}/{name}: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn classified(code: u16) -> IdentityError {
        let pod = PodRef { namespace: "shop".into(), service_account: "app1".into(), ..PodRef::default() };
        classify(&pod, &kube::Error::Api(Box::new(Status { code, ..Status::default() })))
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(matches!(classified(404), IdentityError::UnknownServiceAccount { .. }));
        assert!(
            matches!(classified(403), IdentityError::Denied(text) if text.contains("serviceaccounts/token"))
        );
        assert!(matches!(classified(429), IdentityError::Unavailable(_)));
    }
}
