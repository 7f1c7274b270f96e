//! kube-apiserver with etcd: authorization, service account tokens, admission and audit are real; there are no nodes and no
//! controllers, so pods stay pending until the test patches them. [`nodes`](crate::nodes) adds these.

mod access;
mod audit;
mod start;
mod webhook;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

pub use audit::{AuditEvent, ObjectRef};
pub use start::client;

use crate::authority::Authority;
use crate::process::Server;

/// The common name of the certificate that the API server shows to webhooks, of the authority [`Kubernetes::ca_pem`].
pub const WEBHOOK_CLIENT: &str = "kube-apiserver-webhooks";

const START: Duration = Duration::from_secs(60);

/// A running Kubernetes control plane.
pub struct Kubernetes {
    // Dropped in this order: an API server without its store complains at length.
    apiserver: Server,
    etcd: Server,
    admin: kube::Client,
    admin_kubeconfig: PathBuf,
    url: String,
    ca_pem: String,
    authority: Arc<Authority>,
    directory: PathBuf,
}

impl Kubernetes {
    /// Starts it on this address.
    pub(crate) async fn start(address: &str, directory: &Path) -> Result<Self> {
        start::start(address, directory).await
    }

    /// A client that may do anything.
    #[must_use]
    pub fn admin(&self) -> kube::Client {
        self.admin.clone()
    }

    /// A kubeconfig file that may do anything, for `kubectl` for instance.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// The address of the API server, as `https://127.0.0.1:<port>`; in a cluster with nodes, where pods reach it too.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority of the API server's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What the API server has answered so far, in order of the answers.
    ///
    /// # Errors
    ///
    /// When the audit log cannot be read.
    pub fn audit_events(&self) -> Result<Vec<AuditEvent>> {
        audit::events(&self.audit_log())
    }

    /// The requests that were forbidden to users whose names begin with this, such as `system:serviceaccount:vdbi-system:`.
    ///
    /// # Errors
    ///
    /// When the audit log cannot be read.
    pub fn audit_denials(&self, user_prefix: &str) -> Result<Vec<AuditEvent>> {
        let mut events = self.audit_events()?;
        events.retain(|event| event.is_denied() && event.user.starts_with(user_prefix));
        Ok(events)
    }

    /// The process of the API server, to freeze it or end it.
    pub fn apiserver_mut(&mut self) -> &mut Server {
        &mut self.apiserver
    }

    /// The process of etcd, to freeze it or end it.
    pub fn etcd_mut(&mut self) -> &mut Server {
        &mut self.etcd
    }

    /// Ends the API server, if it runs, and starts it again on the same address.
    ///
    /// # Errors
    ///
    /// When it does not get ready again.
    pub async fn restart_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_running()? {
            self.apiserver.terminate(START).await?;
        }
        self.apiserver.restart().await?;
        self.ready().await
    }

    /// Waits until the API server answers that it is ready, after it was frozen for instance.
    ///
    /// # Errors
    ///
    /// When it does not within a minute.
    pub async fn ready(&mut self) -> Result<()> {
        let admin = &self.admin;
        let check = async || {
            let answer = admin.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
            ensure!(answer == "ok", "the API server is not ready: {answer}");
            // Made by the API server itself, a moment after it says that it is ready.
            Api::<Namespace>::all(admin.clone()).get("kube-system").await?;
            Ok(())
        };
        self.apiserver.ready(START, check).await
    }

    /// The file with the authority of the API server's certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.join(start::CA)
    }

    /// The file with the key that signs the tokens of service accounts.
    pub(crate) fn signing_key_file(&self) -> PathBuf {
        self.directory.join(start::SIGNING_KEY)
    }

    fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }
}
