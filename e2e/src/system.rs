//! vdbi itself, as a release runs it: the reference binaries over the servers of a [`Cluster`].

mod replica;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Map, Value, json};

pub use replica::Replica;

use crate::{
    authority::Authority,
    cluster::Cluster,
    ports::with_free_ports,
    setup::{Component, DatabaseAccess},
};

/// The label that selects pods, as the chart sets it by default.
pub const LABEL: &str = "vault-db-injector";

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
    /// Configuration keys that differ from a test's defaults.
    pub configuration: Map<String, Value>,
}

impl Default for Release {
    fn default() -> Self {
        Self { authentication: Authentication::Legacy, replicas: 2, configuration: Map::new() }
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
        let replicas =
            |component| try_join_all((0..release.replicas).map(move |index| start(component, index)));
        let (injector, renewers, revokers) = tokio::try_join!(
            start(Component::Injector, 0),
            replicas(Component::Renewer),
            replicas(Component::Revoker),
        )?;
        let address = injector.admission_address.context("the injector has an admission address")?;
        let url = format!("https://{address}/");
        cluster.kubernetes().install_webhook(&url, &ca_pem, LABEL).await?;
        Ok(Self { ca_pem, injector, renewers, revokers })
    }

    /// Every replica of the release.
    pub fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        [&mut self.injector].into_iter().chain(&mut self.renewers).chain(&mut self.revokers)
    }

    /// Starts one more replica and waits until it is ready.
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
        let mut configuration = defaults(cluster, access, release.authentication, component);
        configuration["serviceAccountTokenFile"] =
            json!(cluster.component_token_file(access, component).await?);
        if let Value::Object(keys) = &mut configuration {
            keys.extend(release.configuration.clone());
        }
        let kubeconfig = cluster.component_kubeconfig(access, component).await?;
        let name = format!("{}-{index}", component.name());
        let directory: &Path = cluster.directory();
        with_free_ports(async |[admin, metrics, admission]: [u16; 3]| {
            let mut configuration = configuration.clone();
            configuration["adminAddress"] = json!(format!("127.0.0.1:{admin}"));
            configuration["metricsAddress"] = json!(format!("127.0.0.1:{metrics}"));
            configuration["admissionAddress"] = json!(format!("127.0.0.1:{admission}"));
            let file = directory.join(format!("{name}.yaml"));
            // JSON is YAML.
            fs::write(&file, serde_json::to_vec_pretty(&configuration)?)?;
            let mut replica =
                Replica::start(component, &name, &file, &kubeconfig, &configuration, directory).await?;
            replica.ready(START).await?;
            Ok(replica)
        })
        .await
    }
}

/// Short leases, so that a test sees a failover in seconds; everything else is what a user would write.
fn defaults(
    cluster: &Cluster,
    access: &DatabaseAccess,
    authentication: Authentication,
    component: Component,
) -> Value {
    let directory = cluster.directory();
    json!({
        "vaultAddress": cluster.openbao().url(),
        "vaultAuthPath": "kubernetes",
        "kubeRole": access.component_role(component),
        "vaultSecretName": access.mount,
        "vaultSecretPrefix": access.prefix,
        "defaultEngine": access.engine,
        "tokenTTL": access.token_period,
        "tokenRole": access.token_role,
        "release": access.release,
        "certFile": directory.join("tls.crt"),
        "keyFile": directory.join("tls.key"),
        "useProjectedSA": authentication == Authentication::Projected,
        "tokenRequestAudiences": [access.audience],
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
