//! Environment variables in a pod's JSON: what the annotations ask for, what is there, and the patch between them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use vdbi_core::{
    annotation::{self, DatabaseRequest, Delivery, OnConflict, Outcome, literal},
    pod::{ANNOTATION_PREFIX, MARK_ANNOTATION, UUID_ANNOTATION},
};

use super::{
    Grant, Injection,
    mark::{self, Finding},
};
use crate::{patch::Patch, review::Denial};

/// Containers that get the variables. Init containers are among them, and native sidecars with those; ephemeral ones are
/// not, since whoever may add one to a pod need not be allowed to see its credentials.
const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// What the annotations mean for a pod.
pub(super) enum Wish {
    /// To be left alone.
    Nothing { patch: Patch, warnings: Vec<String> },
    /// To get credentials, or what stands in for them.
    Credentials(Injection),
}

/// Reads a pod's annotations and compares them with the pod.
pub(super) fn wish(pod: &Value, default_engine: &str, now: Timestamp) -> Result<Wish, Denial> {
    let annotations = annotations(pod);
    let outcome = annotation::parse(&annotations, default_engine)
        .map_err(|error| Denial::bad_request(error.to_string()))?;
    let request = match outcome {
        Outcome::Inject(request) => request,
        Outcome::Untouched { reason } => {
            let mut patch = Patch::default();
            if annotations.contains_key(UUID_ANNOTATION) {
                // Only this webhook says which entries are a pod's.
                patch.add(&["metadata", "annotations", UUID_ANNOTATION], "".into());
            }
            return Ok(Wish::Nothing { patch, warnings: vec![reason] });
        }
    };
    let injection = Injection { databases: request.databases, warnings: request.warnings };
    let finding = examine(pod, &annotations, &injection, now);
    if finding == Finding::Mutated {
        return Ok(Wish::Nothing { patch: Patch::default(), warnings: Vec::new() });
    }
    refuse_unknown_containers(pod, &injection)?;
    if finding == Finding::Foreign {
        refuse_collisions(pod, &annotations, &injection)?;
    }
    Ok(Wish::Credentials(injection))
}

/// Sets the variables in every container that is selected, before its own.
pub(super) fn patch(pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch {
    let delivered: Vec<(&DatabaseRequest, Vec<Value>)> = injection
        .databases
        .iter()
        .zip(grants)
        .map(|(database, grant)| (database, variables(&database.delivery, grant)))
        .collect();
    let mut patch = Patch::default();
    for (list, index, container) in containers(pod) {
        let name = name(container);
        let ours = delivered.iter().filter(|(database, _)| database.selects(name));
        let ours: Vec<&Value> = ours.flat_map(|(_, variables)| variables).collect();
        if ours.is_empty() {
            continue;
        }
        let taken: BTreeSet<&str> = ours.iter().filter_map(|variable| variable["name"].as_str()).collect();
        let is_taken = |variable: &&Value| variable["name"].as_str().is_some_and(|name| taken.contains(name));
        let env = ["spec", list, &index.to_string(), "env"];
        if environment(container).next().is_none()
            || environment(container).any(|variable| is_taken(&variable))
        {
            let theirs = environment(container).filter(|variable| !is_taken(variable));
            let whole: Vec<Value> = ours.into_iter().chain(theirs).cloned().collect();
            patch.add(&env, whole.into());
        } else {
            let first = [&env[..], &["0"]].concat();
            for variable in ours.into_iter().rev() {
                patch.add(&first, variable.clone());
            }
        }
    }
    let ids: Vec<String> = grants.iter().map(|grant| grant.id.to_string()).collect();
    let ids = ids.join(",");
    let values = delivered.iter().flat_map(|(_, variables)| variables).filter_map(|it| it["value"].as_str());
    patch.add(&["metadata", "annotations", MARK_ANNOTATION], mark::mark(now, &ids, values).into());
    patch.add(&["metadata", "annotations", UUID_ANNOTATION], ids.into());
    patch
}

/// The selected containers of each database, with the database.
pub(super) fn selected<'a>(
    pod: &'a Value,
    injection: &'a Injection,
) -> impl Iterator<Item = (&'a Value, &'a DatabaseRequest)> {
    containers(pod).flat_map(|(_, _, container)| {
        let databases = injection.databases.iter();
        databases
            .filter(|database| database.selects(name(container)))
            .map(move |database| (container, database))
    })
}

pub(super) fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
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

/// Looks for this webhook's mark. The values are those of the first container that has all variables of a database: others
/// may have been added by somebody else since.
fn examine(
    pod: &Value,
    annotations: &BTreeMap<String, String>,
    injection: &Injection,
    now: Timestamp,
) -> Finding {
    let (Some(mark), Some(ids)) = (annotations.get(MARK_ANNOTATION), annotations.get(UUID_ANNOTATION)) else {
        return Finding::Foreign;
    };
    let mut values = Vec::new();
    for database in &injection.databases {
        let mut candidates =
            selected(pod, injection).filter(|(_, selecting)| selecting.name == database.name);
        let Some(found) = candidates.find_map(|(container, _)| values_of(container, database)) else {
            return Finding::Foreign;
        };
        values.extend(found);
    }
    mark::examine(mark, now, ids, values.into_iter())
}

fn values_of<'a>(container: &'a Value, database: &DatabaseRequest) -> Option<Vec<&'a str>> {
    database
        .variables()
        .map(|name| environment(container).find(|variable| variable["name"] == name)?["value"].as_str())
        .collect()
}

fn refuse_unknown_containers(pod: &Value, injection: &Injection) -> Result<(), Denial> {
    let present: Vec<&str> = containers(pod).map(|(_, _, container)| name(container)).collect();
    for database in &injection.databases {
        let unknown = database.containers.iter().flatten().find(|name| !present.contains(&name.as_str()));
        if let Some(unknown) = unknown {
            return Err(Denial::bad_request(format!(
                "annotation {ANNOTATION_PREFIX}{}.containers: the pod has no container {unknown}, only {}",
                database.name,
                present.join(", ")
            )));
        }
    }
    Ok(())
}

fn refuse_collisions(
    pod: &Value,
    annotations: &BTreeMap<String, String>,
    injection: &Injection,
) -> Result<(), Denial> {
    let refusing = |database: &DatabaseRequest| database.on_conflict == OnConflict::Refuse;
    for (container, database) in selected(pod, injection).filter(|(_, database)| refusing(database)) {
        let taken = database
            .variables()
            .find(|&variable| environment(container).any(|present| present["name"] == variable));
        let Some(variable) = taken else { continue };
        let (container, database) = (name(container), &database.name);
        let copied = if annotations.contains_key(UUID_ANNOTATION) {
            "; if this is the manifest of a running pod, remove what the webhook had added"
        } else {
            ""
        };
        return Err(Denial::bad_request(format!(
            "container {container} sets {variable}, which database {database} would set too: remove it from the container's \
             env, have the credential under another name with the annotations {ANNOTATION_PREFIX}{database}.env-key-dbuser, \
             .env-key-dbpassword or .env-key-uri, or have it replaced with .on-conflict: replace{copied}"
        )));
    }
    Ok(())
}

fn annotations(pod: &Value) -> BTreeMap<String, String> {
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

pub(super) fn containers(pod: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    CONTAINER_LISTS.into_iter().flat_map(|list| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.enumerate().map(move |(index, container)| (list, index, container))
    })
}

fn environment(container: &Value) -> impl Iterator<Item = &Value> {
    container["env"].as_array().into_iter().flatten()
}
