//! containerd with the network plugins, as a node has it.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::json;

use crate::{
    containerd::{Nri, Runtime, Settings, Version},
    machine::Machine,
};

/// In the machine, where nobody else's is.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

/// Where NRI plugins register, in the machine.
pub(super) const NRI_SOCKET: &str = "/run/nri/nri.sock";

/// Starts it with the image of the pods in its store; `index` tells the nodes of one cluster apart.
pub(super) async fn start(
    machine: &Machine,
    version: Version,
    nri: &Nri,
    index: usize,
    image: &Path,
    directory: &Path,
) -> Result<Runtime> {
    let networks = directory.join("cni");
    fs::create_dir(&networks)?;
    fs::write(networks.join("pods.conflist"), network(index).to_string())?;
    let settings = Settings {
        version,
        nri,
        socket: SOCKET.into(),
        nri_socket: NRI_SOCKET.into(),
        networks: &networks,
        image,
    };
    Runtime::start(machine, settings, directory).await
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
