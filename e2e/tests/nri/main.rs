//! containerd in each of the versions that the node plugin supports, driven as a kubelet drives it. It takes root.

mod credentials;
mod harness;
mod node;
mod plugin;
mod stub;

use anyhow::{Context, Result};
use e2e::Version;
use futures::future::try_join_all;

/// Does the same over these versions, all at the same time.
pub(crate) async fn on(versions: &[Version], test: impl AsyncFn(Version) -> Result<()>) -> Result<()> {
    let test = &test;
    let run = async |&version| test(version).await.with_context(|| format!("on containerd {version:?}"));
    let run = &run;
    try_join_all(versions.iter().map(run)).await.map(drop)
}
