//! The contract of [`PodIdentity`].

use std::future::Future;

use super::Clause;
use crate::{
    identity::{IdentityError, PodIdentity},
    pod::PodRef,
    secret::Secret,
};

/// An identity, with what a test has to know about its set-up.
pub trait Fixture {
    /// The identity.
    type Identity: PodIdentity;

    /// The identity.
    fn identity(&self) -> &Self::Identity;

    /// Pods for which there is a token, of different service accounts where the implementation serves more than one.
    fn pods(&self) -> Vec<PodRef>;

    /// A pod whose service account does not exist, where the implementation can notice.
    fn unknown(&self) -> Option<PodRef>;

    /// Whom the token proves to be, in the eyes of whoever verifies it: namespace and service account; `None` for a token that
    /// is not valid, or not for this audience.
    fn verify(&self, token: &Secret) -> impl Future<Output = Option<(String, String)>>;
}

/// Runs every clause.
///
/// # Panics
///
/// When a clause is broken.
pub async fn run(fixture: &impl Fixture) {
    a_token_proves_its_pods_service_account(fixture).await;
    an_unknown_service_account_is_named(fixture).await;
}

/// A token is valid, and one of the service account that the pod names, in its namespace.
pub async fn a_token_proves_its_pods_service_account(fixture: &impl Fixture) {
    let clause = clause("a_token_proves_its_pods_service_account");
    for pod in fixture.pods() {
        let token = clause.ok("token", fixture.identity().token(&pod).await);
        let proven = fixture.verify(&token).await;
        let expected = Some((pod.namespace.clone(), pod.service_account.clone()));
        let of = &pod.service_account;
        clause
            .holds(proven == expected, format_args!("the token of {}/{of} proves {proven:?}", pod.namespace));
    }
}

/// A service account that does not exist is an error of its own, which names it.
pub async fn an_unknown_service_account_is_named(fixture: &impl Fixture) {
    let clause = clause("an_unknown_service_account_is_named");
    let Some(pod) = fixture.unknown() else { return };
    match fixture.identity().token(&pod).await {
        Err(IdentityError::UnknownServiceAccount { namespace, name }) => {
            let named = namespace == pod.namespace && name == pod.service_account;
            clause.holds(named, format_args!("the error names {namespace}/{name}"));
        }
        Err(error) => clause.broken(format_args!("the error is another one: {error}")),
        Ok(_) => clause.broken("there is a token"),
    }
}

fn clause(name: &'static str) -> Clause {
    Clause { contract: "PodIdentity", name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message_of_the_broken_clause;

    /// Knows the service accounts of one namespace; its tokens say in clear whose they are.
    struct Accounts {
        known: &'static [&'static str],
        /// Whether every pod gets the token of the first account.
        confused: bool,
    }

    impl PodIdentity for Accounts {
        async fn token(&self, pod: &PodRef) -> Result<Secret, IdentityError> {
            let account = if self.confused { self.known[0] } else { pod.service_account.as_str() };
            if self.known.contains(&account) {
                return Ok(Secret::new(format!("{}/{account}", pod.namespace)));
            }
            let (namespace, name) = (pod.namespace.clone(), account.to_owned());
            Err(IdentityError::UnknownServiceAccount { namespace, name })
        }
    }

    fn pod(service_account: &str) -> PodRef {
        PodRef { namespace: "shop".into(), service_account: service_account.into(), ..PodRef::default() }
    }

    impl Fixture for Accounts {
        type Identity = Self;

        fn identity(&self) -> &Self {
            self
        }

        fn pods(&self) -> Vec<PodRef> {
            vec![pod("app1"), pod("app2")]
        }

        fn unknown(&self) -> Option<PodRef> {
            Some(pod("nobody"))
        }

        async fn verify(&self, token: &Secret) -> Option<(String, String)> {
            let (namespace, account) = token.expose().split_once('/')?;
            Some((namespace.to_owned(), account.to_owned()))
        }
    }

    #[tokio::test]
    async fn an_identity_that_tells_accounts_apart_keeps_the_contract() {
        run(&Accounts { known: &["app1", "app2"], confused: false }).await;
    }

    #[tokio::test]
    async fn the_suite_notices_a_token_of_somebody_else() {
        let fixture = Accounts { known: &["app1", "app2"], confused: true };
        let message = message_of_the_broken_clause(a_token_proves_its_pods_service_account(&fixture)).await;
        assert!(message.contains("shop/app2") && message.contains("app1"), "{message}");
        let message = message_of_the_broken_clause(an_unknown_service_account_is_named(&fixture)).await;
        assert!(message.contains("there is a token"), "{message}");
    }
}
