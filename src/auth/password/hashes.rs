//! Hashes of passwords. We write argon2id; what was made elsewhere is accepted if it is costly enough. What is guessed fast,
//! a single round of SHA-2 or argon2id with little work, is accepted only where `legacy_hashes` says so, until the user
//! logs in next.
//!
//! | form | accepted |
//! |---|---|
//! | `$argon2id$v=19$m=19456,t=2,p=1$salt$hash` | within the bounds below; with less than [`ARGON2_WORK_MIN`] with `legacy_hashes` |
//! | `$2b$10$…`, `$2a$`, `$2y$` | bcrypt of cost 10 to 14 |
//! | `$pbkdf2-sha256$i=600000$salt$hash` | 600,000 to 10,000,000 iterations |
//! | `$emqx-sha256$prefix$salt$hash`, `sha512`; `suffix`, `disable` | with `legacy_hashes` |

use std::fmt;
use std::num::NonZeroU32;

use argon2::Algorithm;
use argon2::Argon2;
use argon2::Block;
use argon2::Params;
use argon2::Version;
use argon2::password_hash::PasswordHash;
use base64ct::Base64Unpadded;
use base64ct::Encoding;
use ring::digest;
use ring::pbkdf2;
use subtle::ConstantTimeEq;

use super::HASH_BYTES;
use super::HashMemory;
use super::MAX_LANES;
use super::MAX_MEMORY_KIB;
use super::MAX_PASSES;
use crate::auth::users::SALT_BYTES;
use crate::auth::users::UserError;

/// The salt of the hash that an unknown user's password is compared with; it is no secret.
const DUMMY_SALT: &[u8; 16] = b"no such username";
/// Least memory of argon2id in KiB, and least memory times passes: the weakest of those that OWASP deems equal (m=7168, t=5).
pub const ARGON2_MEMORY_KIB_MIN: u32 = 7 * 1024;
/// See [`ARGON2_MEMORY_KIB_MIN`].
pub const ARGON2_WORK_MIN: u32 = 35 * 1024;
/// Costs of bcrypt: below it is guessed too fast, above a login takes seconds.
pub const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 10..=14;
/// Iterations of PBKDF2 with SHA-256.
pub const PBKDF2_ITERATIONS: std::ops::RangeInclusive<u32> = 600_000..=10_000_000;
/// Longest salt of a legacy hash, in bytes.
const LEGACY_SALT_MAX: usize = 256;
/// bcrypt reads no more of a password and its final zero.
const BCRYPT_BYTES_MAX: usize = 72;

/// What computing a hash costs; two of the same cost take the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// Memory in KiB, passes, lanes and bytes of the hash.
    Argon2id(u32, u32, u32, usize),
    /// The logarithm of the rounds.
    Bcrypt(u32),
    /// Iterations and blocks of the hash.
    Pbkdf2(u32, usize),
    /// One round: nothing to speak of.
    Legacy,
}

/// Where the salt of a legacy hash stood (`salt_position` of EMQX).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaltPosition {
    /// Before the password.
    Prefix,
    /// Behind it.
    Suffix,
    /// Nowhere.
    Disable,
}

impl SaltPosition {
    /// EMQX's words.
    pub const NAMES: [(&'static str, Self); 3] =
        [("prefix", Self::Prefix), ("suffix", Self::Suffix), ("disable", Self::Disable)];
}

#[derive(Clone)]
enum Scheme {
    Argon2id(Params),
    Bcrypt(u32),
    Pbkdf2(NonZeroU32),
    Legacy(&'static digest::Algorithm, SaltPosition),
}

/// One hash, parsed and within bounds.
#[derive(Clone)]
pub struct StoredHash {
    text: String,
    scheme: Scheme,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// Shows the parameters; salt and hash stay out of logs.
impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredHash").field("cost", &self.cost()).finish_non_exhaustive()
    }
}

impl StoredHash {
    /// Reads a hash in one of the forms above.
    ///
    /// # Errors
    /// If it is none, of another algorithm, or asks for more or less than the bounds.
    pub fn parse(text: &str) -> Result<Self, UserError> {
        let scheme = text.strip_prefix('$').and_then(|rest| rest.split('$').next());
        match scheme {
            Some("2a" | "2b" | "2y") => bcrypt(text),
            Some("pbkdf2-sha256") => pbkdf2(text),
            Some("emqx-sha256") => legacy(text, &digest::SHA256),
            Some("emqx-sha512") => legacy(text, &digest::SHA512),
            _ => argon2id(text),
        }
    }

    /// As it stands in the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A legacy hash of EMQX, as it is kept in a file.
    ///
    /// # Errors
    /// If it is not as long as the hash of its algorithm, or the salt is too long.
    pub fn legacy(sha512: bool, position: SaltPosition, salt: &[u8], hash: &[u8]) -> Result<Self, UserError> {
        let name = if sha512 { "sha512" } else { "sha256" };
        let word =
            SaltPosition::NAMES.iter().find(|(_, known)| *known == position).map_or("", |(word, _)| word);
        let encoded = Base64Unpadded::encode_string;
        Self::parse(&format!("$emqx-{name}${word}${}${}", encoded(salt), encoded(hash)))
    }

    /// Whether it is one that is accepted only with `legacy_hashes`.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        match &self.scheme {
            Scheme::Legacy(..) => true,
            Scheme::Argon2id(params) => {
                let (memory, work) = (params.m_cost(), params.m_cost() * params.t_cost());
                memory < ARGON2_MEMORY_KIB_MIN || work < ARGON2_WORK_MIN
            }
            Scheme::Bcrypt(_) | Scheme::Pbkdf2(_) => false,
        }
    }

    /// What it costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        match &self.scheme {
            Scheme::Argon2id(params) => {
                Cost::Argon2id(params.m_cost(), params.t_cost(), params.p_cost(), self.hash.len())
            }
            Scheme::Bcrypt(cost) => Cost::Bcrypt(*cost),
            Scheme::Pbkdf2(iterations) => Cost::Pbkdf2(iterations.get(), self.hash.len().div_ceil(32)),
            Scheme::Legacy(..) => Cost::Legacy,
        }
    }

    /// One that costs as much and that no password fits.
    pub(super) fn dummy(&self) -> Self {
        Self { salt: DUMMY_SALT.to_vec(), ..self.clone() }
    }

    /// Whether `password` is the one. Takes as long for a wrong one; a hash that cannot be computed is a no.
    #[must_use]
    pub fn verify(&self, password: &[u8], memory: &mut HashMemory) -> bool {
        *memory.computed.entry(self.cost()).or_default() += 1;
        self.compute(password, &mut memory.blocks)
            .is_some_and(|computed| bool::from(computed.as_slice().ct_eq(&self.hash)))
    }

    fn compute(&self, password: &[u8], blocks: &mut Vec<Block>) -> Option<Vec<u8>> {
        match &self.scheme {
            Scheme::Argon2id(params) => {
                let mut computed = vec![0; self.hash.len()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                let needed = params.block_count();
                if blocks.len() < needed {
                    blocks.resize(needed, Block::default());
                }
                let blocks = &mut blocks[..needed];
                argon2.hash_password_into_with_memory(password, &self.salt, &mut computed, blocks).ok()?;
                Some(computed)
            }
            Scheme::Bcrypt(cost) => {
                let mut key = password.to_vec();
                key.push(0);
                key.truncate(BCRYPT_BYTES_MAX);
                let salt: [u8; 16] = self.salt.as_slice().try_into().ok()?;
                // The last byte is not kept in the text.
                Some(::bcrypt::bcrypt(*cost, salt, &key)[..BCRYPT_HASH_BYTES].to_vec())
            }
            Scheme::Pbkdf2(iterations) => {
                let mut computed = vec![0; self.hash.len()];
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, *iterations, &self.salt, password, &mut computed);
                Some(computed)
            }
            Scheme::Legacy(algorithm, position) => {
                let mut context = digest::Context::new(algorithm);
                if *position == SaltPosition::Prefix {
                    context.update(&self.salt);
                }
                context.update(password);
                if *position == SaltPosition::Suffix {
                    context.update(&self.salt);
                }
                Some(context.finish().as_ref().to_vec())
            }
        }
    }
}

/// Bytes of a bcrypt hash as its text has them.
const BCRYPT_HASH_BYTES: usize = 23;

fn argon2id(text: &str) -> Result<StoredHash, UserError> {
    let phc = PasswordHash::new(text).map_err(|_| UserError::NotPhc)?;
    if phc.algorithm != argon2::ARGON2ID_IDENT || phc.version != Some(u32::from(Version::V0x13)) {
        return Err(UserError::Algorithm);
    }
    let params = Params::try_from(&phc).map_err(|_| UserError::Parameters)?;
    let bounded = params.m_cost() <= MAX_MEMORY_KIB
        && params.t_cost() <= MAX_PASSES
        && params.p_cost() <= MAX_LANES
        && params.keyid().is_empty()
        && params.data().is_empty();
    if !bounded {
        return Err(UserError::Parameters);
    }
    let (Some(salt), Some(hash)) = (phc.salt, phc.hash) else { return Err(UserError::NotPhc) };
    let mut buffer = [0; 64];
    let salt = salt.decode_b64(&mut buffer).map_err(|_| UserError::NotPhc)?.to_vec();
    if !SALT_BYTES.contains(&salt.len()) || !HASH_BYTES.contains(&hash.len()) {
        return Err(UserError::Length);
    }
    let hash = hash.as_bytes().to_vec();
    Ok(StoredHash { text: text.to_owned(), scheme: Scheme::Argon2id(params), salt, hash })
}

fn bcrypt(text: &str) -> Result<StoredHash, UserError> {
    let mut parts = text.split('$').skip(2);
    let (Some(cost), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(UserError::Bcrypt);
    };
    let cost = cost.parse().ok().filter(|_| cost.len() == 2).ok_or(UserError::Bcrypt)?;
    if !BCRYPT_COSTS.contains(&cost) {
        return Err(UserError::Bcrypt);
    }
    let decode = |part: &str| base64ct::Base64Bcrypt::decode_vec(part).map_err(|_| UserError::Bcrypt);
    let (salt, hash) = rest.split_at_checked(22).ok_or(UserError::Bcrypt)?;
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    if salt.len() != 16 || hash.len() != BCRYPT_HASH_BYTES {
        return Err(UserError::Bcrypt);
    }
    Ok(StoredHash { text: text.to_owned(), scheme: Scheme::Bcrypt(cost), salt, hash })
}

fn pbkdf2(text: &str) -> Result<StoredHash, UserError> {
    let mut parts = text.split('$').skip(2);
    let (Some(rounds), Some(salt), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(UserError::Pbkdf2);
    };
    let rounds = rounds.strip_prefix("i=").and_then(|rounds| rounds.parse().ok()).ok_or(UserError::Pbkdf2)?;
    let bounded = Some(rounds).filter(|rounds| PBKDF2_ITERATIONS.contains(rounds)).and_then(NonZeroU32::new);
    let iterations = bounded.ok_or(UserError::Pbkdf2)?;
    let decode = |part: &str| Base64Unpadded::decode_vec(part).map_err(|_| UserError::Pbkdf2);
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    if !(8..=64).contains(&salt.len()) || !HASH_BYTES.contains(&hash.len()) {
        return Err(UserError::Length);
    }
    Ok(StoredHash { text: text.to_owned(), scheme: Scheme::Pbkdf2(iterations), salt, hash })
}

fn legacy(text: &str, algorithm: &'static digest::Algorithm) -> Result<StoredHash, UserError> {
    let mut parts = text.split('$').skip(2);
    let (Some(word), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(UserError::LegacyForm);
    };
    let position = SaltPosition::NAMES.iter().find(|(known, _)| *known == word);
    let position = position.map(|(_, position)| *position).ok_or(UserError::LegacyForm)?;
    let decode = |part: &str| Base64Unpadded::decode_vec(part).map_err(|_| UserError::LegacyForm);
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    if salt.len() > LEGACY_SALT_MAX || hash.len() != algorithm.output_len() {
        return Err(UserError::LegacyForm);
    }
    Ok(StoredHash { text: text.to_owned(), scheme: Scheme::Legacy(algorithm, position), salt, hash })
}
