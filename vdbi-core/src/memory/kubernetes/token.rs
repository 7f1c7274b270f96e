//! TokenRequest.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    call::Request,
    defaults::seconds,
    resource::{PODS, SERVICE_ACCOUNTS},
    status::Refusal,
    store::Store,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Answers a TokenRequest with a token that has the claims of a real one, and no signature.
pub(super) fn issue(store: &Store, request: &Request, body: &Value) -> Result<Value, Refusal> {
    let (namespace, name) = (request.namespace(), request.name());
    let account = store
        .get(&SERVICE_ACCOUNTS, namespace, name)
        .ok_or_else(|| Refusal::not_found(&SERVICE_ACCOUNTS, name))?;
    let spec = &body["spec"];
    let lifetime = spec["expirationSeconds"].as_i64().unwrap_or(3600);
    if lifetime < 600 {
        let message = format!(
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {lifetime}: \
             may not specify a duration less than 10 minutes"
        );
        return Err(Refusal::of_code(422, message));
    }
    let audiences = match &spec["audiences"] {
        Value::Array(audiences) if !audiences.is_empty() => audiences.clone(),
        _ => vec![ISSUER.into()],
    };
    let mut kubernetes = json!({
        "namespace": namespace,
        "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
    });
    let bound = &spec["boundObjectRef"];
    if bound["kind"] == "Pod" {
        kubernetes["pod"] = bound_pod(store, namespace, name, bound)?;
    }
    let now = Timestamp::now();
    let expires = now + SignedDuration::from_secs(lifetime);
    let claims = json!({
        "aud": audiences,
        "exp": expires.as_second(),
        "iat": now.as_second(),
        "nbf": now.as_second(),
        "iss": ISSUER,
        "jti": Uuid::new_v4().to_string(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io": kubernetes,
    });
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    Ok(json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": seconds(now)},
        "spec": {"audiences": audiences, "expirationSeconds": lifetime, "boundObjectRef": bound},
        "status": {
            "token": format!("{}.{}.", part(json!({"alg": "none", "typ": "JWT"})), part(claims)),
            "expirationTimestamp": seconds(expires),
        },
    }))
}

fn bound_pod(store: &Store, namespace: &str, account: &str, bound: &Value) -> Result<Value, Refusal> {
    let name = bound["name"].as_str().unwrap_or_default();
    let pod = store.get(&PODS, namespace, name).ok_or_else(|| Refusal::not_found(&PODS, name))?;
    if pod["spec"]["serviceAccountName"] != account {
        let message = format!(
            "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
        );
        return Err(Refusal::bad_request(message));
    }
    let uid = &pod["metadata"]["uid"];
    if bound["uid"].as_str().is_some_and(|wanted| !wanted.is_empty()) && bound["uid"] != *uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record",
            bound["uid"]
        );
        return Err(Refusal::conflict(&PODS, name, &why));
    }
    Ok(json!({"name": name, "uid": uid}))
}
