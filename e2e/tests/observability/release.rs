//! A real Prometheus over a real release: a whole cluster with the node plugin, on which pods come and go.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Component, DatabaseAccess, Prometheus, Release,
    network::isolated,
    nodes::IMAGE,
    prometheus::Target,
    scene::{PREFIX, Scene, eventually},
    system::{LABEL, Replica},
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, json};
use tokio::time::sleep;

use crate::{
    files,
    picture::{self, Line},
    promql::names,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// What there is nothing of while all is well, or in this mode: where these are all that a query names, it may yield nothing.
const QUIET: [&str; 16] = [
    "ALERTS",
    "vdbi_renew_lease_count_error",
    "vdbi_renew_token_count_error",
    "vdbi_ending_credentials_total",
    "vdbi_lost_credentials_total",
    "vdbi_rotations_total",
    "vdbi_revoke_token_count_error",
    "vdbi_delete_data_count_error",
    "vdbi_nri_unwrap_failures_total",
    "vdbi_nri_prewarm_error_total",
    "vdbi_vault_login_errors_total",
    "vdbi_token_request_errors_total",
    "vdbi_projected_role_misconfigured_total",
    "vdbi_leader_election_lost_total",
    "vdbi_leader_election_failover_seconds_bucket",
    // The node plugin's entries are bound from the first.
    "vdbi_ledger_bindings_total",
];

#[test]
fn every_rule_and_every_panel_works_and_an_outage_of_openbao_is_told() -> Result<()> {
    isolated(async || {
        let mut run = Run::start().await?;
        // In two steps: a series begins with its first event, and tells a rate from the second one on.
        run.create(0..3).await?;
        run.create(3..6).await?;
        run.is_denied().await?;
        run.delete(0..2).await?;
        run.everything_has_happened().await?;
        run.every_rule_is_healthy().await?;
        run.every_panel_has_data().await?;
        run.nothing_critical_has_fired().await?;

        run.scene.cluster.openbao_mut().server_mut().stop()?;
        run.delete(2..4).await?;
        for component in ["renewer", "revoker"] {
            run.alerts("VdbiOpenBaoDown", component).await?;
        }
        run.every_rule_is_healthy().await?;
        run.scene.cluster.openbao_mut().server_mut().cont()
    })
}

/// Draws `docs/monitoring/*.svg`; `docs/monitoring.md` says what happens in it.
#[test]
#[ignore = "takes six minutes and writes into docs/"]
fn pictures_of_the_dashboard() -> Result<()> {
    isolated(async || {
        let mut run = Run::start().await?;
        sleep(Duration::from_secs(15)).await;
        let mut events = vec![(now()?, "pods are created")];
        for index in 0..12 {
            run.create(index..index + 1).await?;
            sleep(Duration::from_secs(2)).await;
        }
        run.is_denied().await?;
        sleep(Duration::from_secs(40)).await;
        events.push((now()?, "pods are deleted"));
        run.delete(0..4).await?;
        sleep(Duration::from_secs(30)).await;
        events.push((now()?, "the leaders are killed"));
        for replicas in [&mut run.scene.system.renewers, &mut run.scene.system.revokers] {
            for replica in replicas {
                if replica.leads().await? {
                    replica.server.kill().await?;
                }
            }
        }
        sleep(Duration::from_secs(40)).await;
        events.push((now()?, "OpenBao is frozen, and pods are deleted"));
        run.scene.cluster.openbao_mut().server_mut().stop()?;
        run.delete(4..6).await?;
        sleep(Duration::from_secs(25)).await;
        events.push((now()?, "OpenBao goes on"));
        run.scene.cluster.openbao_mut().server_mut().cont()?;
        sleep(Duration::from_secs(40)).await;
        events.push((now()?, "a lease is revoked behind the renewer's back"));
        let bao = run.scene.cluster.openbao().root();
        let leases = bao.lease_ids(&format!("{}/creds", run.scene.access.engine)).await?;
        let lease = leases.first().context("there is a lease")?;
        bao.write("sys/leases/revoke", &json!({ "lease_id": lease, "sync": true })).await?;
        sleep(Duration::from_secs(60)).await;
        run.draw(&events).await
    })
}

struct Run {
    scene: Scene,
    prometheus: Prometheus,
    began: f64,
}

impl Run {
    async fn start() -> Result<Self> {
        let access = DatabaseAccess {
            default_ttl: "60s".into(),
            token_period: "60s".into(),
            ..DatabaseAccess::default()
        };
        // The alerts are made for the usual times of an election.
        let election = json!({
            "leaseDuration": "15s",
            "abortAfter": "13s",
            "hardDeadline": "10s",
            "renewInterval": "3s",
            "requestTimeout": "3s",
            "retry": "1s",
        });
        let configuration = Map::from_iter([
            ("leaderElection".to_owned(), election),
            ("revoker".to_owned(), json!({ "interval": "5s", "gracePeriod": "3s" })),
        ]);
        let release = Release { node_plugins: true, configuration, ..Release::default() };
        let scene = Scene::over(Cluster::builder().nodes(1), access, release).await?;
        for replicas in [&scene.system.renewers, &scene.system.revokers] {
            eventually(PATIENCE, async || {
                for replica in replicas {
                    if replica.leads().await? {
                        return Ok(());
                    }
                }
                anyhow::bail!("nobody leads")
            })
            .await?;
        }
        let targets = targets(&scene);
        let prometheus = Prometheus::start(scene.cluster.directory(), &targets, &at_once()).await?;
        let mut run = Self { scene, prometheus, began: now()? };
        run.every_target_is_up(targets.len()).await?;
        // Before that the alert that nothing is scraped may have fired.
        sleep(Duration::from_secs(5)).await;
        run.began = now()?;
        Ok(run)
    }

    async fn every_target_is_up(&self, number: usize) -> Result<()> {
        eventually(PATIENCE, async || {
            let answer = self.prometheus.get("targets").await?;
            let targets = answer["activeTargets"].as_array().context("there are targets")?;
            ensure!(targets.len() == number, "{} targets", targets.len());
            let down = targets.iter().find(|target| target["health"] != "up");
            ensure!(down.is_none(), "{}", down.unwrap_or_default());
            Ok(())
        })
        .await
    }

    async fn create(&self, pods: std::ops::Range<usize>) -> Result<()> {
        for index in pods.clone() {
            self.apply(&format!("web-{index}"), &self.scene.access.role).await?;
        }
        eventually(PATIENCE, async || {
            for index in pods.clone() {
                let pod: Pod = self.scene.pods().get(&format!("web-{index}")).await?;
                let phase = pod.status.and_then(|status| status.phase);
                ensure!(phase.as_deref() == Some("Running"), "pod web-{index} is {phase:?}");
            }
            Ok(())
        })
        .await
    }

    /// A pod whose service account the role does not bind.
    async fn is_denied(&self) -> Result<()> {
        let role = self.scene.access.component_role(Component::Revoker);
        ensure!(self.apply("denied", &role).await.is_err(), "it was admitted");
        Ok(())
    }

    async fn apply(&self, name: &str, role: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": self.scene.access.namespace,
                "labels": { LABEL: "true" },
                "annotations": { format!("{PREFIX}main.role"): role },
            },
            "spec": {
                "serviceAccountName": self.scene.access.service_account,
                "terminationGracePeriodSeconds": 2,
                "containers": [{
                    "name": "app",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"],
                }],
            },
        });
        self.scene.cluster.kubernetes().apply(&pod).await
    }

    async fn delete(&self, pods: std::ops::Range<usize>) -> Result<()> {
        for index in pods {
            self.scene.delete(&format!("web-{index}")).await?;
        }
        Ok(())
    }

    /// Something was renewed and something revoked, and Prometheus knows.
    async fn everything_has_happened(&self) -> Result<()> {
        let counted = [
            ("vdbi_renew_lease_count_success", 1.0),
            ("vdbi_renew_token_count_success", 1.0),
            ("vdbi_revoke_token_count_success", 2.0),
            ("vdbi_nri_substitutions_total", 6.0),
        ];
        eventually(PATIENCE, async || {
            for (metric, least) in counted {
                let series = self.prometheus.query(&format!("sum({metric})")).await?;
                let count =
                    series.first().and_then(|series| series.points.first()).map_or(0.0, |point| point.1);
                ensure!(count >= least, "{metric} is {count}");
            }
            Ok(())
        })
        .await?;
        // A rate takes two points, also of what appeared last.
        sleep(Duration::from_secs(4)).await;
        Ok(())
    }

    async fn every_rule_is_healthy(&self) -> Result<()> {
        let answer = self.prometheus.get("rules").await?;
        let groups = answer["groups"].as_array().context("there are groups")?;
        let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array()).flatten().collect();
        ensure!(rules.len() == files::rules().len(), "Prometheus has {} rules", rules.len());
        for rule in rules {
            ensure!(rule["health"] == "ok", "{rule}");
        }
        Ok(())
    }

    async fn nothing_critical_has_fired(&self) -> Result<()> {
        let seconds = now()? - self.began;
        let fired =
            format!(r#"count_over_time(ALERTS{{severity="critical",alertstate="firing"}}[{seconds:.0}s])"#);
        let fired = self.prometheus.query(&fired).await?;
        ensure!(fired.is_empty(), "{fired:?}");
        Ok(())
    }

    async fn every_panel_has_data(&self) -> Result<()> {
        let (now, mut empty) = (now()?, Vec::new());
        for panel in files::dashboard() {
            for target in &panel.targets {
                let query = target.query("15s", now - self.began);
                let series = self.prometheus.query_range(&query, (self.began, now), 1.0).await;
                let series = series.with_context(|| format!("panel {}: {query}", panel.title))?;
                let quiet = |name: &str| QUIET.contains(&name);
                let may_be_empty = query.contains("outcome!=")
                    || names(&query).selectors.iter().all(|(name, _)| quiet(name));
                if !may_be_empty && series.iter().all(|series| series.points.is_empty()) {
                    empty.push(format!("{}: {query}", panel.title));
                }
            }
        }
        ensure!(empty.is_empty(), "these panels have no data:\n{}", empty.join("\n"));
        Ok(())
    }

    /// Waits until an alert of a component's is pending or fires.
    async fn alerts(&self, alert: &str, component: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            let answer = self.prometheus.get("alerts").await?;
            let mut alerts = answer["alerts"].as_array().context("there are alerts")?.iter();
            let told = alerts
                .any(|told| told["labels"]["alertname"] == alert && told["labels"]["component"] == component);
            ensure!(told, "{alert} says nothing of the {component}: {answer}");
            Ok(())
        })
        .await
    }

    async fn draw(&self, events: &[picture::Event]) -> Result<()> {
        let to = now()?;
        let panels = files::dashboard();
        let mut rows = BTreeMap::<&str, Vec<_>>::new();
        for panel in &panels {
            let mut lines = Vec::new();
            for target in &panel.targets {
                let query = target.query("15s", to - self.began);
                let series = self.prometheus.query_range(&query, (self.began, to), 2.0).await?;
                lines.extend(series.into_iter().map(|series| Line::new(panel, &target.legend, series)));
            }
            rows.entry(&panel.row).or_default().push((panel, lines));
        }
        let directory = files::path("docs/monitoring");
        fs::create_dir_all(&directory)?;
        for (row, panels) in rows {
            let svg = picture::draw(&panels, (self.began, to), events);
            fs::write(directory.join(picture::file_name(row)).with_extension("svg"), svg)?;
        }
        for (index, (time, what)) in events.iter().enumerate() {
            eprintln!("{} after {:.0} s: {what}", index + 1, time - self.began);
        }
        Ok(())
    }
}

/// Every replica, with the labels that Kubernetes' service discovery gives it in a cluster.
fn targets(scene: &Scene) -> Vec<Target> {
    let system = &scene.system;
    let target = |component: &str, index: usize, replica: &Replica| Target {
        address: replica.metrics_address().to_owned(),
        labels: BTreeMap::from([
            ("namespace", scene.access.system_namespace.clone()),
            ("release", scene.access.release.clone()),
            ("component", component.to_owned()),
            ("pod", format!("{}-{component}-{index}", scene.access.release)),
        ]),
    };
    let all = [("renewer", &system.renewers), ("revoker", &system.revokers), ("nri", &system.node_plugins)];
    let all = all.into_iter().flat_map(|(component, replicas)| {
        replicas.iter().enumerate().map(move |(index, replica)| target(component, index, replica))
    });
    all.chain([target("injector", 0, &system.injector)]).collect()
}

/// The rules, with alerts that fire when their condition has held for three seconds.
fn at_once() -> String {
    let rules = files::read("charts/vdbi/files/rules.yaml");
    let short = rules.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
        Some(_) => "        for: 3s",
        None => line,
    });
    short.collect::<Vec<_>>().join("\n") + "\n"
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64())
}
