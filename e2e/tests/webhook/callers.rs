//! Who may ask, and certificates that change under load.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    Authority, Cluster, DatabaseAccess, OpenBao, Release, System,
    kubernetes::WEBHOOK_CLIENT,
    scene::{Scene, eventually},
    system::Authentication,
};
use reqwest::Identity;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::protocol::{client, review, url};

async fn scene(webhook: impl FnOnce(&Cluster) -> Value) -> Result<Scene> {
    let access = DatabaseAccess::default();
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    cluster.configure_database_access(&access).await?;
    let configuration = Map::from_iter([("webhook".to_owned(), webhook(&cluster))]);
    let release = Release { configuration, ..Release::default() };
    let system = System::start(&cluster, &access, &release).await?;
    Ok(Scene { system, cluster, access })
}

/// Whether somebody with this certificate gets an answer.
async fn answers(scene: &Scene, identity: Option<&e2e::Identity>) -> Result<bool> {
    let mut builder = client(scene);
    if let Some(identity) = identity {
        let pem = format!("{}{}", identity.key, identity.certificate);
        builder = builder.identity(Identity::from_pem(pem.as_bytes())?);
    }
    let request = builder.build()?.post(url(scene)).header("content-type", "application/json");
    Ok(request.body(review(&[("main.role", "app")]).to_string()).send().await.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_server_is_answered_when_callers_are_verified() -> Result<()> {
    let attackers = Authority::new("attackers")?;
    let colleague = Authority::new("kubernetes")?;
    let scene = scene(|cluster| {
        let file = cluster.directory().join("callers.pem");
        fs::write(&file, format!("{}{}", cluster.kubernetes().ca_pem(), colleague.pem())).unwrap();
        json!({ "clientCaFile": file, "clientAllowedNames": [WEBHOOK_CLIENT] })
    })
    .await?;
    scene.create("web", &[("main.role", "app")]).await?;
    let before = scene.ledger_keys().await?;
    for (caller, identity) in [
        ("without a certificate", None),
        ("with one of another authority", Some(attackers.client(WEBHOOK_CLIENT, "kubernetes")?)),
        ("with another name", Some(colleague.client("somebody", "kubernetes")?)),
        ("with a server's certificate", Some(colleague.server(&[WEBHOOK_CLIENT])?)),
    ] {
        assert!(!answers(&scene, identity.as_ref()).await?, "{caller}");
    }
    assert_eq!(scene.ledger_keys().await?, before);
    assert!(answers(&scene, Some(&colleague.client(WEBHOOK_CLIENT, "kubernetes")?)).await?);
    let injector = &scene.system.injector;
    assert_eq!(injector.metric("vdbi_webhook_caller_authentication", &[]).await?, 1.0);

    // An authority that is no longer trusted is refused without a restart.
    fs::write(scene.cluster.directory().join("callers.pem"), scene.cluster.kubernetes().ca_pem())?;
    let former = colleague.client(WEBHOOK_CLIENT, "kubernetes")?;
    eventually(Duration::from_secs(10), async || {
        ensure!(!answers(&scene, Some(&former)).await?, "the former authority is still trusted");
        Ok(())
    })
    .await?;
    scene.create("second", &[("main.role", "app")]).await?;
    let log = injector.server.log()?;
    assert!(log.contains("webhook.clientAllowedNames") && log.contains("somebody"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_verification_the_log_and_a_metric_warn() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let injector = &scene.system.injector;
    assert_eq!(injector.metric("vdbi_webhook_caller_authentication", &[]).await?, 0.0);
    assert!(injector.server.log()?.contains("set webhook.clientCaFile"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_under_load_without_a_failed_admission() -> Result<()> {
    let scene = scene(|_| json!({})).await?;
    let file = |name: &str| scene.cluster.directory().join(name);
    let served = async || -> Result<f64> {
        scene.system.injector.metric("vdbi_webhook_certificate_expiry", &[]).await
    };
    let mut load = JoinSet::new();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for worker in 0..4 {
        let (pods, pod, stop) = (scene.pods(), scene.pod("web", &[("main.role", "app")]), stop.clone());
        load.spawn(async move {
            let mut created = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut pod = pod.clone();
                pod.metadata.name = Some(format!("web-{worker}-{created}"));
                pods.create(&Default::default(), &pod).await?;
                created += 1;
            }
            anyhow::Ok(created)
        });
    }
    let first = served().await?;

    // A certificate that does not fit its key is refused, and the old one stays.
    let authority = Authority::new("new webhook authority")?;
    let (new, other) = (authority.server(&["127.0.0.1"])?, authority.server(&["127.0.0.1"])?);
    fs::write(file("tls.crt"), &new.certificate)?;
    fs::write(file("tls.key"), &other.key)?;
    eventually(Duration::from_secs(10), async || {
        ensure!(scene.system.injector.server.log()?.contains("goes on with the certificate that it has"));
        Ok(())
    })
    .await?;
    assert_eq!(served().await?, first);

    // The API server trusts both authorities before the new certificate is served, as in any rotation.
    let both = format!("{}{}", scene.system.ca_pem, authority.pem());
    scene.cluster.kubernetes().install_webhook(&url(&scene), &both, e2e::system::LABEL).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fs::write(file("tls.key"), &new.key)?;
    eventually(Duration::from_secs(10), async || {
        let loads = scene
            .system
            .injector
            .metric("vdbi_webhook_certificate_loads_total", &[r#"result="success""#])
            .await?;
        ensure!(loads == 2.0, "{loads}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut admissions = 0;
    while let Some(created) = load.join_next().await {
        admissions += created??;
    }
    eprintln!("{admissions} admissions, none failed");
    ensure!(admissions > 50, "there was hardly any load: {admissions}");
    let new = reqwest::Certificate::from_pem(authority.pem().as_bytes())?;
    let http = reqwest::Client::builder().tls_certs_only([new]).build()?;
    assert!(http.get(url(&scene)).send().await.is_ok(), "the new certificate is served");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_about_to_expire_makes_the_webhook_unready() -> Result<()> {
    let scene = scene(|_| json!({})).await?;
    let expiring = Authority::new("expiring")?;
    let identity = expiring.server_until(&["127.0.0.1"], Duration::from_secs(30))?;
    fs::write(scene.cluster.directory().join("tls.crt"), &identity.certificate)?;
    fs::write(scene.cluster.directory().join("tls.key"), &identity.key)?;
    eventually(Duration::from_secs(10), async || {
        let (status, text) = scene.system.injector.health("/readyz?verbose").await?;
        ensure!(status == 503 && text.contains("[-]certificate"), "{status} {text}");
        Ok(())
    })
    .await?;
    assert_eq!(scene.system.injector.health("/livez").await?.0, 200);
    Ok(())
}
