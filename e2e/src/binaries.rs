use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

static BUILT: Mutex<Option<HashMap<(String, String), PathBuf>>> = Mutex::new(None);

/// The path of one of the workspace's programs, as it is in the tree now: it is built once per process, so that no test runs a
/// stale one. It is a release build when the caller is one.
///
/// It blocks while cargo builds, which can take minutes the first time.
///
/// # Errors
///
/// When it does not build; the error carries what cargo said.
pub fn binary(package: &str, name: &str) -> Result<PathBuf> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let key = (package.to_owned(), name.to_owned());
    if let Some(path) = built.get(&key) {
        return Ok(path.clone());
    }
    let path = build(package, name)?;
    built.insert(key, path.clone());
    Ok(path)
}

fn build(package: &str, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // A debug build is of all of them, with the features of the workspace: what one package alone would enable differs, and each
    // difference would build the dependencies once more.
    let what = if cfg!(debug_assertions) {
        vec!["--workspace", "--bins", "--all-features"]
    } else {
        vec!["--release", "--package", package, "--bin", name]
    };
    let mut command = Command::new(cargo);
    // What cargo tells a test about itself would tell some build scripts that something changed, and they run again for minutes.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"]
            .iter()
            .any(|of| text.starts_with(of))
        {
            command.env_remove(&name);
        }
    }
    let output = command
        .args(["build", "--quiet"])
        .args(what)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .context("cargo could not be run")?;
    ensure!(
        output.status.success(),
        "{name} of package {package} does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built {name} of package {package} but named no executable"))
}
