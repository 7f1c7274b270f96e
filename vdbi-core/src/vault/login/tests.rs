use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use wiremock::{
    Mock, Request, ResponseTemplate,
    matchers::{method, path},
};

use super::{keeper::Keeper, *};
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
    scene.expect_with("s.2", "POST", "auth/token/revoke-accessor", None, ResponseTemplate::new(204)).await;
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
    let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
    let (login, token) = (scene.access.login.clone(), shutdown.clone());
    tasks.spawn(async move { login.keep_alive(token).await });
    logins.recv().await.unwrap();
    for _ in 0..3 {
        until_nothing_is_due(&scene.access.login).await;
        time.advance(Duration::from_secs(41)).await;
        assert_eq!(renewals.recv().await.unwrap().headers["x-vault-token"], "s.1");
    }
    assert!(logins.try_recv().is_err());
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

/// The server has answered; until that has been taken note of.
async fn until_nothing_is_due(login: &Login) {
    while login.live().and_then(|session| session.due).is_none_or(|due| due <= Instant::now()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_at_its_maximum_is_replaced_and_the_old_token_revoked() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    numbered_logins(&scene, 60).await;
    let mut keeper = Keeper::new(scene.access.login.clone());
    keeper.step().await;
    time.advance(Duration::from_secs(41)).await;
    scene.expect_with("s.1", "POST", "auth/token/renew-self", None, ok(auth("s.1", 20))).await;
    scene.expect_with("s.1", "POST", "auth/token/revoke-self", None, ResponseTemplate::new(204)).await;
    let wake = keeper.step().await;
    assert_eq!(wake - Instant::now(), Duration::from_secs(40));
    assert_eq!(scene.access.login.token().await.unwrap().expose(), "s.2");
}

#[tokio::test]
async fn a_session_that_may_not_be_renewed_is_replaced() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    numbered_logins(&scene, 60).await;
    let mut keeper = Keeper::new(scene.access.login.clone());
    keeper.step().await;
    time.advance(Duration::from_secs(41)).await;
    let denied = refused(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    scene.expect_with("s.1", "POST", "auth/token/renew-self", None, denied).await;
    keeper.step().await;
    assert_eq!(scene.access.login.token().await.unwrap().expose(), "s.2");
}

#[tokio::test]
async fn a_failing_renewal_logs_out_only_when_the_token_has_expired() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    let logins = AtomicUsize::new(0);
    let (answer, _seen) = script(move |_| match logins.fetch_add(1, Ordering::SeqCst) {
        0 => ok(auth("s.1", 60)),
        _ => refused(503, &["Vault is sealed"]),
    });
    Mock::given(path(LOGIN)).respond_with(answer).mount(&scene.server).await;
    let sealed = refused(503, &["Vault is sealed"]);
    Mock::given(path("/v1/auth/token/renew-self")).respond_with(sealed).mount(&scene.server).await;
    let status = scene.access.login.status();
    let mut keeper = Keeper::new(scene.access.login.clone());
    keeper.step().await;
    let end = Instant::now() + Duration::from_secs(60);
    time.advance(Duration::from_secs(41)).await;
    let mut wake = keeper.step().await;
    while wake < end {
        assert!(matches!(&*status.borrow(), LoginStatus::LoggedIn { .. }));
        time.advance(wake - Instant::now()).await;
        wake = keeper.step().await;
    }
    assert_eq!(wake, end, "the end of the token is noticed at once");
    time.advance(wake - Instant::now()).await;
    keeper.step().await;
    let reason = "Vault is sealed: unseal it".to_owned();
    assert_eq!(*status.borrow(), LoginStatus::LoggedOut { reason });
}

#[tokio::test]
async fn a_failed_login_is_tried_again_after_1_to_30_seconds_and_a_bit() {
    let scene = Scene::bare().await;
    let time = ManualTime::start();
    Mock::given(path(LOGIN)).respond_with(refused(403, &["permission denied"])).mount(&scene.server).await;
    let mut keeper = Keeper::new(scene.access.login.clone());
    for seconds in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        let pause = keeper.step().await - Instant::now();
        assert!((seconds..seconds * 1.25).contains(&pause.as_secs_f64()), "{seconds} {pause:?}");
        time.advance(pause).await;
    }
    assert_eq!(scene.count("auth/kubernetes/login").await, 7);
}

#[tokio::test]
async fn the_end_of_a_session_revokes_its_token() {
    let scene = Scene::new().await;
    scene.access.login.token().await.unwrap();
    scene.expect("POST", "auth/token/revoke-self", None, ResponseTemplate::new(204)).await;
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
