use anyhow::{Context, Result, ensure};
use e2e::{network::isolated, scene::eventually};
use futures::{FutureExt, future::join_all};
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    gate::Gate,
    world::{PATIENCE, SERVE, World, is_ready},
};

#[test]
fn a_credential_works_as_long_as_its_pod_however_that_ends() -> Result<()> {
    isolated(async || {
        let world = World::start(1).await?;
        let world = &world;
        // All at once, and each that fails is told.
        let failures = [
            told("a Job that completes", a_job_that_completes(world)).boxed_local(),
            told("a container that crashes and is restarted", a_container_that_is_restarted(world))
                .boxed_local(),
            told("a container that crashes for good", a_container_that_is_not_restarted(world)).boxed_local(),
            told("a pod deleted with a long grace period", a_long_grace_period(world)).boxed_local(),
            told("a rolling update", a_rolling_update(world)).boxed_local(),
            told("an eviction by the API", an_eviction_by_the_api(world)).boxed_local(),
            told("an eviction by the kubelet", an_eviction_by_the_kubelet(world)).boxed_local(),
        ];
        let failures: Vec<String> = join_all(failures).await.into_iter().flatten().collect();
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        assert_eq!(world.scene.denied_requests()?, [""; 0], "the least privileges suffice");
        Ok(())
    })
}

/// What went wrong with one of them.
async fn told(what: &str, end: impl Future<Output = Result<()>>) -> Option<String> {
    let started = Instant::now();
    let outcome = end.await.with_context(|| what.to_owned());
    eprintln!("{what}: {:?}", started.elapsed());
    Some(format!("{:#}", outcome.err()?))
}

async fn a_job_that_completes(world: &World) -> Result<()> {
    let gate = Gate::new().await?;
    let mut template = world.template("job", &gate.wait()?);
    template["spec"]["restartPolicy"] = json!("Never");
    world
        .apply("batch/v1", "Job", "job", json!({ "spec": { "template": template, "backoffLimit": 0 } }))
        .await?;
    let held = gate.arrival().await?;
    let pods = world.running("job", 1).await?;
    let login = world.credential(&pods[0]).await?;
    world.accepted(&login, "while the Job runs").await?;
    drop(held);

    world.ended(&pods[0].name_any(), "Succeeded").await?;
    world.refused(&login, "after the Job's container has ended").await?;
    let jobs: Api<Job> =
        Api::namespaced(world.scene.cluster.kubernetes().admin(), &world.scene.access.namespace);
    eventually(PATIENCE, async || {
        let status = jobs.get("job").await?.status.unwrap_or_default();
        ensure!(status.succeeded == Some(1) && status.completion_time.is_some(), "the Job has not completed");
        Ok(())
    })
    .await
}

async fn a_container_that_is_restarted(world: &World) -> Result<()> {
    let gate = Gate::new().await?;
    let command = format!("trap 'exit 1' TERM; {} & wait; exit 1", gate.wait()?);
    world.apply("v1", "Pod", "crashes", world.template("crashes", &command)).await?;
    let held = gate.arrival().await?;
    let pod = world.pod("crashes").await?;
    let login = world.credential(&pod).await?;
    world.accepted(&login, "before the crash").await?;
    drop(held);

    let held = gate.arrival().await?;
    world
        .container("crashes", "running again", |restarts, state| restarts == 1 && state.running.is_some())
        .await?;
    assert!(
        world.credential(&world.pod("crashes").await?).await? == login,
        "a restart changes no credential"
    );
    world.accepted(&login, "after the restart").await?;
    drop(held);

    let backs_off = |_, state: &k8s_openapi::api::core::v1::ContainerState| {
        state.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    world.container("crashes", "waiting for its restart", backs_off).await?;
    world.survives_comparisons(&login, "while the container waits for its restart").await?;

    world.scene.delete("crashes").await?;
    world.gone(&pod).await?;
    world.refused(&login, "after the deletion of the crashing pod").await
}

async fn a_container_that_is_not_restarted(world: &World) -> Result<()> {
    let gate = Gate::new().await?;
    let mut pod = world.template("fails", &format!("{}; exit 1", gate.wait()?));
    pod["spec"]["restartPolicy"] = json!("Never");
    world.apply("v1", "Pod", "fails", pod).await?;
    let held = gate.arrival().await?;
    let login = world.credential(&world.pod("fails").await?).await?;
    world.accepted(&login, "before the crash").await?;
    drop(held);
    world.ended("fails", "Failed").await?;
    world.refused(&login, "after a crash for good").await
}

async fn a_long_grace_period(world: &World) -> Result<()> {
    let gate = Gate::new().await?;
    let command = format!("trap '{}; exit 0' TERM; sleep 1000 & wait", gate.wait()?);
    let mut pod = world.template("slow", &command);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(300);
    world.apply("v1", "Pod", "slow", pod).await?;
    let pods = world.running("slow", 1).await?;
    let login = world.credential(&pods[0]).await?;
    world.scene.delete("slow").await?;

    let held = gate.arrival().await?;
    let deleted = world.pod("slow").await?.metadata.deletion_timestamp;
    ensure!(deleted.is_some(), "the container has been asked to end before the pod was deleted");
    world.survives_comparisons(&login, "while a deleted pod's container still runs").await?;
    drop(held);
    world.gone(&pods[0]).await?;
    world.refused(&login, "after the container of a deleted pod has ended").await
}

async fn a_rolling_update(world: &World) -> Result<()> {
    let deployment = |version: &str| {
        let mut template = world.template("rolls", SERVE);
        template["metadata"]["annotations"]["version"] = json!(version);
        json!({ "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "rolls" } },
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": template,
        } })
    };
    world.apply("apps/v1", "Deployment", "rolls", deployment("1")).await?;
    let old = world.running("rolls", 2).await?;
    let old_logins = world.credentials(&old).await?;
    for login in &old_logins {
        world.accepted(login, "before the update").await?;
    }

    world.apply("apps/v1", "Deployment", "rolls", deployment("2")).await?;
    let is_new = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.annotations().get("version").is_some_and(|version| version == "2")
    };
    eventually(PATIENCE, async || {
        let pods = world.staying("rolls").await?;
        for pod in pods.iter().filter(|pod| is_ready(pod)) {
            keeps_its_credential(world, pod).await?;
        }
        ensure!(pods.len() == 2 && pods.iter().all(|pod| is_new(pod) && is_ready(pod)), "the update goes on");
        Ok(())
    })
    .await?;
    for (pod, login) in old.iter().zip(&old_logins) {
        world.gone(pod).await?;
        world.refused(login, "after the update has replaced the pod").await?;
    }
    let new_logins = world.credentials(&world.running("rolls", 2).await?).await?;
    for login in &new_logins {
        ensure!(!old_logins.contains(login), "a new pod has an old credential");
        world.accepted(login, "after the update").await?;
    }
    Ok(())
}

/// Unless it is about to end by now.
async fn keeps_its_credential(world: &World, pod: &k8s_openapi::api::core::v1::Pod) -> Result<()> {
    let login = e2e::scene::login(pod, "DBUSER", "DBPASSWORD")?;
    let accepted = world.accepted(&login, "during the update").await;
    let stays = world.staying("rolls").await?.iter().any(|now| now.uid() == pod.uid());
    assert!(accepted.is_ok() || !stays, "{}: {accepted:?}", pod.name_any());
    Ok(())
}

async fn an_eviction_by_the_api(world: &World) -> Result<()> {
    world.deploy("evicted", 1, world.template("evicted", SERVE)).await?;
    let pods = world.running("evicted", 1).await?;
    let login = world.credential(&pods[0]).await?;
    world.accepted(&login, "before the eviction").await?;

    world.scene.pods().evict(&pods[0].name_any(), &Default::default()).await?;
    world.gone(&pods[0]).await?;
    world.refused(&login, "after the eviction").await?;
    let replacement = world.running("evicted", 1).await?;
    let new = world.credential(&replacement[0]).await?;
    ensure!(new != login, "the replacement has the evicted pod's credential");
    world.accepted(&new, "in the replacement of the evicted pod").await
}

/// The pod's object stays, as a failed one.
async fn an_eviction_by_the_kubelet(world: &World) -> Result<()> {
    let gate = Gate::new().await?;
    let command = format!("{}; dd if=/dev/zero of=/data/file bs=1048576 count=4; sleep 1000", gate.wait()?);
    let mut pod = world.template("greedy", &command);
    pod["spec"]["volumes"] = json!([{ "name": "data", "emptyDir": { "sizeLimit": "1Mi" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    world.apply("v1", "Pod", "greedy", pod).await?;
    let held = gate.arrival().await?;
    let login = world.credential(&world.pod("greedy").await?).await?;
    world.accepted(&login, "before the pod takes too much").await?;
    drop(held);
    let pod = world.ended("greedy", "Failed").await?;
    let reason = pod.status.and_then(|status| status.reason);
    ensure!(reason.as_deref() == Some("Evicted"), "it ended otherwise: {reason:?}");
    world.refused(&login, "after the kubelet has evicted the pod").await
}
