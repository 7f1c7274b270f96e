//! Who may ask: the verification of client certificates.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::{ClientAuthorities, TlsError};

/// Accepts certificates of given authorities that carry one of given names.
#[derive(Debug)]
pub(super) struct Callers {
    chain: Arc<dyn ClientCertVerifier>,
    allowed_names: Vec<String>,
}

impl Callers {
    pub(super) fn new(authorities: &ClientAuthorities) -> Result<Arc<Self>, TlsError> {
        let unusable = |error: String| TlsError::ClientAuthorities(error);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&authorities.certificates) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let chain = WebPkiClientVerifier::builder_with_provider(roots.into(), super::provider())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Arc::new(Self { chain, allowed_names: authorities.allowed_names.clone() }))
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        let names = names(certificate).ok_or(CertificateError::BadEncoding)?;
        if self.allowed_names.is_empty() || names.iter().any(|name| self.allowed_names.contains(name)) {
            return Ok(verified);
        }
        tracing::warn!(
            ?names,
            "refused a caller whose certificate carries none of webhook.clientAllowedNames, but {names:?}"
        );
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The common names and DNS names of a certificate; `None` when it cannot be read.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Some(alternative) = certificate.subject_alternative_name().ok()? {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    Some(names)
}
