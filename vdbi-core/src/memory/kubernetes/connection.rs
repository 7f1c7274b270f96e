//! A client's way to the API, which a test can cut.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::bytes::Bytes;
use tower::{BoxError, Service};

use super::{
    KubernetesApi,
    call::{Request, Verb},
    fault::{Effect, Fault},
    status::Refusal,
    verbs::{self, Reply},
    watching,
};

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// One client's connection to a [`KubernetesApi`]. Clones share it, and so do all clients made from it; cutting it leaves
/// other connections alone.
///
/// It is a [`Service`], so that layers can be put around it before it becomes a client.
#[derive(Clone, Debug)]
pub struct Connection {
    api: KubernetesApi,
    user: Arc<str>,
    link: Link,
    calls: Arc<Mutex<HashMap<(Verb, &'static str), usize>>>,
}

/// The state of a connection, shared by its requests and watches.
#[derive(Clone, Debug)]
pub(super) struct Link(watch::Sender<LinkState>);

#[derive(Clone, Copy, Debug, Default)]
struct LinkState {
    reach: Reach,
    watches_paused: bool,
    latency: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Up,
    Silent,
    Refused,
}

impl Connection {
    pub(super) fn new(api: KubernetesApi, user: &str) -> Self {
        Self { api, user: user.into(), link: Link(watch::Sender::default()), calls: Arc::default() }
    }

    /// A client over this connection, with the namespace `default`. It has none of kube's own retries or timeouts.
    ///
    /// It has to be called inside a tokio runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Lets nothing through any more, in either direction, without an error: requests, answers and watch events wait until
    /// [`heal`](Self::heal). What a network that drops packets looks like.
    pub fn cut(&self) {
        self.link.set(|state| state.reach = Reach::Silent);
    }

    /// Fails every request and ends every watch, until [`heal`](Self::heal). What an API server that is down looks like.
    pub fn refuse(&self) {
        self.link.set(|state| state.reach = Reach::Refused);
    }

    /// Undoes [`cut`](Self::cut) and [`refuse`](Self::refuse).
    pub fn heal(&self) {
        self.link.set(|state| state.reach = Reach::Up);
    }

    /// While paused, watch events wait; requests go on. What a watch that lags behind looks like.
    pub fn pause_watches(&self, paused: bool) {
        self.link.set(|state| state.watches_paused = paused);
    }

    /// How long every request is on its way to the API, on tokio's clock.
    pub fn set_latency(&self, latency: Duration) {
        self.link.set(|state| state.latency = latency);
    }

    /// How many such requests reached the API over this connection.
    pub fn calls(&self, verb: Verb, resource: &str) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|((v, r), _)| *v == verb && *r == resource).map(|(_, count)| count).sum()
    }

    async fn serve(self, request: HttpRequest<Body>) -> Result<Response<AnswerBody>, BoxError> {
        self.link.passable().await?;
        let latency = self.link.0.borrow().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
            self.link.passable().await?;
        }
        let (parts, body) = request.into_parts();
        if let Some(answer) = about_the_server(parts.uri.path()) {
            return Ok(answer);
        }
        let body = body.collect().await?.to_bytes();
        let request = match Request::parse(&parts, &self.user) {
            Ok(request) => request,
            Err(refusal) => return Ok(refusal.into_response()),
        };
        let key = (request.call.verb, request.call.resource);
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        let fault = self.api.faults().meet(&request.call).await;
        if let Some(fault) = fault.as_ref().filter(|fault| !fault.after_commit) {
            return fault.answer().await;
        }
        let outcome = verbs::execute(&self.api, &request, &body).await;
        if let Some(fault) = fault {
            return fault.answer().await;
        }
        self.link.passable().await?;
        match outcome {
            Ok(Reply::Watch) => Ok(watching::start(&self.api, self.link.clone(), &request)
                .unwrap_or_else(Refusal::into_response)),
            Ok(reply) => Ok(render(&request, reply)),
            Err(refusal) => Ok(refusal.into_response()),
        }
    }
}

impl Service<HttpRequest<Body>> for Connection {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}

impl Link {
    /// Waits until something can get through.
    pub(super) async fn passable(&self) -> Result<(), BoxError> {
        self.wait(|state| state.reach != Reach::Silent).await
    }

    /// Waits until a watch event can get through.
    pub(super) async fn passable_for_watches(&self) -> Result<(), BoxError> {
        self.wait(|state| {
            state.reach == Reach::Refused || (state.reach == Reach::Up && !state.watches_paused)
        })
        .await
    }

    /// Waits until connections break.
    pub(super) async fn refused(&self) -> BoxError {
        // The sender is part of this link: the wait ends with the state it waits for.
        let _ = self.0.subscribe().wait_for(|state| state.reach == Reach::Refused).await;
        refused()
    }

    fn set(&self, change: impl FnOnce(&mut LinkState)) {
        self.0.send_modify(change);
    }

    async fn wait(&self, condition: impl FnMut(&LinkState) -> bool) -> Result<(), BoxError> {
        let mut states = self.0.subscribe();
        let state = *states.wait_for(condition).await?;
        if state.reach == Reach::Refused { Err(refused()) } else { Ok(()) }
    }
}

impl Fault {
    async fn answer(&self) -> Result<Response<AnswerBody>, BoxError> {
        match &self.effect {
            Effect::Refuse(refusal) => Ok(refusal.clone().into_response()),
            Effect::Reset => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Effect::Silence => std::future::pending().await,
        }
    }
}

/// A body that is there at once.
pub(super) fn full(text: String) -> AnswerBody {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

/// What a request for metadata alone gets of an object.
pub(super) fn metadata_of(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn render(request: &Request, reply: Reply) -> Response<AnswerBody> {
    let (code, body, warnings) = match reply {
        Reply::Object { code, object, warnings } if request.metadata_only && object["kind"] != "Status" => {
            (code, metadata_of(&object).to_string(), warnings)
        }
        Reply::Object { code, object, warnings } => (code, object.to_string(), warnings),
        Reply::List(page) => {
            let items = page.objects.iter().map(|object| match request.metadata_only {
                true => metadata_of(object),
                false => {
                    // Items of a list do not repeat its kind.
                    let mut item = Value::clone(object);
                    if let Some(fields) = item.as_object_mut() {
                        fields.retain(|field, _| field != "kind" && field != "apiVersion");
                    }
                    item
                }
            });
            let (kind, version) = match request.metadata_only {
                true => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
                false => (format!("{}List", request.resource.kind), request.resource.api_version()),
            };
            let list = json!({
                "kind": kind,
                "apiVersion": version,
                "metadata": {"resourceVersion": page.revision.to_string(), "continue": page.next.unwrap_or_default()},
                "items": items.collect::<Vec<_>>(),
            });
            (200, list.to_string(), Vec::new())
        }
        Reply::Watch => (500, String::new(), Vec::new()),
    };
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for warning in warnings {
        if let Ok(value) = HeaderValue::from_str(&format!("299 - {warning:?}")) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

/// The paths that are about the server rather than an object.
fn about_the_server(path: &str) -> Option<Response<AnswerBody>> {
    match path {
        "/version" => Some(Response::new(full(
            json!({
                "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "clean",
                "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "memory",
            })
            .to_string(),
        ))),
        "/healthz" | "/livez" | "/readyz" => Some(Response::new(full("ok".to_owned()))),
        _ => None,
    }
}

fn refused() -> BoxError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}
