//! A pod's credential from admission to revocation, in one process: the webhook, two renewers and two revokers, built from the
//! same crates as the binaries. Everything around them is embedded, or with `--openbao` real.

mod embedded;
mod narrator;
mod openbao;
mod release;
mod stage;
mod story;

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use vdbi_core::telemetry;

use crate::{embedded::Embedded, narrator::Narrator, openbao::OpenBaoStage};

#[derive(Debug, Parser)]
#[command(version, about = "Shows a pod's credential from its issue to its end.")]
struct Arguments {
    /// Use a real kube-apiserver, OpenBao and PostgreSQL, which hack/test-env installs.
    #[arg(long)]
    openbao: bool,
    /// Print one JSON object per step.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { openbao, json } = Arguments::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        telemetry::init_stderr();
    }
    // Only this process chooses a provider; a second choice would be the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let started = Instant::now();
    let narrator = Narrator::new(json, started);
    let story = async {
        if openbao {
            story::tell(OpenBaoStage::start(&narrator).await?, &narrator).await
        } else {
            story::tell(Embedded::start(), &narrator).await
        }
    };
    tokio::select! {
        told = story => match told {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                narrator.failed(&error);
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            narrator.interrupted();
            ExitCode::from(130)
        }
    }
}
