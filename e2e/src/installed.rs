//! Where the servers are: in the environment, or else in the file that `hack/test-env` writes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::containerd::Version;

/// A server that the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The Kubernetes API server.
    KubeApiserver,
    /// The store of the Kubernetes API server.
    Etcd,
    /// The agent of a node.
    Kubelet,
    /// The Kubernetes controllers.
    ControllerManager,
    /// The Kubernetes scheduler.
    Scheduler,
    /// What makes services of addresses.
    KubeProxy,
    /// A container runtime; its shim is beside it.
    Containerd(Version),
    /// The client of a container runtime.
    Ctr(Version),
    /// What the container runtime starts containers with.
    Runc,
    /// The network plugin that gives pods their addresses; the others are beside it.
    CniBridge,
    /// The program in the pods' image.
    Busybox,
    /// OpenBao, server and client in one.
    OpenBao,
    /// HashiCorp Vault, server and client in one.
    Vault,
    /// The database server.
    Postgres,
    /// What makes the data directory of a database server.
    Initdb,
    /// What renders and installs the chart.
    Helm,
    /// What scrapes metrics and evaluates rules.
    Prometheus,
    /// What checks and tests the rules.
    Promtool,
}

impl Installed {
    /// The path of the program.
    ///
    /// # Errors
    ///
    /// When it is not installed; the error names the command that installs it.
    pub fn path(self) -> Result<PathBuf> {
        self.path_in(|name| std::env::var_os(name))
    }

    /// As [`Installed::path`], in an environment of the caller's.
    ///
    /// # Errors
    ///
    /// As [`Installed::path`].
    pub fn path_in(self, environment: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
        let variable = self.variable();
        let location = environment(variable)
            .filter(|value| !value.is_empty())
            .or_else(|| written_by_test_env(&environment)?.remove(variable));
        let path = location.map(|location| match self {
            Self::OpenBao | Self::Vault | Self::Runc | Self::Busybox | Self::Helm => PathBuf::from(location),
            _ => Path::new(&location).join(self.program()),
        });
        match path {
            Some(path) if path.is_file() => Ok(path),
            _ if self == Self::Vault => {
                bail!("vault was not found: run `hack/test-env vault` (it builds HashiCorp Vault)")
            }
            _ => bail!(
                "{} was not found: run `hack/test-env` (it installs Kubernetes, containerd, OpenBao, PostgreSQL, Helm and Prometheus for the tests)",
                self.program()
            ),
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::KubeApiserver | Self::Etcd => "KUBEBUILDER_ASSETS",
            Self::Kubelet | Self::ControllerManager | Self::Scheduler | Self::KubeProxy => "VDBI_NODE",
            Self::Containerd(version) | Self::Ctr(version) => match version {
                Version::V1_7_24 => "VDBI_CONTAINERD_1_7_24",
                Version::V1_7 => "VDBI_CONTAINERD_1_7",
                Version::V2_2 => "VDBI_CONTAINERD",
                Version::V2_4 => "VDBI_CONTAINERD_2_4",
            },
            Self::Runc => "VDBI_RUNC",
            Self::CniBridge => "CNI_PATH",
            Self::Busybox => "VDBI_BUSYBOX",
            Self::OpenBao => "VDBI_BAO",
            Self::Vault => "VDBI_VAULT",
            Self::Postgres | Self::Initdb => "PG_BIN",
            Self::Helm => "VDBI_HELM",
            Self::Prometheus | Self::Promtool => "VDBI_PROMETHEUS",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::Etcd => "etcd",
            Self::Kubelet => "kubelet",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
            Self::Containerd(_) => "containerd",
            Self::Ctr(_) => "ctr",
            Self::Runc => "runc",
            Self::CniBridge => "bridge",
            Self::Busybox => "busybox",
            Self::OpenBao => "bao",
            Self::Vault => "vault",
            Self::Postgres => "postgres",
            Self::Initdb => "initdb",
            Self::Helm => "helm",
            Self::Prometheus => "prometheus",
            Self::Promtool => "promtool",
        }
    }
}

fn written_by_test_env(environment: impl Fn(&str) -> Option<OsString>) -> Option<HashMap<String, OsString>> {
    let cache = environment("VDBI_CACHE")
        .map(PathBuf::from)
        .or_else(|| environment("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("vdbi")))
        .or_else(|| environment("HOME").map(|home| Path::new(&home).join(".cache/vdbi")))?;
    let text = fs::read_to_string(cache.join("env")).ok()?;
    let values = text.lines().filter_map(|line| line.split_once('='));
    // The shell quotes what is special to it with backslashes, a space for instance.
    Some(values.map(|(name, value)| (name.to_owned(), value.replace('\\', "").into())).collect())
}
