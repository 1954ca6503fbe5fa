//! When certificates expire that this broker depends on, and when to say so: 30 days before, 7 days before, and when it
//! has come. Pure: time is an argument.

use std::collections::BTreeMap;

use parking_lot::Mutex;

const DAY_SECONDS: i64 = 86_400;

/// What has a date.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dated {
    /// The certificate of a listener.
    Listener(String),
    /// The revocation lists of a listener: they are renewed late as a rule, so that only their end is told.
    Lists(String),
    /// The certificate that we show a peer.
    Local(String),
    /// The certificate of a peer's listener.
    Remote(String),
    /// The certificate that a peer shows when it dials us.
    RemoteClient(String),
}

impl Dated {
    /// For people.
    #[must_use]
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Listener(id) => format!("the certificate of listeners[{id}]"),
            Self::Lists(id) => format!("a revocation list of listeners[{id}]"),
            Self::Local(peer) => format!("our certificate for the link to {peer}"),
            Self::Remote(peer) => format!("the certificate of {peer}'s listener"),
            Self::RemoteClient(peer) => format!("the certificate that {peer} dials us with"),
        }
    }
}

/// How near a date is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// More than 30 days.
    Far,
    /// 30 days or less.
    Month,
    /// 7 days or less.
    Week,
    /// It has come.
    Past,
}

impl Nearness {
    fn of(left_seconds: i64) -> Self {
        match left_seconds {
            ..=0 => Self::Past,
            left if left <= 7 * DAY_SECONDS => Self::Week,
            left if left <= 30 * DAY_SECONDS => Self::Month,
            _ => Self::Far,
        }
    }
}

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// Of what.
    pub what: Dated,
    /// How near it is.
    pub nearness: Nearness,
    /// Days that are left, rounded up.
    pub days: i64,
}

/// Dates, and what was said of each.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    table: Mutex<BTreeMap<Dated, (i64, Nearness)>>,
}

impl Expiries {
    /// Takes the dates as they are now, in seconds since the Unix epoch; what is not among them is forgotten. Gives what
    /// was not said yet. A new date begins anew.
    pub(super) fn observe(&self, dates: impl IntoIterator<Item = (Dated, i64)>, now_unix: i64) -> Vec<Due> {
        let mut table = self.table.lock();
        let before = std::mem::take(&mut *table);
        let mut due = Vec::new();
        for (what, at) in dates {
            let said =
                before.get(&what).filter(|(date, _)| *date == at).map_or(Nearness::Far, |(_, said)| *said);
            let left = at.saturating_sub(now_unix);
            let nearness = Nearness::of(left);
            let speaks = nearness == Nearness::Past || !matches!(what, Dated::Lists(_));
            if nearness > said && speaks {
                let days = left.max(0).saturating_add(DAY_SECONDS - 1) / DAY_SECONDS;
                due.push(Due { what: what.clone(), nearness, days });
            }
            table.insert(what, (at, nearness.max(said)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_000 * DAY_SECONDS;

    fn said(expiries: &Expiries, what: Dated, at: i64, now: i64) -> Vec<(Nearness, i64)> {
        expiries.observe([(what, at)], now).into_iter().map(|due| (due.nearness, due.days)).collect()
    }

    #[test]
    fn each_nearness_is_said_once() {
        let (expiries, what) = (Expiries::default(), || Dated::Listener("ssl:x".into()));
        let say = |left: i64| said(&expiries, what(), AT, AT - left);
        assert_eq!(say(31 * DAY_SECONDS), []);
        assert_eq!(say(30 * DAY_SECONDS), [(Nearness::Month, 30)]);
        assert_eq!(say(20 * DAY_SECONDS), []);
        assert_eq!(say(7 * DAY_SECONDS), [(Nearness::Week, 7)]);
        assert_eq!(say(1), []);
        assert_eq!(say(0), [(Nearness::Past, 0)]);
        assert_eq!(say(-DAY_SECONDS), []);
        // A clock that is set back says nothing again.
        assert_eq!(say(6 * DAY_SECONDS), []);
        assert_eq!(say(-1), []);
    }

    #[test]
    fn a_renewed_certificate_begins_anew() {
        let (expiries, what) = (Expiries::default(), || Dated::Remote("B".into()));
        assert_eq!(said(&expiries, what(), AT, AT - DAY_SECONDS), [(Nearness::Week, 1)]);
        assert_eq!(said(&expiries, what(), 2 * AT, AT), []);
        assert_eq!(said(&expiries, what(), 2 * AT, 2 * AT - 1), [(Nearness::Week, 1)]);
        assert_eq!(expiries.observe([], AT), []);
        assert_eq!(said(&expiries, what(), 2 * AT, 2 * AT - 1), [(Nearness::Week, 1)], "forgotten meanwhile");
    }

    #[test]
    fn of_a_revocation_list_only_the_end_is_said() {
        let (expiries, what) = (Expiries::default(), || Dated::Lists("ssl:x".into()));
        assert_eq!(said(&expiries, what(), AT, AT - DAY_SECONDS), []);
        assert_eq!(said(&expiries, what(), AT, AT), [(Nearness::Past, 0)]);
        assert_eq!(said(&expiries, what(), AT, AT + 1), []);
    }
}
