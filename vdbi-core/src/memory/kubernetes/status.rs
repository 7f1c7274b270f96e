//! Refusals, worded as an API server words them.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{connection::AnswerBody, connection::full, resource::Resource};

/// A refusal: what becomes a `Status` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
    about: Option<Box<About>>,
    /// A reason and a message.
    cause: Option<(&'static str, String)>,
}

/// The object that a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct About {
    name: String,
    group: &'static str,
    /// The kind in some refusals, the plural name of the resource in most: as API servers have it.
    kind: &'static str,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            retry_after: None,
            about: None,
            cause: None,
        }
    }

    /// A refusal with the reason that belongs to its code.
    pub(super) fn of_code(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self::new(code, reason, message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::of_code(400, message)
    }

    pub(super) fn internal(message: impl std::fmt::Display) -> Self {
        Self::of_code(500, format!("Internal error occurred: {message}"))
    }

    pub(super) fn unknown_path() -> Self {
        Self::of_code(404, "the server could not find the requested resource")
    }

    pub(super) fn not_found(resource: &'static Resource, name: &str) -> Self {
        Self::of_code(404, format!("{} \"{name}\" not found", resource.qualified())).about(resource, name)
    }

    pub(super) fn already_exists(resource: &'static Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    pub(super) fn conflict(resource: &'static Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::of_code(409, message).about(resource, name)
    }

    /// The conflict of a stale resourceVersion.
    pub(super) fn modified(resource: &'static Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// An object that breaks the rules of its kind.
    pub(super) fn invalid(resource: &'static Resource, name: &str, why: &str) -> Self {
        Self::of_code(422, format!("{} \"{name}\" is invalid: {why}", resource.qualified_kind()))
            .about_kind(resource, name)
    }

    /// An update that breaks the rules of all kinds.
    pub(super) fn invalid_update(resource: &'static Resource, name: &str, why: &str) -> Self {
        Self::of_code(422, format!("{} \"{name}\" is invalid: {why}", resource.qualified()))
            .about(resource, name)
    }

    pub(super) fn failed_precondition(resource: &'static Resource, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified_kind());
        Self::of_code(409, message).about_kind(resource, name)
    }

    /// What an eviction meets that a disruption budget has nothing left for.
    pub(super) fn disruption_budget(why: &str) -> Self {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        Self { cause: Some(("DisruptionBudget", why.to_owned())), ..Self::of_code(429, message) }
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::of_code(405, "the server does not allow this method on the requested resource")
    }

    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::of_code(410, format!("too old resource version: {asked} ({oldest})"))
    }

    fn about(mut self, resource: &'static Resource, name: &str) -> Self {
        self.about = Some(About::new(resource, resource.plural, name));
        self
    }

    fn about_kind(mut self, resource: &'static Resource, name: &str) -> Self {
        self.about = Some(About::new(resource, resource.kind, name));
        self
    }

    /// The `Status` object.
    pub(super) fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(About { name, group, kind }) = self.about.as_deref() {
            status["details"] = json!({"name": name, "kind": kind});
            if !group.is_empty() {
                status["details"]["group"] = (*group).into();
            }
        }
        if let Some((reason, message)) = &self.cause {
            status["details"]["causes"] = json!([{"reason": reason, "message": message}]);
        }
        if let Some(delay) = self.retry_after {
            status["details"]["retryAfterSeconds"] = delay.as_secs().into();
        }
        status
    }

    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let mut response = Response::new(full(self.to_json().to_string()));
        *response.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        response
    }
}

impl About {
    fn new(resource: &'static Resource, kind: &'static str, name: &str) -> Box<Self> {
        Box::new(Self { name: name.to_owned(), group: resource.group, kind })
    }
}
