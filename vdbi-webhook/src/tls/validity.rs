//! How long the webhook's certificate is good for: the API server rejects one that is not, and then no pod starts.

use std::fmt;

use jiff::Timestamp;
use metrics::Gauge;
use x509_parser::parse_x509_certificate;

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Validity {
    /// Of a certificate as DER.
    pub(crate) fn of(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|error| error.to_string())?;
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
            return Err(format!("the certificate expires at {until}: renew it"));
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a time in seconds is far below 2^52")]
    pub(crate) fn report(&self, gauge: &Gauge) {
        gauge.set(self.until.as_second() as f64);
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "valid from {} until {}", self.from, self.until)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_good_between_its_dates() {
        let mut params = CertificateParams::new(["webhook.vdbi.svc".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let validity = Validity::of(certificate.der()).unwrap();
        let at = |time: &str| validity.check(time.parse().unwrap());
        assert_eq!(at("2026-01-01T00:00:00Z"), Ok(()));
        assert_eq!(at("2026-12-31T00:00:00Z"), Ok(()));
        assert_eq!(
            at("2025-12-31T23:59:59Z"),
            Err("the certificate is not valid before 2026-01-01T00:00:00Z".to_owned())
        );
        assert!(at("2026-12-31T00:00:01Z").unwrap_err().contains("expires at 2026-12-31T00:00:00Z"));
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        assert!(Validity::of(b"").is_err());
        assert!(Validity::of(&[0; 40]).is_err());
    }
}
