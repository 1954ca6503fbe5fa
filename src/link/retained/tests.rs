use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Bound;

use proptest::prelude::*;

use super::copies::Copies;
use super::copies::Missing;
use super::copies::Present;
use super::copies::is_newer;
use super::pages::Merge;
use super::pages::Named;
use super::*;
use crate::link::compress::Deflater;
use crate::link::compress::Inflater;
use crate::link::message::MessageProperties;
use crate::link::message::Outgoing;
use crate::link::payload;
use crate::link::payload::Answer;
use crate::link::payload::Control;
use crate::link::payload::page;
use crate::link::payload::page::PageBuilder;
use crate::link::payload::page::Put;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;

const TOPICS: [&str; 9] = ["a", "a/1", "a/2", "a/b/1", "a-b", "b", "b/1", "b/a/1", "c/1"];
const WANTED: [&str; 3] = ["+/1", "a/#", "b/1"];
/// A few messages.
const PAGE: usize = 350;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_000_000 + mono_ms }
}

/// A message in a page.
pub(crate) fn outgoing<'a>(topic: &'a str, payload: &'a [u8], timestamp_ms: u64) -> Outgoing<'a> {
    Outgoing {
        id: [0; 16],
        qos: QoS::AtLeastOnce,
        from: None,
        username: None,
        peer: None,
        retain: true,
        topic,
        payload,
        timestamp_ms,
        properties: MessageProperties::default(),
    }
}

fn answer(payload: &[u8], check: impl FnOnce(PageAnswer<'_>)) {
    let mut inflater = Inflater::default();
    match payload::parse_answer(inflater.open(payload).unwrap()) {
        Ok(Answer::RetainedPage(answer)) => check(answer),
        other => panic!("{other:?}"),
    }
}

fn puller(filters: &[&str]) -> Puller {
    let mut puller = Puller::default();
    filters.iter().for_each(|filter| puller.want(filter));
    puller
}

/// An answer to the request of this number, with one message of each of these topics.
fn page_of(number: u64, topics: &[&str], up_to: Option<&str>) -> Vec<u8> {
    let mut page = PageBuilder::new("n", 1, number, 7, 10_000);
    for topic in topics {
        assert_eq!(page.push(&outgoing(topic, b"x", 1)), Put::Taken);
    }
    page.finish(up_to, &mut Deflater::default(), 100)
}

#[test]
fn a_request_and_its_answer_come_back_as_they_were() {
    let mut payload = Vec::new();
    let filters: [Box<str>; 2] = ["a/#".into(), "b".into()];
    for after in [None, Some("a/1")] {
        payload.clear();
        let asked = Asked { number: 9, filters: &filters, after, bytes_max: 70_000 };
        page::put_page_request(&mut payload, "node", 5, &asked);
        let mut inflater = Inflater::default();
        let read = payload::parse_control(inflater.open(&payload).unwrap()).unwrap();
        let Control::RetainedPage(request) = read else { panic!("{read:?}") };
        assert_eq!((request.actor, request.incarnation, request.number), ("node", 5, 9));
        assert_eq!((request.after, request.bytes_max), (after, 70_000));
        assert_eq!(request.filters.collect::<Vec<_>>(), ["a/#", "b"]);
    }
    for up_to in [None, Some("b"), Some("")] {
        answer(&page_of(9, &["a", "b"], up_to), |answer| {
            assert_eq!((answer.number, answer.as_of_ms, answer.up_to), (9, 7, up_to));
            let kept = answer.messages.keep();
            let topics: Vec<_> = kept.iter().map(|message| (message.topic, message.timestamp_ms)).collect();
            assert_eq!(topics, [("a", 1), ("b", 1)]);
        });
    }
}

#[test]
fn what_is_no_request_or_page_is_refused() {
    let refused = |filters: &[&str]| {
        let filters: Vec<Box<str>> = filters.iter().map(|filter| (*filter).into()).collect();
        let mut payload = Vec::new();
        let asked = Asked { number: 1, filters: &filters, after: None, bytes_max: 1 };
        page::put_page_request(&mut payload, "n", 1, &asked);
        payload::parse_control(Inflater::default().open(&payload).unwrap()).is_err()
    };
    assert!(!refused(&["a"]) && refused(&["a/#/b"]) && refused(&[""]) && refused(&["$LINK/#"]));
    assert!(refused(&["a"; FILTERS_MAX as usize + 1]));
    for topics in [["b", "a"], ["a", "a"]] {
        let payload = page_of(1, &topics, None);
        assert!(payload::parse_answer(Inflater::default().open(&payload).unwrap()).is_err(), "{topics:?}");
    }
}

#[test]
fn there_is_one_request_at_a_time_and_the_next_one_behind_its_page() {
    let mut puller = puller(&["a/#"]);
    assert!(puller.ask(at(0), 1, 9_000, 9_000).is_some_and(|asked| asked.after.is_none()));
    puller.want("b");
    assert!(puller.ask(at(0), 2, 9_000, 9_000).is_none());
    answer(&page_of(1, &["a/1"], Some("a/1")), |answer| {
        let page = puller.answered(at(1), &answer).unwrap().unwrap();
        assert_eq!((page.after.as_deref(), page.up_to.as_deref(), page.since_ms), (None, Some("a/1"), 7));
        assert_eq!(puller.answered(at(1), &answer), Ok(None), "once");
    });
    assert!(puller.ask(at(1), 2, 9_000, 9_000).is_none(), "it is being applied");
    puller.applied(at(2), Some("a/1".into()), Applied::Done);
    let asked =
        puller.ask(at(2), 2, 9_000, 9_000).map(|asked| (asked.number, asked.after.map(str::to_owned)));
    assert_eq!(asked, Some((2, Some("a/1".to_owned()))));
    answer(&page_of(2, &[], None), |answer| assert!(puller.answered(at(3), &answer).unwrap().is_some()));
    puller.applied(at(3), None, Applied::Done);
    let next = puller.ask(at(3), 3, 9_000, 9_000).map(|asked| asked.filters.to_vec());
    assert_eq!(next, Some(vec!["b".into()]));
    assert!(!puller.is_overdue(at(3 + PAGE_TIMEOUT_MS - 1)) && puller.is_overdue(at(3 + PAGE_TIMEOUT_MS)));
    puller.forget();
    assert!(puller.is_idle() && !puller.is_overdue(at(100_000)) && puller.poll_timeout().is_none());
}

#[test]
fn a_page_of_other_topics_than_were_asked_for_is_none() {
    for (topics, up_to) in [(&["a/1"][..], None), (&["a/3"], Some("a/2")), (&[], Some("a"))] {
        let mut puller = puller(&["a/#"]);
        puller.ask(at(0), 1, 9_000, 9_000).unwrap();
        answer(&page_of(1, &["a/1"], Some("a/1")), |answer| {
            puller.answered(at(0), &answer).unwrap().unwrap();
        });
        puller.applied(at(0), Some("a/1".into()), Applied::Done);
        puller.ask(at(0), 1, 9_000, 9_000).unwrap();
        answer(&page_of(2, topics, up_to), |answer| {
            assert_eq!(puller.answered(at(0), &answer), Err(NoPage), "{topics:?} {up_to:?}");
        });
    }
}

#[test]
fn what_is_not_there_yet_or_uncertain_is_asked_about_later() {
    let mut puller = puller(&["a"]);
    puller.ask(at(0), 1, 9_000, 9_000).unwrap();
    answer(&page_of(1, &[], Some("")), |answer| assert_eq!(puller.answered(at(0), &answer), Ok(None)));
    assert!(puller.ask(at(0), 1, 9_000, 9_000).is_none());
    let due = puller.poll_timeout().unwrap();
    puller.ask(at(due), 1, 9_000, 9_000).unwrap();
    answer(&page_of(2, &[], None), |answer| assert!(puller.answered(at(due), &answer).unwrap().is_some()));
    puller.applied(at(due), None, Applied::Unsure);
    assert!(puller.ask(at(due), 1, 9_000, 9_000).is_none() && !puller.is_idle());
    let due = puller.poll_timeout().unwrap();
    assert!(puller.ask(at(due), 1, 9_000, 9_000).is_some());
}

#[test]
fn more_than_can_be_remembered_makes_a_page_void() {
    let mut copies = Copies::default();
    copies.ask();
    for number in 0..=copies::CAME_MAX {
        assert!(copies.is_current(1), "{number}");
        copies.note(&number.to_string(), 1);
    }
    assert!(!copies.is_current(1));
    copies.ask();
    assert!(copies.is_current(2) && !copies.is_current(1));
}

#[test]
fn a_message_longer_than_any_answer_is_passed_over() {
    let mut page = PageBuilder::new("n", 1, 1, 1, 1_000);
    assert_eq!(page.push(&outgoing("a", &[0; 1_000], 1)), Put::TooLarge);
    assert_eq!(page.push(&outgoing("b", &[0; 10], 1)), Put::Taken);
    assert_eq!(page.push(&outgoing("c", &[0; 900], 1)), Put::Full);
    let payload = page.finish(Some("b"), &mut Deflater::default(), usize::MAX);
    assert!(payload.len() <= 1_000);
    let mut alone = PageBuilder::new("n", 1, 1, 1, 300_000);
    assert_eq!(alone.push(&outgoing("a", &[0; 200_000], 1)), Put::Taken, "one may be longer than a page");
}

/// Topic, value, stamp.
#[derive(Clone)]
struct Own(String, u8, u64);

impl Named for Own {
    fn topic(&self) -> &str {
        &self.0
    }
}

/// A message under way to the receiver: topic, stamp, value or nothing, and its number.
type Live = (&'static str, u64, Option<u8>, u64);

/// A request that the peer has.
struct Request {
    number: u64,
    filters: Vec<String>,
    after: Option<String>,
    asked_ms: u64,
    /// The number of the last message that was sent by then.
    sent: u64,
}

/// Two brokers, the one that retains and the one that wants copies.
#[derive(Default)]
struct Two {
    now_ms: u64,
    own: BTreeMap<&'static str, (u8, u64)>,
    lane: VecDeque<Live>,
    sent: u64,
    puller: Puller,
    copies: Copies,
    /// Stamp, value, whether it is a copy.
    there: BTreeMap<String, (u64, u8, bool)>,
    request: Option<Request>,
    answer: Option<Vec<u8>>,
    page: Option<Page>,
}

impl Two {
    fn present(&self, topic: &str) -> Present {
        match self.there.get(topic) {
            None => Present::Nothing,
            Some((stamp_ms, _, true)) => Present::Copy(*stamp_ms),
            Some((stamp_ms, _, false)) => Present::Other(*stamp_ms),
        }
    }

    fn publish(&mut self, topic: &'static str, value: Option<u8>, is_lost: bool) {
        let stamp_ms = at(self.now_ms).unix_ms;
        match value {
            Some(value) => drop(self.own.insert(topic, (value, stamp_ms))),
            None => drop(self.own.remove(topic)),
        }
        if !is_lost && WANTED.iter().any(|filter| topic::matches(filter, topic)) {
            self.sent += 1;
            self.lane.push_back((topic, stamp_ms, value, self.sent));
        }
    }

    fn receive(&mut self) {
        let Some((topic, stamp_ms, value, _)) = self.lane.pop_front() else { return };
        self.copies.note(topic, stamp_ms);
        if is_newer(stamp_ms, self.present(topic)) {
            match value {
                Some(value) => drop(self.there.insert(topic.to_owned(), (stamp_ms, value, true))),
                None => drop(self.there.remove(topic)),
            }
        }
    }

    fn ask(&mut self) {
        let now = at(self.now_ms);
        let Some(asked) = self.puller.ask(now, 1, 1_000, PAGE) else { return };
        self.copies.ask();
        let filters = asked.filters.iter().map(|filter| filter.to_string()).collect();
        let Asked { number, after, .. } = asked;
        let after = after.map(str::to_owned);
        self.request = Some(Request { number, filters, after, asked_ms: now.unix_ms, sent: self.sent });
    }

    /// The peer answers, at its leisure.
    fn answer(&mut self) {
        let Some(Request { number, filters, after, asked_ms, sent }) = self.request.take() else { return };
        let mut page = PageBuilder::new("n", 1, number, asked_ms, PAGE);
        let mut up_to = Some(after.clone().unwrap_or_default());
        let is_time = after.is_some() || self.lane.front().is_none_or(|(.., number)| *number > sent);
        if is_time {
            let own = &self.own;
            let mut look = |filter: &str, from: Bound<&str>, _: usize| {
                let range = own.range::<str, _>((from, Bound::Unbounded));
                let mut found = range.filter(|(topic, _)| topic::matches(filter, topic));
                let one =
                    found.next().map(|(topic, (value, stamp))| Own((*topic).to_owned(), *value, *stamp));
                (one.into_iter().collect(), found.next().map(|(topic, _)| (*topic).to_owned()))
            };
            let mut merge = Merge::new(filters.iter().map(String::as_str), after.as_deref());
            let put = |page: &mut PageBuilder, own: &Own| page.push(&outgoing(&own.0, &[own.1], own.2));
            up_to = None;
            let mut last = None;
            while let Some(own) = merge.next(&mut look) {
                if put(&mut page, &own) == Put::Full {
                    up_to = last;
                    break;
                }
                last = Some(own.0);
            }
        }
        self.answer = Some(page.finish(up_to.as_deref(), &mut Deflater::default(), 100));
    }

    fn take_answer(&mut self) {
        let Some(payload) = self.answer.take() else { return };
        let now = at(self.now_ms);
        answer(&payload, |answer| self.page = self.puller.answered(now, &answer).unwrap());
    }

    fn apply(&mut self) {
        let Some(page) = self.page.take() else { return };
        let asked = self.copies.asked();
        let mut applied = if self.copies.is_current(asked) { Applied::Done } else { Applied::Overtaken };
        let mut listed = Vec::new();
        for message in page.messages.iter() {
            let (name, stamp_ms, value) = (message.topic, message.timestamp_ms, message.payload[0]);
            let is_same = self.there.get(name).is_some_and(|(_, known, _)| *known == value);
            if self.copies.page(name, stamp_ms, self.present(name), is_same) {
                self.there.insert(name.to_owned(), (stamp_ms, value, true));
            }
            listed.push(name.to_owned());
        }
        let is_within = |name: &String| {
            page.filters.iter().any(|filter| topic::matches(filter, name))
                && page.after.as_deref().is_none_or(|after| name.as_str() > after)
                && page.up_to.as_deref().is_none_or(|up_to| name.as_str() <= up_to)
        };
        self.there.retain(|name, (stamp_ms, _, is_copy)| {
            if !*is_copy || !is_within(name) || listed.contains(name) {
                return true;
            }
            let missing = self.copies.missing(name, *stamp_ms, page.as_of_ms);
            if missing == Missing::Unsure {
                applied = Applied::Unsure;
            }
            missing != Missing::Gone
        });
        self.copies.rest();
        self.puller.applied(at(self.now_ms), page.up_to, applied);
    }

    /// The connections break, and what was under way is lost; then there are new ones.
    fn cut(&mut self) {
        self.lane.clear();
        (self.request, self.answer, self.page) = (None, None, None);
        self.copies.ask();
        self.copies.rest();
        self.puller.forget();
        WANTED.iter().for_each(|filter| self.puller.want(filter));
    }

    fn step(&mut self, (what, which, value): (u8, usize, u8)) {
        let topic = TOPICS[which];
        match what {
            0..=5 => self.publish(topic, Some(value), what == 5),
            6..=8 => self.publish(topic, None, what == 8),
            9..=14 => self.receive(),
            15..=17 => self.ask(),
            18..=20 => self.answer(),
            21..=23 => self.take_answer(),
            24..=26 => self.apply(),
            27 => self.cut(),
            28 => {
                let stamp_ms = at(self.now_ms).unix_ms;
                self.there.insert(topic.to_owned(), (stamp_ms, value, false));
            }
            _ => self.now_ms += u64::from(value) * 20,
        }
    }

    /// Nothing gets lost any more, and everything is waited for.
    fn rest(&mut self) {
        for _ in 0..200 {
            (0..self.lane.len()).for_each(|_| self.receive());
            self.ask();
            self.answer();
            self.take_answer();
            self.apply();
            self.now_ms = self.puller.poll_timeout().map_or(self.now_ms, |due| due.max(self.now_ms));
        }
        assert!(self.puller.is_idle());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is lost, cut, or overtaken: at rest the copies are what the other retains under the filters, unless
    /// something newer was published here.
    #[test]
    fn at_rest_the_copies_are_what_the_peer_retains(
        steps in prop::collection::vec((0_u8..34, 0..TOPICS.len(), any::<u8>()), 0..150),
        last in prop::collection::vec((0_u8..34, 0..TOPICS.len(), any::<u8>()), 0..60),
    ) {
        let mut two = Two::default();
        two.cut();
        steps.into_iter().for_each(|step| two.step(step));
        // From here on only connections that break lose something, and they do not.
        two.cut();
        for (what, which, value) in last {
            let what = match what { 5 => 4, 8 => 7, 27 => 26, 28 => 33, other => other };
            two.step((what, which, value));
        }
        two.rest();
        for topic in TOPICS {
            let is_wanted = WANTED.iter().any(|filter| topic::matches(filter, topic));
            let own = two.own.get(topic).filter(|_| is_wanted);
            match (two.there.get(topic), own) {
                (Some((stamp_ms, value, true)), own) => prop_assert_eq!(own, Some(&(*value, *stamp_ms)), "{}", topic),
                (Some((here_ms, _, false)), own) => {
                    prop_assert!(own.is_none_or(|(_, stamp_ms)| stamp_ms <= here_ms), "{}", topic);
                }
                (None, own) => prop_assert!(own.is_none(), "{}", topic),
            }
        }
    }

    /// Pages together are what the filters match, in order and each once.
    #[test]
    fn a_merge_gives_what_any_filter_matches_once_and_in_order(
        names in prop::collection::btree_set("[ab]?(/[ab]?){0,2}", 0..20),
        filters in prop::collection::vec(crate::link::route::tests::filter(), 0..4),
        cut in 1_usize..5,
    ) {
        let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let mut look = |filter: &str, from: Bound<&str>, _: usize| {
            let begins = |name: &&String| match from {
                Bound::Unbounded => true,
                Bound::Included(from) => name.as_str() >= from,
                Bound::Excluded(from) => name.as_str() > from,
            };
            let mut found = names.iter().filter(begins).filter(|name| topic::matches(filter, name));
            let one: Vec<Own> = found.by_ref().take(2).map(|name| Own(name.clone(), 0, 0)).collect();
            (one, found.next().cloned())
        };
        let mut got: Vec<String> = Vec::new();
        loop {
            let after = got.last().cloned();
            let mut merge = Merge::new(filters.iter().map(String::as_str), after.as_deref());
            let page: Vec<String> =
                std::iter::from_fn(|| merge.next(&mut look)).take(cut).map(|own| own.0).collect();
            if page.is_empty() {
                break;
            }
            got.extend(page);
        }
        let expected: Vec<&String> =
            names.iter().filter(|name| filters.iter().any(|filter| topic::matches(filter, name))).collect();
        prop_assert_eq!(got.iter().collect::<Vec<_>>(), expected);
    }
}
