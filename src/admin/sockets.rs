//! The sockets that are files: one for whoever may everything, in the data directory and for its owner alone, and one for whoever
//! may look, where an operator wants it.

use std::fs;
use std::fs::DirBuilder;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::UnixListener;

use crate::admin::http::Bound;

/// The admin socket in the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    /// What listens.
    pub listener: UnixListener,
    /// Whom it lets in.
    pub bound: Bound,
    /// Its file.
    pub path: PathBuf,
}

/// Makes them. Call it while holding the data directory.
///
/// # Errors
/// Which file could not be made, and why; none is left then.
pub fn open(data: &Path, viewer: Option<&Path>) -> Result<Vec<Socket>, (PathBuf, io::Error)> {
    let path = data.join(ADMIN_SOCKET);
    let listener = for_owner(data, &path).map_err(|error| (path.clone(), error))?;
    let mut sockets = vec![Socket { listener, bound: Bound::AdminSocket, path }];
    if let Some(path) = viewer {
        let made = for_group(path).map_err(|error| {
            remove(&sockets);
            (path.to_owned(), error)
        });
        sockets.push(Socket { listener: made?, bound: Bound::ViewerSocket, path: path.to_owned() });
    }
    Ok(sockets)
}

/// Removes their files, as well as can be.
fn remove(sockets: &[Socket]) {
    for socket in sockets {
        let _ = fs::remove_file(&socket.path);
    }
}

/// In a folder nobody else can enter, then moved into place, over what a broker that was killed left there.
fn for_owner(data: &Path, path: &Path) -> io::Result<UnixListener> {
    let folder = data.join(".admin");
    let made = folder.join("s");
    let _ = fs::remove_dir_all(&folder);
    DirBuilder::new().mode(0o700).create(&folder)?;
    let listener = bind(&made, path, 0o600);
    let _ = fs::remove_dir_all(&folder);
    listener
}

/// For owner and group. Nothing is replaced but a socket that nobody listens on.
fn for_group(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let made = path.with_file_name(name);
    match fs::remove_file(&made) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => bind(&made, path, 0o660),
    }
}

fn bind(made: &Path, path: &Path, mode: u32) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(made)?;
    fs::set_permissions(made, Permissions::from_mode(mode))?;
    fs::rename(made, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn each_is_for_those_whom_it_is_meant_for() {
        let folder = tempfile::tempdir().unwrap();
        let viewer = folder.path().join("viewer.sock");
        let sockets = open(folder.path(), Some(&viewer)).unwrap();
        assert_eq!((mode(&sockets[0].path), mode(&viewer)), (0o600, 0o660));
        // Somebody listens there.
        let (path, error) = open(folder.path(), Some(&viewer)).unwrap_err();
        assert_eq!((path, error.kind()), (viewer.clone(), io::ErrorKind::AddrInUse));
        assert!(!folder.path().join(ADMIN_SOCKET).exists());
        drop(sockets);
        // One that was left behind.
        open(folder.path(), Some(&viewer)).unwrap();
    }

    #[tokio::test]
    async fn no_file_is_replaced_but_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let viewer = folder.path().join("file");
        fs::write(&viewer, "x").unwrap();
        let (_, error) = open(folder.path(), Some(&viewer)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&viewer).unwrap(), "x");
        let nowhere = folder.path().join("no/where");
        assert_eq!(open(folder.path(), Some(&nowhere)).unwrap_err().1.kind(), io::ErrorKind::NotFound);
    }
}
