//! The contract of [`MutationPolicy`], over the pods of a [`Fixture`]. Nothing here waits: the functions are async as those of all suites
//! are.

use jiff::Timestamp;
use serde_json::{Value, json};
use vdbi_core::{
    ledger::EntryId, placeholder::Placeholder, pod::UUID_ANNOTATION, secret::Secret, suite, testing::Clause,
};

use crate::{
    patch::Patch,
    policy::{Grant, Injection, MutationPolicy, Plan},
    review::Denial,
};

/// A policy, and pods of yours.
pub trait Fixture {
    /// The policy.
    type Policy: MutationPolicy;

    /// The policy.
    fn policy(&self) -> &Self::Policy;

    /// Pods that the policy admits: one for each thing that it can do. None of them asks for something of its author's to be replaced.
    fn admitted(&self) -> Vec<Value>;

    /// Pods that the policy denies: one for each reason. None by default, for a policy that denies no pod.
    fn denied(&self) -> Vec<Value> {
        Vec::new()
    }
}

suite! {
    /// Runs every clause.
    pub async fn run(fixture: &impl Fixture) {
        who_asks_rightly_is_admitted,
        the_same_pod_gets_the_same_plan,
        databases_come_ordered_by_name,
        the_same_grants_give_the_same_patch,
        a_patch_applies,
        what_the_user_wrote_stays,
        every_grant_reaches_the_pod,
        the_pod_names_its_entries,
        a_second_invocation_changes_nothing,
        a_denial_says_what_to_change,
    }
}

/// The pods that the policy is to admit it admits.
pub async fn who_asks_rightly_is_admitted(fixture: &impl Fixture) {
    let clause = clause("who_asks_rightly_is_admitted");
    let pods = fixture.admitted();
    clause.holds(!pods.is_empty(), "the fixture has no pod");
    for pod in pods {
        clause.ok("plan", fixture.policy().plan(&pod, Timestamp::now()));
    }
}

/// Pure: the same pod at the same time gets the same plan, or the same denial.
pub async fn the_same_pod_gets_the_same_plan(fixture: &impl Fixture) {
    let clause = clause("the_same_pod_gets_the_same_plan");
    let now = Timestamp::now();
    for pod in fixture.admitted().iter().chain(&fixture.denied()) {
        let [first, second] = [0; 2].map(|_| told(&fixture.policy().plan(pod, now)));
        clause.holds(first == second, format_args!("first {first}, then {second}"));
    }
}

/// The databases of a plan are ordered by name, and none is there twice.
pub async fn databases_come_ordered_by_name(fixture: &impl Fixture) {
    let clause = clause("databases_come_ordered_by_name");
    for pod in fixture.admitted() {
        let Some(injection) = injection(fixture.policy(), &pod, Timestamp::now()) else { continue };
        let names: Vec<&str> = injection.databases.iter().map(|database| database.name.as_str()).collect();
        clause.holds(names.is_sorted_by(|one, next| one < next), format_args!("they are {names:?}"));
    }
}

/// Pure: the same grants for the same pod give the same patch.
pub async fn the_same_grants_give_the_same_patch(fixture: &impl Fixture) {
    let clause = clause("the_same_grants_give_the_same_patch");
    for_each_delivery(fixture, |Delivery { policy, pod, injection, grants, now }| {
        let [first, second] = [0; 2].map(|_| json(&policy.patch(pod, injection, grants, now)));
        clause.holds(first == second, "the patch is another one the second time");
    });
}

/// A patch applies to the pod that it is for.
pub async fn a_patch_applies(fixture: &impl Fixture) {
    let clause = clause("a_patch_applies");
    let now = Timestamp::now();
    for pod in fixture.admitted() {
        let Some(patch) = patch(fixture.policy(), &pod, now) else { continue };
        clause.ok("the patch", apply(&pod, &patch));
    }
}

/// Additive: everything that was there is still there, items of lists in their order. Annotations may be written anew.
pub async fn what_the_user_wrote_stays(fixture: &impl Fixture) {
    let clause = clause("what_the_user_wrote_stays");
    for (pod, mutated) in mutated(fixture, Timestamp::now()) {
        if let Err(lost) = stays(&mutated, &pod, "") {
            clause.broken(lost);
        }
    }
}

/// The patch delivers one grant for each database: it is another one when any user or any password is.
pub async fn every_grant_reaches_the_pod(fixture: &impl Fixture) {
    let clause = clause("every_grant_reaches_the_pod");
    for_each_delivery(fixture, |Delivery { policy, pod, injection, grants, now }| {
        let patch = |grants: &[Grant]| json(&policy.patch(pod, injection, grants, now));
        for (index, database) in injection.databases.iter().enumerate() {
            let (mut of_another_user, mut with_another_password) = (grants.to_vec(), grants.to_vec());
            of_another_user[index].username = Placeholder::random().to_string();
            with_another_password[index].password = Secret::new(Placeholder::random().to_string());
            for (what, changed) in [("user", of_another_user), ("password", with_another_password)] {
                let differs = patch(grants) != patch(&changed);
                clause.holds(differs, format_args!("the {what} of database {} is not in it", database.name));
            }
        }
    });
}

/// The pod names its entries: their ids are in its uuid annotation, with commas between them, in the plan's order. Renewer, revoker and
/// node plugin find them there.
pub async fn the_pod_names_its_entries(fixture: &impl Fixture) {
    let clause = clause("the_pod_names_its_entries");
    for_each_delivery(fixture, |Delivery { policy, pod, injection, grants, now }| {
        let Ok(mutated) = apply(pod, &json(&policy.patch(pod, injection, grants, now))) else { return };
        let ids: Vec<String> = grants.iter().map(|grant| grant.id.to_string()).collect();
        let (found, expected) = (&mutated["metadata"]["annotations"][UUID_ANNOTATION], ids.join(","));
        clause.holds(*found == expected, format_args!("{UUID_ANNOTATION} is {found}, not {expected}"));
    });
}

/// Idempotent: the plan for a pod that carries the patch is to leave it alone, and changes nothing more.
pub async fn a_second_invocation_changes_nothing(fixture: &impl Fixture) {
    let clause = clause("a_second_invocation_changes_nothing");
    let now = Timestamp::now();
    for (_, mutated) in mutated(fixture, now) {
        match fixture.policy().plan(&mutated, now) {
            Ok(Plan::LeaveAlone { patch, .. }) => {
                let unchanged = apply(&mutated, &json(&patch)).is_ok_and(|twice| twice == mutated);
                clause.holds(unchanged, format_args!("it would patch {patch:?}"));
            }
            other => clause.broken(format_args!("it would {}", told(&other))),
        }
    }
}

/// The pods that the policy is to deny it denies, with a message for their author and a status code of a refusal; not 503, on which
/// clients silently repeat the creation.
pub async fn a_denial_says_what_to_change(fixture: &impl Fixture) {
    let clause = clause("a_denial_says_what_to_change");
    for pod in fixture.denied() {
        match fixture.policy().plan(&pod, Timestamp::now()) {
            Err(Denial { code, message }) => {
                clause.holds(!message.trim().is_empty(), "the denial has no message");
                let is_refusal = (400..600).contains(&code) && code != 503;
                clause.holds(is_refusal, format_args!("its code is {code}: {message}"));
            }
            Ok(plan) => clause.broken(format_args!("the policy does not deny this pod, it would {plan:?}")),
        }
    }
}

fn clause(name: &'static str) -> Clause {
    Clause::new("MutationPolicy", name)
}

/// What a policy is asked to deliver.
struct Delivery<'a, P> {
    policy: &'a P,
    pod: &'a Value,
    injection: &'a Injection,
    grants: &'a [Grant],
    now: Timestamp,
}

/// Over every pod that gets credentials, or what stands in for them.
fn for_each_delivery<F: Fixture>(fixture: &F, check: impl Fn(Delivery<'_, F::Policy>)) {
    let (policy, now) = (fixture.policy(), Timestamp::now());
    for pod in &fixture.admitted() {
        if let Some(injection) = &injection(policy, pod, now) {
            let grants = &grants(injection);
            check(Delivery { policy, pod, injection, grants, now });
        }
    }
}

/// Every pod that is admitted, as it was and as it became. Those whose patch does not apply are for another clause.
fn mutated(fixture: &impl Fixture, now: Timestamp) -> Vec<(Value, Value)> {
    let pods = fixture.admitted().into_iter();
    pods.filter_map(|pod| {
        let patch = patch(fixture.policy(), &pod, now)?;
        let mutated = apply(&pod, &patch).ok()?;
        Some((pod, mutated))
    })
    .collect()
}

/// The patch for a pod; `None` where the pod is denied.
fn patch(policy: &impl MutationPolicy, pod: &Value, now: Timestamp) -> Option<Value> {
    Some(match policy.plan(pod, now).ok()? {
        Plan::LeaveAlone { patch, .. } => json(&patch),
        Plan::Issue(injection) | Plan::Reserve(injection) => {
            json(&policy.patch(pod, &injection, &grants(&injection), now))
        }
    })
}

fn injection(policy: &impl MutationPolicy, pod: &Value, now: Timestamp) -> Option<Injection> {
    match policy.plan(pod, now) {
        Ok(Plan::Issue(injection) | Plan::Reserve(injection)) => Some(injection),
        Ok(Plan::LeaveAlone { .. }) | Err(_) => None,
    }
}

fn grants(injection: &Injection) -> Vec<Grant> {
    let text = || Placeholder::random().to_string();
    let grant = |_| Grant { id: EntryId::random(), username: text(), password: Secret::new(text()) };
    injection.databases.iter().map(grant).collect()
}

/// All of an answer: the `Debug` of a patch leaves its values out.
fn told(plan: &Result<Plan, Denial>) -> String {
    match plan {
        Ok(Plan::LeaveAlone { patch, warnings }) => {
            format!("leave it alone with the patch {} and the warnings {warnings:?}", json(patch))
        }
        Ok(plan) => format!("{plan:?}"),
        Err(denial) => format!("deny it with {denial:?}"),
    }
}

fn json(patch: &Patch) -> Value {
    // A patch is made of JSON, so that this does not fail; one that is no patch does not apply.
    json!(patch)
}

fn apply(pod: &Value, patch: &Value) -> Result<Value, String> {
    let mut mutated = pod.clone();
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| format!("it is no patch: {error}"))?;
    json_patch::patch(&mut mutated, &patch).map_err(|error| error.to_string())?;
    Ok(mutated)
}

fn stays(after: &Value, before: &Value, path: &str) -> Result<(), String> {
    match before {
        Value::Object(fields) if path.ends_with("/annotations") => {
            match fields.keys().find(|key| after[key.as_str()].is_null()) {
                Some(key) => Err(format!("the annotation {key} is gone")),
                None => Ok(()),
            }
        }
        Value::Object(fields) => {
            fields.iter().try_for_each(|(key, value)| stays(&after[key], value, &format!("{path}/{key}")))
        }
        Value::Array(items) => {
            let mut rest = after.as_array().map(Vec::as_slice).unwrap_or_default();
            for item in items {
                let is_it = |candidate: &Value| {
                    candidate == item || (item["name"].is_string() && candidate["name"] == item["name"])
                };
                let Some(found) = rest.iter().position(is_it) else {
                    return Err(format!("{path} has lost {item}"));
                };
                stays(&rest[found], item, path)?;
                rest = &rest[found + 1..];
            }
            Ok(())
        }
        value if after == value => Ok(()),
        value => Err(format!("{path} was {value} and is {after}")),
    }
}
