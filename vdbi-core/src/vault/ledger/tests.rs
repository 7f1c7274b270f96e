use std::time::Duration;

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use super::*;
use crate::{
    credential::{Lease, TokenHandle},
    ledger::Owner,
    pod::PodRef,
    vault::testing::{Scene, data, ok, refused},
};

const ID: &str = "0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a11";
const DATA: &str = "dbi/data/kubernetes/0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a11";
const METADATA: &str = "dbi/metadata/kubernetes/0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a11";
const DETAILS: &str = "dbi/detailed-metadata/kubernetes";
const FOLDER: &str = "dbi/metadata/kubernetes";
const MISMATCH: &str = "check-and-set parameter did not match the current version";

fn id() -> EntryId {
    ID.parse().unwrap()
}

fn ledger(scene: &Scene) -> VaultLedger {
    VaultLedger::new(scene.access.login.clone(), folder("/kubernetes/"))
}

fn folder(prefix: &str) -> KvFolder {
    KvFolder { mount: "dbi".into(), prefix: prefix.into() }
}

fn entry() -> Entry {
    Entry {
        lease: Lease { id: "databases/creds/app/abc".into(), token: TokenHandle::Accessor("acc".into()) },
        owner: Some(Owner { cluster: "c1".into(), release: "prod".into() }),
        pod: PodRef {
            namespace: "shop".into(),
            name: None,
            uid: None,
            service_account: "app1".into(),
            node: None,
        },
        database: "main".into(),
        role: "app".into(),
        issued_at: Some("2026-11-24T01:02:03Z".parse().unwrap()),
        ttl: Some(Duration::from_secs(3600)),
        raw_token: None,
    }
}

fn fields() -> Value {
    json!({ "LeaseId": "databases/creds/app/abc", "TokenAccessor": "acc", "TokenId": "", "Namespace": "shop",
        "ServiceAccountName": "app1", "PodName": "", "NodeName": "", "PodUid": "", "Database": "main", "Role": "app",
        "ClusterId": "c1", "Release": "prod", "IssuedAt": "2026-11-24T01:02:03Z",
        "LeaseDuration": "3600", "Schema": "1" })
}

/// The fields that are not empty, and the version that they repeat.
fn notes(version: &str) -> Value {
    let mut notes = fields();
    if let Value::Object(notes) = &mut notes {
        notes.retain(|_, value| value != "");
        notes.insert("EntryVersion".into(), version.into());
    }
    notes
}

fn written(version: u64) -> ResponseTemplate {
    ok(data(json!({ "version": version, "created_time": "2026-11-24T01:02:03Z", "destroyed": false })))
}

#[tokio::test]
async fn a_new_entry_is_written_only_where_there_is_none() {
    let scene = Scene::new().await;
    let body = json!({ "data": fields(), "options": { "cas": 0 } });
    scene.expect("POST", DATA, Some(body), written(1)).await;
    ledger(&scene).record(id(), &entry()).await.unwrap();
}

#[tokio::test]
async fn an_id_that_is_taken_is_a_conflict() {
    let scene = Scene::new().await;
    scene.expect("POST", DATA, None, refused(400, &[MISMATCH])).await;
    let error = ledger(&scene).record(id(), &entry()).await.unwrap_err();
    assert!(matches!(error, LedgerError::Conflict(taken) if taken == id()), "{error}");
}

#[tokio::test]
async fn an_update_names_the_version_that_was_read() {
    let scene = Scene::new().await;
    let body = json!({ "data": fields(), "options": { "cas": 7 } });
    scene.expect("POST", DATA, Some(body), written(8)).await;
    scene
        .expect("PATCH", METADATA, Some(json!({ "custom_metadata": notes("8") })), ResponseTemplate::new(204))
        .await;
    ledger(&scene).update(id(), &entry(), 7).await.unwrap();
}

#[tokio::test]
async fn an_update_whose_notes_are_refused_is_an_update() {
    let scene = Scene::new().await;
    scene.expect("POST", DATA, None, written(8)).await;
    let denied = refused(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    scene.expect("PATCH", METADATA, None, denied).await;
    ledger(&scene).update(id(), &entry(), 7).await.unwrap();
}

#[tokio::test]
async fn a_token_is_never_noted() {
    let scene = Scene::new().await;
    scene.expect("POST", DATA, None, written(8)).await;
    let entry = Entry { raw_token: Some(Secret::new("s.raw")), ..entry() };
    ledger(&scene).update(id(), &entry, 7).await.unwrap();
}

#[tokio::test]
async fn a_survey_tells_what_is_noted_of_the_stored_version() {
    for (stored, told) in [(8, true), (9, false)] {
        let scene = Scene::new().await;
        let details = json!({
            "keys": [ID, "folder/"],
            "key_info": { ID: { "current_version": stored, "custom_metadata": notes("8") }, "folder/": { "current_version": 0 } },
        });
        scene.expect("LIST", DETAILS, None, ok(data(details))).await;
        let surveyed = ledger(&scene).survey().await.unwrap();
        assert_eq!(surveyed.len(), 1);
        let (surveyed_id, entry) = &surveyed[0];
        assert_eq!((*surveyed_id, entry.as_ref().map(|stored| stored.version)), (id(), told.then_some(8)));
        assert!(entry.as_ref().is_none_or(|stored| stored.entry.role == "app"));
    }
}

#[tokio::test]
async fn a_survey_of_a_server_that_tells_nothing_is_a_list() {
    let denied = refused(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    for answer in [refused(404, &[]), denied] {
        let scene = Scene::new().await;
        scene.expect("LIST", DETAILS, None, answer).await;
        scene.expect("LIST", FOLDER, None, ok(data(json!({ "keys": [ID] })))).await;
        let surveyed = ledger(&scene).survey().await.unwrap();
        assert!(matches!(surveyed[..], [(found, None)] if found == id()));
    }
}

#[tokio::test]
async fn an_update_creates_nothing() {
    let scene = Scene::bare().await;
    let error = ledger(&scene).update(id(), &entry(), 0).await.unwrap_err();
    assert!(matches!(error, LedgerError::Conflict(_)), "{error}");
}

#[tokio::test]
async fn an_entry_is_read_with_its_version_and_without_what_is_no_text() {
    let scene = Scene::new().await;
    let mut stored = fields();
    stored["Note"] = json!({ "by": "hand" });
    let body = data(json!({ "data": stored, "metadata": { "version": 3, "custom_metadata": null } }));
    scene.expect("GET", DATA, None, ok(body)).await;
    let stored = ledger(&scene).read(id()).await.unwrap().unwrap();
    assert_eq!(stored.version, 3);
    assert_eq!(stored.entry.role, "app");
}

#[tokio::test]
async fn nothing_and_what_was_soft_deleted_are_both_nothing() {
    let deleted =
        data(json!({ "data": null, "metadata": { "version": 1, "deletion_time": "2026-11-24T01:02:03Z" } }));
    for answer in [refused(404, &[]), ResponseTemplate::new(404).set_body_json(deleted)] {
        let scene = Scene::new().await;
        scene.expect("GET", DATA, None, answer).await;
        assert!(ledger(&scene).read(id()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_is_no_entry_is_corrupt() {
    let scene = Scene::new().await;
    let body = data(json!({ "data": { "x": "y" }, "metadata": { "version": 1 } }));
    scene.expect("GET", DATA, None, ok(body)).await;
    let error = ledger(&scene).read(id()).await.unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_list_leaves_out_what_is_no_id() {
    let scene = Scene::new().await;
    let keys = json!({ "keys": [ID, "folder/", "../up", "0B6C3A5E-6F0E-4C1C-9D6B-2F8F7F1F0A11"] });
    scene.expect("LIST", FOLDER, None, ok(data(keys))).await;
    assert_eq!(ledger(&scene).list().await.unwrap(), [id()]);
}

#[tokio::test]
async fn an_empty_ledger_is_no_error() {
    let scene = Scene::new().await;
    scene.expect("LIST", FOLDER, None, refused(404, &[])).await;
    assert!(ledger(&scene).list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_mount_that_does_not_exist_is_no_empty_ledger() {
    let scene = Scene::new().await;
    let answer = refused(404, &["no handler for route \"dbi/metadata/kubernetes/\". route entry not found."]);
    scene.expect("LIST", FOLDER, None, answer).await;
    let error = ledger(&scene).list().await.unwrap_err();
    assert!(matches!(&error, LedgerError::Denied(text) if text.contains("vaultSecretName")), "{error}");
}

#[tokio::test]
async fn an_engine_of_version_1_is_refused() {
    let scene = Scene::new().await;
    scene.expect("POST", DATA, None, ResponseTemplate::new(204)).await;
    let error = ledger(&scene).record(id(), &entry()).await.unwrap_err();
    assert!(matches!(&error, LedgerError::Denied(text) if text.contains("version 2")), "{error}");
}

#[tokio::test]
async fn forgetting_removes_the_key_and_may_be_repeated() {
    for answer in [ResponseTemplate::new(204), refused(404, &[])] {
        let scene = Scene::new().await;
        scene.expect("DELETE", METADATA, None, answer).await;
        ledger(&scene).forget(id()).await.unwrap();
    }
}

#[tokio::test]
async fn a_denial_names_the_line_that_the_policy_needs() {
    let denied = || refused(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    let scene = Scene::new().await;
    scene.expect("POST", DATA, None, denied()).await;
    scene.expect("LIST", FOLDER, None, denied()).await;
    let ledger = ledger(&scene);
    let text = ledger.record(id(), &entry()).await.unwrap_err().to_string();
    assert!(
        text.contains(&format!("path \"{DATA}\" {{ capabilities = [\"create\", \"update\"] }}")),
        "{text}"
    );
    let text = ledger.list().await.unwrap_err().to_string();
    assert!(text.contains(&format!("path \"{FOLDER}/\" {{ capabilities = [\"list\"] }}")), "{text}");
}

#[tokio::test]
async fn a_path_that_cannot_be_used_names_its_key_and_is_not_requested() {
    let scene = Scene::bare().await;
    let ledger = VaultLedger::new(scene.access.login.clone(), folder("../other"));
    let error = ledger.list().await.unwrap_err();
    assert!(matches!(&error, LedgerError::Denied(text) if text.starts_with("vaultSecretPrefix")), "{error}");
    assert!(scene.server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_of_a_ledger_prints_a_secret() {
    let scene = Scene::new().await;
    let mut stored = fields();
    stored["TokenId"] = json!("s.hunter2");
    let body = data(json!({ "data": stored, "metadata": { "version": 3 } }));
    scene.expect("GET", DATA, None, ok(body)).await;
    let ledger = ledger(&scene);
    let stored = ledger.read(id()).await.unwrap().unwrap();
    let text = format!("{ledger:?} {stored:?}");
    assert!(!text.contains("hunter2") && !text.contains("s.ours"), "{text}");
}
