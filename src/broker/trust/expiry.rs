//! When certificates expire that this broker depends on, and when to say so: 30, 7 days and one day before, and when it
//! has come; once each, whatever restarts meanwhile. Pure: time is an argument.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;

const DAY_SECONDS: i64 = 86_400;
/// What was said in lives before is remembered of so many dates.
const REMEMBERED_MAX: usize = 20_000;

/// What has a date.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dated {
    /// The certificate of a listener.
    Listener(String),
    /// The revocation lists of a listener: they are renewed late as a rule, so that only their end is told.
    Lists(String),
    /// The link certificate.
    Own,
    /// The certificate by which a peer is known.
    Pinned(String),
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
            Self::Own => "the link certificate".to_owned(),
            Self::Pinned(peer) => format!("the certificate of {peer}"),
            Self::Local(peer) => format!("our certificate for the link to {peer}"),
            Self::Remote(peer) => format!("the certificate of {peer}'s listener"),
            Self::RemoteClient(peer) => format!("the certificate that {peer} dials us with"),
        }
    }
}

/// How near a date is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Nearness {
    /// More than 30 days.
    Far,
    /// 30 days or less.
    Month,
    /// 7 days or less.
    Week,
    /// A day or less.
    Day,
    /// It has come.
    Past,
}

impl Nearness {
    fn of(left_seconds: i64) -> Self {
        match left_seconds {
            ..=0 => Self::Past,
            left if left <= DAY_SECONDS => Self::Day,
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
    /// What was said, by what it was about in words: in lives before, too.
    said: Mutex<BTreeMap<String, (i64, Nearness)>>,
}

impl Expiries {
    /// Takes the dates as they are now, in seconds since the Unix epoch; what is not among them is forgotten. Gives what
    /// was not said yet. A new date begins anew.
    pub(super) fn observe(&self, dates: impl IntoIterator<Item = (Dated, i64)>, now_unix: i64) -> Vec<Due> {
        let mut table = self.table.lock();
        let before = std::mem::take(&mut *table);
        let (mut due, mut remembered) = (Vec::new(), self.said.lock());
        for (what, at) in dates {
            let known = before.get(&what).copied().or_else(|| remembered.get(&what.describe()).copied());
            let said = known.filter(|(date, _)| *date == at).map_or(Nearness::Far, |(_, said)| said);
            let left = at.saturating_sub(now_unix);
            let nearness = Nearness::of(left);
            let speaks = nearness == Nearness::Past || !matches!(what, Dated::Lists(_));
            if nearness > said && speaks {
                let days = left.max(0).saturating_add(DAY_SECONDS - 1) / DAY_SECONDS;
                remembered.insert(what.describe(), (at, nearness));
                due.push(Due { what: what.clone(), nearness, days });
            }
            table.insert(what, (at, nearness.max(said)));
        }
        due
    }

    /// What was said, to be kept for the next life.
    pub(super) fn to_json(&self, now_unix: i64) -> String {
        let mut said = self.said.lock();
        // What has expired long ago is gone, or was said.
        said.retain(|_, (at, _)| now_unix.saturating_sub(*at) < 30 * DAY_SECONDS);
        let kept: BTreeMap<_, _> = said.iter().take(REMEMBERED_MAX).collect();
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// Takes what was said in the life before. What cannot be read was not said.
    pub(super) fn remember(&self, text: &str) {
        *self.said.lock() = serde_json::from_str(text).unwrap_or_default();
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
        assert_eq!(say(DAY_SECONDS + 1), []);
        assert_eq!(say(DAY_SECONDS), [(Nearness::Day, 1)]);
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
        assert_eq!(said(&expiries, what(), AT, AT - DAY_SECONDS), [(Nearness::Day, 1)]);
        assert_eq!(said(&expiries, what(), 2 * AT, AT), []);
        assert_eq!(said(&expiries, what(), 2 * AT, 2 * AT - 1), [(Nearness::Day, 1)]);
        assert_eq!(expiries.observe([], AT), []);
        assert_eq!(
            said(&expiries, what(), 2 * AT, 2 * AT - 1),
            [],
            "a link that comes and goes says nothing new"
        );
    }

    #[test]
    fn what_was_said_is_not_said_again_in_the_next_life() {
        let (now, before) = (AT - 6 * DAY_SECONDS, Expiries::default());
        assert_eq!(said(&before, Dated::Own, AT, now), [(Nearness::Week, 6)]);
        let after = Expiries::default();
        after.remember(&before.to_json(now));
        assert_eq!(said(&after, Dated::Own, AT, now), []);
        assert_eq!(said(&after, Dated::Pinned("B".into()), AT, now), [(Nearness::Week, 6)]);
        assert_eq!(said(&after, Dated::Own, AT, AT - 1), [(Nearness::Day, 1)]);
        assert_eq!(said(&after, Dated::Own, 2 * AT, 2 * AT - 1), [(Nearness::Day, 1)], "another certificate");
        // Long ago, it is forgotten; nonsense was never said.
        assert_eq!(after.to_json(3 * AT), "{}");
        after.remember("nonsense");
        assert_eq!(after.to_json(0), "{}");
    }

    #[test]
    fn of_a_revocation_list_only_the_end_is_said() {
        let (expiries, what) = (Expiries::default(), || Dated::Lists("ssl:x".into()));
        assert_eq!(said(&expiries, what(), AT, AT - DAY_SECONDS), []);
        assert_eq!(said(&expiries, what(), AT, AT), [(Nearness::Past, 0)]);
        assert_eq!(said(&expiries, what(), AT, AT + 1), []);
    }
}
