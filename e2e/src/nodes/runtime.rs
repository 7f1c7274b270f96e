//! containerd with the network plugins, as a node has it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{image::IMAGE, machine::Machine};
use crate::{
    installed::Installed,
    process::{Program, Server},
};

/// In the machine, where nobody else's is.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

const START: Duration = Duration::from_secs(30);

/// Starts it with the image of the pods in its store; `index` tells the nodes of one cluster apart.
pub(super) async fn start(machine: &Machine, index: usize, image: &Path, directory: &Path) -> Result<Server> {
    let networks = directory.join("cni");
    fs::create_dir(&networks)?;
    fs::write(networks.join("pods.conflist"), network(index).to_string())?;
    let configuration = directory.join("containerd.toml");
    fs::write(&configuration, configuration_with(&networks)?)?;
    let program = machine
        .program(&Installed::Containerd.path()?, directory)
        .arg(format!("--config={}", configuration.display()));
    let mut containerd = Server::start("containerd", program, directory).await?;
    // It has a name of its own in the log each time.
    let attempt = async || {
        let client = client(machine, directory)?.args(["images", "import"]).arg(image);
        let mut client = Server::start("ctr", client, directory).await?;
        let status = client.wait_exit(START).await?;
        ensure!(status.success(), "the image could not be imported: {}", client.log_tail(3));
        Ok(())
    };
    containerd.ready(START, attempt).await?;
    Ok(containerd)
}

fn client(machine: &Machine, directory: &Path) -> Result<Program> {
    Ok(machine.program(&Installed::Ctr.path()?, directory).args([
        "--address",
        SOCKET,
        "--namespace",
        "k8s.io",
    ]))
}

/// Pods of all nodes reach each other, as the bridges of the nodes are in one network.
fn network(index: usize) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": format!("pods-{}", index + 1),
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": format!("10.244.{}.0/24", index + 1) }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

fn configuration_with(networks: &Path) -> Result<String> {
    let (runc, bridge) = (Installed::Runc.path()?, Installed::CniBridge.path()?);
    let plugins = bridge.parent().context("a plugin is in a directory")?;
    Ok(format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs", "io.containerd.nri.v1.nri",
]
[grpc]
  address = "{SOCKET}"
[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd-opt"
[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = "/var/lib/containerd-verifiers"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  cdi_spec_dirs = ["/run/cdi"]
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{networks}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
[plugins.'io.containerd.grpc.v1.cri']
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"#,
        plugins = plugins.display(),
        networks = networks.display(),
        runc = runc.display(),
    ))
}
