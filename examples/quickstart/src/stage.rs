//! What the story needs around vdbi: a Kubernetes API, a secrets backend, a database.

use std::net::SocketAddr;

use anyhow::Result;
use e2e::Component;
use vdbi_core::{credential::CredentialSource, ledger::Ledger};

/// The namespace of the pods.
pub const NAMESPACE: &str = "shop";

/// The service account of the pods.
pub const SERVICE_ACCOUNT: &str = "app1";

/// The role that they ask for.
pub const ROLE: &str = "app";

/// Where the elections take place.
pub const SYSTEM_NAMESPACE: &str = "vdbi-system";

/// The surroundings of vdbi.
pub trait Stage {
    /// The secrets backend.
    type Source: CredentialSource;
    /// Its ledger.
    type Ledger: Ledger;

    /// What it is made of.
    fn description(&self) -> &'static str;

    /// A client of the Kubernetes API.
    fn client(&self) -> kube::Client;

    /// A component's access to the secrets backend.
    fn source(&self, component: Component) -> Self::Source;

    /// A component's access to the ledger.
    fn ledger(&self, component: Component) -> Self::Ledger;

    /// Sends the creation of labelled pods to the webhook.
    async fn install_webhook(&self, address: SocketAddr, ca_pem: &str) -> Result<()>;

    /// Whether the database lets this login in.
    async fn opens_a_session(&self, user: &str, password: &str) -> Result<bool>;
}
