//! Candidates of another make, by what they write.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::candidate::{Election, LEASE_DURATION, kubernetes};

/// What client-go's LeaderElector writes while it leads.
fn led_by_client_go(transitions: i32) -> Value {
    let now = format!("{:.6}", Timestamp::now());
    json!({ "holderIdentity": "client-go", "leaseDurationSeconds": 3, "acquireTime": now, "renewTime": now,
        "leaseTransitions": transitions })
}

/// What its ReleaseOnCancel writes.
fn released_by_client_go(transitions: i32) -> Value {
    let now = format!("{:.6}", Timestamp::now());
    json!({ "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now,
        "leaseTransitions": transitions })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_of_client_go_is_succeeded_and_succeeds() -> Result<()> {
    let cluster = kubernetes().await?;
    let mut election = Election::new(cluster.kubernetes(), "lock-injector-renewer");
    election.write(led_by_client_go(7)).await?;
    let candidate = election.candidate(cluster.kubernetes(), "a").await?;
    for _ in 0..12 {
        sleep(Duration::from_millis(500)).await;
        election.write(led_by_client_go(7)).await?;
        ensure!(election.leader().is_none(), "the peer leads");
    }
    election.write(released_by_client_go(7)).await?;
    let took =
        election.until("it takes what was released", LEASE_DURATION, |leader| leader.is_some()).await?;
    eprintln!("taken {took:?} after the release");
    ensure!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!(election.lease().await?.lease_transitions, Some(8));

    // The peer takes it by force, as after an expiry: our leader stops at once, and comes back when the peer is dead.
    election.write(led_by_client_go(9)).await?;
    let stolen = Instant::now();
    election.until("it stops at once", Duration::from_secs(1), |leader| leader.is_none()).await?;
    election.somebody_leads(3 * LEASE_DURATION).await?;
    ensure!(
        stolen.elapsed() >= LEASE_DURATION,
        "by the record's own word it was free after {LEASE_DURATION:?}"
    );

    candidate.shutdown.cancel();
    election.until("it stops", LEASE_DURATION, |leader| leader.is_none()).await?;
    sleep(Duration::from_millis(500)).await;
    let released = election.lease().await?;
    // What client-go's candidates take at once.
    assert_eq!((released.holder_identity.as_deref(), released.lease_duration_seconds), (Some(""), Some(1)));
    assert!(released.renew_time.is_some() && released.acquire_time.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_a_stranger_wrote_is_taken_when_nobody_touches_it() -> Result<()> {
    let cluster = kubernetes().await?;
    for (name, spec, at_once) in [
        ("empty", json!({}), true),
        ("nobodys", json!({ "leaseTransitions": 3 }), true),
        ("no-duration", json!({ "holderIdentity": "a person", "leaseTransitions": 2_147_483_647 }), false),
        (
            "long-ago",
            json!({ "holderIdentity": "a person", "leaseDurationSeconds": 1, "renewTime": "1999-12-31T23:59:59.000000Z" }),
            false,
        ),
    ] {
        let mut election = Election::new(cluster.kubernetes(), name);
        election.write(spec).await?;
        election.candidate(cluster.kubernetes(), "a").await?;
        let took = election.until(name, 3 * LEASE_DURATION, |leader| leader.is_some()).await?;
        eprintln!("{name}: taken after {took:?}");
        ensure!((took < Duration::from_millis(900)) == at_once, "{name}: {took:?}");
    }
    Ok(())
}
