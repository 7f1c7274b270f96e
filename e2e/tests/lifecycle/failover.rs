use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{DatabaseAccess, system::Authentication};
use tokio::time::Instant;

use crate::scene::{Scene, eventually, login};

/// At the kill at least half of it is left, and a take-over takes the lease of 3 s.
const TTL: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leading_renewer_does_not_lose_a_credential() -> Result<()> {
    let access = DatabaseAccess {
        default_ttl: format!("{}s", TTL.as_secs()),
        token_period: format!("{}s", TTL.as_secs()),
        ..DatabaseAccess::default()
    };
    let mut scene = Scene::start(access, Authentication::Legacy).await?;
    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;

    let mut leader = None;
    for (index, renewer) in scene.system.renewers.iter().enumerate() {
        if renewer.leads().await? {
            leader = Some(index);
        }
    }
    let leader = leader.context("one of the renewers leads")?;
    let mut killed = scene.system.renewers.remove(leader);
    killed.server.kill().await?;
    let at = Instant::now();
    let [heir] = &scene.system.renewers[..] else { panic!("two renewers, less one") };
    eventually(Duration::from_secs(6), async || {
        ensure!(heir.leads().await?, "the other renewer does not lead yet");
        Ok(())
    })
    .await?;
    eprintln!("the other renewer led {:?} after the leader was killed", at.elapsed());

    while at.elapsed() < TTL + Duration::from_secs(2) {
        ensure!(scene.opens_a_session(&main).await?, "the credential died {:?} after the kill", at.elapsed());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    ensure!(heir.metric("vdbi_renew_lease_count_success", &[]).await? >= 1.0);

    scene.system.renewers.clear();
    eventually(2 * TTL, async || {
        ensure!(!scene.opens_a_session(&main).await?, "nobody renews it, and it still lives");
        Ok(())
    })
    .await
    .context("the control: without a renewer the credential dies")
}
