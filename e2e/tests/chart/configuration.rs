//! The components' configuration files, and what the chart takes from the binaries' own list of keys.

use std::{collections::BTreeMap, fs};

use serde_json::{Map, Value, json};
use vdbi_core::config::{Component, Config, KEYS, Kind};

use crate::helm::{Rendered, VALUES, assert_derived, chart, values, with};

const COMPONENTS: [Component; 4] =
    [Component::Injector, Component::Renewer, Component::Revoker, Component::Nri];

/// Keys of the Go chart that its binary does not know.
const GO_KEYS: [&str; 5] =
    ["injectorLabel", "kubeRoleRenewer", "kubeRoleRevoker", "webhookFqdn", "webhookMatchLabels"];

fn schema_of(kind: Kind) -> Value {
    match kind {
        Kind::Text | Kind::Address => json!({ "type": "string" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer => json!({ "minimum": 0, "type": "integer" }),
        Kind::Number => json!({ "minimum": 0, "type": "number" }),
        Kind::Duration => json!({ "$ref": "#/definitions/duration" }),
        Kind::List => json!({ "items": { "type": "string" }, "type": "array" }),
    }
}

fn closed(properties: Value) -> Value {
    json!({ "additionalProperties": false, "properties": properties, "type": "object" })
}

#[test]
fn the_schema_knows_every_key_of_the_configuration_and_no_other() {
    let mut keys = closed(json!({}));
    for key in KEYS {
        let parts: Vec<&str> = key.path.split('.').collect();
        let mut level = &mut keys;
        for part in &parts[..parts.len() - 1] {
            level = level["properties"]
                .as_object_mut()
                .unwrap()
                .entry(*part)
                .or_insert_with(|| closed(json!({})));
        }
        level["properties"][parts[parts.len() - 1]] = schema_of(key.kind);
    }
    let mut shared = keys.clone();
    for key in GO_KEYS {
        let label = ["injectorLabel", "webhookMatchLabels"].contains(&key);
        shared["properties"][key] =
            if label { json!({ "$ref": "#/definitions/label" }) } else { json!({ "type": "string" }) };
    }
    let path = chart().join("values.schema.json");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    schema["definitions"]["configuration"] = keys;
    schema["definitions"]["sharedConfiguration"] = shared;
    assert_derived(&path, &format!("{schema:#}\n"));
}

#[test]
fn the_chart_knows_which_component_reads_which_key() {
    let lines: Vec<String> = KEYS
        .iter()
        .map(|key| {
            let users: Vec<String> =
                key.components.iter().map(|component| format!("\"{}\"", component.name())).collect();
            format!("  \"{}\": [{}]", key.path, users.join(", "))
        })
        .collect();
    assert_derived(
        &chart().join("files/configuration-keys.json"),
        &format!("{{\n{}\n}}\n", lines.join(",\n")),
    );
}

/// What a component says of its file: the configuration, which has to be valid, without anything that has no effect.
#[track_caller]
pub(crate) fn load(rendered: &Rendered, component: Component) -> Config {
    let (text, _) = rendered.configuration(component.name());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &text).unwrap();
    // As the pods have it.
    let environment = [("POD_NAMESPACE", "vdbi-system"), ("NODE_NAME", "node-1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = Config::load(Some(file.path()), environment, component).unwrap();
    assert!(loaded.notices.is_empty(), "{}: {:?}", component.name(), loaded.notices);
    loaded.config
}

#[test]
fn every_component_takes_its_file_and_nothing_in_it_is_without_effect() {
    for name in VALUES {
        let rendered = Rendered::new(&values(name));
        for component in COMPONENTS {
            if component != Component::Nri || !rendered.kind("DaemonSet").is_empty() {
                load(&rendered, component);
            }
        }
    }
}

/// A value of each key, other than its default.
fn sample(kind: Kind, path: &str) -> Value {
    match (path, kind) {
        ("logLevel", _) => json!("debug"),
        ("logFormat", _) => json!("human"),
        ("revoker.labelRemoved", _) => json!("revoke"),
        ("revoker.brakeOverrideUntil", _) => json!("2027-01-31T12:00:00Z"),
        ("vaultAddress", _) => json!("https://other.example:8200"),
        ("nri.pluginIndex", _) => json!("77"),
        ("nri.cachePath" | "nri.socketPath", _) => json!("/run/other/file"),
        ("tokenRequestExpirationSeconds", _) => json!(1200),
        ("shards", _) => json!(2),
        ("renewer.renewAt" | "revoker.brakeShare", _) => json!(0.3),
        ("webhook.clientAllowedNames", _) => json!(["someone"]),
        // The parts of an election depend on each other.
        ("leaderElection.leaseDuration", _) => json!("16s"),
        ("leaderElection.hardDeadline", _) => json!("9s"),
        ("leaderElection.abortAfter", _) => json!("12s"),
        ("leaderElection.renewInterval" | "leaderElection.requestTimeout", _) => json!("2s"),
        ("leaderElection.retry", _) => json!("900ms"),
        ("shutdownGracePeriod", _) => json!("26s"),
        (_, Kind::Text) => json!("other"),
        (_, Kind::Bool) => json!(true),
        (_, Kind::Integer) => json!(7),
        (_, Kind::Number) => json!(7.5),
        (_, Kind::Duration) => json!("4500ms"),
        (_, Kind::List) => json!(["one", "two"]),
        (_, Kind::Address) => json!("0.0.0.0:1"),
    }
}

/// What the chart sets, and refuses in the configuration; `refusals.rs` has the messages.
const SET_BY_THE_CHART: [&str; 13] = [
    "mode",
    "certFile",
    "keyFile",
    "webhook.selfManaged",
    "webhook.secretName",
    "webhook.configurationName",
    "webhook.dnsNames",
    "adminAddress",
    "metricsAddress",
    "admissionAddress",
    "nri.nodeName",
    "leaderElection.leaseNamespace",
    "leaderElection.leaseName",
];

/// Under another name in the file: `kubeRole`.
const LOGIN_ROLES: [&str; 1] = ["kubeRoleNri"];

#[test]
fn every_key_of_the_configuration_reaches_the_components_that_read_it_and_no_other() {
    let mut given = values("least");
    let written = |path: &str| !SET_BY_THE_CHART.contains(&path);
    for key in KEYS.iter().filter(|key| written(key.path)) {
        let mut level = &mut given["vaultDbInjector"]["configuration"];
        for part in key.path.split('.') {
            level = level.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        *level = sample(key.kind, key.path);
    }
    given["podLabel"] = json!("other");
    let rendered = Rendered::new(&given);
    for component in COMPONENTS {
        let (_, file) = rendered.configuration(component.name());
        for key in KEYS.iter().filter(|key| written(key.path) && !LOGIN_ROLES.contains(&key.path)) {
            let pointer = format!("/{}", key.path.replace('.', "/"));
            let expected = match key.path {
                "kubeRole" if component != Component::Nri => Some(json!("other")),
                _ => Some(sample(key.kind, key.path)),
            }
            .filter(|_| key.components.contains(&component));
            assert_eq!(file.pointer(&pointer), expected.as_ref(), "{} of {}", key.path, component.name());
        }
    }
}

#[test]
fn what_a_component_configures_itself_wins_over_what_all_have() {
    let rendered = Rendered::new(&with(json!({
        "vaultDbInjector": { "configuration": { "logLevel": "error", "rotation": { "enabled": true }, "syncTTLSecond": 60 } },
        "renewer": { "configuration": { "logLevel": "debug", "rotation": { "enabled": false } } },
    })));
    let (_, renewer) = rendered.configuration("renewer");
    assert_eq!(
        (&renewer["logLevel"], &renewer["rotation"]["enabled"], &renewer["syncTTLSecond"]),
        (&json!("debug"), &json!(false), &json!(60))
    );
    assert_eq!(rendered.configuration("revoker").1["logLevel"], "error");
}

#[test]
fn each_component_logs_in_with_its_own_role() {
    let roles = |configuration: Value| -> BTreeMap<&str, String> {
        let values = with(
            json!({ "nri": { "enabled": true }, "vaultDbInjector": { "configuration": configuration } }),
        );
        let rendered = Rendered::new(&values);
        COMPONENTS.map(|component| (component.name(), load(&rendered, component).kube_role)).into()
    };
    let named = |injector: &str, renewer: &str, revoker: &str, nri: &str| {
        BTreeMap::from(
            [("injector", injector), ("renewer", renewer), ("revoker", revoker), ("nri", nri)]
                .map(|(a, b)| (a, b.to_owned())),
        )
    };
    assert_eq!(roles(json!({})), named("injector", "renewer", "revoker", "nri"));
    assert_eq!(roles(json!({ "kubeRole": "all" })), named("all", "all", "all", "all"));
    // The Go chart documents these and ignores them.
    let each =
        json!({ "kubeRole": "all", "kubeRoleRenewer": "b", "kubeRoleRevoker": "c", "kubeRoleNri": "d" });
    assert_eq!(roles(each), named("all", "b", "c", "d"));
}

#[test]
fn a_change_replaces_the_pods_whom_it_concerns_and_no_other() {
    let checksums = |configuration: Value| -> Map<String, Value> {
        let values = with(
            json!({ "nri": { "enabled": true }, "vaultDbInjector": { "configuration": configuration } }),
        );
        let rendered = Rendered::new(&values);
        let pods = rendered.pods().into_iter();
        pods.map(|(component, pod)| {
            (component, pod["metadata"]["annotations"]["checksum/configuration"].clone())
        })
        .collect()
    };
    let before = checksums(json!({}));
    let changed = |configuration: Value| -> Vec<String> {
        let after = checksums(configuration);
        before.keys().filter(|component| before[*component] != after[*component]).cloned().collect()
    };
    assert_eq!(changed(json!({ "renewer": { "renewAt": 0.4 } })), ["renewer"]);
    assert_eq!(changed(json!({ "nri": { "pluginIndex": "12" } })), ["nri"]);
    assert_eq!(changed(json!({ "tokenRole": "dbi-pod" })), ["injector", "nri"]);
    assert_eq!(changed(json!({ "logLevel": "debug" })), ["injector", "nri", "renewer", "revoker"]);
}
