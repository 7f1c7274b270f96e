//! The references in `docs/` say what the code does. No server is needed.

use std::{collections::BTreeSet, fs, path::Path};

use vdbi_core::metrics::{Definition, Kind};

/// Every component's metrics.
const METRICS: [&[Definition]; 10] = [
    vdbi_core::custody::metrics::ALL,
    vdbi_core::vault::metrics::ALL,
    vdbi_webhook::metrics::ALL,
    vdbi_lifecycle::renewer::metrics::ALL,
    vdbi_lifecycle::renewer::metrics::per_pod::ALL,
    vdbi_lifecycle::rotation::metrics::ALL,
    vdbi_lifecycle::revoker::metrics::ALL,
    vdbi_lifecycle::election::metrics::ALL,
    vdbi_nri::metrics::ALL,
    vdbi_nri::stub::metrics::ALL,
];

#[test]
fn the_metric_reference_lists_every_metric_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(path).unwrap();
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `vdbi_")).collect();
    let rows: Vec<String> = METRICS.into_iter().flatten().map(row).collect();

    let expected: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(expected.len(), rows.len(), "a metric is defined twice");
    let found: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(found.len(), listed.len(), "a metric is listed twice");
    let missing: Vec<_> = expected.difference(&found).copied().collect();
    let surplus: Vec<_> = found.difference(&expected).copied().collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "add to docs/metrics.md:\n{}\nremove from it:\n{}",
        missing.join("\n"),
        surplus.join("\n")
    );
}

fn row(definition: &Definition) -> String {
    let kind = match definition.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = definition.labels.iter().map(|label| format!("`{label}`")).collect();
    let cells =
        [format!("`{}`", definition.name), kind.to_owned(), labels.join(", "), definition.help.to_owned()];
    format!("| {} |", cells.join(" | "))
}

/// A recipe is a shortcut, never the only way.
#[test]
fn every_recipe_is_a_command_that_the_documentation_names_and_the_other_way_round() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (justfile, contributing) = (read("justfile"), read("CONTRIBUTING.md"));
    let mut recipes = BTreeSet::new();
    let mut name = "";
    for line in justfile.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            Some("@just --list") => {}
            Some(command) => {
                let fixed = command.split(" {{").next().unwrap_or_default();
                recipes.insert((name.to_owned(), fixed.to_owned()));
            }
            None => name = line.split([' ', ':']).next().unwrap_or_default(),
        }
    }
    let rows = contributing.lines().filter_map(|line| line.strip_prefix("| `just "));
    let rows: BTreeSet<(String, String)> = rows
        .map(|row| {
            let (recipe, command) = row.split_once("` | `").unwrap();
            let (name, argument) = recipe.split_once(' ').unwrap_or((recipe, ""));
            let command = command.trim_end_matches("` |");
            let command = command.strip_suffix(argument).unwrap_or(command).trim_end();
            (name.to_owned(), command.to_owned())
        })
        .collect();
    assert!(recipes.len() > 5, "{recipes:?}");
    assert_eq!(recipes, rows, "the justfile, and the table of CONTRIBUTING.md");
    let stages = read("hack/test");
    for (_, command) in recipes.iter().filter(|(_, command)| command.starts_with("hack/test ")) {
        for stage in command.split(' ').skip(1) {
            assert!(stages.contains(&format!("stage_{stage}()")), "hack/test has no stage {stage}");
        }
    }
}

/// Names of tests in code spans of these pages: long ones with underscores.
#[test]
fn every_test_that_the_documentation_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for crate_directory in ["vdbi-core", "vdbi-webhook", "vdbi-lifecycle", "vdbi-nri", "e2e"] {
        read_sources(&root.join(crate_directory), &mut sources).unwrap();
    }
    let exists = |name: &&str| sources.iter().any(|source| source.contains(&format!("fn {name}(")));
    for (page, at_least) in [("docs/improvements.md", 40), ("docs/security.md", 15)] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let named: BTreeSet<&str> = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|span| span.matches('_').count() > 2 && !span.contains(['{', ' ', '/']))
            .collect();
        assert!(named.len() > at_least, "{page} names {} tests", named.len());
        let missing: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:?}");
    }
}

fn read_sources(directory: &Path, sources: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(fs::read_to_string(path)?);
        }
    }
    Ok(())
}
