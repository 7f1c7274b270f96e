//! vdbi-renewer: keeps the credentials of living pods alive. Replicas elect a leader for each shard.

use std::process::ExitCode;

use bootstrap::{Backend, Process};
use vdbi_core::{config::Component, health::Probe};
use vdbi_lifecycle::{
    events::PodEvents,
    pods::Pods,
    renewer::{Renewer, Settings},
    rotation::{self, Rotation},
};

/// Runs the component over a backend; the first of `arguments` is the program's name.
pub fn main<B: Backend>(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    bootstrap::run::<B>(Component::Renewer, arguments, run::<B>)
}

async fn run<B: Backend>(process: &mut Process) -> anyhow::Result<()> {
    let config = process.config.clone();
    // Not ready before the election is.
    process.health.register("leader-election", Probe::Ready);
    let kubernetes = process.kubernetes().await?;
    let (source, ledger) = B::open(process, &kubernetes)?;
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let mut settings = Settings::new(owner);
    settings.renew_at = config.renewer.renew_at;
    settings.scan_interval = config.sync_ttl_second;
    settings.rate = config.vault_rate_limit;
    settings.max_in_flight = config.renewer.max_in_flight;
    settings.per_pod_metrics = config.metrics.per_pod;
    let pods = Pods::new(kubernetes.clone(), &config.injector_label);
    let events = PodEvents::new(kubernetes, pods, "vdbi-renewer");
    let mut renewer = Renewer::new(source, ledger, settings, &process.registry).with_events(events.clone());
    if config.rotation.enabled {
        let mut settings = rotation::Settings::new(&config.injector_label);
        settings.max_in_flight = config.rotation.max_in_flight;
        let client = process.kubernetes_without_retries().await?;
        renewer = renewer.with_rotation(Rotation::new(client, events, settings, &process.registry));
    }
    let elections = process.elections().await?;
    let work = move |shard, term| renewer.clone().for_shard(shard).run(term);
    elections.run(work, process.shutdown.clone()).await?;
    Ok(())
}
