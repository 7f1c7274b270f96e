//! The webhook's HTTPS server.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::any,
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use jiff::Timestamp;
use thiserror::Error;
use vdbi_core::{
    credential::CredentialSource,
    health::{Health, Probe},
    ledger::Ledger,
};

use crate::{admit::Admission, certificate::Validity, policy::MutationPolicy, review::Review};

/// The API server's own limit on a request's body, and so the most that a review can be.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Why the server cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot listen on {address} (admissionAddress): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The certificate and key cannot be used.
    #[error("cannot use the certificate {} (certFile) with the key {} (keyFile): {error}", certificate.display(), key.display())]
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        error: io::Error,
    },
}

/// A bound HTTPS listener. TLS 1.2 at least.
#[derive(Debug)]
pub struct AdmissionServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: RustlsConfig,
    validity: Validity,
}

impl AdmissionServer {
    /// Binds the address and loads the certificate. A rustls crypto provider must have been installed.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub async fn bind(address: SocketAddr, certificate: &Path, key: &Path) -> Result<Self, BindError> {
        let unusable = |error| BindError::Certificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            error,
        };
        let tls = RustlsConfig::from_pem_file(certificate, key).await.map_err(unusable)?;
        let validity = Validity::read(certificate).map_err(unusable)?;
        let listen = |error| BindError::Listen { address, error };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, address, tls, validity })
    }

    /// Registers the ready check `certificate`: the API server would refuse one that has expired.
    pub fn report(&self, health: &Health) {
        let validity = self.validity;
        health.register_with("certificate", Probe::Ready, move || validity.check(Timestamp::now()));
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers reviews until `shutdown` completes, then lets those in flight finish, and what they left to be revoked, for
    /// at most `grace`.
    ///
    /// # Errors
    ///
    /// When the listener fails.
    pub async fn serve<S: CredentialSource, L: Ledger, P: MutationPolicy>(
        self,
        admission: Admission<S, L, P>,
        grace: Duration,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(self.listener, self.tls)?
            .handle(handle.clone())
            .serve(router(admission.clone()).into_make_service());
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => return ended,
            () = shutdown => handle.graceful_shutdown(Some(grace)),
        }
        let drained = tokio::time::timeout(grace, async {
            server.await?;
            admission.finish().await;
            Ok(())
        });
        drained.await.unwrap_or_else(|_| {
            tracing::warn!(?grace, "admissions were still under way when the grace period ended");
            Ok(())
        })
    }
}

/// Any path answers, as the Go product's server does.
fn router<S: CredentialSource, L: Ledger, P: MutationPolicy>(admission: Admission<S, L, P>) -> Router {
    Router::new()
        .fallback(any(review::<S, L, P>))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(admission)
}

async fn review<S: CredentialSource, L: Ledger, P: MutationPolicy>(
    State(admission): State<Admission<S, L, P>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !json.is_some_and(|value| value.starts_with("application/json")) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected application/json").into_response();
    }
    let review = match Review::parse(&body) {
        Ok(review) => review,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match admission.admit(&review).await.into_review(&review.uid) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
