//! The contract suite of mutation policies from outside: over both policies, which keep the contract, and over wrong ones, at least one
//! for each clause, which break that clause and no other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};
use vdbi_core::testing::Broken;
use vdbi_webhook::{
    patch::Patch,
    policy::{Grant, Injection, MutationPolicy, Placeholder, Plaintext, Plan},
    review::Denial,
    testing::mutation_policy::{self as suite, Fixture},
};

#[path = "../../vdbi-core/tests/contracts/wrong.rs"]
mod wrong;

// ANCHOR: fixture
/// A policy, and a pod for each thing that it can do.
struct OverPods<P>(P);

impl<P: MutationPolicy> Fixture for OverPods<P> {
    type Policy = P;

    fn policy(&self) -> &P {
        &self.0
    }

    fn admitted(&self) -> Vec<Value> {
        vec![with_neighbours(), with_two_databases(), of_an_earlier_release()]
    }

    fn denied(&self) -> Vec<Value> {
        vec![with_an_unknown_container()]
    }
}

#[tokio::test]
async fn my_policy_keeps_the_contract() {
    suite::run(&OverPods(Plaintext::new("database"))).await;
}
// ANCHOR_END: fixture

#[tokio::test]
async fn placeholders_keep_the_contract() {
    suite::run(&OverPods(Placeholder::new("database").requiring("vdbi"))).await;
    suite::run(&OverPods(Placeholder::new("database").without_tripwire())).await;
}

const PREFIX: &str = "db-creds-injector.numberly.io";

/// Of a policy that knows its own pods again by it, whatever is wrong about them.
const DONE: &str = "example.org/done";

fn with_neighbours() -> Value {
    json!({
        "metadata": { "annotations": {
            format!("{PREFIX}/main.role"): "app",
            format!("{PREFIX}/uuid"): "what a user wrote",
            "other": "kept",
        } },
        "spec": {
            "aFieldOfTomorrow": { "kept": [1, 2] },
            "initContainers": [{ "name": "migrate", "restartPolicy": "Always" }],
            "containers": [
                { "name": "web", "image": "web", "env": [{ "name": "A", "value": "$(DBUSER)" }] },
                { "name": "side" },
            ],
            "ephemeralContainers": [{ "name": "debug" }],
        },
    })
}

fn with_two_databases() -> Value {
    json!({
        "metadata": { "annotations": {
            format!("{PREFIX}/main.role"): "app",
            format!("{PREFIX}/main.mode"): "uri",
            format!("{PREFIX}/main.env-key-uri"): "URL",
            format!("{PREFIX}/main.template"): "postgresql://db/x",
            format!("{PREFIX}/main.containers"): "web",
            format!("{PREFIX}/reports.role"): "reader",
        } },
        "spec": { "containers": [{ "name": "web" }, { "name": "side", "env": [{ "name": "URL", "value": "x" }] }] },
    })
}

fn of_an_earlier_release() -> Value {
    json!({
        "metadata": { "annotations": { format!("{PREFIX}/revoke-ttl"): "1h", format!("{PREFIX}/uuid"): "x" } },
        "spec": { "containers": [{ "name": "web" }] },
    })
}

fn with_an_unknown_container() -> Value {
    json!({
        "metadata": { "annotations": {
            format!("{PREFIX}/main.role"): "app",
            format!("{PREFIX}/main.containers"): "wbe",
        } },
        "spec": { "containers": [{ "name": "web" }] },
    })
}

/// What a wrong policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    DeniesEverybody,
    CountsItsCalls,
    ReversesTheDatabases,
    StampsThePatch,
    PatchesWhatIsNotThere,
    ReplacesAnImage,
    DeliversOneGrantToAll,
    NamesNoEntries,
    MutatesAgain,
    DeniesWithoutAWord,
    DeniesAsUnavailable,
    DeniesNobody,
}

const FLAWS: [(Flaw, &str); 12] = [
    (Flaw::DeniesEverybody, "who_asks_rightly_is_admitted"),
    (Flaw::CountsItsCalls, "the_same_pod_gets_the_same_plan"),
    (Flaw::ReversesTheDatabases, "databases_come_ordered_by_name"),
    (Flaw::StampsThePatch, "the_same_grants_give_the_same_patch"),
    (Flaw::PatchesWhatIsNotThere, "a_patch_applies"),
    (Flaw::ReplacesAnImage, "what_the_user_wrote_stays"),
    (Flaw::DeliversOneGrantToAll, "every_grant_reaches_the_pod"),
    (Flaw::NamesNoEntries, "the_pod_names_its_entries"),
    (Flaw::MutatesAgain, "a_second_invocation_changes_nothing"),
    (Flaw::DeniesWithoutAWord, "a_denial_says_what_to_change"),
    (Flaw::DeniesAsUnavailable, "a_denial_says_what_to_change"),
    (Flaw::DeniesNobody, "a_denial_says_what_to_change"),
];

struct Wrong {
    policy: Plaintext,
    flaw: Flaw,
    calls: AtomicUsize,
}

impl Wrong {
    fn new(flaw: Flaw) -> Self {
        Self { policy: Plaintext::new("database"), flaw, calls: AtomicUsize::new(0) }
    }

    fn call(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }
}

impl MutationPolicy for Wrong {
    fn plan(&self, pod: &Value, now: Timestamp) -> Result<Plan, Denial> {
        if pod["metadata"]["annotations"][DONE].is_string() {
            return Ok(Plan::LeaveAlone { patch: Patch::default(), warnings: Vec::new() });
        }
        match (self.flaw, self.policy.plan(pod, now)) {
            (Flaw::DeniesEverybody, _) => Err(Denial::new(403, "no pod gets anything")),
            (Flaw::CountsItsCalls, Ok(Plan::Issue(mut injection))) => {
                injection.warnings.push(format!("this is call {}", self.call()));
                Ok(Plan::Issue(injection))
            }
            (Flaw::ReversesTheDatabases, Ok(Plan::Issue(mut injection))) => {
                injection.databases.reverse();
                Ok(Plan::Issue(injection))
            }
            (Flaw::MutatesAgain, Ok(Plan::LeaveAlone { mut patch, warnings })) => {
                patch.add(&["spec", "containers", "0"], json!({ "name": "again" }));
                Ok(Plan::LeaveAlone { patch, warnings })
            }
            (Flaw::DeniesWithoutAWord, Err(Denial { code, .. })) => Err(Denial::new(code, "")),
            (Flaw::DeniesAsUnavailable, Err(Denial { message, .. })) => Err(Denial::new(503, message)),
            (Flaw::DeniesNobody, Err(_)) => {
                Ok(Plan::LeaveAlone { patch: Patch::default(), warnings: Vec::new() })
            }
            (_, plan) => plan,
        }
    }

    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch {
        let mut grants = grants.to_vec();
        if self.flaw == Flaw::DeliversOneGrantToAll {
            let first = grants[0].clone();
            grants
                .iter_mut()
                .for_each(|grant| *grant = Grant::new(grant.id, &first.username, first.password.clone()));
        }
        let mut patch = self.policy.patch(pod, injection, &grants, now);
        let mut annotate =
            |key: &str, value: String| patch.add(&["metadata", "annotations", key], value.into());
        match self.flaw {
            Flaw::ReversesTheDatabases => annotate(DONE, "yes".into()),
            Flaw::StampsThePatch => annotate("example.org/call", self.call().to_string()),
            Flaw::NamesNoEntries => {
                annotate(vdbi_core::pod::UUID_ANNOTATION, String::new());
                annotate(DONE, "yes".into());
            }
            Flaw::PatchesWhatIsNotThere => patch.add(&["spec", "nowhere", "0"], json!({})),
            Flaw::ReplacesAnImage => patch.add(&["spec", "containers", "0", "image"], "mine".into()),
            _ => {}
        }
        patch
    }
}

#[tokio::test]
async fn each_wrong_policy_breaks_the_clause_meant() {
    for (flaw, clause) in FLAWS {
        let run = Broken::by("run", suite::run(&OverPods(Wrong::new(flaw)))).await;
        let broken = suite::broken(&OverPods(Wrong::new(flaw))).await;
        wrong::expect_one_broken(flaw, clause, &broken, run);
    }
}

#[test]
fn every_clause_of_the_suite_has_a_wrong_policy() {
    wrong::expect_complete("vdbi_webhook::testing::mutation_policy", suite::CLAUSES, &FLAWS);
}
