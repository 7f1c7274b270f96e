//! Whoever is told that something is wrong finds the message, what it means and what to do in `docs/troubleshooting.md` or `docs/messages.md`.
//! And nothing is found there that is never said. No server is needed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

mod chart;
mod code;
mod page;
mod wording;

use wording::Wording;

/// The pages, of which the second has what is rarely met.
const PAGES: [&str; 2] = ["docs/troubleshooting.md", "docs/messages.md"];

/// What stands in a message, or in nothing that tells that something is wrong.
const NO_MESSAGES: [&str; 21] = [
    // Parts of messages, without a meaning of their own.
    "vault-db-injector: {refusal}",
    "the pod",
    "the {value} of database {}",
    "connection string",
    "service account",
    "this component's service account token",
    "the pod's service account token",
    "the audience of its service account token",
    "the database engine",
    "database engine {engine}",
    "database {} (role {} of {}) for pod {}",
    "(name to be generated)",
    "path \"{}{slash}\" {{ capabilities = [{capability}] }}",
    "\"create\", \"update\"",
    // All is well.
    "its credentials",
    "valid from {} until {}",
    "[+]{name} excluded: ok",
    "This node is ready.",
    // Names.
    "text/plain; version=0.0.4; charset=utf-8",
    "vdbi webhook authority {}",
    "vdbi-nri-plugin doctor",
];

/// Something that is said, and where.
#[derive(Clone)]
struct Message {
    /// Below the repository's root.
    place: String,
    wording: Wording,
}

#[test]
fn every_message_of_the_code_and_the_chart_is_on_a_page() {
    let listed = listed();
    let missing: Vec<String> = said()
        .iter()
        .filter(|message| message.wording.is_message())
        .filter(|message| !listed.iter().any(|entry| message.wording.covers(&entry.wording)))
        .map(|Message { place, wording }| format!("{place}: {wording}"))
        .collect();
    assert!(missing.is_empty(), "on no page:\n{}", missing.join("\n"));
}

#[test]
fn every_message_on_the_pages_is_said_somewhere_and_listed_once() {
    let said = said();
    let listed = listed();
    assert!(listed.len() > 200, "{} messages are listed", listed.len());
    let stale: Vec<String> = listed
        .iter()
        .filter(|entry| !said.iter().any(|message| message.wording.covers(&entry.wording)))
        .map(|Message { place, wording }| format!("{place}: {wording}"))
        .collect();
    assert!(stale.is_empty(), "nothing says this any more:\n{}", stale.join("\n"));

    let mut seen = BTreeSet::new();
    let twice: Vec<String> = listed
        .iter()
        .filter(|entry| !seen.insert(entry.wording.to_string()))
        .map(|Message { place, wording }| format!("{place}: {wording}"))
        .collect();
    assert!(twice.is_empty(), "listed a second time:\n{}", twice.join("\n"));
}

#[test]
fn every_exception_is_still_needed() {
    for text in NO_MESSAGES {
        let exception = Wording::of_code(text);
        assert!(CODE.iter().any(|message| message.wording == exception), "{text:?} is no longer there");
        assert!(exception.is_message(), "{text:?} needs no exception");
    }
}

/// What the code says; reading it takes a while.
static CODE: LazyLock<Vec<Message>> = LazyLock::new(|| code::messages(&root()));

fn said() -> Vec<Message> {
    let exceptions: Vec<Wording> = NO_MESSAGES.iter().map(|text| Wording::of_code(text)).collect();
    let code = CODE.iter().filter(|message| !exceptions.contains(&message.wording)).cloned();
    code.chain(chart::messages(&root())).collect()
}

fn listed() -> Vec<Message> {
    let root = root();
    PAGES
        .iter()
        .flat_map(|page| {
            let text = fs::read_to_string(root.join(page)).unwrap();
            let spans = page::messages(&text);
            spans.into_iter().map(move |(line, span)| Message {
                place: format!("{page}:{line}"),
                wording: Wording::of_page(&span),
            })
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below a directory whose names end so, in order.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            files.push(path);
        }
    }
    files.sort();
    files
}
