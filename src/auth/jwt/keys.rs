//! The keys that tokens are verified with: a secret, a public key in PEM, or a set of keys as JSON (RFC 7517).

use std::fmt;

use base64ct::Base64;
use base64ct::Base64UrlUnpadded;
use base64ct::Encoding;
use ring::hmac;
use ring::signature;
use ring::signature::RsaParameters;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::UnparsedPublicKey;
use ring::signature::VerificationAlgorithm;
use serde_json::Value;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::JwtError;

/// Longest set of keys, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;
/// Most keys of a set.
pub const KEYS_MAX: usize = 64;
/// Most keys that are tried for one token: each costs a verification.
const TRIED_MAX: usize = 4;
/// Shortest secret, in bytes: as long as the shortest hash (RFC 7518 section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// Sizes of an RSA modulus.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this name. There is none that is called `none`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        Some(match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// Why a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that can be guessed.
    #[error("the secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed")]
    ShortSecret(usize),
    /// A secret that is not Base64 although it is said to be.
    #[error("the secret is not Base64")]
    NotBase64,
    /// Not a public key in PEM.
    #[error("not a public key in PEM (`BEGIN PUBLIC KEY`)")]
    NotPem,
    /// A key of a kind or size that is not taken.
    #[error("not an RSA key of 2048 to 8192 bits, nor one on P-256, P-384 or Ed25519")]
    Unsupported,
    /// Not a set of keys.
    #[error("not a set of keys: a JSON object with a list `keys`, at most {KEY_SET_BYTES_MAX} bytes")]
    NotASet,
    /// A set without a key that could be used.
    #[error("no key of the set can be used to verify signatures")]
    Empty,
    /// Above [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

#[derive(Clone)]
enum Material {
    Secret(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Material {
    fn takes(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret(_) => algorithm.hmac().is_some(),
            Self::Rsa { .. } => algorithm.rsa().is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let plain = |way: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(way, key).verify(message, signature).is_ok()
        };
        match self {
            Self::Secret(secret) => algorithm.hmac().is_some_and(|hash| {
                // In constant time.
                hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
            }),
            Self::Rsa { n, e } => algorithm.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            Self::P256(point) => {
                algorithm == Algorithm::Es256 && plain(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            Self::P384(point) => {
                algorithm == Algorithm::Es384 && plain(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            Self::Ed25519(key) => algorithm == Algorithm::EdDsa && plain(&signature::ED25519, key),
        }
    }

    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let strip = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        let (n, e) = (strip(n), strip(e));
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        (RSA_BITS.contains(&bits) && (1..=4).contains(&e.len())).then_some(Self::Rsa { n, e })
    }
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    /// The one algorithm that its set says it is for.
    only: Option<Algorithm>,
    material: Material,
}

/// Keys of which one must have signed a token.
#[derive(Clone)]
pub struct KeySet(Vec<Key>);

/// Keys stay out of logs, also those that are public.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.0.len()).finish()
    }
}

impl KeySet {
    /// A secret that issuer and broker share.
    ///
    /// # Errors
    /// If it is too short.
    pub fn secret(secret: &[u8], is_base64: bool) -> Result<Self, KeyError> {
        let secret = if is_base64 {
            let text = std::str::from_utf8(secret).map_err(|_| KeyError::NotBase64)?;
            let bare = text.trim_end_matches('=');
            Base64UrlUnpadded::decode_vec(bare)
                .or_else(|_| Base64::decode_vec(text))
                .map_err(|_| KeyError::NotBase64)?
        } else {
            secret.to_vec()
        };
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Self(vec![Key { kid: None, only: None, material: Material::Secret(secret) }]))
    }

    /// A public key in PEM.
    ///
    /// # Errors
    /// If it is none, or of a kind that is not taken.
    pub fn pem(text: &[u8]) -> Result<Self, KeyError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(text).map_err(|_| KeyError::NotPem)?;
        if pem.label != "PUBLIC KEY" {
            return Err(KeyError::NotPem);
        }
        let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| KeyError::NotPem)?;
        let material = of_info(&info).ok_or(KeyError::Unsupported)?;
        Ok(Self(vec![Key { kid: None, only: None, material }]))
    }

    /// A set of keys as JSON. Keys of kinds that are not taken are left out, secrets always.
    ///
    /// # Errors
    /// If it is none, or no key of it can be used.
    pub fn json(text: &[u8]) -> Result<Self, KeyError> {
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(KeyError::NotASet);
        }
        let set: Value = serde_json::from_slice(text).map_err(|_| KeyError::NotASet)?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(KeyError::NotASet)?;
        if list.len() > KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let keys: Vec<Key> = list.iter().filter_map(of_json).collect();
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self(keys)) }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys that it may be made this signature.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), JwtError> {
        let fits =
            |key: &&Key| key.material.takes(algorithm) && key.only.is_none_or(|only| only == algorithm);
        if !self.0.iter().any(|key| fits(&key)) {
            return Err(JwtError::Algorithm);
        }
        // A key without a name may be any.
        let named = |key: &&Key| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid;
        let mut candidates = self.0.iter().filter(fits).filter(named).peekable();
        if candidates.peek().is_none() {
            return Err(JwtError::UnknownKey);
        }
        let mut tried = candidates.by_ref().take(TRIED_MAX);
        if tried.any(|key| key.material.verifies(algorithm, message, signature)) {
            return Ok(());
        }
        // It may be right, by a key that was not tried.
        Err(if candidates.next().is_some() { JwtError::Untried } else { JwtError::Signature })
    }
}

fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Material> {
    let bits = &*info.subject_public_key.data;
    match info.parsed().ok()? {
        PublicKey::RSA(key) => Material::rsa(key.modulus, key.exponent),
        PublicKey::EC(_) => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
            match (curve.as_str(), bits.len(), bits.first()) {
                ("1.2.840.10045.3.1.7", 65, Some(4)) => Some(Material::P256(bits.to_vec())),
                ("1.3.132.0.34", 97, Some(4)) => Some(Material::P384(bits.to_vec())),
                _ => None,
            }
        }
        PublicKey::Unknown(_)
            if info.algorithm.algorithm.to_id_string() == "1.3.101.112" && bits.len() == 32 =>
        {
            Some(Material::Ed25519(bits.to_vec()))
        }
        _ => None,
    }
}

fn of_json(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| Base64UrlUnpadded::decode_vec(text(name)?.trim_end_matches('=')).ok();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let only = match text("alg") {
        Some(name) => Some(Algorithm::from_name(name)?),
        None => None,
    };
    let point = |size: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    if only.is_some_and(|only| !material.takes(only)) {
        return None;
    }
    Some(Key { kid: text("kid").map(str::to_owned), only, material })
}
