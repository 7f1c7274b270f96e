use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    DatabaseAccess, Release,
    scene::{Login, PREFIX, Scene, eventually, login},
    system::{Authentication, LABEL},
};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event, policy::v1::PodDisruptionBudget};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PostParams},
};
use serde_json::{Value, json};
use vdbi_lifecycle::events;

/// The maximum too, so that the first renewal that comes a second after the issue learns of the end.
const TTL: Duration = Duration::from_secs(90);

/// Between two things that follow each other by themselves.
const SOON: Duration = Duration::from_secs(15);

/// Nothing here makes pods anew: the test is the ReplicaSet, the kubelet and the disruption controller.
struct Shop {
    scene: Scene,
    budgets: Api<PodDisruptionBudget>,
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_ask_for_it_are_replaced_one_after_the_other_before_their_credentials_end() -> Result<()> {
    let shop = Shop::open().await?;
    shop.allow(0).await?;
    let old = [shop.run("a", |_| {}).await?, shop.run("b", |_| {}).await?];
    let silent = |pod: &mut Value| {
        let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove(&format!("{PREFIX}rotation"));
    };
    let silent = shop.run("silent", silent).await?;
    let bare = shop.run("bare", |pod| pod["metadata"]["ownerReferences"] = Value::Null).await?;

    // The budget has nothing left.
    eventually(4 * SOON, async || {
        ensure!(shop.attempts("blocked").await? > 0.0, "nobody has tried");
        Ok(())
    })
    .await?;
    assert_eq!(shop.ending(&["a", "b"]).await?, [""; 0]);

    shop.allow(1).await?;
    eventually(4 * SOON, async || {
        ensure!(!shop.ending(&["a", "b"]).await?.is_empty(), "no pod is evicted");
        Ok(())
    })
    .await?;
    let [first] = &shop.ending(&["a", "b"]).await?[..] else { panic!("one at a time") };
    let (first, second) = if *first == "a" { (0, 1) } else { (1, 0) };
    let names = ["a", "b"];
    assert_eq!(shop.left().await?, 0, "the API server has counted it");
    assert_eq!(shop.attempts("evicted").await?, 1.0);
    ensure!(shop.scene.opens_a_session(&old[first]).await?, "its containers still run");

    shop.end(names[first]).await?;
    shop.is_refused(&old[first]).await?;
    shop.allow(1).await?;
    let new = shop.create("c", |_| {}).await?;
    ensure!(new != old[first] && shop.scene.opens_a_session(&new).await?, "another credential");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shop.ending(&["a", "b"]).await?, [names[first]], "the one in its place is not ready");

    shop.ready("c").await?;
    eventually(4 * SOON, async || {
        ensure!(shop.ending(&["a", "b"]).await?.len() == 2, "the second is not evicted");
        Ok(())
    })
    .await?;
    ensure!(shop.scene.opens_a_session(&old[second]).await?, "in time");
    shop.end(names[second]).await?;
    shop.is_refused(&old[second]).await?;
    ensure!(shop.scene.opens_a_session(&new).await?);

    assert_eq!(shop.ending(&["c", "silent", "bare"]).await?, [""; 0]);
    ensure!(shop.scene.opens_a_session(&silent).await? && shop.scene.opens_a_session(&bare).await?);
    for (pod, reason) in
        [("a", events::ROTATION), ("b", events::ROTATION), ("bare", events::ROTATION_BLOCKED)]
    {
        shop.is_told(pod, reason).await?;
    }
    assert_eq!((shop.attempts("evicted").await?, shop.attempts("no_controller").await?), (2.0, 1.0));
    assert_eq!(shop.scene.denied_requests()?, [""; 0], "the least privileges suffice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_of_rotation_that_nobody_knows_is_denied() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let annotations = [("main.role", "app"), ("rotation", "restart")];
    scene.is_denied(&annotations, &["rotation", "\"restart\"", "use evict"]).await
}

impl Shop {
    async fn open() -> Result<Self> {
        let ttl = format!("{}s", TTL.as_secs());
        let access = DatabaseAccess { default_ttl: ttl.clone(), max_ttl: ttl, ..DatabaseAccess::default() };
        // The first renewal may come too early for that; the next follows soon.
        let configuration = [("renewer".to_owned(), json!({ "renewAt": 0.1 }))].into_iter().collect();
        let scene = Scene::with(access, Release { configuration, ..Release::default() }).await?;
        let budget = json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": { "name": "web", "namespace": scene.access.namespace },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { LABEL: "true" } } },
        });
        scene.cluster.kubernetes().apply(&budget).await?;
        let budgets = Api::namespaced(scene.cluster.kubernetes().admin(), &scene.access.namespace);
        Ok(Self { scene, budgets })
    }

    /// As the disruption controller would.
    async fn allow(&self, disruptions: i32) -> Result<()> {
        let status = Patch::Merge(json!({ "status": {
            "observedGeneration": 1, "disruptionsAllowed": disruptions,
            "currentHealthy": 1 + disruptions, "desiredHealthy": 1, "expectedPods": 2,
        } }));
        self.budgets.patch_status("web", &Default::default(), &status).await?;
        Ok(())
    }

    async fn left(&self) -> Result<i32> {
        let status = self.budgets.get("web").await?.status.context("a budget has a status")?;
        status.disruptions_allowed.context("it counts")
    }

    /// A pod of the ReplicaSet that asks for rotation; its login.
    async fn create(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<Login> {
        let mut pod =
            serde_json::to_value(self.scene.pod(name, &[("main.role", "app"), ("rotation", "evict")]))?;
        pod["metadata"]["ownerReferences"] = json!([
            { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "7f0c7a4e-8d7d-4f5c-9d55-3a8a6f1c2b10", "controller": true },
        ]);
        pod["spec"]["nodeName"] = "n1".into();
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod)?;
        let pod = self.scene.pods().create(&PostParams::default(), &pod).await?;
        login(&pod, "DBUSER", "DBPASSWORD")
    }

    /// The same, with its containers running and ready.
    async fn run(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<Login> {
        let login = self.create(name, change).await?;
        self.ready(name).await?;
        Ok(login)
    }

    /// As the kubelet would.
    async fn ready(&self, name: &str) -> Result<()> {
        let conditions = json!([{ "type": "Ready", "status": "True" }]);
        let status = Patch::Merge(json!({ "status": { "phase": "Running", "conditions": conditions } }));
        self.scene.pods().patch_status(name, &Default::default(), &status).await?;
        Ok(())
    }

    /// As the kubelet would, once the containers have ended.
    async fn end(&self, name: &str) -> Result<()> {
        self.scene.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Which of these pods are being deleted, or are gone.
    async fn ending<'a>(&self, names: &[&'a str]) -> Result<Vec<&'a str>> {
        let pods = self.scene.pods().list(&ListParams::default()).await?.items;
        let stays = |name: &str| {
            pods.iter().any(|pod| pod.name_any() == name && pod.metadata.deletion_timestamp.is_none())
        };
        Ok(names.iter().copied().filter(|name| !stays(name)).collect())
    }

    async fn is_refused(&self, login: &Login) -> Result<()> {
        eventually(SOON, async || {
            ensure!(!self.scene.opens_a_session(login).await?, "PostgreSQL still accepts the credential");
            Ok(())
        })
        .await
    }

    async fn attempts(&self, result: &str) -> Result<f64> {
        let mut sum = 0.0;
        for replica in &self.scene.system.renewers {
            sum += replica.metric("vdbi_rotations_total", &[&format!(r#"result="{result}""#)]).await?;
        }
        Ok(sum)
    }

    async fn is_told(&self, pod: &str, reason: &str) -> Result<()> {
        let events =
            Api::<Event>::namespaced(self.scene.cluster.kubernetes().admin(), &self.scene.access.namespace);
        eventually(SOON, async || {
            let told = events.list(&ListParams::default()).await?.items.into_iter().any(|event| {
                let about = event.regarding.and_then(|about| about.name);
                event.reason.as_deref() == Some(reason) && about.as_deref() == Some(pod)
            });
            ensure!(told, "pod {pod} has no event {reason}");
            Ok(())
        })
        .await
    }
}
