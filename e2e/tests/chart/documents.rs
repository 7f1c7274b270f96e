//! `docs/chart.md` says what the chart has.

use std::fs;

use serde_json::{Value, json};

use crate::helm::{NAMESPACE, assert_derived, chart, refusal, root, template, values, with};

const VALUES: (&str, &str) = ("<!-- values -->\n", "<!-- end of values -->\n");

fn document() -> String {
    fs::read_to_string(root().join("docs/chart.md")).unwrap()
}

/// A line of the table for each value with a comment in `values.yaml`; components have most of theirs in common.
fn table() -> String {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    for line in text.lines() {
        let (content, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if let Some(text) = content.strip_prefix('#') {
            comment.push(text.trim().to_owned());
            continue;
        }
        let Some((key, value)) = content
            .split_once(':')
            .filter(|(key, _)| !key.is_empty() && key.chars().all(char::is_alphanumeric))
        else {
            comment.clear();
            continue;
        };
        parents.retain(|(level, _)| *level < indent);
        parents.push((indent, key.to_owned()));
        if !comment.is_empty() {
            let path: Vec<&str> = parents.iter().map(|(_, key)| key.as_str()).collect();
            let value = value.trim().split(" &").next().unwrap().trim_start_matches(['&', '*']);
            let default = match value {
                "" | "\"\"" | "null" => String::new(),
                value if value.contains("security-context") || value.contains("-probe") => String::new(),
                value => format!("`{value}`"),
            };
            table += &format!(
                "| `{}` | {default} | {} |\n",
                path.join("."),
                comment.join(" ").replace('|', "\\|").replace('<', "\\<")
            );
        }
        comment.clear();
    }
    table
}

#[test]
fn the_values_of_the_documentation_are_those_of_the_chart() {
    let document = document();
    let (before, rest) = document.split_once(VALUES.0).unwrap();
    let (_, after) = rest.split_once(VALUES.1).unwrap();
    let derived = format!("{before}{}{}{}{after}", VALUES.0, table(), VALUES.1);
    assert_derived(&root().join("docs/chart.md"), &derived);
}

/// The value at a path in the schema, references followed.
fn schema_at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut level = schema;
    for part in path.split('.') {
        level = resolved(schema, level)["properties"].get(part)?;
    }
    Some(resolved(schema, level))
}

fn resolved<'a>(schema: &'a Value, level: &'a Value) -> &'a Value {
    match level["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => level,
    }
}

fn properties(schema: &Value, at: &Value, path: &str, paths: &mut Vec<String>) {
    let at = resolved(schema, at);
    paths.push(path.to_owned());
    for (key, below) in at["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        properties(schema, below, &path, paths);
    }
}

fn schema() -> Value {
    serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap()
}

#[test]
fn every_value_is_in_the_schema_and_every_property_of_the_schema_is_a_value() {
    let schema = schema();
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let defaults: Value = serde_saphyr::from_str(&text).unwrap();
    let mut paths = Vec::new();
    properties(&schema, &schema, "", &mut paths);
    // Those of the configuration file have their defaults in the binaries, and some maps begin empty.
    let elsewhere = |path: &str| {
        path.contains("onfiguration.")
            || path == "global"
            // Other names of those of the components.
            || (path.starts_with("vaultDbInjector.") && !path.contains("onfiguration"))
            || path.contains("issuerRef.")
            || path.contains(".image.")
    };
    let missing: Vec<&String> = paths
        .iter()
        .filter(|path| !path.is_empty() && !elsewhere(path))
        .filter(|path| defaults.pointer(&format!("/{}", path.replace('.', "/"))).is_none())
        .collect();
    assert!(missing.is_empty(), "values.yaml lacks {missing:?}");
    assert!(paths.len() > 300, "{}", paths.len());
    for path in
        ["injector.replicas", "nri.prewarmer.maxConcurrent", "vaultDbInjector.configuration.renewer.renewAt"]
    {
        assert!(schema_at(&schema, path).is_some(), "{path}");
    }
}

/// A value that the schema takes at this place.
fn sample(schema: &Value, path: &str) -> Value {
    let at = schema_at(schema, path).unwrap();
    if let Some(choice) = at["enum"].as_array() {
        return choice.last().unwrap().clone();
    }
    let kind = at["type"].as_str().or_else(|| at["type"][0].as_str()).unwrap();
    match kind {
        "boolean" => json!(true),
        "integer" => json!(700),
        "number" => json!(0.5),
        "array" => json!([]),
        "object" => json!({}),
        _ if path.ends_with("pluginIndex") => json!("20"),
        _ if at["pattern"].as_str().is_some_and(|pattern| pattern.contains("ns|us")) => json!("5m"),
        _ => json!("text"),
    }
}

/// The rows of the table of the Go chart's keys: the key, and what becomes of it.
fn go_keys(document: &str) -> Vec<(String, String)> {
    let section = document.split("## From the Go chart").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (key, rest) = row.split_once("` | ").unwrap();
        (key.to_owned(), rest.trim_end_matches(" |").to_owned())
    })
    .collect()
}

#[test]
fn the_keys_of_the_go_chart_are_taken_or_refused_as_the_documentation_says() {
    let (schema, document) = (schema(), document());
    let keys = go_keys(&document);
    assert!(keys.len() > 50, "{}", keys.len());
    let least = template("vdbi", NAMESPACE, &with(json!({}))).unwrap();
    for (key, fate) in keys {
        let mut given = values("least");
        let mut level = &mut given;
        for part in key.split('.') {
            level = level.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        if fate.starts_with("refused") {
            assert!(schema_at(&schema, &key).is_none(), "{key}");
            *level = json!("text");
            let message = refusal(&given);
            assert!(
                message.contains(&format!("'{}' not allowed", key.rsplit('.').next().unwrap())),
                "{key}: {message}"
            );
            continue;
        }
        *level = sample(&schema, &key);
        if key.ends_with("useProjectedSA") {
            given["vaultDbInjector"]["configuration"]["tokenRequestAudiences"] = json!(["vault"]);
        }
        let rendered = template("vdbi", NAMESPACE, &given).unwrap_or_else(|error| panic!("{key}: {error}"));
        if fate.starts_with("no effect") {
            assert_eq!(rendered, least, "{key} has an effect");
        }
    }
}

#[test]
fn the_values_of_the_go_chart_are_all_in_the_table() {
    fn leaves(value: &Value, path: &str, paths: &mut Vec<String>) {
        match value {
            Value::Object(keys) if !keys.is_empty() => {
                for (key, value) in keys {
                    leaves(
                        value,
                        &if path.is_empty() { key.clone() } else { format!("{path}.{key}") },
                        paths,
                    );
                }
            }
            _ => paths.push(path.to_owned()),
        }
    }
    let document = document();
    let keys = go_keys(&document);
    let mut paths = Vec::new();
    leaves(&values("go-defaults"), "", &mut paths);
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !keys.iter().any(|(key, _)| key == *path || path.starts_with(&format!("{key}."))))
        .collect();
    assert!(missing.is_empty(), "docs/chart.md does not tell of {missing:?}");
}
