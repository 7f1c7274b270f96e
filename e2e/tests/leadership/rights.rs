use std::time::Duration;

use anyhow::Result;
use e2e::{Kubernetes, kubernetes::client};
use serde_json::json;
use tokio::time::sleep;

use crate::candidate::{Election, LEASE_DURATION, NAMESPACE, kubernetes};

async fn grant(kubernetes: &Kubernetes, account: &str, verbs: &[&str]) -> Result<()> {
    let rule = json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs });
    kubernetes.grant(NAMESPACE, account, json!([rule])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_watch_a_candidate_polls_and_takes_over() -> Result<()> {
    let cluster = kubernetes().await?;
    let kubernetes = cluster.kubernetes();
    kubernetes.create_service_account(NAMESPACE, "poller").await?;
    grant(kubernetes, "poller", &["get", "create", "update"]).await?;
    let poller = kubernetes.kubeconfig_for_service_account(NAMESPACE, "poller").await?;
    let mut election = Election::new(kubernetes, "polled");
    let first = election.candidate(kubernetes, "a").await?;
    let term = election.somebody_leads(LEASE_DURATION).await?;
    election.candidate_with(client(&poller).await?, "b")?;
    election.stays(&term, LEASE_DURATION).await?;
    first.shutdown.cancel();
    let polled = |leader: Option<&vdbi_core::leadership::Term>| {
        leader.is_some_and(|term| term.identity().starts_with("b_"))
    };
    election.until("the poller leads", LEASE_DURATION, polled).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_right_a_candidate_waits_and_leads_once_it_is_granted() -> Result<()> {
    let cluster = kubernetes().await?;
    let kubernetes = cluster.kubernetes();
    kubernetes.create_service_account(NAMESPACE, "nobody").await?;
    let nobody = kubernetes.kubeconfig_for_service_account(NAMESPACE, "nobody").await?;
    let mut election = Election::new(kubernetes, "forbidden");
    election.candidate_with(client(&nobody).await?, "a")?;
    sleep(LEASE_DURATION).await;
    assert!(election.leader().is_none());
    grant(kubernetes, "nobody", &["get", "create", "update", "watch"]).await?;
    election.somebody_leads(Duration::from_secs(15)).await?;
    Ok(())
}
