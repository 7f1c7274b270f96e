//! A health report as an HTTP answer.

use std::{collections::BTreeMap, fmt::Write};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::health::{Probe, Report, State};

/// 200 when every check passed, otherwise 503.
pub(super) fn to(report: &Report, verbose: bool) -> Response {
    let status = if report.passed() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    if verbose {
        (status, headers, text(report)).into_response()
    } else {
        (status, headers, Json(json(report, Timestamp::now()))).into_response()
    }
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    status: &'static str,
    timestamp: String,
    #[serde(flatten)]
    details: BTreeMap<&'static str, &'a Value>,
    checks: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'static str,
    status: &'static str,
    message: &'a str,
}

fn json(report: &Report, now: Timestamp) -> Body<'_> {
    let status = match (report.probe, report.passed()) {
        (Probe::Live, true) => "healthy",
        (Probe::Live, false) => "unhealthy",
        (Probe::Ready, true) => "ready",
        (Probe::Ready, false) => "not ready",
    };
    let checks = report
        .checks
        .iter()
        .map(|check| {
            let (status, message) = match &check.state {
                State::Passed => ("ok", ""),
                State::Failed(reason) => ("failed", reason.as_str()),
                State::Excluded => ("excluded", ""),
            };
            Line { name: check.name, status, message }
        })
        .collect();
    let details = report.details.iter().map(|(name, value)| (*name, value)).collect();
    Body { status, timestamp: format!("{now:.3}"), details, checks }
}

/// As the API server writes it (`k8s.io/apiserver/pkg/server/healthz`), so that tools and eyes made for it work here.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let name = check.name;
        // Writing to a String cannot fail.
        let _ = match check.state {
            State::Passed => writeln!(text, "[+]{name} ok"),
            State::Failed(_) => writeln!(text, "[-]{name} failed: reason withheld"),
            State::Excluded => writeln!(text, "[+]{name} excluded: ok"),
        };
    }
    if !report.unmatched.is_empty() {
        let names: Vec<String> = report.unmatched.iter().map(|name| format!("{name:?}")).collect();
        let _ =
            writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", names.join(","));
    }
    let probe = match report.probe {
        Probe::Live => "livez",
        Probe::Ready => "readyz",
    };
    let _ = writeln!(text, "{probe} check {}", if report.passed() { "passed" } else { "failed" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    fn failing() -> Health {
        let health = Health::new();
        health.register("vault-login", Probe::Ready).fail("permission denied");
        health
    }

    #[test]
    fn the_text_withholds_reasons() {
        assert_eq!(
            text(&failing().report(Probe::Ready, &[])),
            "[+]shutdown ok\n[-]vault-login failed: reason withheld\nreadyz check failed\n"
        );
        assert_eq!(text(&failing().report(Probe::Live, &[])), "[+]ping ok\nlivez check passed\n");
    }

    #[test]
    fn the_text_names_what_was_excluded_and_what_could_not_be() {
        let report = failing().report(Probe::Ready, &["vault-login".to_owned(), "x\"y".to_owned()]);
        assert_eq!(
            text(&report),
            "[+]shutdown ok\n[+]vault-login excluded: ok\n\
             warn: some health checks cannot be excluded: no matches for \"x\\\"y\"\nreadyz check passed\n"
        );
    }

    #[test]
    fn the_json_says_what_is_wrong_and_when() {
        let now: Timestamp = "2026-11-24T02:42:00.1Z".parse().unwrap();
        let health = failing();
        health.describe("leader", || serde_json::json!({ "holder": "a" }));
        let ready = health.report(Probe::Ready, &[]);
        assert_eq!(
            serde_json::to_value(json(&ready, now)).unwrap(),
            serde_json::json!({
                "status": "not ready",
                "timestamp": "2026-11-24T02:42:00.100Z",
                "leader": { "holder": "a" },
                "checks": [
                    { "name": "shutdown", "status": "ok", "message": "" },
                    { "name": "vault-login", "status": "failed", "message": "permission denied" },
                ],
            })
        );
        assert_eq!(json(&failing().report(Probe::Live, &[]), now).status, "healthy");
    }
}
