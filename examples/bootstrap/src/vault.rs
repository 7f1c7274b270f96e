//! OpenBao or Vault, as configured.

use std::time::Duration;

use vdbi_core::{
    config::{Component, Config},
    health::{self, Health, Probe},
    kubernetes::TokenRequestIdentity,
    metrics::Registry,
    vault::{
        Account, Authentication, Issuing, KvFolder, Login, LoginStatus, Settings, VaultClient, VaultLedger,
        VaultSource,
    },
};

use crate::{Backend, Process};

/// OpenBao or Vault: the backend of the reference binaries. One session, which is kept open beside the work.
#[derive(Debug)]
pub struct Vault;

impl Backend for Vault {
    type Source = VaultSource<TokenRequestIdentity>;
    type Ledger = VaultLedger;

    const IS_VAULT: bool = true;

    fn open(
        process: &mut Process,
        kubernetes: &kube::Client,
    ) -> anyhow::Result<(Self::Source, Self::Ledger)> {
        let login = login(process.component, &process.config, &process.registry)?;
        report(&login, &process.health);
        let (session, shutdown) = (login.clone(), process.shutdown.clone());
        process.spawn(async move { session.keep_alive(shutdown).await });
        let config = &process.config;
        let (mount, prefix) = (config.vault_secret_name.clone(), config.vault_secret_prefix.clone());
        let ledger = VaultLedger::new(login.clone(), KvFolder { mount, prefix });
        Ok((source(login, config, kubernetes.clone()), ledger))
    }
}

fn login(component: Component, config: &Config, registry: &Registry) -> anyhow::Result<Login> {
    let mut settings = Settings::new(&config.vault_address);
    settings.namespace.clone_from(&config.vault_namespace);
    settings.ca_file.clone_from(&config.vault_ca_cert);
    settings.request_timeout = request_timeout(component, config);
    let account = Account {
        auth_path: config.vault_auth_path.clone(),
        role: config.kube_role.clone(),
        token_file: config.service_account_token_file.clone(),
    };
    Ok(Login::new(VaultClient::new(&settings, registry)?, account))
}

/// Readiness follows the session: it fails once our own token has expired, not when one request failed.
fn report(login: &Login, health: &Health) {
    let status = login.status();
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

fn source(login: Login, config: &Config, kubernetes: kube::Client) -> VaultSource<TokenRequestIdentity> {
    let mut issuing = Issuing::default();
    issuing.token_period = config.token_ttl;
    issuing.store_raw_token = config.ledger.store_raw_token;
    issuing.role_cache_ttl = config.role_cache_ttl;
    VaultSource::new(login, &config.vault_auth_path, authentication(config, kubernetes), issuing)
}

/// How pods are authenticated where credentials are issued.
fn authentication(config: &Config, client: kube::Client) -> Authentication<TokenRequestIdentity> {
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
