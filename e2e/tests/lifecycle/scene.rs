//! A cluster with a release on it, and pods that ask for credentials.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, DatabaseAccess, OpenBao, Release, System,
    system::{Authentication, LABEL},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) const PREFIX: &str = "db-creds-injector.numberly.io/";

pub(crate) struct Scene {
    // The release ends before the servers that it uses.
    pub(crate) system: System,
    pub(crate) cluster: Cluster,
    pub(crate) access: DatabaseAccess,
}

/// A user and a password, as a container got them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Scene {
    pub(crate) async fn start(access: DatabaseAccess, authentication: Authentication) -> Result<Self> {
        let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
        cluster.configure_database_access(&access).await?;
        let release = Release { authentication, ..Release::default() };
        let system = System::start(&cluster, &access, &release).await?;
        Ok(Self { system, cluster, access })
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.kubernetes().admin(), &self.access.namespace)
    }

    /// Asks the API server for a labelled pod with these annotations.
    pub(crate) async fn create(&self, name: &str, annotations: &[(&str, &str)]) -> Result<Pod, kube::Error> {
        let pod = self.pod(name, annotations);
        self.pods().create(&PostParams::default(), &pod).await
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub(crate) fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod {
        let annotations: BTreeMap<String, &str> =
            annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
        let pod: Value = json!({
            "metadata": { "name": name, "labels": { LABEL: "true" }, "annotations": annotations },
            "spec": {
                "serviceAccountName": self.access.service_account,
                "initContainers": [{ "name": "migrate", "image": "app" }],
                "containers": [{ "name": "web", "image": "app" }],
            },
        });
        serde_json::from_value(pod).unwrap()
    }

    pub(crate) async fn opens_a_session(&self, login: &Login) -> Result<bool> {
        self.cluster.postgres().can_login(&login.user, &login.password).await
    }

    pub(crate) async fn ledger_keys(&self) -> Result<Vec<String>> {
        self.cluster.openbao().root().ledger_keys(&self.access.mount, &self.access.prefix).await
    }

    /// What is left of credentials anywhere: database users, leases, application tokens, ledger entries.
    pub(crate) async fn remains(&self) -> Result<Vec<String>> {
        let bao = self.cluster.openbao().root();
        let mut remains = self.cluster.postgres().roles_like("v-").await?;
        remains.extend(bao.lease_ids(&format!("{}/creds", self.access.engine)).await?);
        remains.extend(self.ledger_keys().await?);
        let tokens = bao.tokens_with_policy(&self.access.role).await?;
        remains.extend(tokens.iter().map(|token| format!("token {}", token["accessor"])));
        Ok(remains)
    }

    /// Waits until nothing is left.
    pub(crate) async fn nothing_remains(&self, within: Duration) -> Result<()> {
        eventually(within, async || {
            let remains = self.remains().await?;
            ensure!(remains.is_empty(), "there is still {remains:?}");
            Ok(())
        })
        .await
    }

    /// What the API server denied to our components: nothing, when their roles suffice.
    pub(crate) fn denied_requests(&self) -> Result<Vec<String>> {
        let user = format!("system:serviceaccount:{}:{}-", self.access.system_namespace, self.access.release);
        let denials = self.cluster.kubernetes().audit_denials(&user)?;
        Ok(denials.iter().map(|denial| format!("{} {} {}", denial.user, denial.verb, denial.uri)).collect())
    }
}

/// The login that every container of a pod got, or a failure where they differ.
pub(crate) fn login(pod: &Pod, user: &str, password: &str) -> Result<Login> {
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut logins = containers.map(|container| {
        let value = |name: &str| {
            let variable = container.env.iter().flatten().find(|variable| variable.name == name);
            variable.and_then(|variable| variable.value.clone()).with_context(|| format!("{name} is set"))
        };
        anyhow::Ok(Login { user: value(user)?, password: value(password)? })
    });
    let first = logins.next().context("a pod has containers")??;
    for login in logins {
        ensure!(login? == first, "the containers got different credentials");
    }
    Ok(first)
}

/// Repeats a check until it holds.
pub(crate) async fn eventually(within: Duration, check: impl AsyncFn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        match check().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("not within {within:?}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
