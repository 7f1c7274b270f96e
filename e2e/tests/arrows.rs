//! What the manifests promise: crates depend in one direction, the core without features performs no I/O, and what all crates
//! have in common is stated once. No server is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// Opens connections, or is the first step to it.
const IO: [&str; 7] = ["kube", "vaultrs", "reqwest", "axum", "hyper", "rustls", "mio"];

/// The one example that others are built from.
const SHARED_EXAMPLE: &str = "examples/bootstrap";

/// The program of all components, built from their examples.
const ALL_IN_ONE: &str = "examples/vdbi";
const COMPONENTS: [&str; 4] =
    ["examples/injector", "examples/node-plugin", "examples/renewer", "examples/revoker"];

/// The components with one part replaced by somebody's own.
const CUSTOM: &str = "examples/custom-";

/// A crate of the workspace, by the directories of its manifest and of those that it depends on, for whatever purpose.
struct Crate {
    directory: String,
    dependencies: Vec<String>,
}

/// From the one that everything depends on to those that nothing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Core,
    Library,
    Harness,
    Program,
}

impl Layer {
    fn of(directory: &str) -> Option<Self> {
        match directory {
            "vdbi-core" => Some(Self::Core),
            "vdbi-webhook" | "vdbi-lifecycle" | "vdbi-nri" => Some(Self::Library),
            "e2e" => Some(Self::Harness),
            "benches" => Some(Self::Program),
            other => other.starts_with("examples/").then_some(Self::Program),
        }
    }
}

/// A crate depends on lower layers only; `examples/bootstrap` is there for the other examples, and the components' for `examples/vdbi`
/// and for those that replace a part of them.
fn wrong_arrows(crates: &[Crate]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Crate { directory, dependencies } in crates {
        let Some(layer) = Layer::of(directory) else {
            wrong.push(format!("{directory} has no layer: give it one in this test"));
            continue;
        };
        let allowed = |dependency: &str| {
            let shared = dependency == SHARED_EXAMPLE
                && directory != SHARED_EXAMPLE
                && directory.starts_with("examples/");
            let united = directory == ALL_IN_ONE && COMPONENTS.contains(&dependency);
            let changed = directory.starts_with(CUSTOM)
                && (dependency == ALL_IN_ONE || COMPONENTS.contains(&dependency));
            shared || changed || united || Layer::of(dependency).is_some_and(|below| below < layer)
        };
        let refused = dependencies.iter().filter(|dependency| !allowed(dependency));
        wrong.extend(refused.map(|dependency| format!("{directory} must not depend on {dependency}")));
    }
    wrong
}

/// Of what `cargo tree --prefix none` prints.
fn io_dependencies(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| IO.contains(name)).collect()
}

/// What a manifest states itself instead of taking it from the workspace.
fn not_inherited(manifest: &str) -> Vec<&'static str> {
    let inherited = |key: &str| manifest.lines().any(|line| line.trim() == format!("{key}.workspace = true"));
    let mut missing = ["edition", "rust-version", "license"].to_vec();
    missing.retain(|key| !inherited(key));
    if !manifest.contains("[lints]\nworkspace = true") {
        missing.push("lints");
    }
    missing
}

#[test]
fn no_arrow_of_the_workspace_is_wrong() -> Result<()> {
    let metadata = workspace()?;
    let root = metadata.workspace_root.as_std_path();
    let crates: Vec<Crate> = metadata.packages.iter().map(|package| depending(package, root)).collect();
    let of_core = crates.iter().filter(|found| found.dependencies.iter().any(|name| name == "vdbi-core"));
    assert!(of_core.count() >= 3, "the libraries depend on vdbi-core; were the manifests read?");
    assert_eq!(wrong_arrows(&crates), [""; 0]);
    Ok(())
}

#[test]
fn the_core_without_features_performs_no_io() -> Result<()> {
    let tree = core_tree(&["--no-default-features"])?;
    assert!(tree.contains("tokio v"), "{tree}");
    assert_eq!(io_dependencies(&tree), [""; 0]);
    // The same question about all of it has another answer, so it is asked rightly.
    assert!(!io_dependencies(&core_tree(&["--all-features"])?).is_empty());
    Ok(())
}

#[test]
fn every_crate_has_the_workspaces_rust_version_and_licence_and_lints() -> Result<()> {
    let metadata = workspace()?;
    for package in &metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)?;
        assert_eq!(not_inherited(&manifest), [""; 0], "{} does not inherit these", package.manifest_path);
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{}", package.name);
        assert_eq!(package.rust_version, metadata.packages[0].rust_version, "{}", package.name);
        assert!(package.rust_version.is_some(), "{}", package.name);
    }
    Ok(())
}

#[test]
fn clippy_refuses_a_task_without_an_owner() -> Result<()> {
    let clippy = fs::read_to_string(root().join("clippy.toml"))?;
    let (_, methods) = clippy.split_once("disallowed-methods").context("no method is disallowed")?;
    for method in ["tokio::spawn", "tokio::task::spawn", "tokio::runtime::Handle::spawn"] {
        assert!(methods.contains(&format!("path = \"{method}\"")), "{method} is not disallowed");
    }
    Ok(())
}

fn workspace() -> Result<Metadata> {
    Ok(MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn depending(package: &Package, root: &Path) -> Crate {
    let relative =
        |directory: &Path| directory.strip_prefix(root).unwrap_or(directory).to_string_lossy().into_owned();
    let manifest = package.manifest_path.as_std_path();
    let paths = package.dependencies.iter().filter_map(|dependency| dependency.path.as_ref());
    Crate {
        directory: relative(manifest.parent().unwrap_or(manifest)),
        dependencies: paths.map(|path| relative(path.as_std_path())).collect(),
    }
}

/// Features are resolved for this package alone, as they are for whoever depends on it; `cargo metadata` unites them.
fn core_tree(features: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "vdbi-core", "--edges", "normal", "--prefix", "none"])
        .args(features)
        .current_dir(root())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

mod rules {
    use super::*;

    fn arrow(from: &str, to: &str) -> Vec<String> {
        wrong_arrows(&[Crate { directory: from.to_owned(), dependencies: vec![to.to_owned()] }])
    }

    #[test]
    fn arrows_to_lower_layers_are_right() {
        for (from, to) in [
            ("vdbi-webhook", "vdbi-core"),
            ("e2e", "vdbi-lifecycle"),
            ("benches", "e2e"),
            ("examples/quickstart", "e2e"),
            ("examples/injector", "vdbi-core"),
        ] {
            assert_eq!(arrow(from, to), [""; 0]);
        }
    }

    #[test]
    fn webhook_depending_on_lifecycle_is_a_wrong_arrow() {
        assert_eq!(
            arrow("vdbi-webhook", "vdbi-lifecycle"),
            ["vdbi-webhook must not depend on vdbi-lifecycle"]
        );
    }

    #[test]
    fn arrows_to_higher_layers_and_within_one_are_wrong() {
        for (from, to) in [
            ("vdbi-core", "vdbi-webhook"),
            ("vdbi-core", "vdbi-core"),
            ("vdbi-core", "e2e"),
            ("vdbi-lifecycle", "e2e"),
            ("e2e", "examples/injector"),
            ("e2e", "examples/bootstrap"),
            ("benches", "examples/quickstart"),
            ("benches", "examples/bootstrap"),
            ("vdbi-nri", "elsewhere"),
        ] {
            assert_eq!(arrow(from, to).len(), 1, "{from} on {to}");
        }
    }

    #[test]
    fn among_examples_only_bootstrap_is_shared() {
        assert_eq!(arrow("examples/injector", "examples/bootstrap"), [""; 0]);
        assert_eq!(arrow("examples/bootstrap", "examples/bootstrap").len(), 1);
        assert_eq!(arrow("examples/bootstrap", "examples/injector").len(), 1);
        assert_eq!(arrow("examples/injector", "examples/renewer").len(), 1);
    }

    #[test]
    fn only_the_program_of_all_components_is_built_from_them() {
        assert_eq!(arrow("examples/vdbi", "examples/revoker"), [""; 0]);
        assert_eq!(arrow("examples/vdbi", "examples/quickstart").len(), 1);
        assert_eq!(arrow("examples/quickstart", "examples/vdbi").len(), 1);
        assert_eq!(arrow("benches", "examples/vdbi").len(), 1);
    }

    #[test]
    fn an_example_that_replaces_a_part_is_built_from_the_components() {
        assert_eq!(arrow("examples/custom-source", "examples/vdbi"), [""; 0]);
        assert_eq!(arrow("examples/custom-policy", "examples/injector"), [""; 0]);
        assert_eq!(arrow("examples/vdbi", "examples/custom-source").len(), 1);
        assert_eq!(arrow("examples/custom-source", "examples/custom-policy").len(), 1);
    }

    #[test]
    fn a_crate_in_a_new_place_needs_a_layer() {
        assert_eq!(arrow("vdbi-new", "vdbi-core"), ["vdbi-new has no layer: give it one in this test"]);
    }

    #[test]
    fn a_dependency_that_performs_io_is_found_anywhere_in_the_tree() {
        let tree = "vdbi-core v0.1.0 (/src/vdbi-core)\nhyper-util v0.1.0\nhyper v1.7.0\nserde v1.0.0 (*)\n";
        assert_eq!(io_dependencies(tree), ["hyper"]);
    }

    #[test]
    fn a_manifest_with_a_version_of_its_own_is_found() {
        let manifest =
            "[package]\nedition.workspace = true\nrust-version = \"1.99\"\nlicense.workspace = true\n";
        assert_eq!(not_inherited(manifest), ["rust-version", "lints"]);
    }
}
