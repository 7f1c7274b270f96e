//! A whole NRI plugin: it sets `GREETING` in every container of the node.
//!
//! ```sh
//! cargo run -p vdbi-nri --example hello -- /var/run/nri/nri.sock
//! ```
//!
//! `examples/custom-nri` is one for use: with options, signals, logs, refusals, its tests and a DaemonSet.

use std::{env, error::Error, path::PathBuf};

use vdbi_core::metrics::Registry;
use vdbi_nri::stub::{Adjustment, ContainerInjector, Creation, Refused, Settings, Stub};

/// The plugin.
pub struct Hello;

impl ContainerInjector for Hello {
    async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
        let mut adjustment = Adjustment::default();
        adjustment.set_env("GREETING", format!("hello {}", creation.pod.name))?;
        Ok(adjustment)
    }
}

/// The plugin on a socket, for the name and the index it is to have.
pub fn stub(socket: PathBuf) -> Result<Stub<Hello>, Box<dyn Error>> {
    let mut settings = Settings::new("hello", "20")?;
    settings.socket = socket;
    Ok(Stub::new(settings, Hello, &Registry::disabled()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = env::args_os().nth(1).ok_or("the path of the NRI socket is missing")?;
    let interrupted = async {
        // Without the signal there is nothing to wait for.
        let _ = tokio::signal::ctrl_c().await;
    };
    stub(socket.into())?.run(interrupted).await;
    Ok(())
}
