//! How objects end.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    call::Request,
    defaults::seconds,
    resource::{PODS, Resource},
    status::Refusal,
    store::{Object, Store},
};

/// Deletes an object, or marks it where somebody else has to finish. Returned is what is left of it, or its last state.
///
/// A pod's mark is a change of its own even when the deletion follows at once: its watches see MODIFIED, then DELETED.
pub(super) fn delete(
    store: &mut Store,
    request: &Request,
    object: &Object,
    options: &Value,
) -> Result<Object, Refusal> {
    let Request { resource, call, .. } = request;
    preconditions(resource, &object["metadata"], &options["preconditions"])?;
    let mut last = Value::clone(object);
    let metadata = &mut last["metadata"];
    let waits_for_finalizers = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    let grace = grace_period(resource, object, options);
    if resource == &&PODS || waits_for_finalizers {
        mark(metadata, grace);
    }
    let stays = waits_for_finalizers || metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    if call.dry_run {
        return Ok(last.into());
    }
    let marked = if last == **object { object.clone() } else { store.put(resource, last) };
    Ok(if stays { marked } else { store.remove(resource, Value::clone(&marked)) })
}

/// Whether an update lets go of the last thing that kept an object from its deletion.
pub(super) fn ends_with_this_write(metadata: &Value) -> bool {
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// Says when the object ends; a mark that is there may be moved ahead, not back.
fn mark(metadata: &mut Value, grace: i64) {
    if metadata["deletionGracePeriodSeconds"].as_i64().is_none_or(|before| grace < before) {
        let at = Timestamp::now() + SignedDuration::from_secs(grace);
        metadata["deletionTimestamp"] = seconds(at).into();
        metadata["deletionGracePeriodSeconds"] = json!(grace);
    }
}

/// How long the kubelet has to end a pod; 0 where nobody runs it.
fn grace_period(resource: &Resource, object: &Value, options: &Value) -> i64 {
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let bound = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if resource != &PODS || finished || !bound {
        return 0;
    }
    let asked = options["gracePeriodSeconds"].as_i64();
    asked.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

fn preconditions(
    resource: &'static Resource,
    metadata: &Value,
    preconditions: &Value,
) -> Result<(), Refusal> {
    let fields =
        [("uid", "UID", "deleted and then recreated"), ("resourceVersion", "ResourceVersion", "modified")];
    for (field, name, what) in fields {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (wanted, actual) = (text(&preconditions[field]), text(&metadata[field]));
        if !wanted.is_empty() && wanted != actual {
            let why = format!(
                "the {name} in the precondition ({wanted}) does not match the {name} in record ({actual}). \
                 The object might have been {what}"
            );
            return Err(Refusal::failed_precondition(resource, &text(&metadata["name"]), &why));
        }
    }
    Ok(())
}
