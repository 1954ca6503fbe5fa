//! What clusters say to each other about trust, on the wire (trust.md 2.4, 2.6): on the port of links, told apart by ALPN, over
//! TLS 1.3 with the link certificates of both clusters. One request and one answer, each four bytes of length, big-endian, and
//! so many bytes of JSON. What they say is no business of this module.

pub mod client;
pub mod gate;
pub mod server;

use std::io;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;

/// What a connection is for. Ordinary ones never negotiate the names of these in TLS (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A token is redeemed by a cluster that is not known yet.
    Enroll,
    /// A cluster that is known says something about its certificate, or about ours.
    Statement,
    /// A cluster that is known, and cannot be dialled, lends us a connection.
    Reverse,
}

impl Purpose {
    /// The protocol's name.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Enroll => b"tombolo-enroll/1",
            Self::Statement => b"tombolo-trust/1",
            Self::Reverse => b"tombolo-reverse/1",
        }
    }

    /// What a client asks for that names this one protocol and no other.
    #[must_use]
    pub fn of<'a>(mut asked: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let first = asked.next()?;
        let purpose =
            [Self::Enroll, Self::Statement, Self::Reverse].into_iter().find(|one| one.alpn() == first)?;
        asked.next().is_none().then_some(purpose)
    }
}

/// Longest request, and longest answer, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the length before a message.
const LENGTH_BYTES: usize = 4;

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is empty, or longer than allowed.
    #[error("a message of {0} bytes: 1 to {MESSAGE_BYTES_MAX} are allowed")]
    Length(u32),
    /// The connection failed, or ended too early.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads one message. Nothing of it is kept in memory before its length is known to be allowed.
///
/// # Errors
/// If the length is not, or the connection ends before the message does.
pub async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ReadError> {
    let mut length = [0; LENGTH_BYTES];
    from.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length);
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes == 0 || bytes > MESSAGE_BYTES_MAX {
        return Err(ReadError::Length(length));
    }
    let mut message = vec![0; bytes];
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// A message with its length before it; `None` if it is empty or longer than allowed.
#[must_use]
pub fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok()?;
    if message.is_empty() || message.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    Some([&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_read_as_it_was_framed() {
        for length in [1, 2, 255, 256, MESSAGE_BYTES_MAX] {
            let message = vec![b'{'; length];
            let mut bytes = framed(&message).unwrap();
            bytes.push(b'x');
            let mut rest = &bytes[..];
            assert_eq!(read_message(&mut rest).await.unwrap(), message);
            assert_eq!(rest, b"x", "what comes behind is left");
            let mut cut = &bytes[..length + 3];
            assert!(matches!(read_message(&mut cut).await, Err(ReadError::Io(_))));
        }
        assert!(framed(&[]).is_none() && framed(&vec![0; MESSAGE_BYTES_MAX + 1]).is_none());
    }

    #[tokio::test]
    async fn a_length_that_is_not_allowed_is_refused_before_anything_is_read() {
        for length in [0, MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            let bytes = [&length.to_be_bytes()[..], b"rest"].concat();
            let mut rest = &bytes[..];
            assert!(matches!(read_message(&mut rest).await, Err(ReadError::Length(told)) if told == length));
            assert_eq!(rest, b"rest");
        }
    }
}
