use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{DatabaseAccess, system::Authentication};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::Api;
use tokio::time::{Instant, sleep};

use e2e::scene::{Scene, always, eventually, login};

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

    always(at, TTL + Duration::from_secs(2), async || {
        ensure!(scene.opens_a_session(&main).await?, "the credential died after the kill");
        Ok(())
    })
    .await?;
    ensure!(heir.metric("vdbi_renew_lease_count_success", &[]).await? >= 1.0);

    scene.system.renewers.clear();
    eventually(2 * TTL, async || {
        ensure!(!scene.opens_a_session(&main).await?, "nobody renews it, and it still lives");
        Ok(())
    })
    .await
    .context("the control: without a renewer the credential dies")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoker_that_is_paused_in_the_middle_of_a_pass_does_nothing_more_in_that_term() -> Result<()> {
    const PODS: usize = 60;
    const PAUSE: Duration = Duration::from_secs(4);

    let mut scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    for index in 0..PODS {
        scene.create(&format!("web-{index}"), &[("main.role", "app")]).await?;
    }
    // One alone, so that what it leaves undone stays undone.
    let mut revoker = scene.system.revokers.remove(0);
    scene.system.revokers.clear();
    eventually(Duration::from_secs(10), async || {
        ensure!(revoker.leads().await?, "it does not lead yet");
        Ok(())
    })
    .await?;

    let revoked = |scene: &Scene| scene.cluster.openbao().count_requests("sys/leases/revoke");
    let pods = scene.pods();
    let delete = async {
        for index in 0..PODS {
            pods.delete(&format!("web-{index}"), &Default::default()).await?;
        }
        anyhow::Ok(())
    };
    let pause = async {
        let start = Instant::now();
        while revoked(&scene)? < PODS / 6 {
            ensure!(start.elapsed() < Duration::from_secs(20), "no pass begins");
            sleep(Duration::from_millis(2)).await;
        }
        revoker.server.stop()
    };
    tokio::try_join!(delete, pause)?;
    sleep(PAUSE).await;
    let before = revoked(&scene)?;
    ensure!(before < PODS, "paused in the middle");

    let woken = Timestamp::now();
    revoker.server.cont()?;
    let name = format!("{}-revoker", scene.access.release);
    let leases = Api::<Lease>::namespaced(scene.cluster.kubernetes().admin(), &scene.access.system_namespace);
    // Woken after `abortAfter`, it may end itself before its work has noticed.
    let mut end = acquired(&leases, &name).await?;
    while revoker.server.is_running()? && end < woken {
        ensure!(Timestamp::now().duration_since(woken).as_secs() < 20, "it neither leads again nor ends");
        sleep(Duration::from_millis(100)).await;
        end = acquired(&leases, &name).await?;
    }
    if !revoker.server.is_running()? {
        let status = revoker.server.wait_exit(Duration::ZERO).await?;
        assert_eq!(status.signal(), Some(6), "SIGABRT: {status}");
        sleep(Duration::from_secs(1)).await;
        end = Timestamp::now();
    }
    let between = scene.cluster.openbao().requests()?.into_iter().filter(|request| {
        let effect = !["auth/token/renew-self", "auth/kubernetes/login"].contains(&request.path.as_str());
        let revoker = request.display_name.ends_with("revoker");
        effect && revoker && woken < request.time && request.time < end
    });
    assert_eq!(between.collect::<Vec<_>>(), []);
    eprintln!("{before} of {PODS} were revoked before the pause, and none in {} after it", end - woken);
    Ok(())
}

async fn acquired(leases: &Api<Lease>, name: &str) -> Result<Timestamp> {
    let spec = leases.get(name).await?.spec.unwrap_or_default();
    Ok(spec.acquire_time.context("the lease says when it was won")?.0)
}
