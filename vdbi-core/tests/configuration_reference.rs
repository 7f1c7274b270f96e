//! `docs/configuration.md` says what the code says. `VDBI_WRITE_DOCS=1 cargo test -p vdbi-core` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{fmt::Write, fs, path::Path};

use vdbi_core::config::{KEYS, Key, Kind};

const START: &str = "<!-- keys -->\n";

fn table() -> String {
    let mut table = "| key | value | default | used by | meaning |\n|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let Key { path, kind, default, components, meaning } = key;
        let kind = match kind {
            Kind::Text => "text",
            Kind::Bool => "true, false",
            Kind::Integer => "whole number",
            Kind::Number => "number",
            Kind::Duration => "duration",
            Kind::List => "list",
            Kind::Address => "IP address:port",
        };
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let used = match components.len() {
            0 => "nothing".to_owned(),
            4 => "all".to_owned(),
            _ => components.iter().map(|component| component.name()).collect::<Vec<_>>().join(", "),
        };
        let variable = key.variable();
        // Otherwise it is HTML.
        let meaning = meaning.replace('<', "\\<");
        writeln!(table, "| `{path}` <br> `{variable}` | {kind} | {default} | {used} | {meaning} |").unwrap();
    }
    table
}

#[test]
fn the_reference_lists_every_key_as_the_code_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, written) = document.split_once(START).expect("the table begins with its marker");
    if std::env::var_os("VDBI_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{START}{}", table())).unwrap();
        return;
    }
    assert_eq!(written, table(), "run VDBI_WRITE_DOCS=1 cargo test -p vdbi-core");
}

#[test]
fn the_samples_of_the_reference_are_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = fs::read_to_string(path).unwrap();
    let samples: Vec<&str> =
        document.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(samples.len(), 2);
    for sample in samples {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), sample).unwrap();
        let namespace = [("POD_NAMESPACE".to_owned(), "vdbi-system".to_owned())];
        let component = if sample.contains("certFile") {
            vdbi_core::config::Component::Injector
        } else {
            vdbi_core::config::Component::Renewer
        };
        vdbi_core::config::Config::load(Some(file.path()), namespace, component).unwrap();
    }
}
