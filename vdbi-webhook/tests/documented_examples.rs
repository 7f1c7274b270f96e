//! The pods of `docs/examples.md` come out as the page says, through both policies.
//! `VDBI_WRITE_DOCS=1 cargo test -p vdbi-webhook --test documented_examples` writes the files and the variables into it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::Value;
use vdbi_core::{
    ledger::EntryId,
    placeholder::{PREFIX, Placeholder as Standin},
    secret::Secret,
};
use vdbi_webhook::policy::{Grant, Injection, MutationPolicy, Placeholder, Plaintext, Plan};

/// Kinds with a pod, and where it is.
const PODS: [(&str, &str); 4] = [
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn page() -> String {
    fs::read_to_string(docs().join("examples.md")).unwrap()
}

/// The examples by the names of their files, in the order of the page.
fn examples() -> Vec<String> {
    let page = page();
    let links = page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("](examples/"));
    links.map(|(name, _)| name.to_owned()).collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(docs().join("examples").join(name)).unwrap()
}

/// The pod of an example; `None` for values of the chart.
fn pod(name: &str) -> Option<Value> {
    let text = text(name);
    let pods = text.split("\n---\n").filter_map(|document| {
        let document: Value = serde_saphyr::from_str(document).unwrap();
        let (_, path) = PODS.iter().find(|(kind, _)| document["kind"] == *kind)?;
        document.pointer(path).cloned()
    });
    let pods: Vec<Value> = pods.collect();
    assert!(pods.len() == usize::from(!name.starts_with("values-")), "{name} has {} pods", pods.len());
    pods.into_iter().next()
}

/// A pod as it is after the admission, with the grants that `grant` makes for each database.
fn mutate(policy: &impl MutationPolicy, pod: &Value, grant: impl Fn(&str) -> (String, String)) -> Value {
    let now = Timestamp::UNIX_EPOCH;
    let (Plan::Issue(injection) | Plan::Reserve(injection)) = policy.plan(pod, now).unwrap() else {
        panic!("{pod} is left alone")
    };
    let Injection { databases, warnings, .. } = &injection;
    assert!(warnings.is_empty(), "{warnings:?}");
    let grants = databases.iter().map(|database| {
        let (username, password) = grant(&database.name);
        Grant::new(EntryId::random(), username, Secret::new(password))
    });
    let patch = policy.patch(pod, &injection, &grants.collect::<Vec<_>>(), now);
    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
    let mut mutated = pod.clone();
    json_patch::patch(&mut mutated, &patch).unwrap();
    mutated
}

/// Each container with its variables.
fn environments(pod: &Value) -> Vec<(String, Vec<(String, String)>)> {
    let lists = ["initContainers", "containers"].into_iter();
    let containers = lists.flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap_or("...").to_owned();
    containers
        .map(|container| {
            let variables = container["env"].as_array().into_iter().flatten();
            let variables = variables.map(|it| (text(&it["name"]), text(&it["value"])));
            (text(&container["name"]), variables.collect())
        })
        .collect()
}

/// What the page shows below a pod.
fn shown(pod: &Value) -> String {
    let login = |database: &str| (format!("v-{database}"), format!("p@ss-{database}"));
    let mutated = mutate(&Plaintext::new("database"), pod, login);
    let mut shown = String::new();
    for (container, variables) in environments(&mutated) {
        writeln!(shown, "{container}").unwrap();
        for (name, value) in &variables {
            writeln!(shown, "  {name}={value}").unwrap();
        }
        if variables.is_empty() {
            writeln!(shown, "  (nothing)").unwrap();
        }
    }
    shown
}

/// The page with an example, and what becomes of it, as they are.
fn derived(page: &str, name: &str) -> String {
    let link = format!("[{name}](examples/{name}):\n\n");
    let (before, after) = page.split_once(&link).unwrap();
    let (_, mut after) = after.split_once("```yaml\n").unwrap();
    after = after.split_once("```\n").unwrap().1;
    let mut section = format!("{before}{link}```yaml\n{}```\n", text(name));
    if let Some(pod) = pod(name) {
        let (_, rest) = after.split_once("```text\n").unwrap();
        after = rest.split_once("```\n").unwrap().1;
        write!(section, "\n```text\n{}```\n", shown(&pod)).unwrap();
    }
    section + after
}

#[test]
fn every_example_stands_in_the_page_as_it_is_with_the_variables_that_come_of_it() {
    let written = page();
    let derived = examples().iter().fold(written.clone(), |page, name| derived(&page, name));
    if std::env::var_os("VDBI_WRITE_DOCS").is_some() {
        fs::write(docs().join("examples.md"), derived).unwrap();
        return;
    }
    let differing = written.lines().zip(derived.lines()).find(|(written, derived)| written != derived);
    assert!(
        written == derived,
        "run VDBI_WRITE_DOCS=1 cargo test -p vdbi-webhook --test documented_examples; the first difference: {differing:?}"
    );
}

#[test]
fn every_file_is_an_example_of_the_page() {
    let files = fs::read_dir(docs().join("examples")).unwrap();
    let files: BTreeSet<String> = files.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, examples().into_iter().collect());
    assert!(files.len() >= 14, "{files:?}");
}

#[test]
fn both_modes_set_the_same_variables_of_the_same_containers() {
    let mut placeholders = 0;
    for name in examples() {
        let Some(pod) = pod(&name) else { continue };
        assert_eq!(pod["metadata"]["labels"]["vault-db-injector"], "true", "{name}");
        let random = |_: &str| (Standin::random().to_string(), Standin::random().to_string());
        let login = |database: &str| (format!("v-{database}"), format!("p-{database}"));
        let plaintext = environments(&mutate(&Plaintext::new("database"), &pod, login));
        let reserved = environments(&mutate(&Placeholder::new("database"), &pod, random));
        assert_eq!(names(&plaintext), names(&reserved), "{name}");
        let reserved = reserved.iter().flat_map(|(_, variables)| variables);
        placeholders += reserved.filter(|(_, value)| value.contains(PREFIX)).count();
    }
    assert!(placeholders > 20, "{placeholders}");
}

fn names(environments: &[(String, Vec<(String, String)>)]) -> Vec<(&str, Vec<&str>)> {
    environments
        .iter()
        .map(|(container, variables)| {
            (container.as_str(), variables.iter().map(|(name, _)| name.as_str()).collect())
        })
        .collect()
}
