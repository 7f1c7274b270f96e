use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, network::isolated, nodes::IMAGE, scene::eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;

#[test]
fn a_pod_runs_and_nothing_is_left_of_its_node() -> Result<()> {
    isolated(async || {
        let started = Instant::now();
        let cluster = Cluster::builder().nodes(2).start().await?;
        eprintln!("a whole cluster was ready after {:?}", started.elapsed());
        let pods: Api<Pod> = Api::default_namespaced(cluster.kubernetes().admin());
        let pod = serde_json::from_value(json!({
            "metadata": { "name": "app" },
            "spec": { "containers": [{
                "name": "app",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo hello; exec sleep 1000"],
            }] },
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        eventually(Duration::from_secs(20), async || {
            let log = pods.logs("app", &Default::default()).await?;
            ensure!(log == "hello\n", "{log:?}");
            Ok(())
        })
        .await
        .context("the pod did not run")?;
        eprintln!("a pod ran after {:?}", started.elapsed());
        Ok(())
    })
}
