//! The stock webhook, with this policy around the stock ones.

use std::process::ExitCode;

use bootstrap::{Process, Vault};
use custom_policy::AgentDialect;
use vdbi_core::config::Component;

fn main() -> ExitCode {
    bootstrap::run::<Vault>(Component::Injector, std::env::args(), run)
}

async fn run(process: &mut Process) -> anyhow::Result<()> {
    let config = process.config.clone();
    if config.nri.enabled {
        injector::serve::<Vault>(process, AgentDialect::new(injector::placeholder(&config))).await
    } else {
        injector::serve::<Vault>(process, AgentDialect::new(injector::plaintext(&config))).await
    }
}
