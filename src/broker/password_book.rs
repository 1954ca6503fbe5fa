//! A password file as it is in force, and where it came from: a hash that is too weak is replaced in the file when its
//! password is known, which is at the next good login.

use std::collections::HashSet;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::auth::password::Found;
use crate::auth::password::HashMemory;
use crate::auth::password::PasswordFile;
use crate::auth::password::argon2id;
use crate::auth::password::hashes::StoredHash;
use crate::auth::users::MAX_FILE_BYTES;
use crate::broker::material::read_bounded;
use crate::broker::replace::replace;
use crate::net::random;

/// A password file in force.
#[derive(Debug)]
pub struct PasswordBook {
    users: PasswordFile,
    path: PathBuf,
    upgrades: Mutex<Upgrades>,
}

/// Hashes that are to be replaced, and those that were: at most one of each user of the file.
#[derive(Debug, Default)]
struct Upgrades {
    done: HashSet<String>,
    waiting: Vec<Upgrade>,
    writing: bool,
}

#[derive(Debug)]
struct Upgrade {
    user: String,
    before: String,
    new: StoredHash,
}

impl PasswordBook {
    /// These users, as they were read from there.
    #[must_use]
    pub fn new(users: PasswordFile, path: PathBuf) -> Self {
        Self { users, path, upgrades: Mutex::default() }
    }

    /// As [`PasswordFile::check`], and replaces a weak hash that was right. Blocks for as long as hashing takes, and then
    /// for writing the file.
    pub fn check(&self, user: &str, password: &[u8], now_unix: u64, memory: &mut HashMemory) -> Found {
        let found = self.users.check(user, password, now_unix, memory);
        if found == (Found::Right { legacy: true }) {
            self.upgrade(user, password);
        }
        found
    }

    /// Whether there is such a user.
    #[must_use]
    pub fn knows(&self, user: &str) -> bool {
        self.users.lookup(user).is_some()
    }

    /// As [`PasswordFile::pretend`].
    pub fn pretend(&self, password: &[u8], memory: &mut HashMemory) {
        self.users.pretend(password, memory);
    }

    fn upgrade(&self, user: &str, password: &[u8]) {
        let Some(before) = self.users.lookup(user) else { return };
        if !self.upgrades.lock().done.insert(user.to_owned()) {
            return;
        }
        let mut salt = [0; 16];
        random::fill(&mut salt);
        let Ok(new) = argon2id(password, &salt) else { return };
        let before = crate::auth::users::Stored::text(before).to_owned();
        let mut upgrades = self.upgrades.lock();
        upgrades.waiting.push(Upgrade { user: user.to_owned(), before, new });
        if std::mem::replace(&mut upgrades.writing, true) {
            return; // Whoever writes takes it along.
        }
        loop {
            let batch = std::mem::take(&mut upgrades.waiting);
            if batch.is_empty() {
                upgrades.writing = false;
                return;
            }
            drop(upgrades);
            self.write(batch);
            upgrades = self.upgrades.lock();
        }
    }

    /// Changes the file as it is now, which may be another than it was when it was read.
    fn write(&self, batch: Vec<Upgrade>) {
        let shown = self.path.display();
        let count = batch.len();
        let rewritten = read_bounded(&self.path, MAX_FILE_BYTES)
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()))
            .and_then(|text| PasswordFile::parse(&text).map_err(|error| error.to_string()))
            .and_then(|mut file| {
                for upgrade in batch {
                    file.rehash(&upgrade.user, &upgrade.before, upgrade.new);
                }
                replace(&self.path, &file.render()).map_err(|(_, error)| error.to_string())
            });
        match rewritten {
            Ok(()) => tracing::info!(file = %shown, count, "weak hashes replaced by argon2id"),
            Err(error) => {
                tracing::warn!(file = %shown, error, count, "weak hashes cannot be replaced and stay as they are");
            }
        }
    }
}
