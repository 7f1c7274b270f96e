//! node-facts: gives containers the facts of their node. One for each node.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use custom_nri::NodeFacts;
use tokio::signal::unix::{SignalKind, signal};
use vdbi_core::metrics::Registry;
use vdbi_nri::stub::{Settings, Stub};

/// Gives containers the facts of their node as environment variables.
#[derive(Debug, Parser)]
#[command(name = "node-facts", version)]
struct Arguments {
    /// The file with the node's facts, a line name=value each.
    #[arg(long, default_value = "/etc/node-facts/facts")]
    file: PathBuf,
    /// containerd's NRI socket.
    #[arg(long, default_value = "/var/run/nri/nri.sock")]
    socket: PathBuf,
    /// The plugin's name, by which containerd knows it.
    #[arg(long, default_value = "node-facts")]
    name: String,
    /// Two digits, by which containerd sorts the plugins that it asks.
    #[arg(long, default_value = "30")]
    index: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_ansi(false).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { file, socket, name, index }: Arguments) -> anyhow::Result<()> {
    let mut settings = Settings::new(name, index).context("--name and --index")?;
    settings.socket = socket;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stub = Stub::new(settings, NodeFacts::new(file), &Registry::disabled());
    stub.run(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: containers that ask for facts are created without them from now on");
    })
    .await;
    Ok(())
}
