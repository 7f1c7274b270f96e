use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Builder, Cluster, Component, DatabaseAccess, OpenBao, Program, Server,
    installed::Installed,
    scene::Scene,
    system::{merge, metric},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

/// Where the image comes from: nowhere but the nodes themselves.
const REPOSITORY: &str = "vdbi.test/vdbi";
const TAG: &str = "e2e";

/// How long helm may take, and the kubelet with it.
const PATIENCE: Duration = Duration::from_secs(180);

/// helm, over a cluster.
pub(crate) struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    directory: PathBuf,
}

/// A release that helm installs.
pub(crate) struct Chart {
    pub(crate) access: DatabaseAccess,
    /// The name that helm knows it by.
    pub(crate) name: &'static str,
    /// The label of its pods.
    pub(crate) label: &'static str,
    values: Value,
}

impl World<Helm> {
    /// A cluster of one node, on which is the image of the tree's own programs.
    pub(crate) async fn for_charts() -> Result<Self> {
        Self::for_charts_with(DatabaseAccess::default()).await
    }

    /// As [`World::for_charts`], with an application whose credentials are these.
    pub(crate) async fn for_charts_with(access: DatabaseAccess) -> Result<Self> {
        let cluster: Builder = Cluster::builder().nodes(1).openbao(OpenBao::dev()).postgres();
        let cluster = cluster.start().await?;
        let image = image(cluster.directory()).await?;
        cluster.nodes().node("node-1").import_image(&image).await?;
        let helm = Helm {
            program: Installed::Helm.path()?,
            kubeconfig: cluster.kubernetes().admin_kubeconfig().to_owned(),
            directory: cluster.directory().to_owned(),
        };
        Ok(Self { scene: Scene { system: helm, cluster, access } })
    }

    /// Prepares OpenBao for a release.
    pub(crate) async fn chart(
        &self,
        name: &'static str,
        label: &'static str,
        values: Value,
    ) -> Result<Chart> {
        let access = DatabaseAccess { release: format!("{name}-vdbi"), ..self.scene.access.clone() };
        self.scene.cluster.configure_servers(&access).await?;
        let mut chart = Chart { values: self.values(&access, label), access, name, label };
        merge(&mut chart.values, values);
        Ok(chart)
    }

    /// What a user has to write, and times that suit a test.
    fn values(&self, access: &DatabaseAccess, label: &str) -> Value {
        let role = |component| access.component_role(component);
        json!({
            "podLabel": label,
            "image": { "repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never" },
            "vaultTokenAudience": access.audience,
            "vaultDbInjector": { "configuration": {
                "vaultAddress": self.scene.cluster.openbao().url(),
                "vaultSecretName": access.mount,
                "vaultSecretPrefix": access.prefix,
                "defaultEngine": access.engine,
                "tokenTTL": access.token_period,
                "tokenRole": access.token_role,
                "kubeRole": role(Component::Injector),
                "kubeRoleRenewer": role(Component::Renewer),
                "kubeRoleRevoker": role(Component::Revoker),
                "kubeRoleNri": role(Component::Nri),
                "syncTTLSecond": 1,
                "revoker": { "interval": "500ms", "gracePeriod": "3s" },
            } },
        })
    }

    /// `helm upgrade --install`, until every pod is ready by the kubelet's probes.
    pub(crate) async fn install(&self, chart: &Chart, changes: Value) -> Result<String> {
        let mut values = chart.values.clone();
        merge(&mut values, changes);
        let file =
            self.scene.system.directory.join(format!("{}-{}.json", chart.name, Uuid::new_v4().simple()));
        // JSON is YAML.
        std::fs::write(&file, values.to_string())?;
        let (directory, file) = (chart_directory(), file.to_string_lossy());
        let namespace = &chart.access.system_namespace;
        let arguments =
            ["upgrade", chart.name, &directory, "--install", "--namespace", namespace, "--values", &file];
        self.helm(&[&arguments[..], &["--wait", "--timeout", "170s"]].concat()).await
    }

    pub(crate) async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let Helm { program, kubeconfig, directory } = &self.scene.system;
        let program = Program::new(program, directory).args(arguments).env("KUBECONFIG", kubeconfig);
        let name = format!("helm-{}", Uuid::new_v4().simple());
        let mut helm = Server::start(&name, program, directory).await?;
        let status = helm.wait_exit(PATIENCE).await?;
        ensure!(
            status.success(),
            "helm {}: {}\n{}",
            arguments.join(" "),
            helm.log_tail(25),
            self.tell().await
        );
        helm.log()
    }

    /// The pods of a component of a release.
    pub(crate) async fn component(&self, chart: &Chart, component: Component) -> Result<Vec<Pod>> {
        let pods: Api<Pod> =
            Api::namespaced(self.scene.cluster.kubernetes().admin(), &chart.access.system_namespace);
        let labels = format!(
            "app.kubernetes.io/instance={},app.kubernetes.io/component={}",
            chart.name,
            component.name()
        );
        Ok(pods.list(&ListParams::default().labels(&labels)).await?.items)
    }

    /// The sum of a metric over the pods of a component that answer.
    pub(crate) async fn metric(&self, chart: &Chart, component: Component, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for pod in self.component(chart, component).await? {
            sum += pod_metric(&pod, name).await.unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// The components' pods as they are, for whoever reads a failure.
    async fn tell(&self) -> String {
        let pods: Api<Pod> = Api::all(self.scene.cluster.kubernetes().admin());
        let Ok(pods) = pods.list(&ListParams::default()).await else {
            return "no pods to be seen".to_owned();
        };
        let mut told = String::new();
        for pod in pods {
            let status = pod.status.as_ref();
            let states = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
            let states: Vec<_> = states.map(|container| (container.ready, &container.state)).collect();
            told += &format!(
                "{} {:?} {states:?}\n",
                pod.name_any(),
                status.and_then(|status| status.phase.clone())
            );
            let namespaced: Api<Pod> = Api::namespaced(
                self.scene.cluster.kubernetes().admin(),
                &pod.namespace().unwrap_or_default(),
            );
            if let Ok(log) = namespaced.logs(&pod.name_any(), &Default::default()).await {
                let last: Vec<&str> = log.lines().rev().take(4).collect();
                told += &format!("  {}\n", last.join("\n  "));
            }
        }
        told
    }
}

/// A metric of one pod.
pub(crate) async fn pod_metric(pod: &Pod, name: &str) -> Result<f64> {
    let address =
        pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a pod has an address")?;
    let answer = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()?
        .get(format!("http://{address}:8080/metrics"))
        .send()
        .await?;
    metric(&answer.text().await?, name, &[])
}

fn chart_directory() -> String {
    format!("{}/../charts/vdbi", env!("CARGO_MANIFEST_DIR"))
}

/// Packs the tree's programs as `hack/image` packs a release.
async fn image(directory: &Path) -> Result<PathBuf> {
    let binary = tokio::task::spawn_blocking(|| e2e::binary("vdbi", "vdbi")).await??;
    let archive = directory.join("vdbi.tar");
    // Where cargo has what it knows of the tree.
    let home = std::env::var_os("HOME").context("HOME is set")?;
    let program = Program::new(format!("{}/../hack/image", env!("CARGO_MANIFEST_DIR")), directory)
        .env("HOME", home)
        .arg("--binary")
        .arg(&binary)
        .args(["--name", &format!("{REPOSITORY}:{TAG}"), "--output"])
        .arg(&archive);
    let mut pack = Server::start("image", program, directory).await?;
    let status = pack.wait_exit(PATIENCE).await?;
    ensure!(status.success(), "the image could not be packed: {}", pack.log_tail(10));
    Ok(archive)
}
