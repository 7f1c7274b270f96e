//! What an object has to look like: as much of an API server's validation as a client of this project can run into.

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use serde_json::Value;

use super::{
    resource::{LEASES, PODS, Resource},
    status::Refusal,
};

/// Whether the body is an object of this kind at all.
pub(super) fn decodes(resource: &Resource, object: &Value) -> Result<(), Refusal> {
    let (kind, version) = (resource.kind, resource.api_version());
    let refuse = |why: String| {
        Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    if object["kind"].as_str().is_some_and(|given| !given.is_empty() && given != kind) {
        return Err(refuse(format!("the object provided is of kind {}", object["kind"])));
    }
    let typed = match resource {
        pods if pods == &PODS => serde_json::from_value::<Pod>(object.clone()).map(drop),
        leases if leases == &LEASES => serde_json::from_value::<Lease>(object.clone()).map(drop),
        _ if object.is_object() => return Ok(()),
        _ => return Err(refuse("json: cannot unmarshal".into())),
    };
    typed.map_err(|error| refuse(error.to_string()))
}

/// Whether its values may be stored.
pub(super) fn object(resource: &'static Resource, object: &Value) -> Result<(), Refusal> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if resource == &PODS {
        return containers(name, &object["spec"]);
    }
    if resource != &LEASES {
        return Ok(());
    }
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|duration| duration <= 0) {
        let why = format!(
            "spec.leaseDurationSeconds: Invalid value: {}: must be greater than 0",
            spec["leaseDurationSeconds"]
        );
        return Err(Refusal::invalid(resource, name, &why));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|transitions| transitions < 0) {
        let why = format!(
            "spec.leaseTransitions: Invalid value: {}: must be greater than or equal to 0",
            spec["leaseTransitions"]
        );
        return Err(Refusal::invalid(resource, name, &why));
    }
    Ok(())
}

/// The specification of a pod is immutable but for a few fields.
pub(super) fn pod_update(name: &str, current: &Value, object: &Value) -> Result<(), Refusal> {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec[field] = Value::Null;
        }
        spec.as_object_mut().into_iter().for_each(|spec| spec.retain(|_, value| !value.is_null()));
        spec
    };
    if fixed(current) == fixed(object) {
        return Ok(());
    }
    let why = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
               `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
               existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
               previously negative)";
    Err(Refusal::invalid(&PODS, name, why))
}

fn containers(pod: &str, spec: &Value) -> Result<(), Refusal> {
    let list = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
    if list("containers").is_empty() {
        return Err(Refusal::invalid(&PODS, pod, "spec.containers: Required value"));
    }
    for field in ["initContainers", "containers"] {
        for (index, container) in list(field).iter().enumerate() {
            let at = format!("spec.{field}[{index}]");
            if container["name"].as_str().unwrap_or_default().is_empty() {
                return Err(Refusal::invalid(&PODS, pod, &format!("{at}.name: Required value")));
            }
            for (position, env) in container["env"].as_array().into_iter().flatten().enumerate() {
                let variable = env["name"].as_str().unwrap_or_default();
                // Since 1.30 every printable ASCII character but "=".
                if variable.is_empty() || variable.contains(|c: char| !matches!(c, ' '..='~') || c == '=') {
                    let why = format!("{at}.env[{position}].name: Invalid value: {variable:?}");
                    return Err(Refusal::invalid(&PODS, pod, &why));
                }
            }
        }
    }
    Ok(())
}
