//! Renewer and revoker inside somebody's operator: one client, one leader, one shutdown.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Component, DatabaseAccess, Program, Release, Server, binary,
    scene::{Scene, always, eventually, login},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Pod, PodTemplateSpec},
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Short, so that a credential which nobody renews is dead within the test.
const TTL: Duration = Duration::from_secs(6);

const LEASE: &str = "shop-operator";

/// An operator's replicas over the scene's servers.
struct Operators<'a> {
    scene: &'a Scene,
    replicas: Vec<(String, Server)>,
}

impl<'a> Operators<'a> {
    async fn start(scene: &'a Scene, number: usize) -> Result<Self> {
        let access = &scene.access;
        // The least: what renewer and revoker need, in OpenBao the policies of both, and what the operator does itself.
        let rules: Vec<Value> = [Component::Renewer, Component::Revoker]
            .into_iter()
            .flat_map(|component| component.cluster_rules().as_array().cloned().unwrap_or_default())
            .chain([json!({ "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "watch", "patch"] })])
            .collect();
        let kubernetes = scene.cluster.kubernetes();
        kubernetes.create_service_account(&access.system_namespace, LEASE).await?;
        kubernetes.grant_in_cluster(&access.system_namespace, LEASE, LEASE, json!(rules)).await?;
        kubernetes.grant(&access.system_namespace, LEASE, Component::Renewer.namespaced_rules()).await?;
        let role = json!({
            "bound_service_account_names": LEASE,
            "bound_service_account_namespaces": access.system_namespace,
            "audience": access.audience,
            "token_policies": [
                access.component_role(Component::Renewer),
                access.component_role(Component::Revoker),
            ],
            "token_period": "10m",
            "token_no_default_policy": true,
        });
        scene.cluster.openbao().root().write(&format!("auth/kubernetes/role/{LEASE}"), &role).await?;
        let mut operators = Self { scene, replicas: Vec::new() };
        for index in 0..number {
            let replica = operators.replica(&format!("{LEASE}-{index}")).await?;
            operators.replicas.push(replica);
        }
        Ok(operators)
    }

    async fn replica(&self, name: &str) -> Result<(String, Server)> {
        let (cluster, access) = (&self.scene.cluster, &self.scene.access);
        let kubernetes = cluster.kubernetes();
        let namespace = &access.system_namespace;
        let token = kubernetes.service_account_token_file(namespace, LEASE, &access.audience).await?;
        let path = tokio::task::spawn_blocking(|| binary("embed-in-operator", "embed-in-operator")).await??;
        let program = Program::new(path, cluster.directory())
            .env("KUBECONFIG", kubernetes.kubeconfig_for_service_account(namespace, LEASE).await?)
            .env("POD_NAME", name)
            .env("POD_UID", name)
            .env("POD_NAMESPACE", namespace)
            .env("RELEASE", &access.release)
            .env("VAULT_ADDR", cluster.openbao().url())
            .env("VAULT_ROLE", LEASE)
            .env("TOKEN_FILE", token)
            .env("LEDGER_MOUNT", &access.mount)
            .env("LEDGER_PREFIX", &access.prefix)
            .env("SCAN_INTERVAL", "1s");
        let server = Server::start(name, program, cluster.directory()).await?;
        Ok((name.to_owned(), server))
    }

    /// The index of the replica that leads.
    async fn leader(&self) -> Result<usize> {
        let leases: Api<Lease> =
            Api::namespaced(self.scene.cluster.kubernetes().admin(), &self.scene.access.system_namespace);
        let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let leads = |(name, _): &(String, Server)| !holder.is_empty() && holder.contains(name.as_str());
        self.replicas.iter().position(leads).with_context(|| format!("{holder:?} holds the lease"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_ones_own_connects_deployments_renews_and_revokes() -> Result<()> {
    let access = DatabaseAccess {
        default_ttl: format!("{}s", TTL.as_secs()),
        token_period: format!("{}s", TTL.as_secs()),
        ..DatabaseAccess::default()
    };
    // The stock webhook alone: renewer and revoker are the operator's.
    let scene = Scene::with(access, Release { replicas: 0, ..Release::default() }).await?;
    let mut operators = Operators::start(&scene, 2).await?;

    let pod = create_pod_of(&scene, &deployment("web")).await?;
    let issued = Instant::now();
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;
    always(issued, 2 * TTL, async || {
        ensure!(scene.opens_a_session(&main).await?, "the credential died");
        Ok(())
    })
    .await?;
    scene.delete("web").await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;

    // Everything moves to the other replica at once, the controller as well as renewer and revoker.
    let leader = operators.leader().await?;
    let (name, mut server) = operators.replicas.swap_remove(leader);
    let status = server.terminate(Duration::from_secs(5)).await?;
    ensure!(status.success(), "{name}: {status}: {}", server.log_tail(20));
    eventually(Duration::from_secs(5), async || operators.leader().await.map(drop)).await?;
    let pod = create_pod_of(&scene, &deployment("worker")).await?;
    let other = login(&pod, "DBUSER", "DBPASSWORD")?;
    ensure!(scene.opens_a_session(&other).await?);
    scene.delete("worker").await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;

    let user = format!("system:serviceaccount:{}:{LEASE}", scene.access.system_namespace);
    let denials = scene.cluster.kubernetes().audit_denials(&user)?;
    assert!(denials.is_empty(), "the least privileges suffice: {denials:?}");
    Ok(())
}

fn deployment(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "annotations": { "shop.example/database": "app" } },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "serviceAccountName": "app1", "containers": [{ "name": "web", "image": "app" }] },
            },
        },
    })
}

/// Creates the Deployment, and, once the operator has connected it, a pod as its controller would.
async fn create_pod_of(scene: &Scene, deployment: &Value) -> Result<Pod> {
    let deployments: Api<Deployment> =
        Api::namespaced(scene.cluster.kubernetes().admin(), &scene.access.namespace);
    let created =
        deployments.create(&PostParams::default(), &serde_json::from_value(deployment.clone())?).await?;
    let name = created.metadata.name.context("a Deployment has a name")?;
    let template = async || {
        let spec = deployments.get(&name).await?.spec.context("a Deployment has a specification")?;
        anyhow::Ok(spec.template)
    };
    eventually(Duration::from_secs(20), async || {
        let labels = template().await?.metadata.unwrap_or_default().labels.unwrap_or_default();
        ensure!(labels.get("vault-db-injector").is_some_and(|value| value == "true"), "{labels:?}");
        Ok(())
    })
    .await?;
    let PodTemplateSpec { metadata, spec } = template().await?;
    let mut metadata = metadata.unwrap_or_default();
    metadata.name = Some(name);
    Ok(scene.pods().create(&PostParams::default(), &Pod { metadata, spec, status: None }).await?)
}
