//! How long the webhook's certificate is good for: the API server rejects one that is not, and then no pod starts.

use std::{io, path::Path};

use jiff::Timestamp;
use x509_parser::{parse_x509_certificate, pem::parse_x509_pem};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    from: Timestamp,
    until: Timestamp,
}

impl Validity {
    /// Of the first certificate in a PEM file: the server's own.
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        Self::parse(&std::fs::read(file)?).map_err(io::Error::other)
    }

    fn parse(pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem).map_err(|error| format!("it is no PEM: {error}"))?;
        let (_, certificate) = parse_x509_certificate(&pem.contents)
            .map_err(|error| format!("it is no certificate: {error}"))?;
        let validity = certificate.validity();
        let second = |time: i64| Timestamp::from_second(time).map_err(|error| error.to_string());
        Ok(Self {
            from: second(validity.not_before.timestamp())?,
            until: second(validity.not_after.timestamp())?,
        })
    }

    /// Whether it is good at that time; the error says since or until when it is not.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), String> {
        let Self { from, until } = self;
        if now < *from {
            return Err(format!("the certificate is not valid before {from}"));
        }
        if now > *until {
            return Err(format!("the certificate has expired at {until}: renew it and restart the webhook"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn pem() -> String {
        let mut params = CertificateParams::new(["webhook.vdbi.svc".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_certificate_is_good_between_its_dates() {
        let validity = Validity::parse(pem().as_bytes()).unwrap();
        let at = |time: &str| validity.check(time.parse().unwrap());
        assert_eq!(at("2026-01-01T00:00:00Z"), Ok(()));
        assert_eq!(at("2026-12-31T00:00:00Z"), Ok(()));
        assert_eq!(
            at("2025-12-31T23:59:59Z"),
            Err("the certificate is not valid before 2026-01-01T00:00:00Z".to_owned())
        );
        assert!(at("2026-12-31T00:00:01Z").unwrap_err().contains("has expired at 2026-12-31T00:00:00Z"));
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        assert!(Validity::parse(b"").is_err());
        assert!(Validity::parse(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
