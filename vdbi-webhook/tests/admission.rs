//! Admissions over the embedded backends: what is issued is entered into the ledger before it is delivered, and revoked when it
//! is not delivered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use serde_json::{Value, json};
use vdbi_core::{
    credential::SourceError,
    ledger::{LedgerError, Owner},
    memory::{LedgerOperation, MemoryLedger, MemorySource, SourceOperation},
    metrics::Registry,
};
use vdbi_webhook::{
    admit::Admission,
    policy::Plaintext,
    review::{Denial, Review, Verdict},
};

const DEADLINE: Duration = Duration::from_secs(4);

struct Webhook {
    source: MemorySource,
    ledger: MemoryLedger,
    admission: Admission<MemorySource, MemoryLedger, Plaintext>,
}

impl Webhook {
    fn new() -> Self {
        let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
        source.allow("app", "shop", "app1");
        let owner = Owner { cluster: "c".into(), release: "r".into() };
        let policy = Plaintext::new("databases");
        let registry = Registry::disabled();
        let admission = Admission::new(source.clone(), ledger.clone(), policy, owner, DEADLINE, &registry);
        Self { source, ledger, admission }
    }

    async fn denial(&self, review: &Review) -> Denial {
        match self.admission.admit(review).await {
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
    Review { uid: "u".into(), namespace: "shop".into(), dry_run: false, pod: Some(pod) }
}

fn patch(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Allow { patch, .. } => serde_json::to_value(patch).unwrap(),
        Verdict::Deny(denial) => panic!("{denial}"),
    }
}

#[tokio::test]
async fn a_pod_gets_a_login_whose_entry_is_in_the_ledger() {
    let webhook = Webhook::new();
    let verdict = webhook.admission.admit(&review(&["MAIN"])).await;
    let patch = patch(&verdict);
    let env = &patch[0]["value"];
    let password = vdbi_core::secret::Secret::new(env[1]["value"].as_str().unwrap());
    assert!(webhook.source.can_login(env[0]["value"].as_str().unwrap(), &password));
    let entries = webhook.ledger.entries();
    let (id, entry) = entries.first_key_value().unwrap();
    assert_eq!(patch[1]["value"], id.to_string());
    assert_eq!((entry.pod.namespace.as_str(), entry.pod.service_account.as_str()), ("shop", "app1"));
    assert_eq!(entry.owner.as_ref().unwrap().release, "r");
    assert!(entry.issued_at.is_some());
    assert!(!format!("{verdict:?}").contains(password.expose()), "a verdict can be printed");
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
    let (verdict, ()) = tokio::join!(admission, both);
    assert_eq!(patch(&verdict)[0]["value"].as_array().unwrap().len(), 4);
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
    let review = Review { dry_run: true, ..review(&["MAIN"]) };
    let verdict = webhook.admission.admit(&review).await;
    assert_eq!(patch(&verdict)[0]["value"][0]["value"], "dry-run");
    let calls = [SourceOperation::Authorize, SourceOperation::Issue].map(|of| webhook.source.calls(of));
    assert_eq!((calls, webhook.ledger.calls(LedgerOperation::Record)), ([0, 0], 0));
}
