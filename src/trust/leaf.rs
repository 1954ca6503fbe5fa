//! What is looked at in the certificate of a new peer (`trust.md` 2.4, `authn-tls.md` section 1).

use crate::auth::certificate::CertificateError;
use crate::auth::fitness;
use crate::auth::fitness::Demands;
use crate::auth::fitness::KeyUsage;
use crate::time::moment as rfc3339;
use crate::trust::Fingerprint;
use crate::trust::enroll::Code;
use crate::trust::enroll::Rejected;

/// A certificate whose key the handshake has proved, or that an operator brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its fingerprint.
    pub sha256: Fingerprint,
    /// The first second of its validity, since the Unix epoch.
    pub not_before: u64,
    /// The last one.
    pub not_after: u64,
    /// Whether its key is strong and it may be used as it will be.
    pub fit: Result<(), CertificateError>,
}

/// For what a certificate has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Of a cluster: it dials and is dialled.
    Link,
    /// Of an operator, who only dials.
    Admin,
}

/// Beyond so many days a certificate is surely not replaced as often as it should be: the bound that browsers set to servers'.
const LIFETIME_DAYS_MAX: u64 = 398;

impl Leaf {
    /// What to say of `whose` certificate if it is valid for longer than it should be.
    #[must_use]
    pub fn long_lived(&self, whose: &str) -> Option<String> {
        let days = self.not_after.saturating_sub(self.not_before) / 86_400;
        let text = format!(
            "{whose} is valid for {days} days: one that is replaced within {LIFETIME_DAYS_MAX} is of less use to a thief"
        );
        (days > LIFETIME_DAYS_MAX).then_some(text)
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(der: &[u8], purpose: Purpose) -> Result<Self, CertificateError> {
        let certificate = fitness::read(der)?;
        let validity = certificate.validity();
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let usages = match purpose {
            Purpose::Link => vec![KeyUsage::ClientAuth, KeyUsage::ServerAuth],
            Purpose::Admin => vec![KeyUsage::ClientAuth],
        };
        let demands = Demands { usages, rsa_bits_min: fitness::LINK_RSA_BITS_MIN };
        Ok(Self {
            sha256: Fingerprint::of(der),
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
            fit: demands.check_leaf(der),
        })
    }

    /// Whether it can be taken at this moment, whoever it is of.
    ///
    /// # Errors
    /// Why not, for programs and for people.
    pub fn check(&self, now: u64) -> Result<(), (Rejected, String)> {
        if let Err(error) = &self.fit {
            return Err((rejected(error), error.to_string()));
        }
        let clock = rfc3339::format(now);
        if now < self.not_before {
            let from = rfc3339::format(self.not_before);
            let text = format!(
                "the certificate is not valid before {from}, and by this cluster's clock it is {clock}"
            );
            return Err((Rejected::NotYetValid, text));
        }
        if now > self.not_after {
            let until = rfc3339::format(self.not_after);
            let text =
                format!("the certificate has expired at {until}, and by this cluster's clock it is {clock}");
            return Err((Rejected::Expired, text));
        }
        Ok(())
    }

    /// The same as an answer's code and text.
    pub(super) fn check_for_answer(&self, now: u64) -> Result<(), (Code, String)> {
        self.check(now).map_err(|(why, text)| (Code::CertRejected(why), text))
    }
}

fn rejected(error: &CertificateError) -> Rejected {
    match error {
        CertificateError::WeakKey(_) | CertificateError::WeakSignature => Rejected::Weak,
        CertificateError::MissingUsage(_) | CertificateError::Authority => Rejected::Usage,
        _ => Rejected::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::ExtendedKeyUsagePurpose;
    use rcgen::KeyPair;
    use rcgen::date_time_ymd;

    use super::*;

    fn certificate(usages: &[ExtendedKeyUsagePurpose]) -> Vec<u8> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params.extended_key_usages = usages.to_vec();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_clusters_certificate_is_for_both_ends() {
        use ExtendedKeyUsagePurpose as Usage;
        let der = certificate(&[Usage::ServerAuth, Usage::ClientAuth]);
        let leaf = Leaf::read(&der, Purpose::Link).unwrap();
        assert_eq!((leaf.sha256, leaf.fit.clone()), (Fingerprint::of(&der), Ok(())));
        let (first, last) = (1_767_225_600, 1_798_761_600);
        assert_eq!((leaf.not_before, leaf.not_after), (first, last));
        assert_eq!(leaf.check(first), Ok(()));
        assert_eq!(leaf.check(last), Ok(()));
        let (why, text) = leaf.check(first - 60).unwrap_err();
        assert_eq!(why, Rejected::NotYetValid);
        assert_eq!(
            text,
            "the certificate is not valid before 2026-01-01T00:00:00Z, and by this cluster's clock it is \
             2025-12-31T23:59:00Z"
        );
        assert_eq!(leaf.check(last + 1).unwrap_err().0, Rejected::Expired);
        for usages in [&[][..], &[Usage::ClientAuth], &[Usage::ServerAuth], &[Usage::Any]] {
            let leaf = Leaf::read(&certificate(usages), Purpose::Link).unwrap();
            assert_eq!(leaf.check(first).unwrap_err().0, Rejected::Usage, "{usages:?}");
        }
        assert_eq!(Leaf::read(&certificate(&[Usage::ClientAuth]), Purpose::Admin).unwrap().fit, Ok(()));
        assert_eq!(Leaf::read(b"x", Purpose::Link), Err(CertificateError::Unreadable));
    }

    #[test]
    fn what_is_wrong_with_a_certificate_has_a_code() {
        assert_eq!(rejected(&CertificateError::WeakKey(3_072)), Rejected::Weak);
        assert_eq!(rejected(&CertificateError::WeakSignature), Rejected::Weak);
        assert_eq!(rejected(&CertificateError::Authority), Rejected::Usage);
        assert_eq!(rejected(&CertificateError::UnsafeSubject), Rejected::Unreadable);
    }

    #[test]
    fn a_certificate_that_is_valid_for_long_is_said_so() {
        let leaf = |days: u64| Leaf {
            sha256: Fingerprint([1; 32]),
            not_before: 86_400,
            not_after: 86_400 * (days + 1),
            fit: Ok(()),
        };
        assert_eq!(leaf(398).long_lived("x"), None);
        assert!(leaf(399).long_lived("x").unwrap().starts_with("x is valid for 399 days: "));
    }
}
