//! What the chart renders, whole, for review.

use std::fs;

use serde_json::Value;

use crate::helm::{NAMESPACE, Rendered, VALUES, assert_derived, chart, helm, here, template, values};

/// Templates that hand on a file as it is.
const VERBATIM: [&str; 2] =
    ["# Source: vdbi/templates/dashboard.yaml", "# Source: vdbi/templates/prometheusrule.yaml"];

#[test]
fn what_is_rendered_is_what_was_reviewed() {
    for name in VALUES {
        let rendered = template("vdbi", NAMESPACE, &values(name)).unwrap();
        let documents = rendered.split_inclusive("\n---\n");
        let reviewed: String =
            documents.filter(|document| !VERBATIM.iter().any(|source| document.contains(source))).collect();
        assert_derived(&here().join(format!("snapshots/{name}.yaml")), &reviewed);
    }
}

#[test]
fn rules_and_dashboard_are_installed_as_they_are() {
    let rendered = Rendered::new(&values("operators"));
    if let Ok(rules) = fs::read_to_string(chart().join("files/rules.yaml")) {
        let rules: Value = serde_saphyr::from_str(&rules).unwrap();
        assert_eq!(rendered.get("PrometheusRule", "vdbi")["spec"], rules);
    }
    if let Ok(dashboard) = fs::read_to_string(chart().join("files/dashboard.json")) {
        let installed = rendered.get("ConfigMap", "vdbi-dashboard");
        assert_eq!(installed["data"]["vdbi.json"].as_str().unwrap().trim(), dashboard.trim());
        assert_eq!(installed["metadata"]["labels"]["grafana_dashboard"], "1");
    }
}

#[test]
fn helm_finds_nothing_to_warn_of() {
    for name in VALUES {
        let chart = chart();
        let report = helm(&["lint", "--strict", chart.to_str().unwrap()], Some(&values(name))).unwrap();
        assert!(!report.contains("[WARNING]") && !report.contains("[ERROR]"), "{name}: {report}");
    }
}
