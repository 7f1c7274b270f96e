use std::{ops::Range, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, DatabaseAccess, Proxy, Release,
    openbao::Storage,
    scene::{Login, Scene, eventually, login},
    system::Replica,
};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, json};
use tokio::time::Instant;

/// Pods that live through everything.
const LIVING: usize = 4;

/// Pods that are created at once: each has to be answered in time on a busy machine.
const AT_ONCE: usize = 4;

/// How long anything may take that has to happen by itself.
const PATIENCE: Duration = Duration::from_secs(25);

/// Whether Vault serves, by the metrics of those who ask it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Vault {
    Up,
    Down,
}

/// A release with pods that live and pods that are deleted, on its way through outages.
pub(super) struct Trial {
    name: &'static str,
    /// How long a credential lives without a renewal: twice as long as an outage, or longer.
    ttl: Duration,
    pub(super) scene: Scene,
    living: Vec<Login>,
    gone: Vec<Login>,
}

impl Trial {
    /// The servers of a trial.
    pub(super) async fn servers(storage: Storage) -> Result<Cluster> {
        Cluster::builder().kubernetes().openbao(storage).postgres().start().await
    }

    /// Starts the release, and the pods that live and the first that are going to be deleted.
    pub(super) async fn start(
        name: &'static str,
        cluster: Cluster,
        proxy: Option<&Proxy>,
        ttl: Duration,
    ) -> Result<Self> {
        let seconds = format!("{}s", ttl.as_secs());
        let access =
            DatabaseAccess { default_ttl: seconds.clone(), token_period: seconds, ..Default::default() };
        let vault = match proxy {
            Some(proxy) => format!("http://{}", proxy.address()),
            None => cluster.openbao().url().to_owned(),
        };
        let configuration = Map::from_iter([
            ("vaultAddress".to_owned(), json!(vault)),
            ("revoker".to_owned(), json!({ "interval": "2s", "gracePeriod": "1s", "brakeMinimum": 1000 })),
        ]);
        let release = Release { replicas: 1, configuration, ..Release::default() };
        let scene = Scene::on(cluster, access, release).await?;
        let mut trial = Self { name, ttl, scene, living: Vec::new(), gone: Vec::new() };
        for replica in trial.leaders() {
            eventually(PATIENCE, async || {
                ensure!(replica.leads().await?, "nobody leads yet");
                Ok(())
            })
            .await?;
        }
        trial.living = trial.logins((0..LIVING).map(|index| format!("living-{index}"))).await?;
        trial.create(0..super::GONE).await?;
        Ok(trial)
    }

    /// Creates pods that are going to be deleted.
    pub(super) async fn create(&mut self, pods: Range<usize>) -> Result<()> {
        let logins = self.logins(pods.map(|index| format!("gone-{index}"))).await?;
        self.gone.extend(logins);
        // Whoever has to end a credential knows it before Vault is away.
        let revoker = &self.scene.system.revokers[0];
        let keys = self.scene.ledger_keys().await?.len();
        eventually(PATIENCE, async || {
            let known = revoker.metric("vdbi_ledger_entries", &[r#"state="live""#]).await?;
            ensure!(known == keys as f64, "{known} of {keys} entries are known");
            Ok(())
        })
        .await
    }

    async fn logins(&self, names: impl Iterator<Item = String>) -> Result<Vec<Login>> {
        let create = async |name: String| {
            let pod = self.scene.create(&name, &[("main.role", "app")]).await?;
            login(&pod, "DBUSER", "DBPASSWORD")
        };
        stream::iter(names).map(create).buffered(AT_ONCE).try_collect().await
    }

    /// Deletes pods.
    pub(super) async fn delete(&self, pods: Range<usize>) -> Result<()> {
        try_join_all(pods.map(async |index| self.scene.delete(&format!("gone-{index}")).await)).await?;
        Ok(())
    }

    fn leaders(&self) -> [&Replica; 2] {
        [&self.scene.system.renewers[0], &self.scene.system.revokers[0]]
    }

    /// What the revoker allows itself.
    pub(super) async fn revoker_rate(&self) -> Result<f64> {
        self.scene.system.revokers[0].metric("vdbi_revoker_budget_requests_per_second", &[]).await
    }

    /// Waits until the metrics say whether Vault serves, and how many credentials wait for their revocation. A session stands:
    /// both are ready, and live.
    pub(super) async fn says(&self, vault: Vault, waiting: usize) -> Result<()> {
        eventually(PATIENCE, async || {
            for (replica, name) in self.leaders().into_iter().zip(["renewer", "revoker"]) {
                let up = replica.metric("vdbi_vault_up", &[]).await?;
                ensure!(up == f64::from(u8::from(vault == Vault::Up)), "vdbi_vault_up of the {name} is {up}");
                for probe in ["/readyz", "/livez"] {
                    let (status, text) = replica.health(probe).await?;
                    ensure!(status == 200, "{probe}: {text}");
                }
            }
            let revoker = &self.scene.system.revokers[0];
            let queued = revoker.metric("vdbi_revoker_queue_depth", &[]).await?;
            ensure!(queued == waiting as f64, "{queued} of {waiting} are to be revoked");
            let failed = revoker.metric("vdbi_revoke_token_count_error", &[]).await?;
            ensure!(failed >= 1.0, "no revocation has failed");
            Ok(())
        })
        .await
        .with_context(|| format!("{}: {vault:?}", self.name))
    }

    /// Waits until nobody leads and nobody watches.
    pub(super) async fn nobody_leads(&self) -> Result<()> {
        eventually(PATIENCE, async || {
            for replica in self.leaders() {
                ensure!(!replica.leads().await?, "somebody leads");
                let (status, text) = replica.health("/readyz").await?;
                ensure!(status == 200, "{text}");
            }
            let watched = self.scene.system.revokers[0].metric("vdbi_revoker_watch_connected", &[]).await?;
            ensure!(watched == 0.0, "the pods are watched");
            Ok(())
        })
        .await
    }

    /// The outage is over: deleted pods lose their credentials, and the requests of each second afterwards are no more than the
    /// revoker's rate at that time, growing e-fold in ten seconds, the renewer's limit, and `late` ones from before.
    pub(super) async fn recovers(&self, gone: Range<usize>, rate: f64, late: usize) -> Result<()> {
        let (over, began) = (Timestamp::now(), Instant::now());
        eventually(PATIENCE, async || {
            for login in &self.gone[gone.clone()] {
                ensure!(!self.scene.opens_a_session(login).await?, "a deleted pod's credential still works");
            }
            let keys = self.scene.ledger_keys().await?;
            ensure!(keys.len() <= LIVING + self.gone.len() - gone.end, "{} entries are left", keys.len());
            let revoker = &self.scene.system.revokers[0];
            let queued = revoker.metric("vdbi_revoker_queue_depth", &[]).await?;
            ensure!(queued == 0.0, "{queued} are to be revoked");
            let watched = revoker.metric("vdbi_revoker_watch_connected", &[]).await?;
            ensure!(watched == 1.0, "the pods are not watched");
            let renewer = &self.scene.system.renewers[0];
            let kept = renewer.metric("vdbi_renewer_entries", &[]).await?;
            ensure!(kept >= LIVING as f64, "{kept} entries are renewed");
            let earliest = renewer.metric("vdbi_renewer_earliest_expiry_seconds", &[]).await?;
            ensure!(earliest > 0.4 * self.ttl.as_secs_f64(), "a credential has {earliest} s left");
            Ok(())
        })
        .await
        .with_context(|| format!("{}: recovery", self.name))?;
        let took = began.elapsed();

        let mut seconds = [0usize; 10];
        for request in self.scene.cluster.openbao().requests()? {
            let ours = ["-renewer", "-revoker"].iter().any(|of| request.display_name.ends_with(of));
            let after = request.time.duration_since(over);
            if ours
                && after >= SignedDuration::ZERO
                && let Some(second) = seconds.get_mut(after.as_secs() as usize)
            {
                *second += 1;
            }
        }
        eprintln!(
            "{}: {} credentials revoked within {took:.1?} of the recovery, at {rate:.0} requests/s and more; \
             requests in each second: {seconds:?}",
            self.name,
            gone.len()
        );
        for (second, &count) in seconds.iter().enumerate() {
            let most = rate * ((second + 1) as f64 / 10.0).exp() + 40.0 + late as f64;
            ensure!(count as f64 <= most, "{count} requests in second {second}, at most {most:.0} expected");
        }
        Ok(())
    }

    /// Pods that live kept what they have beyond what it would have lasted from before the first outage; once they are gone
    /// too, nothing remains.
    pub(super) async fn end(&self, began: Instant) -> Result<()> {
        while began.elapsed() < self.ttl + Duration::from_secs(2) {
            for login in &self.living {
                ensure!(
                    self.scene.opens_a_session(login).await?,
                    "{}: a living pod's credential died",
                    self.name
                );
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // Of one that was deleted, the lease may be revoked by a request that was given up, and its entry be there for a while.
        let log = self.scene.system.renewers[0].server.log()?;
        let lost = log.lines().find(|line| line.contains("has lost") && line.contains("/living-"));
        ensure!(lost.is_none(), "{lost:?}");
        self.scene.pods().delete_collection(&Default::default(), &Default::default()).await?;
        self.scene.nothing_remains(PATIENCE).await
    }
}
