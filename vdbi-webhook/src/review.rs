//! AdmissionReview v1, in and out (`admission.k8s.io/v1`).

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use vdbi_core::{config::parse_duration, ledger::EntryId};

use crate::{metrics::Outcome, patch::Patch};

const API_VERSION: &str = "admission.k8s.io/v1";

/// What kubectl shows of a warning in any case, in characters.
const WARNING: usize = 120;

/// What the API server asks about one pod: read by [`Review::parse`], or made by [`Review::new`] and changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Review {
    /// The request's uid, which the answer echoes.
    pub uid: String,
    /// The namespace in which the pod is created; the API server vouches for it.
    pub namespace: String,
    /// Whether nothing may be touched, as the webhook's `sideEffects: NoneOnDryRun` promises.
    pub dry_run: bool,
    /// How long the API server waits for the answer, if it says so.
    pub timeout: Option<Duration>,
    /// `None` when the request is about something else than the creation of a pod.
    pub pod: Option<Value>,
}

/// The answer to a review.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Whether the pod may be created.
    pub verdict: Verdict,
    /// What became of the admission; also in the API server's audit log, as the annotation `outcome`.
    pub outcome: Outcome,
    /// The ledger entries of the pod; also in the audit log, as the annotation `entries`.
    pub entries: Vec<EntryId>,
}

/// Whether a pod may be created.
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
///
/// ```
/// use vdbi_webhook::review::Denial;
///
/// let denial = Denial::bad_request("annotation role is missing: add it");
/// assert_eq!((denial.code, denial.to_string().as_str()), (400, "annotation role is missing: add it"));
/// ```
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
#[non_exhaustive]
pub struct Denial {
    /// An HTTP status code: 400 for a pod that asks wrongly, 403 for one that may not, 429 for too many at once, 500 for what may
    /// pass. Not 503, on which clients silently repeat the creation of the pod, and so load a backend that is in trouble already.
    pub code: u16,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Denial {
    /// With any code of the 4xx or 5xx; see [`Denial::code`].
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A pod that asks wrongly: 400, with what to change.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }
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
    /// The creation of a pod (its object as JSON) in this namespace, for whoever has it from somewhere else than a request's body: with an
    /// empty uid, no dry run, and no timeout of the API server's.
    pub fn new(namespace: impl Into<String>, pod: Value) -> Self {
        let (uid, namespace) = (String::new(), namespace.into());
        Self { uid, namespace, dry_run: false, timeout: None, pod: Some(pod) }
    }

    /// Reads a request's body: an AdmissionReview of `admission.k8s.io/v1`.
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
        Ok(Self { uid, namespace, dry_run: dry_run.unwrap_or(false), timeout: None, pod })
    }

    /// Takes over the API server's timeout from the query of the request, `timeout=5s`; what cannot be read is as if it were
    /// not there.
    #[must_use]
    pub fn with_query(mut self, query: Option<&str>) -> Self {
        let parameters = query.into_iter().flat_map(|query| query.split('&'));
        self.timeout = parameters
            .filter_map(|parameter| parameter.strip_prefix("timeout="))
            .find_map(|timeout| parse_duration(timeout).ok());
        self
    }
}

impl Verdict {
    /// The pod is none of our business.
    pub fn leave_alone() -> Self {
        Self::Allow { patch: Patch::default(), warnings: Vec::new() }
    }
}

impl Answer {
    /// The AdmissionReview that answers the request `uid`.
    ///
    /// # Errors
    ///
    /// When the patch cannot be serialized.
    pub fn into_review(self, uid: &str) -> Result<Value, serde_json::Error> {
        let Self { verdict, outcome, entries } = self;
        let mut response = match verdict {
            Verdict::Allow { patch, warnings } => {
                let warnings: Vec<String> = warnings.iter().map(|warning| shortened(warning)).collect();
                let mut response = json!({ "allowed": true, "warnings": warnings });
                if !patch.is_empty() {
                    response["patchType"] = "JSONPatch".into();
                    response["patch"] = BASE64_STANDARD.encode(serde_json::to_vec(&patch)?).into();
                }
                response
            }
            Verdict::Deny(Denial { code, message }) => json!({
                "allowed": false,
                "status": { "status": "Failure", "code": code, "message": message },
            }),
        };
        response["uid"] = uid.into();
        response["auditAnnotations"] = json!({ "outcome": outcome.label() });
        if !entries.is_empty() {
            let entries: Vec<String> = entries.iter().map(EntryId::to_string).collect();
            response["auditAnnotations"]["entries"] = entries.join(",").into();
        }
        Ok(json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response }))
    }
}

fn shortened(warning: &str) -> String {
    match warning.char_indices().nth(WARNING) {
        None => warning.to_owned(),
        Some(_) => warning.chars().take(WARNING - 2).chain("..".chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(verdict: Verdict) -> Answer {
        Answer { verdict, outcome: Outcome::Untouched, entries: Vec::new() }
    }

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
    fn the_api_servers_timeout_is_taken_from_its_query() {
        let timeout = |query| review(|_| {}).unwrap().with_query(query).timeout;
        assert_eq!(timeout(Some("timeout=5s")), Some(Duration::from_secs(5)));
        assert_eq!(timeout(Some("a=b&timeout=1m30s")), Some(Duration::from_secs(90)));
        assert_eq!(timeout(Some("timeout=soon")), None);
        assert_eq!(timeout(None), None);
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
        let answer = answer(Verdict::Allow { patch, warnings: vec!["w".into()] }).into_review("u-1").unwrap();
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        assert_eq!(patch, br#"[{"op":"add","path":"/a","value":1}]"#);
    }

    #[test]
    fn a_denial_carries_its_code_and_message() {
        let denial = Denial { code: 403, message: "no".into() };
        let answer = answer(Verdict::Deny(denial)).into_review("u-1").unwrap();
        assert_eq!(answer["response"]["status"]["code"], 403);
        assert_eq!(answer["response"]["allowed"], false);
    }

    #[test]
    fn the_audit_log_tells_the_outcome_and_the_entries() {
        let id = EntryId::random();
        let answer =
            Answer { entries: vec![id], outcome: Outcome::Injected, ..answer(Verdict::leave_alone()) };
        let audit = &answer.into_review("u").unwrap()["response"]["auditAnnotations"];
        assert_eq!(audit, &json!({ "outcome": "injected", "entries": id.to_string() }));
    }

    #[test]
    fn a_long_warning_is_cut_where_kubectl_would_cut_it() {
        let verdict =
            Verdict::Allow { patch: Patch::default(), warnings: vec!["ä".repeat(121), "b".repeat(120)] };
        let answer = answer(verdict).into_review("u").unwrap();
        let lengths = answer["response"]["warnings"].as_array().unwrap().iter();
        let lengths: Vec<usize> = lengths.map(|warning| warning.as_str().unwrap().chars().count()).collect();
        assert_eq!(lengths, [120, 120]);
        assert!(answer["response"]["warnings"][0].as_str().unwrap().ends_with(".."));
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
            let _ = Review::parse(&body);
            let whole = json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "request": { "uid": "u",
                "operation": "CREATE", "resource": { "resource": "pods" }, "object": { "metadata": {} } } });
            let whole = whole.to_string();
            let _ = Review::parse(&whole.as_bytes()[..cut.min(whole.len())]);
        }
    }
}
