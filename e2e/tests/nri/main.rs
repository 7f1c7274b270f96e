//! containerd in each of the versions that the node plugin supports, driven as a kubelet drives it. It takes root.

mod credentials;
mod doctor;
mod facts;
mod harness;
mod node;
mod plugin;
mod stub;

use std::{panic::resume_unwind, thread};

use anyhow::{Context, Result};
use e2e::Version;
use tokio::runtime::Builder;

/// Does the same over these versions at the same time, each on a thread of its own: the end of a machine takes a second or two, in
/// which its thread does nothing else.
pub(crate) async fn on(versions: &[Version], test: impl AsyncFn(Version) -> Result<()> + Sync) -> Result<()> {
    let run = |version| Builder::new_current_thread().enable_all().build()?.block_on(test(version));
    let run = &run;
    thread::scope(|scope| {
        let runs: Vec<_> =
            versions.iter().map(|&version| (version, scope.spawn(move || run(version)))).collect();
        let mut outcomes = runs.into_iter().map(|(version, run)| {
            let outcome = run.join().unwrap_or_else(|panic| resume_unwind(panic));
            outcome.with_context(|| format!("on containerd {version:?}"))
        });
        outcomes.try_for_each(|outcome| outcome)
    })
}
