//! vdbi-injector: the mutating admission webhook.

mod certificate;

use std::process::ExitCode;

use bootstrap::{Backend, Process};
use vdbi_core::{
    config::{Component, Config},
    health::Probe,
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    policy::{MutationPolicy, Placeholder, Plaintext},
    server::{AdmissionServer, Shutdown},
};

/// Runs the component over a backend; the first of `arguments` is the program's name.
pub fn main<B: Backend>(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    bootstrap::run::<B>(Component::Injector, arguments, run::<B>)
}

async fn run<B: Backend>(process: &mut Process) -> anyhow::Result<()> {
    let config = process.config.clone();
    if config.nri.enabled {
        serve::<B>(process, placeholder(&config)).await
    } else {
        serve::<B>(process, plaintext(&config)).await
    }
}

/// The policy without `nri.enabled`, as configured.
pub fn plaintext(config: &Config) -> Plaintext {
    Plaintext::new(config.default_engine.clone())
}

/// The policy with `nri.enabled`, as configured.
pub fn placeholder(config: &Config) -> Placeholder {
    let mut policy = Placeholder::new(config.default_engine.clone());
    if !config.nri.tripwire {
        policy = policy.without_tripwire();
    }
    if config.nri.require_plugin {
        policy = policy.requiring(config.nri.plugin_name.clone());
    }
    policy
}

/// Answers admissions, with a policy of the caller's, until the process has to end: the `work` of [`bootstrap::run`].
///
/// # Errors
///
/// When the server cannot be started, or fails.
pub async fn serve<B: Backend>(process: &mut Process, policy: impl MutationPolicy) -> anyhow::Result<()> {
    let config = process.config.clone();
    let listener = process.health.register("listener", Probe::Ready);
    let Some(tls) = certificate::tls(process).await? else { return Ok(()) };
    let server = AdmissionServer::bind(config.admission_address, tls)?;
    let kubernetes = process.kubernetes().await?;
    let (source, ledger) = B::open(process, &kubernetes)?;
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let mut limits = Limits::default();
    limits.deadline = config.admission_timeout;
    limits.max_in_flight = config.webhook.max_in_flight;
    limits.max_queued = config.webhook.max_queued;
    let admission = Admission::new(source, ledger, policy, owner, limits, &process.registry);
    listener.pass();
    tracing::info!(address = %server.local_addr(), "answering admissions on {}", server.local_addr());
    let stop = process.shutdown.clone();
    server.serve(admission, shutdown(&config), stop.cancelled_owned()).await?;
    Ok(())
}

fn shutdown(config: &Config) -> Shutdown {
    let mut shutdown = Shutdown::default();
    shutdown.delay = config.webhook.drain_delay;
    shutdown.grace = config.shutdown_grace_period.saturating_sub(shutdown.delay);
    shutdown
}
