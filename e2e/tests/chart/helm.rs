//! Helm, and what it renders.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use e2e::{installed::Installed, system::merge};
use serde_json::{Value, json};

/// The namespace of a release, unless a test says otherwise.
pub(crate) const NAMESPACE: &str = "vdbi-system";

/// The value sets in `values/`, together everything that the chart can render.
pub(crate) const VALUES: [&str; 5] = ["least", "go-defaults", "node-plugin", "operators", "everything"];

/// The chart's directory.
pub(crate) fn chart() -> PathBuf {
    root().join("charts/vdbi")
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directory of this test.
pub(crate) fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart")
}

/// A value set of `values/`.
pub(crate) fn values(name: &str) -> Value {
    let text = fs::read_to_string(here().join(format!("values/{name}.yaml"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// The least values, and these over them.
pub(crate) fn with(more: Value) -> Value {
    let mut values = values("least");
    merge(&mut values, more);
    values
}

/// A file that is derived from others: `VDBI_WRITE_DOCS` writes it, otherwise it has to be as it would be written.
pub(crate) fn assert_derived(path: &Path, derived: &str) {
    if std::env::var_os("VDBI_WRITE_DOCS").is_some() {
        fs::write(path, derived).unwrap();
        return;
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    let differing = written.lines().zip(derived.lines()).find(|(written, derived)| written != derived);
    assert!(
        written == derived,
        "run VDBI_WRITE_DOCS=1 cargo test -p e2e --test chart, and look at what it changes in {}; the first difference: {differing:?}",
        path.display()
    );
}

/// A run of Helm that knows nothing of the user's own repositories and plugins.
pub(crate) fn helm(arguments: &[&str], values: Option<&Value>) -> Result<String> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new(Installed::Helm.path()?);
    command.env("HOME", home.path()).env_remove("KUBECONFIG").args(arguments);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    if let Some(values) = values {
        let file = home.path().join("values.json");
        // JSON is YAML.
        fs::write(&file, serde_json::to_vec(values)?)?;
        command.arg("--values").arg(file);
    }
    let output = command.output().context("helm does not run")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What `helm template` prints.
pub(crate) fn template(release: &str, namespace: &str, values: &Value) -> Result<String> {
    let chart = chart();
    helm(&["template", release, chart.to_str().unwrap(), "--namespace", namespace], Some(values))
}

/// Why `helm template` refuses.
pub(crate) fn refusal(values: &Value) -> String {
    template("vdbi", NAMESPACE, values).expect_err("it was rendered").to_string()
}

/// The objects of a release.
pub(crate) struct Rendered(Vec<Value>);

impl Rendered {
    /// As the release `vdbi` in [`NAMESPACE`].
    #[track_caller]
    pub(crate) fn new(values: &Value) -> Self {
        Self::of("vdbi", NAMESPACE, values)
    }

    #[track_caller]
    pub(crate) fn of(release: &str, namespace: &str, values: &Value) -> Self {
        let text = template(release, namespace, values).unwrap();
        let documents = text.split("\n---\n").filter(|document| document.contains("kind:"));
        Self(documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect())
    }

    pub(crate) fn all(&self) -> &[Value] {
        &self.0
    }

    /// Those of a kind.
    pub(crate) fn kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        let found = self.kind(kind).into_iter().find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// The pod templates, by their workload's component.
    pub(crate) fn pods(&self) -> Vec<(String, &Value)> {
        let workloads =
            self.0.iter().filter(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet");
        workloads
            .map(|object| {
                let component = object["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap();
                (component.to_owned(), &object["spec"]["template"])
            })
            .collect()
    }

    /// A component's configuration file.
    #[track_caller]
    pub(crate) fn configuration(&self, component: &str) -> (String, Value) {
        let found = self.kind("ConfigMap").into_iter().find(|object| {
            object["metadata"]["labels"]["app.kubernetes.io/component"] == component
                && object["data"]["config.yaml"] != json!(null)
        });
        let text = found.unwrap()["data"]["config.yaml"].as_str().unwrap().to_owned();
        let parsed = serde_saphyr::from_str(&text).unwrap();
        (text, parsed)
    }
}

/// How an object is called, as `Kind/name`.
pub(crate) fn title(object: &Value) -> String {
    format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}
