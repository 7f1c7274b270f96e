use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    DatabaseAccess,
    system::{Authentication, Replica},
};
use k8s_openapi::api::{coordination::v1::Lease, events::v1::Event};
use kube::{Api, api::ListParams};
use serde_json::json;
use tokio::time::Instant;
use vdbi_lifecycle::events;

use e2e::scene::{Scene, always, eventually, login};

/// Short, so that a credential which nobody renews is dead within the test.
const TTL: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_credential_lives_and_dies_with_the_pod_in_legacy_mode() -> Result<()> {
    a_pods_credential_lives_and_dies_with_the_pod(Authentication::Legacy).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_credential_lives_and_dies_with_the_pod_in_projected_mode() -> Result<()> {
    a_pods_credential_lives_and_dies_with_the_pod(Authentication::Projected).await
}

async fn a_pods_credential_lives_and_dies_with_the_pod(authentication: Authentication) -> Result<()> {
    let access = DatabaseAccess {
        default_ttl: format!("{}s", TTL.as_secs()),
        token_period: format!("{}s", TTL.as_secs()),
        ..DatabaseAccess::default()
    };
    let mut scene = Scene::start(access, authentication).await?;

    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let issued = Instant::now();
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;
    ensure!(scene.opens_a_session(&main).await?, "PostgreSQL refuses the new credential");
    let remains = scene.remains().await?;
    assert_eq!(remains.len(), 4, "a database user, a lease, an entry and a token: {remains:?}");
    let [id] = &scene.ledger_keys().await?[..] else { panic!("one pod, one entry") };
    let entry = scene
        .cluster
        .openbao()
        .root()
        .read(&format!("{}/data/{}/{id}", scene.access.mount, scene.access.prefix))
        .await?
        .context("the entry is there")?["data"]
        .clone();
    assert_eq!((&entry["Namespace"], &entry["PodName"]), (&json!("shop"), &json!("web")));
    assert_eq!(entry["TokenId"], "", "the raw token is not stored");
    assert_eq!(pod.metadata.annotations.unwrap_or_default()["db-creds-injector.numberly.io/uuid"], *id);

    for (component, replicas) in [("renewer", &scene.system.renewers), ("revoker", &scene.system.revokers)] {
        eventually(Duration::from_secs(5), async || one_leads(&scene, component, replicas).await).await?;
    }

    // Without a renewal both lease and token would be over by then.
    always(issued, 2 * TTL, async || {
        ensure!(scene.opens_a_session(&main).await?, "the credential died");
        Ok(())
    })
    .await?;

    scene.delete("web").await?;
    let deleted = Instant::now();
    eventually(Duration::from_secs(5), async || {
        ensure!(!scene.opens_a_session(&main).await?, "PostgreSQL still accepts the credential");
        Ok(())
    })
    .await?;
    eprintln!("{authentication:?}: refused {:?} after the deletion of the pod", deleted.elapsed());
    scene.nothing_remains(Duration::from_secs(5)).await?;

    assert_eq!(scene.denied_requests()?, [""; 0], "the least privileges suffice");
    for replica in scene.system.replicas_mut() {
        let status = replica.server.terminate(Duration::from_secs(10)).await?;
        ensure!(status.success(), "{status}: {}", replica.server.log_tail(20));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_several_databases_gets_a_credential_for_each() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let annotations = [
        ("role", "app"),
        ("main.env-key-dbuser", "MAIN_USER, ALSO_MAIN_USER"),
        ("main.env-key-dbpassword", "MAIN_PASSWORD"),
        ("reports.mode", "uri"),
        ("reports.env-key-uri", "REPORTS"),
        ("reports.template", "postgresql://127.0.0.1:5432/postgres?application_name=reports"),
    ];
    let pod = scene.create("web", &annotations).await?;
    let main = login(&pod, "MAIN_USER", "MAIN_PASSWORD")?;
    assert_eq!(login(&pod, "ALSO_MAIN_USER", "MAIN_USER")?.user, main.user);
    let reports = login(&pod, "REPORTS", "REPORTS")?.user;
    let authority = reports.strip_prefix("postgresql://").context(reports.clone())?;
    let (userinfo, rest) = authority.split_once('@').context("the URI has a login")?;
    assert_eq!(rest, "127.0.0.1:5432/postgres?application_name=reports");
    let (user, password) = userinfo.split_once(':').context("the login has a password")?;
    assert_ne!(user, main.user);
    let reports = e2e::scene::Login { user: user.into(), password: password.into() };
    ensure!(scene.opens_a_session(&main).await? && scene.opens_a_session(&reports).await?);
    assert_eq!(scene.ledger_keys().await?.len(), 2);

    scene.delete("web").await?;
    scene.nothing_remains(Duration::from_secs(5)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_touches_nothing_and_a_finished_pod_loses_its_credential() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let pod = scene.pod("web", &[("main.role", "app")]);
    let dry_run = kube::api::PostParams { dry_run: true, ..Default::default() };
    let before = scene.cluster.openbao().requests()?.len();
    let answer = scene.pods().create(&dry_run, &pod).await?;
    assert_eq!(login(&answer, "DBUSER", "DBPASSWORD")?.user, "dry-run");
    let issues = scene.cluster.openbao().requests()?.split_off(before);
    let issues: Vec<_> = issues.iter().filter(|request| request.path.contains("creds")).collect();
    assert!(issues.is_empty(), "{issues:?}");

    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;
    ensure!(scene.opens_a_session(&main).await?);
    let succeeded = kube::api::Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
    scene.pods().patch_status("web", &Default::default(), &succeeded).await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;
    ensure!(!scene.opens_a_session(&main).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_is_told_that_its_credential_reaches_max_ttl_and_that_it_is_lost() -> Result<()> {
    let access =
        DatabaseAccess { default_ttl: "6s".into(), max_ttl: "16s".into(), ..DatabaseAccess::default() };
    let scene = Scene::start(access, Authentication::Legacy).await?;
    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;

    is_told(&scene, events::ENDING).await?;
    ensure!(scene.opens_a_session(&main).await?, "it is told in time");
    is_told(&scene, events::LOST).await?;
    ensure!(!scene.opens_a_session(&main).await?);
    let counted = async |metric| {
        let mut sum = 0.0;
        for replica in &scene.system.renewers {
            sum += replica.metric(metric, &[r#"namespace="shop""#]).await.unwrap_or_default();
        }
        anyhow::Ok(sum)
    };
    assert_eq!(counted("vdbi_ending_credentials_total").await?, 1.0);
    assert_eq!(counted("vdbi_lost_credentials_total").await?, 1.0);
    assert_eq!(scene.ledger_keys().await?.len(), 1, "the renewer never revokes");
    assert_eq!(scene.denied_requests()?, [""; 0], "the least privileges suffice");
    Ok(())
}

/// Waits for an event on the pod `web`.
async fn is_told(scene: &Scene, reason: &str) -> Result<()> {
    let events = Api::<Event>::namespaced(scene.cluster.kubernetes().admin(), &scene.access.namespace);
    eventually(Duration::from_secs(30), async || {
        let events = events.list(&ListParams::default()).await?.items;
        let told = events.iter().find(|event| event.reason.as_deref() == Some(reason));
        let told = told.with_context(|| format!("no event {reason}"))?;
        let pod = told.regarding.as_ref().context("it is about something")?;
        ensure!((pod.kind.as_deref(), pod.name.as_deref()) == (Some("Pod"), Some("web")), "{pod:?}");
        ensure!(told.note.as_deref().is_some_and(|note| note.contains("database main")), "{told:?}");
        Ok(())
    })
    .await
}

/// By the Lease that carries the release's name, and by the metrics of the replicas.
async fn one_leads(scene: &Scene, component: &str, replicas: &[Replica]) -> Result<()> {
    let name = format!("{}-{component}", scene.access.release);
    let leases = Api::<Lease>::namespaced(scene.cluster.kubernetes().admin(), &scene.access.system_namespace);
    let lease = leases.get(&name).await?.spec.unwrap_or_default();
    let holder = lease.holder_identity.context("somebody holds the lease")?;
    let lease_name = format!(r#"lease_name="{name}""#);
    let labels = [&lease_name, &format!(r#"leader_name="{holder}""#), &format!(r#"mode="{component}""#)];
    let mut leaders = 0;
    for replica in replicas {
        let held =
            replica.metric("vdbi_leader_election_duration_seconds", &labels.map(String::as_str)).await?;
        ensure!(replica.leads().await? == (held > 0.0), "only the leader tells how long it has led");
        leaders += usize::from(held > 0.0);
        ensure!(
            replica.metric("vdbi_leader_election_watch_connected", &[&lease_name]).await? == 1.0,
            "no watch"
        );
    }
    ensure!(leaders == 1, "{leaders} {component}s lead");
    Ok(())
}
