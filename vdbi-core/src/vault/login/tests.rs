use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use wiremock::{
    Mock, Request,
    matchers::{method, path},
};

use super::*;
use crate::vault::{
    endpoint::RevokeAccessor,
    testing::{ManualTime, OURS, Scene, auth, ok, refused, script},
};

const LOGIN: &str = "/v1/auth/kubernetes/login";

fn jwt(request: &Request) -> String {
    request.body_json::<serde_json::Value>().unwrap()["jwt"].as_str().unwrap().to_owned()
}

/// Every login gets another token: s.1, s.2, ..
async fn numbered_logins(scene: &Scene, ttl: u64) -> tokio::sync::mpsc::UnboundedReceiver<Request> {
    let logins = AtomicUsize::new(0);
    let (answer, seen) =
        script(move |_| ok(auth(&format!("s.{}", logins.fetch_add(1, Ordering::SeqCst) + 1), ttl)));
    Mock::given(method("POST")).and(path(LOGIN)).respond_with(answer).mount(&scene.server).await;
    seen
}

async fn keep(scene: &Scene) -> (JoinSet<()>, CancellationToken) {
    let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
    let (login, token) = (scene.access.login.clone(), shutdown.clone());
    tasks.spawn(async move { login.keep_alive(token).await });
    (tasks, shutdown)
}

#[tokio::test]
async fn a_login_sends_the_role_and_the_token_of_the_file() {
    let scene = Scene::bare().await;
    let mut seen = numbered_logins(&scene, 3600).await;
    assert_eq!(scene.access.login.token().await.unwrap().expose(), "s.1");
    let request = seen.recv().await.unwrap();
    assert_eq!(
        request.body_json::<serde_json::Value>().unwrap(),
        json!({ "role": "renewer", "jwt": "jwt-1" })
    );
    assert!(!request.headers.contains_key("x-vault-token"));
    let status = scene.access.login.status().borrow().clone();
    assert_eq!(status, LoginStatus::LoggedIn { ttl: Duration::from_secs(3600) });
}

#[tokio::test]
async fn many_callers_share_one_login() {
    let scene = Scene::new().await;
    let tokens = join_all((0..50).map(|_| scene.access.login.token())).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().expose() == OURS));
    assert_eq!(scene.count("auth/kubernetes/login").await, 1);
}

#[tokio::test]
async fn many_callers_share_one_failed_login() {
    let scene = Scene::bare().await;
    let answer = refused(503, &["Vault is sealed"]);
    Mock::given(path(LOGIN)).respond_with(answer).expect(1).mount(&scene.server).await;
    for outcome in join_all((0..50).map(|_| scene.access.login.token())).await {
        assert_eq!(outcome.unwrap_err().to_string(), "Vault is sealed: unseal it");
    }
    let status = scene.access.login.status().borrow().clone();
    assert_eq!(status, LoginStatus::LoggedOut { reason: "Vault is sealed: unseal it".into() });
}

#[tokio::test]
async fn the_token_file_is_read_at_each_login() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    let mut seen = numbered_logins(&scene, 60).await;
    scene.access.login.token().await.unwrap();
    std::fs::write(&scene.token_file, "jwt-2").unwrap();
    time.advance(Duration::from_secs(61)).await;
    assert_eq!(scene.access.login.token().await.unwrap().expose(), "s.2");
    assert_eq!(jwt(&seen.recv().await.unwrap()), "jwt-1");
    assert_eq!(jwt(&seen.recv().await.unwrap()), "jwt-2");
}

#[tokio::test]
async fn a_file_that_is_no_token_is_refused_without_its_content() {
    for content in ["", "one\ntwo", "tök"] {
        let scene = Scene::bare().await;
        std::fs::write(&scene.token_file, content).unwrap();
        let error = scene.access.login.token().await.unwrap_err();
        assert!(matches!(error, SourceError::Misconfigured(_)), "{error:?}");
        assert!(
            !error.to_string().contains("one\n") && error.to_string().contains("token: the file"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_dead_token_is_replaced_once_and_the_request_repeated() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    numbered_logins(&scene, 3600).await;
    scene.access.login.token().await.unwrap();
    time.advance(SETTLING).await;
    scene
        .expect_with("s.1", "POST", "auth/token/revoke-accessor", None, refused(403, &["permission denied"]))
        .await;
    scene.expect_with("s.2", "POST", "auth/token/revoke-accessor", None, ok(json!({}))).await;
    scene.access.call(&RevokeAccessor { accessor: "x" }).await.unwrap();
}

#[tokio::test]
async fn vaults_wording_of_a_dead_token_is_understood() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    numbered_logins(&scene, 3600).await;
    scene.access.login.token().await.unwrap();
    time.advance(SETTLING).await;
    let dead = refused(403, &["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]);
    Mock::given(path("/v1/auth/token/revoke-accessor"))
        .respond_with(dead)
        .expect(2)
        .mount(&scene.server)
        .await;
    scene.access.call(&RevokeAccessor { accessor: "x" }).await.unwrap_err();
    assert_eq!(
        scene.count("auth/kubernetes/login").await,
        2,
        "a second refusal does not lead to a third login"
    );
}

#[tokio::test]
async fn a_denial_by_policy_leads_to_no_login() {
    let scene = Scene::new().await;
    let time = ManualTime::start();
    scene.access.login.token().await.unwrap();
    time.advance(SETTLING).await;
    let denied = refused(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    scene.expect("POST", "auth/token/revoke-accessor", None, denied).await;
    let failure = scene.access.call(&RevokeAccessor { accessor: "x" }).await.unwrap_err();
    assert_eq!(
        failure.meaning(Operation::RevokeToken).to_string(),
        "cannot revoke the credential's token: this component's policy needs path \"auth/token/revoke-accessor\" { \
         capabilities = [\"update\"] }"
    );
    assert_eq!(scene.count("auth/kubernetes/login").await, 1);
}

#[tokio::test]
async fn a_session_is_renewed_after_two_thirds_of_its_life() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    let mut logins = numbered_logins(&scene, 60).await;
    let (answer, mut renewals) = script(|_| ok(auth("s.1", 60)));
    Mock::given(path("/v1/auth/token/renew-self")).respond_with(answer).mount(&scene.server).await;
    let (mut tasks, shutdown) = keep(&scene).await;
    logins.recv().await.unwrap();
    scene
        .access
        .login
        .status()
        .wait_for(|status| matches!(status, LoginStatus::LoggedIn { .. }))
        .await
        .unwrap();
    for _ in 0..3 {
        time.advance(Duration::from_secs(41)).await;
        let request = renewals.recv().await.unwrap();
        assert_eq!(request.headers["x-vault-token"], "s.1");
        settle(&scene.access.login).await;
    }
    assert!(logins.try_recv().is_err());
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

/// Until the renewal that the server has answered has been taken note of.
async fn settle(login: &Login) {
    while login.live().and_then(|session| session.due).is_none_or(|due| due <= Instant::now()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_at_its_maximum_is_replaced_and_the_old_token_revoked() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    let mut logins = numbered_logins(&scene, 60).await;
    let clipped = ok(auth("s.1", 20));
    Mock::given(path("/v1/auth/token/renew-self")).respond_with(clipped).mount(&scene.server).await;
    let (answer, mut revoked) = script(|_| wiremock::ResponseTemplate::new(204));
    Mock::given(path("/v1/auth/token/revoke-self")).respond_with(answer).mount(&scene.server).await;
    let _running = keep(&scene).await;
    logins.recv().await.unwrap();
    settle(&scene.access.login).await;
    time.advance(Duration::from_secs(41)).await;
    logins.recv().await.unwrap();
    assert_eq!(revoked.recv().await.unwrap().headers["x-vault-token"], "s.1");
    assert_eq!(scene.access.login.token().await.unwrap().expose(), "s.2");
}

#[tokio::test]
async fn a_failing_renewal_logs_out_only_when_the_token_has_expired() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    let sealed = AtomicUsize::new(0);
    let (answer, mut logins) = script(move |_| match sealed.fetch_add(1, Ordering::SeqCst) {
        0 => ok(auth("s.1", 60)),
        _ => refused(503, &["Vault is sealed"]),
    });
    Mock::given(path(LOGIN)).respond_with(answer).mount(&scene.server).await;
    let (answer, mut renewals) = script(|_| refused(503, &["Vault is sealed"]));
    Mock::given(path("/v1/auth/token/renew-self")).respond_with(answer).mount(&scene.server).await;
    let mut status = scene.access.login.status();
    let _running = keep(&scene).await;
    logins.recv().await.unwrap();
    status.wait_for(|status| matches!(status, LoginStatus::LoggedIn { .. })).await.unwrap();
    settle(&scene.access.login).await;
    time.advance(Duration::from_secs(41)).await;
    renewals.recv().await.unwrap();
    assert!(matches!(&*status.borrow(), LoginStatus::LoggedIn { .. }));
    // The next look is after the pause, or when the token ends.
    while !matches!(&*status.borrow(), LoginStatus::LoggedOut { .. }) {
        time.advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    let reason = "Vault is sealed: unseal it".to_owned();
    assert_eq!(*status.borrow(), LoginStatus::LoggedOut { reason });
}

#[tokio::test]
async fn a_failed_login_is_tried_again_for_ever() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    let attempts = AtomicUsize::new(0);
    let (answer, mut logins) = script(move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
        0..8 => refused(403, &["permission denied"]),
        _ => ok(auth("s.1", 60)),
    });
    Mock::given(path(LOGIN)).respond_with(answer).mount(&scene.server).await;
    let mut status = scene.access.login.status();
    let _running = keep(&scene).await;
    let began = Instant::now();
    while logins.try_recv().is_err() || !matches!(&*status.borrow_and_update(), LoginStatus::LoggedIn { .. })
    {
        time.advance(Duration::from_millis(500)).await;
        tokio::task::yield_now().await;
        if matches!(&*status.borrow(), LoginStatus::LoggedIn { .. }) {
            break;
        }
    }
    // 1 + 2 + 4 + 8 + 16 + 30 + 30 + 30 seconds, and up to a quarter more.
    assert!(began.elapsed() > Duration::from_secs(91), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_end_of_a_session_revokes_its_token() {
    let scene = Scene::new().await;
    scene.access.login.token().await.unwrap();
    scene.expect("POST", "auth/token/revoke-self", None, wiremock::ResponseTemplate::new(204)).await;
    scene.access.login.end().await;
    assert!(matches!(&*scene.access.login.status().borrow(), LoginStatus::LoggedOut { .. }));
    scene.access.login.end().await;
}

#[tokio::test]
async fn a_session_that_was_never_opened_ends_without_a_request() {
    let scene = Scene::bare().await;
    scene.access.login.end().await;
    assert!(scene.server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_of_a_session_prints_its_token() {
    let scene = Scene::new().await;
    scene.access.login.token().await.unwrap();
    let text = format!("{:?} {:?}", scene.access, scene.access.login.status());
    assert!(!text.contains(OURS) && !text.contains("jwt-1"), "{text}");
}

#[test]
fn a_token_without_an_end_is_never_due() {
    let auth = serde_json::from_value(json!({ "client_token": "s.x", "lease_duration": 0 })).unwrap();
    let session = Session::new(auth, Instant::now());
    assert!(session.due.is_none() && session.expires.is_none());
}
