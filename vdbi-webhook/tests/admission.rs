//! Admissions over the embedded backends: what is issued is entered into the ledger before it is delivered, and revoked when it
//! is not delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use serde_json::{Value, json};
use vdbi_core::{
    admin::{self, PrometheusPage},
    credential::SourceError,
    ledger::{LedgerError, Owner},
    memory::{LedgerOperation, MemoryLedger, MemorySource, SourceOperation},
    placeholder,
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    metrics::Outcome,
    policy::{MutationPolicy, Placeholder, Plaintext},
    review::{Answer, Denial, Review, Verdict},
};

const DEADLINE: Duration = Duration::from_secs(4);

struct Webhook<P = Plaintext> {
    source: MemorySource,
    ledger: MemoryLedger,
    admission: Admission<MemorySource, MemoryLedger, P>,
    page: PrometheusPage,
}

impl Webhook {
    fn new() -> Self {
        Self::with(Plaintext::new("databases"), limits(|limits| limits.deadline = DEADLINE))
    }
}

impl<P: MutationPolicy> Webhook<P> {
    fn with(policy: P, limits: Limits) -> Self {
        let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
        source.allow("app", "shop", "app1");
        let owner = Owner { cluster: "c".into(), release: "r".into() };
        let (registry, page) = admin::prometheus().unwrap();
        let admission = Admission::new(source.clone(), ledger.clone(), policy, owner, limits, &registry);
        Self { source, ledger, admission, page }
    }

    async fn denial(&self, review: &Review) -> Denial {
        match self.admission.admit(review).await.verdict {
            Verdict::Deny(denial) => denial,
            Verdict::Allow { .. } => panic!("the pod was admitted"),
        }
    }

    /// Everything that was issued is revoked in the end.
    async fn leaves_nothing(&self) {
        self.admission.finish().await;
        assert_eq!(self.source.leases(), [""; 0]);
    }
}

fn review(databases: &[&str]) -> Review {
    let mut annotations = json!({});
    for database in databases {
        let key = |field: &str| format!("db-creds-injector.numberly.io/{database}.{field}");
        annotations[key("role")] = "app".into();
        annotations[key("env-key-dbuser")] = format!("{database}_USER").into();
        annotations[key("env-key-dbpassword")] = format!("{database}_PASSWORD").into();
    }
    let pod = json!({
        "metadata": { "generateName": "web-", "annotations": annotations },
        "spec": { "serviceAccountName": "app1", "containers": [{ "name": "web" }] },
    });
    changed(&Review::new("shop", pod), |review| review.uid = "u".into())
}

fn changed(review: &Review, change: impl FnOnce(&mut Review)) -> Review {
    let mut review = review.clone();
    change(&mut review);
    review
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn patch(answer: &Answer) -> Value {
    match &answer.verdict {
        Verdict::Allow { patch, .. } => serde_json::to_value(patch).unwrap(),
        Verdict::Deny(denial) => panic!("{denial}"),
    }
}

#[tokio::test]
async fn a_pod_gets_a_login_whose_entry_is_in_the_ledger() {
    let webhook = Webhook::new();
    let answer = webhook.admission.admit(&review(&["MAIN"])).await;
    let patch = patch(&answer);
    let env = &patch[0]["value"];
    let password = vdbi_core::secret::Secret::new(env[1]["value"].as_str().unwrap());
    assert!(webhook.source.can_login(env[0]["value"].as_str().unwrap(), &password));
    let entries = webhook.ledger.entries();
    let (id, entry) = entries.first_key_value().unwrap();
    assert_eq!(patch[2]["value"], id.to_string());
    assert_eq!((entry.pod.namespace.as_str(), entry.pod.service_account.as_str()), ("shop", "app1"));
    assert_eq!(entry.owner.as_ref().unwrap().release, "r");
    assert!(entry.issued_at.is_some());
    assert!(!format!("{answer:?}").contains(password.expose()), "a verdict can be printed");
}

#[tokio::test]
async fn the_databases_of_a_pod_are_issued_side_by_side() {
    let webhook = Webhook::new();
    let mut hold = webhook.source.hold(SourceOperation::Issue);
    let review = review(&["A", "B"]);
    let admission = webhook.admission.admit(&review);
    let both = async {
        hold.arrived(2).await;
        hold.release();
    };
    let (answer, ()) = tokio::join!(admission, both);
    assert_eq!(patch(&answer)[0]["value"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_credential_that_cannot_be_entered_is_revoked_and_the_pod_denied() {
    let webhook = Webhook::new();
    webhook.ledger.fail_next(LedgerOperation::Record, LedgerError::Unavailable("the disk is full".into()));
    let denial = webhook.denial(&review(&["MAIN"])).await;
    assert_eq!(denial.code, 500);
    assert!(denial.message.contains("the disk is full"), "{denial}");
    webhook.leaves_nothing().await;
}

#[tokio::test]
async fn when_one_database_fails_the_others_are_revoked() {
    let webhook = Webhook::new();
    webhook.source.fail_next(SourceOperation::Issue, SourceError::Unavailable("it is down".into()));
    let denial = webhook.denial(&review(&["A", "B", "C"])).await;
    assert!(denial.message.contains("it is down"), "{denial}");
    webhook.leaves_nothing().await;
    assert_eq!(webhook.source.calls(SourceOperation::Issue), 3);
}

#[tokio::test]
async fn a_pod_without_authorization_is_denied_before_anything_is_issued() {
    let webhook = Webhook::new();
    let mut review = review(&["MAIN"]);
    review.namespace = "elsewhere".into();
    let denial = webhook.denial(&review).await;
    assert_eq!(denial.code, 403);
    assert_eq!(webhook.source.calls(SourceOperation::Issue), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_backend_is_a_denial_at_the_deadline_and_its_late_credential_is_revoked() {
    let webhook = Webhook::new();
    let hold = webhook.source.hold(SourceOperation::Issue);
    let arrival = tokio::time::Instant::now();
    let denial = webhook.denial(&review(&["MAIN"])).await;
    assert_eq!(arrival.elapsed(), DEADLINE);
    assert!(denial.message.contains("admissionTimeout"), "{denial}");
    hold.release();
    webhook.leaves_nothing().await;
    assert_eq!(webhook.source.calls(SourceOperation::Revoke), 1);
}

#[tokio::test]
async fn when_the_client_goes_away_its_credential_is_revoked() {
    let webhook = Webhook::new();
    let mut hold = webhook.source.hold(SourceOperation::Issue);
    let review = review(&["MAIN"]);
    tokio::select! {
        _ = webhook.admission.admit(&review) => panic!("the issue is held"),
        () = hold.arrived(1) => {}
    }
    hold.release();
    webhook.leaves_nothing().await;
    assert_eq!(webhook.source.calls(SourceOperation::Revoke), 1);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_fails_is_tried_again() {
    let webhook = Webhook::new();
    webhook.ledger.fail_next(LedgerOperation::Record, LedgerError::Unavailable("x".into()));
    webhook.source.fail_next(SourceOperation::Revoke, SourceError::Unavailable("x".into()));
    webhook.denial(&review(&["MAIN"])).await;
    webhook.leaves_nothing().await;
    assert_eq!(webhook.source.calls(SourceOperation::Revoke), 2);
}

#[tokio::test]
async fn a_dry_run_reaches_neither_backend_nor_ledger() {
    let webhook = Webhook::new();
    let review = changed(&review(&["MAIN"]), |review| review.dry_run = true);
    let answer = webhook.admission.admit(&review).await;
    assert_eq!(patch(&answer)[0]["value"][0]["value"], "dry-run");
    let calls = [SourceOperation::Authorize, SourceOperation::Issue].map(|of| webhook.source.calls(of));
    assert_eq!((calls, webhook.ledger.calls(LedgerOperation::Record)), ([0, 0], 0));
}

#[tokio::test]
async fn placeholders_are_delivered_without_an_issue_and_without_an_entry() {
    let webhook = Webhook::with(Placeholder::new("databases"), Limits::default());
    let answer = webhook.admission.admit(&review(&["MAIN"])).await;
    assert_eq!(answer.outcome, Outcome::Reserved);
    let patch = patch(&answer);
    let values = [0, 1].map(|index| patch[0]["value"][index]["value"].as_str().unwrap());
    assert!(values.iter().all(|value| value.starts_with(placeholder::PREFIX)), "{patch}");
    assert_ne!(values[0], values[1]);
    assert_eq!(patch[2]["value"], answer.entries[0].to_string());
    let calls = (webhook.source.calls(SourceOperation::Issue), webhook.ledger.calls(LedgerOperation::Record));
    assert_eq!(calls, (0, 0));
}

#[tokio::test]
async fn placeholders_are_denied_where_credentials_would_be() {
    let webhook = Webhook::with(Placeholder::new("databases"), Limits::default());
    let elsewhere = changed(&review(&["MAIN"]), |review| review.namespace = "elsewhere".into());
    assert_eq!(webhook.denial(&elsewhere).await.code, 403);
}

#[tokio::test(start_paused = true)]
async fn the_api_servers_timeout_shortens_the_deadline() {
    let webhook = Webhook::new();
    let _hold = webhook.source.hold(SourceOperation::Authorize);
    let arrival = tokio::time::Instant::now();
    let hurried = changed(&review(&["MAIN"]), |review| review.timeout = Some(Duration::from_secs(2)));
    let denial = webhook.denial(&hurried).await;
    assert_eq!(arrival.elapsed(), Duration::from_millis(1600));
    assert!(denial.message.contains("1.6s"), "{denial}");
}

#[tokio::test]
async fn beyond_the_queue_an_admission_is_denied_at_once() {
    let limits = limits(|limits| (limits.max_in_flight, limits.max_queued) = (1, 1));
    let webhook = Webhook::with(Plaintext::new("databases"), limits);
    let mut hold = webhook.source.hold(SourceOperation::Authorize);
    let review = review(&["MAIN"]);
    let admit = || webhook.admission.admit(&review);
    let third = async {
        hold.arrived(1).await;
        let third = webhook.admission.admit(&review).await;
        hold.release();
        third
    };
    let (first, second, third) = tokio::join!(admit(), admit(), third);
    assert_eq!((first.outcome, second.outcome), (Outcome::Injected, Outcome::Injected));
    let Verdict::Deny(denial) = third.verdict else { panic!("{third:?}") };
    assert_eq!(denial.code, 429);
    assert!(denial.message.contains("webhook.maxQueued"), "{denial}");
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_counts() {
    let limits = limits(|limits| (limits.max_in_flight, limits.deadline) = (1, DEADLINE));
    let webhook = Webhook::with(Plaintext::new("databases"), limits);
    let _hold = webhook.source.hold(SourceOperation::Authorize);
    let review = review(&["MAIN"]);
    let arrival = tokio::time::Instant::now();
    let (first, second) = tokio::join!(webhook.admission.admit(&review), webhook.admission.admit(&review));
    assert_eq!((first.outcome, second.outcome), (Outcome::Deadline, Outcome::Deadline));
    assert_eq!(arrival.elapsed(), DEADLINE);
}

#[tokio::test]
async fn every_admission_is_counted_once_by_its_outcome() {
    let webhook = Webhook::new();
    let good = review(&["MAIN"]);
    let mut hold = webhook.source.hold(SourceOperation::Issue);
    tokio::select! {
        _ = webhook.admission.admit(&good) => panic!("the issue is held"),
        () = hold.arrived(1) => {}
    }
    hold.release();
    webhook.admission.admit(&good).await;
    webhook.admission.admit(&changed(&good, |review| review.dry_run = true)).await;
    webhook.admission.admit(&changed(&good, |review| review.pod = None)).await;
    webhook.admission.admit(&review(&[])).await;
    let elsewhere = changed(&good, |review| review.namespace = "elsewhere".into());
    webhook.admission.admit(&elsewhere).await;
    let page = webhook.page.render();
    let mut counted: Vec<&str> =
        page.lines().filter(|line| line.starts_with("vdbi_admissions_total{")).collect();
    counted.sort_unstable();
    let expected = ["abandoned", "bad_request", "denied", "dry_run", "injected", "untouched"]
        .map(|outcome| format!("vdbi_admissions_total{{outcome=\"{outcome}\"}} 1"));
    assert_eq!(counted, expected);
    assert!(page.contains("vdbi_admission_duration_seconds_count{outcome=\"abandoned\"} 1"), "{page}");
    assert!(page.contains("vdbi_admissions_in_flight 0"), "{page}");
}
