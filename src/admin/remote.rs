//! How a command reaches a running broker: HTTP over its admin socket, or over TCP with an API key, or over TLS with a certificate.
//! One request per connection and HTTP/1.0, which has no chunks.

use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustls::CertificateError;
use rustls::ClientConnection;
use rustls::StreamOwned;
use rustls::pki_types::ServerName;
use serde_json::Value;

use crate::admin::base64;
use crate::admin::commands::Exit;
use crate::admin::commands::Failure;
use crate::admin::sockets::ADMIN_SOCKET;
use crate::net::clock;
use crate::net::tls::ClientTls;
use crate::net::tls::ClientTlsOptions;
use crate::net::tls::TlsVersion;
use crate::net::tls::Verify;
use crate::trust::Fingerprint;

/// How long the broker may say nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The longest answer: ten thousand items of a page with the longest topics are below.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// The head of an answer, or a refusal.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// `KEY:SECRET`, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(******)")
    }
}

impl FromStr for Credentials {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') { Ok(Self(text.to_owned())) } else { Err("must be KEY:SECRET") }
    }
}

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether over TLS.
    secure: bool,
    /// As it stands in the URL.
    authority: String,
    /// With a port, to be resolved.
    address: String,
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (secure, authority) = match text.strip_prefix("https://") {
            Some(authority) => (true, authority),
            None => (false, text.strip_prefix("http://").ok_or("must begin with http:// or https://")?),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let allowed = |character: char| character.is_ascii_alphanumeric() || ".-_:[]".contains(character);
        if authority.is_empty() || !authority.chars().all(allowed) {
            return Err("must be http://HOST[:PORT] or https://HOST[:PORT]");
        }
        let behind_host = authority.rsplit(']').next().unwrap_or(authority);
        let has_port = behind_host.contains(':');
        let port = if secure { 443 } else { 80 };
        let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        Ok(Self { secure, authority: authority.to_owned(), address })
    }
}

impl Url {
    /// The host without port and brackets.
    fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// Who we are to a broker, and by what we know it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// An API key.
    pub key: Option<Credentials>,
    /// Our certificate and its key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The broker's certificate.
    pub server: Option<Fingerprint>,
}

impl Access {
    /// Whether that is enough.
    fn check(&self, url: &Url) -> Result<(), Failure> {
        let has_key = self.key.is_some();
        let why = match url.secure {
            true if self.server.is_none() => "https needs --tls-fingerprint: the broker is known by it",
            true if !has_key && self.certificate.is_none() => "--tls-cert with --tls-keyfile, or --key",
            false if self.certificate.is_some() || self.server.is_some() => "certificates are for https",
            false if !has_key => "--url needs --key, or TOMBOLO_KEY",
            _ => return Ok(()),
        };
        Err(Failure::new(Exit::Usage, why))
    }

    /// TLS to the broker with that certificate and no other.
    fn secured(&self, url: &Url, stream: TcpStream) -> Result<Box<dyn Stream>, Failure> {
        let options = ClientTlsOptions {
            cacertfile: None,
            own: None,
            certfile: self.certificate.as_ref().map(|(certificate, _)| certificate.clone()),
            keyfile: self.certificate.as_ref().map(|(_, key)| key.clone()),
            password: None,
            server_pins: self.server.iter().map(|server| server.0).collect(),
            strict: true,
            verify: Verify::Peer,
            server_name: None,
            versions: vec![TlsVersion::V13],
        };
        let wrong = |error: &dyn fmt::Display| Failure::new(Exit::Usage, error.to_string());
        let tls = ClientTls::load(&options, clock::now()).map_err(|error| wrong(&error))?;
        let name = ServerName::try_from(url.host().to_owned()).map_err(|error| wrong(&error))?;
        let mut session = ClientConnection::new(tls.config, name).map_err(|error| wrong(&error))?;
        let mut stream = stream;
        while session.is_handshaking() {
            // Nothing is sent before the broker has proved to be the one.
            session.complete_io(&mut stream).map_err(|error| refused(url, &error))?;
        }
        Ok(Box::new(StreamOwned::new(session, stream)))
    }
}

/// The handshake failed.
fn refused(url: &Url, error: &io::Error) -> Failure {
    let (mut exit, mut why) = (Exit::Other, error.to_string());
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(reason))) = reason {
        why = reason.to_string();
        if why.starts_with("pin mismatch") {
            exit = Exit::FingerprintMismatch;
        }
    }
    Failure::new(exit, format!("https://{}: {why}", url.authority))
}

/// A broker to talk to.
#[derive(Debug, Clone)]
pub enum Remote {
    /// The one that holds this data directory.
    Data(PathBuf),
    /// The one that listens on this socket.
    Socket(PathBuf),
    /// The one that listens there.
    Http(Url, Box<Access>),
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Remote {
    /// Asks; gives the JSON of a success, [`Value::Null`] if it has no body.
    ///
    /// # Errors
    /// If the broker cannot be reached or does not do it; the exit code says which.
    pub fn request(&self, method: &str, path: &str) -> Result<Value, Failure> {
        self.exchange(&self.head(method, path))
    }

    /// The same with a body.
    ///
    /// # Errors
    /// As [`Remote::request`].
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let (head, body) = (self.head(method, path), body.to_string());
        let head = head.trim_end();
        let length = body.len();
        self.exchange(&format!(
            "{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn exchange(&self, request: &str) -> Result<Value, Failure> {
        let mut stream = self.connect()?;
        let mut answer = Vec::new();
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.flush())
            .and_then(|()| stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer))
            .map_err(|error| Failure::new(Exit::Other, format!("{self}: {error}")))?;
        let (status, body) = parse(&answer)
            .ok_or_else(|| Failure::new(Exit::Other, format!("{self}: the answer is not complete HTTP")))?;
        outcome(status, body)
    }

    /// Asks for lines and gives each of them to `told` until the broker ends them, which is the error then.
    ///
    /// # Errors
    /// Why there are no more.
    pub fn follow(
        &self,
        path: &str,
        mut told: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(Exit::Other, format!("{self}: {error}"));
        let mut stream = self.connect()?;
        stream.write_all(self.head("GET", path).as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
        let mut lines = BufReader::new(stream.take(u64::MAX));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let within = u64::try_from(HEAD_BYTES_MAX.saturating_sub(head.len())).unwrap_or(0);
            if lines.by_ref().take(within).read_until(b'\n', &mut head).map_err(failed)? == 0 {
                return Err(Failure::new(Exit::Other, format!("{self}: the answer is not complete HTTP")));
            }
        }
        if !head.starts_with(b"HTTP/1.0 200") && !head.starts_with(b"HTTP/1.1 200") {
            lines.take(HEAD_BYTES_MAX as u64).read_to_end(&mut head).map_err(failed)?;
            let (status, body) = parse(&head).ok_or_else(|| {
                Failure::new(Exit::Other, format!("{self}: the answer is not complete HTTP"))
            })?;
            return outcome(status, body).map(|_| ());
        }
        let mut line = String::new();
        while lines.read_line(&mut line).map_err(failed)? > 0 {
            if !line.trim().is_empty() {
                told(line.trim_end())?;
            }
            line.clear();
        }
        Err(Failure::new(Exit::Other, "the broker ended it: it stops"))
    }

    fn head(&self, method: &str, path: &str) -> String {
        match self {
            Self::Data(_) | Self::Socket(_) => format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"),
            Self::Http(url, access) => {
                let key = access.key.as_ref().map(|Credentials(key)| base64::encode(key.as_bytes()));
                let key = key.map(|key| format!("Authorization: Basic {key}\r\n")).unwrap_or_default();
                format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n{key}\r\n", url.authority)
            }
        }
    }

    fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let limited = match self {
            Self::Data(data) => {
                let stream =
                    UnixStream::connect(data.join(ADMIN_SOCKET)).map_err(|error| no_socket(data, &error))?;
                stream.set_read_timeout(Some(SILENCE_LIMIT)).map(|()| Box::new(stream) as Box<dyn Stream>)
            }
            Self::Socket(path) => {
                let failed = |error: io::Error| {
                    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
                    let exit = if is_denied { Exit::Denied } else { Exit::Other };
                    Failure::new(exit, format!("no broker answers at {self}: {error}"))
                };
                let stream = UnixStream::connect(path).map_err(failed)?;
                stream.set_read_timeout(Some(SILENCE_LIMIT)).map(|()| Box::new(stream) as Box<dyn Stream>)
            }
            Self::Http(url, access) => {
                access.check(url)?;
                let failed =
                    |error| Failure::new(Exit::Other, format!("no broker answers at {self}: {error}"));
                let stream = TcpStream::connect(&url.address).map_err(failed)?;
                match stream.set_read_timeout(Some(SILENCE_LIMIT)) {
                    Ok(()) if url.secure => return access.secured(url, stream),
                    limited => limited.map(|()| Box::new(stream) as Box<dyn Stream>),
                }
            }
        };
        limited.map_err(|error| Failure::new(Exit::Other, format!("{self}: {error}")))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => data.join(ADMIN_SOCKET).display().fmt(f),
            Self::Socket(path) => path.display().fmt(f),
            Self::Http(url, _) => {
                write!(f, "{}://{}", if url.secure { "https" } else { "http" }, url.authority)
            }
        }
    }
}

fn no_socket(data: &Path, error: &io::Error) -> Failure {
    let shown = data.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Exit::Other,
            format!(
                "no broker runs with the data directory `{shown}`: start it, or name another with --data"
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::Denied,
            format!("{shown}/{ADMIN_SOCKET}: only the broker's own user may use it"),
        ),
        _ => Failure::new(Exit::Other, format!("{shown}/{ADMIN_SOCKET}: {error}")),
    }
}

/// Status and body of an answer that is all there.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = first.next()?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        if is_length && value.trim().parse::<usize>().ok()? != body.len() {
            return None;
        }
    }
    Some((status, body))
}

fn outcome(status: u16, body: &[u8]) -> Result<Value, Failure> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let exit = match status {
        409 if value["code"] == "TOKEN_OVER" => Exit::Token,
        502 if value["code"] == "PEER_REFUSED" => Exit::PeerRefused,
        502 if value["code"] == "FINGERPRINT_MISMATCH" => Exit::FingerprintMismatch,
        200..=299 if body.is_empty() => return Ok(Value::Null),
        200..=299 if value.is_null() => {
            return Err(Failure::new(Exit::Other, "the answer is not JSON: is this a tombolo broker?"));
        }
        200..=299 => return Ok(value),
        400 | 413 | 415 => Exit::Usage,
        401 | 403 => Exit::Denied,
        404 => Exit::NotFound,
        409 => Exit::Conflict,
        _ => Exit::Other,
    };
    let message = value["message"].as_str().map_or_else(|| format!("HTTP status {status}"), str::to_owned);
    Err(Failure::new(exit, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_credentials() {
        let address = |text: &str| text.parse::<Url>().map(|url| url.address);
        assert_eq!(address("http://localhost:18083/"), Ok("localhost:18083".to_owned()));
        assert_eq!(address("http://[::1]"), Ok("[::1]:80".to_owned()));
        assert_eq!(address("http://[::1]:8"), Ok("[::1]:8".to_owned()));
        assert_eq!(address("http://broker"), Ok("broker:80".to_owned()));
        assert_eq!(address("https://broker"), Ok("broker:443".to_owned()));
        assert_eq!("https://[::1]:8".parse::<Url>().map(|url| url.host().to_owned()), Ok("::1".to_owned()));
        for bad in ["broker", "https://", "http://", "http://a/b", "http://u@h", "http://a\r\nX: y"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        let credentials: Credentials = "id:hidden".parse().unwrap();
        assert!(!format!("{credentials:?}").contains("hidden"));
        assert!("id".parse::<Credentials>().is_err());
    }

    #[test]
    fn an_answer_is_complete_or_none() {
        let ok = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(ok), Some((200, &b"{}"[..])));
        for length in 0..ok.len() {
            assert_eq!(parse(&ok[..length]), None, "{length}");
        }
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, &b""[..])));
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn the_status_becomes_the_exit_code() {
        let exit = |status, body: &str| outcome(status, body.as_bytes()).map_err(|failure| failure.exit);
        assert_eq!(exit(204, ""), Ok(Value::Null));
        assert_eq!(exit(200, "[]"), Ok(Value::Array(Vec::new())));
        assert_eq!(exit(200, "hello"), Err(Exit::Other));
        let codes = [(400, Exit::Usage), (401, Exit::Denied), (404, Exit::NotFound), (409, Exit::Conflict)];
        for (status, code) in
            codes.into_iter().chain([(415, Exit::Usage), (403, Exit::Denied), (500, Exit::Other)])
        {
            assert_eq!(exit(status, "{\"message\":\"m\"}"), Err(code), "{status}");
        }
        for (status, code, wanted) in [
            (409, "TOKEN_OVER", Exit::Token),
            (502, "PEER_REFUSED", Exit::PeerRefused),
            (502, "FINGERPRINT_MISMATCH", Exit::FingerprintMismatch),
            (502, "PEER_UNREACHABLE", Exit::Other),
            (409, "CONFLICT", Exit::Conflict),
        ] {
            let body = format!("{{\"code\":\"{code}\",\"message\":\"m\"}}");
            assert_eq!(exit(status, &body), Err(wanted), "{code}");
        }
        assert_eq!(outcome(404, b"{\"message\":\"m\"}").unwrap_err().message, "m");
        assert_eq!(outcome(502, b"<html>").unwrap_err().message, "HTTP status 502");
    }

    #[test]
    fn a_broker_that_does_not_run_is_said_so() {
        let data = tempfile::tempdir().unwrap();
        let failure = Remote::Data(data.path().to_owned()).request("GET", "/").unwrap_err();
        assert_eq!(failure.exit, Exit::Other);
        assert!(failure.message.starts_with("no broker runs with the data directory `"), "{failure}");
    }
}
