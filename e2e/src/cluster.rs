use anyhow::{Context, Result};
use tokio::try_join;

use crate::containerd::{Nri, Version};
use crate::directory::Directory;
use crate::kubernetes::Kubernetes;
use crate::network;
use crate::nodes::{Node, Nodes};
use crate::openbao::{OpenBao, Storage};
use crate::postgres::Postgres;

/// The servers of one test; they end when it is dropped.
pub struct Cluster {
    // Before the API server, without which its programs complain at length.
    nodes: Option<Nodes>,
    kubernetes: Option<Kubernetes>,
    openbao: Option<OpenBao>,
    postgres: Option<Postgres>,
    // Last, so that nothing writes into it while it is removed.
    directory: Directory,
}

/// What a test asks for; see [`Cluster::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "nothing runs before start()"]
pub struct Builder {
    kubernetes: bool,
    nodes: usize,
    containerd: Version,
    nri: Nri,
    openbao: Option<Storage>,
    postgres: bool,
}

impl Cluster {
    /// A cluster without any server, to which those that a test needs are added.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The Kubernetes control plane.
    ///
    /// # Panics
    ///
    /// When it was not asked for.
    #[must_use]
    #[track_caller]
    pub fn kubernetes(&self) -> &Kubernetes {
        asked_for(self.kubernetes.as_ref(), "kubernetes()")
    }

    /// The Kubernetes control plane, to freeze or restart it.
    ///
    /// # Panics
    ///
    /// When it was not asked for.
    #[track_caller]
    pub fn kubernetes_mut(&mut self) -> &mut Kubernetes {
        asked_for(self.kubernetes.as_mut(), "kubernetes()")
    }

    /// The controllers and nodes, to freeze or kill one.
    ///
    /// # Panics
    ///
    /// When they were not asked for.
    #[track_caller]
    pub fn nodes_mut(&mut self) -> &mut Nodes {
        asked_for(self.nodes.as_mut(), "nodes(..)")
    }

    /// The controllers and nodes, to run programs on one.
    ///
    /// # Panics
    ///
    /// When they were not asked for.
    #[must_use]
    #[track_caller]
    pub fn nodes(&self) -> &Nodes {
        asked_for(self.nodes.as_ref(), "nodes(..)")
    }

    pub(crate) fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.as_ref().map(|nodes| nodes.node(&format!("node-{}", index + 1)))
    }

    /// Whether OpenBao was asked for.
    pub fn has_openbao(&self) -> bool {
        self.openbao.is_some()
    }

    /// OpenBao.
    ///
    /// # Panics
    ///
    /// When it was not asked for.
    #[must_use]
    #[track_caller]
    pub fn openbao(&self) -> &OpenBao {
        asked_for(self.openbao.as_ref(), "openbao(..)")
    }

    /// OpenBao, to unseal, freeze or restart it.
    ///
    /// # Panics
    ///
    /// When it was not asked for.
    #[track_caller]
    pub fn openbao_mut(&mut self) -> &mut OpenBao {
        asked_for(self.openbao.as_mut(), "openbao(..)")
    }

    /// PostgreSQL.
    ///
    /// # Panics
    ///
    /// When it was not asked for.
    #[must_use]
    #[track_caller]
    pub fn postgres(&self) -> &Postgres {
        asked_for(self.postgres.as_ref(), "postgres()")
    }

    /// PostgreSQL, to stop it and start it again.
    ///
    /// # Panics
    ///
    /// When it was not asked for.
    #[track_caller]
    pub fn postgres_mut(&mut self) -> &mut Postgres {
        asked_for(self.postgres.as_mut(), "postgres()")
    }

    /// The directory of this test, for the files of the programs that it runs.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Builder {
    /// Adds kube-apiserver and etcd.
    pub fn kubernetes(mut self) -> Self {
        self.kubernetes = true;
        self
    }

    /// Adds the control plane with controllers, scheduler, kube-proxy and this many nodes, on which pods really run; at most two.
    /// It takes root, and a [network of the test's own](crate::network::isolated).
    pub fn nodes(self, number: usize) -> Self {
        Self { nodes: number, ..self.kubernetes() }
    }

    /// Which containerd the nodes have, and how it treats NRI plugins; without this it is the default of both.
    pub fn containerd(mut self, version: Version, nri: Nri) -> Self {
        self.containerd = version;
        self.nri = nri;
        self
    }

    /// Adds OpenBao: [`OpenBao::dev`] or [`OpenBao::raft`].
    pub fn openbao(mut self, storage: Storage) -> Self {
        self.openbao = Some(storage);
        self
    }

    /// Adds PostgreSQL.
    pub fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    /// Starts all of it at the same time, and returns when all of it is ready.
    ///
    /// # Errors
    ///
    /// When a server is not installed or does not get ready; the error carries the end of its log.
    pub async fn start(self) -> Result<Cluster> {
        let Self { kubernetes, nodes, containerd, nri, openbao, postgres } = self;
        let directory = Directory::new()?;
        // Pods reach the servers where the nodes' host has its address; without pods nothing leaves the loopback interface.
        let address = if nodes > 0 { network::HOST } else { network::LOOPBACK };
        let kubernetes = async {
            if !kubernetes {
                return Ok((None, None));
            }
            let kubernetes = Kubernetes::start(address, &directory.create("kubernetes")?).await?;
            let nodes = match nodes {
                0 => None,
                _ => {
                    let directory = directory.create("nodes")?;
                    Some(Nodes::start(&kubernetes, nodes, containerd, &nri, &directory).await?)
                }
            };
            Ok((Some(kubernetes), nodes))
        };
        let openbao = async {
            match openbao {
                Some(storage) => {
                    OpenBao::start(storage, address, &directory.create("openbao")?).await.map(Some)
                }
                None => Ok(None),
            }
        };
        let postgres = async {
            match postgres {
                true => Postgres::start(&directory.create("postgres")?).await.map(Some),
                false => Ok(None),
            }
        };
        let ((kubernetes, nodes), openbao, postgres) = try_join!(kubernetes, openbao, postgres)
            .context("the servers of this test did not start (VDBI_KEEP=1 keeps their files)")?;
        Ok(Cluster { nodes, kubernetes, openbao, postgres, directory })
    }
}

#[track_caller]
fn asked_for<T>(server: Option<T>, call: &str) -> T {
    match server {
        Some(server) => server,
        None => panic!("this cluster has no such server: add .{call} to Cluster::builder()"),
    }
}

/// Several crates here bring TLS, and none chooses for the others; the first test does.
pub(crate) fn install_crypto() {
    // An error says that it is chosen already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
