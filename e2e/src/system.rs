//! vdbi itself, as a release runs it: the reference binaries over the servers of a [`Cluster`].

mod replica;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Map, Value, json};

pub use replica::{Replica, metric};

use crate::{
    authority::Authority,
    binaries::binary,
    cluster::Cluster,
    ports::with_free_ports,
    process::{Program, Server},
    setup::{Component, DatabaseAccess},
};

/// The label that selects pods, as the chart sets it by default.
pub const LABEL: &str = "vault-db-injector";

/// What a component logs first.
const STARTED: &str = " started\"";

/// How long a replica may take to become ready.
const START: Duration = Duration::from_secs(20);

/// How pods are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The webhook reads the pod's role and mints the token itself.
    Legacy,
    /// The webhook logs in as the pod, with a token of its service account.
    Projected,
}

/// What a release looks like.
#[derive(Clone, Debug)]
pub struct Release {
    /// How pods are authenticated.
    pub authentication: Authentication,
    /// Replicas of renewer and revoker.
    pub replicas: usize,
    /// Whether the webhook writes placeholders, and each node of the cluster has a plugin that replaces them.
    pub node_plugins: bool,
    /// Configuration keys that differ from a test's defaults.
    pub configuration: Map<String, Value>,
    /// Another program than the reference binaries.
    pub program: Option<AnotherProgram>,
}

/// A program of all components, such as that of `examples/vdbi`: its first argument names the component.
#[derive(Clone, Debug)]
pub struct AnotherProgram {
    /// The file.
    pub path: PathBuf,
    /// Environment variables that say where its backend is.
    pub environment: Vec<(&'static str, String)>,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            authentication: Authentication::Legacy,
            replicas: 2,
            node_plugins: false,
            configuration: Map::new(),
            program: None,
        }
    }
}

/// A running release; its processes end when it is dropped.
#[derive(Debug)]
pub struct System {
    /// The authority of the webhook's certificate, as PEM.
    pub ca_pem: String,
    /// The webhook.
    pub injector: Replica,
    /// The renewers.
    pub renewers: Vec<Replica>,
    /// The revokers.
    pub revokers: Vec<Replica>,
    /// The node plugins, in the order of the nodes.
    pub node_plugins: Vec<Replica>,
}

impl System {
    /// Starts a release over servers for which [`Cluster::configure_database_access`] has run, waits until every replica is
    /// ready, and sends the creation of labelled pods to the webhook.
    ///
    /// # Errors
    ///
    /// When a binary does not build or a replica does not become ready; the error carries the end of its log.
    pub async fn start(cluster: &Cluster, access: &DatabaseAccess, release: &Release) -> Result<Self> {
        let authority = Authority::new("webhook authority")?;
        let ca_pem = authority.pem();
        let certificate = authority.server(&["127.0.0.1"])?;
        let directory = cluster.directory();
        fs::write(directory.join("tls.crt"), &certificate.certificate)?;
        fs::write(directory.join("tls.key"), &certificate.key)?;

        let start = async |component, index| Self::replica(cluster, access, release, component, index).await;
        let start = &start;
        let replicas =
            |component, number| try_join_all((0..number).map(move |index| start(component, index)));
        let nodes = if release.node_plugins { cluster.nodes().len() } else { 0 };
        let (injector, renewers, revokers, node_plugins) = tokio::try_join!(
            start(Component::Injector, 0),
            replicas(Component::Renewer, release.replicas),
            replicas(Component::Revoker, release.replicas),
            replicas(Component::Nri, nodes),
        )?;
        let address = injector.admission_address.context("the injector has an admission address")?;
        let url = format!("https://{address}/");
        cluster.kubernetes().install_webhook(&url, &ca_pem, LABEL).await?;
        Ok(Self { ca_pem, injector, renewers, revokers, node_plugins })
    }

    /// Every replica of the release.
    pub fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        let leaders = self.renewers.iter_mut().chain(&mut self.revokers);
        [&mut self.injector].into_iter().chain(leaders).chain(&mut self.node_plugins)
    }

    /// Starts one more replica and waits until it is ready. A node plugin runs on the node of this index; where the cluster has no nodes,
    /// the release's configuration says where containerd is.
    ///
    /// # Errors
    ///
    /// When it does not become ready; the error carries the end of its log.
    pub async fn replica(
        cluster: &Cluster,
        access: &DatabaseAccess,
        release: &Release,
        component: Component,
        index: usize,
    ) -> Result<Replica> {
        let mut configuration = defaults(cluster, access);
        if cluster.has_openbao() {
            merge(
                &mut configuration,
                over_openbao(cluster, access, release.authentication, component).await?,
            );
        }
        configuration["nri"] = json!({ "enabled": release.node_plugins });
        let node = if component == Component::Nri { cluster.node(index) } else { None };
        if let Some(node) = node {
            configuration["nri"]["nodeName"] = json!(node.name());
            configuration["nri"]["socketPath"] = json!(node.nri_socket());
            // In the node's own /run, a tmpfs.
            configuration["nri"]["cachePath"] = json!(format!("/run/{}/nri/cache.json", access.release));
        }
        merge(&mut configuration, Value::Object(release.configuration.clone()));
        let kubeconfig = cluster.component_kubeconfig(access, component).await?;
        let name = format!("{}-{index}", component.name());
        let directory: &Path = cluster.directory();
        let path = match &release.program {
            Some(AnotherProgram { path, .. }) => path.clone(),
            None => {
                let (package, program) = component.program();
                // Cargo may have to build it, which would stall every other task of this thread.
                tokio::task::spawn_blocking(move || binary(package, program)).await??
            }
        };
        with_free_ports(async |[admin, metrics, admission]: [u16; 3]| {
            let mut configuration = configuration.clone();
            configuration["adminAddress"] = json!(format!("127.0.0.1:{admin}"));
            configuration["metricsAddress"] = json!(format!("127.0.0.1:{metrics}"));
            configuration["admissionAddress"] = json!(format!("127.0.0.1:{admission}"));
            let file = directory.join(format!("{name}.yaml"));
            // JSON is YAML.
            fs::write(&file, serde_json::to_vec_pretty(&configuration)?)?;
            let program = match node {
                Some(node) => node.program(&path),
                None => Program::new(&path, directory),
            };
            let program = match &release.program {
                Some(AnotherProgram { environment, .. }) => {
                    let named = program.arg(component.program().1.trim_start_matches("vdbi-"));
                    environment.iter().fold(named, |program, (name, value)| program.env(name, value))
                }
                None => program,
            };
            let program =
                program.arg("--config").arg(&file).env("KUBECONFIG", &kubeconfig).env("POD_NAME", &name);
            let mut server = Server::start(&name, program, directory).await?;
            // It says so once it has its ports: what answers there before may be another process, which had them first.
            server.logged(STARTED, START).await?;
            let mut replica = Replica::new(component, server, &configuration)?;
            replica.ready(START).await?;
            Ok(replica)
        })
        .await
    }
}

/// Puts one configuration, or the values of a chart, over another: what is set in both is that of `other`.
pub fn merge(value: &mut Value, other: Value) {
    match (value, other) {
        (Value::Object(keys), Value::Object(others)) => {
            for (key, other) in others {
                merge(keys.entry(key).or_insert(Value::Null), other);
            }
        }
        (value, other) => *value = other,
    }
}

/// Short leases, so that a test sees a failover in seconds; everything else is what a user would write.
fn defaults(cluster: &Cluster, access: &DatabaseAccess) -> Value {
    let directory = cluster.directory();
    json!({
        "release": access.release,
        "certFile": directory.join("tls.crt"),
        "keyFile": directory.join("tls.key"),
        "syncTTLSecond": 1,
        "leaderElection": {
            "leaseNamespace": access.system_namespace,
            "leaseDuration": "3s",
            "abortAfter": "2600ms",
            "hardDeadline": "2s",
            "renewInterval": "600ms",
            "requestTimeout": "600ms",
            "retry": "200ms",
            "drainTimeout": "5s",
        },
        "revoker": { "interval": "2s", "gracePeriod": "10s" },
        "shutdownGracePeriod": "10s",
        "webhook": { "drainDelay": "0s" },
    })
}

/// Where OpenBao is, and how it is set up.
async fn over_openbao(
    cluster: &Cluster,
    access: &DatabaseAccess,
    authentication: Authentication,
    component: Component,
) -> Result<Value> {
    Ok(json!({
        "vaultAddress": cluster.openbao().url(),
        "vaultAuthPath": "kubernetes",
        "kubeRole": access.component_role(component),
        "serviceAccountTokenFile": cluster.component_token_file(access, component).await?,
        "vaultSecretName": access.mount,
        "vaultSecretPrefix": access.prefix,
        "defaultEngine": access.engine,
        "tokenTTL": access.token_period,
        "tokenRole": access.token_role,
        "useProjectedSA": authentication == Authentication::Projected,
        "tokenRequestAudiences": [access.audience],
    }))
}
