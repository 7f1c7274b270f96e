//! The book of `docs/`: what mdBook and the check of its links (`hack/test book`) cannot see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use e2e::binary;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn pages(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let page = path.strip_prefix(root().join("docs")).unwrap();
            found.insert(page.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn every_page_is_in_the_book_once() {
    let summary = read("docs/SUMMARY.md");
    let links = summary.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let listed: Vec<&str> = links.map(|(page, _)| page).filter(|page| !page.is_empty()).collect();
    let once: BTreeSet<String> = listed.iter().map(|&page| page.to_owned()).collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice: {listed:?}");
    let mut written = BTreeSet::new();
    pages(&root().join("docs"), &mut written);
    written.remove("SUMMARY.md");
    let forgotten: Vec<_> = written.difference(&once).collect();
    assert!(forgotten.is_empty(), "docs/SUMMARY.md lacks {forgotten:?}");
    assert!(written.len() > 20, "{written:?}");
}

/// A file of the tree and the part of it that a page shows: all of it without a name.
type Shown = (PathBuf, Option<String>);

/// mdBook shows nothing, and says nothing, where a source has no such part.
#[test]
fn a_page_shows_parts_that_their_sources_mark_and_no_mark_is_left_unshown() {
    let mut names = BTreeSet::new();
    pages(&root().join("docs"), &mut names);
    let mut shown = BTreeSet::<Shown>::new();
    for name in names {
        let page = read(&format!("docs/{name}"));
        for include in page.split("{{#include ").skip(1) {
            let include = include.split_once("}}").unwrap().0.trim();
            let (file, part) = match include.split_once(':') {
                Some((file, part)) => (file, Some(part.to_owned())),
                None => (include, None),
            };
            let file = root().join("docs").join(&name).parent().unwrap().join(file);
            let file = file.canonicalize().unwrap_or_else(|error| panic!("docs/{name}: {include}: {error}"));
            shown.insert((file, part));
        }
    }
    let files: BTreeSet<&PathBuf> = shown.iter().map(|(file, _)| file).collect();
    let mut marked = BTreeSet::<Shown>::new();
    for &file in &files {
        let source = fs::read_to_string(file).unwrap();
        let parts = |mark: &str| -> BTreeSet<String> {
            let lines = source.lines().filter_map(|line| line.trim().strip_prefix(mark));
            lines.map(|part| part.trim().to_owned()).collect()
        };
        let (begun, ended) = (parts("// ANCHOR: "), parts("// ANCHOR_END: "));
        assert_eq!(begun, ended, "{}", file.display());
        marked.extend(begun.into_iter().map(|part| (file.clone(), Some(part))));
    }
    let parts: BTreeSet<Shown> = shown.iter().filter(|(_, part)| part.is_some()).cloned().collect();
    assert_eq!(parts, marked);
    assert!(parts.len() > 10, "{parts:?}");
}

/// The parts of a source that have no mark of their own: they explain the file, or the mark.
fn is_told(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || ["//!", "// ANCHOR", "#![allow("].iter().any(|start| line.starts_with(start))
}

/// Somebody who has the page alone can type in all of it.
#[test]
fn the_page_of_a_journey_shows_every_line_of_its_example_and_adds_every_dependency() {
    for journey in ["custom-source", "embed-in-operator", "custom-policy", "custom-nri"] {
        let page = read(&format!("docs/sdk/{journey}.md"));
        let example = root().join("examples").join(journey);
        for file in fs::read_dir(example.join("src")).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(&example).unwrap().to_str().unwrap();
            assert!(
                page.contains(&format!("`{name}`")) || page.contains(&format!("/{name} src/")),
                "{journey}: {name}"
            );
            let include = format!("{{{{#include ../../examples/{journey}/{name}");
            if page.contains(&format!("{include}}}}}"))
                || page.contains(&format!("$ cp ../vdbi/examples/{journey}/{name}"))
            {
                continue;
            }
            let mut part = None;
            for line in fs::read_to_string(&file).unwrap().lines() {
                if let Some(begun) = line.trim().strip_prefix("// ANCHOR: ") {
                    part = Some(begun.to_owned());
                } else if line.trim().starts_with("// ANCHOR_END") {
                    part = None;
                } else if !is_told(line) {
                    let shown =
                        part.as_ref().is_some_and(|part| page.contains(&format!("{include}:{part}}}}}")));
                    assert!(shown, "{journey}: {name}: the page does not show {line:?}");
                }
            }
        }
        let manifest = fs::read_to_string(example.join("Cargo.toml")).unwrap();
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        let (dependencies, _) = dependencies.split_once("\n[").unwrap();
        let added: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("$ cargo add "))
            .flat_map(|line| line.split([' ', '@']))
            .collect();
        for line in dependencies.lines().filter(|line| line.contains(" = {") || line.contains(".workspace")) {
            let name = line.split(['.', ' ']).next().unwrap();
            assert!(added.contains(name), "{journey}: the page does not add {name}");
        }
    }
}

/// What the book's preprocessor makes of a page.
fn preprocessed(page: &str, content: &str) -> Output {
    let chapter = json!({ "Chapter": { "name": "", "content": content, "path": page, "sub_items": [] } });
    let context = json!({ "root": root().join("docs"), "config": { "book": { "src": "." } } });
    let mut program = Command::new("python3")
        .arg(root().join("hack/book-tree-links"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let book = json!([context, { "items": [chapter] }]).to_string();
    program.stdin.take().unwrap().write_all(book.as_bytes()).unwrap();
    program.wait_with_output().unwrap()
}

#[track_caller]
fn rendered(page: &str, content: &str) -> String {
    let output = preprocessed(page, content);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let book: Value = serde_json::from_slice(&output.stdout).unwrap();
    book["items"][0]["Chapter"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_link_out_of_the_book_becomes_a_path_of_the_tree() {
    for (link, path) in [
        ("[rules.yaml](../charts/vdbi/files/rules.yaml)", "`charts/vdbi/files/rules.yaml`"),
        ("[the chart](../charts/vdbi)", "the chart (`charts/vdbi`)"),
        ("[`README.md`](../README.md#two-commands)", "`README.md`"),
    ] {
        assert_eq!(rendered("page.md", &format!("See {link}, once.")), format!("See {path}, once."));
    }
    assert_eq!(rendered("adr/1.md", "[it](../../README.md)"), "it (`README.md`)");
}

#[test]
fn links_within_the_book_and_samples_are_left_as_they_are() {
    for text in [
        "[a page](../operations.md#shards)",
        "`[text](../README.md)`",
        "```markdown\n[text](../nowhere)\n```\n",
        "![a picture](../nowhere.svg)",
    ] {
        assert_eq!(rendered("adr/1.md", text), text);
    }
}

#[test]
fn a_link_to_what_the_tree_does_not_have_fails_the_build() {
    for target in ["../vdbi-nowhere/src/lib.rs", "../../etc/passwd"] {
        let output = preprocessed("page.md", &format!("[text]({target})"));
        assert!(!output.status.success());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(&format!("docs/page.md: {target} leads to nothing in the tree")),
            "{message}"
        );
    }
}

/// A line without what differs from run to run: figures, ids, and spaces that depend on them.
fn essence(line: &str) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut essence, mut run) = (String::new(), String::new());
    for character in line.chars().chain(['\n']) {
        if character.is_ascii_digit() || matches!(character, 'a'..='f' | '-') {
            run.push(character);
            continue;
        }
        if run.len() >= 16 {
            run = "ID".to_owned();
        }
        let figure = |it: char| if it.is_ascii_digit() { '0' } else { it };
        for character in run.drain(..).chain([character]).map(figure) {
            if !(character == '0' && essence.ends_with('0')) {
                essence.push(character);
            }
        }
    }
    essence
}

/// The quickstart's story, the metrics that it prints (in an order that depends on who leads), and its summary.
fn parts(text: &str) -> [Vec<String>; 3] {
    let (story, rest) = text.trim().split_once("What the metrics say now").unwrap();
    let (metrics, summary) = rest.split_once("In short").unwrap();
    [story, metrics, summary].map(|part| part.lines().map(essence).collect())
}

/// What a page says that the quickstart prints.
fn shown(page: &str) -> String {
    let page = read(page);
    let (_, shown) = page.split_once("$ cargo run -p quickstart\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    shown.to_owned()
}

#[test]
fn the_quickstart_prints_what_getting_started_and_the_readme_show() {
    let output = Command::new(binary("quickstart", "quickstart").unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [story, metrics, summary] = parts(std::str::from_utf8(&output.stdout).unwrap());
    let [shown_story, shown_metrics, shown_summary] = parts(&shown("docs/getting-started.md"));
    assert_eq!(shown_story, story);
    assert_eq!(shown_summary, summary);
    let missing: Vec<_> =
        shown_metrics.iter().filter(|line| line.trim() != "..." && !metrics.contains(line)).collect();
    assert!(missing.is_empty() && shown_metrics.len() > 5, "it does not print {missing:?}");

    // The README leaves out lines: three dots.
    let readme = shown("README.md");
    let (shown_story, shown_summary) = readme.trim().split_once("In short").unwrap();
    let lines = |text: &str| text.lines().map(essence).collect::<Vec<_>>();
    assert_eq!(lines(shown_summary), summary);
    let mut rest = &story[..];
    for part in lines(shown_story.trim()).split(|line| line.trim() == "...").filter(|part| !part.is_empty()) {
        let found = rest.windows(part.len()).position(|lines| lines == part);
        let found = found.unwrap_or_else(|| panic!("{part:#?} is not in {rest:#?}"));
        rest = &rest[found + part.len()..];
    }
}
