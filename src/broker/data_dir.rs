//! The data directory: ours alone, and one broker at a time.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::net::random;

const LOCK: &str = "tombolo.lock";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another broker holds it.
    #[error("data.dir: {} is in use by another broker", .0.display())]
    InUse(PathBuf),
    /// It cannot be made, opened or locked.
    #[error("data.dir: {}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Holds the directory until it is dropped; the lock goes with the process, however that ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, for its owner only, and locks it.
    ///
    /// # Errors
    /// If another broker has it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        make(path).map_err(failed)?;
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(path.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Keeps brokers out of a directory for as long as what is returned is held. Nothing is made; where there is nothing to
    /// lock, no broker has been.
    ///
    /// # Errors
    /// If a broker has it, or the system refuses.
    pub fn keep_out(path: &Path) -> Result<Option<File>, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        let lock = match File::open(path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// A secret of ours that stays for as long as the directory does; made when it is asked for first.
    ///
    /// # Errors
    /// If it can be neither read nor written.
    pub fn secret(&self, name: &str) -> Result<[u8; 32], DataDirError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => {
                // Anything else was cut off while it was written.
                if let Ok(secret) = bytes.try_into() {
                    return Ok(secret);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataDirError::Io { path, source }),
        }
        let mut secret = [0; 32];
        random::fill(&mut secret);
        write_private(&path, &secret).map_err(|source| DataDirError::Io { path, source })?;
        Ok(secret)
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// For its owner only, whatever the umask of the process.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn make(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_kept_out() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn who_only_looks_is_kept_out_by_a_broker_and_keeps_it_out() {
        let data = tempfile::tempdir().unwrap();
        assert!(DataDir::keep_out(data.path()).unwrap().is_none());
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "nothing is made");
        let held = DataDir::open(data.path()).unwrap();
        assert!(matches!(DataDir::keep_out(data.path()), Err(DataDirError::InUse(_))));
        drop(held);
        let (one, another) =
            (DataDir::keep_out(data.path()).unwrap(), DataDir::keep_out(data.path()).unwrap());
        assert!(one.is_some() && another.is_some());
        assert!(matches!(DataDir::open(data.path()), Err(DataDirError::InUse(_))));
    }

    #[test]
    fn a_secret_stays_and_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataDir::open(&path).unwrap().secret("a.key").unwrap();
        let data = DataDir::open(&path).unwrap();
        assert_eq!(data.secret("a.key").unwrap(), first);
        assert_ne!(data.secret("b.key").unwrap(), first);
        assert_eq!(fs::metadata(path.join("a.key")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(path.join("a.key"), "cut off").unwrap();
        let second = data.secret("a.key").unwrap();
        assert_ne!(second, first);
        assert_eq!(data.secret("a.key").unwrap(), second);
    }

    #[test]
    fn a_file_in_its_place_is_a_clear_error() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.starts_with("data.dir: "), "{error}");
    }
}
