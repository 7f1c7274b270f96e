//! An authority of the webhook's own: what it consists of, and what is to change about it at a given time. Pure, but for the
//! keys, which are random.
//!
//! A new authority is trusted before anything is signed by it: it is put into the bundle first, and signs once the API server
//! has that bundle. The old one stays in the bundle until it expires, so that any certificate that a replica may still serve
//! is trusted.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use vdbi_core::secret::Secret;
use x509_parser::parse_x509_certificate;

use super::{Material, validity::Validity};

/// The keys of the Secret; those of the certificate are the ones that a Secret of the type kubernetes.io/tls has.
const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEYS: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How far clocks may differ: certificates are valid this much earlier.
const SKEW: Duration = Duration::from_secs(300);

/// How long certificates live; each is replaced after two thirds. Made by `Lifetimes::default()`, and changed field by field.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Lifetimes {
    /// Of an authority. By default 365 days.
    pub authority: Duration,
    /// Of the webhook's certificate. By default 30 days.
    pub certificate: Duration,
    /// How long a new authority has to have been in the bundle before it signs. By default 60 s.
    pub settling: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { authority: 365 * day, certificate: 30 * day, settling: Duration::from_secs(60) }
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// The newest last.
    authorities: Vec<Pair>,
    certificate: Option<Pair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
struct Pair {
    certificate: String,
    key: Secret,
    facts: Facts,
}

/// What a certificate says.
#[derive(Clone, Debug)]
struct Facts {
    validity: Validity,
    subject: String,
    issuer: String,
    names: Vec<String>,
}

impl Store {
    /// # Errors
    ///
    /// Which of the Secret's keys cannot be used.
    pub(super) fn from_data(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, String> {
        let text = |key: &str| {
            let bytes = data.get(key).cloned().unwrap_or_default();
            String::from_utf8(bytes).map_err(|_| format!("{key} is no PEM"))
        };
        let certificates = blocks(&text(AUTHORITIES)?);
        let keys = blocks(&text(AUTHORITY_KEYS)?);
        if certificates.len() != keys.len() {
            return Err(format!("{AUTHORITIES} and {AUTHORITY_KEYS} do not belong together"));
        }
        let pair = |certificate: String, key: String| Pair::new(certificate, key);
        let authorities = certificates.into_iter().zip(keys).map(|(certificate, key)| pair(certificate, key));
        let authorities =
            authorities.collect::<Result<_, _>>().map_err(|error| format!("{AUTHORITIES}: {error}"))?;
        let certificate = match (text(CERTIFICATE)?, text(KEY)?) {
            (certificate, key) if certificate.is_empty() || key.is_empty() => None,
            (certificate, key) => {
                Some(pair(certificate, key).map_err(|error| format!("{CERTIFICATE}: {error}"))?)
            }
        };
        Ok(Self { authorities, certificate })
    }

    pub(super) fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let keys: String = self.authorities.iter().map(|authority| authority.key.expose()).collect();
        let mut data = BTreeMap::from([
            (AUTHORITIES.into(), self.bundle().into_bytes()),
            (AUTHORITY_KEYS.into(), keys.into_bytes()),
        ]);
        if let Some(Pair { certificate, key, .. }) = &self.certificate {
            data.insert(CERTIFICATE.into(), certificate.clone().into_bytes());
            data.insert(KEY.into(), key.expose().as_bytes().to_vec());
        }
        data
    }

    /// The authorities to trust, PEM.
    pub(super) fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// What to serve, once there is something.
    pub(super) fn material(&self) -> Option<Material> {
        let Pair { certificate, key, .. } = self.certificate.as_ref()?;
        Some(Material { certificate: certificate.clone().into_bytes(), key: key.clone() })
    }
}

impl Pair {
    fn new(certificate: String, key: String) -> Result<Self, String> {
        let facts = Facts::of(&certificate)?;
        Ok(Self { certificate, key: Secret::new(key), facts })
    }

    /// After two thirds of its life.
    fn is_due(&self, now: Timestamp) -> bool {
        let Validity { from, until } = self.facts.validity;
        now.duration_since(from) * 3 >= until.duration_since(from) * 2
    }

    fn age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.facts.validity.from) - signed(SKEW)
    }
}

impl Facts {
    fn of(pem: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let (_, certificate) = parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        let names = names.into_iter().flat_map(|names| &names.value.general_names);
        Ok(Self {
            validity: Validity::of(&der)?,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names: names.map(name).collect(),
        })
    }
}

fn name(name: &x509_parser::extensions::GeneralName<'_>) -> String {
    use x509_parser::extensions::GeneralName::{DNSName, IPAddress};
    match name {
        DNSName(name) => (*name).to_owned(),
        IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4().or_else(|_| v6()).map(|address| address.to_string()).unwrap_or_default()
        }
        other => other.to_string(),
    }
}

/// What the Secret has to hold from now on; `None` when it is as it should be. `published` is the bundle that the API server
/// has.
pub(super) fn next(
    store: &Store,
    published: &str,
    names: &[String],
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<Option<Store>, rcgen::Error> {
    let mut next = store.clone();
    next.authorities.retain(|authority| authority.facts.validity.until > now);
    let mut changed = next.authorities.len() != store.authorities.len();
    if next.authorities.last().is_none_or(|newest| newest.is_due(now)) {
        next.authorities.push(authority(lifetimes.authority, now)?);
        changed = true;
    }
    let is_settled = |authority: &&Pair| {
        published.contains(&authority.certificate) && authority.age(now) >= signed(lifetimes.settling)
    };
    // Without a settled one there is nothing yet that an API server could distrust.
    let signer = next.authorities.iter().rev().find(is_settled).or(next.authorities.first());
    if let Some(signer) = signer
        && !next.certificate.as_ref().is_some_and(|certificate| serves(certificate, signer, names, now))
    {
        next.certificate = Some(certificate(signer, names, lifetimes.certificate, now)?);
        changed = true;
    }
    Ok(changed.then_some(next))
}

fn serves(certificate: &Pair, signer: &Pair, names: &[String], now: Timestamp) -> bool {
    certificate.facts.issuer == signer.facts.subject
        && certificate.facts.names == names
        && !certificate.is_due(now)
}

fn authority(lifetime: Duration, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::default();
    // Unlike any other, since certificates name their issuer.
    let name = format!("vdbi webhook authority {}", uuid::Uuid::new_v4());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit(&mut params, now, lifetime);
    let key = KeyPair::generate()?;
    pair(&params.self_signed(&key)?.pem(), &key)
}

fn certificate(
    signer: &Pair,
    names: &[String],
    lifetime: Duration,
    now: Timestamp,
) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let left = signer.facts.validity.until.duration_since(now);
    limit(&mut params, now, lifetime.min(left.unsigned_abs()));
    let issuer = Issuer::from_ca_cert_pem(&signer.certificate, KeyPair::from_pem(signer.key.expose())?)?;
    let key = KeyPair::generate()?;
    pair(&params.signed_by(&key, &issuer)?.pem(), &key)
}

fn pair(certificate: &str, key: &KeyPair) -> Result<Pair, rcgen::Error> {
    Pair::new(certificate.to_owned(), key.serialize_pem()).map_err(|_| rcgen::Error::CouldNotParseCertificate)
}

fn limit(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let at = |time: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(time.as_second())
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = at(now - SKEW);
    params.not_after = at(now + lifetime);
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// The PEM blocks of a text, each with its line end.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        block.push_str(line);
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn names() -> Vec<String> {
        vec!["vdbi.vdbi.svc".into(), "127.0.0.1".into()]
    }

    fn step(store: &Store, published: &str, now: Timestamp) -> Option<Store> {
        next(store, published, &names(), Lifetimes::default(), now).unwrap()
    }

    fn issuer(store: &Store) -> usize {
        let issuer = &store.certificate.as_ref().unwrap().facts.issuer;
        store.authorities.iter().position(|authority| authority.facts.subject == *issuer).unwrap()
    }

    #[test]
    fn at_first_there_is_one_authority_and_its_certificate() {
        let store = step(&Store::default(), "", start()).unwrap();
        assert_eq!((store.authorities.len(), issuer(&store)), (1, 0));
        assert_eq!(store.certificate.as_ref().unwrap().facts.names, names());
        assert!(step(&store, &store.bundle(), start()).is_none(), "nothing is left to do");
        let read = Store::from_data(&store.to_data()).unwrap();
        assert_eq!(read.bundle(), store.bundle());
        assert!(step(&read, &read.bundle(), start() + 19 * DAY).is_none());
    }

    #[test]
    fn the_certificate_is_replaced_after_two_thirds_of_its_life_and_for_other_names() {
        let store = step(&Store::default(), "", start()).unwrap();
        let renewed = step(&store, &store.bundle(), start() + 21 * DAY).unwrap();
        assert_eq!(renewed.authorities.len(), 1);
        assert_ne!(renewed.certificate.unwrap().certificate, store.certificate.as_ref().unwrap().certificate);
        let other = vec!["other.svc".to_owned()];
        let renamed = next(&store, &store.bundle(), &other, Lifetimes::default(), start()).unwrap().unwrap();
        assert_eq!(renamed.certificate.unwrap().facts.names, other);
    }

    #[test]
    fn a_new_authority_signs_only_after_the_api_server_has_it() {
        let first = step(&Store::default(), "", start()).unwrap();
        let due = start() + 245 * DAY;
        let second = step(&first, &first.bundle(), due).unwrap();
        assert_eq!((second.authorities.len(), issuer(&second)), (2, 0));
        assert!(second.bundle().contains(&first.bundle()));

        let later = due + DAY;
        assert!(step(&second, &first.bundle(), later).is_none(), "the bundle has not been published");
        assert!(
            step(&second, &second.bundle(), due + Duration::from_secs(59)).is_none(),
            "nor has it settled"
        );
        let third = step(&second, &second.bundle(), due + Duration::from_secs(60)).unwrap();
        assert_eq!((third.authorities.len(), issuer(&third)), (2, 1));
    }

    #[test]
    fn an_authority_that_has_expired_is_forgotten() {
        let first = step(&Store::default(), "", start()).unwrap();
        let second = step(&first, &first.bundle(), start() + 245 * DAY).unwrap();
        let last = step(&second, &second.bundle(), start() + 366 * DAY).unwrap();
        assert_eq!((last.authorities.len(), issuer(&last)), (1, 0));
        assert!(!last.bundle().contains(&first.bundle()));
        assert!(!format!("{last:?}").contains("PRIVATE KEY"));
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let store = step(&Store::default(), "", start()).unwrap();
        let late =
            next(&store, "", &names(), Lifetimes { authority: 3 * DAY, ..Lifetimes::default() }, start());
        assert!(late.unwrap().is_none());
        let short = Lifetimes { authority: 3 * DAY, ..Lifetimes::default() };
        let store = next(&Store::default(), "", &names(), short, start()).unwrap().unwrap();
        let until = |pair: &Pair| pair.facts.validity.until;
        assert_eq!(until(store.certificate.as_ref().unwrap()), until(&store.authorities[0]));
    }

    #[test]
    fn what_is_no_store_says_which_key_is_wrong() {
        let mut data = step(&Store::default(), "", start()).unwrap().to_data();
        data.insert(AUTHORITY_KEYS.into(), Vec::new());
        assert!(Store::from_data(&data).unwrap_err().contains("ca.key"));
        data.insert(AUTHORITIES.into(), Vec::new());
        data.insert(CERTIFICATE.into(), b"x".to_vec());
        assert!(Store::from_data(&data).unwrap_err().contains("tls.crt"));
        assert!(Store::from_data(&BTreeMap::new()).is_ok());
    }
}
