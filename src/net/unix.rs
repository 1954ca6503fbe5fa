//! Unix domain sockets that accept: the file is there exactly as long as somebody listens on it.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use tokio::net::UnixListener;

/// Owner and group may connect. The directory decides further who gets as far as the file.
pub const MODE: u32 = 0o660;

/// The file of a socket that we listen on. It is removed when this goes, unless it is another's by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|found| found == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Listens at `path`. What a broker left there that did not get to remove it is replaced.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if somebody listens there, [`io::ErrorKind::AlreadyExists`] if it is no socket.
pub fn listen(path: &Path, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    make_room(path)?;
    let socket = stream_socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::of(path)?;
    // Nobody can connect until we listen, so nobody does with the mode that the umask left.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok((UnixListener::from_std(StdListener::from(socket))?, file))
}

fn stream_socket() -> io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Removes a socket that nobody listens on.
fn make_room(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // Not blocking: whoever listens may have a full queue, and does listen.
    match rustix::net::connect(&stream_socket()?, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Err(io::ErrorKind::AddrInUse.into()),
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn kind(result: io::Result<(UnixListener, SocketFile)>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listening = listen(&path, 8).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, MODE);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), listening.0.accept());
        assert!(client.is_ok() && accepted.is_ok());
        drop(listening);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_stale_is_replaced_and_what_lives_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (listener, file) = listen(&path, 1).unwrap();
        assert_eq!(kind(listen(&path, 1)), io::ErrorKind::AddrInUse);
        // A queue that is full is that of somebody who lives.
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        assert_eq!(kind(listen(&path, 1)), io::ErrorKind::AddrInUse);
        // As a crash leaves it: the file without a listener.
        std::mem::forget(file);
        drop((listener, waiting));
        assert!(path.exists());
        let (_again, _file) = listen(&path, 1).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "mine").unwrap();
        assert_eq!(kind(listen(&path, 1)), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(kind(listen(&link, 1)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(listen(&folder.path().join("none/s"), 1)), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_file_that_is_anothers_by_now_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = listen(&path, 1).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let _second = listen(&path, 1).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).await.is_ok());
    }
}
