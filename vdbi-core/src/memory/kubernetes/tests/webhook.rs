//! The mutating webhook, called over real HTTPS.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::*;

/// A webhook server on loopback with one thread; each request gets what `answer` makes of it.
struct Server {
    port: u16,
    ca_pem: Vec<u8>,
    reviews: mpsc::Receiver<Value>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: impl Fn(&Value) -> (u16, Value) + Send + 'static) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".into()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let tls = ServerConfig::builder().with_no_client_auth();
        let tls = Arc::new(tls.with_single_cert(vec![cert.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, reviews) = mpsc::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let connection = ServerConnection::new(tls.clone()).unwrap();
                // A client that does not trust us goes away.
                let _ = serve(StreamOwned::new(connection, stream.unwrap()), &sender, &answer);
            }
        });
        Self { port, ca_pem: cert.pem().into_bytes(), reviews, stop, thread: Some(thread) }
    }

    fn webhook(&self) -> Webhook {
        Webhook {
            name: "pods.vdbi.test".into(),
            url: format!("https://localhost:{}/mutate", self.port),
            ca_pem: self.ca_pem.clone(),
            label: "vdbi".into(),
            timeout: Duration::from_secs(10),
            client_identity_pem: None,
        }
    }

    fn api(&self) -> KubernetesApi {
        let api = KubernetesApi::new();
        api.set_mutating_webhook(self.webhook()).unwrap();
        api
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(
    stream: StreamOwned<ServerConnection, TcpStream>,
    reviews: &mpsc::Sender<Value>,
    answer: &impl Fn(&Value) -> (u16, Value),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body)?;
    let (code, mut answer) = answer(&review);
    if answer.is_object() {
        answer["uid"] = review["request"]["uid"].clone();
        answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": answer});
    }
    let _ = reviews.send(review);
    let body = answer.to_string();
    let length = body.len();
    let stream = stream.get_mut();
    write!(stream, "HTTP/1.1 {code} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")?;
    stream.flush()
}

fn patched(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

#[tokio::test]
async fn a_labelled_pod_is_patched_before_it_is_stored() {
    let server = Server::start(|_| {
        let annotations = json!({"db-creds-injector.numberly.io/uuid": "1"});
        (200, patched(&json!([{"op": "add", "path": "/metadata/annotations", "value": annotations}])))
    });
    let api = server.api();
    let pods = pods(api.connect("system:serviceaccount:shop:deployer").client());
    let created = create(&pods, "web-").await;
    assert_eq!(created.annotations()["db-creds-injector.numberly.io/uuid"], "1");

    let request = server.reviews.recv().unwrap()["request"].take();
    let expected = json!({
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop",
        "operation": "CREATE",
        "oldObject": null,
        "dryRun": false,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&request[field], value, "{field}");
    }
    assert_eq!(request["userInfo"]["username"], "system:serviceaccount:shop:deployer");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request.get("name"), None);
    let metadata = &request["object"]["metadata"];
    assert_eq!((metadata.get("name"), metadata.get("uid")), (None, None));
    assert_eq!(metadata["namespace"], "shop");
    assert_eq!(request["object"]["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn a_pod_without_the_label_is_none_of_its_business() {
    let server = Server::start(|_| (200, json!({"allowed": false})));
    let pods = pods(server.api().client());
    let mut unlabelled = pod("web");
    unlabelled.metadata.labels = None;
    pods.create(&PostParams::default(), &unlabelled).await.unwrap();
    assert!(server.reviews.try_recv().is_err());
}

#[tokio::test]
async fn a_denial_is_worded_as_kubectl_shows_it() {
    let status = json!({"code": 403, "reason": "Forbidden", "message": "role app is not bound to shop/web"});
    let denials = [json!({"allowed": false, "status": status}), json!({"allowed": false})];
    let answers: Vec<_> = futures::future::join_all(denials.map(async |denial| {
        let server = Server::start(move |_| (200, denial.clone()));
        let pods = pods(server.api().client());
        let refused = refusal(pods.create(&PostParams::default(), &pod("web")).await);
        assert!(pods.get_opt("web").await.unwrap().is_none());
        (refused.code, refused.message)
    }))
    .await;
    let denied = "admission webhook \"pods.vdbi.test\" denied the request";
    assert_eq!(answers[0], (403, format!("{denied}: role app is not bound to shop/web")));
    assert_eq!(answers[1], (400, format!("{denied} without explanation")));
}

#[tokio::test]
async fn a_failing_call_fails_the_creation() {
    let unpatchable = patched(&json!([{"op": "remove", "path": "/nowhere"}]));
    for answer in [(500, json!("broken")), (200, json!("nonsense")), (200, unpatchable)] {
        let server = Server::start(move |_| answer.clone());
        let pods = pods(server.api().client());
        let refused = refusal(pods.create(&PostParams::default(), &pod("web")).await);
        assert_eq!((refused.code, refused.reason.as_str()), (500, "InternalError"));
        let expected = "Internal error occurred: failed calling webhook \"pods.vdbi.test\"";
        assert!(refused.message.starts_with(expected), "{}", refused.message);
    }
}

#[tokio::test]
async fn a_webhook_with_another_certificate_is_not_called() {
    let server = Server::start(|_| (200, json!({"allowed": true})));
    let other = Server::start(|_| (200, json!({"allowed": true})));
    let api = KubernetesApi::new();
    api.set_mutating_webhook(Webhook { ca_pem: other.ca_pem.clone(), ..server.webhook() }).unwrap();
    let refused = refusal(pods(api.client()).create(&PostParams::default(), &pod("web")).await);
    assert_eq!(refused.code, 500);
    assert!(server.reviews.try_recv().is_err());
}

#[tokio::test]
async fn a_dry_run_says_so_and_stores_nothing() {
    let server = Server::start(|_| (200, json!({"allowed": true, "warnings": ["careful"]})));
    let pods = pods(server.api().client());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &pod("web")).await.unwrap();
    assert!(pods.get_opt("web").await.unwrap().is_none());
    let request = server.reviews.recv().unwrap()["request"].take();
    assert_eq!(request["dryRun"], true);
    assert_eq!(request["options"]["dryRun"], json!(["All"]));
    assert_eq!(request["name"], "web");
}
