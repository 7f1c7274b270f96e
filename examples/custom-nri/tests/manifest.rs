//! What the page tells people to apply, and the program as they start it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path, process::Command};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Namespace, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::Value;

fn documents() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("daemonset.yaml");
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

fn node_facts(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_node-facts")).args(arguments).env_clear().output().unwrap()
}

/// The same after a way through the type, which drops what it does not know.
fn round_trip<K: Serialize + DeserializeOwned>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
}

#[test]
fn every_field_of_the_manifest_exists() {
    let documents = documents();
    assert_eq!(documents.len(), 5);
    for object in &documents {
        let known = match object["kind"].as_str().unwrap() {
            "Namespace" => round_trip::<Namespace>(object),
            "ServiceAccount" => round_trip::<ServiceAccount>(object),
            "ClusterRole" => round_trip::<ClusterRole>(object),
            "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>(object),
            "DaemonSet" => round_trip::<DaemonSet>(object),
            kind => panic!("{kind}"),
        };
        assert_eq!(&known, object);
    }
}

#[test]
fn the_program_takes_the_arguments_of_the_manifest_and_refuses_others() {
    let documents = documents();
    let containers = documents.last().unwrap()["spec"]["template"]["spec"]["containers"].clone();
    let mut arguments: Vec<&str> =
        containers[0]["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
    arguments.push("--version");
    let output = node_facts(&arguments);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("node-facts {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(node_facts(&["--facts", "x"]).status.code(), Some(2));
}

#[test]
fn an_index_that_is_none_ends_the_program_with_what_to_write() {
    let output = node_facts(&["--index", "7"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains(
            r#"--name and --index: the index of an NRI plugin is two digits, "00" to "99", not "7""#
        ),
        "{said}"
    );
}
