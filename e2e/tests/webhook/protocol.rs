//! AdmissionReview v1 over TLS, spoken by a client of our own.

use std::time::Duration;

use anyhow::Result;
use e2e::{DatabaseAccess, scene::Scene, system::Authentication};
use reqwest::{Certificate, Client, Method, StatusCode, tls::Version};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

pub(crate) fn client(scene: &Scene) -> reqwest::ClientBuilder {
    let authority = Certificate::from_pem(scene.system.ca_pem.as_bytes()).unwrap();
    Client::builder().tls_certs_only([authority])
}

pub(crate) fn url(scene: &Scene) -> String {
    format!("https://{}/", scene.system.injector.admission_address.unwrap())
}

pub(crate) fn review(annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("{}{key}", e2e::scene::PREFIX), (*value).into()))
        .collect();
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
            "namespace": "shop",
            "operation": "CREATE",
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "object": {
                "metadata": { "generateName": "web-", "annotations": annotations },
                "spec": {
                    "serviceAccountName": "app1",
                    "containers": [{ "name": "web", "image": "app" }],
                    "aFieldOfTomorrow": { "kept": true },
                },
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_is_refused_counted_once_and_touches_nothing() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let (http, url) = (client(&scene).build()?, url(&scene));
    let good = review(&[("main.role", "app")]);
    let changed = |key: &str, value: &str| {
        let mut review = good.clone();
        review[key] = value.into();
        review.to_string()
    };
    let json = "application/json";
    let cases = [
        (Method::POST, json, String::new(), StatusCode::BAD_REQUEST),
        (Method::POST, json, "{}".into(), StatusCode::BAD_REQUEST),
        (Method::POST, json, changed("apiVersion", "admission.k8s.io/v1beta1"), StatusCode::BAD_REQUEST),
        (Method::POST, json, changed("kind", "Pod"), StatusCode::BAD_REQUEST),
        (Method::POST, "text/plain", good.to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (Method::POST, "application/jsonp", good.to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (Method::GET, json, good.to_string(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, json, changed("padding", &"x".repeat(3 << 20)), StatusCode::PAYLOAD_TOO_LARGE),
    ];
    let count = cases.len();
    for (method, content_type, body, expected) in cases {
        let length = body.len();
        let answer =
            http.request(method, &url).header("content-type", content_type).body(body).send().await?;
        assert_eq!(answer.status(), expected, "{content_type}, {length} bytes");
    }
    let injector = &scene.system.injector;
    let malformed = injector.metric("vdbi_admissions_total", &[r#"outcome="malformed""#]).await?;
    assert_eq!(
        (malformed, injector.metric("vdbi_admissions_total", &[]).await?),
        (count as f64, count as f64)
    );
    scene.nothing_remains(Duration::from_secs(1)).await?;

    // The content type of a real one may have a parameter, its path may be any.
    let request = http
        .post(format!("{url}mutate?timeout=5s"))
        .header("content-type", "application/json; charset=utf-8");
    let answer: Value = request.body(good.to_string()).send().await?.json().await?;
    assert_eq!(answer["response"]["uid"], good["request"]["uid"]);
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&good["apiVersion"], &good["kind"]));
    assert_eq!(answer["response"]["allowed"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_1_2_or_1_3_and_a_client_that_goes_away_leaves_nothing() -> Result<()> {
    let mut scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let good = review(&[("main.role", "app")]).to_string();
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let http = client(&scene).min_tls_version(version).max_tls_version(version).build()?;
        let request = http.post(url(&scene)).header("content-type", "application/json").body(good.clone());
        assert!(request.send().await?.status().is_success(), "{version:?}");
    }
    // A hello of TLS 1.1 with one of its cipher suites is answered by an alert (21) that is fatal (2).
    let address = scene.system.injector.admission_address.unwrap();
    let mut old = tokio::net::TcpStream::connect(address).await?;
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    old.write_all(&hello).await?;
    let mut alert = [0; 7];
    tokio::io::AsyncReadExt::read_exact(&mut old, &mut alert).await?;
    assert_eq!((alert[0], alert[5]), (21, 2), "{alert:?}");

    let before = scene.ledger_keys().await?.len();
    scene.cluster.openbao_mut().server_mut().stop()?;
    let impatient = client(&scene).timeout(Duration::from_millis(500)).build()?;
    let request = impatient.post(url(&scene)).header("content-type", "application/json").body(good);
    assert!(request.send().await.unwrap_err().is_timeout());
    scene.cluster.openbao_mut().server_mut().cont()?;
    e2e::scene::eventually(Duration::from_secs(10), async || {
        let abandoned =
            scene.system.injector.metric("vdbi_admissions_total", &[r#"outcome="abandoned""#]).await?;
        let revoked =
            scene.system.injector.metric("vdbi_undelivered_credentials_total", &["revoked"]).await?;
        anyhow::ensure!((abandoned, revoked) == (1.0, 1.0), "{abandoned} abandoned, {revoked} revoked");
        // OpenBao ends a revoked token's lease, and with it the role, a moment after its answer.
        let roles = scene.cluster.postgres().roles_like("v-").await?.len();
        anyhow::ensure!(roles == before, "{roles} roles in place of {before}");
        Ok(())
    })
    .await
}
