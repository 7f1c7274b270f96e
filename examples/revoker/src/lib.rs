//! vdbi-revoker: revokes the credentials of pods that are done. Replicas elect a leader for each shard.

use std::process::ExitCode;

use bootstrap::{Backend, Process};
use vdbi_core::{config::Component, health::Probe};
use vdbi_lifecycle::{
    pods::{End, Pods},
    revoker::{Revoker, Settings},
};

/// Runs the component over a backend; the first of `arguments` is the program's name.
pub fn main<B: Backend>(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    bootstrap::run::<B>(Component::Revoker, arguments, run::<B>)
}

async fn run<B: Backend>(process: &mut Process) -> anyhow::Result<()> {
    let config = process.config.clone();
    // Not ready before the election is.
    process.health.register("leader-election", Probe::Ready);
    let kubernetes = process.kubernetes().await?;
    let (source, ledger) = B::open(process, &kubernetes)?;
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let mut settings = Settings::new(owner);
    settings.rules.grace_period = config.revoker.grace_period;
    settings.rules.brake_share = config.revoker.brake_share;
    settings.rules.brake_minimum = config.revoker.brake_minimum;
    settings.rules.brake_override_until = config.revoker.brake_override_until;
    settings.interval = config.revoker.interval;
    settings.rate = config.revoker.rate_limit;
    settings.max_in_flight = config.revoker.max_in_flight;
    settings.keep_raw_tokens = config.ledger.store_raw_token;
    let mut end = End::default();
    end.without_label = config.revoker.revoke_without_label;
    end.overdue = config.revoker.overdue_after;
    let pods = Pods::new(kubernetes, &config.injector_label).with_end(end);
    let revoker = Revoker::new(source, ledger, pods, settings, &process.registry);
    let elections = process.elections().await?;
    let work = move |shard, term| revoker.clone().for_shard(shard).run(term);
    elections.run(work, process.shutdown.clone()).await?;
    Ok(())
}
