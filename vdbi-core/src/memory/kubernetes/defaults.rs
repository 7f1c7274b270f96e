//! What an API server adds to a new object, and takes from it.

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    call::Request,
    resource::{NAMESPACES, PODS, SERVICE_ACCOUNTS},
    status::Refusal,
    store::Store,
};

/// Takes away what only the server writes, before anybody sees the object.
pub(super) fn own_metadata(request: &Request, object: &mut Value) -> Result<(), Refusal> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        remove(metadata, field);
    }
    if let Some(namespace) = &request.call.namespace {
        match metadata["namespace"].as_str() {
            None | Some("") => metadata["namespace"] = namespace.as_str().into(),
            Some(own) if own == namespace => {}
            Some(_) => {
                return Err(Refusal::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
    } else {
        remove(metadata, "namespace");
    }
    Ok(())
}

/// What the server writes last: uid, creation time, the status of a new object.
pub(super) fn admit(store: &mut Store, request: &Request, mut object: Value) -> Value {
    object["metadata"]["uid"] = Uuid::new_v4().to_string().into();
    object["metadata"]["creationTimestamp"] = seconds(Timestamp::now()).into();
    if request.resource == &PODS {
        object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    } else if request.resource == &NAMESPACES {
        object["status"] = json!({"phase": "Active"});
    }
    if !request.call.dry_run {
        let namespace = match request.resource == &NAMESPACES {
            true => object["metadata"]["name"].as_str().unwrap_or_default(),
            false => request.namespace(),
        };
        ensure_namespace(store, namespace, request.resource != &NAMESPACES);
    }
    object
}

/// A namespace comes into being with its first object, and its service account `default` with it.
pub(super) fn ensure_namespace(store: &mut Store, namespace: &str, itself: bool) {
    let metadata =
        || json!({"uid": Uuid::new_v4().to_string(), "creationTimestamp": seconds(Timestamp::now())});
    if namespace.is_empty() {
        return;
    }
    if itself && store.get(&NAMESPACES, "", namespace).is_none() {
        let mut object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata()});
        object["metadata"]["name"] = namespace.into();
        object["metadata"]["labels"] = json!({"kubernetes.io/metadata.name": namespace});
        object["status"] = json!({"phase": "Active"});
        store.put(&NAMESPACES, object);
    }
    if store.get(&SERVICE_ACCOUNTS, namespace, "default").is_none() {
        let mut object = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata()});
        object["metadata"]["name"] = "default".into();
        object["metadata"]["namespace"] = namespace.into();
        store.put(&SERVICE_ACCOUNTS, object);
    }
}

/// Fills in what a pod need not say.
pub(super) fn default_pod(spec: &mut Value) {
    if !spec.is_object() {
        *spec = json!({});
    }
    let account = spec["serviceAccountName"].as_str().filter(|name| !name.is_empty()).unwrap_or("default");
    let account = account.to_owned();
    spec["serviceAccountName"] = account.as_str().into();
    spec["serviceAccount"] = account.into();
    let defaults = json!({
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": true,
    });
    for (field, value) in defaults.as_object().into_iter().flatten() {
        if spec[field].is_null() {
            spec[field] = value.clone();
        }
    }
}

/// Completes `generateName`.
pub(super) fn generate_name(metadata: &mut Value) {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let named = metadata["name"].as_str().is_some_and(|name| !name.is_empty());
    if let (false, Some(prefix)) = (named, metadata["generateName"].as_str()) {
        let mut rng = rand::rng();
        let suffix = (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]));
        metadata["name"] = format!("{prefix}{}", suffix.collect::<String>()).into();
    }
}

/// Removes a field, if it is there.
pub(super) fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// RFC 3339 without fractions, as in metadata.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
