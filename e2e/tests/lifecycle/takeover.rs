//! Whose an entry is: bound to its pod, taken over from the Go product, or another release's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Component, DatabaseAccess, Release, System,
    openbao::is_vault,
    scene::{Login, PREFIX, Scene, always, eventually, login},
    system::{Authentication, LABEL},
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// Short, so that a credential which nobody renews is dead within the test.
const TTL: Duration = Duration::from_secs(6);

/// As the Go product makes them: version 1.
const GO_UUID: &str = "8a6e0804-2bd0-11f0-9cd2-0242ac120002";

/// A credential as the Go product issues it, with its entry: a token of its own with the policy `default`, stored as it is.
async fn credential_of_the_go_product(scene: &Scene) -> Result<Login> {
    let (bao, DatabaseAccess { role, engine, mount, prefix, .. }) =
        (scene.cluster.openbao().root(), &scene.access);
    let token = json!({ "policies": [role], "period": format!("{}s", TTL.as_secs()) });
    let token = bao.write("auth/token/create-orphan", &token).await?["auth"]["client_token"].clone();
    let token = token.as_str().context("a token")?;
    let creds =
        bao.with_token(token).read_answer(&format!("{engine}/creds/{role}")).await?.context("a login")?;
    let fields = json!({
        "LeaseId": creds["lease_id"], "TokenId": token, "Namespace": scene.access.namespace,
        "ServiceAccountName": scene.access.service_account, "PodName": "", "NodeName": "",
    });
    bao.write(&format!("{mount}/data/{prefix}/{GO_UUID}"), &json!({ "data": fields })).await?;
    let text = |key: &str| creds["data"][key].as_str().unwrap_or_default().to_owned();
    Ok(Login { user: text("username"), password: text("password") })
}

async fn entry(scene: &Scene, id: &str) -> Result<Value> {
    let path = format!("{}/data/{}/{id}", scene.access.mount, scene.access.prefix);
    let entry = scene.cluster.openbao().root().read(&path).await?.context("the entry is there")?;
    Ok(entry["data"].clone())
}

fn short_lived() -> DatabaseAccess {
    let ttl = format!("{}s", TTL.as_secs());
    DatabaseAccess { default_ttl: ttl.clone(), token_period: ttl, ..DatabaseAccess::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_the_go_product_is_taken_over_lives_on_and_ends_with_its_pod() -> Result<()> {
    let scene = Scene::start(short_lived(), Authentication::Legacy).await?;
    let main = credential_of_the_go_product(&scene).await?;
    let issued = Instant::now();
    // The Go product's webhook has admitted it, ours has never seen it.
    let mut pod = scene.pod("web", &[("main.role", "app")]);
    pod.metadata.labels = None;
    let pod = scene.pods().create(&PostParams::default(), &pod).await?;
    let change = json!({ "metadata": {
        "labels": { LABEL: "true" }, "annotations": { format!("{PREFIX}uuid"): GO_UUID },
    } });
    scene.pods().patch("web", &PatchParams::default(), &Patch::Merge(&change)).await?;

    eventually(Duration::from_secs(5), async || {
        let entry = entry(&scene, GO_UUID).await?;
        ensure!(entry["PodUid"].as_str() == pod.metadata.uid.as_deref(), "not bound: {}", entry["PodUid"]);
        ensure!(entry["PodName"] == "web" && entry["Release"] == scene.access.release);
        ensure!(entry["TokenId"] == "" && entry["TokenAccessor"] != "", "the token is still stored");
        Ok(())
    })
    .await?;
    always(issued, 2 * TTL, async || {
        ensure!(scene.opens_a_session(&main).await?, "the credential died");
        Ok(())
    })
    .await?;
    scene.delete("web").await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;
    ensure!(!scene.opens_a_session(&main).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_reads_no_entry_that_is_bound_where_openbao_tells_them_all() -> Result<()> {
    let mut scene = Scene::start(short_lived(), Authentication::Legacy).await?;
    let mut logins = Vec::new();
    for name in ["one", "two", "three"] {
        let pod = scene.create(name, &[("main.role", "app")]).await?;
        logins.push(login(&pod, "DBUSER", "DBPASSWORD")?);
        let uid = pod.metadata.uid.context("a pod has a uid")?;
        let id = pod.metadata.annotations.unwrap_or_default().remove(&format!("{PREFIX}uuid"));
        let id = id.context("a pod has an entry")?;
        eventually(Duration::from_secs(5), async || {
            ensure!(entry(&scene, &id).await?["PodUid"] == *uid, "not bound");
            Ok(())
        })
        .await?;
    }
    for renewer in &mut scene.system.renewers {
        renewer.server.terminate(Duration::from_secs(10)).await?;
    }
    let new =
        System::replica(&scene.cluster, &scene.access, &Release::default(), Component::Renewer, 7).await?;
    eventually(Duration::from_secs(10), async || {
        ensure!(new.metric("vdbi_renewer_entries", &[]).await? == 3.0, "it does not know all");
        ensure!(new.metric("vdbi_renew_lease_count_success", &[]).await? >= 3.0, "not renewed");
        Ok(())
    })
    .await?;
    let reads = new.metric("vdbi_vault_requests_total", &[r#"operation="read_entry""#]).await?;
    assert_eq!(reads, if is_vault() { 3.0 } else { 0.0 });
    for login in &logins {
        ensure!(scene.opens_a_session(login).await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_release_on_the_same_ledger_leaves_our_credentials_alone() -> Result<()> {
    let scene = Scene::start(short_lived(), Authentication::Legacy).await?;
    let dev: Map<String, Value> = [
        ("release", json!("dev")),
        ("injectorLabel", json!("vault-db-injector-dev")),
        ("revoker", json!({ "interval": "500ms", "gracePeriod": "0s", "brakeShare": 1.0 })),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    let dev = Release { configuration: dev, ..Release::default() };
    let revoker = System::replica(&scene.cluster, &scene.access, &dev, Component::Revoker, 7).await?;
    let renewer = System::replica(&scene.cluster, &scene.access, &dev, Component::Renewer, 7).await?;
    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;
    eventually(Duration::from_secs(10), async || {
        ensure!(revoker.metric("vdbi_ledger_entries", &[r#"state="foreign""#]).await? == 1.0, "not seen");
        Ok(())
    })
    .await?;
    // No pod has its label, and every sweep of it would be believed.
    let swept = revoker.metric("vdbi_pod_cleanup_count_success", &[]).await?;
    eventually(Duration::from_secs(10), async || {
        let now = revoker.metric("vdbi_pod_cleanup_count_success", &[]).await?;
        ensure!(now >= swept + 5.0, "{now} comparisons");
        Ok(())
    })
    .await?;
    ensure!(scene.opens_a_session(&main).await?, "the other release has revoked it");
    assert_eq!(revoker.metric("vdbi_revoke_token_count_success", &[]).await?, 0.0);
    assert_eq!(renewer.metric("vdbi_renew_lease_count_success", &[]).await?, 0.0);
    scene.delete("web").await?;
    scene.nothing_remains(Duration::from_secs(5)).await
}
