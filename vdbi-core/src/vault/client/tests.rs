use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use super::*;
use crate::{
    credential::SourceError,
    vault::{
        endpoint::{AuthRole, Credentials, Field, KvEntry, RenewSelf},
        error::Operation,
        testing::{auth, client, lease, ok, script},
    },
};

fn settings(address: &str) -> Settings {
    Settings {
        address: address.into(),
        namespace: None,
        ca_file: None,
        request_timeout: Duration::from_secs(10),
    }
}

async fn answering(answer: ResponseTemplate) -> (MockServer, VaultClient) {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let client = client(&server.uri());
    (server, client)
}

#[test]
fn a_wrong_setting_is_named_without_its_value() {
    for (address, hint) in [
        ("vault.example", "no URL"),
        ("ftp://vault.example", "https://"),
        ("https://user:hunter2@vault.example", "user or a password"),
        ("https://vault.example/?x=1", "query"),
    ] {
        let text = VaultClient::new(&settings(address), &Registry::disabled()).unwrap_err().to_string();
        assert!(
            text.starts_with("vaultAddress: ") && text.contains(hint) && !text.contains("hunter2"),
            "{text}"
        );
    }
    let namespace = Settings { namespace: Some("a\nb".into()), ..settings("http://v") };
    assert!(matches!(VaultClient::new(&namespace, &Registry::disabled()), Err(SetupError::Namespace)));
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [("missing", None), ("empty", Some("")), ("noise", Some("no certificate"))] {
        let path = directory.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let text = VaultClient::new(
            &Settings { ca_file: Some(path), ..settings("https://v") },
            &Registry::disabled(),
        )
        .unwrap_err()
        .to_string();
        assert!(text.starts_with("vaultCaCert: ") && text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn a_request_has_vaults_headers_and_the_namespace_below_the_address() {
    let server = MockServer::start().await;
    let (answer, mut seen) = script(|_| ok(auth("s.1", 60)));
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let address = format!("{}/gateway/", server.uri());
    let client = VaultClient::new(
        &Settings { namespace: Some("team/a".into()), ..settings(&address) },
        &Registry::disabled(),
    )
    .unwrap();
    client.call(&RenewSelf {}, Some(&Secret::new("s.1"))).await.unwrap();
    let request = seen.recv().await.unwrap();
    assert_eq!(request.url.path(), "/gateway/v1/auth/token/renew-self");
    assert_eq!(request.headers["x-vault-request"], "true");
    assert_eq!(request.headers["x-vault-namespace"], "team/a");
    assert_eq!(request.headers["x-vault-token"], "s.1");
}

#[tokio::test]
async fn a_token_with_a_newline_is_refused_without_being_sent_or_shown() {
    let (server, client) = answering(ok(auth("s.1", 60))).await;
    let failure = client.call(&RenewSelf {}, Some(&Secret::new("s.hunter2\nx"))).await.unwrap_err();
    assert!(matches!(failure, Failure::Unsendable(_)));
    assert!(!format!("{failure:?}").contains("hunter2"));
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_vault_is_no_404_either() {
    for status in [200, 404, 500] {
        for body in ["<html>not found</html>", "{}", "[]", "\"x\"", "{\"message\": \"no route\"}"] {
            let (_server, client) = answering(ResponseTemplate::new(status).set_body_string(body)).await;
            let outcome = client.call(&RenewSelf {}, None).await;
            assert!(matches!(outcome, Err(Failure::Unanswered(_))), "{status} {body}");
        }
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (_server, client) =
        answering(ResponseTemplate::new(200).set_body_bytes(vec![b' '; MAX_BODY + 1])).await;
    let failure = client.call(&RenewSelf {}, None).await.unwrap_err();
    assert!(matches!(&failure, Failure::Unanswered(text) if text.contains("more than")), "{failure:?}");
}

#[tokio::test]
async fn an_unreachable_server_is_worth_another_try() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failure = client(&address).call(&RenewSelf {}, None).await.unwrap_err();
    let error = failure.meaning(Operation::RenewSession);
    assert!(matches!(&error, SourceError::Unavailable(text) if text.contains("refused")), "{error}");
}

#[tokio::test]
async fn a_standby_is_followed_to_the_active_node_with_the_token() {
    let active = MockServer::start().await;
    let (answer, mut seen) = script(|_| ok(auth("s.1", 60)));
    Mock::given(any()).respond_with(answer).mount(&active).await;
    let location = format!("{}/v1/auth/token/renew-self", active.uri());
    let (_standby, client) = answering(ResponseTemplate::new(307).insert_header("location", location)).await;
    client.call(&RenewSelf {}, Some(&Secret::new("s.1"))).await.unwrap();
    let request = seen.recv().await.unwrap();
    assert_eq!(request.method.as_str(), "POST");
    assert_eq!(request.headers["x-vault-token"], "s.1");
}

#[test]
fn a_login_of_a_role_without_policies_is_understood() {
    // Vault leaves token_policies out then, and may leave out more.
    let reply: Reply<IgnoredAny> =
        serde_json::from_value(json!({ "lease_id": "", "auth": { "client_token": "s.1", "accessor": "a" } }))
            .unwrap();
    assert_eq!(reply.auth.unwrap().accessor, "a");
}

#[test]
fn nothing_that_is_read_prints_its_secrets() {
    let secret = "hunter2";
    let reply: Reply<Credentials> =
        serde_json::from_value(lease("x", 1, json!({ "username": "u", "password": secret }))).unwrap();
    let login: Reply<AuthRole> = serde_json::from_value(auth(secret, 60)).unwrap();
    let entry: KvEntry = serde_json::from_value(
        json!({ "data": { "TokenId": secret, "n": 1 }, "metadata": { "version": 1 } }),
    )
    .unwrap();
    let Reply { auth: Some(token), .. } = &login else { panic!("no token") };
    let field = Field(Some(Secret::new(secret)));
    let text = format!("{reply:?} {:?} {entry:?} {field:?}", token.client_token);
    assert!(!text.contains(secret), "{text}");
}
