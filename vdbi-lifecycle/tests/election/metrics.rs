use tokio::time::sleep;
use vdbi_core::memory::kubernetes::{Fault, Verb};

use crate::cluster::{Cluster, Replica, SECOND, metric, of};

const LEASE: &str = r#"lease_name="renewer""#;

fn series(name: &str) -> String {
    format!("{name}{{{LEASE}}}")
}

fn with(name: &str, label: &str) -> String {
    format!("vdbi_leader_election_{name}{{{LEASE},{label}}}")
}

fn election(replica: &Replica, name: &str) -> Option<f64> {
    replica.metric(&series(&format!("vdbi_leader_election_{name}")))
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_at_zero_before_an_election_runs() {
    let page = Cluster::new().candidate("a").page;
    // The candidate is gone with this; its computed series with it.
    assert_eq!(metric(&page, &series("vdbi_is_leader")), None);
    let candidate = Cluster::new().candidate("a");
    for name in
        ["vdbi_is_leader", "vdbi_leader_election_attempts_total", "vdbi_leader_election_watch_connected"]
    {
        assert_eq!(metric(&candidate.page, &series(name)), Some(0.0), "{name}");
    }
    for cause in ["created", "released", "expired", "same_pod"] {
        let label = format!(r#"cause="{cause}""#);
        assert_eq!(metric(&candidate.page, &with("acquired_total", &label)), Some(0.0), "{cause}");
    }
    for reason in ["deadline", "superseded", "deleted", "work_failed", "shutdown"] {
        let label = format!(r#"reason="{reason}""#);
        assert_eq!(metric(&candidate.page, &with("lost_total", &label)), Some(0.0), "{reason}");
    }
    assert_eq!(metric(&candidate.page, &series("vdbi_leader_election_lease_transitions")), None);
    assert_eq!(metric(&candidate.page, &series("vdbi_leader_election_deadline_remaining_seconds")), None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_tells_how_long_it_has_led_and_how_long_it_may() {
    let mut cluster = Cluster::new();
    let (a, term, b) = cluster.pair().await;
    let duration = with("duration_seconds", &format!(r#"leader_name="{}",mode="renewer""#, term.identity()));
    let age = a.metric(&duration).unwrap();
    assert!((20.0..21.0).contains(&age), "{age}");
    sleep(100 * SECOND).await;
    assert!((120.0..121.0).contains(&a.metric(&duration).unwrap()));
    assert_eq!(a.metric(&series("vdbi_is_leader")), Some(1.0));
    let remaining = election(&a, "deadline_remaining_seconds").unwrap();
    assert!((6.0..=10.0).contains(&remaining), "{remaining}");

    assert_eq!(b.metric(&series("vdbi_is_leader")), Some(0.0));
    assert!(!b.page.render().contains("vdbi_leader_election_duration_seconds{"));
    assert_eq!(election(&b, "deadline_remaining_seconds"), None);
    for replica in [&a, &b] {
        assert_eq!(election(replica, "lease_transitions"), Some(0.0));
        assert_eq!(election(replica, "watch_connected"), Some(1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_term_that_is_over_leaves_no_series_even_when_the_loop_has_not_noticed() {
    let mut cluster = Cluster::new();
    let (a, _, _b) = cluster.pair().await;
    a.clock.suspend(10 * SECOND);
    assert_eq!(a.metric(&series("vdbi_is_leader")), Some(0.0));
    assert!(!a.page.render().contains("vdbi_leader_election_duration_seconds{"));
    assert_eq!(election(&a, "deadline_remaining_seconds"), None);
}

#[tokio::test(start_paused = true)]
async fn attempts_count_the_writes_to_acquire_and_nothing_else() {
    let mut cluster = Cluster::new();
    cluster.api.fail_next(of("a", Verb::Create), Fault::status(500));
    let (a, _, mut b) = cluster.pair().await;
    sleep(100 * SECOND).await;
    assert_eq!(election(&a, "attempts_total"), Some(2.0), "one refused, one that won; renewals are none");
    assert_eq!(election(&b, "attempts_total"), Some(0.0));
    a.shutdown.cancel();
    b.leads().await;
    assert_eq!(election(&b, "attempts_total"), Some(1.0));
    assert_eq!(election(&a, "attempts_total"), Some(2.0), "a release is none");
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_counts_as_one_and_takes_no_time() {
    let mut cluster = Cluster::new();
    let (a, _, mut b) = cluster.pair().await;
    a.shutdown.cancel();
    b.leads().await;
    assert_eq!(a.metric(&with("lost_total", r#"reason="shutdown""#)), Some(1.0));
    assert_eq!(a.metric(&with("acquired_total", r#"cause="created""#)), Some(1.0));
    assert_eq!(b.metric(&with("acquired_total", r#"cause="released""#)), Some(1.0));
    assert_eq!(b.metric(&with("failover_seconds_bucket", r#"cause="released",le="0.25""#)), Some(1.0));
    sleep(SECOND).await;
    assert_eq!(election(&b, "lease_transitions"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_told_by_cause_and_the_time_without_a_leader() {
    let mut cluster = Cluster::new();
    let (a, _, mut b) = cluster.pair().await;
    a.run.abort();
    b.leads().await;
    assert_eq!(b.metric(&with("acquired_total", r#"cause="expired""#)), Some(1.0));
    let took = b.metric(&with("failover_seconds_sum", r#"cause="expired""#)).unwrap();
    assert!((15.0..15.5).contains(&took), "{took}");
    b.run.abort();
    let mut b = cluster.replica("b");
    b.leads().await;
    assert_eq!(b.metric(&with("acquired_total", r#"cause="same_pod""#)), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn every_way_to_lose_a_term_is_told() {
    for reason in ["deadline", "superseded", "deleted", "work_failed"] {
        let mut cluster = Cluster::new();
        let candidate = cluster.candidate("a");
        let fails = reason == "work_failed";
        let mut a = cluster.run(candidate, move |term, terms| async move {
            terms.send(term.clone())?;
            if fails {
                sleep(30 * SECOND).await;
                return Err("no database".into());
            }
            term.over().await;
            Ok(())
        });
        let term = a.leads().await;
        sleep(20 * SECOND).await;
        match reason {
            "deadline" => a.link.cut(),
            "superseded" => cluster.change(|spec| spec.holder_identity = Some("thief".to_owned())).await,
            "deleted" => {
                a.link.pause_watches(true);
                cluster.delete().await;
                cluster
                    .create(serde_json::json!({"holderIdentity": "thief", "leaseDurationSeconds": 15}))
                    .await;
                a.link.pause_watches(false);
            }
            _ => {}
        }
        term.over().await;
        assert_eq!(a.metric(&with("lost_total", &format!(r#"reason="{reason}""#))), Some(1.0), "{reason}");
        assert_eq!(a.metric(&series("vdbi_is_leader")), Some(0.0), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_told_by_verb_and_outcome() {
    let mut cluster = Cluster::new();
    cluster.api.fail_next(of("a", Verb::Watch), Fault::status(403));
    let (a, _, b) = cluster.pair().await;
    assert_eq!(a.metric(&with("requests_total", r#"verb="get",code="404""#)), Some(1.0));
    assert_eq!(a.metric(&with("requests_total", r#"verb="create",code="201""#)), Some(1.0));
    assert_eq!(a.metric(&with("requests_total", r#"verb="watch",code="403""#)), Some(1.0));
    assert_eq!(b.metric(&with("requests_total", r#"verb="watch",code="200""#)), Some(1.0));
    assert_eq!(a.metric(&with("requests_total", r#"verb="update",code="200""#)), Some(6.0));
    assert_eq!(election(&a, "watch_connected"), Some(0.0));

    cluster.api.fail_next(of("a", Verb::Update), Fault::reset());
    cluster.api.fail_next(of("a", Verb::Update), Fault::silence());
    sleep(10 * SECOND).await;
    assert_eq!(a.metric(&with("requests_total", r#"verb="update",code="error""#)), Some(1.0));
    assert_eq!(a.metric(&with("requests_total", r#"verb="update",code="timeout""#)), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn renewals_are_timed() {
    let mut cluster = Cluster::new();
    let mut a = cluster.replica("a");
    a.leads().await;
    a.link.set_latency(SECOND / 5);
    sleep(31 * SECOND).await;
    let count = election(&a, "renew_duration_seconds_count").unwrap();
    let sum = election(&a, "renew_duration_seconds_sum").unwrap();
    assert_eq!(count, 10.0);
    assert!((1.99..2.1).contains(&sum), "{sum}");
}
