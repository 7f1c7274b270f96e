//! The mutating webhook that a pod's creation calls.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::{call::Request, resource::Resource, status::Refusal};

/// A mutating webhook with `failurePolicy: Fail`, as a `MutatingWebhookConfiguration` describes it.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The webhook's name, which refusals mention.
    pub name: String,
    /// Where it is called: an `https` URL.
    pub url: String,
    /// The certificates that it has to be signed by, as PEM.
    pub ca_pem: Vec<u8>,
    /// The label whose value `true` selects pods for it.
    pub label: String,
    /// How long it may take, in whole seconds.
    pub timeout: Duration,
    /// Certificate and key, as PEM, with which the API server shows who it is.
    pub client_identity_pem: Option<Vec<u8>>,
}

/// Why a [`Webhook`] cannot be called at all.
#[derive(Debug, Error)]
#[error("the webhook's certificates or the TLS provider cannot be used")]
pub struct WebhookError(#[from] reqwest::Error);

#[derive(Debug)]
pub(super) struct Caller {
    webhook: Webhook,
    http: reqwest::Client,
}

impl Caller {
    pub(super) fn new(webhook: Webhook) -> Result<Self, WebhookError> {
        let roots = reqwest::Certificate::from_pem_bundle(&webhook.ca_pem)?;
        let mut http = reqwest::Client::builder().tls_certs_only(roots).https_only(true).no_proxy();
        if let Some(identity) = &webhook.client_identity_pem {
            http = http.identity(reqwest::Identity::from_pem(identity)?);
        }
        Ok(Self { http: http.timeout(webhook.timeout).build()?, webhook })
    }

    pub(super) fn selects(&self, object: &Value) -> bool {
        object["metadata"]["labels"][&self.webhook.label] == "true"
    }

    /// Lets the webhook change the object. Its warnings are returned.
    pub(super) async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<String>, Refusal> {
        let uid = Uuid::new_v4().to_string();
        let review = review(request, object, &uid);
        let answer = self.post(&review).await.map_err(|why| {
            Refusal::internal(format!("failed calling webhook \"{}\": {why}", self.webhook.name))
        })?;
        let response = &answer["response"];
        if response["uid"] != uid.as_str() {
            let why = format!("expected response.uid=\"{uid}\", got {}", response["uid"]);
            return Err(Refusal::internal(format!(
                "failed calling webhook \"{}\": {why}",
                self.webhook.name
            )));
        }
        if response["allowed"] != true {
            return Err(self.denial(&response["status"]));
        }
        if let Some(patch) = response["patch"].as_str() {
            self.apply(&response["patchType"], patch, object)?;
        }
        let warnings = response["warnings"].as_array().into_iter().flatten();
        Ok(warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect())
    }

    async fn post(&self, review: &Value) -> Result<Value, String> {
        let url = format!("{}?timeout={}s", self.webhook.url, self.webhook.timeout.as_secs());
        let post = self.http.post(&url).header("content-type", "application/json").body(review.to_string());
        let failed = |error: reqwest::Error| {
            let cause =
                if error.is_timeout() { "context deadline exceeded".to_owned() } else { causes(&error) };
            format!("failed to call webhook: Post \"{url}\": {cause}")
        };
        let response = post.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(format!(
                "failed to call webhook: an error on the server (\"{text}\") has prevented the request from succeeding"
            ));
        }
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|error| format!("failed to call webhook: the answer is no JSON: {error}"))?;
        if answer["kind"] != "AdmissionReview" || answer["apiVersion"] != "admission.k8s.io/v1" {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
                answer["apiVersion"], answer["kind"]
            ));
        }
        Ok(answer)
    }

    fn denial(&self, status: &Value) -> Refusal {
        let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
        let denied = format!("admission webhook \"{}\" denied the request", self.webhook.name);
        let message = match text("message").or_else(|| text("reason")) {
            Some(why) => format!("{denied}: {why}"),
            None => format!("{denied} without explanation"),
        };
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0).max(400);
        Refusal::new(code, text("reason").unwrap_or_default(), message)
    }

    fn apply(&self, kind: &Value, patch: &str, object: &mut Value) -> Result<(), Refusal> {
        let failed = |why: String| {
            Refusal::internal(format!("failed calling webhook \"{}\": {why}", self.webhook.name))
        };
        if kind != "JSONPatch" {
            return Err(failed(format!("webhook returned response.patch but response.patchType is {kind}")));
        }
        let patch = STANDARD.decode(patch).map_err(|error| failed(format!("illegal base64: {error}")))?;
        let patch: json_patch::Patch =
            serde_json::from_slice(&patch).map_err(|error| failed(format!("invalid patch: {error}")))?;
        json_patch::patch(object, &patch).map_err(|error| failed(error.to_string()))
    }
}

/// The AdmissionReview of a creation. A pod whose name is yet to be generated has none, and no pod has a uid.
fn review(request: &Request, object: &Value, uid: &str) -> Value {
    let Request { resource, call, query, .. } = request;
    let Resource { group, version, plural, kind, .. } = resource;
    let kind = json!({"group": group, "version": version, "kind": kind});
    let resource = json!({"group": group, "version": version, "resource": plural});
    let mut options = json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"});
    if let Some(manager) = &query.field_manager {
        options["fieldManager"] = manager.as_str().into();
    }
    if call.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let mut admission = json!({
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "namespace": call.namespace,
        "operation": "CREATE",
        "userInfo": user_info(&call.user),
        "object": object,
        "oldObject": null,
        "dryRun": call.dry_run,
        "options": options,
    });
    if let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) {
        admission["name"] = name.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": admission})
}

fn user_info(user: &str) -> Value {
    let mut groups = Vec::new();
    if let Some((namespace, _)) =
        user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'))
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups.push("system:authenticated".to_owned());
    json!({"username": user, "groups": groups})
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
