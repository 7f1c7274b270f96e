//! AdmissionReview v1, in and out (`admission.k8s.io/v1`).

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::patch::Patch;

const API_VERSION: &str = "admission.k8s.io/v1";

/// What the API server asks about one pod.
#[derive(Clone, Debug)]
pub struct Review {
    /// The request's uid, which the answer echoes.
    pub uid: String,
    /// The namespace in which the pod is created; the API server vouches for it.
    pub namespace: String,
    /// Whether nothing may be touched.
    pub dry_run: bool,
    /// `None` when the request is about something else than the creation of a pod.
    pub pod: Option<Value>,
}

/// The answer.
#[derive(Debug)]
pub enum Verdict {
    /// The pod may be created, with the patch.
    Allow {
        /// What is added to the pod; empty leaves it as it is.
        patch: Patch,
        /// Shown to the user by kubectl.
        warnings: Vec<String>,
    },
    /// The pod may not be created.
    Deny(Denial),
}

/// A refusal that the user reads.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Denial {
    /// An HTTP status code: 400 for a pod that asks wrongly, 403 for one that may not, 500 for what may pass. Not 503, on which
    /// clients silently repeat the creation of the pod, and so load a backend that is in trouble already.
    pub code: u16,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// Why a body is no review that this webhook can answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// It is not JSON of the right shape.
    #[error("the body is no AdmissionReview: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is another kind or version.
    #[error("expected an AdmissionReview of {API_VERSION}, got {kind} of {api_version}")]
    Unsupported {
        /// The kind that came.
        kind: String,
        /// The version that came.
        api_version: String,
    },
    /// It has no request.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    dry_run: Option<bool>,
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    resource: String,
}

impl Review {
    /// Reads a request's body.
    ///
    /// # Errors
    ///
    /// When there is nothing that could be answered; anything else is answered, if only with a denial.
    pub fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        let Envelope { api_version, kind, request } = serde_json::from_slice(body)?;
        if api_version != API_VERSION || kind != "AdmissionReview" {
            return Err(ReviewError::Unsupported { kind, api_version });
        }
        let request = request.ok_or(ReviewError::NoRequest)?;
        let Request { uid, namespace, operation, dry_run, resource, sub_resource, object } = request;
        let is_pod = resource.group.is_empty() && resource.resource == "pods";
        let is_creation = operation == "CREATE" && sub_resource.is_none_or(|name| name.is_empty());
        let pod = (is_pod && is_creation).then_some(object);
        Ok(Self { uid, namespace, dry_run: dry_run.unwrap_or(false), pod })
    }
}

impl Verdict {
    /// The pod is none of our business.
    pub fn leave_alone(warnings: Vec<String>) -> Self {
        Self::Allow { patch: Patch::default(), warnings }
    }

    /// The AdmissionReview that answers the request `uid`.
    ///
    /// # Errors
    ///
    /// When the patch cannot be serialized.
    pub fn into_review(self, uid: &str) -> Result<Value, serde_json::Error> {
        let mut response = match self {
            Self::Allow { patch, warnings } => {
                let mut response = json!({ "allowed": true, "warnings": warnings });
                if !patch.is_empty() {
                    response["patchType"] = "JSONPatch".into();
                    response["patch"] = BASE64_STANDARD.encode(serde_json::to_vec(&patch)?).into();
                }
                response
            }
            Self::Deny(Denial { code, message }) => json!({
                "allowed": false,
                "status": { "status": "Failure", "code": code, "message": message },
            }),
        };
        response["uid"] = uid.into();
        Ok(json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(change: impl FnOnce(&mut Value)) -> Result<Review, ReviewError> {
        let mut review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "namespace": "shop",
                "operation": "CREATE",
                "resource": { "group": "", "version": "v1", "resource": "pods" },
                "object": { "metadata": {} },
            },
        });
        change(&mut review);
        Review::parse(review.to_string().as_bytes())
    }

    #[test]
    fn the_creation_of_a_pod_is_about_its_pod() {
        let review = review(|_| {}).unwrap();
        assert_eq!(review.namespace, "shop");
        assert!(review.pod.is_some());
        assert!(!review.dry_run);
    }

    #[test]
    fn updates_and_subresources_and_other_kinds_are_none_of_our_business() {
        for (key, value) in [
            ("operation", json!("UPDATE")),
            ("subResource", json!("ephemeralcontainers")),
            ("resource", json!({ "group": "apps", "version": "v1", "resource": "deployments" })),
        ] {
            let review = review(|review| review["request"][key] = value).unwrap();
            assert!(review.pod.is_none(), "{key}");
        }
    }

    #[test]
    fn another_version_is_refused() {
        let result = review(|review| review["apiVersion"] = "admission.k8s.io/v1beta1".into());
        assert!(matches!(result, Err(ReviewError::Unsupported { .. })));
        assert!(matches!(Review::parse(b""), Err(ReviewError::Malformed(_))));
        assert!(matches!(Review::parse(b"[]"), Err(ReviewError::Malformed(_))));
    }

    #[test]
    fn a_patch_is_base64_and_the_uid_is_echoed() {
        let mut patch = Patch::default();
        patch.add(&["a"], json!(1));
        let answer = Verdict::Allow { patch, warnings: vec!["w".into()] }.into_review("u-1").unwrap();
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        assert_eq!(patch, br#"[{"op":"add","path":"/a","value":1}]"#);
    }

    #[test]
    fn a_denial_carries_its_code_and_message() {
        let denial = Denial { code: 403, message: "no".into() };
        let answer = Verdict::Deny(denial).into_review("u-1").unwrap();
        assert_eq!(answer["response"]["status"]["code"], 403);
        assert_eq!(answer["response"]["allowed"], false);
    }
}
