//! What the tests of this module share: a server that answers as scripted, and time that only moves by hand.

use std::{path::PathBuf, sync::mpsc, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wiremock::{
    Mock, MockServer, Request, Respond, ResponseTemplate,
    matchers::{body_json, header, method, path},
};

use crate::metrics::Registry;

use super::{Account, Login, Settings, VaultClient, access::Access};

/// The token of the scripted session.
pub(super) const OURS: &str = "s.ours";

/// Long enough for a request over loopback, short enough to wait for.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// A server, a client of it and a session that is logged in with the JWT `jwt-1`.
pub(super) struct Scene {
    pub(super) server: MockServer,
    pub(super) access: Access,
    pub(super) token_file: PathBuf,
    _directory: TempDir,
}

impl Scene {
    /// No login is scripted.
    pub(super) async fn bare() -> Self {
        let server = MockServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, "jwt-1\n").unwrap();
        let login = Login::new(client(&server.uri()), account(token_file.clone()));
        Self { server, access: login.into(), token_file, _directory: directory }
    }

    /// Another session of the same account.
    pub(super) fn login_over(&self, client: VaultClient) -> Login {
        Login::new(client, account(self.token_file.clone()))
    }

    /// Any login gets [`OURS`], for an hour.
    pub(super) async fn new() -> Self {
        let scene = Self::bare().await;
        let template = ResponseTemplate::new(200).set_body_json(auth(OURS, 3600));
        Mock::given(path("/v1/auth/kubernetes/login")).respond_with(template).mount(&scene.server).await;
        scene
    }

    /// Scripts one request of the session, with exactly this body, and expects it once.
    pub(super) async fn expect(&self, verb: &str, at: &str, body: Option<Value>, answer: ResponseTemplate) {
        self.expect_with(OURS, verb, at, body, answer).await;
    }

    /// As [`expect`](Self::expect), with another token.
    pub(super) async fn expect_with(
        &self,
        token: &str,
        verb: &str,
        at: &str,
        body: Option<Value>,
        answer: ResponseTemplate,
    ) {
        let mut mock =
            Mock::given(method(verb)).and(path(format!("/v1/{at}"))).and(header("x-vault-token", token));
        if let Some(body) = body {
            mock = mock.and(body_json(body));
        }
        mock.respond_with(answer).expect(1).mount(&self.server).await;
    }

    /// Answers every request at a path.
    pub(super) async fn always(&self, at: &str, answer: ResponseTemplate) {
        Mock::given(path(format!("/v1/{at}"))).respond_with(answer).mount(&self.server).await;
    }

    pub(super) async fn count(&self, at: &str) -> usize {
        let at = format!("/v1/{at}");
        self.server
            .received_requests()
            .await
            .unwrap()
            .iter()
            .filter(|request| request.url.path() == at)
            .count()
    }
}

fn account(token_file: PathBuf) -> Account {
    Account { auth_path: "kubernetes".into(), role: "renewer".into(), token_file }
}

pub(super) fn client(address: &str) -> VaultClient {
    client_within(address, Duration::from_secs(10))
}

/// A client that waits no longer than [`REQUEST_TIMEOUT`].
pub(super) fn impatient_client(address: &str) -> VaultClient {
    client_within(address, REQUEST_TIMEOUT)
}

fn client_within(address: &str, request_timeout: Duration) -> VaultClient {
    let settings = Settings { address: address.to_owned(), namespace: None, ca_file: None, request_timeout };
    VaultClient::new(&settings, &Registry::disabled()).unwrap()
}

/// An envelope with a token.
pub(super) fn auth(token: &str, ttl: u64) -> Value {
    json!({ "lease_id": "", "lease_duration": 0, "renewable": false, "data": null, "warnings": null, "auth": {
        "client_token": token, "accessor": format!("accessor-of-{}", token.trim_start_matches("s.")), "lease_duration": ttl, "renewable": true,
        "orphan": true, "token_type": "service", "policies": ["app"] } })
}

/// An envelope with data.
pub(super) fn data(data: Value) -> Value {
    json!({ "lease_id": "", "lease_duration": 0, "renewable": false, "data": data, "warnings": null, "auth": null })
}

/// An envelope of a lease.
pub(super) fn lease(id: &str, ttl: u64, data: Value) -> Value {
    json!({ "lease_id": id, "lease_duration": ttl, "renewable": true, "data": data, "warnings": null, "auth": null })
}

pub(super) fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

pub(super) fn refused(status: u16, errors: &[&str]) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({ "errors": errors }))
}

/// Answers by a function of the request, and tells the test of each one.
pub(super) struct Script<F> {
    answer: F,
    seen: UnboundedSender<Request>,
}

pub(super) fn script<F>(answer: F) -> (Script<F>, UnboundedReceiver<Request>)
where
    F: Fn(&Request) -> ResponseTemplate + Send + Sync,
{
    let (seen, requests) = unbounded_channel();
    (Script { answer, seen }, requests)
}

impl<F: Fn(&Request) -> ResponseTemplate + Send + Sync> Respond for Script<F> {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        // The test may have seen enough.
        let _ = self.seen.send(request.clone());
        (self.answer)(request)
    }
}

/// Paused time that does not move on by itself while the server, which runs in real time, is answering: tokio leaves the
/// clock alone as long as a blocking task runs.
pub(super) struct ManualTime {
    _release: mpsc::Sender<()>,
}

impl ManualTime {
    pub(super) fn start() -> Self {
        tokio::time::pause();
        let (release, wait) = mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || wait.recv().is_err()));
        Self { _release: release }
    }

    pub(super) async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}
