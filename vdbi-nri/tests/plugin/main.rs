//! The node plugin over the embedded backends and the embedded Kubernetes API: containers are offered to it as containerd does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{collections::BTreeMap, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};
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
    plugin::Settings,
    pods::{NodePods, Selection},
    stub::{Adjustment, Container, ContainerInjector, Creation, Mount, Pod, Refused, Runtime},
};

mod caching;
#[cfg(feature = "testing")]
mod contract;
mod fetching;
mod prewarming;
mod refusing;

const LABEL: &str = "vault-db-injector";
const NODE: &str = "node-1";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What containerd leaves of its two seconds.
const DEADLINE: Duration = Duration::from_millis(1600);

type Plugin = NodePlugin<MemorySource, MemoryLedger>;

/// A node with its plugin, and everything that this needs.
struct Node {
    kubernetes: KubernetesApi,
    source: MemorySource,
    ledger: MemoryLedger,
    cache: TempDir,
    plugin: Plugin,
    /// Follows the pods; ends with the node.
    work: JoinSet<()>,
}

impl Node {
    fn new() -> Self {
        Self::with(Some(10))
    }

    /// Without prewarming where `prewarm` is none.
    fn with(prewarm: Option<usize>) -> Self {
        let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
        source.allow("app", "shop", "app1");
        let (kubernetes, cache) = (KubernetesApi::new(), tempfile::tempdir().unwrap());
        let (plugin, work) = start(&kubernetes, &source, &ledger, cache.path(), prewarm);
        Self { kubernetes, source, ledger, cache, plugin, work }
    }

    /// Another process of the plugin takes over what this one has on disk.
    fn restart_plugin(&mut self) {
        let Self { kubernetes, source, ledger, cache, .. } = self;
        (self.plugin, self.work) = start(kubernetes, source, ledger, cache.path(), None);
    }

    /// A pod of this node as the webhook leaves it.
    async fn pod(&self, name: &str) -> Placed {
        self.pod_of(name, "app1").await
    }

    async fn pod_of(&self, name: &str, service_account: &str) -> Placed {
        self.placed(name, service_account, &[("main", "DB", "app")]).await
    }

    /// Of whose databases the second one has a role that nobody may have.
    async fn pod_with_two_databases(&self, name: &str) -> Placed {
        self.placed(name, "app1", &[("main", "DB", "app"), ("second", "OTHER", "other")]).await
    }

    /// Databases with their names, the prefix of their variables, and their roles.
    async fn placed(&self, name: &str, service_account: &str, databases: &[(&str, &str, &str)]) -> Placed {
        let (mut annotations, mut env, mut ids) = (serde_json::Map::new(), Vec::new(), Vec::new());
        for (database, variables, role) in databases {
            let mut annotate = |key: &str, value: String| {
                annotations.insert(format!("db-creds-injector.numberly.io/{database}.{key}"), value.into());
            };
            annotate("role", (*role).to_owned());
            for (key, half) in [("env-key-dbuser", "USER"), ("env-key-dbpassword", "PASSWORD")] {
                annotate(key, format!("{variables}{half}"));
                env.push((format!("{variables}{half}"), Placeholder::random().to_string()));
            }
            ids.push(EntryId::random());
        }
        let list: Vec<String> = ids.iter().map(EntryId::to_string).collect();
        annotations.insert(UUID_ANNOTATION.to_owned(), list.join(",").into());
        let variables: Vec<_> =
            env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let object = json!({
            "metadata": { "name": name, "labels": { LABEL: "true" }, "annotations": annotations },
            "spec": {
                "serviceAccountName": service_account,
                "containers": [{ "name": "web", "image": "web", "env": variables }],
            },
        });
        let pods: Api<PodObject> = Api::namespaced(self.kubernetes.client(), "shop");
        let object =
            pods.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        assert!(self.kubernetes.bind_pod("shop", name, NODE));
        let mut sandbox = Pod::default();
        sandbox.id = format!("sandbox-{name}");
        sandbox.name = name.to_owned();
        sandbox.namespace = "shop".to_owned();
        sandbox.uid = object.uid().unwrap();
        sandbox.labels = [(LABEL.to_owned(), "true".to_owned())].into();
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        Placed { sandbox, env: ["PATH=/bin".to_owned()].into_iter().chain(env).collect(), id: ids[0] }
    }

    /// Has the pod's container created; its login, or why there is none.
    async fn create(&self, placed: &Placed) -> Result<(String, Secret), Refused> {
        Ok(login(&self.adjusted(placed, &placed.container()).await?))
    }

    async fn adjusted(&self, placed: &Placed, container: &Container) -> Result<Adjustment, Refused> {
        let runtime = Runtime::containerd("v2.2.9");
        let deadline = Instant::now() + DEADLINE;
        self.plugin.create(Creation::new(&placed.sandbox, container, &runtime, deadline)).await
    }

    async fn works(&self, login: &(String, Secret)) -> bool {
        self.source.can_login(&login.0, &login.1)
    }
}

fn start(
    kubernetes: &KubernetesApi,
    source: &MemorySource,
    ledger: &MemoryLedger,
    cache: &Path,
    prewarm: Option<usize>,
) -> (Plugin, JoinSet<()>) {
    let registry = Registry::disabled();
    let owner = Owner { cluster: "c".into(), release: "prod".into() };
    let custody = Custody::new(source.clone(), ledger.clone(), owner, &registry);
    let selection = Selection { label: LABEL.into(), node: NODE.into() };
    let (pods, follower) = NodePods::new(kubernetes.client(), selection);
    let mut settings = Settings::new("databases");
    settings.prewarm = prewarm;
    let leaks = Leaks::new(kubernetes.client(), "vdbi-nri");
    let plugin = NodePlugin::new(custody, Cache::open(cache).unwrap(), pods, leaks, settings, &registry);
    let mut work = JoinSet::new();
    work.spawn(plugin.clone().follow(follower, std::future::pending()));
    (plugin, work)
}

/// A pod on the node.
struct Placed {
    sandbox: Pod,
    env: Vec<String>,
    id: EntryId,
}

impl Placed {
    fn container(&self) -> Container {
        let mut container = Container::default();
        container.id = "c1".into();
        container.pod_id = self.sandbox.id.clone();
        container.name = "web".into();
        container.args = vec!["serve".into()];
        container.env = self.env.clone();
        container.mounts = vec![Mount {
            destination: "/proc/uptime".into(),
            kind: "bind".into(),
            source: "/var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/vdbi-tripwire".into(),
            options: vec!["rbind".into()],
        }];
        container
    }
}

fn login(adjustment: &Adjustment) -> (String, Secret) {
    let env: BTreeMap<&str, &Secret> = adjustment.env().collect();
    assert_eq!(env.keys().copied().collect::<Vec<_>>(), ["DBPASSWORD", "DBUSER"]);
    (env["DBUSER"].expose().to_owned(), env["DBPASSWORD"].clone())
}

/// Waits until something is so.
async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
