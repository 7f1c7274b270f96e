use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{DatabaseAccess, system::Authentication};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use e2e::scene::{Scene, eventually};

/// What a kubelet waits for an answer to a probe.
const PROBE: Duration = Duration::from_secs(1);

const LIVE: &[&str] = &["ping", "runtime-heartbeat"];

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_openbao_is_no_reason_to_restart_and_every_probe_says_what_its_component_needs() -> Result<()>
{
    let mut scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    for replica in scene.system.replicas_mut() {
        let injector = replica.admission_address.is_some();
        let (live, ready): (&[&str], &[&str]) = if injector {
            (&[], &["shutdown", "listener", "certificate", "vault-login"])
        } else {
            (&["leader-election"], &["shutdown", "leader-election", "vault-login"])
        };
        for (path, names) in [("/livez", [LIVE, live].concat()), ("/readyz", ready.to_vec())] {
            let (status, text) = replica.health(&format!("{path}?verbose")).await?;
            let mut expected: Vec<String> = names.iter().map(|name| format!("[+]{name} ok")).collect();
            let mut lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.pop(), Some(format!("{} check passed", &path[1..]).as_str()), "{text}");
            lines.sort_unstable();
            expected.sort_unstable();
            assert_eq!((status, lines), (200, expected.iter().map(String::as_str).collect()), "{text}");
            for name in names {
                assert_eq!(replica.health(&format!("{path}/{name}")).await?.0, 200);
            }
        }
        assert_eq!(replica.health("/readyz/etcd").await?.0, 404);
    }

    scene.cluster.openbao_mut().server_mut().stop()?;
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(5) {
        for replica in scene.system.replicas_mut() {
            for path in ["/livez", "/healthz", "/live", "/readyz"] {
                let (status, text) = timeout(PROBE, replica.health(path)).await??;
                // Our own token is still good.
                ensure!(status == 200, "{path}: {text}");
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    scene.cluster.openbao_mut().server_mut().cont()?;

    scene.cluster.kubernetes_mut().apiserver_mut().stop()?;
    let [revoker, _] = &scene.system.revokers[..] else { panic!("two revokers") };
    eventually(Duration::from_secs(20), async || {
        let (status, text) = timeout(PROBE, revoker.health("/readyz")).await??;
        let body: Value = serde_json::from_str(&text)?;
        ensure!(status == 200 && body["status"] == "ready", "{text}");
        ensure!(body["kubernetes"]["status"] == "failed" && body["leader"]["is_leader"] == false, "{text}");
        ensure!(body["vault"]["status"] == "ok", "{text}");
        Ok(())
    })
    .await?;
    assert_eq!(revoker.health("/livez").await?.0, 200);
    assert!(revoker.metric("vdbi_leader_election_requests_total", &[r#"code="timeout""#]).await? >= 1.0);
    scene.cluster.kubernetes_mut().apiserver_mut().cont()?;
    eventually(Duration::from_secs(30), async || {
        let mut leaders = 0;
        for revoker in &scene.system.revokers {
            leaders += usize::from(revoker.leads().await?);
        }
        ensure!(leaders == 1, "{leaders} revokers lead");
        Ok(())
    })
    .await
}
