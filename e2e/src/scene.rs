//! A cluster with a release on it, and pods that ask for credentials.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Builder, Cluster, DatabaseAccess, OpenBao, Release, System,
    system::{Authentication, LABEL},
};

/// The prefix of the annotations.
pub const PREFIX: &str = "db-creds-injector.numberly.io/";

/// A release over servers of its own.
pub struct Scene<S = System> {
    // The release ends before the servers that it uses.
    /// The release: its processes, or, where a chart has installed it, what installs charts.
    pub system: S,
    /// The servers.
    pub cluster: Cluster,
    /// How the servers are set up.
    pub access: DatabaseAccess,
}

/// A user and a password, as a container got them.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Scene {
    /// Starts it with two replicas each of renewer and revoker.
    ///
    /// # Errors
    ///
    /// When a server or a replica does not start.
    pub async fn start(access: DatabaseAccess, authentication: Authentication) -> Result<Self> {
        Self::with(access, Release { authentication, ..Release::default() }).await
    }

    /// Starts a release of the caller's.
    ///
    /// # Errors
    ///
    /// When a server or a replica does not start.
    pub async fn with(access: DatabaseAccess, release: Release) -> Result<Self> {
        Self::over(Cluster::builder().kubernetes(), access, release).await
    }

    /// Starts a release of the caller's over a control plane or a whole cluster of the caller's, to which OpenBao and PostgreSQL
    /// are added.
    ///
    /// # Errors
    ///
    /// When a server or a replica does not start.
    pub async fn over(cluster: Builder, access: DatabaseAccess, release: Release) -> Result<Self> {
        let cluster = cluster.openbao(OpenBao::dev()).postgres().start().await?;
        Self::on(cluster, access, release).await
    }

    /// Starts a release of the caller's on servers of the caller's.
    ///
    /// # Errors
    ///
    /// When a server refuses to be set up or a replica does not start.
    pub async fn on(cluster: Cluster, access: DatabaseAccess, release: Release) -> Result<Self> {
        cluster.configure_database_access(&access).await?;
        let system = System::start(&cluster, &access, &release).await?;
        Ok(Self { system, cluster, access })
    }
}

impl<S> Scene<S> {
    /// The pods of the application's namespace.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.kubernetes().admin(), &self.access.namespace)
    }

    /// Asks the API server for a labelled pod with these annotations.
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub async fn create(&self, name: &str, annotations: &[(&str, &str)]) -> Result<Pod, kube::Error> {
        let pod = self.pod(name, annotations);
        self.pods().create(&PostParams::default(), &pod).await
    }

    /// The pod is denied by the webhook, in these words among others, and is not stored.
    ///
    /// # Errors
    ///
    /// Where that is not so.
    pub async fn is_denied(&self, annotations: &[(&str, &str)], words: &[&str]) -> Result<()> {
        let message = match self.create("refused", annotations).await {
            Err(kube::Error::Api(status)) => status.message.clone(),
            Err(error) => return Err(error.into()),
            Ok(_) => anyhow::bail!("the pod was admitted: {annotations:?}"),
        };
        eprintln!("{message}");
        ensure!(message.starts_with("admission webhook"), "not by the webhook: {message}");
        for word in words {
            ensure!(message.contains(word), "{message:?} lacks {word:?}");
        }
        ensure!(self.pods().get_opt("refused").await?.is_none());
        Ok(())
    }

    /// Deletes a pod.
    ///
    /// # Errors
    ///
    /// When a server does not answer as it should.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A labelled pod with these annotations.
    #[must_use]
    pub fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> Pod {
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
        serde_json::from_value(pod).unwrap_or_default()
    }

    /// Whether PostgreSQL lets this login in.
    ///
    /// # Errors
    ///
    /// When a server does not answer as it should.
    pub async fn opens_a_session(&self, login: &Login) -> Result<bool> {
        self.cluster.postgres().can_login(&login.user, &login.password).await
    }

    /// The keys of the ledger.
    ///
    /// # Errors
    ///
    /// When a server does not answer as it should.
    pub async fn ledger_keys(&self) -> Result<Vec<String>> {
        self.cluster.openbao().root().ledger_keys(&self.access.mount, &self.access.prefix).await
    }

    /// What is left of credentials anywhere: database users, leases, application tokens, ledger entries.
    ///
    /// # Errors
    ///
    /// When a server does not answer as it should.
    pub async fn remains(&self) -> Result<Vec<String>> {
        let bao = self.cluster.openbao().root();
        let mut remains = self.cluster.postgres().roles_like("v-").await?;
        remains.extend(bao.lease_ids(&format!("{}/creds", self.access.engine)).await?);
        remains.extend(self.ledger_keys().await?);
        let tokens = bao.tokens_with_policy(&self.access.role).await?;
        remains.extend(tokens.iter().map(|token| format!("token {}", token["accessor"])));
        Ok(remains)
    }

    /// Waits until nothing is left.
    ///
    /// # Errors
    ///
    /// What is left.
    pub async fn nothing_remains(&self, within: Duration) -> Result<()> {
        eventually(within, async || {
            let remains = self.remains().await?;
            ensure!(remains.is_empty(), "there is still {remains:?}");
            Ok(())
        })
        .await
    }

    /// What the API server denied to our components: nothing, when their roles suffice.
    ///
    /// # Errors
    ///
    /// When a server does not answer as it should.
    pub fn denied_requests(&self) -> Result<Vec<String>> {
        self.cluster.denied_requests(&self.access)
    }
}

/// The login that every container of a pod got.
///
/// # Errors
///
/// Where the containers differ, or one got none.
pub fn login(pod: &Pod, user: &str, password: &str) -> Result<Login> {
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

/// Repeats a check, which has to hold each time, until this much time has passed since a moment.
///
/// # Errors
///
/// What the check said, and when.
pub async fn always(since: Instant, time: Duration, check: impl AsyncFn() -> Result<()>) -> Result<()> {
    while since.elapsed() < time {
        check().await.with_context(|| format!("after {:?}", since.elapsed()))?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

/// Repeats a check until it holds.
///
/// # Errors
///
/// What the check said last.
pub async fn eventually(within: Duration, check: impl AsyncFn() -> Result<()>) -> Result<()> {
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
