//! A password file as it is in force, and where it came from: a hash that is too weak is replaced when its password is
//! known, which is at the next good login ([`crate::broker::upgrades`] writes it).

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::auth::password::Found;
use crate::auth::password::HashMemory;
use crate::auth::password::PasswordFile;
use crate::auth::password::argon2id;
use crate::auth::users::Stored;
use crate::broker::upgrades::Upgrade;
use crate::net::random;

/// A password file in force.
#[derive(Debug)]
pub struct PasswordBook {
    users: PasswordFile,
    path: PathBuf,
    /// Whose hash was made anew: at most every user of the file.
    upgraded: Mutex<HashSet<String>>,
}

impl PasswordBook {
    /// These users, as they were read from there.
    #[must_use]
    pub fn new(users: PasswordFile, path: PathBuf) -> Self {
        Self { users, path, upgraded: Mutex::default() }
    }

    /// As [`PasswordFile::check`]. Blocks for as long as hashing takes.
    pub fn check(&self, user: &str, password: &[u8], now_unix: u64, memory: &mut HashMemory) -> Found {
        self.users.check(user, password, now_unix, memory)
    }

    /// Whether there is such a user.
    #[must_use]
    pub fn knows(&self, user: &str) -> bool {
        self.users.lookup(user).is_some()
    }

    /// Where they were read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`PasswordFile::pretend`].
    pub fn pretend(&self, password: &[u8], memory: &mut HashMemory) {
        self.users.pretend(password, memory);
    }

    /// A better hash of a password that was right, once for each user as long as the file is not read anew. Blocks for as long as hashing takes.
    pub fn upgrade(&self, user: &str, password: &[u8]) -> Option<Upgrade> {
        let before = self.users.lookup(user)?;
        if !self.upgraded.lock().insert(user.to_owned()) {
            return None;
        }
        let mut salt = [0; 16];
        random::fill(&mut salt);
        let new = argon2id(password, &salt).ok()?;
        Some(Upgrade { user: user.to_owned(), before: before.text().to_owned(), new })
    }
}
