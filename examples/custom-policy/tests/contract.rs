//! What every mutation policy has to keep to. No server is needed.

use custom_policy::AgentDialect;
use serde_json::{Value, json};
use vdbi_webhook::{
    policy::{MutationPolicy, Placeholder, Plaintext},
    testing::mutation_policy,
};

/// A pod that asks the Agent Injector for one database credential, and has these annotations too.
fn pod(more: &[(&str, &str)]) -> Value {
    let mut pod = json!({
        "metadata": { "annotations": {
            "vault.hashicorp.com/agent-inject": "true",
            "vault.hashicorp.com/role": "app",
            "vault.hashicorp.com/agent-inject-secret-orders": "database/creds/app",
        } },
        "spec": { "containers": [{ "name": "web" }, { "name": "side" }] },
    });
    for &(key, value) in more {
        pod["metadata"]["annotations"][key] = value.into();
    }
    pod
}

/// A policy, and pods that show what it does.
struct Pods<P> {
    policy: P,
    admitted: Vec<Value>,
    denied: Vec<Value>,
}

impl<P: MutationPolicy> mutation_policy::Fixture for Pods<P> {
    type Policy = P;

    fn policy(&self) -> &P {
        &self.policy
    }

    fn admitted(&self) -> Vec<Value> {
        self.admitted.clone()
    }

    fn denied(&self) -> Vec<Value> {
        self.denied.clone()
    }
}

#[tokio::test]
async fn it_keeps_the_contract_of_mutation_policies() {
    let two = [
        ("vault.hashicorp.com/agent-inject-secret-reports.env", "database/creds/reader"),
        ("vault.hashicorp.com/agent-inject-containers", "web"),
        ("vault.hashicorp.com/agent-limits-cpu", "100m"),
        ("db-creds-injector.numberly.io/reports-env.mode", "uri"),
        ("db-creds-injector.numberly.io/reports-env.env-key-uri", "REPORTS"),
        ("db-creds-injector.numberly.io/reports-env.template", "postgresql://db/reports"),
    ];
    let ours = json!({
        "metadata": { "annotations": { "db-creds-injector.numberly.io/main.role": "app" } },
        "spec": { "containers": [{ "name": "web" }] },
    });
    let admitted = vec![pod(&[]), pod(&two), ours];
    let denied = vec![pod(&[("vault.hashicorp.com/namespace", "team-a")])];
    let policy = AgentDialect::new(Plaintext::new("database"));
    mutation_policy::run(&Pods { policy, admitted: admitted.clone(), denied: denied.clone() }).await;
    let policy = AgentDialect::new(Placeholder::new("database"));
    mutation_policy::run(&Pods { policy, admitted, denied }).await;
}
