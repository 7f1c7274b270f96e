use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{DatabaseAccess, system::Authentication};
use serde_json::json;

use e2e::scene::{Scene, login};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_be_served_is_denied_with_what_to_do_and_nothing_remains() -> Result<()> {
    let access = DatabaseAccess::default();
    let mut scene = Scene::start(access.clone(), Authentication::Legacy).await?;
    // A role that exists, for somebody else.
    let other = DatabaseAccess { role: "billing".into(), service_account: "biller".into(), ..access };
    scene.cluster.configure_database_access(&other).await?;

    scene.is_denied(&[], &["annotation", "db-creds-injector.numberly.io/"]).await?;
    scene
        .is_denied(
            &[("main.role", "app"), ("main.mode", "carrier-pigeon")],
            &["carrier-pigeon", "classic", "uri"],
        )
        .await?;
    scene.is_denied(&[("main.env-key-dbuser", "DBUSER")], &["role"]).await?;
    scene.is_denied(&[("main.role", "nosuch")], &["nosuch", "auth/kubernetes/role/nosuch"]).await?;
    scene.is_denied(&[("main.role", "billing")], &["app1", "bound_service_account_names"]).await?;
    scene.is_denied(&[("main.role", "app"), ("cluster", "nosuch")], &["nosuch"]).await?;
    scene.is_denied(&[("main.role", "app"), ("cluster", "../sys")], &["cluster"]).await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;

    scene.cluster.postgres_mut().stop().await?;
    scene.is_denied(&[("main.role", "app")], &["database"]).await?;
    scene.cluster.postgres_mut().start_again().await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;

    scene.cluster.openbao().seal().await?;
    scene.is_denied(&[("main.role", "app")], &["sealed"]).await?;
    let (live, _) = scene.system.injector.health("/livez").await?;
    assert_eq!(live, 200, "a sealed Vault is no reason to restart the webhook");
    scene.cluster.openbao_mut().unseal().await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;

    let pod = scene.create("web", &[("main.role", "app")]).await?;
    ensure!(scene.opens_a_session(&login(&pod, "DBUSER", "DBPASSWORD")?).await?, "all is well again");
    assert_eq!(scene.denied_requests()?, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_projected_mode_the_pods_own_identity_decides() -> Result<()> {
    let access = DatabaseAccess::default();
    let scene = Scene::start(access.clone(), Authentication::Projected).await?;
    let other = DatabaseAccess { role: "billing".into(), service_account: "biller".into(), ..access };
    scene.cluster.configure_database_access(&other).await?;
    scene.is_denied(&[("main.role", "billing")], &["app1", "bound_service_account_names"]).await?;
    scene.is_denied(&[("main.role", "nosuch")], &["nosuch"]).await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;
    scene.create("web", &[("main.role", "app")]).await?;
    assert_eq!(scene.denied_requests()?, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_ledger_entry_is_denied_and_its_credential_revoked() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let policy = "path \"auth/token/renew-self\" { capabilities = [\"update\"] }
        path \"auth/kubernetes/role/+\" { capabilities = [\"read\"] }
        path \"auth/token/create/dbi-pod\" { capabilities = [\"update\"] }
        path \"auth/token/revoke-accessor\" { capabilities = [\"update\"] }";
    scene.cluster.openbao().root().write("sys/policies/acl/injector", &json!({ "policy": policy })).await?;
    scene.is_denied(&[("main.role", "app")], &["ledger", "revoked"]).await?;
    scene.nothing_remains(Duration::from_secs(5)).await
}
