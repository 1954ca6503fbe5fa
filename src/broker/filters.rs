//! EMQX's prefixes of Topic Filters: `$queue/{filter}` is the Shared Subscription of the group `$queue`
//! (`link-protocol.md` 5.1), `$exclusive/{filter}` the subscription of one client at a time. Everything behind
//! SUBSCRIBE and UNSUBSCRIBE knows the plain form only, so that one subscription has one name.

use std::borrow::Cow;
use std::collections::HashMap;

use parking_lot::Mutex;

use crate::broker::shared::ClientKey;
use crate::mqtt::topic::ParsedFilter;
use crate::mqtt::topic::TopicError;

/// Prefixes that must not stand behind one another: the ACL would check something else than is subscribed.
const PREFIXES: [&str; 3] = ["$share/", "$queue/", "$exclusive/"];

/// A filter as a client asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedFilter<'a> {
    /// The filter or `$share/{ShareName}/{filter}`.
    pub plain: Cow<'a, str>,
    /// Whether nobody else may have it.
    pub exclusive: bool,
}

impl<'a> AskedFilter<'a> {
    /// Takes the prefixes off and checks what is left.
    ///
    /// # Errors
    /// It is no Topic Filter.
    pub fn parse(written: &'a str) -> Result<Self, TopicError> {
        let nested = |rest: &str| PREFIXES.iter().any(|prefix| rest.starts_with(prefix));
        let (plain, exclusive) = if let Some(rest) = written.strip_prefix("$queue/") {
            (Cow::Owned(format!("$share/$queue/{rest}")), false)
        } else if let Some(rest) = written.strip_prefix("$exclusive/") {
            if nested(rest) {
                return Err(TopicError::Share);
            }
            (Cow::Borrowed(rest), true)
        } else {
            (Cow::Borrowed(written), false)
        };
        let parsed = ParsedFilter::parse(&plain)?;
        if parsed.share.is_some() && nested(parsed.filter) {
            return Err(TopicError::Share);
        }
        Ok(Self { plain, exclusive })
    }

    /// ShareName and filter.
    ///
    /// # Errors
    /// Never for a filter that was parsed.
    pub fn parsed(&self) -> Result<ParsedFilter<'_>, TopicError> {
        ParsedFilter::parse(&self.plain)
    }
}

/// Who has which exclusive subscription: at most one entry for each subscription there is.
#[derive(Debug, Default)]
pub struct Exclusive {
    owners: Mutex<HashMap<Box<str>, ClientKey>>,
}

impl Exclusive {
    /// Takes the filter for this client. Whether it has it now.
    pub fn take(&self, filter: &str, key: ClientKey) -> bool {
        let mut owners = self.owners.lock();
        match owners.get(filter) {
            Some(owner) => *owner == key,
            None => {
                owners.insert(filter.into(), key);
                true
            }
        }
    }

    /// The client subscribes to the filter no more, or no more exclusively.
    pub fn release(&self, filter: &str, key: ClientKey) {
        let mut owners = self.owners.lock();
        if owners.get(filter) == Some(&key) {
            owners.remove(filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_off() {
        let table = [
            ("a/#", Some(("a/#", false))),
            ("$queue/a/+", Some(("$share/$queue/a/+", false))),
            ("$exclusive/a", Some(("a", true))),
            ("$share/g/a", Some(("$share/g/a", false))),
            ("$exclusivea/b", Some(("$exclusivea/b", false))),
            ("$queue/", None),
            ("$exclusive/", None),
            ("$exclusive/$share/g/a", None),
            ("$queue/$exclusive/a", None),
            ("$share/g/$queue/a", None),
            ("$queue/a#", None),
        ];
        for (written, expected) in table {
            let parsed = AskedFilter::parse(written).ok();
            let parsed = parsed.as_ref().map(|asked| (&*asked.plain, asked.exclusive));
            assert_eq!(parsed, expected, "{written}");
        }
    }

    #[test]
    fn one_client_has_it_at_a_time() {
        let exclusive = Exclusive::default();
        let (one, two) = (ClientKey(1), ClientKey(2));
        assert!(exclusive.take("a", one) && exclusive.take("a", one) && exclusive.take("b", two));
        assert!(!exclusive.take("a", two));
        exclusive.release("a", two);
        assert!(!exclusive.take("a", two), "it was not theirs to release");
        exclusive.release("a", one);
        assert!(exclusive.take("a", two));
    }
}
