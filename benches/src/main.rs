//! Measurements against real servers, which `hack/test-env` installs: what each means is in `docs/benchmarks.md`.
//!
//! ```console
//! $ cargo run --release -p benches -- admission
//! $ cargo run --release -p benches -- leadership
//! ```

mod admission;
mod leadership;
mod load;
mod memory;

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

#[derive(Debug, Parser)]
#[command(version, about = "Measures vdbi against real servers.")]
struct Arguments {
    #[command(subcommand)]
    what: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Admissions of the webhook beside the round trips to OpenBao that each cannot do without.
    Admission(AdmissionOptions),
    /// Fail-over, requests and cut-off leaders of the election beside client-go's; it takes six minutes.
    Leadership(LeadershipOptions),
    /// A process with candidates, which the measurement starts.
    #[command(hide = true)]
    Candidate(leadership::Candidates),
}

/// How long and with how many.
#[derive(Debug, Args)]
struct AdmissionOptions {
    /// How long each number of clients runs, for the admissions and for the bare round trips.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How many clients ask at the same time, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    clients: Vec<usize>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// How many.
#[derive(Debug, Args)]
struct LeadershipOptions {
    /// How many Leases fail over in each case.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=200))]
    leases: u16,
    /// How many candidates each Lease has, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "2,3,10", value_parser = clap::value_parser!(u16).range(2..=20))]
    candidates: Vec<u16>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().what {
        Measurement::Admission(AdmissionOptions { seconds, clients, json }) => {
            ensure!(
                !clients.is_empty() && clients.iter().all(|clients| (1..=256).contains(clients)),
                "--clients takes numbers from 1 to 256"
            );
            warn_of_debug_build();
            let report = admission::measure(&clients, Duration::from_secs(seconds)).await?;
            print(&report, json.then(|| report.json()));
        }
        Measurement::Leadership(LeadershipOptions { leases, candidates, json }) => {
            warn_of_debug_build();
            let report = leadership::measure(leases.into(), &candidates).await?;
            print(&report, json.then(|| report.json()));
        }
        Measurement::Candidate(candidates) => candidates.run().await?,
    }
    Ok(())
}

fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        eprintln!(
            "this is a debug build, and so is what it measures: its figures mean nothing, use --release"
        );
    }
}

fn print(report: &impl Display, json: Option<Value>) {
    match json {
        Some(json) => println!("{json:#}"),
        None => println!("{report}"),
    }
}
