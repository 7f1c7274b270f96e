//! The connections to the server, and how one request is made.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode};
use reqwest::{Certificate, redirect};
use rustify::Endpoint;
use serde::{Deserialize, de::IgnoredAny};
use tracing::debug;
use url::Url;

use super::{
    Settings, SetupError,
    endpoint::{Measured, policy_line},
    error::{Failure, Refusal, excerpt},
    metrics::Metrics,
};
use crate::{metrics::Registry, secret::Secret};

/// The largest answer that is read; the list of a million ledger entries has about 40 MB.
const MAX_BODY: usize = 64 << 20;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a request is redirected at most; a standby redirects once, to the active node.
const MAX_REDIRECTS: usize = 3;

/// One pool of connections; clones share it. It has no token of its own.
#[derive(Clone)]
pub struct VaultClient(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// The address with the API's version.
    base: String,
    namespace: Option<HeaderValue>,
    request_timeout: Duration,
    metrics: Metrics,
}

impl VaultClient {
    /// Sets the pool up; connects to nothing yet. TLS uses the process's default rustls provider, where one is installed.
    ///
    /// # Errors
    ///
    /// Which configuration key to change.
    pub fn new(settings: &Settings, registry: &Registry) -> Result<Self, SetupError> {
        let Settings { address, namespace, ca_file, request_timeout } = settings;
        let address = parse_address(address)?;
        let namespace = namespace
            .as_deref()
            .map(|namespace| HeaderValue::from_str(namespace).map_err(|_| SetupError::Namespace))
            .transpose()?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("vdbi/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::custom(follow));
        if address.scheme() == "http" {
            // The system's authorities are not needed, and an image may have none.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = ca_file {
            let wrong = |reason: String| SetupError::CaFile { path: path.clone(), reason };
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| wrong(root_cause(&error)))?;
            if certificates.is_empty() {
                return Err(wrong("it holds no PEM certificate".into()));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|error| SetupError::Tls(root_cause(&error)))?;
        let base = format!("{}/v1", address.as_str().trim_end_matches('/'));
        let (request_timeout, metrics) = (*request_timeout, Metrics::new(registry));
        Ok(Self(Arc::new(Inner { http, base, namespace, request_timeout, metrics })))
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Makes one request, once.
    pub(super) async fn call<E: Measured>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
    ) -> Result<Reply<E::Response>, Failure> {
        self.call_within(endpoint, token, self.0.request_timeout).await
    }

    /// Makes one request, once, within a time of its own.
    pub(super) async fn call_within<E: Measured>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
        timeout: Duration,
    ) -> Result<Reply<E::Response>, Failure> {
        let sent = Instant::now();
        let outcome = self.exchange(endpoint, token, timeout).await;
        self.0.metrics.requested(E::OPERATION, &outcome, sent.elapsed());
        outcome
    }

    async fn exchange<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
        timeout: Duration,
    ) -> Result<Reply<E::Response>, Failure> {
        let request = self.request(endpoint, token, timeout)?;
        let mut response =
            self.0.http.execute(request).await.map_err(|error| self.unanswered(&error, timeout))?;
        let status = response.status();
        let length = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = Vec::with_capacity(length.unwrap_or_default().min(MAX_BODY));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unanswered(&error, timeout))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Failure::Unanswered(format!("Vault's answer has more than {MAX_BODY} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            self.reply(status, &body)
        } else {
            Err(self.refusal(endpoint, status, &body))
        }
    }

    fn request<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
        timeout: Duration,
    ) -> Result<reqwest::Request, Failure> {
        let unsendable = |what: &str| Failure::Unsendable(format!("cannot form a request to Vault: {what}"));
        let mut request =
            endpoint.request(&self.0.base).map_err(|_| unsendable("its path or body is invalid"))?;
        // The only kind of patch that Vault takes.
        let patch = request.method() == http::Method::PATCH;
        let content = if patch { "application/merge-patch+json" } else { "application/json" };
        let headers = request.headers_mut();
        // Vault's proof against requests that a web page was tricked into.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content));
        if let Some(namespace) = &self.0.namespace {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| unsendable("the token contains a character that no token has"))?;
            value.set_sensitive(true);
            headers.insert("x-vault-token", value);
        }
        let mut request =
            reqwest::Request::try_from(request).map_err(|_| unsendable("its URL is invalid"))?;
        *request.timeout_mut() = Some(timeout);
        Ok(request)
    }

    fn reply<T: serde::de::DeserializeOwned>(
        &self,
        status: StatusCode,
        body: &[u8],
    ) -> Result<Reply<T>, Failure> {
        if status == StatusCode::NO_CONTENT || body.is_empty() {
            return Ok(Reply::default());
        }
        // The parser's own message may quote a value.
        let reply: Reply<T> = serde_json::from_slice(body).map_err(|_| self.foreign(status))?;
        if let Some(warnings) = reply.warnings.as_deref().filter(|warnings| !warnings.is_empty()) {
            debug!("Vault warns: {}", excerpt(warnings));
        }
        Ok(reply)
    }

    fn refusal<E: Endpoint>(&self, endpoint: &E, status: StatusCode, body: &[u8]) -> Failure {
        #[derive(Deserialize)]
        struct Body {
            errors: Option<Vec<String>>,
            data: Option<IgnoredAny>,
            warnings: Option<IgnoredAny>,
        }
        match serde_json::from_slice::<Body>(body) {
            // A soft-deleted KV entry is a 404 with data.
            Ok(Body { errors, data, warnings })
                if errors.is_some() || data.is_some() || warnings.is_some() =>
            {
                Failure::Refused(Refusal {
                    status: status.as_u16(),
                    errors: errors.unwrap_or_default(),
                    policy: policy_line(endpoint),
                })
            }
            _ => self.foreign(status),
        }
    }

    /// An answer that no Vault gives: a gateway's error page, another service.
    fn foreign(&self, status: StatusCode) -> Failure {
        Failure::Unanswered(format!(
            "{} answered {status}, but not as Vault does: check vaultAddress, and what lies between",
            self.0.base
        ))
    }

    fn unanswered(&self, error: &reqwest::Error, timeout: Duration) -> Failure {
        let base = &self.0.base;
        if error.is_timeout() {
            return Failure::Unanswered(format!("no answer from Vault at {base} within {timeout:?}"));
        }
        let cause = root_cause(error);
        let hint = if cause.contains("UnknownIssuer") { ": set vaultCaCert to its authority" } else { "" };
        Failure::Unanswered(format!("cannot reach Vault at {base}: {cause}{hint}"))
    }
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { http: _, base, namespace, request_timeout, metrics: _ } = &*self.0;
        f.debug_struct("VaultClient")
            .field("base", base)
            .field("namespace", namespace)
            .field("request_timeout", request_timeout)
            .finish()
    }
}

/// The envelope of every answer.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct Reply<T> {
    pub(super) data: Option<T>,
    pub(super) auth: Option<Auth>,
    /// Empty without a lease, never absent: by it an answer of Vault's is told from anybody else's.
    pub(super) lease_id: String,
    /// Seconds.
    #[serde(default)]
    pub(super) lease_duration: u64,
    pub(super) warnings: Option<Vec<String>>,
}

impl<T> Reply<T> {
    /// Whether a renewal gave less than was asked for, since `max_ttl` is in sight. The words are those of
    /// `framework.CalculateTTL`, which OpenBao and Vault share.
    pub(super) fn is_capped(&self) -> bool {
        self.warnings.iter().flatten().any(|warning| warning.contains("TTL value is capped"))
    }
}

impl<T> Default for Reply<T> {
    fn default() -> Self {
        Self { data: None, auth: None, lease_id: String::new(), lease_duration: 0, warnings: None }
    }
}

/// A token, as logins, creations and renewals answer it. Vault leaves out what is empty.
#[derive(Debug, Deserialize)]
pub(super) struct Auth {
    /// Empty when a token was renewed by its accessor.
    pub(super) client_token: Secret,
    /// Empty for a batch token.
    #[serde(default)]
    pub(super) accessor: String,
    /// Seconds; 0 when the token never expires.
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
    #[serde(default)]
    pub(super) orphan: bool,
}

fn parse_address(address: &str) -> Result<Url, SetupError> {
    let wrong = |reason: &str| SetupError::Address(reason.to_owned());
    // The text itself is not repeated: it may hold a password.
    let url = Url::parse(address).map_err(|error| SetupError::Address(format!("it is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it has to begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not contain a user or a password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must not contain a query or a fragment"));
    }
    Ok(url)
}

/// Follows a standby to the active node, but never from https to http: the token goes along.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgrade = attempt
        .previous()
        .last()
        .is_some_and(|from| from.scheme() == "https" && attempt.url().scheme() != "https");
    if downgrade {
        attempt.error("Vault redirected from https to http")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("Vault redirected too often")
    } else {
        attempt.follow()
    }
}

/// The innermost cause: the outer ones only say that a request failed, and name its URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
