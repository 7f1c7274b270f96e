//! What makes a whole cluster of a control plane: controllers, a scheduler, services, and nodes on which pods really run.

mod kubelet;
mod runtime;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node as NodeObject, ServiceAccount};
use kube::Api;

pub use kubelet::Node;

use crate::{
    containerd::{Nri, Version},
    image,
    installed::Installed,
    kubernetes::Kubernetes,
    machine::search_path,
    network,
    process::{Program, Server},
};
pub use crate::{image::IMAGE, machine::remove_stale_cgroups, network::HOST};

const START: Duration = Duration::from_secs(60);

/// As many as [`network::isolated`] has addresses for.
const MOST: usize = 2;

/// How long a node is believed after its last sign of life: seconds instead of a minute, and long enough for a busy machine.
const NODE_GRACE: Duration = Duration::from_secs(10);

/// The controllers and nodes of a cluster.
///
/// Each node is a machine of its own: containerd, kubelet and the pods have their own mounts and process ids, and end with it.
pub struct Nodes {
    nodes: Vec<Node>,
    proxy: Server,
    scheduler: Server,
    controllers: Server,
}

impl Nodes {
    pub(crate) async fn start(
        kubernetes: &Kubernetes,
        number: usize,
        version: Version,
        nri: &Nri,
        directory: &Path,
    ) -> Result<Self> {
        ensure!((1..=MOST).contains(&number), "a cluster has one node or two, not {number}");
        ensure!(
            network::is_isolated()?,
            "nodes need a network of their own: run the test in e2e::network::isolated"
        );
        let image = image::write(directory, &[])?;
        let mut controllers =
            Server::start("kube-controller-manager", controllers(kubernetes, directory)?, directory).await?;
        let scheduler = Server::start("kube-scheduler", scheduler(kubernetes, directory)?, directory).await?;
        let proxy = Server::start("kube-proxy", proxy(kubernetes, directory)?, directory).await?;
        let image = &image;
        let start = async |index: usize| {
            let name = format!("node-{}", index + 1);
            let directory = directory.join(&name);
            std::fs::create_dir(&directory)?;
            Node::start(kubernetes, (version, nri), &name, index, image, &directory)
                .await
                .with_context(|| format!("{name} did not start"))
        };
        let start = &start;
        let nodes = try_join_all((0..number).map(start)).await?;
        // No pod is admitted before its service account is there, and the controllers make the accounts.
        let accounts: Api<ServiceAccount> = Api::default_namespaced(kubernetes.admin());
        controllers.ready(START, async || Ok(accounts.get("default").await.map(drop)?)).await?;
        Ok(Self { nodes, proxy, scheduler, controllers })
    }

    /// How many nodes there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a cluster with nodes has one at least")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A node by its name: `node-1` is the first one.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    #[track_caller]
    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        match self.nodes.iter_mut().find(|node| node.name() == name) {
            Some(node) => node,
            None => panic!("there is no {name}"),
        }
    }

    /// As [`Nodes::node_mut`], to look at.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn node(&self, name: &str) -> &Node {
        match self.nodes.iter().find(|node| node.name() == name) {
            Some(node) => node,
            None => panic!("there is no {name}"),
        }
    }

    /// The processes of the cluster itself: controllers, scheduler, kube-proxy.
    pub fn components_mut(&mut self) -> [&mut Server; 3] {
        let Self { nodes: _, proxy, scheduler, controllers } = self;
        [controllers, scheduler, proxy]
    }
}

/// Whether the node says that it can run pods, and nothing keeps pods from it.
pub(crate) fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let tainted = node.spec.iter().any(|spec| spec.taints.iter().flatten().next().is_some());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        && !tainted
}

fn controllers(kubernetes: &Kubernetes, directory: &Path) -> Result<Program> {
    let user = "system:kube-controller-manager";
    Ok(Program::new(Installed::ControllerManager.path()?, directory)
        .arg(format!("--kubeconfig={}", kubernetes.kubeconfig_for_user(user, user)?.display()))
        .arg(format!("--service-account-private-key-file={}", kubernetes.signing_key_file().display()))
        .arg(format!("--root-ca-file={}", kubernetes.ca_file().display()))
        .args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"])
        .arg(format!("--flex-volume-plugin-dir={}", directory.display()))
        // A node that died is noticed in seconds, and all of its pods at once.
        .arg(format!("--node-monitor-grace-period={}s", NODE_GRACE.as_secs()))
        .args([
            "--node-monitor-period=500ms",
            "--node-eviction-rate=10",
            "--secondary-node-eviction-rate=10",
        ]))
}

fn scheduler(kubernetes: &Kubernetes, directory: &Path) -> Result<Program> {
    let user = "system:kube-scheduler";
    Ok(Program::new(Installed::Scheduler.path()?, directory)
        .arg(format!("--kubeconfig={}", kubernetes.kubeconfig_for_user(user, user)?.display()))
        .args(["--leader-elect=false", "--secure-port=0"]))
}

fn proxy(kubernetes: &Kubernetes, directory: &Path) -> Result<Program> {
    let user = "system:kube-proxy";
    Ok(Program::new(Installed::KubeProxy.path()?, directory)
        .arg(format!("--kubeconfig={}", kubernetes.kubeconfig_for_user(user, user)?.display()))
        .env("PATH", search_path())
        .args(["--proxy-mode=nftables", "--hostname-override=node-1"])
        // These are of the whole machine, not of the network.
        .args(["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"])
        .arg("--conntrack-tcp-timeout-close-wait=0"))
}
