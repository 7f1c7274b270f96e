//! vdbi-injector: the mutating admission webhook.

mod certificate;

use std::process::ExitCode;

use bootstrap::Process;
use vdbi_core::{
    config::{Component, Config},
    health::Probe,
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    policy::{MutationPolicy, Placeholder, Plaintext},
    server::{AdmissionServer, Shutdown},
};

/// Runs the component; the first of `arguments` is the program's name.
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    bootstrap::run(Component::Injector, arguments, run)
}

async fn run(process: &mut Process) -> anyhow::Result<()> {
    let (engine, nri) = (process.config.default_engine.clone(), process.config.nri.clone());
    if !nri.enabled {
        return serve(process, Plaintext::new(engine)).await;
    }
    let mut policy = Placeholder::new(engine);
    if !nri.tripwire {
        policy = policy.without_tripwire();
    }
    if nri.require_plugin {
        policy = policy.requiring(nri.plugin_name);
    }
    serve(process, policy).await
}

async fn serve(process: &mut Process, policy: impl MutationPolicy) -> anyhow::Result<()> {
    let config = process.config.clone();
    let listener = process.health.register("listener", Probe::Ready);
    let Some(tls) = certificate::tls(process).await? else { return Ok(()) };
    let server = AdmissionServer::bind(config.admission_address, tls)?;
    let kubernetes = process.kubernetes().await?;
    let vault = process.vault()?;
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let source = vault.source(&config, bootstrap::authentication(&config, kubernetes));
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

fn shutdown(config: &Config) -> Shutdown {
    let delay = config.webhook.drain_delay;
    Shutdown { delay, grace: config.shutdown_grace_period.saturating_sub(delay) }
}
