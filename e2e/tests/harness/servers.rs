use std::time::Instant;

use anyhow::Result;
use e2e::{Cluster, OpenBao};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::refused;

#[tokio::test]
async fn the_servers_of_a_cluster_answer() -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    eprintln!("three servers were ready after {:?}", started.elapsed());

    let namespaces: Api<Namespace> = Api::all(cluster.kubernetes().admin());
    assert!(
        namespaces
            .list(&ListParams::default())
            .await?
            .items
            .iter()
            .any(|it| it.metadata.name.as_deref() == Some("kube-system"))
    );
    assert!(cluster.openbao().root().read("sys/mounts").await?.is_some());
    assert_eq!(cluster.postgres().roles_like("postgres").await?, ["postgres"]);
    Ok(())
}

#[tokio::test]
async fn a_request_that_rbac_forbids_is_found_in_the_audit_log() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    let kubernetes = cluster.kubernetes();
    kubernetes.create_namespace("shop").await?;
    kubernetes.create_service_account("shop", "app1").await?;
    let kubeconfig = kubernetes.kubeconfig_for_service_account("shop", "app1").await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;

    let forbidden = Api::<Pod>::namespaced(client, "shop").list(&ListParams::default()).await;
    assert!(matches!(forbidden, Err(kube::Error::Api(status)) if status.code == 403));
    let denials = kubernetes.audit_denials("system:serviceaccount:shop:")?;
    assert_eq!(denials.len(), 1, "{denials:?}");
    assert_eq!((denials[0].verb.as_str(), denials[0].code), ("list", Some(403)));
    assert!(
        denials[0]
            .object
            .as_ref()
            .is_some_and(|object| object.resource == "pods" && object.namespace == "shop")
    );
    assert!(kubernetes.audit_denials("system:serviceaccount:vdbi-system:")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_labelled_pod_is_refused_while_its_webhook_is_down() -> Result<()> {
    let mut cluster = Cluster::builder().kubernetes().start().await?;
    let kubernetes = cluster.kubernetes_mut();
    kubernetes.create_namespace("shop").await?;
    kubernetes.create_service_account("shop", "app1").await?;
    let authority = e2e::Authority::new("webhook")?;
    // Nothing listens on port 1.
    kubernetes.install_webhook("https://127.0.0.1:1/mutate", &authority.pem(), "vault-db-injector").await?;
    kubernetes.restart_apiserver().await?;

    let pods: Api<Pod> = Api::namespaced(kubernetes.admin(), "shop");
    let pod = |name: &str, labels: Value| -> Result<Pod> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "serviceAccountName": "app1",
                "containers": [{ "name": "app", "image": "app" }],
            },
        }))?)
    };
    let plain = pods.create(&PostParams::default(), &pod("plain", json!({}))?).await?;
    let volumes = plain.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    assert!(
        volumes.iter().any(|volume| volume.projected.is_some()),
        "the service account's token is mounted"
    );
    let refused =
        pods.create(&PostParams::default(), &pod("labelled", json!({ "vault-db-injector": "true" }))?).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("pods.vault-db-injector.numberly.io")));
    Ok(())
}

#[tokio::test]
async fn a_sealed_openbao_answers_again_after_it_is_unsealed() -> Result<()> {
    let mut cluster = Cluster::builder().openbao(OpenBao::dev()).start().await?;
    let openbao = cluster.openbao_mut();
    openbao.seal().await?;
    refused(openbao.root().read("sys/mounts").await, 503);
    openbao.unseal().await?;
    assert!(openbao.root().read("sys/mounts").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn an_openbao_on_a_disk_remembers_across_a_restart() -> Result<()> {
    let mut cluster = Cluster::builder().openbao(OpenBao::raft()).start().await?;
    let openbao = cluster.openbao_mut();
    openbao.root().write("sys/mounts/dbi", &json!({ "type": "kv" })).await?;
    openbao.root().write("dbi/entry", &json!({ "key": "value" })).await?;
    openbao.restart().await?;
    openbao.seal().await?;
    openbao.unseal().await?;
    assert_eq!(openbao.root().read("dbi/entry").await?, Some(json!({ "key": "value" })));
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_was_stopped_comes_back_with_its_roles() -> Result<()> {
    let mut cluster = Cluster::builder().postgres().start().await?;
    let postgres = cluster.postgres_mut();
    postgres.query("CREATE ROLE app LOGIN PASSWORD 'secret'").await?;
    postgres.stop().await?;
    assert!(
        postgres.can_login("app", "secret").await.is_err(),
        "a server that is down does not decide on a login"
    );
    postgres.start_again().await?;
    assert!(postgres.can_login("app", "secret").await?);
    Ok(())
}
