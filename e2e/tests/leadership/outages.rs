use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use crate::candidate::{Election, LEASE_DURATION, kubernetes};

/// What the deadline is at this lease duration.
const HARD_DEADLINE: Duration = Duration::from_secs(2);

/// A fail-over, and what a busy machine adds.
const FAILOVER: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn ten_candidates_that_start_at_once_lead_one_after_another() -> Result<()> {
    let cluster = kubernetes().await?;
    let mut election = Election::new(cluster.kubernetes(), "ten");
    let mut candidates = Vec::new();
    for index in 0..10 {
        candidates.push(election.candidate(cluster.kubernetes(), &format!("pod-{index}")).await?);
    }
    while !candidates.is_empty() {
        let term = election.somebody_leads(FAILOVER).await?;
        let leader = candidates
            .iter()
            .position(|candidate| term.identity().starts_with(&format!("{}_", candidate.pod)));
        let leader = candidates.swap_remove(leader.context("one of those that are left")?);
        election.stays(&term, Duration::from_millis(100)).await?;
        leader.shutdown.cancel();
        let fence = term.fence();
        let handed_over = |leader: Option<&vdbi_core::leadership::Term>| {
            candidates.is_empty() || leader.is_some_and(|leader| leader.fence() != fence)
        };
        let took = election.until("another leads", FAILOVER, handed_over).await?;
        eprintln!("handed over in {took:?}");
    }
    assert_eq!(election.terms(), 10, "nobody led twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_in_front_of_a_frozen_api_server_stops_by_itself_and_one_leads_when_it_is_back() -> Result<()>
{
    let mut cluster = kubernetes().await?;
    let mut election = Election::new(cluster.kubernetes(), "frozen");
    for pod in ["a", "b", "c"] {
        election.candidate(cluster.kubernetes(), pod).await?;
    }
    let term = election.somebody_leads(FAILOVER).await?;
    election.stays(&term, LEASE_DURATION).await?;
    let frozen = Instant::now();
    cluster.kubernetes_mut().apiserver_mut().stop()?;
    election.until("nobody leads", HARD_DEADLINE, |leader| leader.is_none()).await?;
    while frozen.elapsed() < 3 * LEASE_DURATION {
        assert!(election.leader().is_none(), "nobody can have won");
        sleep(Duration::from_millis(5)).await;
    }
    cluster.kubernetes_mut().apiserver_mut().cont()?;
    let next = election.somebody_leads(FAILOVER).await?;
    election.stays(&next, LEASE_DURATION).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_and_started_again_is_led_over_again() -> Result<()> {
    let mut cluster = kubernetes().await?;
    let mut election = Election::new(cluster.kubernetes(), "restarted");
    for pod in ["a", "b"] {
        election.candidate(cluster.kubernetes(), pod).await?;
    }
    election.somebody_leads(FAILOVER).await?;
    // Told to end, it would wait a minute for the watches.
    cluster.kubernetes_mut().apiserver_mut().kill().await?;
    cluster.kubernetes_mut().restart_apiserver().await?;
    let next = election.somebody_leads(FAILOVER).await?;
    election.stays(&next, LEASE_DURATION).await?;
    assert_eq!(election.lease().await?.holder_identity.as_deref(), Some(next.identity()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_killed_and_started_again_keeps_the_election() -> Result<()> {
    let mut cluster = kubernetes().await?;
    let mut election = Election::new(cluster.kubernetes(), "etcd");
    for pod in ["a", "b"] {
        election.candidate(cluster.kubernetes(), pod).await?;
    }
    let term = election.somebody_leads(FAILOVER).await?;
    let etcd = cluster.kubernetes_mut().etcd_mut();
    etcd.kill().await?;
    election
        .until("nobody leads without etcd", HARD_DEADLINE + Duration::from_secs(1), |leader| leader.is_none())
        .await?;
    cluster.kubernetes_mut().etcd_mut().restart().await?;
    let next = election.somebody_leads(2 * FAILOVER).await?;
    assert_ne!(next.fence(), term.fence());
    election.stays(&next, LEASE_DURATION).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_under_its_leader_is_written_again_and_the_term_goes_on() -> Result<()> {
    let cluster = kubernetes().await?;
    let mut election = Election::new(cluster.kubernetes(), "deleted");
    for pod in ["a", "b"] {
        election.candidate(cluster.kubernetes(), pod).await?;
    }
    let term = election.somebody_leads(FAILOVER).await?;
    election.stays(&term, Duration::from_secs(1)).await?;
    election.delete().await?;
    election.stays(&term, 3 * LEASE_DURATION).await?;
    assert_eq!(election.lease().await?.holder_identity.as_deref(), Some(term.identity()));
    Ok(())
}
