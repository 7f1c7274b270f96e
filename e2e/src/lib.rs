//! Real servers for tests, and the tests over them.
//!
//! A test asks for the servers it needs and gets its own: kube-apiserver with etcd, OpenBao, PostgreSQL, each on free loopback
//! ports in a directory of the test's own. They end with the test, whatever ends it: a return, a panic, Ctrl-C, SIGKILL.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use std::time::Duration;
//!
//! use e2e::{Cluster, Component, DatabaseAccess, OpenBao, Program, Server};
//!
//! let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
//! let access = DatabaseAccess::default();
//! cluster.configure_database_access(&access).await?;
//!
//! // One of vdbi's own programs, as the tree has it now, with the rights of its service account.
//! let program = Program::new(e2e::binary("renewer", "vdbi-renewer")?, cluster.directory())
//!     .env("KUBECONFIG", cluster.component_kubeconfig(&access, Component::Renewer).await?);
//! let mut renewer = Server::start("renewer", program, cluster.directory()).await?;
//! renewer.terminate(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! That is the first tier: there are no nodes, and a pod is what the test says it is. In the second one, a whole cluster, pods
//! really run: `Cluster::builder().nodes(2)`, in a network of the test's own, which takes root.
//!
//! ```no_run
//! # fn test() -> anyhow::Result<()> {
//! e2e::network::isolated(async || {
//!     let mut cluster = e2e::Cluster::builder().nodes(2).start().await?;
//!     cluster.nodes_mut().node_mut("node-2").kubelet_mut().kill().await?;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! Between the two is containerd alone, in each of the versions that [`containerd`] names, driven as a kubelet drives it.
//!
//! `hack/test-env` installs the servers. With `VDBI_KEEP=1` the directory of a test stays, with every log and key in it.

mod authority;
mod balancer;
mod binaries;
mod cluster;
pub mod containerd;
pub mod cri;
mod directory;
mod image;
pub mod installed;
pub mod kubernetes;
mod machine;
pub mod network;
pub mod nodes;
pub mod openbao;
mod ports;
mod postgres;
pub mod process;
pub mod prometheus;
mod proxy;
pub mod scene;
mod setup;
pub mod system;

pub use authority::{Authority, Identity, verifies};
pub use balancer::Balancer;
pub use binaries::binary;
pub use cluster::{Builder, Cluster};
pub use containerd::{Containerd, Nri, Options, Version};
pub use cri::Cri;
pub use kubernetes::Kubernetes;
pub use nodes::{Node, Nodes};
pub use openbao::OpenBao;
pub use postgres::Postgres;
pub use process::{Program, Server};
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use setup::{Component, DatabaseAccess};
pub use system::{Release, System};
