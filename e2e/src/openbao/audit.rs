use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// A request as the server's audit log has it; tokens and values are hashed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Unique to the request.
    pub id: String,
    /// When it was answered.
    pub time: Timestamp,
    /// `read`, `update`, `list`, ..
    pub operation: String,
    /// Without `/v1/`, such as `sys/leases/renew`.
    pub path: String,
    /// Who asked: the display name of the token, such as `kubernetes-vdbi-system-vdbi-renewer`.
    pub display_name: String,
    /// The lease that it is about, as a hash.
    pub lease: Option<String>,
    /// What the server answered with, when it refused.
    pub error: Option<String>,
}

/// Built from the answers, as only these say how a request ended; each request has one.
pub(super) fn requests(log: &Path) -> Result<Vec<Request>> {
    let text = fs::read_to_string(log).context("the audit log of OpenBao could not be read")?;
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    // A test of the audit device itself has no answer, and a line that is still being written does not parse.
    let answers = entries.filter(|entry| entry.kind == "response");
    Ok(answers
        .map(|entry| Request {
            id: entry.request.id,
            time: entry.time,
            operation: entry.request.operation,
            path: entry.request.path,
            display_name: entry.auth["display_name"].as_str().unwrap_or_default().to_owned(),
            lease: entry.request.data["lease_id"].as_str().map(str::to_owned),
            error: entry.error,
        })
        .collect())
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    #[serde(default)]
    auth: Value,
    request: Asked,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    id: String,
    operation: String,
    path: String,
    #[serde(default)]
    data: Value,
}
