//! An address of the web, as far as we fetch from it.

use std::fmt;

/// `http://host:port/path`, or with `https`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub secure: bool,
    /// Host name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, from the first `/` on.
    pub path: String,
}

impl HttpUrl {
    /// Reads an absolute URL. Names and passwords, which would end up in logs, are refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            // What it is may be a secret.
            _ => return Err("this is not an http:// or https:// URL".to_owned()),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL has no spaces and no characters outside of ASCII".to_owned());
        }
        if rest.contains('#') {
            return Err("a fragment (#) is never sent to a server".to_owned());
        }
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err("a URL must not carry a name or password".to_owned());
        }
        let (host, port) =
            host_and_port(authority).ok_or_else(|| format!("`{authority}` is not a host and a port"))?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { secure, host: host.to_owned(), port, path })
    }

    /// What `Host` says (RFC 9112 section 3.2).
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(valid) {
        return None;
    }
    match port.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
        None => port.is_empty().then_some((host, None)),
    }
}

/// For logs: without the query, which may be a key to what is asked for.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), without_query(&self.path))
    }
}

/// A URL or a part of it up to its query, of which only the question mark is left.
#[must_use]
pub fn without_query(text: &str) -> &str {
    text.find('?').map_or(text, |at| &text[..=at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, shown) in [
            ("http://crl.example.net/ca.crl", "http://crl.example.net:80/ca.crl"),
            ("https://h", "https://h:443/"),
            ("http://[::1]:8080?x=1", "http://[::1]:8080/?"),
            ("http://127.0.0.1:1/a/b?c", "http://127.0.0.1:1/a/b?"),
        ] {
            assert_eq!(HttpUrl::parse(text).unwrap().to_string(), shown);
        }
        assert_eq!(
            HttpUrl::parse("http://h/a?key=b").unwrap().path,
            "/a?key=b",
            "it is asked for all the same"
        );
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for text in ["htps://u:secret@h/", "http://u:secret@h/", "ftp://h/?secret", "http://h/?secret#a"] {
            let error = HttpUrl::parse(text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "ftp://h/",
            "h/ca.crl",
            "http://",
            "http:///x",
            "http://h:0/",
            "http://h:x/",
            "http://h:99999/",
            "http://u:p@h/",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://[::1/",
            "http://[x]/",
            "http://h/#a",
            "http://a,b/",
            "http://h:1:2/",
        ] {
            assert!(HttpUrl::parse(text).is_err(), "{text}");
        }
    }
}
