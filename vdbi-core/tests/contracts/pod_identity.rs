//! Identities of pods.

use std::time::Duration;

use tokio::time::Instant;
use vdbi_core::{
    identity::{IdentityError, PodIdentity},
    pod::PodRef,
    secret::Secret,
    testing::{
        Broken,
        pod_identity::{self as suite, Fixture},
    },
};

use crate::wrong;

/// What an identity does wrong; nothing where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    MixesAccountsUp,
    MixesNamespacesUp,
    TokensOfAnotherAudience,
    GivesAgedTokens,
    TakesAMissingAccountForAnOutage,
    NamesAnotherAccount,
}

const FLAWS: [(Flaw, &str); 6] = [
    (Flaw::MixesAccountsUp, "a_token_proves_its_pods_service_account"),
    (Flaw::MixesNamespacesUp, "a_token_proves_its_pods_service_account"),
    (Flaw::TokensOfAnotherAudience, "a_token_proves_its_pods_service_account"),
    (Flaw::GivesAgedTokens, "a_token_outlives_a_login"),
    (Flaw::TakesAMissingAccountForAnOutage, "an_unknown_service_account_is_named"),
    (Flaw::NamesAnotherAccount, "an_unknown_service_account_is_named"),
];

/// Knows two service accounts of each namespace. Its tokens say in clear whose they are, for whom and until when.
struct Accounts {
    flaw: Option<Flaw>,
    origin: Instant,
}

impl Accounts {
    fn new(flaw: Option<Flaw>) -> Self {
        Self { flaw, origin: Instant::now() }
    }
}

impl PodIdentity for Accounts {
    async fn token(&self, pod: &PodRef) -> Result<Secret, IdentityError> {
        let PodRef { namespace, service_account: name, .. } = pod;
        if !["app1", "app2"].contains(&name.as_str()) {
            return Err(match self.flaw {
                Some(Flaw::TakesAMissingAccountForAnOutage) => IdentityError::Unavailable("no answer".into()),
                Some(Flaw::NamesAnotherAccount) => IdentityError::UnknownServiceAccount {
                    namespace: "default".into(),
                    name: "default".into(),
                },
                _ => {
                    IdentityError::UnknownServiceAccount { namespace: namespace.clone(), name: name.clone() }
                }
            });
        }
        let namespace = if self.flaw == Some(Flaw::MixesNamespacesUp) { "default" } else { namespace };
        let name = if self.flaw == Some(Flaw::MixesAccountsUp) { "app1" } else { name };
        let audience = if self.flaw == Some(Flaw::TokensOfAnotherAudience) { "kubernetes" } else { "vault" };
        let lifetime = Duration::from_secs(if self.flaw == Some(Flaw::GivesAgedTokens) { 1 } else { 600 });
        let expires = (self.origin.elapsed() + lifetime).as_millis();
        Ok(Secret::new(format!("{audience}/{expires}/{namespace}/{name}")))
    }
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
        let parts: Vec<&str> = token.expose().split('/').collect();
        let [audience, expires, namespace, name] = parts[..] else { return None };
        let valid = audience == "vault" && self.origin.elapsed().as_millis() < expires.parse().ok()?;
        valid.then(|| (namespace.to_owned(), name.to_owned()))
    }
}

fn pod(service_account: &str) -> PodRef {
    PodRef { namespace: "shop".into(), service_account: service_account.into(), ..PodRef::default() }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_tells_accounts_apart_keeps_the_contract() {
    suite::run(&Accounts::new(None)).await;
}

#[tokio::test(start_paused = true)]
async fn each_wrong_identity_breaks_the_clause_meant() {
    for (flaw, clause) in FLAWS {
        let run = Broken::by("run", suite::run(&Accounts::new(Some(flaw)))).await;
        let broken = suite::broken(&Accounts::new(Some(flaw))).await;
        wrong::expect_one_broken(flaw, clause, &broken, run);
    }
}

#[test]
fn every_clause_of_the_suite_has_a_wrong_identity() {
    wrong::expect_complete("vdbi_core::testing::pod_identity", suite::CLAUSES, &FLAWS);
}

/// The API server's tokens, of the embedded one; they are verified by their claims.
#[cfg(feature = "kubernetes")]
mod token_request {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::{Api, api::PostParams};
    use serde_json::{Value, json};
    use vdbi_core::{kubernetes::TokenRequestIdentity, memory::kubernetes::KubernetesApi};

    use super::*;

    struct OverApi(TokenRequestIdentity);

    impl Fixture for OverApi {
        type Identity = TokenRequestIdentity;

        fn identity(&self) -> &TokenRequestIdentity {
            &self.0
        }

        fn pods(&self) -> Vec<PodRef> {
            vec![pod("app1"), pod("app2")]
        }

        fn unknown(&self) -> Option<PodRef> {
            Some(pod("nobody"))
        }

        async fn verify(&self, token: &Secret) -> Option<(String, String)> {
            let claims = URL_SAFE_NO_PAD.decode(token.expose().split('.').nth(1)?).ok()?;
            let claims: Value = serde_json::from_slice(&claims).ok()?;
            let valid = claims["aud"] == json!(["vault"])
                && claims["exp"].as_i64()? > jiff::Timestamp::now().as_second();
            let subject = claims["sub"].as_str()?.strip_prefix("system:serviceaccount:")?;
            let (namespace, name) = subject.split_once(':')?;
            valid.then(|| (namespace.to_owned(), name.to_owned()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn token_requests_keep_the_contract() {
        let kubernetes = KubernetesApi::new();
        let accounts: Api<ServiceAccount> = Api::namespaced(kubernetes.client(), "shop");
        for name in ["app1", "app2"] {
            let account = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
            accounts.create(&PostParams::default(), &account).await.unwrap();
        }
        let audiences = vec!["vault".to_owned()];
        let identity = TokenRequestIdentity::new(kubernetes.client(), audiences, Duration::from_secs(600));
        suite::run(&OverApi(identity)).await;
    }
}
