//! Rules, dashboard and documentation name what exists, and all of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    files::{self, Listed, TARGET_LABELS},
    promql::names,
};

/// Metrics that the dashboard does without.
const NOT_SHOWN: [&str; 5] = [
    // Both are in vdbi_admissions_total, with more.
    "vdbi_mutated_pods_success_count",
    "vdbi_mutated_pods_error_count",
    // It is in vdbi_leader_election_acquired_total.
    "vdbi_leader_election_lease_transitions",
    // With metrics.perPod only: a dashboard of thousands of lines shows nothing.
    "vdbi_lease_expiration",
    "vdbi_token_expiration",
];

#[test]
fn rules_and_dashboard_name_metrics_and_labels_of_the_reference_only() {
    let reference = Reference::new();
    let mut wrong = Vec::new();
    for rule in files::rules() {
        let name = rule.alert.or(rule.record).unwrap();
        wrong.extend(
            reference.unknown(&rule.expression).into_iter().map(|what| format!("rule {name}: {what}")),
        );
    }
    for panel in files::dashboard() {
        for target in &panel.targets {
            let known = reference.unknown(&target.expression);
            wrong.extend(known.into_iter().map(|what| format!("panel {}: {what}", panel.title)));
            for label in target.legend.split("{{").skip(1).filter_map(|part| part.split("}}").next()) {
                let grouped = names(&target.expression).labels.contains(label);
                if !grouped && !TARGET_LABELS.contains(&label) {
                    wrong.push(format!("panel {}: the legend has {label}, the query has not", panel.title));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_metric_is_on_the_dashboard_or_left_out_on_purpose() {
    let panels = files::dashboard();
    let targets = panels.iter().flat_map(|panel| &panel.targets);
    let shown: BTreeSet<String> = targets
        .flat_map(|target| names(&target.expression).selectors)
        .map(|(name, _)| base(&name).to_owned())
        .collect();
    let metrics = files::metrics();
    let missing: Vec<_> =
        metrics.keys().filter(|name| !shown.contains(*name) && !NOT_SHOWN.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "on no panel: {missing:?}");
    for name in NOT_SHOWN {
        assert!(metrics.contains_key(name) && !shown.contains(name), "{name} need not be left out");
    }
}

#[test]
fn every_panel_says_what_it_answers_and_the_page_shows_it() {
    let panels = files::dashboard();
    assert!(panels.len() >= 25, "{} panels", panels.len());
    let page = files::read("docs/monitoring.md");
    for panel in &panels {
        let line = format!("| {} | {} |", panel.title, panel.description);
        assert!(page.contains(&line), "docs/monitoring.md lacks the line\n{line}");
        assert!(panel.description.ends_with(['.', '?']), "panel {} has no description", panel.title);
        assert!(!panel.unit.is_empty() && !panel.targets.is_empty(), "panel {}", panel.title);
    }
    let rows: BTreeSet<&str> = panels.iter().map(|panel| panel.row.as_str()).collect();
    for row in rows {
        let picture = format!("monitoring/{}.svg", crate::picture::file_name(row));
        assert!(page.contains(&picture), "docs/monitoring.md does not show {picture}");
        assert!(files::path("docs").join(&picture).is_file(), "docs/{picture} is missing");
    }
}

#[test]
fn every_alert_is_explained_and_every_explanation_has_an_alert() {
    let page = files::read("docs/monitoring.md");
    let explained: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### Vdbi"))
        .map(|name| format!("Vdbi{name}"))
        .collect();
    assert_eq!(explained, files::alerts());
    for rule in files::rules() {
        let Some(alert) = rule.alert else { continue };
        let text = |key: &str| rule.annotations[key].as_str().unwrap_or_default();
        assert_eq!(text("runbook"), format!("docs/monitoring.md#{}", alert.to_lowercase()));
        assert!(text("summary").ends_with('.') && text("description").ends_with('.'), "{alert}");
        let severity = rule.labels["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{alert} has the severity {severity:?}");
        let said = page.split(&format!("### {alert}\n")).nth(1).unwrap_or_default().trim_start();
        assert!(said.starts_with(&format!("*{severity}*")), "docs/monitoring.md: {alert} is {severity}");
    }
}

/// What may be named.
struct Reference {
    metrics: BTreeMap<String, Listed>,
    process: BTreeSet<String>,
    records: BTreeSet<String>,
}

impl Reference {
    fn new() -> Self {
        let (_, page) = vdbi_core::admin::prometheus().unwrap();
        let page = page.render();
        let process = page.lines().filter(|line| line.starts_with("process_"));
        Self {
            metrics: files::metrics(),
            process: process.filter_map(|line| line.split([' ', '{']).next()).map(str::to_owned).collect(),
            records: files::rules().into_iter().filter_map(|rule| rule.record).collect(),
        }
    }

    /// What an expression names that does not exist.
    fn unknown(&self, expression: &str) -> Vec<String> {
        let (mut wrong, mut grouping) = (Vec::new(), labels_of(&[]));
        let names = names(expression);
        if names.selectors.is_empty() {
            wrong.push("no metric at all".to_owned());
        }
        for (name, compared) in names.selectors {
            let Some(labels) = self.labels(&name) else {
                wrong.push(format!("there is no {name}"));
                continue;
            };
            wrong.extend(compared.difference(&labels).map(|label| format!("{name} has no label {label}")));
            grouping.extend(labels);
        }
        wrong
            .extend(names.labels.difference(&grouping).map(|label| format!("nothing has the label {label}")));
        wrong
    }

    /// The labels of a metric's series as Prometheus stores them, if there is one of this name.
    fn labels(&self, name: &str) -> Option<BTreeSet<String>> {
        if name == "ALERTS" {
            return Some(labels_of(&["alertname", "alertstate", "severity"]));
        }
        if self.process.contains(name) || self.records.contains(name) {
            return Some(labels_of(&[]));
        }
        let listed = self.metrics.get(base(name))?;
        if listed.is_histogram == (base(name) == name) {
            return None;
        }
        let own = listed.labels.iter().map(|label| match label.as_str() {
            "namespace" => "exported_namespace",
            label => label,
        });
        let own: Vec<&str> = own.chain(name.ends_with("_bucket").then_some("le")).collect();
        Some(labels_of(&own))
    }
}

fn labels_of(own: &[&str]) -> BTreeSet<String> {
    TARGET_LABELS.iter().chain(own).map(|label| (*label).to_owned()).collect()
}

/// The name in the reference: a histogram has three kinds of series. No other metric's name ends like theirs, but for some counters.
fn base(name: &str) -> &str {
    match ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix)) {
        Some(base) if base.ends_with("_seconds") || base.ends_with("_duration") => base,
        _ => name,
    }
}
