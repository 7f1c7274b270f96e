//! The node plugin in a whole cluster: the webhook's placeholders, a kubelet, a real containerd, and containers that show what they got.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Nri, Release, Version,
    network::isolated,
    scene::{Login, eventually},
};
use futures::future::try_join_all;
use k8s_openapi::api::{
    core::v1::{ContainerStatus, Pod},
    events::v1::Event,
};
use kube::{
    Api, ResourceExt,
    api::{LogParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{PATIENCE, PLACEHOLDER, SERVE, World};

/// How long a container is watched that must not run: the kubelet tries several times in it.
const WATCHED: Duration = Duration::from_secs(12);

const BURST: usize = 50;

#[test]
fn no_secret_is_in_the_api_and_no_placeholder_in_an_application_over_containerd_2_2() -> Result<()> {
    isolated(async || over(Version::V2_2).await)
}

#[test]
fn no_secret_is_in_the_api_and_no_placeholder_in_an_application_over_containerd_2_4() -> Result<()> {
    isolated(async || over(Version::V2_4).await)
}

async fn over(version: Version) -> Result<()> {
    let cluster = Cluster::builder().nodes(1).containerd(version, Nri::default());
    let mut world = World::with(cluster, Release { node_plugins: true, ..Release::default() }).await?;
    a_life(&world).await.context("a pod's life")?;
    a_plugin_that_is_absent(&mut world).await.context("a plugin that is absent")?;
    a_plugin_that_is_killed_in_the_middle(&mut world)
        .await
        .context("a plugin that is killed in the middle")?;
    if version == Version::V2_4 {
        a_burst(&world).await.context("a burst")?;
    }
    assert_eq!(world.scene.denied_requests()?, [""; 0], "the least privileges suffice");
    // OpenBao may have made a token for the plugin that was killed meanwhile: nobody has it, and it ends by itself within its period.
    eventually(PATIENCE, async || {
        let remains = world.scene.remains().await?;
        let unused = remains.len() <= 1 && remains.iter().all(|left| left.starts_with("token "));
        ensure!(unused, "there is still {remains:?}");
        Ok(())
    })
    .await
}

async fn a_life(world: &World) -> Result<()> {
    world.apply("v1", "Pod", "web", world.template("web", SERVE)).await?;
    let pods = world.running("web", 1).await?;
    let first = world.shown("web").await?;
    world.accepted(&first, "as the container got it").await?;
    nothing_tells(world, &first).await?;

    restart(world, "web").await?;
    ensure!(world.shown("web").await? == first, "a restart changes a credential that works");
    world.accepted(&first, "after the container was killed").await?;

    let bao = world.scene.cluster.openbao().root();
    let leases = bao.lease_ids(&format!("{}/creds", world.scene.access.engine)).await?;
    ensure!(leases.len() == 1, "one credential was issued: {leases:?}");
    bao.write("sys/leases/revoke", &json!({ "lease_id": leases[0], "sync": true })).await?;
    world.refused(&first, "after its lease was revoked behind its back").await?;
    restart(world, "web").await?;
    let second = world.shown("web").await?;
    ensure!(second != first, "the container got a dead credential again");
    world.accepted(&second, "after a restart with a dead one").await?;
    world.survives_comparisons(&second, "as the successor of a dead one").await?;
    nothing_tells(world, &second).await?;

    world.scene.delete("web").await?;
    world.gone(&pods[0]).await?;
    world.refused(&second, "after its pod was deleted").await?;
    world.scene.nothing_remains(PATIENCE).await
}

async fn a_plugin_that_is_absent(world: &mut World) -> Result<()> {
    world.scene.system.node_plugins[0].server.kill().await?;
    world.apply("v1", "Pod", "early", world.template("early", SERVE)).await?;
    let reasons = never_runs(world, "early").await?;
    let tripped = reasons.iter().any(|reason| reason.contains("not a directory"));
    ensure!(tripped, "the tripwire keeps it from running: {reasons:?}");
    starts_by_itself(world, "early").await
}

async fn a_plugin_that_is_killed_in_the_middle(world: &mut World) -> Result<()> {
    // Admitted while OpenBao answers, and bound to the node when it does not.
    let mut template = world.template("unlucky", SERVE);
    template["spec"]["schedulingGates"] = json!([{ "name": "vdbi.test/wait" }]);
    world.apply("v1", "Pod", "unlucky", template).await?;
    world.scene.cluster.openbao_mut().server_mut().stop()?;
    let open = Patch::Merge(json!({ "spec": { "schedulingGates": null } }));
    world.scene.pods().patch("unlucky", &PatchParams::default(), &open).await?;
    eventually(PATIENCE, async || {
        let plugin = &world.scene.system.node_plugins[0];
        let (fetching, waiting) = (
            plugin.metric("vdbi_nri_prewarm_inflight", &[]).await?,
            plugin.metric("vdbi_nri_resolve_duplicate_total", &[]).await?,
        );
        ensure!(fetching > 0.0 && waiting > 0.0, "no container waits for its credential");
        Ok(())
    })
    .await?;
    world.scene.system.node_plugins[0].server.kill().await?;
    world.scene.cluster.openbao_mut().server_mut().cont()?;
    never_runs(world, "unlucky").await?;
    starts_by_itself(world, "unlucky").await
}

async fn a_burst(world: &World) -> Result<()> {
    let started = Instant::now();
    let names: Vec<String> = (0..BURST).map(|index| format!("burst-{index}")).collect();
    let create = async |name: &String| world.apply("v1", "Pod", name, world.template("burst", SERVE)).await;
    try_join_all(names.iter().map(create)).await?;
    let pods = world.running("burst", BURST).await?;
    eprintln!("{BURST} pods created at once ran after {:?}", started.elapsed());
    let mut users = BTreeSet::new();
    for pod in &pods {
        let login = world.shown(&pod.name_any()).await?;
        world.accepted(&login, "of a pod of a burst").await?;
        users.insert(login.user);
    }
    ensure!(users.len() == BURST, "two pods share a credential");
    for name in &names {
        world.scene.delete(name).await?;
    }
    try_join_all(pods.iter().map(async |pod| world.gone(pod).await)).await.map(drop)
}

/// The plugin is started again, and the pod that waits for it runs with a credential, which ends with it.
async fn starts_by_itself(world: &mut World, name: &str) -> Result<()> {
    let plugin = &mut world.scene.system.node_plugins[0];
    plugin.server.restart().await?;
    plugin.ready(PATIENCE).await?;
    let pods = world.running(name, 1).await?;
    let login = world.shown(name).await?;
    world.accepted(&login, "once the plugin was back").await?;
    world.scene.delete(name).await?;
    world.gone(&pods[0]).await?;
    world.refused(&login, "after its pod was deleted").await
}

/// Kills the container and waits until the kubelet has started it again.
async fn restart(world: &World, name: &str) -> Result<()> {
    let before = status(&world.pod(name).await?).context("it has a container")?;
    let id = before.container_id.context("its container has an id")?;
    world.scene.cluster.nodes().node("node-1").kill_container(&id).await?;
    world
        .container(name, "running again", |restarts, state| {
            restarts > before.restart_count && state.running.is_some()
        })
        .await
}

/// Watches a container that must not run; everything that the kubelet says of it meanwhile, of which a back-off is the last.
async fn never_runs(world: &World, name: &str) -> Result<BTreeSet<String>> {
    let (watched, mut reasons) = (Instant::now(), BTreeSet::new());
    while watched.elapsed() < WATCHED || reasons.is_empty() {
        ensure!(watched.elapsed() < PATIENCE, "the kubelet does not say why {name} does not run");
        let pod = world.pod(name).await?;
        if let Some(status) = status(&pod) {
            let state = status.state.unwrap_or_default();
            ensure!(state.running.is_none(), "{name} runs");
            let last = status.last_state.and_then(|state| state.terminated);
            for terminated in [state.terminated, last].into_iter().flatten() {
                // It was never started.
                ensure!(terminated.reason.as_deref() == Some("StartError"), "{name} ran: {terminated:?}");
                reasons.extend(terminated.message);
            }
            reasons.extend(state.waiting.and_then(|waiting| waiting.message));
        }
        if let Ok(log) = world.scene.pods().logs(name, &LogParams::default()).await {
            ensure!(!log.contains(PLACEHOLDER), "a placeholder has reached an application");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("{name} did not run: {reasons:?}");
    Ok(reasons)
}

fn status(pod: &Pod) -> Option<ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned()
}

/// The secret is neither in the pod's object, nor in an event, nor anywhere in etcd or the audit log.
async fn nothing_tells(world: &World, login: &Login) -> Result<()> {
    let pod = serde_json::to_string(&world.pod("web").await?)?;
    ensure!(pod.contains(PLACEHOLDER), "the pod has no placeholder: {pod}");
    let events: Api<Event> = Api::all(world.scene.cluster.kubernetes().admin());
    let events = serde_json::to_string(&events.list(&Default::default()).await?.items)?;
    for (what, text) in [("the pod", &pod), ("an event", &events)] {
        ensure!(
            !text.contains(&login.password) && !text.contains(&login.user),
            "{what} tells the credential"
        );
    }
    let files = files(&world.scene.cluster.directory().join("kubernetes"))?;
    let contains = |path: &Path, text: &str| {
        fs::read(path).is_ok_and(|content| String::from_utf8_lossy(&content).contains(text))
    };
    let known = files.iter().filter(|path| contains(path, PLACEHOLDER)).count();
    ensure!(
        known >= 2,
        "placeholders are seen in etcd and in the audit log: {known} of {} files",
        files.len()
    );
    for path in &files {
        ensure!(!contains(path, &login.password), "{} tells the password", path.display());
        ensure!(!contains(path, &login.user), "{} tells the user", path.display());
    }
    Ok(())
}

/// All files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}
