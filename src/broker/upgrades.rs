//! Hashes of passwords that are to be replaced by better ones in their files. Logins only leave them here: however many
//! come, a file is written anew at most once in `UPGRADES_EVERY_MS`, off the threads that hash, and at the end.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task;
use tokio::time;

use crate::auth::password::PasswordFile;
use crate::auth::password::hashes::StoredHash;
use crate::auth::users::MAX_FILE_BYTES;
use crate::auth::users::MAX_USERS;
use crate::broker::Broker;
use crate::broker::replace::Locked;
use crate::broker::replace::Patience;
use crate::time::Now;

/// How long hashes are gathered before their files are written.
const UPGRADES_EVERY_MS: u64 = 5_000;
/// Hashes that wait to be written; more are lost, and made again at a login after the file was read anew.
const UPGRADES_MAX: usize = MAX_USERS;
/// How often and how soon it is tried again at the end, while somebody else changes a file.
const LAST_TRIES: usize = 10;
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// A hash that takes the place of another, unless that is not there any more.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Whose.
    pub user: String,
    /// What stands in the file.
    pub before: String,
    /// What is to stand there.
    pub new: StoredHash,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub struct Upgrades {
    waiting: Mutex<Waiting>,
    writing: AtomicBool,
    /// One writes at a time.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_file: BTreeMap<PathBuf, Vec<Upgrade>>,
    count: usize,
    since_ms: u64,
}

impl Waiting {
    fn add(&mut self, path: &Path, upgrades: Vec<Upgrade>, now_ms: u64) {
        if self.count == 0 {
            self.since_ms = now_ms;
        }
        self.count += upgrades.len();
        self.by_file.entry(path.to_owned()).or_default().extend(upgrades);
    }
}

impl Upgrades {
    /// Has it written with the next.
    pub fn put(&self, path: &Path, upgrade: Upgrade, now: Now) {
        let mut waiting = self.waiting.lock();
        if waiting.count < UPGRADES_MAX {
            waiting.add(path, vec![upgrade], now.mono_ms);
        }
    }

    fn is_due(&self, now: Now) -> bool {
        let waiting = self.waiting.lock();
        waiting.count > 0 && now.mono_ms >= waiting.since_ms + UPGRADES_EVERY_MS
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().count == 0
    }

    /// Writes what waits; what somebody else changes just now has to wait on. How many files were written.
    fn write(&self, now: Now) -> usize {
        let _turn = self.turn.lock();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let mut written = 0;
        for (path, batch) in waiting.by_file {
            let (shown, count) = (path.display(), batch.len());
            match rewrite(&path, &batch) {
                Ok(()) => {
                    written += 1;
                    tracing::info!(file = %shown, count, "weak hashes replaced by argon2id");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waiting.lock().add(&path, batch, now.mono_ms);
                }
                Err(error) => {
                    tracing::warn!(file = %shown, %error, count, "weak hashes cannot be replaced and stay as they are");
                }
            }
        }
        written
    }
}

/// Changes the file as it is now, which may be another than it was when it was read.
fn rewrite(path: &Path, batch: &[Upgrade]) -> io::Result<()> {
    let locked = Locked::new(path, Patience::Never)?;
    let text = locked.read(MAX_FILE_BYTES as u64)?.ok_or(io::ErrorKind::NotFound)?;
    let mut file = PasswordFile::parse(&text).map_err(io::Error::other)?;
    for upgrade in batch {
        file.rehash(&upgrade.user, &upgrade.before, upgrade.new.clone());
    }
    locked
        .replace(&file.render())
        .map_err(|(beside, error)| io::Error::other(format!("{}: {error}", beside.display())))
}

/// Ends the writing, however it ends.
struct Writing(Arc<Broker>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.authentication.upgrades().writing.store(false, Ordering::Release);
    }
}

impl Broker {
    /// Begins to write hashes that have waited long enough.
    pub(super) fn write_upgrades(self: &Arc<Self>, now: Now) {
        let upgrades = self.authentication.upgrades();
        if !upgrades.is_due(now) || upgrades.writing.swap(true, Ordering::AcqRel) {
            return;
        }
        let writing = Writing(Arc::clone(self));
        task::spawn_blocking(move || writing.0.authentication.upgrades().write(now));
    }

    /// Writes the rest, at the end.
    pub(super) async fn finish_upgrades(self: &Arc<Self>, now: Now) {
        for _ in 0..LAST_TRIES {
            if self.authentication.upgrades().is_empty() {
                return;
            }
            let broker = Arc::clone(self);
            let written = task::spawn_blocking(move || broker.authentication.upgrades().write(now)).await;
            if written.is_ok_and(|written| written == 0) {
                time::sleep(LAST_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::argon2id;
    use crate::auth::password::hashes::SaltPosition;

    fn now(ms: u64) -> Now {
        Now { mono_ms: ms, unix_ms: 0 }
    }

    /// A file of so many users with weak hashes, and a better one for each.
    fn weak(path: &Path, count: usize) -> Vec<Upgrade> {
        let digest = ring::digest::digest(&ring::digest::SHA256, b"saltsecret");
        let hash = StoredHash::legacy(false, SaltPosition::Prefix, b"salt", digest.as_ref()).unwrap();
        let mut file = PasswordFile::default();
        let new = argon2id(b"secret", &[7; 16]).unwrap();
        let upgrades = (0..count).map(|number| {
            let user = format!("u{number}");
            file.set(&user, hash.clone().into()).unwrap();
            Upgrade { user, before: hash.text().to_owned(), new: new.clone() }
        });
        let upgrades = upgrades.collect();
        std::fs::write(path, file.render()).unwrap();
        upgrades
    }

    fn users(path: &Path) -> PasswordFile {
        PasswordFile::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn however_many_log_in_their_file_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, upgrades) = (dir.path().join("passwd"), Upgrades::default());
        for (time, upgrade) in weak(&path, 200).into_iter().enumerate() {
            upgrades.put(&path, upgrade, now(time as u64));
            assert!(!upgrades.is_due(now(UPGRADES_EVERY_MS - 1)));
        }
        assert!(users(&path).legacy_user().is_some(), "no login writes");
        assert!(upgrades.is_due(now(UPGRADES_EVERY_MS)));
        assert_eq!(upgrades.write(now(UPGRADES_EVERY_MS)), 1);
        assert_eq!(users(&path).legacy_user(), None);
        assert!(upgrades.is_empty() && upgrades.write(now(9_999)) == 0);
    }

    #[test]
    fn a_file_that_somebody_else_changes_is_written_later_and_keeps_the_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, upgrades) = (dir.path().join("passwd"), Upgrades::default());
        for upgrade in weak(&path, 2) {
            upgrades.put(&path, upgrade, now(0));
        }
        let locked = Locked::new(&path, Patience::Wait).unwrap();
        assert_eq!((upgrades.write(now(5_000)), upgrades.is_empty()), (0, false));
        assert!(!upgrades.is_due(now(9_999)) && upgrades.is_due(now(10_000)));
        let mut changed = users(&path);
        changed.set("u0", argon2id(b"another", &[8; 16]).unwrap().into()).unwrap();
        locked.replace(&changed.render()).unwrap();
        assert_eq!((upgrades.write(now(10_000)), upgrades.is_empty()), (1, true));
        assert!(users(&path).verify("u0", b"another") && users(&path).verify("u1", b"secret"));
    }

    #[test]
    fn a_file_that_is_gone_stays_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, upgrades) = (dir.path().join("passwd"), Upgrades::default());
        for upgrade in weak(&path, 1) {
            upgrades.put(&path, upgrade, now(0));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!((upgrades.write(now(0)), upgrades.is_empty()), (0, true));
        assert!(!path.exists());
    }
}
