//! vdbi-injector: the mutating admission webhook.

mod certificate;

use std::process::ExitCode;

use bootstrap::Process;
use vdbi_core::{
    config::{Component, Config},
    health::Probe,
    kubernetes::TokenRequestIdentity,
    vault::Authentication,
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    policy::{MutationPolicy, Placeholder, Plaintext},
    server::{AdmissionServer, Shutdown},
};

fn main() -> ExitCode {
    bootstrap::run(Component::Injector, run)
}

async fn run(process: &mut Process) -> anyhow::Result<()> {
    let engine = process.config.default_engine.clone();
    if process.config.nri.enabled {
        serve(process, Placeholder::new(engine)).await
    } else {
        serve(process, Plaintext::new(engine)).await
    }
}

async fn serve(process: &mut Process, policy: impl MutationPolicy) -> anyhow::Result<()> {
    let config = process.config.clone();
    let listener = process.health.register("listener", Probe::Ready);
    let Some(tls) = certificate::tls(process).await? else { return Ok(()) };
    let server = AdmissionServer::bind(config.admission_address, tls)?;
    let kubernetes = process.kubernetes().await?;
    let vault = process.vault()?;
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let source = vault.source(&config, authentication(&config, kubernetes));
    let limits = Limits {
        deadline: config.admission_timeout,
        max_in_flight: config.webhook.max_in_flight,
        max_queued: config.webhook.max_queued,
    };
    let admission = Admission::new(source, vault.ledger(&config), policy, owner, limits, &process.registry);
    listener.pass();
    tracing::info!(address = %server.local_addr(), "answering admissions on {}", server.local_addr());
    let stop = process.shutdown.clone();
    server.serve(admission, shutdown(&config), stop.cancelled_owned()).await?;
    Ok(())
}

fn authentication(config: &Config, client: kube::Client) -> Authentication<TokenRequestIdentity> {
    if config.use_projected_sa {
        let audiences = config.token_request_audiences.clone();
        let expiration = config.token_request_expiration;
        Authentication::Projected(TokenRequestIdentity::new(client, audiences, expiration))
    } else {
        Authentication::Legacy { token_role: config.token_role.clone() }
    }
}

fn shutdown(config: &Config) -> Shutdown {
    let delay = config.webhook.drain_delay;
    Shutdown { delay, grace: config.shutdown_grace_period.saturating_sub(delay) }
}
