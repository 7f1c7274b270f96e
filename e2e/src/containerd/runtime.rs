use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Nri, Version, configuration::Configuration};
use crate::{
    installed::Installed,
    machine::{Machine, search_path},
    process::Server,
};

const START: Duration = Duration::from_secs(30);

/// A containerd in a machine, with the image of the pods in its store.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) server: Server,
    pub(crate) socket: PathBuf,
    pub(crate) nri_socket: PathBuf,
}

/// What a [`Runtime`] starts with.
pub(crate) struct Settings<'a> {
    pub(crate) version: Version,
    pub(crate) nri: &'a Nri,
    pub(crate) socket: PathBuf,
    pub(crate) nri_socket: PathBuf,
    /// The configurations of the network plugins.
    pub(crate) networks: &'a Path,
    /// The archive of the pods' image.
    pub(crate) image: &'a Path,
}

impl Runtime {
    /// Starts it; its files are in `directory`.
    pub(crate) async fn start(machine: &Machine, settings: Settings<'_>, directory: &Path) -> Result<Self> {
        let Settings { version, nri, socket, nri_socket, networks, image } = settings;
        let file = directory.join("containerd.toml");
        let configuration =
            Configuration { version, socket: &socket, nri_socket: &nri_socket, nri, networks };
        fs::write(&file, configuration.text()?)?;
        let containerd = Installed::Containerd(version).path()?;
        // Beside it is its shim, and there may be another one on the machine.
        let own = containerd.parent().context("a program is in a directory")?;
        let program = machine
            .program(&containerd, directory)
            .env("PATH", format!("{}:{}", own.display(), search_path()))
            .arg(format!("--config={}", file.display()));
        let mut server = Server::start("containerd", program, directory).await?;
        server.ready(START, async || import(machine, version, &socket, image, directory).await).await?;
        Ok(Self { server, socket, nri_socket })
    }
}

/// Puts an image into the store of the containerd at `socket`, in the machine, from an archive.
pub(crate) async fn import(
    machine: &Machine,
    version: Version,
    socket: &Path,
    archive: &Path,
    directory: &Path,
) -> Result<()> {
    let client = machine
        .program(&Installed::Ctr(version).path()?, directory)
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive);
    let mut client = Server::start("ctr", client, directory).await?;
    let status = client.wait_exit(START).await?;
    ensure!(status.success(), "the image could not be imported: {}", client.log_tail(3));
    Ok(())
}
