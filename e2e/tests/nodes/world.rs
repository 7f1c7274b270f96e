use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Builder, Cluster, DatabaseAccess, Release, System,
    nodes::IMAGE,
    scene::{Login, PREFIX, Scene, eventually, login},
    system::LABEL,
};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::{
    ResourceExt,
    api::{ListParams, LogParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long Kubernetes may take for anything, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What a placeholder begins with.
pub(crate) const PLACEHOLDER: &str = "__VDBI_PH_";

/// How long a credential may outlive its pod.
const SECONDS: Duration = Duration::from_secs(5);

/// What a container does that ends when it is asked to.
pub(crate) const SERVE: &str = "trap 'exit 0' TERM; sleep 1000 & wait";

/// A release over a whole cluster.
pub(crate) struct World<S = System> {
    pub(crate) scene: Scene<S>,
}

impl World {
    pub(crate) async fn start(nodes: usize) -> Result<Self> {
        Self::with(Cluster::builder().nodes(nodes), Release::default()).await
    }

    pub(crate) async fn with(cluster: Builder, release: Release) -> Result<Self> {
        let started = Instant::now();
        // So short that many comparisons of the whole ledger happen while a pod takes its time to end.
        let revoker = json!({ "interval": "500ms", "gracePeriod": "3s" });
        let release = Release {
            replicas: 1,
            configuration: [("revoker".to_owned(), revoker)]
                .into_iter()
                .chain(release.configuration)
                .collect(),
            ..release
        };
        let scene = Scene::over(cluster, DatabaseAccess::default(), release).await?;
        eprintln!("a release over a whole cluster was ready after {:?}", started.elapsed());
        Ok(Self { scene })
    }

    /// The credential is accepted while the revoker compares the whole ledger with the pods, several times.
    pub(crate) async fn survives_comparisons(&self, login: &Login, when: &str) -> Result<()> {
        let comparisons = async || {
            let [revoker] = &self.scene.system.revokers[..] else { anyhow::bail!("there is one revoker") };
            revoker.metric("vdbi_pod_cleanup_count_success", &[]).await
        };
        let before = comparisons().await?;
        // The grace period is over by then, as six intervals are as long.
        while comparisons().await? < before + 8.0 {
            self.accepted(login, when).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.accepted(login, when).await
    }
}

impl<S> World<S> {
    /// The metadata and specification of pods of one name that ask for a credential; what it runs begins with showing that.
    pub(crate) fn template(&self, app: &str, command: &str) -> Value {
        json!({
            "metadata": {
                "labels": { LABEL: "true", "app": app },
                "annotations": { format!("{PREFIX}main.role"): "app" },
            },
            "spec": {
                "serviceAccountName": self.scene.access.service_account,
                "containers": [{
                    "name": "app",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", format!("echo $DBUSER $DBPASSWORD; {command}")],
                }],
            },
        })
    }

    pub(crate) async fn apply(&self, api_version: &str, kind: &str, name: &str, spec: Value) -> Result<()> {
        let mut object = spec;
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(self.scene.access.namespace);
        self.scene.cluster.kubernetes().apply(&object).await
    }

    /// A Deployment of so many pods of this name.
    pub(crate) async fn deploy(&self, name: &str, replicas: usize, template: Value) -> Result<()> {
        let deployment = json!({ "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": template,
        } });
        self.apply("apps/v1", "Deployment", name, deployment).await
    }

    pub(crate) async fn pod(&self, name: &str) -> Result<Pod> {
        Ok(self.scene.pods().get(name).await?)
    }

    /// The pods of one name that have not been told to end.
    pub(crate) async fn staying(&self, app: &str) -> Result<Vec<Pod>> {
        let pods = self.scene.pods().list(&ListParams::default().labels(&format!("app={app}"))).await?;
        Ok(pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
    }

    /// Waits until so many pods of one name run, and none is about to go.
    pub(crate) async fn running(&self, app: &str, number: usize) -> Result<Vec<Pod>> {
        eventually(PATIENCE, async || {
            let pods = self.staying(app).await?;
            let running = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(running == number && pods.len() == number, "{running} of {} pods run", pods.len());
            Ok(())
        })
        .await?;
        self.staying(app).await
    }

    /// Waits until as many other pods run in place of these.
    pub(crate) async fn replaced(&self, before: &[Pod]) -> Result<Vec<Pod>> {
        let app = &before[0].labels()["app"];
        eventually(PATIENCE, async || {
            let pods = self.staying(app).await?;
            ensure!(
                pods.iter().all(|pod| before.iter().all(|old| old.uid() != pod.uid())),
                "an old pod stays"
            );
            ensure!(pods.len() == before.len() && pods.iter().all(is_ready), "not all replacements run");
            Ok(())
        })
        .await?;
        self.staying(app).await
    }

    /// The credential of a pod, as its running container shows it.
    pub(crate) async fn credential(&self, pod: &Pod) -> Result<Login> {
        let name = pod.name_any();
        let login = login(pod, "DBUSER", "DBPASSWORD")?;
        let shown = format!("{} {}", login.user, login.password);
        eventually(PATIENCE, async || {
            let log = self.scene.pods().logs(&name, &Default::default()).await?;
            ensure!(
                log.lines().next() == Some(&shown),
                "the container of {name} shows another credential, or none yet"
            );
            Ok(())
        })
        .await?;
        Ok(login)
    }

    /// What the running container of a pod shows, whatever its object says.
    pub(crate) async fn shown(&self, name: &str) -> Result<Login> {
        let log = async || Ok::<_, anyhow::Error>(self.scene.pods().logs(name, &LogParams::default()).await?);
        eventually(PATIENCE, async || {
            ensure!(log().await?.lines().next().is_some(), "{name} shows nothing yet");
            Ok(())
        })
        .await?;
        let log = log().await?;
        ensure!(!log.contains(PLACEHOLDER), "a placeholder has reached an application");
        let line = log.lines().next().context("it shows something")?;
        let (user, password) = line.split_once(' ').context("it shows user and password")?;
        Ok(Login { user: user.to_owned(), password: password.to_owned() })
    }

    /// The credentials of running pods; no two are the same.
    pub(crate) async fn credentials(&self, pods: &[Pod]) -> Result<Vec<Login>> {
        let mut logins = Vec::new();
        for pod in pods {
            logins.push(self.credential(pod).await?);
        }
        let users: BTreeSet<&str> = logins.iter().map(|login| login.user.as_str()).collect();
        ensure!(users.len() == pods.len(), "two pods share a credential");
        Ok(logins)
    }

    pub(crate) async fn accepted(&self, login: &Login, when: &str) -> Result<()> {
        ensure!(self.scene.opens_a_session(login).await?, "PostgreSQL refuses the credential {when}");
        Ok(())
    }

    /// The credential is refused within seconds.
    pub(crate) async fn refused(&self, login: &Login, when: &str) -> Result<()> {
        let ended = Instant::now();
        eventually(SECONDS, async || {
            ensure!(!self.scene.opens_a_session(login).await?, "PostgreSQL accepts the credential {when}");
            Ok(())
        })
        .await?;
        eprintln!("{when}: refused after {:?}", ended.elapsed());
        Ok(())
    }

    /// Waits until a pod is gone.
    pub(crate) async fn gone(&self, pod: &Pod) -> Result<()> {
        let name = pod.name_any();
        eventually(PATIENCE, async || {
            let now = self.scene.pods().get_opt(&name).await?;
            ensure!(now.is_none_or(|now| now.uid() != pod.uid()), "pod {name} is still there");
            Ok(())
        })
        .await
    }

    /// Waits until a pod's phase is this one; that is its last.
    pub(crate) async fn ended(&self, name: &str, phase: &str) -> Result<Pod> {
        eventually(PATIENCE, async || {
            let status = self.pod(name).await?.status.unwrap_or_default();
            ensure!(status.phase.as_deref() == Some(phase), "pod {name} has another phase: {status:?}");
            Ok(())
        })
        .await?;
        self.pod(name).await
    }

    /// Waits for a state of the container of a pod.
    pub(crate) async fn container(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(i32, &ContainerState) -> bool,
    ) -> Result<()> {
        eventually(PATIENCE, async || {
            let status = self.pod(name).await?.status.unwrap_or_default();
            let mut containers = status.container_statuses.iter().flatten();
            let container = containers.next().context("it has no container yet")?;
            let state = container.state.clone().unwrap_or_default();
            ensure!(is(container.restart_count, &state), "the container of {name} is not {what}: {state:?}");
            Ok(())
        })
        .await
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
