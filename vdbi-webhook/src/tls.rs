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
    crypto::CryptoProvider,
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

mod authority;
mod callers;
mod managed;
mod validity;

use callers::Callers;
use validity::Validity;

pub use authority::Lifetimes;
pub use managed::{SelfManaged, Settings};

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
    /// No leader has made a certificate yet.
    #[error("there is no certificate yet: the leader makes it")]
    NotYet,
    /// The authorities of client certificates.
    #[error("webhook.clientCaFile cannot be used: {0}")]
    ClientAuthorities(String),
}

/// A certificate with its chain, and its key, both PEM (RFC 7468).
#[derive(Clone, Debug)]
pub struct Material {
    /// The server's certificate first.
    pub certificate: Vec<u8>,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret,
}

/// Who is answered: whoever shows a certificate of one of these authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientAuthorities {
    /// PEM.
    pub certificates: Vec<u8>,
    /// Names, one of which the certificate has to carry, as its common name or among its DNS names; any will do when empty.
    pub allowed_names: Vec<String>,
}

impl ClientAuthorities {
    /// Authorities as PEM, any of whose certificates will do.
    pub fn new(certificates: impl Into<Vec<u8>>) -> Self {
        Self { certificates: certificates.into(), allowed_names: Vec::new() }
    }
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
    /// TLS with this certificate; with `callers`, only for them. The cryptography is that of the process's default provider for rustls, or
    /// of aws-lc-rs where none is installed.
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

/// Whoever assembles a process chooses; nobody has to.
fn provider() -> Arc<CryptoProvider> {
    let installed = CryptoProvider::get_default().cloned();
    installed.unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
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
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| unusable(&error))?;
    let builder = match callers {
        Some(callers) => builder.with_client_cert_verifier(Callers::new(callers)?),
        None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| TlsError::Key(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), validity))
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Files, which somebody else keeps fresh: cert-manager, an operator.
    Files {
        /// `certFile`
        certificate: PathBuf,
        /// `keyFile`
        key: PathBuf,
    },
    /// The webhook's own authority.
    SelfManaged(Box<SelfManaged>),
}

/// Where the authorities of client certificates come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallersFile {
    /// `webhook.clientCaFile`
    pub path: PathBuf,
    /// `webhook.clientAllowedNames`
    pub allowed_names: Vec<String>,
}

/// Keeps a server's TLS at what its sources hold.
#[derive(Debug)]
pub struct Keeper {
    source: Source,
    callers: Option<CallersFile>,
    last: Loaded,
}

/// What was read at one time.
#[derive(Debug)]
struct Loaded {
    material: Material,
    callers: Option<ClientAuthorities>,
}

impl Source {
    async fn read(&self) -> Result<Material, TlsError> {
        match self {
            Self::Files { certificate, key } => {
                let (certificate, key) = (read("certFile", certificate)?, read("keyFile", key)?);
                let key = String::from_utf8(key).map_err(|_| TlsError::Key("it is no PEM".into()))?;
                Ok(Material { certificate, key: Secret::new(key) })
            }
            Self::SelfManaged(managed) => managed.material().await?.ok_or(TlsError::NotYet),
        }
    }
}

impl CallersFile {
    /// A file of authorities as PEM, any of whose certificates will do.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), allowed_names: Vec::new() }
    }

    fn read(&self) -> Result<ClientAuthorities, TlsError> {
        let certificates = read("webhook.clientCaFile", &self.path)?;
        Ok(ClientAuthorities { certificates, allowed_names: self.allowed_names.clone() })
    }
}

impl Loaded {
    async fn read(source: &Source, callers: Option<&CallersFile>) -> Result<Self, TlsError> {
        let callers = callers.map(CallersFile::read).transpose()?;
        Ok(Self { material: source.read().await?, callers })
    }

    fn is(&self, other: &Self) -> bool {
        let Self { material: Material { certificate, key }, callers } = self;
        *certificate == other.material.certificate
            && key.expose() == other.material.key.expose()
            && *callers == other.callers
    }
}

impl Keeper {
    /// TLS with what the sources hold now, and what keeps it so.
    ///
    /// # Errors
    ///
    /// See [`TlsError`]; after [`TlsError::NotYet`], try again.
    pub async fn start(
        source: Source,
        callers: Option<CallersFile>,
        registry: &Registry,
    ) -> Result<(Tls, Self), TlsError> {
        let last = Loaded::read(&source, callers.as_ref()).await?;
        let tls = Tls::new(&last.material, last.callers.as_ref(), registry)?;
        Ok((tls, Self { source, callers, last }))
    }

    /// Looks every two seconds, for ever, and uses what has changed. Says once what cannot be used, at the second look: at the
    /// first one the files may have been about to change.
    pub async fn run(mut self, tls: Tls) {
        let mut failure: Option<(String, u64)> = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            failure = match (self.step(&tls).await, failure) {
                (Ok(changed), _) => {
                    if changed {
                        let validity = tls.validity();
                        tracing::info!(%validity, "the webhook's certificate or client authorities have changed: {validity}");
                    }
                    None
                }
                (Err(error), failure) => {
                    let text = error.to_string();
                    let before = failure.filter(|(known, _)| *known == text).map_or(0, |(_, looks)| looks);
                    if before == 1 {
                        tracing::error!(
                            error = text,
                            "the webhook goes on with the certificate that it has: {text}"
                        );
                    }
                    Some((text, before + 1))
                }
            };
        }
    }

    /// Whether something changed.
    async fn step(&mut self, tls: &Tls) -> Result<bool, TlsError> {
        let found = Loaded::read(&self.source, self.callers.as_ref()).await?;
        if found.is(&self.last) {
            return Ok(false);
        }
        tls.replace(&found.material, found.callers.as_ref())?;
        self.last = found;
        Ok(true)
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { key, path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
