//! The webhook's certificate, as configured.

use std::time::Duration;

use bootstrap::Process;
use vdbi_core::{config::Config, leadership::Leadership};
use vdbi_webhook::tls::{CallersFile, Keeper, SelfManaged, Settings, Source, Tls, TlsError};

/// How often a certificate that the leader has yet to make is asked for.
const RETRY: Duration = Duration::from_millis(200);

/// The server's TLS, kept up to date beside the work; `None` when the process has to end before there is a certificate.
pub(crate) async fn tls(process: &mut Process) -> anyhow::Result<Option<Tls>> {
    let config = process.config.clone();
    let callers = config.webhook.client_ca_file.as_ref().map(|path| {
        let mut callers = CallersFile::new(path);
        callers.allowed_names.clone_from(&config.webhook.client_allowed_names);
        callers
    });
    let source = if config.webhook.self_managed {
        let managed = SelfManaged::new(process.kubernetes().await?, settings(&config));
        lead(process, managed.clone()).await?;
        Source::SelfManaged(Box::new(managed))
    } else {
        Source::Files { certificate: config.cert_file.clone(), key: config.key_file.clone() }
    };
    let shutdown = process.shutdown.clone();
    let mut reported = false;
    let (tls, keeper) = loop {
        match Keeper::start(source.clone(), callers.clone(), &process.registry).await {
            Ok(started) => break started,
            Err(error) if config.webhook.self_managed => {
                if !matches!(error, TlsError::NotYet) && !std::mem::replace(&mut reported, true) {
                    tracing::warn!("the webhook has no certificate yet, trying again: {error}");
                }
            }
            Err(error) => return Err(error.into()),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return Ok(None);
        }
    };
    tls.report(&process.health);
    if !tls.verifies_callers() && !config.nri.enabled {
        tracing::warn!(
            "whoever reaches {} can have credentials issued for any pod: set webhook.clientCaFile and let the API server \
             show a client certificate (docs/webhook.md), or use nri.enabled",
            config.admission_address
        );
    }
    let kept = tls.clone();
    process.spawn(async move { keeper.run(kept).await });
    Ok(Some(tls))
}

async fn lead(process: &mut Process, managed: SelfManaged) -> anyhow::Result<()> {
    let election = process.election().await?;
    let shutdown = process.shutdown.clone();
    process.spawn(async move {
        if let Err(error) = election.run(move |term| managed.clone().lead(term), shutdown).await {
            tracing::error!("the webhook's authority has no leader: {error}");
        }
    });
    Ok(())
}

fn settings(config: &Config) -> Settings {
    Settings {
        namespace: config.leader_election.lease_namespace.clone(),
        secret: config.webhook.secret_name.clone(),
        configuration: config.webhook.configuration_name.clone(),
        names: config.webhook.dns_names.clone(),
    }
}
