use std::pin::pin;

use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    health::{Probe, State},
    leadership::{Leadership, Term},
};

use crate::cluster::{Cluster, SECOND};

#[tokio::test(start_paused = true)]
async fn an_election_that_does_not_run_yet_is_live_and_not_ready() {
    let candidate = Cluster::new().candidate("a");
    sleep(600 * SECOND).await;
    assert!(candidate.health.report(Probe::Live, &[]).passed());
    assert!(!candidate.health.report(Probe::Ready, &[]).passed());
}

#[tokio::test(start_paused = true)]
async fn leader_and_follower_are_live_and_ready_however_long_nothing_happens() {
    let mut cluster = Cluster::new();
    let (a, _, b) = cluster.pair().await;
    for _ in 0..100 {
        sleep(11 * SECOND).await;
        for replica in [&a, &b] {
            assert_eq!(replica.probe(Probe::Live), Ok(()));
            assert_eq!(replica.probe(Probe::Ready), Ok(()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_no_reason_to_restart() {
    let mut cluster = Cluster::new();
    let (a, term, b) = cluster.pair().await;
    a.link.refuse();
    b.link.refuse();
    sleep(600 * SECOND).await;
    assert!(term.check().is_err());
    for replica in [&a, &b] {
        assert_eq!(replica.probe(Probe::Live), Ok(()));
        assert_eq!(replica.probe(Probe::Ready), Ok(()), "it has seen the lease once");
        let details = replica.health.report(Probe::Ready, &[]).details;
        let (_, kubernetes) = details.iter().find(|(name, _)| *name == "kubernetes").unwrap();
        assert_eq!(kubernetes["status"], "failed");
        assert!(kubernetes["message"].as_str().unwrap().contains("refused"), "{kubernetes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_never_seen_the_lease_is_not_ready_and_says_why() {
    let mut cluster = Cluster::new();
    let candidate = cluster.candidate("a");
    candidate.link.refuse();
    let a = cluster.run(candidate, |_, _| async { Ok(()) });
    sleep(5 * SECOND).await;
    let reason = a.probe(Probe::Ready).unwrap_err();
    assert!(reason.starts_with("the lease vdbi/renewer has not been read yet: "), "{reason}");
    a.link.heal();
    sleep(2 * SECOND).await;
    assert_eq!(a.probe(Probe::Ready), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_elector_whose_loop_is_stuck_is_not_live() {
    let cluster = Cluster::new();
    cluster.create(json!({"holderIdentity": "other", "leaseDurationSeconds": 3600})).await;
    let candidate = cluster.candidate("a");
    let mut run = pin!(candidate.election.run(|_| async { Ok(()) }, CancellationToken::new()));
    // Polled for a while, and then no more: what a runtime does that is blocked.
    assert!(timeout(SECOND, &mut run).await.is_err());
    tokio::time::advance(33 * SECOND).await;
    assert!(candidate.health.report(Probe::Live, &[]).passed());
    tokio::time::advance(3 * SECOND).await;
    let report = candidate.health.report_one(Probe::Live, "leader-election").unwrap();
    assert!(
        matches!(&report.checks[0].state, State::Failed(reason) if reason.starts_with("the election has been stuck")),
        "{report:?}"
    );
    assert!(timeout(SECOND, &mut run).await.is_err());
    assert!(candidate.health.report(Probe::Live, &[]).passed(), "it turns again");
}

#[tokio::test(start_paused = true)]
async fn a_leader_beyond_its_deadline_is_live_until_its_work_should_have_been_aborted() {
    let candidate = Cluster::new().candidate("a");
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let work = move |term: Term| {
        let told = told.clone();
        async move {
            told.send(term)?;
            std::future::pending().await
        }
    };
    let mut run = pin!(candidate.election.run(work, CancellationToken::new()));
    assert!(timeout(SECOND, &mut run).await.is_err());
    let term = tell.recv().await.unwrap();
    tokio::time::advance(10 * SECOND).await;
    assert!(term.check().is_err());
    assert!(candidate.health.report(Probe::Live, &[]).passed());
    tokio::time::advance(2 * SECOND).await;
    let report = candidate.health.report_one(Probe::Live, "leader-election").unwrap();
    let reason = "the work does not stop although its term is over";
    assert_eq!(report.checks[0].state, State::Failed(reason.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_details_say_who_leads_and_for_how_long() {
    let mut cluster = Cluster::new();
    let (a, term, b) = cluster.pair().await;
    let detail = |replica: &crate::cluster::Replica| {
        let details = replica.health.report(Probe::Live, &[]).details;
        details.into_iter().find(|(name, _)| *name == "leader").unwrap().1
    };
    let remaining = term.remaining().as_secs();
    assert!((6..=10).contains(&remaining), "{remaining}");
    assert_eq!(
        detail(&a),
        json!({"lease": "renewer", "is_leader": true, "holder": term.identity(), "remaining_s": remaining})
    );
    assert_eq!(
        detail(&b),
        json!({"lease": "renewer", "is_leader": false, "holder": term.identity(), "remaining_s": 0})
    );
}
