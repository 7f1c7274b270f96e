//! Each library's README is its crate documentation, its feature table says what its manifest does, and its package holds what it is to
//! hold. `VDBI_WRITE_DOCS=1 cargo test -p e2e --test crates` writes the READMEs anew. `hack/api list` runs the test of the public API, and
//! `hack/api list --write` writes the lists of `docs/api/` anew. No server is needed.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

const LIBRARIES: [&str; 4] = ["vdbi-core", "vdbi-webhook", "vdbi-lifecycle", "vdbi-nri"];

/// What is in a package besides the sources.
const PACKAGED: [&str; 6] =
    [".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE", "README.md"];

#[test]
fn each_readme_is_the_crate_documentation() -> Result<()> {
    for name in LIBRARIES {
        let path = directory(name).join("README.md");
        let expected = readme(name, &documentation(name)?);
        if std::env::var_os("VDBI_WRITE_DOCS").is_some() {
            fs::write(&path, &expected)?;
            continue;
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        let differs =
            written.lines().zip(expected.lines()).position(|(written, expected)| written != expected);
        ensure!(
            written == expected,
            "{name}/README.md is not what {name}/src/lib.rs says, from line {} on: run VDBI_WRITE_DOCS=1 cargo test -p e2e \
             --test crates",
            differs.unwrap_or_else(|| written.lines().count().min(expected.lines().count())) + 1
        );
    }
    Ok(())
}

#[test]
fn each_feature_table_says_what_the_manifest_does() -> Result<()> {
    for name in LIBRARIES {
        let documented = documentation(name)?;
        let manifest = fs::read_to_string(directory(name).join("Cargo.toml"))?;
        let (expected, found) = (declared(&manifest)?, tabled(&documented));
        ensure!(found == expected, "{name}: the table has {found:#?}, the manifest {expected:#?}");
        ensure!(
            !expected.is_empty() || documented.iter().any(|line| line.starts_with("It has no features.")),
            "{name} does not say that it has no features"
        );
    }
    Ok(())
}

#[test]
fn each_package_holds_sources_licence_and_readme_and_nothing_else() -> Result<()> {
    for name in LIBRARIES {
        let listed = Command::new(env!("CARGO"))
            .args(["package", "--list", "--allow-dirty", "--offline", "-p", name])
            .current_dir(directory(name))
            .output()?;
        let files = String::from_utf8(listed.stdout)?.replace('\\', "/");
        ensure!(listed.status.success(), "{name}: {}", String::from_utf8_lossy(&listed.stderr));
        let files: Vec<&str> = files.lines().collect();
        let stray: Vec<_> = files.iter().filter(|file| !belongs(name, file)).collect();
        ensure!(stray.is_empty(), "the package of {name} holds {stray:?}");
        for file in PACKAGED.iter().skip(2).chain(&["src/lib.rs"]) {
            ensure!(files.contains(file), "the package of {name} lacks {file}: {files:?}");
        }
    }
    Ok(())
}

/// It needs rustdoc's JSON, whose format belongs to one version of Rust.
#[test]
#[ignore = "reads what hack/api makes"]
fn the_listed_api_is_the_public_one() -> Result<()> {
    let json = std::env::var_os("VDBI_RUSTDOC_JSON").context("run hack/api list")?;
    let mut differences = String::new();
    for name in LIBRARIES {
        let current = listed(&Path::new(&json).join(format!("{}.json", name.replace('-', "_"))))?;
        let path = directory(&format!("docs/api/{name}.txt"));
        if std::env::var_os("VDBI_WRITE_DOCS").is_some() {
            fs::create_dir_all(directory("docs/api"))?;
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

fn belongs(name: &str, file: &str) -> bool {
    let source = (file.starts_with("src/") || file.starts_with("examples/")) && file.ends_with(".rs");
    let generated = name == "vdbi-nri" && (file == "build.rs" || file.starts_with("proto/"));
    PACKAGED.contains(&file) || source || generated
}

/// Below the repository's root.
fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The crate documentation as all features show it, line by line.
fn documentation(name: &str) -> Result<Vec<String>> {
    let source = fs::read_to_string(directory(name).join("src/lib.rs"))?;
    let mut lines = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("//!") {
            lines.push(text.strip_prefix(' ').unwrap_or(text).to_owned());
        } else if line.starts_with("#![cfg_attr(feature = ") && line.contains("doc = \"```\"") {
            lines.push("```".to_owned());
        } else if !line.starts_with("#![cfg_attr(not(feature = ") {
            break;
        }
    }
    ensure!(lines.len() > 20, "{name} has {} lines of documentation", lines.len());
    Ok(lines)
}

/// For a reader on a code host: no links that only rustdoc follows, no hidden lines, links to the other crates.
fn readme(name: &str, documentation: &[String]) -> String {
    let mut readme = format!("# {name}\n\n");
    let mut in_code = false;
    for line in documentation {
        let line = match (line.strip_prefix("```"), in_code) {
            (Some(_), true) => {
                in_code = false;
                line.clone()
            }
            (Some(language), false) => {
                in_code = true;
                format!("```{}", if language.is_empty() { "rust" } else { language })
            }
            (None, true) if line == "#" || line.starts_with("# ") => continue,
            (None, true) => line.clone(),
            (None, false) if line.starts_with('#') => format!("#{line}"),
            (None, false) => with_siblings(&flattened(line)),
        };
        readme.push_str(&line);
        readme.push('\n');
    }
    readme
}

/// Links to items become their text; those to pages stay.
fn flattened(line: &str) -> String {
    let mut flat = String::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once('[') {
        flat.push_str(before);
        let Some((text, after)) = link.split_once(']') else {
            flat.push('[');
            rest = link;
            continue;
        };
        let target = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        match target {
            Some((target, after)) if target.contains("://") => {
                flat.push_str(&format!("[{text}]({target})"));
                rest = after;
            }
            link => {
                flat.push_str(text);
                rest = link.map_or(after, |(_, after)| after);
            }
        }
    }
    flat + rest
}

fn with_siblings(line: &str) -> String {
    LIBRARIES.iter().fold(line.to_owned(), |line, sibling| {
        line.replace(&format!("`{sibling}`"), &format!("[`{sibling}`](../{sibling}/README.md)"))
    })
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

/// A feature's name, what it adds, and whether it is a default one.
type Feature = (String, String, bool);

/// The features of a manifest, each with the comment above it.
fn declared(manifest: &str) -> Result<Vec<Feature>> {
    let Some((_, section)) = manifest.split_once("\n[features]\n") else { return Ok(Vec::new()) };
    let (mut features, mut defaults, mut comment) = (Vec::new(), "", String::new());
    for line in section.lines().take_while(|line| !line.starts_with('[')) {
        if let Some(text) = line.strip_prefix("# ") {
            comment = text.to_owned();
        } else if let Some((name, value)) = line.split_once(" = ") {
            match name {
                "default" => defaults = value,
                _ => features.push((name.to_owned(), std::mem::take(&mut comment), false)),
            }
        }
    }
    for (name, comment, default) in &mut features {
        *default = defaults.contains(&format!("\"{name}\""));
        let text = comment.strip_suffix('.').with_context(|| format!("{name} has no sentence above it"))?;
        *comment = uncapitalized(text);
    }
    Ok(features)
}

/// The rows of the feature table.
fn tabled(documentation: &[String]) -> Vec<Feature> {
    let rows =
        documentation.iter().skip_while(|line| *line != "| feature | what it adds | default |").skip(2);
    let cells = rows.map_while(|row| row.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let cells = cells.filter_map(|(name, rest)| Some((name, rest.rsplit_once(" | ")?)));
    cells.map(|(name, (adds, default))| (name.to_owned(), adds.to_owned(), default == "yes")).collect()
}

/// A sentence as a cell of a table begins it; names keep theirs.
fn uncapitalized(text: &str) -> String {
    let is_name = |word: &str| word.starts_with('`') || word == "OpenBao";
    let first = text.split(' ').next().unwrap_or_default();
    if is_name(first) {
        return text.to_owned();
    }
    let mut characters = text.chars();
    characters.next().map(|c| c.to_lowercase().chain(characters).collect()).unwrap_or_default()
}
