//! A rollout of two replicas behind a Service, under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    Balancer, Component, DatabaseAccess, Release, System,
    scene::{Scene, eventually},
    system::LABEL,
};
use serde_json::{Map, json};
use tokio::task::JoinSet;

const RATE: u32 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_two_replicas_under_fifty_admissions_a_second_loses_none() -> Result<()> {
    // Placeholders, so that what is measured is the webhook and not PostgreSQL; longer than the balancer takes to notice.
    let configuration = Map::from_iter([
        ("nri".to_owned(), json!({ "enabled": true })),
        ("webhook".to_owned(), json!({ "drainDelay": "2s" })),
    ]);
    let release = Release { configuration, ..Release::default() };
    let mut scene = Scene::with(DatabaseAccess::default(), release.clone()).await?;
    let start = async |index| {
        System::replica(&scene.cluster, &scene.access, &release, Component::Injector, index).await
    };
    let balancer = Balancer::start().await?;
    let add = |replica: &e2e::system::Replica| {
        balancer.add(replica.admission_address.unwrap(), replica.readiness());
    };
    let mut second = start(1).await?;
    add(&scene.system.injector);
    add(&second);
    let url = format!("https://{}/", balancer.address());
    scene.cluster.kubernetes().install_webhook(&url, &scene.system.ca_pem, LABEL).await?;
    let ready = |count| {
        let balancer = &balancer;
        eventually(Duration::from_secs(10), async move || {
            ensure!(balancer.ready() == count, "{} ready", balancer.ready());
            Ok(())
        })
    };
    ready(2).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut admissions = JoinSet::new();
    let (pods, pod) = (scene.pods(), scene.pod("web", &[("main.role", "app")]));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    admissions.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        let mut load = JoinSet::new();
        let mut stopped = std::pin::pin!(stopped);
        let mut sent = 0;
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = ticks.tick() => {
                    let (pods, mut pod) = (pods.clone(), pod.clone());
                    pod.metadata.name = Some(format!("web-{sent}"));
                    sent += 1;
                    load.spawn(async move { pods.create(&Default::default(), &pod).await });
                }
            }
        }
        let outcomes = load.join_all().await;
        let failed: Vec<String> =
            outcomes.iter().filter_map(|it| it.as_ref().err().map(kube::Error::to_string)).collect();
        (outcomes.len(), failed)
    });

    // The new one first, as a Deployment with maxUnavailable 0 does it; each in turn.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let third = start(2).await?;
    add(&third);
    ready(3).await?;
    let status = scene.system.injector.server.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}: {}", scene.system.injector.server.log_tail(20));
    let fourth = start(3).await?;
    add(&fourth);
    ready(3).await?;
    let status = second.server.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}: {}", second.server.log_tail(20));
    tokio::time::sleep(Duration::from_secs(1)).await;

    stop.send(()).unwrap();
    let (sent, failed) = admissions.join_next().await.unwrap()?;
    eprintln!("{sent} admissions during the rollout, {} failed", failed.len());
    assert_eq!(failed, [""; 0]);
    let by = async |replica: &e2e::system::Replica| {
        replica.metric("vdbi_admissions_total", &[r#"outcome="reserved""#]).await
    };
    let (third, fourth) = (by(&third).await?, by(&fourth).await?);
    ensure!(third + fourth > 0.0, "the new replicas took over: {third}, {fourth}");
    Ok(())
}
