//! API keys: `<data>/api_keys.toml` (0600, replaced as a whole), written by `tombolo auth key`, read by the HTTP
//! server. A secret is 256 random bits and shown once; the file holds its SHA-256, which suffices for such a
//! secret. A key that is deleted is refused from the next request on.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::broker::replace::replace;
use crate::net::random;

/// The file in the data directory.
pub const FILE: &str = "api_keys.toml";
/// Keys that the file may hold.
pub const KEYS_MAX: usize = 1_000;
/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 256;
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// One key as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What stands before the colon of the credentials.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at: u64,
    /// SHA-256 of the secret, in hexadecimal.
    secret_sha256: String,
}

/// A new key with its secret, which is nowhere else.
pub struct NewKey {
    /// The key.
    pub key: Key,
    /// The secret.
    pub secret: String,
}

/// What is wrong with the file or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is no file of keys.
    #[error("{}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The name of a key.
    #[error("the name of a key is 1 to 256 bytes without control characters")]
    Name,
    /// [`KEYS_MAX`] is reached.
    #[error("there are 1000 keys already")]
    Full,
    /// No such key.
    #[error("no API key `{0}`")]
    NotFound(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "key")]
    keys: Vec<Key>,
}

/// The keys of one data directory.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Vec<Key>)>>,
    /// Those of which it was told that they are there.
    told: Mutex<Option<Vec<Key>>>,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// It was made.
    Made(Key),
    /// It was deleted.
    Deleted(Key),
}

/// Tells one content of the file from another: every change is a new file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    file: u64,
}

impl Keys {
    /// The keys of this data directory; nothing is read yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join(FILE), read: Mutex::new(None), told: Mutex::new(None) }
    }

    /// Whether there is such a key. A file that cannot be read lets nobody in.
    #[must_use]
    pub fn verify(&self, id: &str, secret: &str) -> bool {
        let mut read = self.read.lock();
        if let Err(error) = self.refresh(&mut read) {
            tracing::error!(%error, "API keys");
            return false;
        }
        let hash = hash(secret);
        let keys = read.as_ref().map_or(&[][..], |(_, keys)| keys);
        keys.iter().fold(false, |found, key| {
            let same =
                key.secret_sha256.as_bytes().ct_eq(hash.as_bytes()) & key.id.as_bytes().ct_eq(id.as_bytes());
            found | bool::from(same)
        })
    }

    /// Whether there still is a key of this identifier.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        let mut read = self.read.lock();
        // Whoever could not be verified now is not let in either.
        self.refresh(&mut read).is_ok()
            && read.as_ref().is_some_and(|(_, keys)| keys.iter().any(|key| key.id == id))
    }

    /// Keys that were made or deleted since this was last asked, whoever wrote the file. At first there are none.
    #[must_use]
    pub fn take_changes(&self) -> Vec<KeyChange> {
        let mut read = self.read.lock();
        if self.refresh(&mut read).is_err() {
            return Vec::new();
        }
        let keys = read.as_ref().map(|(_, keys)| keys.clone()).unwrap_or_default();
        drop(read);
        let Some(before) = self.told.lock().replace(keys.clone()) else { return Vec::new() };
        let lacks = |keys: &[Key], id: &str| keys.iter().all(|key| key.id != id);
        let made = keys.iter().filter(|key| lacks(&before, &key.id)).cloned().map(KeyChange::Made);
        let deleted = before.iter().filter(|key| lacks(&keys, &key.id)).cloned().map(KeyChange::Deleted);
        made.chain(deleted).collect()
    }

    fn refresh(&self, read: &mut Option<(Stamp, Vec<Key>)>) -> Result<(), KeysError> {
        let stamp = match fs::metadata(&self.path) {
            Ok(found) => {
                Stamp { modified: found.modified().ok(), bytes: found.len(), file: file_number(&found) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *read = None;
                return Ok(());
            }
            Err(source) => return Err(self.failed(source)),
        };
        if read.as_ref().is_none_or(|(known, _)| *known != stamp) {
            *read = None;
            *read = Some((stamp, self.list()?));
        }
        Ok(())
    }

    /// All keys.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn list(&self) -> Result<Vec<Key>, KeysError> {
        let mut text = String::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed(source)),
            Ok(file) => {
                file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|source| self.failed(source))?
            }
        };
        let document: Document = toml::from_str(&text).map_err(|error| KeysError::Invalid {
            path: self.path.clone(),
            // Without the excerpt of the file that the full text of the error shows.
            message: error.message().to_owned(),
        })?;
        Ok(document.keys)
    }

    /// Makes a key.
    ///
    /// # Errors
    /// If the name is none, or the file cannot be written.
    pub fn create(&self, name: &str, unix_seconds: u64) -> Result<NewKey, KeysError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(KeysError::Name);
        }
        let secret = random::hex(SECRET_BYTES);
        let key = Key {
            id: random::hex(ID_BYTES),
            name: name.to_owned(),
            created_at: unix_seconds,
            secret_sha256: hash(&secret),
        };
        self.change(|keys| {
            if keys.len() >= KEYS_MAX {
                return Err(KeysError::Full);
            }
            keys.push(key.clone());
            Ok(())
        })?;
        Ok(NewKey { key, secret })
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// If there is none, or the file cannot be written.
    pub fn delete(&self, id: &str) -> Result<(), KeysError> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| key.id != id);
            if keys.len() == before { Err(KeysError::NotFound(id.to_owned())) } else { Ok(()) }
        })
    }

    /// Reads, changes and replaces the file; one process at a time.
    fn change(&self, change: impl FnOnce(&mut Vec<Key>) -> Result<(), KeysError>) -> Result<(), KeysError> {
        let failed = |source| self.failed(source);
        let lock = private(OpenOptions::new().create(true).truncate(false))
            .open(self.path.with_extension("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut keys = self.list()?;
        change(&mut keys)?;
        let text = toml::to_string(&Document { keys })
            .map_err(|error| KeysError::Invalid { path: self.path.clone(), message: error.to_string() })?;
        replace(&self.path, &text).map_err(|(path, source)| KeysError::Io { path, source })
    }

    fn failed(&self, source: io::Error) -> KeysError {
        KeysError::Io { path: self.path.clone(), source }
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.write(true)
}

#[cfg(unix)]
fn file_number(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_metadata: &fs::Metadata) -> u64 {
    0
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lets_in_until_it_is_deleted() {
        let data = tempfile::tempdir().unwrap();
        let keys = Keys::of(data.path());
        assert!(!keys.verify("", "") && keys.list().unwrap().is_empty());
        let writer = Keys::of(data.path());
        let first = writer.create("ci", 1).unwrap();
        let second = writer.create("grafana", 2).unwrap();
        assert!(keys.verify(&first.key.id, &first.secret) && keys.verify(&second.key.id, &second.secret));
        assert!(!keys.verify(&first.key.id, &second.secret));
        assert!(!keys.verify(&first.key.id, ""));
        assert!(!keys.verify(&first.key.id, &first.key.secret_sha256), "the hash is no secret");
        assert_eq!(first.secret.len(), 64);
        writer.delete(&first.key.id).unwrap();
        assert!(!keys.verify(&first.key.id, &first.secret) && keys.verify(&second.key.id, &second.secret));
        assert!(!keys.has(&first.key.id) && keys.has(&second.key.id));
        assert!(matches!(writer.delete(&first.key.id), Err(KeysError::NotFound(_))));
        let text = fs::read_to_string(data.path().join(FILE)).unwrap();
        assert!(!text.contains(&second.secret), "hashed at rest");
    }

    #[test]
    fn what_becomes_of_keys_is_told_once() {
        let data = tempfile::tempdir().unwrap();
        let (keys, writer) = (Keys::of(data.path()), Keys::of(data.path()));
        let first = writer.create("ci", 1).unwrap().key;
        assert!(keys.take_changes().is_empty(), "it was there before");
        let second = writer.create("grafana", 2).unwrap().key;
        assert_eq!(keys.take_changes(), [KeyChange::Made(second.clone())]);
        assert!(keys.take_changes().is_empty());
        writer.delete(&first.id).unwrap();
        assert_eq!(keys.take_changes(), [KeyChange::Deleted(first)]);
        fs::remove_file(data.path().join(FILE)).unwrap();
        assert_eq!(keys.take_changes(), [KeyChange::Deleted(second)]);
    }

    #[test]
    fn the_file_is_its_owners_and_a_broken_one_lets_nobody_in() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().unwrap();
        let keys = Keys::of(data.path());
        let new = keys.create("ci", 1).unwrap();
        let path = data.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "[[key]]\nid = 1\n").unwrap();
        assert!(!keys.verify(&new.key.id, &new.secret));
        assert!(keys.create("other", 1).is_err(), "what cannot be read is not replaced");
        fs::remove_file(&path).unwrap();
        assert!(!keys.verify(&new.key.id, &new.secret));
    }

    #[test]
    fn names_are_bounded() {
        let data = tempfile::tempdir().unwrap();
        let keys = Keys::of(data.path());
        for name in ["", "a\nb", &"x".repeat(257)] {
            assert!(matches!(keys.create(name, 1), Err(KeysError::Name)), "{name}");
        }
    }
}
