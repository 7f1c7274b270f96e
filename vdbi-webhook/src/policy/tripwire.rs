//! The mount that the node plugin removes: see [`vdbi_core::tripwire`].

use serde_json::{Value, json};
use vdbi_core::tripwire::{PATH, VOLUME};

use super::{Injection, environment};
use crate::{patch::Patch, review::Denial};

/// Adds it to every container that gets a credential.
pub(super) fn add(pod: &Value, injection: &Injection, patch: &mut Patch) {
    let mount = json!({ "name": VOLUME, "mountPath": PATH });
    for (list, index, container) in environment::containers(pod) {
        let name = environment::name(container);
        if !injection.databases.iter().any(|database| database.selects(name))
            || mounts(container).any(is_ours)
        {
            continue;
        }
        let path = ["spec", list, &index.to_string(), "volumeMounts"];
        append(&container["volumeMounts"], &path, mount.clone(), patch);
    }
    if !items(&pod["spec"]["volumes"]).any(is_ours) {
        let volume = json!({ "name": VOLUME, "emptyDir": {} });
        append(&pod["spec"]["volumes"], &["spec", "volumes"], volume, patch);
    }
}

/// A pod in which it has no place, or of whose author it is.
pub(super) fn refuse_conflicts(pod: &Value, injection: &Injection) -> Result<(), Denial> {
    for (container, _) in environment::selected(pod, injection) {
        let name = environment::name(container);
        if mounts(container).any(|mount| mount["mountPath"] == PATH && !is_ours(mount)) {
            return Err(Denial::bad_request(format!(
                "container {name} mounts something at {PATH}, where the webhook guards the credential until the node puts it in: \
                 mount it elsewhere, or ask the operator for nri.tripwire: false"
            )));
        }
        if mounts(container).any(|mount| mount["mountPath"] != PATH && is_ours(mount)) {
            return Err(Denial::bad_request(format!(
                "container {name} mounts the volume {VOLUME}, which is the webhook's: give the volume another name"
            )));
        }
    }
    let strange = |volume: &Value| is_ours(volume) && volume["emptyDir"].is_null();
    if items(&pod["spec"]["volumes"]).any(strange) {
        return Err(Denial::bad_request(format!(
            "the volume {VOLUME} is the webhook's: give it another name"
        )));
    }
    Ok(())
}

fn is_ours(item: &Value) -> bool {
    item["name"] == VOLUME
}

fn mounts(container: &Value) -> impl Iterator<Item = &Value> {
    items(&container["volumeMounts"])
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn append(list: &Value, path: &[&str], item: Value, patch: &mut Patch) {
    if list.as_array().is_none_or(Vec::is_empty) {
        patch.add(path, json!([item]));
    } else {
        patch.add(&[path, &["-"]].concat(), item);
    }
}
