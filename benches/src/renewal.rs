//! Renewals of real credentials: how fast, for how many requests, and what renewer and revoker hold in memory meanwhile.

mod entries;
mod report;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::scene::eventually;
use e2e::system::{AnotherProgram, Replica};
use e2e::{Cluster, Component, DatabaseAccess, OpenBao, Release, System};
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use crate::memory::Memory;
use report::{Economy, Report, Size};

/// Signs the entries.
const CLUSTER: &str = "bench";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(900);

/// Credentials whose requests are counted.
const COUNTED: usize = 200;

/// How long a lease lives whose requests are counted. Short, so that hours pass in minutes.
const SHORT_TTL: Duration = Duration::from_secs(30);

/// Renews all of so many credentials at once, for each number; and counts the requests of some over several lives.
///
/// # Errors
///
/// When a server does not start, or a credential is lost.
pub(crate) async fn measure(sizes: &[usize], lives: u32, program: Option<AnotherProgram>) -> Result<Report> {
    let (cluster, access) = start("1h").await?;
    let (mut rows, mut entries) = (Vec::new(), 0);
    for (index, &size) in sizes.iter().enumerate() {
        let began = Instant::now();
        entries::add(&cluster, &access, entries..size).await?;
        entries = entries.max(size);
        eprintln!("{size} credentials, entries and pods, the last of them made in {:?}", began.elapsed());
        rows.push(self::size(&cluster, &access, program.clone(), index, size).await?);
    }
    drop(cluster);
    Ok(Report { sizes: rows, economy: economy(lives, program).await? })
}

async fn start(default_ttl: &str) -> Result<(Cluster, DatabaseAccess)> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    // The default tokenTTL.
    let access = DatabaseAccess {
        default_ttl: default_ttl.into(),
        token_period: "768h".into(),
        ..DatabaseAccess::default()
    };
    cluster.configure_database_access(&access).await?;
    Ok((cluster, access))
}

/// A leader that knows nothing renews everything at once, as after a fail-over.
async fn size(
    cluster: &Cluster,
    access: &DatabaseAccess,
    program: Option<AnotherProgram>,
    index: usize,
    size: usize,
) -> Result<Size> {
    let configuration = Map::from_iter([
        ("clusterId".to_owned(), json!(CLUSTER)),
        // More than the servers can do.
        ("vaultRateLimit".to_owned(), json!(5000)),
        ("revoker".to_owned(), json!({ "interval": "1h" })),
        ("syncTTLSecond".to_owned(), json!(300)),
    ]);
    let release = Release { replicas: 1, configuration, program, ..Release::default() };
    let before = cluster.openbao().requests()?.len();
    let mut renewer = System::replica(cluster, access, &release, Component::Renewer, index).await?;
    leads(&renewer).await?;
    let began = Instant::now();
    renewed(&renewer, size).await?;
    let took = began.elapsed();
    let requests = of(cluster, before, "-renewer")?;
    let idle = Memory::of(renewer.server.pid())?;

    let mut revoker = System::replica(cluster, access, &release, Component::Revoker, index).await?;
    eventually(PATIENCE, async || {
        let live = revoker.metric("vdbi_ledger_entries", &[r#"state="live""#]).await?;
        ensure!(live == size as f64, "{live} of {size} entries live");
        Ok(())
    })
    .await?;
    let row = Size { size, took, requests, renewer: idle, revoker: Memory::of(revoker.server.pid())? };
    eprintln!("{size} entries: all renewed within {took:?}");
    ensure!(renewer.metric("vdbi_lost_credentials_total", &[]).await? == 0.0, "credentials were lost");
    for replica in [&mut renewer, &mut revoker] {
        replica.server.terminate(Duration::from_secs(20)).await?;
    }
    Ok(row)
}

/// Leases that live for seconds in place of an hour; everything else is as it is for those of an hour.
async fn economy(lives: u32, program: Option<AnotherProgram>) -> Result<Economy> {
    let (cluster, access) = start(&format!("{}s", SHORT_TTL.as_secs())).await?;
    entries::add(&cluster, &access, 0..COUNTED).await?;
    let configuration = Map::from_iter([
        ("clusterId".to_owned(), json!(CLUSTER)),
        ("syncTTLSecond".to_owned(), json!(SHORT_TTL.as_secs() / 12)),
    ]);
    let release = Release { replicas: 1, configuration, program, ..Release::default() };
    let renewer = System::replica(&cluster, &access, &release, Component::Renewer, 0).await?;
    // Everything has been read and renewed once: from now on leases are renewed by their lives.
    renewed(&renewer, COUNTED).await?;
    let before = cluster.openbao().requests()?.len();
    sleep(SHORT_TTL * lives).await;
    let requests = of(&cluster, before, "-renewer")?;
    ensure!(renewer.metric("vdbi_lost_credentials_total", &[]).await? == 0.0, "credentials were lost");
    Ok(Economy { entries: COUNTED, lives, requests })
}

async fn leads(replica: &Replica) -> Result<()> {
    eventually(PATIENCE, async || {
        ensure!(replica.leads().await?, "it does not lead yet");
        Ok(())
    })
    .await
}

/// Waits until lease and token of so many credentials have been renewed.
async fn renewed(renewer: &Replica, size: usize) -> Result<()> {
    eventually(PATIENCE, async || {
        for metric in ["vdbi_renew_lease_count_success", "vdbi_renew_token_count_success"] {
            let renewed = renewer.metric(metric, &[]).await?;
            ensure!(renewed >= size as f64, "{metric} is {renewed}");
        }
        Ok(())
    })
    .await
}

/// The requests of one component since then.
fn of(cluster: &Cluster, before: usize, component: &str) -> Result<usize> {
    let requests = cluster.openbao().requests()?;
    Ok(requests[before..].iter().filter(|request| request.display_name.ends_with(component)).count())
}
