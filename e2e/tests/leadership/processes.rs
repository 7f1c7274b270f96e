//! What only a process of its own can show: that it aborts, that it is stuck, that it waits.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Program, Server, binary, kubernetes::client};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    admin::{self, Addresses, AdminServer},
    health::Health,
    leadership::Leadership,
    metrics::Registry,
};
use vdbi_lifecycle::election::{BoottimeClock, Identity, LeaseElection, LeaseRef, Settings};

use crate::candidate::{Election, LEASE_DURATION, NAMESPACE, kubernetes};

const KUBECONFIG: &str = "VDBI_TEST_KUBECONFIG";

/// Of the helper below, in front of an address.
const ADDRESS: &str = "health on ";

/// What a kubelet waits for an answer to a probe.
const PROBE: Duration = Duration::from_secs(1);

/// This test binary, with one of the helpers below.
fn helper(name: &str, directory: &std::path::Path) -> Result<Program> {
    let name = format!("processes::{name}");
    Ok(Program::new(std::env::current_exe()?, directory).args(["--exact", "--ignored", "--nocapture", &name]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_work_blocks_beyond_its_term_aborts_before_another_can_lead() -> Result<()> {
    let mut cluster = kubernetes().await?;
    let election = Election::new(cluster.kubernetes(), "blocked");
    let directory = cluster.directory().to_owned();
    let program = helper("leads_with_work_that_blocks", &directory)?
        .env(KUBECONFIG, cluster.kubernetes().admin_kubeconfig());
    let mut process = Server::start("blocked", program, &directory).await?;
    process.logged("leading", Duration::from_secs(15)).await?;
    let lease = election.lease().await?;
    assert!(lease.holder_identity.is_some_and(|holder| holder.starts_with("a_")));

    cluster.kubernetes_mut().apiserver_mut().stop()?;
    let frozen = Instant::now();
    let status = process.wait_exit(LEASE_DURATION).await?;
    eprintln!("aborted {:?} after the API server was frozen", frozen.elapsed());
    assert_eq!(status.signal(), Some(6), "SIGABRT: {status}");
    assert!(frozen.elapsed() < LEASE_DURATION, "nobody could have taken the lease");
    Ok(())
}

#[test]
#[ignore = "started by a_process_whose_work_blocks_beyond_its_term_aborts_before_another_can_lead"]
fn leads_with_work_that_blocks() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(std::env::var_os(KUBECONFIG).unwrap().as_ref()).await.unwrap();
        let settings = Settings::new(
            LeaseRef { namespace: NAMESPACE.into(), name: "blocked".into() },
            Identity::new("a").with_uid("a"),
        )
        .scaled_to(LEASE_DURATION);
        let election = LeaseElection::new(client, settings, Arc::new(BoottimeClock), &Registry::disabled())
            .unwrap()
            .on_overrun(|| std::process::abort());
        let work = |_| async {
            println!("leading");
            thread::sleep(Duration::from_secs(60));
            Ok(())
        };
        election.run(work, CancellationToken::new()).await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_runtime_is_blocked_is_not_live_within_half_a_minute() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = helper("answers_probes_over_a_runtime_that_blocks", directory.path())?;
    let mut process = Server::start("stuck", program, directory.path()).await?;
    process.logged(ADDRESS, Duration::from_secs(15)).await?;
    let log = process.log()?;
    let (_, rest) = log.split_once(ADDRESS).context("it has told its address")?;
    let address = rest.lines().next().unwrap_or_default();

    let http = reqwest::Client::new();
    let probe = async || {
        let answer = timeout(PROBE, http.get(format!("http://{address}/livez")).send()).await??;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    let start = Instant::now();
    assert_eq!(probe().await?.0, 200);
    process.logged("blocking", Duration::from_secs(15)).await?;
    loop {
        let (status, text) = probe().await?;
        if status == 503 {
            let body: Value = serde_json::from_str(&text)?;
            let failed =
                body["checks"].as_array().context("checks")?.iter().find(|check| check["status"] == "failed");
            assert_eq!(failed.context("one failed")?["name"], "runtime-heartbeat");
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(34), "still live: {text}");
        sleep(Duration::from_millis(500)).await;
    }
    eprintln!("not live {:?} after the start", start.elapsed());
    Ok(())
}

#[test]
#[ignore = "started by a_process_whose_runtime_is_blocked_is_not_live_within_half_a_minute"]
fn answers_probes_over_a_runtime_that_blocks() {
    let health = Health::new();
    let (_registry, page) = admin::prometheus().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = AdminServer::bind(Addresses { admin: any, metrics: any }, health.clone(), page).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let heartbeat = health.heartbeat();
        let block = async {
            println!("{ADDRESS}{}", server.admin_addr());
            sleep(Duration::from_secs(2)).await;
            println!("blocking");
            thread::sleep(Duration::from_secs(60));
        };
        tokio::select! {
            () = heartbeat => {}
            () = block => {}
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_waits_for_an_api_server_that_is_away_at_its_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:1" } }],
        "users": [{ "name": "u", "user": { "token": "none" } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    fs::write(path.join("kubeconfig"), kubeconfig.to_string())?;
    fs::write(path.join("token"), "none")?;
    for (component, address) in [("renewer", "127.0.0.1:0"), ("revoker", "127.0.0.1:0")] {
        let configuration = json!({
            "vaultAddress": "http://127.0.0.1:1", "kubeRole": "r", "vaultSecretName": "n", "vaultSecretPrefix": "p",
            "adminAddress": address, "metricsAddress": address, "serviceAccountTokenFile": path.join("token"),
            "leaderElection": { "leaseNamespace": "vdbi" },
        });
        fs::write(path.join("config.yaml"), configuration.to_string())?;
        let program = Program::new(binary(component, &format!("vdbi-{component}"))?, path)
            .arg("--config")
            .arg(path.join("config.yaml"))
            .env("KUBECONFIG", path.join("kubeconfig"));
        let mut process = Server::start(component, program, path).await?;
        process.logged("cannot read the uid of namespace kube-system", Duration::from_secs(15)).await?;
        sleep(Duration::from_secs(3)).await;
        let log = process.log()?;
        let Some(started) = log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()) else {
            bail!("no JSON in {log}")
        };
        let address = started["admin"].as_str().context("the first line tells the address")?;
        for (probe, expected) in [("livez", 200), ("readyz", 503)] {
            let answer = reqwest::get(format!("http://{address}/{probe}")).await?;
            assert_eq!(answer.status().as_u16(), expected, "{}", answer.text().await?);
        }
        assert_eq!(log.matches("cannot read the uid").count(), 1, "it says so once: {log}");
        assert!(process.terminate(Duration::from_secs(10)).await?.success());
    }
    Ok(())
}
