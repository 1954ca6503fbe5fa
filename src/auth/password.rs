//! The password file: one `user:$argon2id$v=19$m=19456,t=2,p=1$salt$hash` a line, `#` comments (authn-tls.md
//! section 2). Pure: hashing takes milliseconds and 19 MiB, so the driver runs [`PasswordFile::verify`] on a bounded
//! pool of blocking threads. Plain text and other hashes are refused.

use std::fmt;

use argon2::Algorithm;
use argon2::Argon2;
use argon2::Block;
use argon2::Params;
use argon2::Version;
use argon2::password_hash::PasswordHash;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::SaltString;
use subtle::ConstantTimeEq;

use crate::auth::users::SALT_BYTES;
use crate::auth::users::Stored;
use crate::auth::users::UserError;
use crate::auth::users::Users;

/// Longest password, in bytes: MQTT's Binary Data has no room for more (MQTT 5.0 section 1.5.6).
pub const MAX_PASSWORD_BYTES: usize = 65_535;
/// Most memory one verification may take, in KiB: a hash in the file decides how much it is.
pub const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Most passes of one verification.
pub const MAX_PASSES: u32 = 16;
/// Most lanes of one verification.
pub const MAX_LANES: u32 = 8;
/// Shortest and longest hash, in bytes.
pub const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The salt of the hash that an unknown user's password is compared with; it is no secret.
const DUMMY_SALT: &[u8; 16] = b"no such username";

/// Scratch memory of verifications, 19 MiB for our own hashes. Whoever keeps it saves an allocation of that size
/// for each login, which allocators give back late and once per thread.
#[derive(Default)]
pub struct HashMemory(Vec<Block>);

/// What was computed in it stays out of logs.
impl fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashMemory").field("blocks", &self.0.len()).finish()
    }
}

/// One argon2id hash, parsed and within bounds.
#[derive(Clone)]
pub struct StoredHash {
    text: String,
    params: Params,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// Shows the parameters; salt and hash stay out of logs.
impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredHash").field("params", &self.params).finish_non_exhaustive()
    }
}

impl StoredHash {
    /// Reads a PHC string.
    ///
    /// # Errors
    /// If it is none, of another algorithm, or asks for more than the bounds above.
    pub fn parse(text: &str) -> Result<Self, UserError> {
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
        Ok(Self { text: text.to_owned(), params, salt, hash: hash.as_bytes().to_vec() })
    }

    /// Whether `password` is the one. Takes as long for a wrong one; a hash that cannot be computed is a no.
    #[must_use]
    pub fn verify(&self, password: &[u8], memory: &mut HashMemory) -> bool {
        let mut computed = vec![0; self.hash.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let needed = self.params.block_count();
        if memory.0.len() < needed {
            memory.0.resize(needed, Block::default());
        }
        let memory = &mut memory.0[..needed];
        argon2.hash_password_into_with_memory(password, &self.salt, &mut computed, memory).is_ok()
            && bool::from(computed.ct_eq(&self.hash))
    }

    fn cost(&self) -> u64 {
        u64::from(self.params.m_cost()) * u64::from(self.params.t_cost())
    }
}

/// Users and the argon2id hashes of their passwords.
pub type PasswordFile = Users<StoredHash>;

impl Stored for StoredHash {
    /// What an unknown user's password is compared with: as costly as the costliest of the file.
    type Strangers = Option<Self>;

    fn parse(text: &str) -> Result<Self, UserError> {
        Self::parse(text)
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn teach(&self, dummy: &mut Option<Self>) {
        if dummy.as_ref().is_none_or(|dummy| dummy.cost() < self.cost()) {
            *dummy = Some(Self { salt: DUMMY_SALT.to_vec(), ..self.clone() });
        }
    }
}

impl PasswordFile {
    /// Whether `password` is `user`'s, computed in memory of its own.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.verify_in(user, password, &mut HashMemory::default())
    }

    /// Whether `password` is `user`'s. An unknown user costs as much as a known one (authn-tls.md A2).
    #[must_use]
    pub fn verify_in(&self, user: &str, password: &[u8], memory: &mut HashMemory) -> bool {
        match (self.lookup(user), &self.strangers) {
            (Some(hash), _) => hash.verify(password, memory),
            (None, Some(dummy)) => {
                // The dummy carries another user's hash under another salt: nothing matches it, and whatever did
                // would still not be let in.
                let _ = std::hint::black_box(dummy.verify(password, memory));
                false
            }
            (None, None) => false,
        }
    }
}

/// Hashes `password` with argon2id, 19 MiB, two passes, one lane; `salt` is to be random.
///
/// # Errors
/// If the password is longer than a client can send.
pub fn hash_password(password: &[u8], salt: &[u8; 16]) -> Result<StoredHash, UserError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(UserError::PasswordTooLong);
    }
    let salt = SaltString::encode_b64(salt).map_err(|_| UserError::Length)?;
    let phc = Argon2::default().hash_password(password, &salt).map_err(|_| UserError::Parameters)?;
    StoredHash::parse(&phc.to_string())
}

#[cfg(test)]
mod tests;
