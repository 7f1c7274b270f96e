//! What promtool says of the rules: they are well formed, and each alert fires when it should and not otherwise.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::installed::Installed;
use serde_json::Value;

use crate::files;

const TESTS: &str = "charts/vdbi/tests/rules-test.yaml";

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() -> Result<()> {
    for arguments in [["check", "rules", "charts/vdbi/files/rules.yaml"], ["test", "rules", TESTS]] {
        let mut promtool = Command::new(Installed::Promtool.path()?);
        let output = promtool.args(arguments).current_dir(files::path("")).output()?;
        ensure!(
            output.status.success(),
            "promtool {arguments:?}:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The tests have two releases, `bad` and `good`, side by side.
#[test]
fn each_alert_is_tested_to_fire_for_one_release_and_not_for_another() {
    let file: Value = serde_saphyr::from_str(&files::read(TESTS)).unwrap();
    let tests = file["tests"].as_array().unwrap();
    for alert in files::alerts() {
        // Of a release that is not scraped nothing is known.
        if alert == "VdbiNotScraped" {
            continue;
        }
        let test = tests.iter().find(|test| test["name"] == alert.as_str());
        let test = test.unwrap_or_else(|| panic!("{TESTS} has no test named {alert}"));
        let series = test["input_series"].to_string();
        assert!(series.contains("good") && series.contains("bad"), "{alert}: two releases are needed");
        let checks = test["promql_expr_test"].as_array().unwrap();
        let mine = |check: &&Value| {
            check["expr"].as_str().is_some_and(|expr| expr.contains(&format!("\"{alert}\"")))
        };
        let samples = |check: &Value| check["exp_samples"].as_array().map_or(0, Vec::len);
        assert!(
            checks.iter().filter(mine).any(|check| samples(check) == 0),
            "{alert}: when does it not fire?"
        );
        let firing: Vec<_> = checks.iter().filter(mine).filter(|check| samples(check) > 0).collect();
        assert!(!firing.is_empty(), "{alert}: when does it fire?");
        for check in firing {
            let fires = check["exp_samples"].to_string();
            assert!(fires.contains("bad") && !fires.contains("good"), "{alert}: {fires}");
        }
    }
}
