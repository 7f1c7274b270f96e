//! Which path asks what.

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use url::form_urlencoded;

use super::{answer, page::PrometheusPage};
use crate::health::{Health, Probe};

/// The text format that every Prometheus reads.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The paths of each probe; the later ones are for those who came from elsewhere.
const PATHS: [(&str, Probe); 4] =
    [("/livez", Probe::Live), ("/healthz", Probe::Live), ("/live", Probe::Live), ("/readyz", Probe::Ready)];

pub(super) fn health(health: Health) -> Router {
    let mut router = Router::new();
    for (path, probe) in PATHS {
        let all = move |State(health): State<Health>, RawQuery(query): RawQuery| async move {
            let query = Query::parse(query.as_deref());
            answer::to(&health.report(probe, &query.exclude), query.verbose)
        };
        let one = move |State(health): State<Health>, Path(name): Path<String>, RawQuery(query): RawQuery| async move {
            match health.report_one(probe, &name) {
                Some(report) => answer::to(&report, Query::parse(query.as_deref()).verbose),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        };
        router = router.route(path, get(all)).route(&format!("{path}/{{name}}"), get(one));
    }
    router.with_state(health)
}

pub(super) fn metrics(page: PrometheusPage) -> Router {
    Router::new().fallback(get(render)).with_state(page)
}

async fn render(State(page): State<PrometheusPage>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS)], page.render()).into_response()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    verbose: bool,
    exclude: Vec<String>,
}

impl Query {
    /// A probe is never turned away for its query: what is not known is ignored, as the API server does.
    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "verbose" => parsed.verbose = true,
                "exclude" => parsed.exclude.push(value.into_owned()),
                _ => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_may_be_repeated_and_verbose_needs_no_value() {
        let query = Query::parse(Some("exclude=ping&verbose&timeout=1s&exclude=a%20b"));
        assert_eq!(query, Query { verbose: true, exclude: vec!["ping".to_owned(), "a b".to_owned()] });
        assert_eq!(Query::parse(None), Query::default());
    }
}
