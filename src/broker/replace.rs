//! Replaces a file as a whole, so that whoever reads it sees the old or the new one, after a power cut too; and changes one, so that of two who
//! do it at a time neither undoes what the other did.

use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::net::random;

/// Random bytes in the name of a file that is being written.
const NAME_BYTES: usize = 8;
/// How often the file may be replaced while its lock is waited for.
const ROUNDS_MAX: usize = 1_000;

/// Whether to wait while somebody else changes the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For as long as it takes.
    Wait,
    /// Not at all: [`io::ErrorKind::WouldBlock`].
    Never,
}

/// The right to change a file, against all who ask for it, in whatever process.
#[derive(Debug)]
pub struct Locked {
    target: PathBuf,
    /// What is locked: the file itself, or its folder where there is no file yet. No file is left for the lock alone.
    held: File,
    is_new: bool,
}

impl Locked {
    /// Waits for everybody else who changes the file.
    ///
    /// # Errors
    /// If it cannot be opened or locked.
    pub fn new(file: &Path, patience: Patience) -> io::Result<Self> {
        let target = target_of(file);
        for _ in 0..ROUNDS_MAX {
            let (held, is_new) = match File::open(&target) {
                Ok(opened) => (opened, false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => (File::open(folder(&target))?, true),
                Err(error) => return Err(error),
            };
            match patience {
                Patience::Wait => held.lock()?,
                Patience::Never => held.try_lock().map_err(|error| match error {
                    TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
                    TryLockError::Error(error) => error,
                })?,
            }
            // Whoever had it may have put another file in its place, whose lock is another.
            if is_current(&target, &held, is_new)? {
                return Ok(Self { target, held, is_new });
            }
        }
        Err(io::Error::other("the file is replaced all the time"))
    }

    /// What is in the file, of at most `bytes_max`; `None` where there is no file.
    ///
    /// # Errors
    /// If it cannot be read, is longer, or is no text.
    pub fn read(&self, bytes_max: u64) -> io::Result<Option<String>> {
        if self.is_new {
            return Ok(None);
        }
        let mut text = String::new();
        (&self.held).take(bytes_max + 1).read_to_string(&mut text)?;
        if text.len() as u64 > bytes_max {
            return Err(io::Error::other(format!("longer than {bytes_max} bytes")));
        }
        Ok(Some(text))
    }

    /// As [`replace()`], of what was locked.
    ///
    /// # Errors
    /// The file that cannot be written, and why; nothing is left behind.
    pub fn replace(self, text: &str) -> Result<(), (PathBuf, io::Error)> {
        write_over(&self.target, text)
    }
}

/// Writes `text` beside the file and renames it over it, where nobody else changes the file. Mode and owner of an existing
/// file stay; a new one has mode 0600.
///
/// # Errors
/// The file that cannot be written, and why; nothing is left behind. If it is the folder that cannot be synchronised, the
/// new file is in place.
pub fn replace(file: &Path, text: &str) -> Result<(), (PathBuf, io::Error)> {
    write_over(&target_of(file), text)
}

/// A symbolic link stays, the file it points to is replaced.
fn target_of(file: &Path) -> PathBuf {
    std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf())
}

fn write_over(target: &Path, text: &str) -> Result<(), (PathBuf, io::Error)> {
    let beside = beside(target);
    write_new(&beside, target, text).and_then(|()| std::fs::rename(&beside, target)).map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        (beside, error)
    })?;
    sync_folder(target).map_err(|error| (target.to_path_buf(), error))
}

/// Makes sure that the new file is the one that is found after a power cut.
fn sync_folder(target: &Path) -> io::Result<()> {
    match File::open(folder(target)).and_then(|folder| folder.sync_all()) {
        // Some file systems do not do that for folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}

/// Whether what is locked is what is there.
fn is_current(target: &Path, held: &File, is_new: bool) -> io::Result<bool> {
    let held = held.metadata()?;
    match std::fs::metadata(target) {
        Ok(there) => Ok(!is_new && same(&there, &held)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(is_new),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Where a file that is open cannot be replaced there is nothing to compare.
#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    true
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A name that nobody else has: process numbers are the same in two containers, and after a crash in one.
fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", random::hex(NAME_BYTES)));
    target.with_file_name(name)
}

fn write_new(path: &Path, target: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    if let Ok(existing) = std::fs::metadata(target) {
        #[cfg(unix)]
        keep_owner(&file, &existing)?;
        file.set_permissions(existing.permissions())?;
    }
    file.sync_all()
}

/// The broker may run as another user than the one who sets passwords.
#[cfg(unix)]
fn keep_owner(file: &File, existing: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (existing.uid(), existing.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(existing.uid()), Some(existing.gid()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn of_many_who_change_a_file_at_a_time_none_undoes_what_another_did() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..10 {
                        let locked = Locked::new(path, Patience::Wait).unwrap();
                        let text = locked.read(1 << 20).unwrap().unwrap_or_default();
                        locked.replace(&format!("{text}{number}.{round}\n")).unwrap();
                    }
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 80);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn who_does_not_wait_is_told_that_somebody_else_is_at_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for text in ["first", "second"] {
            let locked = Locked::new(&path, Patience::Wait).unwrap();
            let error = Locked::new(&path, Patience::Never).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "before the {text}");
            locked.replace(text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_a_crash_left_beside_the_file_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_ne!(beside(&path), beside(&path));
        std::fs::write(dir.path().join(format!("file.{}.new", std::process::id())), "").unwrap();
        Locked::new(&path, Patience::Wait).unwrap().replace("x").unwrap();
        assert_eq!(Locked::new(&path, Patience::Wait).unwrap().read(1).unwrap().unwrap(), "x");
        assert!(Locked::new(&path, Patience::Wait).unwrap().read(0).is_err());
    }
}
