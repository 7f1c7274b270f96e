//! The node plugin in this process, over the embedded backends and the embedded Kubernetes API, on a real containerd.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow};
use e2e::{
    Containerd, Options, Version,
    cri::{Container, ContainerSpec, Cri, Pod, PodSpec},
    scene::eventually,
};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Status as Refusal;
use vdbi_core::{
    custody::Custody,
    ledger::{EntryId, Owner},
    memory::{MemoryLedger, MemorySource, kubernetes::KubernetesApi},
    metrics::Registry,
    placeholder::Placeholder,
    pod::UUID_ANNOTATION,
    secret::Secret,
};
use vdbi_nri::{
    NodePlugin,
    cache::Cache,
    leaks::Leaks,
    plugin,
    pods::{NodePods, Selection},
    stub::{Settings, Stub},
};

const PATIENCE: Duration = Duration::from_secs(30);
const NODE: &str = "node-1";

/// The label of a release's pods.
pub(crate) const PROD: &str = "vault-db-injector";

/// A containerd, an API server and a source of credentials.
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    pub(crate) cri: Cri,
    pub(crate) kubernetes: KubernetesApi,
    pub(crate) source: MemorySource,
    pub(crate) ledger: MemoryLedger,
}

/// A release's plugin; it dies when this is dropped.
pub(crate) struct Running {
    _tasks: JoinSet<()>,
}

/// A pod as the webhook leaves it, with what stands for its credential.
pub(crate) struct Placed {
    pub(crate) pod: Pod,
    pub(crate) user: Placeholder,
    pub(crate) password: Placeholder,
    pub(crate) id: EntryId,
    /// What the kubelet would mount over `/proc/uptime`.
    tripwire: PathBuf,
}

impl Node {
    pub(crate) async fn start(version: Version) -> Result<Self> {
        Self::with(version, Vec::new()).await
    }

    /// With these variables in the pods' image.
    pub(crate) async fn with(version: Version, image_env: Vec<(String, String)>) -> Result<Self> {
        let containerd = Containerd::start(version, Options { image_env, ..Options::default() }).await?;
        let cri = containerd.cri().await?;
        let source = MemorySource::new();
        source.allow("app", "shop", "app1");
        let (kubernetes, ledger) = (KubernetesApi::new(), MemoryLedger::new());
        Ok(Self { containerd, cri, kubernetes, source, ledger })
    }

    /// Connects the plugin of a release, and waits until containerd asks it.
    pub(crate) async fn plugin(&self, label: &str, index: &str) -> Result<Running> {
        let registry = Registry::disabled();
        let owner = Owner { cluster: "c".into(), release: label.into() };
        let custody = Custody::new(self.source.clone(), self.ledger.clone(), owner, &registry);
        let selection = Selection { label: label.to_owned(), node: NODE.to_owned() };
        let (pods, follower) = NodePods::new(self.kubernetes.client(), selection);
        let mut settings = plugin::Settings::new("databases");
        settings.prewarm = None;
        let cache = Cache::open(self.containerd.directory().join(label))?;
        let leaks = Leaks::new(self.kubernetes.client(), "vdbi-nri");
        let plugin = NodePlugin::new(custody, cache, pods, leaks, settings, &registry);
        let mut settings = Settings::new(label, index)?;
        settings.socket = self.containerd.nri_socket().to_owned();
        let stub = Stub::new(settings, plugin.clone(), &registry);
        let status = stub.status();
        let mut tasks = JoinSet::new();
        tasks.spawn(plugin.follow(follower, std::future::pending()));
        tasks.spawn(stub.run(std::future::pending()));
        eventually(PATIENCE, async || {
            let status = status.borrow().clone();
            status.ready().map_err(|why| anyhow!("the plugin is not asked: {why}"))
        })
        .await?;
        Ok(Running { _tasks: tasks })
    }

    /// A pod of a release, known to the API server, with its sandbox.
    pub(crate) async fn pod(&self, name: &str, label: &str) -> Result<Placed> {
        let (user, password, id) = (Placeholder::random(), Placeholder::random(), EntryId::random());
        let object = json!({
            "metadata": {
                "name": name,
                "labels": { label: "true" },
                "annotations": {
                    "db-creds-injector.numberly.io/main.role": "app",
                    UUID_ANNOTATION: id.to_string(),
                },
            },
            "spec": {
                "serviceAccountName": "app1",
                "containers": [{ "name": "web", "image": "web", "env": [
                    { "name": "DBUSER", "value": user.to_string() },
                    { "name": "DBPASSWORD", "value": password.to_string() },
                ] }],
            },
        });
        let pods: Api<PodObject> = Api::namespaced(self.kubernetes.client(), "shop");
        let object = pods.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        self.kubernetes.bind_pod("shop", name, NODE);
        let uid = object.uid().context("a pod has a uid")?;
        let spec = PodSpec::named(name).namespace("shop").uid(&uid).label(label, "true");
        let pod = self.cri.run_pod(&spec).await?;
        // As the kubelet makes the directory of a volume.
        let tripwire =
            self.containerd.directory().join(format!("volumes-{name}")).join(vdbi_core::tripwire::VOLUME);
        std::fs::create_dir_all(&tripwire)?;
        Ok(Placed { pod, user, password, id, tripwire })
    }

    /// Starts a container of it.
    pub(crate) async fn run(&self, placed: &Placed, name: &str) -> Result<Container, Refusal> {
        self.cri.run(&placed.pod, &placed.container(name)).await
    }

    /// Whether the container has a credential that works; the placeholder is nowhere in its environment.
    pub(crate) async fn serves(&self, container: &Container) -> Result<bool> {
        let user = container.variable("DBUSER").await?.context("DBUSER is set")?;
        let password = container.variable("DBPASSWORD").await?.context("DBPASSWORD is set")?;
        let environment = self.cri.exec(container, &["sh", "-c", "export"]).await?.stdout;
        anyhow::ensure!(!environment.contains("__VDBI_PH_"), "a placeholder is left");
        Ok(self.source.can_login(&user, &Secret::new(password)))
    }
}

impl Placed {
    pub(crate) fn container(&self, name: &str) -> ContainerSpec {
        ContainerSpec::named(name)
            .env("DBUSER", &self.user.to_string())
            .env("DBPASSWORD", &self.password.to_string())
            .mount(&self.tripwire, vdbi_core::tripwire::PATH)
    }
}
