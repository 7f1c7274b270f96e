//! The webhook's own authority: made, published and replaced by its replicas.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Component, DatabaseAccess, OpenBao, Release, System, scene::eventually, system::LABEL};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Pod, Secret},
    },
};
use kube::{Api, api::PostParams};
use serde_json::{Map, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    leadership::{AlwaysLeader, Leadership},
    metrics::Registry,
};
use vdbi_webhook::tls::{Keeper, Lifetimes, SelfManaged, Settings, Source};

const CONFIGURATION: &str = "vault-db-injector";

async fn bundle(cluster: &Cluster) -> Result<String> {
    let all = Api::<MutatingWebhookConfiguration>::all(cluster.kubernetes().admin());
    let found = all.get(CONFIGURATION).await?.webhooks.unwrap_or_default();
    let ByteString(bytes) = found[0].client_config.ca_bundle.clone().context("it has a caBundle")?;
    Ok(String::from_utf8(bytes)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_certificate_of_their_own_authority_that_the_api_server_trusts() -> Result<()> {
    let access = DatabaseAccess::default();
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    cluster.configure_database_access(&access).await?;
    let rules = json!([
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "watch"] },
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["create"] },
        { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["vdbi-webhook-tls"], "verbs": ["get", "update"] },
    ]);
    let account = access.component_service_account(Component::Injector);
    cluster.kubernetes().grant(&access.system_namespace, &account, rules).await?;
    let rules = json!([{ "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": [CONFIGURATION], "verbs": ["get", "patch"] }]);
    cluster.kubernetes().grant_in_cluster(&access.system_namespace, &account, "authority", rules).await?;

    let install = async |url: &str| {
        let change = |configuration: &mut serde_json::Value| {
            let client = configuration["webhooks"][0]["clientConfig"].as_object_mut().unwrap();
            client.remove("caBundle");
        };
        cluster.kubernetes().install_webhook_with(url, "", change).await
    };
    install("https://127.0.0.1:1/").await?;
    let webhook =
        json!({ "selfManaged": true, "configurationName": CONFIGURATION, "dnsNames": ["127.0.0.1"] });
    let release =
        Release { configuration: Map::from_iter([("webhook".to_owned(), webhook)]), ..Release::default() };
    let start = async |index| System::replica(&cluster, &access, &release, Component::Injector, index).await;
    let replicas = [start(0).await?, start(1).await?];
    let pods = Api::<Pod>::namespaced(cluster.kubernetes().admin(), &access.namespace);
    for (index, replica) in replicas.iter().enumerate() {
        install(&format!("https://{}/", replica.admission_address.unwrap())).await?;
        eventually(Duration::from_secs(10), async || {
            let pod = json!({ "metadata": { "generateName": format!("web-{index}-"), "labels": { LABEL: "true" },
                    "annotations": { "db-creds-injector.numberly.io/main.role": "app" } },
                "spec": { "serviceAccountName": "app1", "containers": [{ "name": "web", "image": "app" }] } });
            pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            let injected = replica.metric("vdbi_admissions_total", &[r#"outcome="injected""#]).await?;
            ensure!(injected > 0.0, "another replica answered");
            Ok(())
        })
        .await?;
    }
    let user = format!("system:serviceaccount:{}:{account}", access.system_namespace);
    assert_eq!(cluster.kubernetes().audit_denials(&user)?, []);
    let log: String = replicas.iter().map(|replica| replica.server.log().unwrap()).collect();
    assert!(!log.contains("PRIVATE KEY") && log.contains("wrote the caBundle"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_authority_is_trusted_all_the_while() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    cluster.kubernetes().install_webhook("https://127.0.0.1:1/", "", LABEL).await?;
    cluster.kubernetes().create_namespace("vdbi").await?;
    // Each counts from five minutes ago, so that two thirds of it are over after ten seconds.
    let mut lifetimes = Lifetimes::default();
    lifetimes.authority = Duration::from_secs(165);
    lifetimes.certificate = Duration::from_secs(165);
    lifetimes.settling = Duration::from_secs(3);
    let managed = SelfManaged::new(
        cluster.kubernetes().admin(),
        Settings {
            namespace: "vdbi".into(),
            secret: "tls".into(),
            configuration: CONFIGURATION.into(),
            names: vec!["127.0.0.1".into()],
        },
    )
    .with_lifetimes(lifetimes);
    let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let (leading, stop) = (managed.clone(), shutdown.clone());
    tasks.spawn(async move {
        AlwaysLeader::new("only").run(move |term| leading.clone().lead(term), stop).await.unwrap();
    });
    let registry = Registry::disabled();
    let started = Arc::new(std::sync::Mutex::new(None));
    eventually(Duration::from_secs(10), async || {
        let keeper = Keeper::start(Source::SelfManaged(Box::new(managed.clone())), None, &registry).await?;
        *started.lock().unwrap() = Some(keeper);
        Ok(())
    })
    .await?;
    let secrets = Api::<Secret>::namespaced(cluster.kubernetes().admin(), "vdbi");
    let served = async || -> Result<String> {
        let ByteString(bytes) = secrets.get("tls").await?.data.unwrap_or_default()["tls.crt"].clone();
        Ok(String::from_utf8(bytes)?)
    };
    let first = served().await?;
    let mut bundles = vec![bundle(&cluster).await?];
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(45) {
        let (certificate, published) = (served().await?, bundle(&cluster).await?);
        ensure!(e2e::verifies(&certificate, &published, "127.0.0.1")?, "what is served is not trusted");
        if bundles.last() != Some(&published) {
            bundles.push(published);
        }
        if certificate != first && bundles.len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(served().await? != first, "the new authority never signed");
    shutdown.cancel();
    tasks.join_all().await;
    Ok(())
}
