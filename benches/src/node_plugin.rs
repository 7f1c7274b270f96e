//! Containers that a real containerd creates with the node plugin's help, driven as a kubelet drives it.

mod report;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cri::{ContainerSpec, Cri, Pod, PodSpec};
use e2e::scene::{Scene, eventually};
use e2e::system::{LABEL, System};
use e2e::{Cluster, Component, Containerd, DatabaseAccess, OpenBao, Options, Release, Version};
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::load::Samples;
use crate::memory::Memory;
use report::{Creations, Report};

const NODE: &str = "bench";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fills caches, on all sides.
const WARM_UP: usize = 5;

/// What the plugin writes when a container gets its credentials.
const SERVED: &str = "gets its credentials";

/// A pod on the node whose container is yet to be created.
struct Placed {
    pod: Pod,
    container: ContainerSpec,
}

/// Creates so many containers without a plugin, with credentials that are there already, and with ones that have to be fetched.
///
/// # Errors
///
/// When a server does not start, or a container is not created as it should be.
pub(crate) async fn measure(pods: usize) -> Result<Report> {
    let servers = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres();
    let (cluster, containerd) =
        tokio::try_join!(servers.start(), Containerd::start(Version::V2_2, Options::default()))?;
    let cri = containerd.cri().await?;
    let release = release(&containerd, true);
    let mut scene =
        Scene::on(cluster, DatabaseAccess::default(), Release { replicas: 1, ..release.clone() }).await?;

    eprintln!("{pods} containers without a plugin");
    let mut plain = Vec::new();
    for index in 0..WARM_UP + pods {
        let pod = cri.run_pod(&PodSpec::named(&format!("plain-{index}"))).await?;
        let container = ContainerSpec::named("app").env("DBUSER", "user").env("DBPASSWORD", "password");
        plain.push(Placed { pod, container });
    }
    let without = create(&cri, plain).await?;

    eprintln!("{pods} containers whose credentials are there already, twice");
    let plugin = System::replica(&scene.cluster, &scene.access, &release, Component::Nri, 0).await?;
    let idle = Memory::of(plugin.server.pid())?;
    let mut memory = vec![idle];
    let mut cached = Vec::new();
    for round in 1..=2 {
        let placed = place(&scene, &cri, &format!("cached-{round}"), pods).await?;
        let expected = (round * (WARM_UP + pods)) as f64;
        eventually(PATIENCE, async || {
            let there = plugin.metric("vdbi_nri_prewarm_success_total", &[]).await?;
            ensure!(there >= expected, "{there} of {expected} pods have their credentials");
            Ok(())
        })
        .await?;
        let seen = plugin.server.log()?.len();
        let runtime = create(&cri, placed).await?;
        memory.push(Memory::of(plugin.server.pid())?);
        cached.push(Creations { runtime, plugin: in_plugin(&plugin.server.log()?[seen..]) });
    }
    drop(plugin);

    eprintln!("{pods} containers whose credentials have to be fetched");
    let release = self::release(&containerd, false);
    let plugin = System::replica(&scene.cluster, &scene.access, &release, Component::Nri, 1).await?;
    let placed = place(&scene, &cri, "fetched", pods).await?;
    let runtime = create(&cri, placed).await?;
    let fetched = Creations { runtime, plugin: in_plugin(&plugin.server.log()?) };

    let placed = place(&scene, &cri, "frozen", 1).await?;
    scene.cluster.openbao_mut().server_mut().stop()?;
    let Placed { pod, container } = placed.into_iter().next().context("a pod is placed")?;
    let asked = Instant::now();
    ensure!(cri.create(&pod, &container).await.is_err(), "a container was created without its credential");
    let frozen = asked.elapsed();
    scene.cluster.openbao_mut().server_mut().cont()?;
    Ok(Report { pods, without, cached, fetched, frozen, memory })
}

/// A release whose node plugin is on this containerd.
fn release(containerd: &Containerd, prewarm: bool) -> Release {
    let nri = json!({
        "enabled": true,
        "nodeName": NODE,
        "socketPath": containerd.nri_socket(),
        "cachePath": containerd.directory().join(format!("cache-{prewarm}")),
        "prewarmer": { "enabled": prewarm },
    });
    Release { configuration: Map::from_iter([("nri".to_owned(), nri)]), ..Release::default() }
}

/// Pods from the webhook, bound to the node, with their sandboxes.
async fn place(scene: &Scene, cri: &Cri, name: &str, pods: usize) -> Result<Vec<Placed>> {
    let mut placed = Vec::new();
    for index in 0..WARM_UP + pods {
        let name = format!("{name}-{index}");
        let object = scene.create(&name, &[("main.role", "app")]).await?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": name }, "target": { "apiVersion": "v1", "kind": "Node", "name": NODE },
        });
        let (bindings, parameters) = (scene.pods(), PostParams::default());
        bindings.create_subresource::<Value, Value>("binding", &name, &parameters, &binding).await?;
        let uid = object.uid().context("a pod has a uid")?;
        let spec = PodSpec::named(&name).namespace(&scene.access.namespace).uid(&uid).label(LABEL, "true");
        let spec = object.spec.as_ref().map(|of_object| (spec, &of_object.containers[0]));
        let (spec, of_object) = spec.context("a pod has a container")?;
        let variables = of_object.env.iter().flatten();
        let container = variables.fold(ContainerSpec::named("app"), |container, variable| {
            container.env(&variable.name, variable.value.as_deref().unwrap_or_default())
        });
        placed.push(Placed { pod: cri.run_pod(&spec).await?, container });
    }
    Ok(placed)
}

/// How long the creation of each container took, but for the first ones. Nothing of them is left.
async fn create(cri: &Cri, placed: Vec<Placed>) -> Result<Samples> {
    let mut took = Vec::new();
    for (index, Placed { pod, container }) in placed.iter().enumerate() {
        let asked = Instant::now();
        cri.create(pod, container).await?;
        if index >= WARM_UP {
            took.push(asked.elapsed());
        }
    }
    for Placed { pod, .. } in &placed {
        cri.stop_pod(pod).await?;
        cri.remove_pod(pod).await?;
    }
    Ok(took.into_iter().collect())
}

/// How long the plugin took for each container, but for the first ones, by its own log.
fn in_plugin(log: &str) -> Samples {
    log.lines().filter(|line| line.contains(SERVED)).filter_map(took).skip(WARM_UP).collect()
}

fn took(line: &str) -> Option<Duration> {
    let line: Value = serde_json::from_str(line).ok()?;
    parse_debug(line["took"].as_str()?)
}

/// A duration as `Debug` prints it.
fn parse_debug(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_alphabetic() || c == '\u{b5}')?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "\u{b5}s" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_the_log_is_read() {
        for (text, expected) in [
            ("85.3\u{b5}s", Duration::from_nanos(85_300)),
            ("1.5s", Duration::from_millis(1500)),
            ("12ms", Duration::from_millis(12)),
            ("900ns", Duration::from_nanos(900)),
        ] {
            assert_eq!(parse_debug(text), Some(expected), "{text}");
        }
        assert_eq!(parse_debug("soon"), None);
    }

    #[test]
    fn the_log_tells_how_long_the_plugin_took() {
        let line = r#"{"message":"container web of pod a/b gets its credentials","took":"85.3\u00b5s"}"#;
        assert_eq!(took(line), Some(Duration::from_nanos(85_300)));
    }
}
