use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use serde_json::json;

use super::{
    START, is_ready,
    runtime::{self, SOCKET},
};
use crate::{
    containerd::{self, Nri, Runtime, Version},
    installed::Installed,
    kubernetes::Kubernetes,
    machine::Machine,
    network,
    process::{Program, Server},
};

/// A node: a machine with a kubelet and containerd.
#[derive(Debug)]
pub struct Node {
    name: String,
    // Dropped in this order; the machine takes along what these have started.
    kubelet: Server,
    runtime: Runtime,
    machine: Machine,
    version: Version,
    directory: PathBuf,
}

impl Node {
    pub(super) async fn start(
        kubernetes: &Kubernetes,
        (version, nri): (Version, &Nri),
        name: &str,
        index: usize,
        image: &Path,
        directory: &Path,
    ) -> Result<Self> {
        let machine = Machine::on_disk(name, directory).await?;
        let runtime = runtime::start(&machine, version, nri, index, image, directory).await?;
        let address = format!("{}.{}", network::NODES, 11 + index);
        let configuration = directory.join("kubelet.json");
        fs::write(&configuration, configuration_at(&address, machine.cgroup()).to_string())?;
        let kubeconfig = kubernetes.kubeconfig_for_user(&format!("system:node:{name}"), "system:nodes")?;
        let program = machine
            .program(&Installed::Kubelet.path()?, directory)
            .arg(format!("--config={}", configuration.display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--hostname-override={name}"))
            .arg(format!("--node-ip={address}"))
            .args(["--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki"]);
        let mut kubelet = Server::start("kubelet", program, directory).await?;
        let nodes: Api<NodeObject> = Api::all(kubernetes.admin());
        let ready = async || {
            ensure!(is_ready(&nodes.get(name).await?), "{name} is not ready");
            Ok(())
        };
        kubelet.ready(START, ready).await?;
        let (name, directory) = (name.to_owned(), directory.to_owned());
        Ok(Self { name, kubelet, runtime, machine, version, directory })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kubelet: to kill it, for instance, which the containers of its pods survive.
    pub fn kubelet_mut(&mut self) -> &mut Server {
        &mut self.kubelet
    }

    /// Its containerd.
    pub fn containerd_mut(&mut self) -> &mut Server {
        &mut self.runtime.server
    }

    /// Where NRI plugins register: a path that only the programs of this node see.
    #[must_use]
    pub fn nri_socket(&self) -> &Path {
        &self.runtime.nri_socket
    }

    /// A program on the node, as a privileged pod has it: it sees the node's own mounts and processes, and ends with the node.
    #[must_use]
    pub fn program(&self, path: impl AsRef<Path>) -> Program {
        self.machine.program(path.as_ref(), &self.directory)
    }

    /// Puts an image into the node's store, from an archive.
    ///
    /// # Errors
    ///
    /// When containerd refuses it.
    pub async fn import_image(&self, archive: &Path) -> Result<()> {
        containerd::import(&self.machine, self.version, Path::new(SOCKET), archive, &self.directory).await
    }

    /// Kills what a container runs, behind the kubelet's back; `id` is the container's as the pod's status has it.
    ///
    /// # Errors
    ///
    /// When containerd has no such container.
    pub async fn kill_container(&self, id: &str) -> Result<()> {
        let id = id.strip_prefix("containerd://").unwrap_or(id);
        let client = self.program(Installed::Ctr(self.version).path()?).args([
            "--address",
            SOCKET,
            "--namespace",
            "k8s.io",
            "tasks",
            "kill",
            "--signal",
            "SIGKILL",
            id,
        ]);
        let mut client = Server::start("ctr", client, &self.directory).await?;
        let status = client.wait_exit(START).await?;
        ensure!(status.success(), "container {id} could not be killed: {}", client.log_tail(3));
        Ok(())
    }

    /// The directory of the node, for the files and logs of what the test runs on it; its path is the same there.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn configuration_at(address: &str, cgroup: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "healthzPort": 0,
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "resolvConf": "",
        // It tells every second that it lives, four times in the life of its lease.
        "nodeLeaseDurationSeconds": 4,
        "nodeStatusUpdateFrequency": "1s",
        "volumeStatsAggPeriod": "1s",
        // How full the disk of the machine around it is says nothing: no pod is evicted and no image removed for it.
        "evictionHard": { "memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi" },
        "imageGCHighThresholdPercent": 100,
        // What a machine within a machine has or has not.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
    })
}
