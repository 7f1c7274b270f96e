//! Measurements against real servers, which `hack/test-env` installs: what each means is in `docs/benchmarks.md`.
//!
//! ```console
//! $ cargo run --release -p benches -- admission
//! ```

mod admission;
mod load;
mod memory;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Measures vdbi against real servers.")]
struct Arguments {
    #[command(subcommand)]
    what: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Admissions of the webhook beside the round trips to OpenBao that each cannot do without.
    Admission(Options),
}

/// How long and with how many.
#[derive(Debug, Args)]
pub(crate) struct Options {
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

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { what: Measurement::Admission(options) } = Arguments::parse();
    ensure!(
        !options.clients.is_empty() && options.clients.iter().all(|clients| (1..=256).contains(clients)),
        "--clients takes numbers from 1 to 256"
    );
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build, and so is the injector: its figures mean nothing, use --release");
    }
    let report = admission::measure(&options.clients, Duration::from_secs(options.seconds)).await?;
    match options.json {
        true => println!("{:#}", report.json()),
        false => println!("{report}"),
    }
    Ok(())
}
