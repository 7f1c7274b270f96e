//! The contract of [`PodIdentity`].

use std::{future::Future, time::Duration};

use tokio::time::sleep;

use super::Clause;
use crate::{
    identity::{IdentityError, PodIdentity},
    pod::PodRef,
    secret::Secret,
    suite,
};

/// The time that a login takes, at least.
const LOGIN: Duration = Duration::from_secs(5);

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

suite! {
    /// Runs every clause.
    pub async fn run(fixture: &impl Fixture) {
        a_token_proves_its_pods_service_account,
        a_token_outlives_a_login,
        an_unknown_service_account_is_named,
    }
}

/// A token is valid, and one of the service account that the pod names, in its namespace.
pub async fn a_token_proves_its_pods_service_account(fixture: &impl Fixture) {
    let clause = clause("a_token_proves_its_pods_service_account");
    let pods = fixture.pods();
    clause.holds(!pods.is_empty(), "the fixture has no pod");
    for pod in pods {
        let token = clause.ok("token", fixture.identity().token(&pod).await);
        let proven = fixture.verify(&token).await;
        let expected = Some((pod.namespace.clone(), pod.service_account.clone()));
        let of = &pod.service_account;
        clause
            .holds(proven == expected, format_args!("the token of {}/{of} proves {proven:?}", pod.namespace));
    }
}

/// A token that is valid is so for the time that a login takes: 5 s.
pub async fn a_token_outlives_a_login(fixture: &impl Fixture) {
    let clause = clause("a_token_outlives_a_login");
    for pod in fixture.pods() {
        // The second one may be the first one again, from a cache.
        for _ in 0..2 {
            let token = clause.ok("token", fixture.identity().token(&pod).await);
            if fixture.verify(&token).await.is_none() {
                continue;
            }
            sleep(LOGIN).await;
            let is_valid = fixture.verify(&token).await.is_some();
            clause.holds(is_valid, format_args!("a token is no longer valid after {LOGIN:?}"));
        }
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
    Clause::new("PodIdentity", name)
}
