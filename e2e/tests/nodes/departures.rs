use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use e2e::{
    network::isolated,
    scene::{Login, eventually},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

use crate::world::{PATIENCE, SERVE, World};

const REPLICAS: usize = 3;

#[test]
fn a_credential_ends_with_its_pod_when_the_node_is_drained_or_dies() -> Result<()> {
    isolated(async || {
        let mut world = World::start(2).await?;
        let mut template = world.template("web", SERVE);
        // A node that died is given up at once.
        let tolerations = ["not-ready", "unreachable"].map(|taint| {
            let key = format!("node.kubernetes.io/{taint}");
            json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1 })
        });
        template["spec"]["tolerations"] = json!(tolerations);
        world.deploy("web", REPLICAS, template).await?;
        let budget =
            json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
        world.apply("policy/v1", "PodDisruptionBudget", "web", budget).await?;
        world.running("web", REPLICAS).await?;

        a_drained_node(&world).await.context("a drained node")?;
        a_kubelet_that_dies(&mut world).await.context("a kubelet that dies")?;
        assert_eq!(world.scene.denied_requests()?, [""; 0], "the least privileges suffice");
        Ok(())
    })
}

async fn a_drained_node(world: &World) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.scene.cluster.kubernetes().admin());
    let before = world.running("web", REPLICAS).await?;
    let logins = credentials(world, &before).await?;
    let (leaving, staying) = by_node(&before, "node-1");
    ensure!(!leaving.is_empty() && !staying.is_empty(), "the pods are all on one node");

    nodes.cordon("node-1").await?;
    for pod in &leaving {
        world.accepted(&logins[&pod.name_any()], "on a node that is about to be drained").await?;
        evict(world, pod).await?;
        world.gone(pod).await?;
        world.refused(&logins[&pod.name_any()], "after its pod was drained from the node").await?;
    }
    let after = world.running("web", REPLICAS).await?;
    ensure!(by_node(&after, "node-1").0.is_empty(), "a pod is on a drained node");
    let new_logins = credentials(world, &after).await?;
    for pod in &leaving {
        let old = &logins[&pod.name_any()];
        ensure!(
            new_logins.values().all(|login| login != old),
            "a drained pod's credential is in another pod"
        );
    }
    for pod in &staying {
        ensure!(
            new_logins.get(&pod.name_any()) == logins.get(&pod.name_any()),
            "a pod that stayed has another credential"
        );
    }
    nodes.uncordon("node-1").await?;
    Ok(())
}

/// As `kubectl drain` does: again while the disruption budget forbids it.
async fn evict(world: &World, pod: &Pod) -> Result<()> {
    eventually(PATIENCE, async || {
        world.scene.pods().evict(&pod.name_any(), &Default::default()).await?;
        Ok(())
    })
    .await
    .with_context(|| format!("pod {} could not be evicted", pod.name_any()))
}

async fn a_kubelet_that_dies(world: &mut World) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.scene.cluster.kubernetes().admin());
    let before = world.running("web", REPLICAS).await?;
    let logins = credentials(world, &before).await?;
    let (stranded, _) = by_node(&before, "node-2");
    ensure!(stranded.len() == REPLICAS, "the pods are not all on the node that was not drained");

    world.scene.cluster.nodes_mut().node_mut("node-2").kubelet_mut().kill().await?;
    // The node is missed, its pods are told to end and replaced; nobody knows whether their containers run, and they do.
    let replacements = world.replaced(&before).await?;
    let new_logins = credentials(world, &replacements).await?;
    for (name, login) in &new_logins {
        ensure!(!logins.values().any(|old| old == login), "the replacement {name} has an old credential");
        world.accepted(login, "in the replacement of a pod whose node died").await?;
    }
    for pod in &stranded {
        let deleted = world.pod(&pod.name_any()).await?.metadata.deletion_timestamp;
        ensure!(deleted.is_some(), "pod {} was not told to end", pod.name_any());
        world
            .survives_comparisons(&logins[&pod.name_any()], "while the pod of a dead kubelet is there")
            .await?;
    }

    nodes.delete("node-2", &DeleteParams::default()).await?;
    for pod in &stranded {
        world.gone(pod).await.context("the pod was not garbage collected")?;
        world
            .refused(&logins[&pod.name_any()], "after the pod of a dead kubelet was garbage collected")
            .await?;
    }
    for login in new_logins.values() {
        world.accepted(login, "after the pods of the dead kubelet were garbage collected").await?;
    }
    Ok(())
}

/// The credentials of running pods by the pods' names.
async fn credentials(world: &World, pods: &[Pod]) -> Result<HashMap<String, Login>> {
    let logins = world.credentials(pods).await?;
    Ok(pods.iter().map(ResourceExt::name_any).zip(logins).collect())
}

/// The pods on a node, and the others.
fn by_node(pods: &[Pod], node: &str) -> (Vec<Pod>, Vec<Pod>) {
    let on_node = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
    pods.iter().cloned().partition(on_node)
}
