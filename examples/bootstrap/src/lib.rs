//! What the reference binaries share: command line, configuration, logs, health and metrics endpoints, the session at the
//! secrets backend, signals and exit codes. A binary adds its own assembly.
//!
//! Exit codes: 0 after a signal, 1 when the component could not start or failed, 2 when command line or configuration are
//! wrong. A process that outlives its grace period after a signal ends with 1; one that lost leadership and could not stop
//! its work aborts (134 in a shell).

mod backend;
mod process;
mod vault;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    config::{Component, Config, Loaded},
    health::Health,
    telemetry,
};

use process::election_settings;

pub use backend::Backend;
pub use process::Process;
pub use vault::Vault;

/// Wrong command line or configuration.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration file (YAML); without it, INJECTOR_* environment variables alone.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs a component until SIGTERM or SIGINT. A second signal, or the end of `shutdownGracePeriod`, ends the process at once.
/// The first of `arguments` is the program's name, which the component's may follow, and `B` what the work will open.
pub fn run<B: Backend>(
    component: Component,
    arguments: impl IntoIterator<Item = String>,
    work: impl AsyncFnOnce(&mut Process) -> anyhow::Result<()>,
) -> ExitCode {
    let Arguments { config } = match Arguments::parse_as(component, arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to report a failing terminal to.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let load = if B::IS_VAULT { Config::load } else { Config::load_without_vault };
    let Loaded { config, notices, .. } = match load(config.as_deref(), std::env::vars(), component) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    if component.elects(config.webhook.self_managed)
        && let Err(error) = election_settings(component, &config).validate()
    {
        eprintln!("the configuration of vdbi-{} is wrong:\n  leaderElection: {error}", component.name());
        return ExitCode::from(USAGE);
    }
    telemetry::init(config.log_format, config.log_level);
    for notice in notices {
        tracing::warn!("{notice}");
    }
    // Only this process chooses a provider; a second choice would be the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match serve(component, config, work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn parse_as(
        component: Component,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Self, clap::Error> {
        let name = match component {
            Component::Injector => "vdbi-injector",
            Component::Renewer => "vdbi-renewer",
            Component::Revoker => "vdbi-revoker",
            Component::Nri => "vdbi-nri-plugin",
        };
        // As the program of all components is started, by the image and the chart: one of a single component may take its place.
        let own = |(position, argument): &(usize, String)| {
            *position == 1 && name.strip_prefix("vdbi-") == Some(argument)
        };
        let arguments = arguments.into_iter().enumerate().filter(|it| !own(it)).map(|(_, argument)| argument);
        // The Go product writes `-config`.
        let arguments = arguments.map(|argument| match argument.strip_prefix("-config") {
            Some(rest) if rest.is_empty() || rest.starts_with('=') => format!("--config{rest}"),
            _ => argument,
        });
        Self::from_arg_matches(&Self::command().name(name).try_get_matches_from(arguments)?)
    }
}

fn serve(
    component: Component,
    config: Config,
    work: impl AsyncFnOnce(&mut Process) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A component waits for the network and computes little: tasks that stay on one thread do not wait for another one to wake up, and
    // each thread has a heap of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let grace = config.shutdown_grace_period;
    let outcome = runtime.block_on(async {
        let mut process = Process::start(component, config)?;
        let signals = Signals::install()?;
        let stop = process.shutdown.clone();
        let health = process.health.clone();
        let signalled = CancellationToken::new();
        let work = async {
            let outcome = work(&mut process).await;
            process.finish().await;
            outcome?;
            anyhow::ensure!(signalled.is_cancelled(), "a part of the process ended without a signal");
            Ok(())
        };
        tokio::select! {
            outcome = work => outcome,
            error = signals.enforce(&signalled, stop, health, grace) => Err(error),
        }
    });
    // What still runs is bounded: everything that matters has been awaited.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        let listen = tokio::signal::unix::signal;
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Resolves only when the process has to end at once.
    async fn enforce(
        mut self,
        signalled: &CancellationToken,
        stop: CancellationToken,
        health: Health,
        grace: Duration,
    ) -> anyhow::Error {
        self.next().await;
        signalled.cancel();
        tracing::info!(?grace, "shutting down");
        health.shutting_down();
        stop.cancel();
        tokio::select! {
            () = self.next() => anyhow::anyhow!("ended by a second signal"),
            () = tokio::time::sleep(grace) => {
                anyhow::anyhow!("still busy {grace:?} (shutdownGracePeriod) after the signal")
            }
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
