use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vdbi_core::leadership::{Leadership, Term};
use vdbi_core::metrics::Registry;
use vdbi_lifecycle::election::{BoottimeClock, Identity, LeaseElection, LeaseRef, Settings};

use super::NAMESPACE;

/// A process with one candidate for each of many Leases. It prints `leading INDEX` and `stopped INDEX`, and stops the candidates
/// whose `INDEX` it reads, as `client-go/main.go` does.
#[derive(Debug, Args)]
pub(crate) struct Candidates {
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Of the Leases' names.
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    leases: usize,
    #[arg(long)]
    pod: String,
    /// The seconds over which the candidates begin.
    #[arg(long)]
    spread: u32,
}

impl Candidates {
    /// Until the end of standard input.
    pub(crate) async fn run(self) -> Result<()> {
        let mut running = JoinSet::new();
        let mut shutdowns = Vec::new();
        for lease in 0..self.leases {
            let election = self.election(lease).await?;
            let pause = Duration::from_secs(1).mul_f64(f64::from(self.spread) * rand::random::<f64>());
            let shutdown = CancellationToken::new();
            shutdowns.push(shutdown.clone());
            running.spawn(async move {
                tokio::time::sleep(pause).await;
                election.run(move |term| lead(lease, term), shutdown).await
            });
        }
        let mut lines = BufReader::new(stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            let shutdown: &CancellationToken =
                shutdowns.get(line.parse::<usize>()?).context("no such Lease")?;
            shutdown.cancel();
        }
        Ok(())
    }

    async fn election(&self, lease: usize) -> Result<LeaseElection> {
        let client = e2e::kubernetes::client(&self.kubeconfig).await?;
        let identity = Identity::new(&self.pod).with_uid(&self.pod);
        let settings = Settings::new(
            LeaseRef { namespace: NAMESPACE.to_owned(), name: format!("{}-{lease}", self.prefix) },
            identity,
        );
        Ok(LeaseElection::new(client, settings, Arc::new(BoottimeClock), &Registry::disabled())?)
    }
}

async fn lead(lease: usize, term: Term) -> Result<(), vdbi_core::leadership::WorkError> {
    println!("leading {lease}");
    // The end of the right to act, whichever way it ends.
    while term.check().is_ok() {
        let _over = term.wait(tokio::time::sleep(term.remaining())).await;
    }
    println!("stopped {lease}");
    Ok(())
}
