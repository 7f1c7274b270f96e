//! vdbi-injector: the mutating admission webhook.

use std::process::ExitCode;

use bootstrap::Process;
use vdbi_core::{
    config::{Component, Config},
    health::Probe,
    kubernetes::TokenRequestIdentity,
    vault::Authentication,
};
use vdbi_webhook::{admit::Admission, policy::Plaintext, server::AdmissionServer};

fn main() -> ExitCode {
    bootstrap::run(Component::Injector, run)
}

async fn run(process: &mut Process) -> anyhow::Result<()> {
    let config = process.config.clone();
    let listener = process.health.register("listener", Probe::Ready);
    let server = AdmissionServer::bind(config.admission_address, &config.cert_file, &config.key_file).await?;
    server.report(&process.health);
    let kubernetes = process.kubernetes().await?;
    let vault = process.vault()?;
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let source = vault.source(&config, authentication(&config, kubernetes));
    let policy = Plaintext::new(&config.default_engine);
    let admission = Admission::new(
        source,
        vault.ledger(&config),
        policy,
        owner,
        config.admission_timeout,
        &process.registry,
    );
    listener.pass();
    tracing::info!(address = %server.local_addr(), "answering admissions on {}", server.local_addr());
    server.serve(admission, config.shutdown_grace_period, process.shutdown.clone().cancelled_owned()).await?;
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
