use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// A certificate authority of the test's own, for the API server and for webhooks.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key, as PKCS #8.
    pub key: String,
}

impl Authority {
    /// A new one; every authority has a key of its own.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a server with these names or addresses.
    ///
    /// # Errors
    ///
    /// When one of them is neither a name nor an address.
    pub fn server(&self, names: &[&str]) -> Result<Identity> {
        self.issue(server_params(names)?)
    }

    /// As [`Authority::server`], with a certificate that ends this long from now.
    ///
    /// # Errors
    ///
    /// As [`Authority::server`].
    pub fn server_until(&self, names: &[&str], left: std::time::Duration) -> Result<Identity> {
        let mut params = server_params(names)?;
        params.not_after = (std::time::SystemTime::now() + left).into();
        self.issue(params)
    }

    /// Issues a certificate for a client; Kubernetes takes the organization for its group.
    ///
    /// # Errors
    ///
    /// When a name does not fit into a certificate.
    pub fn client(&self, user: &str, group: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn server_params(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Whether a client that trusts these authorities accepts this certificate of a server with this address or name.
///
/// # Errors
///
/// When one of the texts is no PEM.
pub fn verifies(certificate: &str, authorities: &str, name: &str) -> Result<bool> {
    crate::cluster::install_crypto();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority?)?;
    }
    let verifier = WebPkiServerVerifier::builder(roots.into()).build()?;
    let name = ServerName::try_from(name.to_owned())?;
    Ok(verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).is_ok())
}
