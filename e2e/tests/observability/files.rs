//! The files that belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::Value;

use crate::panels::Panel;

/// The labels of a target, which the rules and the dashboard rely on.
pub(crate) const TARGET_LABELS: [&str; 5] = ["namespace", "release", "component", "instance", "pod"];

/// One rule of the file.
pub(crate) struct Rule {
    /// Its name, where it is an alert.
    pub(crate) alert: Option<String>,
    /// Its name, where it is a record.
    pub(crate) record: Option<String>,
    pub(crate) expression: String,
    pub(crate) labels: Value,
    pub(crate) annotations: Value,
}

pub(crate) fn path(of: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(of)
}

pub(crate) fn read(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap_or_else(|error| panic!("{of}: {error}"))
}

pub(crate) fn rules() -> Vec<Rule> {
    let file: Value = serde_saphyr::from_str(&read("charts/vdbi/files/rules.yaml")).unwrap();
    let groups = file["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    rules
        .map(|rule| Rule {
            alert: text(&rule["alert"]),
            record: text(&rule["record"]),
            expression: text(&rule["expr"]).unwrap(),
            labels: rule["labels"].clone(),
            annotations: rule["annotations"].clone(),
        })
        .collect()
}

pub(crate) fn alerts() -> BTreeSet<String> {
    rules().into_iter().filter_map(|rule| rule.alert).collect()
}

pub(crate) fn dashboard() -> Vec<Panel> {
    let file: Value = serde_json::from_str(&read("charts/vdbi/files/dashboard.json")).unwrap();
    Panel::all(&file)
}

/// A metric as `docs/metrics.md` lists it.
pub(crate) struct Listed {
    pub(crate) is_histogram: bool,
    pub(crate) labels: BTreeSet<String>,
}

pub(crate) fn metrics() -> BTreeMap<String, Listed> {
    let mut all = BTreeMap::new();
    for line in read("docs/metrics.md").lines().filter(|line| line.starts_with("| `vdbi_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let listed = Listed {
            is_histogram: cells[2] == "histogram",
            labels: labels.filter(|label| !label.is_empty()).collect(),
        };
        // Some are listed once more with the label `uuid`, which nobody has by default.
        all.entry(cells[1].trim_matches('`').to_owned()).or_insert(listed);
    }
    all
}
