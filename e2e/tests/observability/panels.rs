//! The dashboard's panels.

use std::collections::BTreeMap;

use serde_json::Value;

/// One panel.
pub(crate) struct Panel {
    /// The title of the row in which it is.
    pub(crate) row: String,
    pub(crate) title: String,
    pub(crate) description: String,
    /// Whether it shows the latest value, and no course.
    pub(crate) is_number: bool,
    /// Whether it adds up its lines.
    pub(crate) is_stacked: bool,
    /// Of 24 columns: from which one on, and how many.
    pub(crate) columns: (u64, u64),
    /// From which line on, and how many.
    pub(crate) lines: (u64, u64),
    pub(crate) unit: String,
    /// Texts in place of numbers.
    pub(crate) texts: Value,
    /// Units of what has the axis on the right, by legend.
    pub(crate) right: BTreeMap<String, String>,
    pub(crate) targets: Vec<Target>,
}

/// One query of a panel.
pub(crate) struct Target {
    /// As it is in the file, with variables of Grafana's.
    pub(crate) expression: String,
    /// With `{{label}}` in the place of labels.
    pub(crate) legend: String,
}

impl Panel {
    pub(crate) fn all(dashboard: &Value) -> Vec<Self> {
        let mut row = String::new();
        let mut panels = Vec::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if panel["type"] == "row" {
                row = text(&panel["title"]);
                continue;
            }
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let targets = panel["targets"].as_array().unwrap().iter();
            let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap().iter();
            panels.push(Self {
                row: row.clone(),
                title: text(&panel["title"]),
                description: text(&panel["description"]),
                is_number: panel["type"] == "stat",
                is_stacked: panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal",
                columns: (place("x"), place("w")),
                lines: (place("y"), place("h")),
                unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
                texts: panel["fieldConfig"]["defaults"]["mappings"][0]["options"].clone(),
                right: overrides
                    .map(|one| (text(&one["matcher"]["options"]), text(&one["properties"][0]["value"])))
                    .collect(),
                targets: targets
                    .map(|target| Target {
                        expression: text(&target["expr"]),
                        legend: text(&target["legendFormat"]),
                    })
                    .collect(),
            });
        }
        panels
    }
}

impl Target {
    /// The query as Grafana would send it, with all variables at "all", for a look at this many seconds.
    pub(crate) fn query(&self, rate: &str, range: f64) -> String {
        self.expression
            .replace("$__rate_interval", rate)
            .replace("$__range", &format!("{range:.0}s"))
            .replace("\"$namespace\"", "\".*\"")
            .replace("\"$release\"", "\".*\"")
    }
}
