use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{Kubernetes, START};
use crate::authority::Authority;
use crate::installed::Installed;
use crate::network;
use crate::ports::with_free_ports;
use crate::process::{Program, Server};

/// Of the API server's own tokens; those of a pod for OpenBao have another one.
const AUDIENCE: &str = "https://kubernetes.default.svc";

/// The names of files in the directory of the control plane.
pub(super) const CA: &str = "ca.pem";
pub(super) const SIGNING_KEY: &str = "tokens.key";

pub(super) async fn start(address: &str, directory: &Path) -> Result<Kubernetes> {
    let (apiserver, etcd) = (Installed::KubeApiserver.path()?, Installed::Etcd.path()?);
    let files = Files::write(directory)?;
    with_free_ports(async |[port, client_port, peer_port]: [u16; 3]| {
        let store = directory.join(format!("etcd-{client_port}"));
        let etcd =
            Server::start("etcd", etcd_program(&etcd, &store, directory, client_port, peer_port), directory)
                .await?;
        let apiserver = apiserver_program(&apiserver, &files, directory, (address, port), client_port);
        let apiserver = Server::start("kube-apiserver", apiserver, directory).await?;

        let url = format!("https://{address}:{port}");
        let admin_kubeconfig = files.admin_kubeconfig(directory, &url)?;
        let mut kubernetes = Kubernetes {
            apiserver,
            etcd,
            admin: client(&admin_kubeconfig).await?,
            admin_kubeconfig,
            url,
            ca_pem: files.authority.pem(),
            authority: files.authority.clone(),
            directory: directory.to_owned(),
        };
        // An etcd that could not start would only show as an API server that does not get ready.
        let (etcd, client_port) = (&mut kubernetes.etcd, client_port);
        etcd.ready(START, async || healthy(client_port).await).await?;
        kubernetes.ready().await?;
        Ok(kubernetes)
    })
    .await
}

async fn healthy(etcd_port: u16) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.get(format!("http://127.0.0.1:{etcd_port}/health")).send().await?;
    ensure!(response.status().is_success(), "etcd is not healthy: {}", response.status());
    Ok(())
}

/// A client of an API server that shows its first answer: it repeats nothing by itself.
///
/// # Errors
///
/// When the file is no kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    crate::cluster::install_crypto();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

fn etcd_program(etcd: &Path, store: &Path, directory: &Path, client_port: u16, peer_port: u16) -> Program {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    Program::new(etcd, directory)
        .arg(format!("--data-dir={}", store.display()))
        .arg("--unsafe-no-fsync")
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
}

fn apiserver_program(
    apiserver: &Path,
    files: &Files,
    directory: &Path,
    (address, port): (&str, u16),
    etcd_port: u16,
) -> Program {
    // Without nodes nobody resolves the service `kubernetes`, and its endpoints may not be a loopback address.
    let reconciler = if address == network::LOOPBACK { "none" } else { "lease" };
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    Program::new(apiserver, directory)
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .args([format!("--bind-address={address}"), format!("--advertise-address={address}")])
        .args([format!("--secure-port={port}"), format!("--endpoint-reconciler-type={reconciler}")])
        .arg(format!("--service-cluster-ip-range={}", network::SERVICES))
        .args(["--allow-privileged=true", "--profiling=false"])
        .args(["--authorization-mode=Node,RBAC", &format!("--api-audiences={AUDIENCE}")])
        .args(["--enable-admission-plugins=NodeRestriction", "--kubelet-preferred-address-types=InternalIP"])
        .arg(format!("--service-account-issuer={AUDIENCE}"))
        .arg(file("service-account-signing-key-file", &files.signing_key))
        .arg(file("service-account-key-file", &files.verification_key))
        .arg(file("client-ca-file", &files.ca))
        .arg(file("tls-cert-file", &files.certificate))
        .arg(file("tls-private-key-file", &files.key))
        .arg(file("cert-dir", directory))
        .arg(file("admission-control-config-file", &files.admission))
        .arg(file("audit-policy-file", &files.audit_policy))
        .arg(file("audit-log-path", &directory.join("audit.log")))
}

struct Files {
    authority: Arc<Authority>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    signing_key: PathBuf,
    verification_key: PathBuf,
    audit_policy: PathBuf,
    admission: PathBuf,
}

impl Files {
    fn write(directory: &Path) -> Result<Self> {
        let write = |name: &str, content: &str| -> Result<PathBuf> {
            let path = directory.join(name);
            fs::write(&path, content)?;
            Ok(path)
        };
        let authority = Arc::new(Authority::new("kubernetes")?);
        let server = authority.server(&[
            network::LOOPBACK,
            network::HOST,
            network::KUBERNETES_SERVICE,
            "localhost",
            "kubernetes.default.svc",
        ])?;
        let tokens = KeyPair::generate()?;
        let audit_policy = json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{ "level": "Metadata" }],
        });
        Ok(Self {
            admission: write("admission.json", &admission(&write, &authority)?.to_string())?,
            ca: write(CA, &authority.pem())?,
            authority,
            certificate: write("apiserver.pem", &server.certificate)?,
            key: write("apiserver.key", &server.key)?,
            signing_key: write(SIGNING_KEY, &tokens.serialize_pem())?,
            verification_key: write("tokens.pub", &tokens.public_key_pem())?,
            audit_policy: write("audit-policy.json", &audit_policy.to_string())?,
        })
    }

    fn admin_kubeconfig(&self, directory: &Path, url: &str) -> Result<PathBuf> {
        let admin = certificate_of(&self.authority, "e2e-admin", "system:masters")?;
        write_kubeconfig(&directory.join("admin.kubeconfig"), url, &self.authority.pem(), admin)
    }
}

/// Shows every webhook that asks for it a certificate of the API server's.
fn admission(write: &impl Fn(&str, &str) -> Result<PathBuf>, authority: &Authority) -> Result<Value> {
    let user = certificate_of(authority, super::WEBHOOK_CLIENT, "kubernetes")?;
    let kubeconfig =
        json!({ "apiVersion": "v1", "kind": "Config", "users": [{ "name": "*", "user": user }] });
    let kubeconfig = write("webhooks.kubeconfig", &kubeconfig.to_string())?;
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": kubeconfig,
    });
    Ok(json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{ "name": "MutatingAdmissionWebhook", "configuration": configuration }],
    }))
}

/// The user of a kubeconfig file, by a certificate.
pub(super) fn certificate_of(authority: &Authority, user: &str, group: &str) -> Result<Value> {
    let client = authority.client(user, group)?;
    Ok(json!({
        "client-certificate-data": base64(&client.certificate),
        "client-key-data": base64(&client.key),
    }))
}

pub(super) fn write_kubeconfig(path: &Path, url: &str, ca_pem: &str, user: Value) -> Result<PathBuf> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "e2e", "cluster": { "server": url, "certificate-authority-data": base64(ca_pem) } }],
        "users": [{ "name": "e2e", "user": user }],
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e" } }],
        "current-context": "e2e",
    });
    fs::write(path, serde_json::to_string_pretty(&kubeconfig)?)?;
    Ok(path.to_owned())
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}
