//! Both policies keep the contract of mutation policies, and the suite notices who does not.

use jiff::Timestamp;
use serde_json::{Value, json};
use vdbi_webhook::{
    patch::Patch,
    policy::{Grant, Injection, MutationPolicy, Placeholder, Plaintext, Plan},
    review::Denial,
    testing::mutation_policy,
};

fn pods() -> [Value; 3] {
    let prefix = "db-creds-injector.numberly.io";
    [
        json!({
            "metadata": { "annotations": {
                format!("{prefix}/main.role"): "app",
                format!("{prefix}/uuid"): "what a user wrote",
                "other": "kept",
            } },
            "spec": {
                "aFieldOfTomorrow": { "kept": [1, 2] },
                "initContainers": [{ "name": "migrate", "restartPolicy": "Always" }],
                "containers": [{ "name": "web", "env": [{ "name": "A", "value": "$(DBUSER)" }] }, { "name": "side" }],
                "ephemeralContainers": [{ "name": "debug" }],
            },
        }),
        json!({
            "metadata": { "annotations": {
                format!("{prefix}/main.role"): "app",
                format!("{prefix}/main.mode"): "uri",
                format!("{prefix}/main.env-key-uri"): "URL",
                format!("{prefix}/main.template"): "postgresql://db/x",
                format!("{prefix}/main.containers"): "web",
            } },
            "spec": { "containers": [{ "name": "web" }, { "name": "side", "env": [{ "name": "URL", "value": "x" }] }] },
        }),
        json!({
            "metadata": { "annotations": { format!("{prefix}/revoke-ttl"): "1h", format!("{prefix}/uuid"): "x" } },
            "spec": { "containers": [{ "name": "web" }] },
        }),
    ]
}

#[test]
fn plaintext_keeps_the_contract() {
    pods().iter().for_each(|pod| mutation_policy(&Plaintext::new("database"), pod));
}

#[test]
fn placeholders_keep_the_contract() {
    pods().iter().for_each(|pod| {
        mutation_policy(&Placeholder::new("database").requiring("vdbi"), pod);
        mutation_policy(&Placeholder::new("database").without_tripwire(), pod);
    });
}

/// Adds a container, every time.
struct Again;

impl MutationPolicy for Again {
    fn plan(&self, _: &Value, _: Timestamp) -> Result<Plan, Denial> {
        let mut patch = Patch::default();
        patch.add(&["spec", "containers", "0"], json!({ "name": "again" }));
        Ok(Plan::LeaveAlone { patch, warnings: Vec::new() })
    }

    fn patch(&self, _: &Value, _: &Injection, _: &[Grant], _: Timestamp) -> Patch {
        Patch::default()
    }
}

/// Replaces all containers.
struct Destructive;

impl MutationPolicy for Destructive {
    fn plan(&self, _: &Value, _: Timestamp) -> Result<Plan, Denial> {
        let mut patch = Patch::default();
        patch.add(&["spec", "containers"], json!([{ "name": "mine" }]));
        Ok(Plan::LeaveAlone { patch, warnings: Vec::new() })
    }

    fn patch(&self, _: &Value, _: &Injection, _: &[Grant], _: Timestamp) -> Patch {
        Patch::default()
    }
}

#[test]
#[should_panic(expected = "idempotent")]
fn whoever_mutates_again_is_noticed() {
    mutation_policy(&Again, &pods()[0]);
}

#[test]
#[should_panic(expected = "additive")]
fn whoever_removes_is_noticed() {
    mutation_policy(&Destructive, &pods()[0]);
}
