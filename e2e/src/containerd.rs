//! containerd in several versions, driven through its Container Runtime Interface as a kubelet does, without a cluster around it.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use e2e::{Containerd, Options, Version, cri};
//!
//! let mut containerd = Containerd::start(Version::V1_7, Options::default()).await?;
//! let cri = containerd.cri().await?;
//! let pod = cri.run_pod(&cri::PodSpec::named("web").annotation("example.test/key", "value")).await?;
//! let container = cri.run(&pod, &cri::ContainerSpec::named("app").env("NAME", "value")).await?;
//! assert_eq!(container.variable("NAME").await?.as_deref(), Some("value"));
//! containerd.restart().await?; // What it runs goes on.
//! # Ok(())
//! # }
//! ```
//!
//! The pods have the network of the process that starts them.

mod configuration;
mod runtime;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

pub(crate) use runtime::{Runtime, Settings, import};

use crate::{
    cri::Cri,
    directory::Directory,
    image,
    machine::Machine,
    process::{Program, Server},
};

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(20);

/// A version of containerd that `hack/test-env` builds. Their NRI differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// 1.7.24, with NRI 0.6.1: neither splits what it synchronizes nor removes mounts.
    V1_7_24,
    /// The last 1.7 built here, with NRI 0.8.0.
    V1_7,
    /// 2.2, with NRI 0.11.0: the runtime of the nodes.
    #[default]
    V2_2,
    /// 2.4, with NRI 0.12.3: one call for each event.
    V2_4,
}

impl Version {
    /// Each of them, from old to new.
    pub const ALL: [Self; 4] = [Self::V1_7_24, Self::V1_7, Self::V2_2, Self::V2_4];

    /// Whether it is a 1.7: it has no validators of what plugins change.
    #[must_use]
    pub fn is_1_7(self) -> bool {
        matches!(self, Self::V1_7_24 | Self::V1_7)
    }
}

/// How containerd treats NRI plugins.
#[derive(Debug, Clone)]
pub struct Nri {
    /// Turns it off (`disable = true`): there is no socket then.
    pub disabled: bool,
    /// How long a plugin may take from its connection to its registration.
    pub registration_timeout: Duration,
    /// How long a plugin may take for one request.
    pub request_timeout: Duration,
    /// Enables the default validator, which refuses a container when a plugin of this list, or of the pod's annotation
    /// `required-plugins.noderesource.dev`, is not there. It takes 2.2 or newer.
    pub default_validator: Option<Vec<String>>,
}

impl Default for Nri {
    /// With containerd's own timeouts, and without the validator.
    fn default() -> Self {
        Self {
            disabled: false,
            registration_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            default_validator: None,
        }
    }
}

/// What a test asks of a [`Containerd`].
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How it treats NRI plugins.
    pub nri: Nri,
    /// Variables that the pods' image sets.
    pub image_env: Vec<(String, String)>,
}

/// A containerd in a machine of its own: its pods, mounts and cgroups end with it.
#[derive(Debug)]
pub struct Containerd {
    // Dropped in this order; the machine takes along what containerd has started.
    runtime: Runtime,
    machine: Machine,
    directory: Directory,
}

impl Containerd {
    /// Starts it, with the image [`IMAGE`](crate::nodes::IMAGE) in its store, and waits until it takes pods. It takes root.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not get ready; the error carries the end of its log.
    pub async fn start(version: Version, options: Options) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "containerd needs root, for namespaces, mounts and cgroups: run this test as root"
        );
        let directory = Directory::new()?;
        let networks = directory.create("networks")?;
        directory.create("logs")?;
        let image = image::write(directory.path(), &options.image_env)?;
        let machine = Machine::in_memory("containerd", directory.path()).await?;
        let settings = Settings {
            version,
            nri: &options.nri,
            socket: directory.path().join("containerd.sock"),
            nri_socket: directory.path().join("nri/nri.sock"),
            networks: &networks,
            image: &image,
        };
        let runtime = Runtime::start(&machine, settings, directory.path())
            .await
            .with_context(|| format!("containerd {version:?} did not start (VDBI_KEEP=1 keeps its files)"))?;
        let mut containerd = Self { runtime, machine, directory };
        containerd.ready().await?;
        Ok(containerd)
    }

    /// A client of it. It goes on working when containerd is started again.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn cri(&self) -> Result<Cri> {
        Cri::connect(self.socket(), &self.directory.path().join("logs"), self.machine.cgroup()).await
    }

    /// Where its Container Runtime Interface is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.runtime.socket
    }

    /// Where NRI plugins register; this process reaches it, as a process in the machine does.
    #[must_use]
    pub fn nri_socket(&self) -> &Path {
        &self.runtime.nri_socket
    }

    /// The directory of this containerd, for the files of what the test runs beside it; its path is the same in the machine.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The name of the cgroup in which its pods are, in each hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        self.machine.cgroup()
    }

    /// A program in the machine, which ends with it.
    #[must_use]
    pub fn program(&self, path: impl AsRef<Path>) -> Program {
        self.machine.program(path.as_ref(), self.directory.path())
    }

    /// Its process: to freeze it, or to read its log.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.runtime.server
    }

    /// What it has logged, over all of its starts.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.runtime.server.log()
    }

    /// Ends it as a node's service manager does (SIGTERM); its pods go on.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.runtime.server.terminate(END).await.map(drop)
    }

    /// Ends it at once (SIGKILL); its pods go on.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        self.runtime.server.kill().await.map(drop)
    }

    /// Starts it again, after [`Containerd::stop`] or [`Containerd::kill`], over what it had.
    ///
    /// # Errors
    ///
    /// When it still runs, or does not get ready.
    pub async fn start_again(&mut self) -> Result<()> {
        self.runtime.server.restart().await?;
        self.ready().await
    }

    /// Ends it and starts it again, as an upgrade does.
    ///
    /// # Errors
    ///
    /// As [`Containerd::stop`] and [`Containerd::start_again`].
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    async fn ready(&mut self) -> Result<()> {
        let Self { runtime, machine, directory } = self;
        let Runtime { server, socket, nri_socket: _ } = runtime;
        let logs = directory.path().join("logs");
        server.ready(START, async || Cri::connect(socket, &logs, machine.cgroup()).await.map(drop)).await
    }
}
