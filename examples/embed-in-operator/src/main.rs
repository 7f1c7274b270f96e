//! The operator over OpenBao or Vault, with the leadership of a Lease. Environment variables say where everything is.

use std::{error::Error, sync::Arc, time::Duration};

use embed_in_operator::Operator;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    config::{LogFormat, LogLevel, parse_duration},
    kubernetes::{self, TokenRequestIdentity},
    ledger::Owner,
    metrics::Registry,
    telemetry,
    vault::{
        Account, Authentication, Issuing, KvFolder, Login, Settings, VaultClient, VaultLedger, VaultSource,
    },
};
use vdbi_lifecycle::election::{self, BoottimeClock, Identity, LeaseElection, LeaseRef};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    telemetry::init(LogFormat::Human, LogLevel::Info);
    // Only this process chooses a provider; a second choice would be the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let registry = Registry::disabled();
    let shutdown = CancellationToken::new();

    let client = Client::try_default().await?;
    let (login, source, ledger) = vault(&registry)?;
    let owner =
        Owner { cluster: kubernetes::cluster_id(client.clone()).await?, release: variable("RELEASE")? };
    let scan_interval = parse_duration(&variable("SCAN_INTERVAL").unwrap_or("5m".into()))?;
    let operator = Operator::new(client.clone(), source, ledger, owner, scan_interval, &registry);

    let lease = LeaseRef { namespace: variable("POD_NAMESPACE")?, name: "shop-operator".to_owned() };
    let settings = election::Settings::new(lease, Identity::from_env());
    let leadership = LeaseElection::new(client, settings, Arc::new(BoottimeClock), &registry)?
        .on_overrun(|| std::process::abort());

    let mut terminate = signal(SignalKind::terminate())?;
    let stop = shutdown.clone();
    let work = async {
        let outcome = operator.run(leadership, stop.clone()).await;
        stop.cancel();
        outcome
    };
    let stopped = async {
        tokio::select! { _ = terminate.recv() => shutdown.cancel(), () = shutdown.cancelled() => {} }
    };
    let (outcome, (), ()) = tokio::join!(work, login.keep_alive(shutdown.clone()), stopped);
    Ok(outcome?)
}

/// The session at OpenBao or Vault, and what renews, revokes and keeps the books over it.
fn vault(
    registry: &Registry,
) -> Result<(Login, VaultSource<TokenRequestIdentity>, VaultLedger), Box<dyn Error>> {
    let mut settings = Settings::new(variable("VAULT_ADDR")?);
    settings.request_timeout = Duration::from_secs(5);
    let account = Account {
        auth_path: "kubernetes".to_owned(),
        role: variable("VAULT_ROLE")?,
        token_file: variable("TOKEN_FILE")?.into(),
    };
    let login = Login::new(VaultClient::new(&settings, registry)?, account);
    // The webhook issues; this only renews and revokes.
    let authentication = Authentication::Legacy { token_role: None };
    let source = VaultSource::new(login.clone(), "kubernetes", authentication, Issuing::default());
    let folder = KvFolder { mount: variable("LEDGER_MOUNT")?, prefix: variable("LEDGER_PREFIX")? };
    let ledger = VaultLedger::new(login.clone(), folder);
    Ok((login, source, ledger))
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))
}
