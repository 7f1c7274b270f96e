//! The contract of [`MutationPolicy`] as a test suite, for policies of your own.

use jiff::Timestamp;
use serde_json::Value;
use vdbi_core::{ledger::EntryId, placeholder::Placeholder, secret::Secret};

use crate::{
    patch::Patch,
    policy::{Grant, MutationPolicy, Plan},
};

/// Checks what a policy guarantees, over a pod of yours that it is to mutate: one for each thing that the policy can do.
///
/// # Panics
///
/// Where a guarantee is broken; the message says which.
pub fn mutation_policy(policy: &impl MutationPolicy, pod: &Value) {
    let now = Timestamp::now();
    let plan = plan(policy, pod, now);
    assert_eq!(format!("{plan:?}"), format!("{:?}", self::plan(policy, pod, now)), "pure: the plan changes");

    let patch = match plan {
        Plan::LeaveAlone { patch, .. } => json(&patch),
        Plan::Issue(injection) | Plan::Reserve(injection) => {
            let grants: Vec<Grant> = injection.databases.iter().map(|_| grant()).collect();
            let deliver = || json(&policy.patch(pod, &injection, &grants, now));
            let patch = deliver();
            assert_eq!(patch, deliver(), "pure: the patch changes");
            let text = patch.to_string();
            let named = grants.iter().all(|grant| text.contains(&grant.id.to_string()));
            assert!(named, "the pod does not name its entries");
            patch
        }
    };
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(operations.iter().all(|operation| operation["op"] == "add"), "additive: {patch}");

    let mutated = apply(pod, &patch);
    contains(&mutated, pod, "");
    match self::plan(policy, &mutated, now) {
        Plan::LeaveAlone { patch, .. } => {
            let twice = apply(&mutated, &json(&patch));
            assert_eq!(twice, mutated, "idempotent: a second invocation changes the pod again");
        }
        plan => panic!("idempotent: a second invocation would {plan:?}"),
    }
}

fn plan(policy: &impl MutationPolicy, pod: &Value, now: Timestamp) -> Plan {
    match policy.plan(pod, now) {
        Ok(plan) => plan,
        Err(denial) => panic!("the policy denies this pod: {denial}"),
    }
}

fn grant() -> Grant {
    let password = Secret::new(Placeholder::random().to_string());
    Grant { id: EntryId::random(), username: Placeholder::random().to_string(), password }
}

fn json(patch: &Patch) -> Value {
    match serde_json::to_value(patch) {
        Ok(patch) => patch,
        Err(error) => panic!("the patch is no JSON: {error}"),
    }
}

fn apply(pod: &Value, patch: &Value) -> Value {
    let mut mutated = pod.clone();
    let applied = serde_json::from_value::<json_patch::Patch>(patch.clone())
        .map_err(|error| error.to_string())
        .and_then(|patch| json_patch::patch(&mut mutated, &patch).map_err(|error| error.to_string()));
    assert_eq!(applied, Ok(()), "the patch does not apply: {patch}");
    mutated
}

/// Everything that was there is still there; items of lists in their order. Annotations of this project may be written anew.
fn contains(after: &Value, before: &Value, path: &str) {
    match before {
        Value::Object(fields) if !path.ends_with("/annotations") => {
            for (key, value) in fields {
                contains(&after[key], value, &format!("{path}/{key}"));
            }
        }
        Value::Object(fields) => {
            assert!(fields.keys().all(|key| !after[key].is_null()), "additive: an annotation is gone");
        }
        Value::Array(items) => {
            let mut rest = after.as_array().map(Vec::as_slice).unwrap_or_default();
            for item in items {
                let found = rest.iter().position(|candidate| {
                    candidate == item || (item["name"].is_string() && candidate["name"] == item["name"])
                });
                let Some(found) = found else { panic!("additive: {path} has lost {item}") };
                contains(&rest[found], item, path);
                rest = &rest[found + 1..];
            }
        }
        value => assert_eq!(after, value, "additive: {path} was changed"),
    }
}
