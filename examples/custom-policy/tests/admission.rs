//! The webhook with this policy, over the embedded backend. No server is needed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use custom_policy::AgentDialect;
use serde_json::{Value, json};
use vdbi_core::{
    ledger::Owner,
    memory::{MemoryLedger, MemorySource},
    metrics::Registry,
    secret::Secret,
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    metrics::Outcome,
    policy::Plaintext,
    review::{Review, Verdict},
};

#[tokio::test]
async fn a_pod_of_the_agent_injectors_is_admitted_with_a_credential_that_works() {
    let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
    source.allow("app", "shop", "orders");
    let admission = Admission::new(
        source.clone(),
        ledger.clone(),
        AgentDialect::new(Plaintext::new("database")),
        Owner { cluster: "my-cluster".into(), release: "my-release".into() },
        Limits::default(),
        &Registry::disabled(),
    );
    let mut pod = json!({
        "metadata": { "annotations": {
            "vault.hashicorp.com/agent-inject": "true",
            "vault.hashicorp.com/role": "app",
            "vault.hashicorp.com/agent-inject-secret-orders": "database/creds/app",
        } },
        "spec": { "serviceAccountName": "orders", "containers": [{ "name": "web" }] },
    });
    let answer = admission.admit(&Review::new("shop", pod.clone())).await;
    assert_eq!(answer.outcome, Outcome::Injected);
    let Verdict::Allow { patch, warnings } = answer.verdict else { panic!("{:?}", answer.verdict) };
    assert_eq!(warnings, [""; 0]);

    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    let [user, password] = ["DBUSER", "DBPASSWORD"].map(|name| variable(&pod, name));
    assert!(source.can_login(user, &Secret::new(password)));
    assert_eq!(ledger.entries().len(), 1);
}

fn variable<'a>(pod: &'a Value, name: &str) -> &'a str {
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|variable| variable["name"] == name).unwrap()["value"].as_str().unwrap()
}
