//! Measurements against real servers, which `hack/test-env` installs: what each means is in `docs/benchmarks.md`.
//!
//! ```console
//! $ cargo run --release -p benches -- admission
//! $ cargo run --release -p benches -- latency
//! $ cargo run --release -p benches -- endurance
//! $ cargo run --release -p benches -- leadership
//! $ cargo run --release -p benches -- revocation
//! $ cargo run --release -p benches -- renewal
//! $ cargo run --release -p benches -- scale
//! $ cargo run --release -p benches -- node-plugin
//! ```

mod admission;
mod latency;
mod leadership;
mod load;
mod memory;
mod node_plugin;
mod renewal;
mod revocation;
mod scale;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use e2e::system::AnotherProgram;
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
    /// Pods through the real API server at 10, 50 and 100 a second, with OpenBao at 0, 5, 50 and 500 ms.
    Latency {
        /// How long each rate runs at each latency.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// The injector's memory over many admissions, and how long it takes to start.
    Endurance {
        /// How many admissions.
        #[arg(long, default_value_t = 10_000)]
        admissions: usize,
    },
    /// Fail-over, requests and cut-off leaders of the election beside client-go's; it takes six minutes.
    Leadership(LeadershipOptions),
    /// From the deletion of a pod to the end of its database role, one at a time and many at once.
    Revocation {
        /// How many pods are deleted one at a time.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
        pods: u32,
        /// How many pods are deleted at once.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
        burst: u32,
        #[command(flatten)]
        program: GivenProgram,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// How long it takes to renew real credentials, for how many requests, and the memory of renewer and revoker meanwhile.
    Renewal {
        /// How many credentials, one measurement for each number; they grow.
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        entries: Vec<usize>,
        /// Over how many lives of 30 s requests are counted.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
        lives: u32,
        #[command(flatten)]
        program: GivenProgram,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Renewals of up to a million credentials over a day of virtual time, beside the Go product's algorithm; it needs no server.
    Scale {
        /// Virtual hours.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=240))]
        hours: u64,
        /// Only the cases of at most so many entries.
        #[arg(long, default_value_t = 1_000_000)]
        largest: usize,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// The creation of containers with the node plugin, beside a containerd without one, and the plugin's memory. It takes root.
    NodePlugin {
        /// How many pods, for each measurement.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=250))]
        pods: u32,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// A process with candidates, which the measurement starts.
    #[command(hide = true)]
    Candidate(leadership::Candidates),
}

/// Which build is measured.
#[derive(Debug, Args)]
struct GivenProgram {
    /// A program of all components, such as the static one that `hack/image` builds, in place of a build for each component.
    #[arg(long)]
    program: Option<PathBuf>,
}

impl GivenProgram {
    fn find(self) -> Result<Option<AnotherProgram>> {
        let Some(path) = self.program else { return Ok(None) };
        let path = path.canonicalize().with_context(|| format!("--program {}", path.display()))?;
        Ok(Some(AnotherProgram { path, environment: Vec::new() }))
    }
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
        Measurement::Latency { seconds } => {
            warn_of_debug_build();
            println!("{}", latency::measure(Duration::from_secs(seconds)).await?);
        }
        Measurement::Endurance { admissions } => {
            warn_of_debug_build();
            println!("{}", admission::endurance::measure(admissions).await?);
        }
        Measurement::Leadership(LeadershipOptions { leases, candidates, json }) => {
            warn_of_debug_build();
            let report = leadership::measure(leases.into(), &candidates).await?;
            print(&report, json.then(|| report.json()));
        }
        Measurement::Revocation { pods, burst, program, json } => {
            warn_of_debug_build();
            let report = revocation::measure(pods as usize, burst as usize, program.find()?).await?;
            print(&report, json.then(|| report.json()));
        }
        Measurement::Renewal { entries, lives, program, json } => {
            ensure!(
                entries.is_sorted() && entries.iter().all(|entries| (1..=100_000).contains(entries)),
                "--entries takes growing numbers from 1 to 100000"
            );
            warn_of_debug_build();
            let report = renewal::measure(&entries, lives, program.find()?).await?;
            print(&report, json.then(|| report.json()));
        }
        Measurement::Scale { hours, largest, json } => {
            warn_of_debug_build();
            let report = scale::measure(hours, largest)?;
            print(&report, json.then(|| report.json()));
        }
        Measurement::NodePlugin { pods, json } => {
            warn_of_debug_build();
            let report = node_plugin::measure(pods as usize).await?;
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
