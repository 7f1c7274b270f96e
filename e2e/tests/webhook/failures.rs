//! What the API server makes of a webhook that fails, by the failure policy.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::{Authority, DatabaseAccess, scene::Scene, system::Authentication};
use kube::api::DeleteParams;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Accepts connections, says something that is no TLS or nothing at all.
async fn broken_server(says: &'static [u8]) -> Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            // The client may be gone.
            let _ = connection.write_all(says).await;
            connections.push(connection);
        }
    });
    Ok((address, tasks))
}

/// Answers every request over TLS with status 500.
async fn failing_server(authority: &Authority) -> Result<(SocketAddr, JoinSet<()>)> {
    let identity = authority.server(&["127.0.0.1"])?;
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            // The head at least; the answer does not depend on the rest.
            let _ = connection.read(&mut [0; 4096]).await;
            let answer =
                b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = connection.write_all(answer).await;
            let _ = connection.shutdown().await;
        }
    });
    Ok((address, tasks))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_the_webhook_fail_refuses_and_ignore_is_caught_by_the_policy() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let good = format!("https://{}/", scene.system.injector.admission_address.unwrap());
    let (garbage, _garbage) = broken_server(b"HTTP/1.0 200 OK\r\n\r\ngarbage").await?;
    let (silent, _silent) = broken_server(b"").await?;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?;
    let stranger = Authority::new("somebody else")?;
    let (failing, _failing) = failing_server(&stranger).await?;
    let stranger = stranger.pem();
    let authority = scene.system.ca_pem.clone();
    let cases = [
        ("no endpoints", String::new(), &authority),
        ("status 500", format!("https://{failing}/"), &stranger),
        ("down", format!("https://{closed}/"), &authority),
        ("an unknown authority", good.clone(), &stranger),
        ("garbage", format!("https://{garbage}/"), &authority),
        ("silent", format!("https://{silent}/"), &authority),
    ];
    let install = async |url: &str, ca: &str, policy: &str| {
        let change = |configuration: &mut Value| {
            configuration["webhooks"][0]["failurePolicy"] = policy.into();
            configuration["webhooks"][0]["timeoutSeconds"] = 1.into();
            if url.is_empty() {
                let client = &mut configuration["webhooks"][0]["clientConfig"];
                let service = json!({ "name": "vault-db-injector", "namespace": "default", "port": 8443 });
                *client = json!({ "service": service, "caBundle": client["caBundle"] });
            }
        };
        scene.cluster.kubernetes().install_webhook_with(url, ca, change).await?;
        // The API server's informer.
        tokio::time::sleep(Duration::from_millis(500)).await;
        anyhow::Ok(())
    };
    for (case, url, ca) in &cases {
        install(url, ca, "Fail").await?;
        let asked = Instant::now();
        let refused = scene.create("web", &[("main.role", "app")]).await.unwrap_err().to_string();
        ensure!(refused.contains("failed calling webhook"), "{case}: {refused}");
        ensure!(asked.elapsed() < Duration::from_secs(3), "{case}: it hung for {:?}", asked.elapsed());
        install(url, ca, "Ignore").await?;
        let pod = scene.create("web", &[("main.role", "app")]).await?;
        assert!(pod.spec.unwrap_or_default().containers[0].env.is_none(), "{case}");
        scene.pods().delete("web", &DeleteParams::default().grace_period(0)).await?;
    }
    scene.cluster.kubernetes().require_mark().await?;
    for (case, url, ca) in &cases {
        install(url, ca, "Ignore").await?;
        let refused = scene.create("web", &[("main.role", "app")]).await.unwrap_err().to_string();
        ensure!(refused.contains("create the pod again"), "{case}: {refused}");
    }
    install(&good, &authority, "Ignore").await?;
    scene.create("web", &[("main.role", "app")]).await?;
    scene.create("earlier", &[("main.role", "app"), ("revoke-ttl", "1h")]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_hangs_is_an_explicit_denial_before_the_api_server_gives_up() -> Result<()> {
    let mut scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    scene.create("warm", &[("main.role", "app")]).await?;
    let url = format!("https://{}/", scene.system.injector.admission_address.unwrap());
    let change = |configuration: &mut Value| configuration["webhooks"][0]["timeoutSeconds"] = 2.into();
    scene.cluster.kubernetes().install_webhook_with(&url, &scene.system.ca_pem, change).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.cluster.openbao_mut().server_mut().stop()?;
    let asked = Instant::now();
    scene.is_denied(&[("main.role", "app")], &["no credential within 1.6s", "create the pod again"]).await?;
    ensure!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    scene.cluster.openbao_mut().server_mut().cont()?;
    e2e::scene::eventually(Duration::from_secs(10), async || {
        let left = scene.cluster.postgres().roles_like("v-").await?;
        ensure!(left.len() == 1, "only the pod that is there: {left:?}");
        let revoked =
            scene.system.injector.metric("vdbi_undelivered_credentials_total", &["revoked"]).await?;
        ensure!(revoked == 1.0, "{revoked} revoked");
        Ok(())
    })
    .await
}
