//! Every outage, alone and with others: readiness and metrics say so, a pod that lives keeps its credential, one that is deleted
//! meanwhile loses it afterwards, and nobody storms what is back.

mod trial;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{OpenBao, Proxy, openbao};
use tokio::{
    time::{Instant, sleep},
    try_join,
};

use trial::{Trial, Vault};

/// Long enough for several attempts, and far shorter than any credential lives.
const OUTAGE: Duration = Duration::from_secs(5);

/// How long a credential lives where one outage follows another ...
const TTL: Duration = Duration::from_secs(30);

/// ... and where several come at once.
const LONGER: Duration = Duration::from_secs(50);

/// Of the pods that are deleted during an outage, so many that a stampede would show.
const GONE: usize = 40;

/// Answers of a Vault that does not serve: status, type, body.
const REFUSALS: [(u16, &str, &str); 4] = [
    (503, "application/json", r#"{"errors":["Vault is sealed"]}"#),
    (500, "application/json", r#"{"errors":["local node not active but active cluster node not found"]}"#),
    (429, "application/json", r#"{"errors":["request path \"sys\": rate limit quota exceeded"]}"#),
    (502, "text/html", "<html>Bad Gateway</html>"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_sealed_frozen_or_killed_loses_no_credential_and_is_not_stormed_afterwards()
-> Result<()> {
    try_join!(async { sealed_and_frozen().await.context("sealed, then frozen") }, async {
        killed().await.context("killed and started again")
    },)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_outages_in_any_order_lose_no_credential() -> Result<()> {
    try_join!(async { refusing().await.context("a proxy that answers for it") }, async {
        several_at_once().await.context("several at once")
    },)?;
    Ok(())
}

async fn sealed_and_frozen() -> Result<()> {
    let mut trial = Trial::start("sealed", Trial::servers(OpenBao::dev()).await?, None, TTL).await?;
    let began = Instant::now();
    trial.scene.cluster.openbao().seal().await?;
    trial.delete(0..GONE).await?;
    trial.says(Vault::Down, GONE).await?;
    sleep(OUTAGE.saturating_sub(began.elapsed())).await;
    trial.says(Vault::Down, GONE).await?;
    let rate = trial.revoker_rate().await?;
    trial.scene.cluster.openbao_mut().unseal().await?;
    trial.recovers(0..GONE, rate, 0).await?;

    trial.create(GONE..2 * GONE).await?;
    let frozen = Instant::now();
    trial.scene.cluster.openbao_mut().server_mut().stop()?;
    trial.delete(GONE..2 * GONE).await?;
    trial.says(Vault::Down, GONE).await?;
    sleep(OUTAGE.saturating_sub(frozen.elapsed())).await;
    let rate = trial.revoker_rate().await?;
    trial.scene.cluster.openbao_mut().server_mut().cont()?;
    // What was sent meanwhile, and given up after a second each, is carried out now.
    trial.recovers(GONE..2 * GONE, rate, 16 * 6).await?;
    trial.end(began).await?;
    assert_eq!(trial.scene.denied_requests()?, [""; 0]);
    Ok(())
}

async fn killed() -> Result<()> {
    if openbao::is_vault() {
        return Ok(());
    }
    let mut trial = Trial::start("killed", Trial::servers(OpenBao::raft()).await?, None, TTL).await?;
    let began = Instant::now();
    trial.scene.cluster.openbao_mut().server_mut().kill().await?;
    trial.delete(0..GONE).await?;
    trial.says(Vault::Down, GONE).await?;
    sleep(OUTAGE.saturating_sub(began.elapsed())).await;
    let rate = trial.revoker_rate().await?;
    trial.scene.cluster.openbao_mut().restart().await?;
    trial.recovers(0..GONE, rate, 0).await?;
    trial.end(began).await
}

async fn refusing() -> Result<()> {
    let cluster = Trial::servers(OpenBao::dev()).await?;
    let proxy = Proxy::start(cluster.openbao().url().trim_start_matches("http://").parse()?).await?;
    let trial = Trial::start("refusing", cluster, Some(&proxy), TTL).await?;
    let began = Instant::now();
    for (index, (status, kind, body)) in REFUSALS.into_iter().enumerate() {
        proxy.answer(status, kind, body);
        if index == 0 {
            trial.delete(0..GONE).await?;
        }
        let before = proxy.answered();
        sleep(OUTAGE / 4).await;
        trial.says(Vault::Down, GONE).await.context(body)?;
        eprintln!("{status} {body}: {} requests in {:?}", proxy.answered() - before, OUTAGE / 4);
    }
    // Pauses grow: each revocation was tried five times at most, beside the renewer's requests and the lists of the ledger.
    let answered = proxy.answered();
    ensure!(answered <= 5 * GONE + 60, "{answered} requests to a Vault that refuses all");
    let rate = trial.revoker_rate().await?;
    proxy.pass();
    trial.recovers(0..GONE, rate, 0).await?;
    trial.end(began).await?;
    assert_eq!(trial.scene.denied_requests()?, [""; 0]);
    Ok(())
}

async fn several_at_once() -> Result<()> {
    const FEW: usize = 15;
    // Of a new term, which knows nothing of the outage.
    const FULL: f64 = 1000.0;
    let mut trial = Trial::start("several", Trial::servers(OpenBao::dev()).await?, None, LONGER).await?;
    let began = Instant::now();

    eprintln!(
        "Vault sealed, pods deleted, API server killed; Vault unsealed; PostgreSQL stopped, API server back; PostgreSQL back"
    );
    trial.scene.cluster.openbao().seal().await?;
    trial.delete(0..FEW).await?;
    trial.says(Vault::Down, FEW).await?;
    trial.scene.cluster.kubernetes_mut().apiserver_mut().kill().await?;
    trial.nobody_leads().await?;
    trial.scene.cluster.openbao_mut().unseal().await?;
    sleep(Duration::from_secs(1)).await;
    ensure!(trial.scene.ledger_keys().await?.len() > GONE, "nobody leads, and yet something was revoked");
    trial.scene.cluster.postgres_mut().stop().await?;
    trial.scene.cluster.kubernetes_mut().restart_apiserver().await?;
    // Vault serves; its database does not.
    trial.says(Vault::Up, FEW).await?;
    trial.scene.cluster.postgres_mut().start_again().await?;
    trial.recovers(0..FEW, FULL, 0).await?;

    eprintln!(
        "PostgreSQL stopped, pods deleted, Vault sealed; PostgreSQL back; API server killed and back; Vault unsealed"
    );
    trial.scene.cluster.postgres_mut().stop().await?;
    trial.delete(FEW..2 * FEW).await?;
    trial.says(Vault::Up, FEW).await?;
    trial.scene.cluster.openbao().seal().await?;
    trial.says(Vault::Down, FEW).await?;
    trial.scene.cluster.postgres_mut().start_again().await?;
    trial.scene.cluster.kubernetes_mut().apiserver_mut().kill().await?;
    trial.scene.cluster.kubernetes_mut().restart_apiserver().await?;
    trial.scene.cluster.openbao_mut().unseal().await?;
    trial.recovers(FEW..2 * FEW, FULL, 0).await?;
    trial.end(began).await
}
