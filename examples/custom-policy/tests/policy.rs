//! The policy alone. No server is needed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use custom_policy::AgentDialect;
use jiff::Timestamp;
use serde_json::{Value, json};
use vdbi_core::{
    annotation::{self, Outcome},
    ledger::EntryId,
    secret::Secret,
};
use vdbi_webhook::{
    policy::{Grant, Injection, MutationPolicy, Placeholder, Plaintext, Plan},
    review::Denial,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A pod that asks the Agent Injector for one database credential, and has these annotations too.
fn pod(more: &[(&str, &str)]) -> Value {
    let mut pod = json!({
        "metadata": { "annotations": {
            "vault.hashicorp.com/agent-inject": "true",
            "vault.hashicorp.com/role": "app",
            "vault.hashicorp.com/agent-inject-secret-orders": "database/creds/app",
        } },
        "spec": { "containers": [{ "name": "web", "env": [{ "name": "A", "value": "$(DBUSER)" }] }, { "name": "side" }] },
    });
    for &(key, value) in more {
        pod["metadata"]["annotations"][key] = value.into();
    }
    pod
}

fn policy() -> AgentDialect<Plaintext> {
    AgentDialect::new(Plaintext::new("database"))
}

#[test]
fn a_pod_gets_what_it_would_get_in_our_own_dialect() {
    let grants = [grant()];
    let ours = json!({
        "metadata": { "annotations": {
            "db-creds-injector.numberly.io/cluster": "database",
            "db-creds-injector.numberly.io/orders.role": "app",
        } },
        "spec": pod(&[])["spec"],
    });
    let theirs = mutated(&policy(), &pod(&[]), &grants);
    assert_eq!(theirs["spec"], mutated(&Plaintext::new("database"), &ours, &grants)["spec"]);
    let first = &theirs["spec"]["containers"][0]["env"][0];
    assert_eq!(first, &json!({ "name": "DBUSER", "value": "v-app" }));
}

#[test]
fn the_engine_of_the_path_counts_and_not_the_default_one() {
    let pod = pod(&[("vault.hashicorp.com/agent-inject-secret-orders", "/team-a/postgres/creds/app")]);
    let [orders] = &injection(&pod).databases[..] else { panic!("it is one database") };
    assert_eq!((&*orders.name, &*orders.engine, &*orders.role), ("orders", "team-a/postgres", "app"));
}

/// Which is what the node plugin goes by.
#[test]
fn what_the_pod_says_afterwards_is_what_it_asked_for() {
    let pod = pod(&[("vault.hashicorp.com/agent-inject-containers", "web")]);
    let asked = injection(&pod).databases;
    let pod = mutated(&AgentDialect::new(Placeholder::new("other")), &pod, &[grant()]);
    let annotations = serde_json::from_value(pod["metadata"]["annotations"].clone()).unwrap();
    let Outcome::Inject(request) = annotation::parse(&annotations, "other").unwrap() else {
        panic!("it asks")
    };
    assert_eq!(format!("{:?}", request.databases), format!("{asked:?}"));
}

#[test]
fn a_pod_that_does_not_ask_the_agent_is_not_translated() {
    for switch in ["false", "0", ""] {
        let pod = pod(&[
            ("vault.hashicorp.com/agent-inject", switch),
            ("vault.hashicorp.com/agent-inject-template-orders", "x"),
            ("db-creds-injector.numberly.io/main.role", "reader"),
        ]);
        let [main] = &injection(&pod).databases[..] else { panic!("it is one database") };
        assert_eq!((&*main.name, &*main.role), ("main", "reader"));
    }
}

#[test]
fn what_only_concerns_an_agent_is_a_warning_that_kubectl_shows_whole() {
    let pod = pod(&[
        ("vault.hashicorp.com/role", "orders-service"),
        ("vault.hashicorp.com/agent-pre-populate-only", "true"),
        ("vault.hashicorp.com/agent-service-account-token-volume-name", "token"),
    ]);
    let warnings = injection(&pod).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for words in [
        "role has no effect: orders has the auth role app",
        "agent-pre-populate-only has no effect",
        "agent-service-account-token-volume-name has no effect",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(words)), "{warnings:?} lack {words:?}");
    }
    assert!(warnings.iter().all(|warning| warning.len() <= 120), "{warnings:?}");
}

#[test]
fn what_the_application_would_miss_is_refused_by_name() {
    for (key, value, words) in [
        ("vault.hashicorp.com/agent-inject", "yes", "neither true nor false"),
        ("vault.hashicorp.com/agent-inject-template-orders", "{{ . }}", ".template"),
        ("vault.hashicorp.com/agent-inject-file-orders", "db.env", "not in files"),
        ("vault.hashicorp.com/agent-inject-status", "injected", "served this pod already"),
        ("vault.hashicorp.com/namespace", "team-a", "no equivalent here"),
        ("vault.hashicorp.com/agent-inject-secret-key", "secret/data/key", "<engine>/creds/<role>"),
        ("vault.hashicorp.com/agent-inject-secret-key", "database/creds/a/b", "<engine>/creds/<role>"),
        ("vault.hashicorp.com/agent-inject-secret-other", "mysql/creds/app", "cluster: "),
        ("db-creds-injector.numberly.io/orders.role", "admin", "orders.role: app, and another one admin"),
        ("vault.hashicorp.com/agent-inject-secret-logs", "database/creds/app", ".env-key-dbuser"),
    ] {
        let Denial { code, message, .. } = policy().plan(&pod(&[(key, value)]), NOW).unwrap_err();
        assert_eq!(code, 400);
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

fn injection(pod: &Value) -> Injection {
    match policy().plan(pod, NOW) {
        Ok(Plan::Issue(injection)) => injection,
        other => panic!("{other:?}"),
    }
}

fn grant() -> Grant {
    Grant::new(EntryId::random(), "v-app", Secret::new("hunter2"))
}

fn mutated(policy: &impl MutationPolicy, pod: &Value, grants: &[Grant]) -> Value {
    let (Plan::Issue(injection) | Plan::Reserve(injection)) = policy.plan(pod, NOW).unwrap() else {
        panic!("it asks for nothing")
    };
    let patch = serde_json::to_value(policy.patch(pod, &injection, grants, NOW)).unwrap();
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let mut mutated = pod.clone();
    json_patch::patch(&mut mutated, &patch).unwrap();
    mutated
}
