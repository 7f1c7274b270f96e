use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One answer of the API server, from its audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, ..
    pub verb: String,
    /// Who asked, such as `system:serviceaccount:vdbi-system:vdbi-renewer`.
    pub user: String,
    /// The path and the query.
    pub uri: String,
    /// What was asked for; none for paths such as `/readyz`.
    pub object: Option<ObjectRef>,
    /// `ResponseComplete`; a watch has an event when it begins as well, `ResponseStarted`.
    pub stage: String,
    /// The status of the answer; none while a watch goes on.
    pub code: Option<u16>,
    /// What the authorizer and the admission plugins noted.
    pub annotations: BTreeMap<String, String>,
}

/// What a request was about; absent parts are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Such as `coordination.k8s.io`; empty for pods and other objects of the core.
    pub api_group: String,
    /// Such as `pods`.
    pub resource: String,
    /// Such as `token`.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name; empty for lists and watches of many.
    pub name: String,
}

impl AuditEvent {
    /// Whether the authorizer refused it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        // Admission refuses with 403 as well, after the authorizer has allowed it.
        match self.annotations.get("authorization.k8s.io/decision") {
            Some(decision) => decision == "forbid",
            None => self.code == Some(403),
        }
    }
}

pub(super) fn events(log: &Path) -> Result<Vec<AuditEvent>> {
    let text = fs::read_to_string(log).context("the audit log of the API server could not be read")?;
    // A line that is still being written does not parse.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    Ok(entries
        .map(|entry| AuditEvent {
            verb: entry.verb,
            user: entry.user.username,
            uri: entry.request_uri,
            stage: entry.stage,
            object: entry.object_ref,
            code: entry.response_status.and_then(|status| status.code),
            annotations: entry.annotations,
        })
        .collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    stage: String,
    user: User,
    #[serde(rename = "requestURI")]
    request_uri: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}
