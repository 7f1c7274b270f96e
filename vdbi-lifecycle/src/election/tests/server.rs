//! One Lease at an API server: compare-and-swap, watch with history and 410, network failures on demand.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyStream, Full, StreamBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};
use tower::service_fn;

#[derive(Debug, Default)]
pub(super) struct Server {
    history: Mutex<History>,
    changed: watch::Sender<()>,
    pub(super) requests: AtomicUsize,
    pub(super) watches: AtomicUsize,
    pub(super) watch_forbidden: AtomicBool,
    /// The next write is committed, and its answer is lost.
    pub(super) lose_answer: AtomicBool,
}

#[derive(Debug, Default)]
struct History {
    lease: Option<Value>,
    /// Event `i` has the resourceVersion `i + 1`.
    events: Vec<(&'static str, Value)>,
    compacted: usize,
}

/// One replica's connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Link(Arc<watch::Sender<bool>>);

impl Link {
    pub(super) fn cut(&self) {
        self.0.send_replace(true);
    }

    /// Waits for as long as it is cut.
    async fn up(&self) {
        self.0.subscribe().wait_for(|cut| !cut).await.expect("the sender lives");
    }
}

impl History {
    fn commit(&mut self, kind: &'static str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.events.len() + 1).to_string());
        self.lease = (kind != "DELETED").then(|| object.clone());
        self.events.push((kind, object.clone()));
        object
    }

    fn answer(&mut self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let object = || serde_json::from_slice::<Value>(body).expect("JSON");
        match (method.as_str(), self.lease.clone()) {
            ("GET", Some(lease)) => (StatusCode::OK, lease),
            ("POST", None) => {
                let mut object = object();
                assert_eq!(object["metadata"]["resourceVersion"], Value::Null);
                object["metadata"]["uid"] = json!(format!("uid-{}", self.events.len()));
                (StatusCode::CREATED, self.commit("ADDED", object))
            }
            ("PUT", Some(lease)) => {
                let object = object();
                if object["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] {
                    return status(StatusCode::CONFLICT);
                }
                (StatusCode::OK, self.commit("MODIFIED", object))
            }
            ("POST", Some(_)) => status(StatusCode::CONFLICT),
            ("GET" | "PUT", None) => status(StatusCode::NOT_FOUND),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

fn status(code: StatusCode) -> (StatusCode, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "message": code.as_str(), "reason": code.as_str(), "metadata": {}});
    (code, body)
}

impl Server {
    pub(super) fn client(self: &Arc<Self>, link: &Link) -> Client {
        let (server, link) = (self.clone(), link.clone());
        let service = service_fn(move |request: Request<Body>| {
            let (server, link) = (server.clone(), link.clone());
            async move {
                link.up().await;
                let (code, lines) = server.serve(request, link).await;
                let body = StreamBody::new(lines.flat_map(|line| BodyStream::new(Full::from(line))));
                Response::builder().status(code).body(body)
            }
        });
        Client::new(service, "default")
    }

    /// The Lease as it is now.
    pub(super) fn lease(&self) -> Option<Value> {
        self.history.lock().unwrap().lease.clone()
    }

    pub(super) fn delete(&self) {
        let mut history = self.history.lock().unwrap();
        let lease = history.lease.clone().unwrap();
        history.commit("DELETED", lease);
        self.changed.send_replace(());
    }

    /// Forgets what happened: watches from before are answered by 410.
    pub(super) fn compact(&self) {
        let mut history = self.history.lock().unwrap();
        history.compacted = history.events.len();
    }

    async fn serve(
        self: &Arc<Self>,
        request: Request<Body>,
        link: Link,
    ) -> (StatusCode, BoxStream<'static, String>) {
        let (parts, body) = request.into_parts();
        let path = "/apis/coordination.k8s.io/v1/namespaces/vdbi/leases";
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            assert_eq!(parts.uri.path(), path);
            assert!(query.contains("fieldSelector=metadata.name%3Drenewer"), "{query}");
            self.watches.fetch_add(1, Ordering::SeqCst);
            if self.watch_forbidden.load(Ordering::SeqCst) {
                let (code, body) = status(StatusCode::FORBIDDEN);
                return (code, one(body));
            }
            return (StatusCode::OK, self.watch(&query, link));
        }
        assert!([path.to_owned(), format!("{path}/renewer")].contains(&parts.uri.path().to_owned()));
        self.requests.fetch_add(1, Ordering::SeqCst);
        let body = body.collect_bytes().await.unwrap();
        let (code, answer) = self.history.lock().unwrap().answer(&parts.method, &body);
        self.changed.send_replace(());
        if parts.method != Method::GET && self.lose_answer.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        link.up().await;
        (code, one(answer))
    }

    fn watch(self: &Arc<Self>, query: &str, link: Link) -> BoxStream<'static, String> {
        let version =
            query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap_or_default();
        let (first, from) = {
            let history = self.history.lock().unwrap();
            let newest = history.events.len();
            let from = version.parse().unwrap_or(newest);
            if from < history.compacted {
                let (_, gone) = status(StatusCode::GONE);
                return one(json!({"type": "ERROR", "object": gone}));
            }
            // Without a version a watch begins with what is there.
            let first = history.lease.clone().filter(|_| version.is_empty());
            (first.map(|object| event("ADDED", &object)), from)
        };
        let server = self.clone();
        let later = stream::unfold((from, self.changed.subscribe()), move |(next, mut changed)| {
            let (server, link) = (server.clone(), link.clone());
            async move {
                let found = async {
                    loop {
                        let found = server.history.lock().unwrap().events.get(next).cloned();
                        match found {
                            Some((kind, object)) => break event(kind, &object),
                            None => changed.changed().await.unwrap(),
                        }
                    }
                };
                // The server closes a watch after some minutes.
                let line = timeout(Duration::from_secs(290), found).await.ok()?;
                link.up().await;
                Some((line, (next + 1, changed)))
            }
        });
        stream::iter(first).chain(later).boxed()
    }
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn one(value: Value) -> BoxStream<'static, String> {
    stream::iter([value.to_string()]).boxed()
}
