//! The pods of README and docs ask for what their text says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use vdbi_core::{
    annotation::{self, Delivery, Outcome, Request, Rotation, Template},
    secret::Secret,
};

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// What the first pod of a document asks for.
fn request(path: &str) -> Request {
    requests(path).swap_remove(0)
}

/// What the pods of a document ask for.
fn requests(path: &str) -> Vec<Request> {
    document(path).split("```yaml\n").skip(1).map(parse).collect()
}

fn parse(sample: &str) -> Request {
    let pod: Value = serde_saphyr::from_str(sample.split("```").next().unwrap()).unwrap();
    assert_eq!(pod["metadata"]["labels"]["vault-db-injector"], "true");
    let annotations: BTreeMap<String, String> =
        serde_json::from_value(pod["metadata"]["annotations"].clone()).unwrap();
    match annotation::parse(&annotations, "databases").unwrap() {
        Outcome::Inject(request) => request,
        Outcome::Untouched { reason } => panic!("{reason}"),
    }
}

#[test]
fn the_first_pod_gets_user_and_password() {
    let request = request("README.md");
    let [database] = &request.databases[..] else { panic!("{request:?}") };
    assert_eq!((database.role.as_str(), request.warnings.len()), ("app", 0));
    let Delivery::Classic { user_keys, password_keys } = &database.delivery else { panic!("{database:?}") };
    assert_eq!((&user_keys[..], &password_keys[..]), (&["DBUSER".into()][..], &["DBPASSWORD".into()][..]));
}

#[test]
fn the_pod_with_two_databases_gets_variables_and_a_uri() {
    let request = request("docs/annotations.md");
    assert_eq!(request.rotation, None);
    let [main, reports] = &request.databases[..] else { panic!("{request:?}") };
    assert_eq!((main.role.as_str(), reports.role.as_str(), request.warnings.len()), ("app", "reader", 0));
    assert!(
        matches!(main.delivery, Delivery::Classic { .. }) && matches!(reports.delivery, Delivery::Uri { .. })
    );
}

#[test]
fn the_pod_that_rotates_is_evicted() {
    let requests = requests("docs/annotations.md");
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[1].rotation, requests[1].warnings.len()), (Some(Rotation::Evict), 0));
}

#[test]
fn the_templates_of_the_table_render_as_it_says() {
    let document = document("docs/annotations.md");
    let (_, table) = document.split_once("| template | result |\n|---|---|\n").unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let cells: Vec<&str> = row.split('`').collect();
        let rendered = Template::parse(cells[1]).unwrap().render("v-app-x", &Secret::new("secret"));
        assert_eq!(rendered.expose(), cells[3]);
    }
}
