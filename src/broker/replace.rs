//! Replaces a file as a whole, so that whoever reads it sees the old or the new one.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

/// Writes `text` beside the file and renames it over it. Mode and owner of an existing file stay; a new one has
/// mode 0600.
///
/// # Errors
/// The file that cannot be written, and why; nothing is left behind.
pub fn replace(file: &Path, text: &str) -> Result<(), (PathBuf, io::Error)> {
    // A symbolic link stays, the file it points to is replaced.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let beside = beside(&target);
    let result = write_new(&beside, &target, text).and_then(|()| std::fs::rename(&beside, &target));
    result.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        (beside, error)
    })
}

fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
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
fn keep_owner(file: &File, existing: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (existing.uid(), existing.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(existing.uid()), Some(existing.gid()))
}
