//! Credentials as plain environment variables: the drop-in mode.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vdbi_core::{
    annotation::{self, Delivery, Outcome, literal},
    pod::{ANNOTATION_PREFIX, UUID_ANNOTATION},
};

use super::{Grant, Injection, MutationPolicy, Plan};
use crate::{patch::Patch, review::Denial};

/// Containers that get the variables. Init containers are among them, and native sidecars with those; ephemeral ones are
/// not, since whoever may add one to a pod need not be allowed to see its credentials.
const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// Puts credentials into the environment of every container, before what the user set, so that `$(DBUSER)` expands there.
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
    fn plan(&self, pod: &Value) -> Result<Plan, Denial> {
        let annotations = annotations(pod);
        let outcome =
            annotation::parse(&annotations, &self.default_engine).map_err(|error| bad(error.to_string()))?;
        let request = match outcome {
            Outcome::Inject(request) => request,
            Outcome::Untouched { reason } => return Ok(Plan::LeaveAlone { warnings: vec![reason] }),
        };
        let injection = Injection { databases: request.databases, warnings: request.warnings };
        if carries(pod, &annotations, &injection) {
            return Ok(Plan::LeaveAlone { warnings: Vec::new() });
        }
        refuse_collisions(pod, &injection)?;
        Ok(Plan::Inject(injection))
    }

    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant]) -> Patch {
        let variables: Vec<Value> = injection
            .databases
            .iter()
            .zip(grants)
            .flat_map(|(database, grant)| variables(&database.delivery, grant))
            .collect();
        let mut patch = Patch::default();
        for (list, index, container) in containers(pod) {
            let env = ["spec", list, &index.to_string(), "env"];
            if container["env"].as_array().is_some_and(|env| !env.is_empty()) {
                let first = [&env[..], &["0"]].concat();
                for variable in variables.iter().rev() {
                    patch.add(&first, variable.clone());
                }
            } else {
                patch.add(&env, variables.clone().into());
            }
        }
        let ids: Vec<String> = grants.iter().map(|grant| grant.id.to_string()).collect();
        patch.add(&["metadata", "annotations", UUID_ANNOTATION], ids.join(",").into());
        patch
    }
}

fn variables(delivery: &Delivery, grant: &Grant) -> Vec<Value> {
    let variable = |name: &String, value: &str| json!({ "name": name, "value": value });
    match delivery {
        Delivery::Classic { user_keys, password_keys } => {
            let (user, password) = (literal(&grant.username), literal(grant.password.expose()));
            let users = user_keys.iter().map(|name| variable(name, &user));
            let passwords = password_keys.iter().map(|name| variable(name, &password));
            users.chain(passwords).collect()
        }
        Delivery::Uri { keys, template } => {
            let uri = template.render(&grant.username, &grant.password);
            keys.iter().map(|name| variable(name, uri.expose())).collect()
        }
    }
}

fn names(injection: &Injection) -> impl Iterator<Item = (&str, &str)> {
    injection.databases.iter().flat_map(|database| {
        let keys: Vec<&String> = match &database.delivery {
            Delivery::Classic { user_keys, password_keys } => user_keys.iter().chain(password_keys).collect(),
            Delivery::Uri { keys, .. } => keys.iter().collect(),
        };
        keys.into_iter().map(|key| (database.name.as_str(), key.as_str()))
    })
}

/// Whether this webhook patched the pod before: it names as many entries as there are databases, and every container has
/// every variable with a literal value. Such a pod gets nothing, so a forged mark gains nothing either.
fn carries(pod: &Value, annotations: &BTreeMap<String, String>, injection: &Injection) -> bool {
    let ids = annotations.get(UUID_ANNOTATION).map(|ids| annotation::parse_uuids(ids));
    ids.is_some_and(|ids| ids.len() == injection.databases.len())
        && containers(pod).all(|(_, _, container)| {
            names(injection).all(|(_, name)| {
                environment(container)
                    .any(|variable| variable["name"] == name && variable["value"].is_string())
            })
        })
}

fn refuse_collisions(pod: &Value, injection: &Injection) -> Result<(), Denial> {
    for (_, _, container) in containers(pod) {
        for (database, name) in names(injection) {
            if environment(container).any(|variable| variable["name"] == name) {
                let container = container["name"].as_str().unwrap_or_default();
                return Err(bad(format!(
                    "container {container} sets {name}, which database {database} would set too: remove it from the \
                     container's env, or have the credential under another name with the annotations \
                     {ANNOTATION_PREFIX}{database}.env-key-dbuser, .env-key-dbpassword or .env-key-uri"
                )));
            }
        }
    }
    Ok(())
}

fn annotations(pod: &Value) -> BTreeMap<String, String> {
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    CONTAINER_LISTS.into_iter().flat_map(|list| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.enumerate().map(move |(index, container)| (list, index, container))
    })
}

fn environment(container: &Value) -> impl Iterator<Item = &Value> {
    container["env"].as_array().into_iter().flatten()
}

fn bad(message: String) -> Denial {
    Denial { code: 400, message }
}

#[cfg(test)]
mod tests {
    use vdbi_core::{ledger::EntryId, secret::Secret};

    use super::*;

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
        let Plan::Inject(injection) = policy.plan(pod).unwrap() else { panic!("nothing to inject") };
        let patch = serde_json::to_value(policy.patch(pod, &injection, grants)).unwrap();
        let mut mutated = pod.clone();
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut mutated, &patch).unwrap();
        mutated
    }

    fn env(container: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        environment(container).map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
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
    fn a_second_invocation_leaves_the_pod_alone() {
        let mutated = mutate(&pod(), &grants());
        let plan = Plaintext::new("databases").plan(&mutated).unwrap();
        assert!(matches!(plan, Plan::LeaveAlone { .. }));
    }

    #[test]
    fn a_variable_that_the_container_sets_is_refused_by_name() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["env"][0]["name"] = "PASSWORD".into();
        let denial = Plaintext::new("databases").plan(&pod).unwrap_err();
        assert_eq!(denial.code, 400);
        assert!(denial.message.contains("container web sets PASSWORD"), "{denial}");
    }

    #[test]
    fn a_pod_without_annotations_is_refused_with_what_to_add() {
        let denial = Plaintext::new("databases").plan(&json!({ "metadata": {} })).unwrap_err();
        assert!(denial.message.contains(".role"), "{denial}");
    }
}
