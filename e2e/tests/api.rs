//! The public API of each library as `docs/api/` lists it. `hack/api list` runs this, and `hack/api list --write` writes the lists anew:
//! it needs rustdoc's JSON, whose format belongs to one version of Rust.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result, ensure};

const LIBRARIES: [&str; 4] = ["vdbi-core", "vdbi-webhook", "vdbi-lifecycle", "vdbi-nri"];

#[test]
#[ignore = "reads what hack/api makes"]
fn the_listed_api_is_the_public_one() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let json = std::env::var_os("VDBI_RUSTDOC_JSON").context("run hack/api list")?;
    let mut differences = String::new();
    for name in LIBRARIES {
        let current = listed(&Path::new(&json).join(format!("{}.json", name.replace('-', "_"))))?;
        let path = root.join(format!("docs/api/{name}.txt"));
        if std::env::var_os("VDBI_WRITE_DOCS").is_some() {
            fs::create_dir_all(root.join("docs/api"))?;
            fs::write(path, current)?;
            continue;
        }
        let written = fs::read_to_string(path).unwrap_or_default();
        for line in written.lines().filter(|line| !current.lines().any(|other| other == *line)) {
            writeln!(differences, "-{line}")?;
        }
        for line in current.lines().filter(|line| !written.lines().any(|other| other == *line)) {
            writeln!(differences, "+{line}")?;
        }
        ensure!(!differences.is_empty() || written == current, "docs/api/{name}.txt is in another order");
    }
    ensure!(
        differences.is_empty(),
        "the public API is not what docs/api/ lists:\n{differences}where that is meant, run hack/api list --write"
    );
    Ok(())
}

/// One item a line, without what the compiler implements by itself.
fn listed(json: &Path) -> Result<String> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_auto_derived_impls(true)
        .omit_auto_trait_impls(true)
        .omit_blanket_impls(true)
        .build()
        .with_context(|| {
            format!("{}: the crate public-api reads the JSON of another Rust", json.display())
        })?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}
