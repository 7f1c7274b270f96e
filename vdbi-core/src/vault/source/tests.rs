use serde_json::{Value, json};
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{body_json, method, path},
};

use super::*;
use crate::{
    pod::PodRef,
    secret::Secret,
    vault::testing::{ManualTime, REQUEST_TIMEOUT, Scene, auth, data, impatient_client, lease, ok, refused},
};

const CREDS: &str = "databases/creds/app";
const LEASE: &str = "databases/creds/app/abc";
const BY_POLICY: &str = "1 error occurred:\n\t* permission denied\n\n";

/// Proves every pod's identity with the same token.
struct Identity;

impl PodIdentity for Identity {
    async fn token(&self, _pod: &PodRef) -> Result<Secret, IdentityError> {
        Ok(Secret::new("jwt-of-the-pod"))
    }
}

/// Knows no service account.
struct Nobody;

impl PodIdentity for Nobody {
    async fn token(&self, pod: &PodRef) -> Result<Secret, IdentityError> {
        let (namespace, name) = (pod.namespace.clone(), pod.service_account.clone());
        Err(IdentityError::UnknownServiceAccount { namespace, name })
    }
}

fn source<I: PodIdentity>(scene: &Scene, authentication: Authentication<I>) -> VaultSource<I> {
    VaultSource::new(scene.access.login.clone(), "kubernetes", authentication, issuing(7200))
}

fn issuing(period: u64) -> Issuing {
    Issuing { token_period: Duration::from_secs(period), ..Issuing::default() }
}

fn legacy(scene: &Scene) -> VaultSource<Identity> {
    source(scene, Authentication::Legacy { token_role: Some("dbi-pod".into()) })
}

fn request() -> CredentialRequest {
    CredentialRequest {
        pod: PodRef {
            namespace: "shop".into(),
            name: Some("web-0".into()),
            service_account: "app1".into(),
            ..PodRef::default()
        },
        database: "main".into(),
        engine: "databases".into(),
        role: "app".into(),
    }
}

fn by_accessor() -> Lease {
    Lease { id: LEASE.into(), token: TokenHandle::Accessor("acc".into()) }
}

fn raw() -> Lease {
    Lease { id: LEASE.into(), token: TokenHandle::Raw(Secret::new("s.raw")) }
}

fn user() -> Value {
    lease(LEASE, 3600, json!({ "username": "v-app", "password": "hunter2" }))
}

fn role(names: &[&str]) -> Value {
    data(json!({ "token_policies": ["app"], "bound_service_account_names": names,
        "bound_service_account_namespaces": ["shop"] }))
}

fn gone() -> ResponseTemplate {
    ResponseTemplate::new(204)
}

#[tokio::test]
async fn authorization_reads_the_auth_role_with_our_token() {
    let scene = Scene::new().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, ok(role(&["app1"]))).await;
    legacy(&scene).authorize(&request()).await.unwrap();
}

#[tokio::test]
async fn an_unbound_service_account_is_denied() {
    let scene = Scene::new().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, ok(role(&["app2"]))).await;
    let error = legacy(&scene).authorize(&request()).await.unwrap_err();
    assert!(matches!(&error, SourceError::Denied(text) if text.contains("service account app1")), "{error}");
}

#[tokio::test]
async fn an_unknown_auth_role_is_invalid() {
    let scene = Scene::new().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, refused(404, &[])).await;
    let error = legacy(&scene).authorize(&request()).await.unwrap_err();
    assert!(matches!(error, SourceError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn fifty_admissions_read_the_auth_role_once() {
    let scene = Scene::new().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, ok(role(&["app1"]))).await;
    let (source, request) = (legacy(&scene), request());
    let all = (0..50).map(|_| source.authorize(&request));
    futures::future::try_join_all(all).await.unwrap();
    source.authorize(&request).await.unwrap();
}

#[tokio::test]
async fn an_auth_role_is_read_again_when_its_time_is_over() {
    let scene = Scene::new().await;
    scene.always("auth/kubernetes/role/app", ok(role(&["app1"]))).await;
    let login = scene.access.login.clone();
    let issuing = Issuing { role_cache_ttl: Duration::from_millis(20), ..Issuing::default() };
    let authentication = Authentication::<Identity>::Legacy { token_role: None };
    let source = VaultSource::new(login, "kubernetes", authentication, issuing);
    source.authorize(&request()).await.unwrap();
    sleep(Duration::from_millis(40)).await;
    source.authorize(&request()).await.unwrap();
    assert_eq!(scene.count("auth/kubernetes/role/app").await, 2);
}

#[tokio::test]
async fn a_binding_that_was_added_counts_before_the_cached_role_expires() {
    let scene = Scene::new().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, ok(role(&["app2"]))).await;
    let source = legacy(&scene);
    for _ in 0..3 {
        source.authorize(&request()).await.unwrap_err();
    }
    scene.server.reset().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, ok(role(&["app1", "app2"]))).await;
    sleep(Duration::from_millis(1_050)).await;
    source.authorize(&request()).await.unwrap();
}

#[tokio::test]
async fn a_failure_to_read_the_auth_role_is_not_kept() {
    let scene = Scene::new().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, refused(500, &["later"])).await;
    let source = legacy(&scene);
    assert!(matches!(source.authorize(&request()).await, Err(SourceError::Unavailable(_))));
    scene.server.reset().await;
    scene.expect("GET", "auth/kubernetes/role/app", None, ok(role(&["app1"]))).await;
    source.authorize(&request()).await.unwrap();
}

#[tokio::test]
async fn an_auth_role_without_a_period_is_a_warning_and_is_looked_up_once() {
    let scene = Scene::bare().await;
    scene.always("auth/kubernetes/login", ok(auth("s.pod", 7200))).await;
    scene.always("databases/creds/app", ok(user())).await;
    scene.expect_with("s.pod", "GET", "auth/token/lookup-self", None, ok(data(json!({ "ttl": 7200 })))).await;
    let source = source(&scene, Authentication::Projected(Identity));
    for _ in 0..2 {
        let issued = source.issue(&request()).await.unwrap();
        let [warning] = &issued.warnings[..] else { panic!("{issued:?}") };
        assert!(warning.contains("auth role app has no token_period") && warning.len() <= 120, "{warning}");
    }
}

#[tokio::test]
async fn a_periodic_auth_role_and_one_that_cannot_be_looked_up_are_no_warning() {
    for answer in [ok(data(json!({ "period": 7200 }))), refused(403, &[BY_POLICY])] {
        let scene = Scene::bare().await;
        scene.always("auth/kubernetes/login", ok(auth("s.pod", 7200))).await;
        scene.always("databases/creds/app", ok(user())).await;
        scene.always("auth/token/lookup-self", answer).await;
        let source = source(&scene, Authentication::Projected(Identity));
        assert_eq!(source.issue(&request()).await.unwrap().warnings, [""; 0]);
    }
}

#[tokio::test]
async fn a_projected_authorization_only_looks_at_the_names() {
    let scene = Scene::bare().await;
    let source = source(&scene, Authentication::Projected(Identity));
    source.authorize(&request()).await.unwrap();
    assert!(scene.server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_leaves_its_path_is_invalid_and_reaches_no_server() {
    let scene = Scene::bare().await;
    let evil = [
        ("databases/../sys", "app"),
        ("databases", "../app"),
        ("databases", "a?b"),
        ("", "app"),
        ("databases", ""),
    ];
    for (engine, role) in evil {
        let request = CredentialRequest { engine: engine.into(), role: role.into(), ..request() };
        for error in [
            legacy(&scene).authorize(&request).await.unwrap_err(),
            legacy(&scene).issue(&request).await.unwrap_err(),
            source(&scene, Authentication::Projected(Identity)).authorize(&request).await.unwrap_err(),
            source(&scene, Authentication::Projected(Identity)).issue(&request).await.unwrap_err(),
        ] {
            assert!(matches!(error, SourceError::Invalid(_)), "{engine} {role} {error}");
        }
    }
    assert!(scene.server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_legacy_credential_lives_under_a_token_of_the_token_role() {
    let scene = Scene::new().await;
    let body = json!({ "policies": ["app"], "display_name": "vdbi-pod",
        "meta": { "namespace": "shop", "service_account": "app1", "pod": "web-0" } });
    scene.expect("POST", "auth/token/create/dbi-pod", Some(body), ok(auth("s.pod", 1800))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, ok(user())).await;
    let issued = legacy(&scene).issue(&request()).await.unwrap();
    assert_eq!((issued.username.as_str(), issued.password.expose()), ("v-app", "hunter2"));
    assert_eq!(issued.lease.id, LEASE);
    assert!(matches!(&issued.lease.token, TokenHandle::Accessor(accessor) if accessor == "accessor-of-pod"));
    assert_eq!(issued.ttl, Duration::from_secs(1800), "the token's, which is shorter");
    assert!(issued.token.is_none());
}

#[tokio::test]
async fn without_a_token_role_an_orphan_is_created_with_the_period() {
    let scene = Scene::new().await;
    let body = json!({ "policies": ["app"], "period": "7200s", "display_name": "vdbi-pod",
        "meta": { "namespace": "shop", "service_account": "app1", "pod": "web-0" } });
    scene.expect("POST", "auth/token/create-orphan", Some(body), ok(auth("s.pod", 7200))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, ok(user())).await;
    let login = scene.access.login.clone();
    let authentication = Authentication::<Identity>::Legacy { token_role: None };
    let source = VaultSource::new(
        login,
        "kubernetes",
        authentication,
        Issuing { store_raw_token: true, ..issuing(7200) },
    );
    let issued = source.issue(&request()).await.unwrap();
    assert_eq!(issued.ttl, Duration::from_secs(3600), "the lease's, which is shorter");
    assert_eq!(issued.token.unwrap().expose(), "s.pod", "for the way back");
}

#[tokio::test]
async fn a_projected_credential_lives_under_a_login_as_the_pod() {
    let scene = Scene::bare().await;
    Mock::given(method("POST"))
        .and(path("/v1/auth/kubernetes/login"))
        .and(body_json(json!({ "role": "app", "jwt": "jwt-of-the-pod" })))
        .respond_with(ok(auth("s.pod", 7200)))
        .expect(1)
        .mount(&scene.server)
        .await;
    scene.expect_with("s.pod", "GET", CREDS, None, ok(user())).await;
    let issued = source(&scene, Authentication::Projected(Identity)).issue(&request()).await.unwrap();
    assert_eq!(issued.lease.id, LEASE);
}

#[tokio::test]
async fn an_unknown_service_account_cannot_have_a_credential() {
    let scene = Scene::bare().await;
    let error = source(&scene, Authentication::Projected(Nobody)).issue(&request()).await.unwrap_err();
    assert!(matches!(&error, SourceError::Invalid(text) if text.contains("shop/app1")), "{error}");
}

#[tokio::test]
async fn a_failed_issue_revokes_its_token_and_tells_its_own_error() {
    let scene = Scene::new().await;
    scene.expect("POST", "auth/token/create/dbi-pod", None, ok(auth("s.pod", 7200))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, refused(400, &["unknown role: app"])).await;
    let body = json!({ "accessor": "accessor-of-pod" });
    scene.expect("POST", "auth/token/revoke-accessor", Some(body), gone()).await;
    let error = legacy(&scene).issue(&request()).await.unwrap_err();
    assert!(matches!(&error, SourceError::Invalid(text) if text.contains("no role app")), "{error}");
}

#[tokio::test]
async fn creating_a_user_is_never_repeated_and_its_token_is_revoked_with_patience() {
    let scene = Scene::new().await;
    scene.expect("POST", "auth/token/create/dbi-pod", None, ok(auth("s.pod", 7200))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, refused(500, &["connection refused"])).await;
    let at = "/v1/auth/token/revoke-accessor";
    let sealed = refused(503, &["Vault is sealed"]);
    Mock::given(path(at)).respond_with(sealed).up_to_n_times(2).expect(2).mount(&scene.server).await;
    Mock::given(path(at)).respond_with(gone()).expect(1).mount(&scene.server).await;
    let error = legacy(&scene).issue(&request()).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach its database"), "{error}");
}

#[tokio::test]
async fn creating_a_user_may_take_longer_than_any_other_request() {
    let scene = Scene::new().await;
    let login = scene.login_over(impatient_client(&scene.server.uri()));
    login.token().await.unwrap();
    scene.expect("POST", "auth/token/create/dbi-pod", None, ok(auth("s.pod", 7200))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, ok(user()).set_delay(2 * REQUEST_TIMEOUT)).await;
    let authentication = Authentication::<Identity>::Legacy { token_role: Some("dbi-pod".into()) };
    let source = VaultSource::new(login, "kubernetes", authentication, issuing(60));
    source.issue(&request()).await.unwrap();
}

#[tokio::test]
async fn a_component_without_a_right_over_tokens_lets_the_token_revoke_itself() {
    let scene = Scene::new().await;
    scene.expect("POST", "auth/token/create/dbi-pod", None, ok(auth("s.pod", 7200))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, refused(403, &[BY_POLICY])).await;
    scene.expect("POST", "auth/token/revoke-accessor", None, refused(403, &[BY_POLICY])).await;
    scene.expect_with("s.pod", "POST", "auth/token/revoke-self", None, gone()).await;
    let error = legacy(&scene).issue(&request()).await.unwrap_err();
    assert!(matches!(&error, SourceError::Denied(text) if text.contains("databases/creds/app")), "{error}");
}

#[tokio::test]
async fn a_token_that_cannot_be_kept_apart_issues_nothing() {
    for (field, value, hint) in
        [("orphan", json!(false), "orphan=true"), ("accessor", json!(""), "token_type=service")]
    {
        let scene = Scene::new().await;
        let mut token = auth("s.pod", 7200);
        token["auth"][field] = value;
        scene.expect("POST", "auth/token/create/dbi-pod", None, ok(token)).await;
        Mock::given(path("/v1/auth/token/revoke-accessor")).respond_with(gone()).mount(&scene.server).await;
        let error = legacy(&scene).issue(&request()).await.unwrap_err();
        assert!(matches!(&error, SourceError::Misconfigured(text) if text.contains(hint)), "{error}");
        assert_eq!(scene.count(CREDS).await, 0);
    }
}

#[tokio::test]
async fn a_renewal_names_no_increment() {
    let scene = Scene::new().await;
    let renewed = ok(lease(LEASE, 3600, Value::Null));
    scene.expect("POST", "sys/leases/renew", Some(json!({ "lease_id": LEASE })), renewed).await;
    let renewed = legacy(&scene).renew(&by_accessor()).await.unwrap();
    assert_eq!(renewed, Renewed { ttl: Duration::from_secs(3600), capped: false });
}

#[tokio::test]
async fn a_token_is_renewed_by_its_accessor_and_one_without_an_end_needs_no_renewal() {
    for (seconds, expected) in
        [(7200, Some(Renewed { ttl: Duration::from_secs(7200), capped: false })), (0, None)]
    {
        let scene = Scene::new().await;
        let token = ok(auth("", seconds));
        scene.expect("POST", "auth/token/renew-accessor", Some(json!({ "accessor": "acc" })), token).await;
        assert_eq!(legacy(&scene).renew_token(&by_accessor()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_maximum_in_sight_is_told() {
    let scene = Scene::new().await;
    let mut capped = lease(LEASE, 600, Value::Null);
    let warning =
        "TTL of \"1h0m0s\" exceeded the effective max_ttl of \"10m0s\"; TTL value is capped accordingly";
    capped["warnings"] = json!([warning]);
    scene.expect("POST", "sys/leases/renew", None, ok(capped)).await;
    let renewed = legacy(&scene).renew(&by_accessor()).await.unwrap();
    assert_eq!(renewed, Renewed { ttl: Duration::from_secs(600), capped: true });
}

#[tokio::test]
async fn what_is_gone_is_told_from_what_failed() {
    let scene = Scene::new().await;
    let deleted = refused(500, &["role \"app\" does not exist during renewal"]);
    scene.expect("POST", "auth/token/renew-accessor", None, deleted).await;
    let error = legacy(&scene).renew_token(&by_accessor()).await.unwrap_err();
    assert!(matches!(error, SourceError::Misconfigured(_)), "{error}");
    scene.expect("POST", "sys/leases/renew", None, refused(400, &["lease not found"])).await;
    let error = legacy(&scene).renew(&by_accessor()).await.unwrap_err();
    assert!(matches!(error, SourceError::Gone(_)), "{error}");
}

#[tokio::test]
async fn an_entry_that_was_taken_over_is_renewed_and_revoked_by_its_own_token() {
    let scene = Scene::new().await;
    scene.expect_with("s.raw", "POST", "auth/token/renew-self", None, ok(auth("s.raw", 7200))).await;
    legacy(&scene).renew_token(&raw()).await.unwrap();
    scene.expect("POST", "sys/leases/revoke", None, gone()).await;
    scene.expect_with("s.raw", "POST", "auth/token/revoke-self", None, gone()).await;
    legacy(&scene).revoke(&raw()).await.unwrap();
}

#[tokio::test]
async fn a_token_without_the_default_policy_is_renewed_and_revoked_by_ours() {
    let scene = Scene::new().await;
    let body = Some(json!({ "token": "s.raw" }));
    scene.expect_with("s.raw", "POST", "auth/token/renew-self", None, refused(403, &[BY_POLICY])).await;
    scene.expect("POST", "auth/token/renew", body.clone(), ok(auth("s.raw", 7200))).await;
    legacy(&scene).renew_token(&raw()).await.unwrap();
    scene.expect("POST", "sys/leases/revoke", None, gone()).await;
    scene.expect_with("s.raw", "POST", "auth/token/revoke-self", None, refused(403, &[BY_POLICY])).await;
    scene.expect("POST", "auth/token/revoke", body, gone()).await;
    legacy(&scene).revoke(&raw()).await.unwrap();
}

#[tokio::test]
async fn a_raw_token_that_is_gone_leads_to_no_login() {
    let scene = Scene::new().await;
    let time = ManualTime::start();
    scene.access.login.token().await.unwrap();
    time.advance(Duration::from_secs(60)).await;
    scene
        .expect_with("s.raw", "POST", "auth/token/renew-self", None, refused(403, &["permission denied"]))
        .await;
    let error = legacy(&scene).renew_token(&raw()).await.unwrap_err();
    assert!(matches!(error, SourceError::Gone(_)), "{error}");
    assert_eq!(scene.count("auth/kubernetes/login").await, 1);
}

#[tokio::test]
async fn a_revocation_ends_the_lease_synchronously_and_then_the_token() {
    let scene = Scene::new().await;
    let body = json!({ "lease_id": LEASE, "sync": true });
    scene.expect("POST", "sys/leases/revoke", Some(body), gone()).await;
    let warned = json!({ "lease_id": "", "warnings": ["No token found with this accessor"] });
    let body = json!({ "accessor": "acc" });
    scene.expect("POST", "auth/token/revoke-accessor", Some(body), ok(warned)).await;
    legacy(&scene).revoke(&by_accessor()).await.unwrap();
    let requests = scene.server.received_requests().await.unwrap();
    let paths: Vec<&str> = requests.iter().map(|request| request.url.path()).collect();
    assert_eq!(paths[1..], ["/v1/sys/leases/revoke", "/v1/auth/token/revoke-accessor"]);
}

#[tokio::test]
async fn a_lease_that_cannot_be_revoked_keeps_its_token_for_the_next_attempt() {
    let scene = Scene::new().await;
    let down = refused(400, &["failed to revoke entry: connection refused"]);
    scene.expect("POST", "sys/leases/revoke", None, down).await;
    let error = legacy(&scene).revoke(&by_accessor()).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
    assert_eq!(scene.count("auth/token/revoke-accessor").await, 0);
}

#[tokio::test]
async fn a_component_without_a_right_over_leases_revokes_the_token_alone() {
    let scene = Scene::new().await;
    scene.expect("POST", "sys/leases/revoke", None, refused(403, &[BY_POLICY])).await;
    scene.expect("POST", "auth/token/revoke-accessor", None, gone()).await;
    legacy(&scene).revoke(&by_accessor()).await.unwrap();
}

#[tokio::test]
async fn revoking_what_is_gone_succeeds() {
    let scene = Scene::new().await;
    scene.expect("POST", "sys/leases/revoke", None, refused(400, &["lease not found"])).await;
    let at = "auth/token/revoke-accessor";
    scene.expect("POST", at, None, refused(400, &["1 error occurred:\n\t* invalid accessor\n\n"])).await;
    legacy(&scene).revoke(&by_accessor()).await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_source_prints_a_secret() {
    let scene = Scene::new().await;
    scene.expect("POST", "auth/token/create/dbi-pod", None, ok(auth("s.pod", 7200))).await;
    scene.expect_with("s.pod", "GET", CREDS, None, ok(user())).await;
    let login = scene.access.login.clone();
    let authentication = Authentication::<Identity>::Legacy { token_role: Some("dbi-pod".into()) };
    let source = VaultSource::new(
        login,
        "kubernetes",
        authentication,
        Issuing { store_raw_token: true, ..issuing(60) },
    );
    let issued = source.issue(&request()).await.unwrap();
    let text = format!("{source:?} {issued:?}");
    for secret in ["hunter2", "s.pod", "s.ours", "jwt"] {
        assert!(!text.contains(secret), "{text}");
    }
}
