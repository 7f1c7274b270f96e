//! The webhook's HTTPS server.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::any,
};
use axum_server::{Handle, accept::NoDelayAcceptor, tls_rustls::RustlsAcceptor};
use hyper_util::rt::TokioTimer;
use thiserror::Error;
use vdbi_core::{credential::CredentialSource, ledger::Ledger};

use crate::{admit::Admission, policy::MutationPolicy, review::Review, tls::Tls};

/// The API server's own limit on a request's body, and so the most that a review can be.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// How long a client may take to send the head of a request, which also counts on a connection that is idle. Longer than the 90
/// seconds after which the API server closes one, since a request may be on its way when this end closes it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why the server cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
#[error("cannot listen on {address} (admissionAddress): {error}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

/// How a server ends: made by `Shutdown::default()`, and changed field by field.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shutdown {
    /// How long it goes on answering, closing each connection after its next answer, so that whoever sends requests finds
    /// another server. Readiness has to have failed by then. By default 5 s, in which most clusters update their endpoints.
    pub delay: Duration,
    /// How long the admissions that are under way then may take. By default 20 s: both together are below the 30 seconds that a pod has
    /// unless it says otherwise (`terminationGracePeriodSeconds`).
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), grace: Duration::from_secs(20) }
    }
}

/// A bound HTTPS listener. TLS 1.2 at least.
///
/// ```
/// # use std::{error::Error, future::ready};
/// # use vdbi_core::{health::Health, ledger::Owner, memory::{MemoryLedger, MemorySource}, metrics::Registry, secret::Secret};
/// # use vdbi_webhook::{admit::{Admission, Limits}, policy::Plaintext};
/// use vdbi_webhook::{server::{AdmissionServer, Shutdown}, tls::{Material, Tls}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn Error>> {
/// # let registry = Registry::disabled();
/// # let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let (certificate, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
/// # let owner = Owner { cluster: "c".into(), release: "r".into() };
/// # let (source, ledger, policy) = (MemorySource::new(), MemoryLedger::new(), Plaintext::new("database"));
/// # let admission = Admission::new(source, ledger, policy, owner, Limits::default(), &registry);
/// # let stop = ready(());
/// let material = Material { certificate: certificate.into(), key: Secret::new(key) };
/// let server = AdmissionServer::bind("127.0.0.1:0".parse()?, Tls::new(&material, None, &registry)?)?;
/// let mut shutdown = Shutdown::default();
/// # (shutdown.delay, shutdown.grace) = Default::default();
/// server.serve(admission, shutdown, stop).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AdmissionServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Tls,
}

impl AdmissionServer {
    /// Binds the address, now; nothing is answered before [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn bind(address: SocketAddr, tls: Tls) -> Result<Self, BindError> {
        let listen = |error| BindError { address, error };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, address, tls })
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers reviews until some time after `stop` completes, then lets those in flight finish, and what they left to be
    /// revoked: see [`Shutdown`].
    ///
    /// # Errors
    ///
    /// When the listener fails.
    pub async fn serve<S: CredentialSource, L: Ledger, P: MutationPolicy>(
        self,
        admission: Admission<S, L, P>,
        shutdown: Shutdown,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let Shutdown { delay, grace } = shutdown;
        let handle = Handle::new();
        let draining = Arc::new(AtomicBool::new(false));
        let acceptor = RustlsAcceptor::new(self.tls.config()).acceptor(NoDelayAcceptor::new());
        let mut server = axum_server::from_tcp(self.listener)?.acceptor(acceptor).handle(handle.clone());
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let server = server.serve(router(admission.clone(), draining.clone()).into_make_service());
        tokio::pin!(server);
        let drained = async {
            stop.await;
            draining.store(true, Ordering::Relaxed);
            tokio::time::sleep(delay).await;
        };
        tokio::select! {
            ended = &mut server => return ended,
            () = drained => handle.graceful_shutdown(Some(grace)),
        }
        let finished = tokio::time::timeout(grace, async {
            server.await?;
            admission.finish().await;
            Ok(())
        });
        finished.await.unwrap_or_else(|_| {
            tracing::warn!(?grace, "admissions were still under way when the grace period ended");
            Ok(())
        })
    }
}

/// Any path answers, as the Go product's server does.
fn router<S: CredentialSource, L: Ledger, P: MutationPolicy>(
    admission: Admission<S, L, P>,
    draining: Arc<AtomicBool>,
) -> Router {
    Router::new()
        .fallback(any(review::<S, L, P>))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(admission)
        .layer(from_fn_with_state(draining, close_when_draining))
}

/// An idle connection that is closed may swallow a request that is on its way; one that the client was told of does not.
async fn close_when_draining(
    State(draining): State<Arc<AtomicBool>>,
    request: Request,
    next: Next,
) -> Response {
    let http1 = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if http1 && draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn review<S: CredentialSource, L: Ledger, P: MutationPolicy>(
    State(admission): State<Admission<S, L, P>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let review = match parse(&method, &headers, body) {
        Ok(review) => review.with_query(query.as_deref()),
        Err((status, reason)) => {
            tracing::warn!(status = status.as_u16(), reason, "refused a request that is no review: {reason}");
            admission.malformed();
            return (status, reason).into_response();
        }
    };
    match admission.admit(&review).await.into_review(&review.uid) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn parse(
    method: &Method,
    headers: &HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Review, (StatusCode, String)> {
    if method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "expected POST".into()));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected application/json".into()));
    }
    let body = body.map_err(|rejection| (rejection.status(), rejection.body_text()))?;
    Review::parse(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}
