//! The server's certificate, whom it answers, and how both change while it runs.
//!
//! TLS 1.2 and 1.3. New material is used for new connections; those that are open go on. Material that cannot be used changes
//! nothing.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use thiserror::Error;
use vdbi_core::{
    health::{Health, Probe},
    metrics::Registry,
    secret::Secret,
};

mod callers;
mod validity;

use callers::Callers;
use validity::Validity;

use crate::metrics::TlsMetrics;

/// How often the files are read. The kubelet itself takes up to a minute to bring a Secret's change.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long before its end a certificate counts as expired, so that no API server meets it.
const MARGIN: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Why material cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} ({key}): {error}", path.display())]
    Read {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The certificate.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The key, or that it is not the certificate's.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The authorities of client certificates.
    #[error("webhook.clientCaFile cannot be used: {0}")]
    ClientAuthorities(String),
}

/// A certificate with its chain, and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Material {
    /// The server's certificate first.
    pub certificate: Vec<u8>,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret,
}

/// Who is answered: whoever shows a certificate of one of these authorities.
#[derive(Clone, Debug)]
pub struct ClientAuthorities {
    /// PEM.
    pub certificates: Vec<u8>,
    /// Names, one of which the certificate has to carry, as its common name or among its DNS names; any will do when empty.
    pub allowed_names: Vec<String>,
}

/// The server's TLS. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: RustlsConfig,
    validity: Mutex<Validity>,
    verifies_callers: bool,
    metrics: TlsMetrics,
}

impl Tls {
    /// TLS with this certificate; with `callers`, only for them.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn new(
        material: &Material,
        callers: Option<&ClientAuthorities>,
        registry: &Registry,
    ) -> Result<Self, TlsError> {
        let (config, validity) = build(material, callers)?;
        let metrics = TlsMetrics::new(registry);
        metrics.callers_verified.set(if callers.is_some() { 1.0 } else { 0.0 });
        metrics.loaded.increment(1);
        validity.report(&metrics.expiry);
        let config = RustlsConfig::from_config(config);
        let verifies_callers = callers.is_some();
        Ok(Self(Arc::new(Inner { config, validity: Mutex::new(validity), verifies_callers, metrics })))
    }

    /// Uses other material for new connections.
    ///
    /// # Errors
    ///
    /// See [`TlsError`]; the material in use stays.
    pub fn replace(&self, material: &Material, callers: Option<&ClientAuthorities>) -> Result<(), TlsError> {
        let (config, validity) =
            build(material, callers).inspect_err(|_| self.0.metrics.unusable.increment(1))?;
        self.0.config.reload_from_config(config);
        *self.0.validity.lock().unwrap_or_else(PoisonError::into_inner) = validity;
        self.0.metrics.loaded.increment(1);
        validity.report(&self.0.metrics.expiry);
        Ok(())
    }

    /// Registers the ready check `certificate`: the API server would refuse one that has expired.
    pub fn report(&self, health: &Health) {
        let tls = self.clone();
        let check = move || tls.validity().check(Timestamp::now() + MARGIN);
        health.register_with("certificate", Probe::Ready, check);
    }

    /// Whether callers have to show a certificate.
    pub fn verifies_callers(&self) -> bool {
        self.0.verifies_callers
    }

    pub(crate) fn config(&self) -> RustlsConfig {
        self.0.config.clone()
    }

    fn validity(&self) -> Validity {
        *self.0.validity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("validity", &self.validity())
            .field("verifies_callers", &self.0.verifies_callers)
            .finish_non_exhaustive()
    }
}

fn build(
    material: &Material,
    callers: Option<&ClientAuthorities>,
) -> Result<(Arc<ServerConfig>, Validity), TlsError> {
    let unusable = |error: &dyn fmt::Display| TlsError::Certificate(error.to_string());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&material.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&error))?;
    let first = chain.first().ok_or_else(|| unusable(&"it is no PEM certificate"))?;
    let validity = Validity::of(first).map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(material.key.expose().as_bytes())
        .map_err(|error| TlsError::Key(error.to_string()))?;
    let builder = ServerConfig::builder_with_protocol_versions(&[&TLS13, &TLS12]);
    let builder = match callers {
        Some(callers) => builder.with_client_cert_verifier(Callers::new(callers)?),
        None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| TlsError::Key(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), validity))
}

/// Material from files, which somebody else keeps fresh: cert-manager, an operator.
#[derive(Clone, Debug)]
pub struct Files {
    /// `certFile`
    pub certificate: PathBuf,
    /// `keyFile`
    pub key: PathBuf,
    /// `webhook.clientCaFile`
    pub client_authorities: Option<PathBuf>,
    /// `webhook.clientAllowedNames`
    pub allowed_names: Vec<String>,
}

impl Files {
    /// Reads all of them.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`].
    pub fn read(&self) -> Result<(Material, Option<ClientAuthorities>), TlsError> {
        let certificate = read("certFile", &self.certificate)?;
        let key = read("keyFile", &self.key)?;
        let key = String::from_utf8(key).map_err(|_| TlsError::Key("it is no PEM".into()))?;
        Ok((Material { certificate, key: Secret::new(key) }, self.client_authorities()?))
    }

    /// Reads `webhook.clientCaFile`, where there is one.
    ///
    /// # Errors
    ///
    /// [`TlsError::Read`].
    pub fn client_authorities(&self) -> Result<Option<ClientAuthorities>, TlsError> {
        let Some(path) = &self.client_authorities else { return Ok(None) };
        let certificates = read("webhook.clientCaFile", path)?;
        Ok(Some(ClientAuthorities { certificates, allowed_names: self.allowed_names.clone() }))
    }

    /// TLS with what the files hold now.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn load(&self, registry: &Registry) -> Result<Tls, TlsError> {
        let (material, callers) = self.read()?;
        Tls::new(&material, callers.as_ref(), registry)
    }

    /// Looks at the files every two seconds, for ever, and uses what has changed. Says once what cannot be used.
    pub async fn follow(&self, tls: &Tls) {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut last = None;
        loop {
            ticks.tick().await;
            let (seen, outcome) = match self.read() {
                Ok((material, callers)) => {
                    let seen = Seen::of(&material, callers.as_ref());
                    if last.as_ref() == Some(&seen) {
                        continue;
                    }
                    let first = last.is_none();
                    let outcome = tls.replace(&material, callers.as_ref());
                    if outcome.is_ok() && !first {
                        tracing::info!(validity = %tls.validity(), "the webhook's certificate was read again: {}", tls.validity());
                    }
                    (seen, outcome)
                }
                Err(error) => (Seen::Error(error.to_string()), Err(error)),
            };
            if let Err(error) = outcome
                && last.as_ref() != Some(&seen)
            {
                tracing::error!(%error, "the webhook goes on with the certificate that it has: {error}");
            }
            last = Some(seen);
        }
    }
}

/// What was there at the last look.
#[derive(PartialEq, Eq)]
enum Seen {
    Files { certificate: Vec<u8>, key: String, authorities: Option<Vec<u8>> },
    Error(String),
}

impl Seen {
    fn of(material: &Material, callers: Option<&ClientAuthorities>) -> Self {
        Self::Files {
            certificate: material.certificate.clone(),
            key: material.key.expose().to_owned(),
            authorities: callers.map(|callers| callers.certificates.clone()),
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { key, path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
