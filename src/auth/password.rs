//! The password file: one `user:$argon2id$v=19$m=19456,t=2,p=1$salt$hash` a line, `#` comments (authn-tls.md
//! section 2). Other hashes come in by import ([`hashes`]). While a password is changed, the one before stands behind the
//! new one: `user:$argon2id$… until=1767225600 $argon2id$…`. Pure: hashing takes milliseconds and 19 MiB, so the driver
//! runs [`PasswordFile::check`] on a bounded pool of blocking threads. Plain text is refused.

use std::collections::BTreeMap;
use std::fmt;

use argon2::Argon2;
use argon2::Block;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::SaltString;

use crate::auth::password::hashes::Cost;
use crate::auth::password::hashes::StoredHash;
use crate::auth::users::Stored;
use crate::auth::users::UserError;
use crate::auth::users::Users;

pub mod hashes;
pub mod import;

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

/// Scratch memory of verifications, 19 MiB for our own hashes. Whoever keeps it saves an allocation of that size
/// for each login, which allocators give back late and once per thread.
#[derive(Default)]
pub struct HashMemory {
    blocks: Vec<Block>,
    /// What was computed so far, to be compared by tests.
    computed: BTreeMap<Cost, usize>,
}

/// What was computed in it stays out of logs.
impl fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashMemory").field("blocks", &self.blocks.len()).finish()
    }
}

/// What a user has: a password, and during a change of it another one that is still good.
#[derive(Clone)]
pub struct Account {
    text: String,
    current: StoredHash,
    /// The password before, and until when it is good, in seconds of the Unix clock.
    old: Option<(StoredHash, u64)>,
}

/// Shows the parameters; salts and hashes stay out of logs.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("current", &self.current)
            .field("old", &self.old)
            .finish_non_exhaustive()
    }
}

impl From<StoredHash> for Account {
    fn from(current: StoredHash) -> Self {
        Self { text: current.text().to_owned(), current, old: None }
    }
}

impl Account {
    /// This password from now on, and the one of `before` until that second of the Unix clock.
    #[must_use]
    pub fn replacing(self, before: Self, until_unix: u64) -> Self {
        let text = format!("{} until={until_unix} {}", self.current.text(), before.current.text());
        Self { text, current: self.current, old: Some((before.current, until_unix)) }
    }

    /// With another hash of the same password.
    fn rehashed(self, current: StoredHash) -> Self {
        match self.old {
            Some((old, until)) => Self::from(current).replacing(Self::from(old), until),
            None => current.into(),
        }
    }

    /// Whether a hash of it is one that is accepted only with `legacy_hashes`.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.current.is_legacy() || self.old.as_ref().is_some_and(|(old, _)| old.is_legacy())
    }

    fn hashes(&self) -> impl Iterator<Item = &StoredHash> {
        std::iter::once(&self.current).chain(self.old.iter().map(|(old, _)| old))
    }

    fn live(&self, now_unix: u64) -> impl Iterator<Item = &StoredHash> {
        let old = self.old.iter().filter(move |(_, until)| now_unix < *until);
        std::iter::once(&self.current).chain(old.map(|(old, _)| old))
    }
}

/// Users and hashes of their passwords.
pub type PasswordFile = Users<Account>;

/// What an attempt has to cost: for each kind of hash, as many as any one user of the file has, and one to compute.
pub type Budget = BTreeMap<Cost, (usize, StoredHash)>;

/// Kinds of hashes in one file: an attempt costs one of each, or its time would tell who is a user.
pub const KINDS_MAX: usize = 4;

impl Stored for Account {
    type Strangers = Budget;

    fn parse(text: &str) -> Result<Self, UserError> {
        let mut parts = text.split(' ');
        let current = StoredHash::parse(parts.next().unwrap_or_default())?;
        let account = Self::from(current);
        let (until, old, end) = (parts.next(), parts.next(), parts.next());
        match (until, old, end) {
            (None, ..) => Ok(account),
            (Some(until), Some(old), None) => {
                let until = until.strip_prefix("until=").and_then(|seconds| seconds.parse().ok());
                let until = until.ok_or(UserError::Overlap)?;
                Ok(account.replacing(StoredHash::parse(old)?.into(), until))
            }
            _ => Err(UserError::Overlap),
        }
    }

    fn text(&self) -> &str {
        &self.text
    }

    fn teach(&self, budget: &mut Budget) -> Result<(), UserError> {
        let mut needed: BTreeMap<Cost, (usize, &StoredHash)> = BTreeMap::new();
        for hash in self.hashes().filter(|hash| hash.cost() != Cost::Legacy) {
            needed.entry(hash.cost()).or_insert((0, hash)).0 += 1;
        }
        for (cost, (count, hash)) in needed {
            if !budget.contains_key(&cost) && budget.len() >= KINDS_MAX {
                return Err(UserError::Kinds);
            }
            let known = budget.entry(cost).or_insert_with(|| (0, hash.dummy()));
            known.0 = known.0.max(count);
        }
        Ok(())
    }
}

/// What a file says of a User Name and Password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// They belong together.
    Right {
        /// By a hash that is to be replaced by a better one.
        legacy: bool,
    },
    /// The user has another password.
    Wrong,
    /// There is no such user.
    Nobody,
}

impl PasswordFile {
    /// Whether `password` is `user`'s at any time, computed in memory of its own.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        matches!(self.check(user, password, 0, &mut HashMemory::default()), Found::Right { .. })
    }

    /// Whether `password` is `user`'s. Every attempt that fails computes the same hashes, whoever the user is, and
    /// whether there is one (authn-tls.md A2).
    #[must_use]
    pub fn check(&self, user: &str, password: &[u8], now_unix: u64, memory: &mut HashMemory) -> Found {
        let mut spent: BTreeMap<Cost, usize> = BTreeMap::new();
        let account = self.lookup(user);
        for hash in account.into_iter().flat_map(|account| account.live(now_unix)) {
            *spent.entry(hash.cost()).or_default() += 1;
            if hash.verify(password, memory) {
                // An old password is left to its end: written anew it would take the place of the one that replaced it.
                let current = account.is_some_and(|account| std::ptr::eq(hash, &account.current));
                return Found::Right { legacy: current && hash.is_legacy() };
            }
        }
        self.spend(password, &spent, memory);
        if account.is_some() { Found::Wrong } else { Found::Nobody }
    }

    /// Costs as much as an attempt that fails.
    pub fn pretend(&self, password: &[u8], memory: &mut HashMemory) {
        self.spend(password, &BTreeMap::new(), memory);
    }

    /// Computes what the budget has beyond what was spent. A dummy carries another user's hash under another salt: nothing
    /// matches it, and whatever did would still not be let in.
    fn spend(&self, password: &[u8], spent: &BTreeMap<Cost, usize>, memory: &mut HashMemory) {
        for (cost, (count, dummy)) in &self.strangers {
            for _ in spent.get(cost).copied().unwrap_or(0)..*count {
                let _ = std::hint::black_box(dummy.verify(password, memory));
            }
        }
    }

    /// Somebody whose hash is accepted only with `legacy_hashes`.
    #[must_use]
    pub fn legacy_user(&self) -> Option<&str> {
        self.iter().find(|(_, account)| account.is_legacy()).map(|(user, _)| user)
    }

    /// Replaces the hash of a user whose password is known now, unless it is another than `before` by now.
    pub fn rehash(&mut self, user: &str, before: &str, new: StoredHash) {
        let same = self.lookup(user).filter(|account| account.text() == before).cloned();
        if let Some(account) = same {
            // The name and the kind of hash were in the file before.
            let _ = self.set(user, account.rehashed(new));
        }
    }
}

/// Hashes `password` with argon2id, 19 MiB, two passes, one lane; `salt` is to be random.
///
/// # Errors
/// If the password is longer than a client can send.
pub fn hash_password(password: &[u8], salt: &[u8; 16]) -> Result<Account, UserError> {
    argon2id(password, salt).map(Account::from)
}

/// The same, as a bare hash.
///
/// # Errors
/// If the password is longer than a client can send.
pub fn argon2id(password: &[u8], salt: &[u8; 16]) -> Result<StoredHash, UserError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(UserError::PasswordTooLong);
    }
    let salt = SaltString::encode_b64(salt).map_err(|_| UserError::Length)?;
    let phc = Argon2::default().hash_password(password, &salt).map_err(|_| UserError::Parameters)?;
    StoredHash::parse(&phc.to_string())
}

#[cfg(test)]
mod tests;
