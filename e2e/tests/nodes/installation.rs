use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Component,
    network::isolated,
    scene::{Login, eventually},
    system::LABEL,
};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    helm::{Chart, Helm},
    world::{PATIENCE, PLACEHOLDER, SERVE, World},
};

const DEVELOPMENT: &str = "vault-db-injector-dev";

/// How many comparisons of ledger and pods a credential has to survive.
const COMPARISONS: f64 = 6.0;

#[test]
fn two_releases_of_the_chart_serve_each_its_own_pods_on_one_node_and_leave_nothing_behind() -> Result<()> {
    isolated(async || {
        let world = World::for_charts().await?;
        // As the user's page has it: they differ in the label and in the index of the plugin.
        let production = world.chart("prod", LABEL, json!({})).await?;
        let nri = json!({ "nri": { "enabled": true, "pluginIndex": "11" } });
        let development = world.chart("dev", DEVELOPMENT, nri).await?;
        for chart in [&production, &development] {
            let started = Instant::now();
            let notes = world.install(chart, json!({})).await?;
            eprintln!("{} was ready after {:?}: {notes}", chart.name, started.elapsed());
        }

        deployment(&world, "web", &production).await?;
        deployment(&world, "lab", &development).await?;
        let [web] = &world.running("web", 1).await?[..] else { anyhow::bail!("one pod was asked for") };
        let [lab] = &world.running("lab", 1).await?[..] else { anyhow::bail!("one pod was asked for") };
        let web_login = world.credential(web).await?;
        let lab_login = world.shown(&lab.name_any()).await?;
        ensure!(web_login != lab_login, "two releases gave the same credential");
        ensure!(serde_json::to_string(lab)?.contains(PLACEHOLDER), "the pod in the API has no placeholder");
        ensure!(
            !serde_json::to_string(lab)?.contains(&lab_login.password),
            "the pod in the API has a secret"
        );

        survive(&world, &[&production, &development], &[&web_login, &lab_login]).await?;

        delete(&world, "web").await?;
        world.refused(&web_login, "after its Deployment was deleted").await?;
        world.accepted(&lab_login, "of the other release").await?;
        for chart in [&production, &development] {
            assert_eq!(
                world.scene.cluster.denied_requests(&chart.access)?,
                [""; 0],
                "the roles of the chart suffice"
            );
        }

        uninstalled(&world, &production).await.context("the first release is uninstalled")?;
        world.accepted(&lab_login, "of the release that stays").await?;
        deployment(&world, "lab-2", &development).await?;
        let [second] = &world.running("lab-2", 1).await?[..] else { anyhow::bail!("one pod was asked for") };
        let login = world.shown(&second.name_any()).await?;
        world.accepted(&login, "after the other release was uninstalled").await?;

        for name in ["lab", "lab-2"] {
            delete(&world, name).await?;
        }
        world.scene.nothing_remains(PATIENCE).await?;
        uninstalled(&world, &development).await.context("the second release is uninstalled")?;
        world.scene.nothing_remains(Duration::ZERO).await
    })
}

async fn deployment(world: &World<Helm>, name: &str, chart: &Chart) -> Result<()> {
    let mut template = world.template(name, SERVE);
    template["metadata"]["labels"] = json!({ chart.label: "true", "app": name });
    world.deploy(name, 1, template).await
}

async fn delete(world: &World<Helm>, deployment: &str) -> Result<()> {
    let client = world.scene.cluster.kubernetes().admin();
    let deployments: Api<Deployment> = Api::namespaced(client, &world.scene.access.namespace);
    deployments.delete(deployment, &DeleteParams::background()).await?;
    Ok(())
}

/// Every release compares the ledger, which is of both, with its own pods, many times.
async fn survive(world: &World<Helm>, charts: &[&Chart], logins: &[&Login]) -> Result<()> {
    let comparisons =
        async |chart: &Chart| world.metric(chart, Component::Revoker, "vdbi_pod_cleanup_count_success").await;
    for chart in charts {
        let before = comparisons(chart).await?;
        eventually(PATIENCE, async || {
            for login in logins {
                world.accepted(login, "while the revokers compare").await?;
            }
            let done = comparisons(chart).await? - before;
            ensure!(done >= COMPARISONS, "{} has compared {done} times", chart.name);
            Ok(())
        })
        .await?;
    }
    for login in logins {
        world.accepted(login, "after the revokers have compared").await?;
    }
    Ok(())
}

/// `helm uninstall` leaves nothing of what the release or its programs have made, and says what it keeps.
async fn uninstalled(world: &World<Helm>, chart: &Chart) -> Result<()> {
    let namespace = chart.access.system_namespace.as_str();
    let manifest = world.helm(&["get", "manifest", chart.name, "--namespace", namespace]).await?;
    let said = world.helm(&["uninstall", chart.name, "--namespace", namespace, "--wait"]).await?;
    eprintln!("{said}");
    let client = world.scene.cluster.kubernetes().admin();
    let mut objects = 0;
    for document in serde_saphyr::from_multiple::<Value>(&manifest)? {
        let Ok(object) = Object::deserialize(document) else { continue };
        objects += 1;
        let (group, version) = object.api_version.split_once('/').unwrap_or(("", &object.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &object.kind));
        let name = &object.metadata.name;
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        eventually(PATIENCE, async || {
            ensure!(api.get_opt(name).await?.is_none(), "{} {name} is still there", object.kind);
            Ok(())
        })
        .await?;
    }
    ensure!(objects > 20, "a release has more than {objects} objects");
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let names = leases.list(&ListParams::default()).await?.items.into_iter().map(|lease| lease.name_any());
    let left: Vec<String> = names.filter(|name| name.starts_with(&chart.access.release)).collect();
    ensure!(left.is_empty(), "Leases are left: {left:?}");
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let names = secrets.list(&ListParams::default()).await?.items.into_iter().map(|secret| secret.name_any());
    let left: Vec<String> = names.filter(|name| name.contains(chart.name)).collect();
    ensure!(left.is_empty(), "Secrets are left: {left:?}");
    Ok(())
}

/// What tells an object of a manifest from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}
