//! The password file: one `user:$argon2id$v=19$m=19456,t=2,p=1$salt$hash` a line, `#` comments (authn-tls.md
//! section 2). Pure: hashing takes milliseconds and 19 MiB, so the driver runs [`PasswordFile::verify`] on a bounded
//! pool of blocking threads. Plain text and other hashes are refused.

use std::collections::HashMap;
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

/// Longest file we read, in bytes.
pub const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;
/// Most users in one file.
pub const MAX_USERS: usize = 100_000;
/// Longest username, in bytes.
pub const MAX_USERNAME_BYTES: usize = 1024;
/// Longest password, in bytes: MQTT's Binary Data has no room for more (MQTT 5.0 section 1.5.6).
pub const MAX_PASSWORD_BYTES: usize = 65_535;
/// Most memory one verification may take, in KiB: a hash in the file decides how much it is.
pub const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Most passes of one verification.
pub const MAX_PASSES: u32 = 16;
/// Most lanes of one verification.
pub const MAX_LANES: u32 = 8;
/// Shortest and longest salt, in bytes.
pub const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=48;
/// Shortest and longest hash, in bytes.
pub const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The salt of the hash that an unknown user's password is compared with; it is no secret.
const DUMMY_SALT: &[u8; 16] = b"no such username";

/// What is wrong with a username, a password or a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Neither user nor comment.
    #[error("expected `user:$argon2id$...`")]
    NoSeparator,
    /// Nothing before the colon.
    #[error("the username is empty")]
    EmptyUsername,
    /// Above [`MAX_USERNAME_BYTES`].
    #[error("the username is longer than {MAX_USERNAME_BYTES} bytes")]
    UsernameTooLong,
    /// It could not be read back from the file.
    #[error("a username cannot contain control characters, begin with `#`, or begin or end with white space")]
    UnsafeUsername,
    /// Named twice.
    #[error("the user is in the file already, on line {0}")]
    DuplicateUser(usize),
    /// Above [`MAX_USERS`].
    #[error("more than {MAX_USERS} users")]
    TooManyUsers,
    /// Above [`MAX_FILE_BYTES`].
    #[error("the file is longer than {MAX_FILE_BYTES} bytes")]
    FileTooLong,
    /// Above [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes, which no MQTT client can send")]
    PasswordTooLong,
    /// Not a PHC string.
    #[error("the hash is not a PHC string like `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`")]
    NotPhc,
    /// Another algorithm or version.
    #[error("only argon2id, version 19, is accepted")]
    Algorithm,
    /// Parameters out of bounds.
    #[error(
        "argon2id parameters out of bounds: m at most {MAX_MEMORY_KIB} and at least 8 per lane, t 1 to {MAX_PASSES}, p 1 to {MAX_LANES}"
    )]
    Parameters,
    /// Salt or hash of a length we do not accept.
    #[error("the salt must have 8 to 48 bytes and the hash 16 to 64")]
    Length,
}

/// An error with the line it is on, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct LineError {
    /// The line.
    pub line: usize,
    /// What is wrong there.
    pub error: PasswordError,
}

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
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let phc = PasswordHash::new(text).map_err(|_| PasswordError::NotPhc)?;
        if phc.algorithm != argon2::ARGON2ID_IDENT || phc.version != Some(u32::from(Version::V0x13)) {
            return Err(PasswordError::Algorithm);
        }
        let params = Params::try_from(&phc).map_err(|_| PasswordError::Parameters)?;
        let bounded = params.m_cost() <= MAX_MEMORY_KIB
            && params.t_cost() <= MAX_PASSES
            && params.p_cost() <= MAX_LANES
            && params.keyid().is_empty()
            && params.data().is_empty();
        if !bounded {
            return Err(PasswordError::Parameters);
        }
        let (Some(salt), Some(hash)) = (phc.salt, phc.hash) else { return Err(PasswordError::NotPhc) };
        let mut buffer = [0; 64];
        let salt = salt.decode_b64(&mut buffer).map_err(|_| PasswordError::NotPhc)?.to_vec();
        if !SALT_BYTES.contains(&salt.len()) || !HASH_BYTES.contains(&hash.len()) {
            return Err(PasswordError::Length);
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

    /// The PHC string, as it stands in the file.
    #[must_use]
    pub fn phc(&self) -> &str {
        &self.text
    }

    fn cost(&self) -> u64 {
        u64::from(self.params.m_cost()) * u64::from(self.params.t_cost())
    }
}

/// One line, to be written back as it was read.
#[derive(Debug, Clone)]
enum Line {
    Verbatim(String),
    User(String),
}

/// A password file.
#[derive(Clone, Default)]
pub struct PasswordFile {
    lines: Vec<Line>,
    users: HashMap<String, StoredHash>,
    /// What an unknown user's password is compared with: as costly as the costliest of the file.
    dummy: Option<StoredHash>,
}

/// Shows how many users there are.
impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordFile").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl PasswordFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// On the first line that is neither empty, a comment nor a user with an acceptable hash.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(LineError { line: 1, error: PasswordError::FileTooLong });
        }
        let mut file = Self::default();
        let mut seen = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let at_line = |error| LineError { line: index + 1, error };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                file.lines.push(Line::Verbatim(line.to_owned()));
                continue;
            }
            // A username may contain colons (EMQX's `clink-user:A`), a PHC string never does.
            let (user, hash) = line.rsplit_once(':').ok_or_else(|| at_line(PasswordError::NoSeparator))?;
            if let Some(&first) = seen.get(user) {
                return Err(at_line(PasswordError::DuplicateUser(first)));
            }
            let hash = StoredHash::parse(hash).map_err(at_line)?;
            file.set(user, hash).map_err(at_line)?;
            seen.insert(user, index + 1);
        }
        Ok(file)
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The hash of `user`.
    #[must_use]
    pub fn lookup(&self, user: &str) -> Option<&StoredHash> {
        self.users.get(user)
    }

    /// Adds `user` at the end, or replaces the hash where the user is; says whether the user was there.
    ///
    /// # Errors
    /// If the name cannot stand in the file, or the file is full.
    pub fn set(&mut self, user: &str, hash: StoredHash) -> Result<bool, PasswordError> {
        check_username(user)?;
        let existed = self.users.contains_key(user);
        if !existed && self.users.len() >= MAX_USERS {
            return Err(PasswordError::TooManyUsers);
        }
        if self.dummy.as_ref().is_none_or(|dummy| dummy.cost() < hash.cost()) {
            self.dummy = Some(StoredHash { salt: DUMMY_SALT.to_vec(), ..hash.clone() });
        }
        self.users.insert(user.to_owned(), hash);
        if !existed {
            self.lines.push(Line::User(user.to_owned()));
        }
        Ok(existed)
    }

    /// Removes `user`; says whether the user was there.
    pub fn remove(&mut self, user: &str) -> bool {
        self.lines.retain(|line| !matches!(line, Line::User(name) if name == user));
        self.users.remove(user).is_some()
    }

    /// The text of the file: comments and order as they were read.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            match line {
                Line::Verbatim(text) => out.push_str(text),
                Line::User(user) => {
                    let Some(hash) = self.users.get(user) else { continue };
                    out.push_str(user);
                    out.push(':');
                    out.push_str(&hash.text);
                }
            }
            out.push('\n');
        }
        out
    }

    /// Whether `password` is `user`'s, computed in memory of its own.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.verify_in(user, password, &mut HashMemory::default())
    }

    /// Whether `password` is `user`'s. An unknown user costs as much as a known one (authn-tls.md A2).
    #[must_use]
    pub fn verify_in(&self, user: &str, password: &[u8], memory: &mut HashMemory) -> bool {
        match (self.users.get(user), &self.dummy) {
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

fn check_username(user: &str) -> Result<(), PasswordError> {
    if user.is_empty() {
        return Err(PasswordError::EmptyUsername);
    }
    if user.len() > MAX_USERNAME_BYTES {
        return Err(PasswordError::UsernameTooLong);
    }
    if user.starts_with('#') || user.trim() != user || user.chars().any(char::is_control) {
        return Err(PasswordError::UnsafeUsername);
    }
    Ok(())
}

/// Hashes `password` with argon2id, 19 MiB, two passes, one lane; `salt` is to be random.
///
/// # Errors
/// If the password is longer than a client can send.
pub fn hash_password(password: &[u8], salt: &[u8; 16]) -> Result<StoredHash, PasswordError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::PasswordTooLong);
    }
    let salt = SaltString::encode_b64(salt).map_err(|_| PasswordError::Length)?;
    let phc = Argon2::default().hash_password(password, &salt).map_err(|_| PasswordError::Parameters)?;
    StoredHash::parse(&phc.to_string())
}

#[cfg(test)]
mod tests;
