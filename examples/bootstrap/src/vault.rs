//! The secrets backend as configured.

use std::time::Duration;

use vdbi_core::{
    config::{Component, Config},
    health::{self, Health, Probe},
    identity::PodIdentity,
    kubernetes::TokenRequestIdentity,
    metrics::Registry,
    vault::{Authentication, Issuing, Login, LoginStatus, Settings, VaultClient, VaultLedger, VaultSource},
};

/// One client and one session, from which sources and ledgers are made.
#[derive(Debug)]
pub struct Vault {
    client: VaultClient,
    pub(crate) login: Login,
}

impl Vault {
    pub(crate) fn new(component: Component, config: &Config, registry: &Registry) -> anyhow::Result<Self> {
        let settings = Settings {
            address: config.vault_address.clone(),
            namespace: config.vault_namespace.clone(),
            ca_file: config.vault_ca_cert.clone(),
            request_timeout: request_timeout(component, config),
        };
        let client = VaultClient::new(&settings, registry)?;
        let token_file = config.service_account_token_file.clone();
        let login = Login::new(client.clone(), &config.vault_auth_path, &config.kube_role, token_file);
        Ok(Self { client, login })
    }

    /// The source of credentials for pods.
    pub fn source<I: PodIdentity>(
        &self,
        config: &Config,
        authentication: Authentication<I>,
    ) -> VaultSource<I> {
        VaultSource::new(
            self.client.clone(),
            self.login.clone(),
            &config.vault_auth_path,
            authentication,
            Issuing {
                token_period: config.token_ttl,
                store_raw_token: config.ledger.store_raw_token,
                role_cache_ttl: config.role_cache_ttl,
            },
        )
    }

    /// What renews and revokes; it issues nothing, so it authenticates no pod.
    pub fn leases(&self, config: &Config) -> VaultSource<TokenRequestIdentity> {
        self.source(config, Authentication::Legacy { token_role: None })
    }

    /// The ledger.
    pub fn ledger(&self, config: &Config) -> VaultLedger {
        let (mount, prefix) = (&config.vault_secret_name, &config.vault_secret_prefix);
        VaultLedger::new(self.client.clone(), self.login.clone(), mount, prefix)
    }

    /// Readiness follows the session: it fails once our own token has expired, not when one request failed.
    pub(crate) fn report(&self, health: &Health) {
        let status = self.login.status();
        let session = move || match &*status.borrow() {
            LoginStatus::LoggedIn { .. } => Ok(()),
            LoginStatus::LoggedOut { reason } => Err(reason.clone()),
        };
        health.describe("vault", {
            let session = session.clone();
            move || health::detail(Some(&session()))
        });
        health.register_with("vault-login", Probe::Ready, session);
    }
}

/// How pods are authenticated, as configured.
pub fn authentication(config: &Config, client: kube::Client) -> Authentication<TokenRequestIdentity> {
    if config.use_projected_sa {
        let audiences = config.token_request_audiences.clone();
        let expiration = config.token_request_expiration;
        Authentication::Projected(TokenRequestIdentity::new(client, audiences, expiration))
    } else {
        Authentication::Legacy { token_role: config.token_role.clone() }
    }
}

/// A leader's request ends with what its term has left. It has to time out before: one that is dropped with the term tells nobody
/// that Vault does not answer.
fn request_timeout(component: Component, config: &Config) -> Duration {
    let election = &config.leader_election;
    match component {
        Component::Renewer | Component::Revoker => {
            let left = election.hard_deadline.saturating_sub(election.renew_interval + election.retry);
            config.vault_request_timeout.min(left)
        }
        Component::Injector | Component::Nri => config.vault_request_timeout,
    }
}
