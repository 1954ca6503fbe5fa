//! Durations, sizes and host addresses as text: EMQX's notation.

use std::net::IpAddr;
use std::time::Duration;

use super::settings::Network;
use super::settings::Rate;
use super::settings::ServerAddr;

/// A century: longer durations are surely not meant, and sums of two stay far from overflow.
const DURATION_MS_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// The longest time of a rate.
const RATE_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// `15s`, `1h30m`, `500ms`: numbers each with a unit (`ms`, `s`, `m`, `h`, `d`, `w`).
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as \"15s\", \"500ms\" or \"1h30m\"");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wrong()),
        };
        total = number
            .checked_mul(factor)
            .and_then(|ms| total.checked_add(ms))
            .filter(|ms| *ms <= DURATION_MS_MAX)
            .ok_or_else(|| format!("`{text}` is longer than a century"))?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// `1MB` is 1024 × 1024 bytes, as in EMQX; a number without a unit is bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as \"1MB\", \"512KB\" or \"100B\"");
    let (number, unit) = leading_number(text.trim()).ok_or_else(wrong)?;
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// `host`, `host:port`, `[::1]:port`; EMQX's `mqtt://` and `mqtts://` in front are taken and mean nothing
/// (`link-protocol.md` 1.3).
pub(super) fn server(text: &str, default_port: u16) -> Result<ServerAddr, String> {
    let text = text.trim();
    let plain = text.strip_prefix("mqtts://").or_else(|| text.strip_prefix("mqtt://")).unwrap_or(text);
    let (host, port) = split_port(plain).ok_or_else(|| format!("`{text}` is not host:port"))?;
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("`{port}` is not a port from 1 to 65535")),
            Ok(port) => port,
        },
    };
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let is_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    if host.is_empty() || host.len() > 253 || !(is_name || is_ipv6) {
        return Err(format!("`{text}` does not begin with a host name or an address"));
    }
    Ok(ServerAddr { host: host.to_owned(), port })
}

fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(inside) = text.strip_prefix('[') {
        let (host, after) = inside.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port))),
    }
}

/// `100/s`, `1000/m`, `50/10s`: a number and the time in which it may be reached.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let number = |amount: &str| match leading_number(amount) {
        Some((number, "")) => Some(number),
        _ => None,
    };
    rate_of(text, number, "a rate such as \"100/s\" or \"50/10s\"")
}

/// `1MB/s`, `10MB/2s`: a size and a time.
pub(super) fn bytes_rate(text: &str) -> Result<Rate, String> {
    rate_of(text, |amount| size(amount).ok(), "a rate of bytes such as \"1MB/s\" or \"10MB/2s\"")
}

fn rate_of(text: &str, read: impl Fn(&str) -> Option<u64>, what: &str) -> Result<Rate, String> {
    let wrong = || format!("`{text}` is not {what}");
    let (amount, per) = text.split_once('/').ok_or_else(wrong)?;
    let amount = read(amount.trim()).filter(|amount| *amount > 0).ok_or_else(wrong)?;
    let amount = u32::try_from(amount).map_err(|_| format!("`{text}`: at most {} at a time", u32::MAX))?;
    let per = per.trim();
    let bare = per.starts_with(|first: char| first.is_ascii_alphabetic());
    let per = duration(&if bare { format!("1{per}") } else { per.to_owned() }).map_err(|_| wrong())?;
    if per.is_zero() || per > RATE_TIME_MAX {
        return Err(format!("`{text}`: the time is from 1ms to 1d"));
    }
    Ok(Rate { amount, per })
}

/// An IP address, or a block of them such as `10.0.0.0/8`.
///
/// # Errors
/// What is wrong with the text.
pub fn network(text: &str) -> Result<Network, String> {
    let wrong = || format!("`{text}` is neither an IP address nor a block such as \"10.0.0.0/8\"");
    let Some((address, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().map(Network::of).map_err(|_| wrong());
    };
    let plain = length.bytes().all(|byte| byte.is_ascii_digit());
    let address = address.parse().map_err(|_| wrong())?;
    let length = length.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    Network::new(address, length)
        .ok_or_else(|| format!("`{text}` is no block: its length does not fit, or bits behind it are set"))
}

/// A SHA-256 fingerprint: 64 hexadecimal digits, colons between bytes allowed.
pub(super) fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let wrong = || format!("`{text}` is not a SHA-256 fingerprint: 64 hexadecimal digits");
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d)).collect();
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) if digits.len() == 64 => Ok(bytes),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("15s", 15_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            (" 1m 5S ", 65_000),
            ("0s", 0),
        ];
        for (text, ms) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "15", "s", "15x", "-1s", "1.5s", "15 s", "infinity", "200000000000h", "5200w5200w"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let good = [("1MB", 1_048_576), ("512KB", 524_288), ("100B", 100), ("7", 7), ("2gb", 2 << 30)];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "1 M", "1MiB", "-1MB", "99999999999999999999", "99999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn servers() {
        let good = [
            ("b.example.net:8884", "b.example.net", 8884),
            ("b.example.net", "b.example.net", 8883),
            ("mqtt://b:1", "b", 1),
            (" mqtts://10.0.0.1 ", "10.0.0.1", 8883),
            ("[::1]:99", "::1", 99),
            ("[::1]", "::1", 8883),
            ("::1", "::1", 8883),
        ];
        for (text, host, port) in good {
            assert_eq!(server(text, 8883), Ok(ServerAddr { host: host.into(), port }), "{text}");
        }
        for text in
            ["", ":1883", "b:", "b:0", "b:65536", "b:x", "b c:1", "[::1", "[::1]x", "http://b:1", "a/b"]
        {
            assert!(server(text, 8883).is_err(), "{text}");
        }
    }

    #[test]
    fn fingerprints() {
        assert_eq!(fingerprint(&"aB".repeat(32)), Ok([0xab; 32]));
        assert_eq!(fingerprint(&["AB"; 32].join(":")), Ok([0xab; 32]));
        for text in [String::new(), "ab".repeat(31), "ab".repeat(33), "a".repeat(63), "zz".repeat(32)] {
            assert!(fingerprint(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        let good =
            [("100/s", 100, 1000), ("50/10s", 50, 10_000), (" 1 / m ", 1, 60_000), ("7/250ms", 7, 250)];
        for (text, amount, ms) in good {
            assert_eq!(rate(text), Ok(Rate { amount, per: Duration::from_millis(ms) }), "{text}");
        }
        for text in
            ["", "100", "0/s", "/s", "1/", "1/0s", "1/2d", "-1/s", "1.5/s", "1KB/s", "5000000000/s", "1/x"]
        {
            assert!(rate(text).is_err(), "{text}");
        }
        let good = [
            ("1MB/s", 1 << 20, 1000),
            ("10MB/2s", 10 << 20, 2000),
            ("512KB/m", 512 << 10, 60_000),
            (" 100 / 5s ", 100, 5_000),
        ];
        for (text, amount, ms) in good {
            assert_eq!(bytes_rate(text), Ok(Rate { amount, per: Duration::from_millis(ms) }), "{text}");
        }
        for text in ["", "1MB", "0B/s", "MB/s", "1MB/", "4GB/s", "1XB/s", "1MB/0s", "1MB/2d", "1/2/3"] {
            assert!(bytes_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, shown) in [("10.0.0.0/8", "10.0.0.0/8"), ("::1", "::1/128"), ("192.0.2.7", "192.0.2.7/32")]
        {
            assert_eq!(network(text).map(|block| block.to_string()), Ok(shown.to_owned()));
        }
        for text in
            ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "localhost", "10.0.0/8", "/8"]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = (duration(&text), size(&text), server(&text, 1), fingerprint(&text), network(&text), rate(&text), bytes_rate(&text));
        }

        #[test]
        fn a_duration_is_the_sum_of_its_parts(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000) {
            let sum = Duration::from_secs(h * 3600 + m * 60 + s);
            prop_assert_eq!(duration(&format!("{h}h{m}m{s}s")), Ok(sum));
        }
    }
}
