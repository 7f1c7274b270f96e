//! vdbi-nri-plugin: puts credentials into containers in the place of placeholders. One for each node, and each release.

use std::process::ExitCode;

use bootstrap::{Backend, Process};
use vdbi_core::{
    config::{Component, NriConfig},
    custody::Custody,
    health::Probe,
};
use vdbi_nri::{
    NodePlugin,
    cache::Cache,
    leaks::Leaks,
    plugin,
    pods::{NodePods, Selection},
    stub::{self, Stub},
};

#[cfg(feature = "doctor")]
mod doctor;

/// Runs the component over a backend, or its doctor; the first of `arguments` is the program's name.
pub fn main<B: Backend>(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    match arguments.get(1).map(String::as_str) {
        Some("doctor") => doctor::run(arguments),
        _ => bootstrap::run::<B>(Component::Nri, arguments, run::<B>),
    }
}

async fn run<B: Backend>(process: &mut Process) -> anyhow::Result<()> {
    let config = process.config.clone();
    let NriConfig { node_name, pod_label, plugin_name, plugin_index, socket_path, .. } = &config.nri;
    let cache = Cache::open(&config.nri.cache_path)?;
    let kubernetes = process.kubernetes().await?;
    let (source, ledger) = B::open(process, &kubernetes)?;
    // Ready while containerd asks: registered, and told of the containers that are there.
    let registration = process.health.register("registration", Probe::Ready);
    let Some(owner) = process.owner(&kubernetes).await else { return Ok(()) };
    let custody = Custody::new(source, ledger, owner, &process.registry);
    let selection = Selection { label: pod_label.clone(), node: node_name.clone() };
    let (pods, follower) = NodePods::new(kubernetes.clone(), selection);
    let mut settings = plugin::Settings::new(&config.default_engine);
    settings.fetch_timeout = config.nri.fetch_timeout;
    settings.prewarm = config.nri.prewarmer.enabled.then_some(config.nri.prewarmer.max_concurrent);
    let leaks = Leaks::new(kubernetes, "vdbi-nri");
    let plugin = NodePlugin::new(custody, cache, pods, leaks, settings, &process.registry);
    let shutdown = process.shutdown.clone();
    process.spawn(plugin.clone().follow(follower, shutdown.clone().cancelled_owned()));
    let mut settings = stub::Settings::new(plugin_name, plugin_index)?;
    settings.socket.clone_from(socket_path);
    let stub = Stub::new(settings, plugin.clone(), &process.registry);
    let mut status = stub.status();
    process.spawn(async move {
        loop {
            match status.borrow_and_update().ready() {
                Ok(()) => registration.pass(),
                Err(reason) => registration.fail(reason),
            }
            if status.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    });
    stub.run(shutdown.cancelled_owned()).await;
    plugin.finish().await;
    Ok(())
}

#[cfg(not(feature = "doctor"))]
mod doctor {
    pub(crate) fn run(_: Vec<String>) -> std::process::ExitCode {
        eprintln!(
            "this vdbi-nri-plugin has no doctor: build one with cargo build -p node-plugin --features doctor"
        );
        std::process::ExitCode::from(2)
    }
}
