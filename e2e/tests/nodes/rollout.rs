use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{Component, network::isolated, scene::eventually, system::LABEL};
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    helm::{Chart, Helm, pod_metric},
    world::{PATIENCE, SERVE, World},
};

/// Pods that are created per second meanwhile, and how many creations are under way at most.
const RATE: u32 = 20;
const AT_ONCE: usize = 8;

/// Each of them fills two cores, on which kube-proxy has to learn within the webhook's `drainDelay` who is ready: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

const CHANGE: &str = "vdbi.test/change";

/// Of the pods that a kubelet takes, 110, so many are left beside the release's own.
const STARTED: usize = 80;

#[test]
fn a_release_is_upgraded_and_rolled_back_under_load_and_its_leader_replaced_without_losing_a_pod()
-> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    isolated(async || {
        let world = World::for_charts().await?;
        // All pods end at once while a revoker takes over from another, at which the brake would have somebody look first.
        let no_brake = json!({ "vaultDbInjector": { "configuration": { "revoker": { "brakeShare": 1 } } } });
        let chart = world.chart("prod", LABEL, no_brake).await?;
        world.install(&chart, json!({})).await?;
        a_leader_that_is_deleted(&world, &chart).await.context("a leader that is deleted")?;

        let created = beside(&world, world.install(&chart, changed("second"))).await.context("an upgrade")?;
        eprintln!("{created} pods were created during an upgrade, each with a credential");
        let rollback = ["rollback", chart.name, "1", "--namespace", &chart.access.system_namespace];
        let rollback = [&rollback[..], &["--wait", "--timeout", "170s"]].concat();
        let created = beside(&world, world.helm(&rollback)).await.context("a rollback")?;
        eprintln!("{created} pods were created during a rollback, each with a credential");
        eventually(PATIENCE, async || {
            for component in [Component::Injector, Component::Renewer, Component::Revoker] {
                for pod in world.component(&chart, component).await? {
                    let (name, is_back) = (pod.name_any(), !pod.annotations().contains_key(CHANGE));
                    ensure!(is_back, "{name} is of the upgrade that was rolled back");
                }
            }
            Ok(())
        })
        .await?;
        assert_eq!(
            world.scene.cluster.denied_requests(&chart.access)?,
            [""; 0],
            "the roles of the chart suffice"
        );
        world.scene.nothing_remains(PATIENCE).await
    })
}

#[test]
fn while_the_node_plugin_is_replaced_no_pod_shows_a_placeholder_and_none_hangs() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    isolated(async || {
        let world = World::for_charts().await?;
        let chart = world.chart("prod", LABEL, json!({ "nri": { "enabled": true } })).await?;
        world.install(&chart, json!({})).await?;
        let before = world.component(&chart, Component::Nri).await?;
        let done = AtomicBool::new(false);
        let (upgraded, names) = tokio::join!(
            async {
                let outcome = world.install(&chart, changed("second")).await;
                done.store(true, Ordering::Relaxed);
                outcome
            },
            started_until(&world, &done),
        );
        upgraded?;
        let names = names?;
        let after = world.component(&chart, Component::Nri).await?;
        ensure!(
            after.len() == 1 && before.len() == 1 && after[0].uid() != before[0].uid(),
            "the plugin was replaced"
        );
        world.running("roll", names.len()).await?;
        let mut users = BTreeSet::new();
        for name in &names {
            let login = world.shown(name).await?;
            world.accepted(&login, "of a pod that started while the plugin was replaced").await?;
            users.insert(login.user);
        }
        ensure!(users.len() == names.len(), "two pods share a credential");
        eprintln!("{} pods started while the plugin was replaced", names.len());
        assert_eq!(
            world.scene.cluster.denied_requests(&chart.access)?,
            [""; 0],
            "the roles of the chart suffice"
        );
        Ok(())
    })
}

/// A value that has every pod of the release replaced.
fn changed(to: &str) -> serde_json::Value {
    let change = json!({ "podAnnotations": { CHANGE: to } });
    json!({ "injector": change, "renewer": change, "revoker": change, "nri": change })
}

async fn a_leader_that_is_deleted(world: &World<Helm>, chart: &Chart) -> Result<()> {
    for component in [Component::Renewer, Component::Revoker] {
        let leaders = async || {
            let mut leaders = Vec::new();
            for pod in world.component(chart, component).await? {
                if pod_metric(&pod, "vdbi_is_leader").await.is_ok_and(|leads| leads > 0.0) {
                    leaders.push(pod);
                }
            }
            let [leader] = &leaders[..] else { anyhow::bail!("{} lead", leaders.len()) };
            Ok(leader.clone())
        };
        eventually(PATIENCE, async || leaders().await.map(drop)).await?;
        let before = leaders().await?;
        let started = Instant::now();
        let pods: Api<Pod> =
            Api::namespaced(world.scene.cluster.kubernetes().admin(), &chart.access.system_namespace);
        pods.delete(&before.name_any(), &DeleteParams::default()).await?;
        eventually(PATIENCE, async || {
            ensure!(leaders().await?.uid() != before.uid(), "nobody has taken over");
            Ok(())
        })
        .await?;
        eprintln!("another {} led {:?} after its leader was deleted", component.name(), started.elapsed());
    }
    Ok(())
}

/// Creates pods at a fixed rate until something is done; how many. Each was given a credential; they are deleted again.
async fn beside<T>(world: &World<Helm>, work: impl Future<Output = Result<T>>) -> Result<usize> {
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut creations = FuturesUnordered::new();
    let mut created = 0;
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = ticks.tick(), if creations.len() < AT_ONCE => creations.push(admitted(world)),
            Some(admitted) = creations.next() => {
                admitted?;
                created += 1;
            }
        }
    };
    outcome?;
    while let Some(admitted) = creations.next().await {
        admitted?;
        created += 1;
    }
    let load = ListParams::default().labels("app=load");
    world.scene.pods().delete_collection(&DeleteParams::default(), &load).await?;
    Ok(created)
}

/// A pod that is admitted with a credential, and never bound to a node.
async fn admitted(world: &World<Helm>) -> Result<()> {
    let mut pod = world.scene.pod("load", &[("main.role", "app")]);
    pod.metadata.name = None;
    pod.metadata.generate_name = Some("load-".to_owned());
    pod.metadata.labels.get_or_insert_default().insert("app".to_owned(), "load".to_owned());
    let gate = serde_json::from_value(json!([{ "name": "vdbi.test/never" }]))?;
    pod.spec.get_or_insert_default().scheduling_gates = gate;
    let pod = world.scene.pods().create(&PostParams::default(), &pod).await?;
    e2e::scene::login(&pod, "DBUSER", "DBPASSWORD").map(drop)
}

/// Starts a pod every half second until something is done, or there are enough; their names.
async fn started_until(world: &World<Helm>, done: &AtomicBool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut ticks = interval(Duration::from_millis(500));
    while !done.load(Ordering::Relaxed) && names.len() < STARTED {
        ticks.tick().await;
        let name = format!("roll-{}", names.len());
        let template = world.template("roll", SERVE);
        world.apply("v1", "Pod", &name, template).await?;
        names.push(name);
    }
    Ok(names)
}
