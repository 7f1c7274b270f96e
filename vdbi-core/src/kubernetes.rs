//! What the traits need from a Kubernetes API server.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

mod token_request;

pub use token_request::TokenRequestIdentity;

/// The namespace whose uid stands for the cluster: it is created with the cluster and cannot be deleted.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// The cluster's identity: the uid of its namespace `kube-system`, by which many tools tell clusters apart. Needs the verb get on
/// that one namespace.
///
#[cfg_attr(feature = "memory", doc = "```")]
#[cfg_attr(not(feature = "memory"), doc = "```ignore")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kube::Error> {
/// let api = vdbi_core::memory::kubernetes::KubernetesApi::new();
/// let cluster = vdbi_core::kubernetes::cluster_id(api.client()).await?;
/// assert_eq!(Some(cluster), api.namespace_uid("kube-system"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The API server's.
pub async fn cluster_id(client: Client) -> Result<String, kube::Error> {
    let namespace = Api::<Namespace>::all(client).get(CLUSTER_NAMESPACE).await?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}
