//! The query of a request: `name=value` pairs, percent-decoded.

use crate::admin::rest::Problem;

/// The parameters of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::admin) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text behind `?`.
    pub(in crate::admin) fn parse(text: &str) -> Result<Self, Problem> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(name)?, percent_decode(value)?))
        });
        let pairs = pairs.collect::<Option<Vec<_>>>();
        pairs.map(Self).ok_or_else(|| Problem::bad_request("the query is not percent-encoded UTF-8"))
    }

    /// The first value of this name.
    pub(in crate::admin) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of this name.
    pub(in crate::admin) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The names in use.
    pub(in crate::admin) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// `+` is a space, as forms have it; a wildcard is written `%2B`.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Encodes everything but letters, digits and `-._~`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::parse("page=2&topic=a%2F%2B&&flag&x=a+b").unwrap();
        assert_eq!(query.value("page"), Some("2"));
        assert_eq!(query.value("topic"), Some("a/+"));
        assert_eq!((query.value("flag"), query.value("x"), query.value("y")), (Some(""), Some("a b"), None));
        assert_eq!(query.names().count(), 4);
        for bad in ["a=%", "a=%2", "a=%zz", "a=%ff", "%C3=1"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            prop_assert_eq!(percent_decode(&percent_encode(&text)), Some(text));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in ".*") {
            let _ = Query::parse(&text);
        }
    }
}
