//! Credentials as plain environment variables: the drop-in mode.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Grant, Injection, MutationPolicy, Plan,
    environment::{self, Wish},
};
use crate::{patch::Patch, review::Denial};

/// Puts credentials into the environment of the selected containers, before what the user set, so that `$(DBUSER)` expands
/// there, in command and in args.
#[derive(Clone, Debug)]
pub struct Plaintext {
    default_engine: String,
}

impl Plaintext {
    /// `default_engine` is the database secrets engine of pods without the annotation `cluster`.
    pub fn new(default_engine: impl Into<String>) -> Self {
        Self { default_engine: default_engine.into() }
    }
}

impl MutationPolicy for Plaintext {
    fn plan(&self, pod: &Value, now: Timestamp) -> Result<Plan, Denial> {
        Ok(match environment::wish(pod, &self.default_engine, now)? {
            Wish::Nothing { patch, warnings } => Plan::LeaveAlone { patch, warnings },
            Wish::Credentials(injection) => Plan::Issue(injection),
        })
    }

    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch {
        environment::patch(pod, injection, grants, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use vdbi_core::{ledger::EntryId, pod::UUID_ANNOTATION, secret::Secret};

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn pod() -> Value {
        json!({
            "metadata": {
                "annotations": {
                    "db-creds-injector.numberly.io/main.role": "app",
                    "db-creds-injector.numberly.io/main.env-key-dbuser": "USER_A, USER_B",
                    "db-creds-injector.numberly.io/main.env-key-dbpassword": "PASSWORD",
                    "db-creds-injector.numberly.io/reports.role": "reader",
                    "db-creds-injector.numberly.io/reports.mode": "uri",
                    "db-creds-injector.numberly.io/reports.env-key-uri": "REPORTS",
                    "db-creds-injector.numberly.io/reports.template": "postgresql://db:5432/reports?x=1",
                },
            },
            "spec": {
                "someNewField": { "kept": true },
                "initContainers": [{ "name": "migrate" }],
                "containers": [
                    { "name": "web", "env": [{ "name": "HELLO", "value": "$(USER_A)" }] },
                    { "name": "side", "env": [] },
                ],
                "ephemeralContainers": [{ "name": "debug" }],
            },
        })
    }

    fn grants() -> Vec<Grant> {
        let grant = |username: &str, password: &str| Grant {
            id: EntryId::random(),
            username: username.into(),
            password: Secret::new(password),
        };
        vec![grant("v-app", "p$1"), grant("v-reader", "p@2")]
    }

    fn mutate(pod: &Value, grants: &[Grant]) -> Value {
        let policy = Plaintext::new("databases");
        let Plan::Issue(injection) = policy.plan(pod, NOW).unwrap() else { panic!("nothing to inject") };
        apply(pod, policy.patch(pod, &injection, grants, NOW))
    }

    fn apply(pod: &Value, patch: Patch) -> Value {
        let patch = serde_json::to_value(patch).unwrap();
        assert!(patch.as_array().unwrap().iter().all(|operation| operation["op"] == "add"), "{patch}");
        let mut mutated = pod.clone();
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut mutated, &patch).unwrap();
        mutated
    }

    fn env(container: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let env = container["env"].as_array().into_iter().flatten();
        env.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
    }

    fn refusal(pod: &Value) -> Denial {
        Plaintext::new("databases").plan(pod, NOW).unwrap_err()
    }

    fn annotate(pod: &mut Value, key: &str, value: &str) {
        pod["metadata"]["annotations"][format!("db-creds-injector.numberly.io/{key}")] = value.into();
    }

    #[test]
    fn every_container_but_ephemeral_ones_gets_the_variables_before_its_own() {
        let mutated = mutate(&pod(), &grants());
        let ours = [
            ("USER_A", "v-app"),
            ("USER_B", "v-app"),
            ("PASSWORD", "p$$1"),
            ("REPORTS", "postgresql://v-reader:p%402@db:5432/reports?x=1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let spec = &mutated["spec"];
        assert_eq!(env(&spec["initContainers"][0]), ours);
        assert_eq!(env(&spec["containers"][1]), ours);
        let web = env(&spec["containers"][0]);
        assert_eq!(web[..4], ours);
        assert_eq!(web[4], ("HELLO".to_owned(), "$(USER_A)".to_owned()));
        assert_eq!(spec["ephemeralContainers"], pod()["spec"]["ephemeralContainers"]);
        assert_eq!(spec["someNewField"], json!({ "kept": true }));
    }

    #[test]
    fn the_uuid_annotation_lists_the_entries_and_replaces_what_the_user_wrote() {
        let mut pod = pod();
        pod["metadata"]["annotations"][UUID_ANNOTATION] = "../../stolen".into();
        let grants = grants();
        let mutated = mutate(&pod, &grants);
        let expected = format!("{},{}", grants[0].id, grants[1].id);
        assert_eq!(mutated["metadata"]["annotations"][UUID_ANNOTATION], expected);
    }

    #[test]
    fn a_second_invocation_leaves_the_pod_alone_whatever_others_did_in_between() {
        let mut mutated = mutate(&pod(), &grants());
        let containers = mutated["spec"]["containers"].as_array_mut().unwrap();
        containers.insert(0, json!({ "name": "istio-proxy" }));
        containers[1]["env"].as_array_mut().unwrap().insert(0, json!({ "name": "OTHER", "value": "x" }));
        let plan = Plaintext::new("databases").plan(&mutated, NOW).unwrap();
        assert!(matches!(&plan, Plan::LeaveAlone { patch, .. } if patch.is_empty()), "{plan:?}");
    }

    #[test]
    fn a_copy_of_a_running_pod_gets_credentials_of_its_own_in_place_of_the_old() {
        let copy = mutate(&pod(), &grants());
        let later: Timestamp = "1970-01-02T00:00:00Z".parse().unwrap();
        let policy = Plaintext::new("databases");
        let Plan::Issue(injection) = policy.plan(&copy, later).unwrap() else { panic!("it is a copy") };
        let mut fresh = grants();
        fresh[0].username = "v-fresh".into();
        let mutated = apply(&copy, policy.patch(&copy, &injection, &fresh, later));
        let web = env(&mutated["spec"]["containers"][0]);
        assert_eq!(
            web.iter().filter(|(name, _)| name == "USER_A").collect::<Vec<_>>(),
            [&("USER_A".to_owned(), "v-fresh".to_owned())]
        );
        assert_eq!(web.len(), 5);
        assert_eq!(
            mutated["metadata"]["annotations"][UUID_ANNOTATION],
            format!("{},{}", fresh[0].id, fresh[1].id)
        );
    }

    #[test]
    fn a_copy_whose_variables_were_edited_is_refused_with_what_to_remove() {
        let mut copy = mutate(&pod(), &grants());
        copy["spec"]["containers"][0]["env"][0]["value"] = "mine".into();
        copy["spec"]["containers"][1]["env"][0]["value"] = "mine".into();
        copy["spec"]["initContainers"][0]["env"][0]["value"] = "mine".into();
        assert!(refusal(&copy).message.contains("remove what the webhook had added"));
    }

    #[test]
    fn a_variable_that_the_container_sets_is_refused_by_name() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["env"][0]["name"] = "PASSWORD".into();
        let denial = refusal(&pod);
        assert_eq!(denial.code, 400);
        assert!(denial.message.contains("container web sets PASSWORD"), "{denial}");
    }

    #[test]
    fn a_variable_is_replaced_where_that_is_asked_for() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["env"] = json!([
            { "name": "FIRST", "value": "1" },
            { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "old", "key": "password" } } },
        ]);
        annotate(&mut pod, "main.on-conflict", "replace");
        let web = env(&mutate(&pod, &grants())["spec"]["containers"][0]);
        let names: Vec<&str> = web.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["USER_A", "USER_B", "PASSWORD", "REPORTS", "FIRST"]);
        assert_eq!(web[2].1, "p$$1");
    }

    #[test]
    fn only_the_named_containers_get_a_credential() {
        let mut pod = pod();
        annotate(&mut pod, "main.containers", "web, migrate");
        annotate(&mut pod, "reports.containers", "web");
        let mutated = mutate(&pod, &grants());
        let names = |container: &Value| env(container).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let spec = &mutated["spec"];
        assert_eq!(names(&spec["initContainers"][0]), ["USER_A", "USER_B", "PASSWORD"]);
        assert_eq!(names(&spec["containers"][0]), ["USER_A", "USER_B", "PASSWORD", "REPORTS", "HELLO"]);
        assert_eq!(spec["containers"][1]["env"], json!([]));
        let plan = Plaintext::new("databases").plan(&mutated, NOW).unwrap();
        assert!(matches!(plan, Plan::LeaveAlone { .. }));
    }

    #[test]
    fn a_container_that_the_pod_does_not_have_is_refused_with_those_that_it_has() {
        let mut pod = pod();
        annotate(&mut pod, "main.containers", "wbe");
        let message = refusal(&pod).message;
        assert!(message.contains("no container wbe, only migrate, web, side"), "{message}");
    }

    #[test]
    fn a_pod_of_an_earlier_release_is_admitted_and_keeps_no_id_that_it_wrote() {
        let mut pod = pod();
        annotate(&mut pod, "revoke-ttl", "1h");
        annotate(&mut pod, "uuid", &EntryId::random().to_string());
        let Plan::LeaveAlone { patch, warnings } = Plaintext::new("databases").plan(&pod, NOW).unwrap()
        else {
            panic!("it is left alone")
        };
        assert!(warnings[0].contains("revoke-ttl"));
        assert_eq!(apply(&pod, patch)["metadata"]["annotations"][UUID_ANNOTATION], "");
    }

    #[test]
    fn a_pod_without_annotations_is_refused_with_what_to_add() {
        let denial = refusal(&json!({ "metadata": {} }));
        assert!(denial.message.contains(".role"), "{denial}");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[a-zA-Z_$()]{0,9}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = "(name|value|env|valueFrom|USER_A|x)";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        /// Nothing but the API server's validation, which comes later, says that a pod has its shape.
        #[test]
        fn any_spec_is_mutated_once_or_refused(containers in any_json(), init in any_json(), replace in any::<bool>()) {
            let mut pod = pod();
            pod["spec"]["containers"] = containers;
            pod["spec"]["initContainers"] = init;
            if replace {
                annotate(&mut pod, "main.on-conflict", "replace");
                annotate(&mut pod, "reports.on-conflict", "replace");
            }
            let policy = Plaintext::new("databases");
            if let Ok(Plan::Issue(injection)) = policy.plan(&pod, NOW) {
                let patch = serde_json::to_value(policy.patch(&pod, &injection, &grants(), NOW)).unwrap();
                let mut mutated = pod.clone();
                let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
                // A container that is no object cannot be patched; the API server refuses such a pod.
                if json_patch::patch(&mut mutated, &patch).is_ok() && mutated["spec"]["containers"][0].is_object() {
                    let again = policy.plan(&mutated, NOW).unwrap();
                    prop_assert!(matches!(again, Plan::LeaveAlone { .. }), "{mutated}");
                }
            }
        }
    }
}
