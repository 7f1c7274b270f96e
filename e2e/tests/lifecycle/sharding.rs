use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{DatabaseAccess, Release, system::Replica};
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use e2e::scene::{Scene, eventually, login};

const SHARDS: f64 = 8.0;
const PODS: usize = 24;

/// At the kill at least half of it is left, and a take-over takes the lease of 3 s.
const TTL: Duration = Duration::from_secs(16);

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_share_eight_shards_and_the_others_take_over_from_one_that_is_killed() -> Result<()> {
    let ttl = format!("{}s", TTL.as_secs());
    let access = DatabaseAccess { default_ttl: ttl.clone(), token_period: ttl, ..DatabaseAccess::default() };
    let release = Release {
        replicas: 3,
        configuration: Map::from_iter([("shards".to_owned(), json!(8))]),
        ..Release::default()
    };
    let mut scene = Scene::with(access, release).await?;
    let mut logins = Vec::new();
    for index in 0..PODS {
        let pod = scene.create(&format!("web-{index}"), &[("main.role", "app")]).await?;
        logins.push(login(&pod, "DBUSER", "DBPASSWORD")?);
    }
    for replicas in [&scene.system.renewers, &scene.system.revokers] {
        share(replicas, 2.0, 3.0).await?;
    }
    eventually(Duration::from_secs(10), async || {
        let entries = sum(&scene.system.renewers, "vdbi_renewer_entries").await?;
        ensure!(entries == PODS as f64, "{entries} entries are renewed");
        Ok(())
    })
    .await?;

    let mut killed = [scene.system.renewers.remove(0), scene.system.revokers.remove(0)];
    for replica in &mut killed {
        replica.server.kill().await?;
    }
    let at = Instant::now();
    for replicas in [&scene.system.renewers, &scene.system.revokers] {
        share(replicas, 4.0, 4.0).await?;
    }
    eprintln!("the others led four shards each {:?} after the kill", at.elapsed());
    while at.elapsed() < 2 * TTL {
        for login in &logins {
            ensure!(
                scene.opens_a_session(login).await?,
                "a credential died {:?} after the kill",
                at.elapsed()
            );
        }
        sleep(Duration::from_millis(500)).await;
    }
    let entries = sum(&scene.system.renewers, "vdbi_renewer_entries").await?;
    ensure!(entries == PODS as f64, "{entries} entries are renewed");

    let deleted = Instant::now();
    for index in 0..PODS {
        scene.delete(&format!("web-{index}")).await?;
    }
    scene.nothing_remains(Duration::from_secs(20)).await?;
    eprintln!("nothing was left {:?} after the first deletion", deleted.elapsed());
    let requests = scene.cluster.openbao().requests()?;
    let revocations = requests.iter().filter(|request| request.path.starts_with("sys/leases/revoke"));
    let revoked: Vec<_> = revocations
        .map(|request| request.lease.clone().context("it names a lease"))
        .collect::<Result<_>>()?;
    assert_eq!(revoked.len(), PODS, "each was revoked once");
    assert_eq!(revoked.iter().collect::<HashSet<_>>().len(), PODS);
    assert_eq!(scene.denied_requests()?, [""; 0], "the least privileges suffice");
    Ok(())
}

/// Waits until every shard has a leader, and every replica so many shards.
async fn share(replicas: &[Replica], least: f64, most: f64) -> Result<()> {
    eventually(Duration::from_secs(60), async || {
        let mut leads = Vec::new();
        for replica in replicas {
            leads.push(replica.metric("vdbi_is_leader", &[]).await?);
        }
        let even = leads.iter().all(|leads| (least..=most).contains(leads));
        ensure!(even && leads.iter().sum::<f64>() == SHARDS, "{leads:?}");
        Ok(())
    })
    .await
}

async fn sum(replicas: &[Replica], metric: &str) -> Result<f64> {
    let mut sum = 0.0;
    for replica in replicas {
        sum += replica.metric(metric, &[]).await?;
    }
    Ok(sum)
}
