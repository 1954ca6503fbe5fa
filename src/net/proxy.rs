//! The PROXY protocol, versions 1 and 2: the header in front of a connection with which a load balancer says whose
//! connection it is. A pure reader of bytes; who is trusted to send one is decided by the listener.
//!
//! Only addresses are taken. Additional fields (TLVs) of version 2 are skipped: a certificate name that a proxy
//! tells is never an identity here (`authn-tls.md` section 1).

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;

use crate::net::handshake::HandshakeError;

/// The longest header of version 1, its CRLF included.
pub const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is read, additional fields included.
pub const V2_BYTES_MAX: usize = 536;

/// With this a header of version 2 begins.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
const V1_START: &[u8] = b"PROXY ";
/// The shortest header: `PROXY UNKNOWN` and CRLF. Fewer bytes can be asked for without reading past it.
const SHORTEST: usize = 15;

/// What the bytes are so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A header, which takes `length` bytes.
    Header {
        /// The client, if the proxy told: `UNKNOWN`, `LOCAL` and Unix sockets have no address.
        source: Option<SocketAddr>,
        /// Bytes of the header.
        length: usize,
    },
    /// The beginning of one, of which at least this many bytes are missing.
    NeedMore(usize),
}

/// Why a connection is not served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The bytes are no PROXY header.
    #[error("no PROXY header opens the connection")]
    Missing,
    /// It begins like one and is none.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// It is longer than is read.
    #[error("the PROXY header is too long")]
    TooLong,
    /// The connection does not come from an address of `proxy_trusted`.
    #[error("this address is not in proxy_trusted")]
    Untrusted,
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// As soon as the bytes can be no header any more.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if begins(bytes, V1_START) {
        return version_1(bytes);
    }
    if begins(bytes, &V2_SIGNATURE) {
        return version_2(bytes);
    }
    Err(ProxyError::Missing)
}

/// Whether one of the two is the beginning of the other.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn version_1(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        if bytes.len() >= V1_BYTES_MAX - 1 {
            return Err(ProxyError::TooLong);
        }
        // What is still to come is CRLF at least.
        return Ok(Parsed::NeedMore(2.max(SHORTEST.saturating_sub(bytes.len()))));
    };
    match window.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if window[end] == b'\r' && bytes.len() < V1_BYTES_MAX => return Ok(Parsed::NeedMore(1)),
        _ => return Err(ProxyError::Malformed("a line ends in CRLF")),
    }
    let line = std::str::from_utf8(&window[..end]).map_err(|_| ProxyError::Malformed("not text"))?;
    Ok(Parsed::Header { source: line_source(line)?, length: end + 2 })
}

fn line_source(line: &str) -> Result<Option<SocketAddr>, ProxyError> {
    let mut words = line.split(' ');
    let (_, family) = (words.next(), words.next());
    match family {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => Ok(None),
        Some("TCP4") => addresses::<Ipv4Addr>(words).map(Some),
        Some("TCP6") => addresses::<Ipv6Addr>(words).map(Some),
        _ => Err(ProxyError::Malformed("TCP4, TCP6 or UNKNOWN is expected")),
    }
}

/// Source, destination and their ports: all four must be right, the first and the third are used.
fn addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<SocketAddr, ProxyError>
where
    A: FromStr + Into<IpAddr>,
{
    let mut next = || words.next().unwrap_or_default();
    let mut address = || next().parse::<A>().map_err(|_| ProxyError::Malformed("not an address"));
    let (source, _destination) = (address()?, address()?);
    let (source_port, _destination_port) = (port(next())?, port(next())?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed("more than two addresses and ports"));
    }
    Ok(SocketAddr::new(source.into(), source_port))
}

fn port(word: &str) -> Result<u16, ProxyError> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word.len() == 1 || !word.starts_with('0'));
    let port = word.parse().ok().filter(|_| plain);
    port.ok_or(ProxyError::Malformed("not a port"))
}

fn version_2(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Parsed::NeedMore(V2_FIXED_BYTES - bytes.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let body = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_FIXED_BYTES + body;
    if command >> 4 != 2 {
        return Err(ProxyError::Malformed("neither version 1 nor 2"));
    }
    if length > V2_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let wanted = match (command & 0x0F, family) {
        // LOCAL: the proxy's own connection. Whatever follows is to be ignored.
        (0, _) | (1, 0x00) => 0,
        (1, 0x11) => 12,
        (1, 0x21) => 36,
        (1, 0x31) => 216,
        (1, 0x12 | 0x22 | 0x32) => return Err(ProxyError::Malformed("datagrams are not carried here")),
        (1, _) => return Err(ProxyError::Malformed("an unknown address family")),
        _ => return Err(ProxyError::Malformed("an unknown command")),
    };
    if body < wanted {
        return Err(ProxyError::Malformed("too short for its addresses"));
    }
    let Some(body) = rest.get(..body) else {
        return Ok(Parsed::NeedMore(length - bytes.len()));
    };
    let source = match (wanted, body) {
        (12, &[a, b, c, d, _, _, _, _, high, low, ..]) => {
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        (36, body) => ipv6_source(body),
        _ => None,
    };
    Ok(Parsed::Header { source, length })
}

fn ipv6_source(body: &[u8]) -> Option<SocketAddr> {
    let (source, rest) = body.split_first_chunk::<16>()?;
    let port = rest.get(16..18)?;
    Some(SocketAddr::from((Ipv6Addr::from(*source), u16::from_be_bytes([port[0], port[1]]))))
}

/// Reads a header off `stream` and not one byte more. The caller bounds the time.
///
/// # Errors
/// If the connection ends, or what it brings is no header.
pub async fn read_header<S>(stream: &mut S) -> Result<Option<SocketAddr>, HandshakeError>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; V2_BYTES_MAX];
    let mut filled = 0;
    loop {
        let missing = match parse(&bytes[..filled])? {
            Parsed::Header { source, .. } => return Ok(source),
            Parsed::NeedMore(missing) => missing,
        };
        let room = bytes.get_mut(filled..filled + missing).ok_or(ProxyError::TooLong)?;
        match stream.read(room).await.map_err(HandshakeError::Io)? {
            0 => return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into())),
            count => filled += count,
        }
    }
}

#[cfg(test)]
mod tests;
